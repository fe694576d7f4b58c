//! The runtime of statefn: it executes what the core decides.
//!
//! The core (`statefn_core`) is a pure state machine; here are the threads, the clock and the
//! files that it is driven with. Users reach this crate through `statefn`.

mod clock;
pub mod egress;
pub mod embedded;
pub mod engine;
pub mod failpoint;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod ingress;
mod rules;
