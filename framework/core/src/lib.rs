//! The pure core of statefn: what a stateful function is, and how a shard of them commits.
//!
//! Everything here is a deterministic function of its arguments: the runtime and the simulator
//! drive the same [`shard::Shard`], which answers each input with actions. Users reach this crate
//! through `statefn`.
//!
//! Invariants: no clock, randomness, threads, IO or hash-order iteration (`clippy.toml` beside
//! `Cargo.toml` bans them, a tidy test reads the sources); the invariants I1, I2, I5 and I6 of
//! `ARCHITECTURE.md` are asserted always.
//!
//! Deliberately absent: anything that runs async code (activities are named here, not run), and any
//! knowledge of Kafka, files or HTTP.

#![forbid(unsafe_code)]

pub mod activity;
pub mod address;
pub mod ask;
pub mod codec;
pub mod context;
pub mod dead_letter;
pub mod decoded;
pub mod effect;
pub mod egress;
pub mod envelope;
pub mod error;
pub mod function;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod graph;
pub mod harness;
pub mod host;
pub mod ingress;
pub mod key;
pub mod limits;
pub mod message;
pub mod pipeline;
pub mod ports;
pub mod program;
pub mod schema;
pub mod shard;
pub mod state;
pub mod time;
#[cfg(test)]
mod trial;
pub mod view;
pub mod watch;

pub use self::{
    address::Address,
    context::Context,
    egress::Egress,
    error::{DecodeError, Failed, Fault, LinkError, Never, Reject},
    key::{IntoKey, Key, KeyBytes},
    message::{Encoding, Message, Wire},
    state::State,
    time::{Due, EventTime, ProcessingTime},
};
