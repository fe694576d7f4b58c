//! Readers of bounded input: files and generators.
//!
//! Each is a [`Source`](statefn_core::ports::ingress::Source), whose contract stands there. What
//! cannot be read on (a truncated archive, a missing column) is a [`SourceError`].
//!
//! Invariant: memory is bounded by one window of the file, at most a record's limit and a buffer.
//!
//! Deliberately absent: following a file that grows, and a limit of records per second; a caller
//! that wants one asks for fewer records.

mod error;
mod file;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod generator;
mod window;

mod delimited;
mod lines;
mod raw;
mod rows;

pub use self::{
    error::SourceError,
    file::{FileSource, Format},
    generator::GeneratorSource,
    raw::{Frontier, RawStretch, Routed},
};
