//! Runs the shards of statefn's core: reads ingresses, commits epochs, feeds egresses.
//!
//! The core decides, this crate only executes: clocks, files and threads live here.

pub mod egress;
pub mod ingress;
