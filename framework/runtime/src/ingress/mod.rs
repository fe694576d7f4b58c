//! Readers of bounded input: files and generators.
//!
//! A [`Source`] reads one partition of an ingress from a [`Position`] on. A source, a
//! [`Stretch`] and an [`IngressBatch`](statefn_core::ingress::IngressBatch) are three sizes of one
//! thing: all of the input, what one call of [`Source::read`] takes of it, and the part of that for
//! one shard.
//!
//! Invariants:
//! - Opened again at any position it has returned, a source gives the same records as before, with
//!   the same offsets; so a crash is healed by reading again.
//! - A bad record becomes a dead letter and the position moves past it. Only input that cannot be
//!   read on (a truncated archive, a missing column) is a [`SourceError`], and everything before
//!   that place has been handed out by then.
//! - Memory is bounded: one window of the file, at most a record's limit and a buffer.
//!
//! Deliberately absent: following a file that grows, and a limit of records per second; a caller
//! that wants one asks for fewer records.

mod error;
mod file;
mod generator;
mod window;

mod delimited;
mod lines;
mod rows;

use statefn_core::{
    ingress::{Batches, ErasedIngress},
    shard::frame::Position,
};

pub use self::{
    error::SourceError,
    file::{FileSource, Format},
    generator::GeneratorSource,
};

/// How much one [`Source::read`] takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimit {
    /// The most records, unreadable ones included.
    pub records: u64,
    /// About how many bytes: the stretch ends with the record that reaches it, counted as it is
    /// read or as the messages that the router makes of it, whichever is more.
    pub bytes: u64,
}

/// What one [`Source::read`] took of its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The offset it begins at: where the stretch before it ended.
    pub from: u64,
    /// The position behind it.
    pub to: Position,
}

/// One partition of an ingress that has an end.
pub trait Source: Send {
    /// Reads the next records and routes them into the batches of the shards.
    ///
    /// A stretch with `to.is_ended` is the last one; reading on gives it again, empty.
    ///
    /// # Errors
    /// If the input cannot be read on. All records before that place were handed out by the calls
    /// before. The error stays: once the cause is gone, open a new source at the last position.
    fn read(
        &mut self,
        ingress: &dyn ErasedIngress,
        batches: &mut Batches,
        limit: ReadLimit,
    ) -> Result<Stretch, SourceError>;

    /// The position behind what was read.
    fn position(&self) -> Position;

    /// How many records became dead letters since the source was opened.
    fn dead_letters(&self) -> u64;

    /// About how much of the input was read, in thousandths; 0 if that is not known, 1,000 at the end.
    fn read_permille(&self) -> u64 {
        if self.position().is_ended { 1000 } else { 0 }
    }
}

/// Writes where a stretch stands into the batches of all shards, also of those without messages.
///
/// `ingress` is the place of the ingress in the program.
pub fn finish_stretch(batches: &mut Batches, ingress: usize, partition: u32, stretch: Stretch) {
    for batch in &mut batches.shards {
        batch.ingress = ingress;
        batch.partition = partition;
        batch.from = stretch.from;
        batch.to = stretch.to;
    }
}
