//! The port of a log that other processes write to as well: appends that are under way side by
//! side, and partitions that are followed as they grow. A [`Log`](super::log::Log) of the same
//! partitions is there for what is read once.
//!
//! Invariants an implementation MUST keep:
//! - The records of an append take dense offsets that begin with the one that is told, and are
//!   durable by then. Records of others may stand before them, behind them, and never between them;
//!   where that cannot be promised, [`AppendError::Unknown`] is told.
//! - What is told as refused stands nowhere and never will. What is told as unknown may stand, in
//!   any part, now or later.
//! - Each append is told once. Appends to a partition that all stand do so in the order in which
//!   they were begun.
//! - A follower gives each record of a partition behind the place that it was told once, in order;
//!   where that was trimmed it goes on with the first one kept.
//!
//! Deliberately absent: groups, and an order between partitions: none waits for another.

use std::{sync::Arc, time::Duration};

use super::log::{AppendError, Log, Offset, Partition};

/// A log of which `start` and `end` are as of the last look, since others write and trim it too.
pub trait SharedLog: Log {
    /// Looks where partitions begin and end.
    ///
    /// # Errors
    /// A text that names the log and the cause; what was known before stays.
    fn refresh(&mut self, partitions: &[Partition]) -> Result<(), String>;

    /// Asks where partitions end, from now on: behind each append that anybody was told of before.
    ///
    /// # Errors
    /// A text that names the log and the cause.
    fn ends(&mut self, partitions: &[Partition]) -> Result<Vec<Offset>, String>;
}

/// Who is told what came of an append: the offset of its first record.
pub type Told = Box<dyn FnOnce(Result<Offset, AppendError>) + Send>;

/// Begins appends; see the module for the contract.
pub trait Appender: Send + Sync {
    /// Begins to append records to a partition, in order, and returns at once; `told` is called
    /// later, from any thread, and must not wait for anything.
    fn append(&self, partition: Partition, records: Vec<Arc<Vec<u8>>>, told: Told);
}

/// Reads partitions as they grow; see the module for the contract.
pub trait Follower: Send {
    /// Follows a partition from an offset on, also one that is followed already.
    fn follow(&mut self, partition: Partition, from: Offset);

    /// Follows a partition no more.
    fn leave(&mut self, partition: Partition);

    /// Lets a partition that is followed rest, or go on.
    fn rest(&mut self, partition: Partition, is_resting: bool);

    /// Waits for records, as long as `patience` at most, and hands out those that are there.
    ///
    /// # Errors
    /// A text that names the partition and the cause; what is followed stays so, and the next call goes on.
    fn next(&mut self, patience: Duration, each: &mut dyn FnMut(Partition, Offset, &[u8])) -> Result<(), String>;
}
