//! The log port: partitions of records that are appended, read in order, and trimmed at the front.
//!
//! ```text
//! partition:   [trimmed ....)[start ........ readable ........ end)
//!                             ^ first record                   ^ offset of the next append
//! ```
//!
//! Invariants an implementation MUST keep:
//! - Offsets of a partition are dense: the records of one `append` for a partition take the
//!   offsets `end`, `end + 1`, .. in the order given.
//! - `append` returns `Ok` only when every record of the call is durable.
//! - After `Err(AppendError::Refused)` none of the records stands and the log can be used on;
//!   the same group may be given again. Only if the process ends before another append succeeds,
//!   the next one MAY find a refused group, whole, as it may find one whose append never returned.
//!   After `Err(AppendError::Unknown)` each record may stand or not.
//! - `read` yields exactly the records at `from..end`, in order, or `ReadError::Trimmed`.
//! - `trim` never removes a record at or behind `before`; it may keep more than it must.
//!
//! Deliberately absent: transactions over partitions, conditional appends, locks.

use thiserror::Error;

/// The position of a record in its partition; the first record ever has offset 0.
pub type Offset = u64;

/// The number of a log partition; an app's journals are partitions `0..shards`.
pub type Partition = u32;

/// One record of a group append.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Where it goes.
    pub partition: Partition,
    /// What it holds; 1 byte to `limits::FRAME_BYTES_MAX`.
    pub bytes: &'a [u8],
}

/// Why an append was not confirmed.
#[derive(Debug, Error)]
pub enum AppendError {
    /// Nothing of the group stands; the log is usable once the cause is gone.
    #[error("the log refused an append: {0}")]
    Refused(String),
    /// Parts of the group may stand; only reading the log can tell.
    #[error("the outcome of an append is unknown: {0}")]
    Unknown(String),
}

/// Why a read failed.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The wanted offset lies before the first record that is still kept.
    #[error(
        "offset {wanted} of partition {partition} was trimmed; the first one kept is {start}: start from a newer snapshot"
    )]
    Trimmed {
        /// The partition that was read.
        partition: Partition,
        /// The offset asked for.
        wanted: Offset,
        /// The first offset that can be read.
        start: Offset,
    },
    /// The bytes are not what was written, or cannot be read.
    #[error("{0}")]
    Damaged(String),
}

/// A set of partitions; see the module for the contract.
pub trait Log: Send {
    /// Appends a group of records, for any number of partitions, makes all of them durable, and
    /// returns the offset of each.
    ///
    /// # Errors
    /// [`AppendError::Refused`] if nothing stands, [`AppendError::Unknown`] if anything may.
    fn append(&mut self, group: &[Record<'_>]) -> Result<Vec<Offset>, AppendError>;

    /// Calls `each` with every record of `partition` at `from` and behind, in order.
    ///
    /// # Errors
    /// [`ReadError::Trimmed`] if `from` is no longer kept, [`ReadError::Damaged`] if bytes are bad.
    fn read(
        &mut self,
        partition: Partition,
        from: Offset,
        each: &mut dyn FnMut(Offset, &[u8]),
    ) -> Result<(), ReadError>;

    /// As [`Self::read`], but only the records of at most `bytes_max` bytes; the others need not be
    /// looked at, not even for damage.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn read_short(
        &mut self,
        partition: Partition,
        from: Offset,
        bytes_max: usize,
        each: &mut dyn FnMut(Offset, &[u8]),
    ) -> Result<(), ReadError> {
        self.read(partition, from, &mut |offset, bytes| {
            if bytes.len() <= bytes_max {
                each(offset, bytes);
            }
        })
    }

    /// Returns the offset of the first record that is kept (equal to `end` if there is none).
    fn start(&self, partition: Partition) -> Offset;

    /// Returns the offset that the next record of `partition` gets.
    fn end(&self, partition: Partition) -> Offset;

    /// Allows the log to forget the records of `partition` before `before`.
    ///
    /// # Errors
    /// Returns a text that names the file if space could not be given back; nothing else changes.
    fn trim(&mut self, partition: Partition, before: Offset) -> Result<(), String>;
}

/// A log in memory: durable as long as the value lives.
///
/// ```
/// use statefn_core::ports::log::{Log, MemoryLog, Record};
/// let mut log = MemoryLog::new(2);
/// log.append(&[Record { partition: 1, bytes: b"a" }]).unwrap();
/// assert_eq!((log.start(1), log.end(1), log.end(0)), (0, 1, 0));
/// ```
#[derive(Debug, Clone, Default)]
pub struct MemoryLog {
    partitions: Vec<MemoryPartition>,
}

#[derive(Debug, Clone, Default)]
struct MemoryPartition {
    start: Offset,
    records: std::collections::VecDeque<Vec<u8>>,
}

impl MemoryLog {
    /// An empty log of `partitions` partitions.
    #[must_use]
    pub fn new(partitions: u32) -> Self {
        Self { partitions: vec![MemoryPartition::default(); partitions as usize] }
    }
}

impl Log for MemoryLog {
    fn append(&mut self, group: &[Record<'_>]) -> Result<Vec<Offset>, AppendError> {
        let mut offsets = Vec::with_capacity(group.len());
        for record in group {
            offsets.push(self.end(record.partition));
            self.partitions[record.partition as usize].records.push_back(record.bytes.to_vec());
        }
        Ok(offsets)
    }

    fn read(
        &mut self,
        partition: Partition,
        from: Offset,
        each: &mut dyn FnMut(Offset, &[u8]),
    ) -> Result<(), ReadError> {
        let MemoryPartition { start, records } = &self.partitions[partition as usize];
        if from < *start {
            return Err(ReadError::Trimmed { partition, wanted: from, start: *start });
        }
        for (offset, bytes) in (*start..).zip(records) {
            if offset >= from {
                each(offset, bytes);
            }
        }
        Ok(())
    }

    fn start(&self, partition: Partition) -> Offset {
        self.partitions[partition as usize].start
    }

    fn end(&self, partition: Partition) -> Offset {
        let partition = &self.partitions[partition as usize];
        partition.start + partition.records.len() as u64
    }

    fn trim(&mut self, partition: Partition, before: Offset) -> Result<(), String> {
        let partition = &mut self.partitions[partition as usize];
        while partition.start < before && partition.records.pop_front().is_some() {
            partition.start += 1;
        }
        Ok(())
    }
}

/// The suite that every [`Log`] passes; `open` makes an empty log with at least 3 partitions.
///
/// # Panics
/// If the log breaks its contract.
pub fn conformance(mut open: impl FnMut() -> Box<dyn Log>) {
    let read = |log: &mut dyn Log, partition, from| {
        let mut out = Vec::new();
        log.read(partition, from, &mut |offset, bytes| out.push((offset, bytes.to_vec()))).map(|()| out)
    };
    let mut log = open();
    assert_eq!((log.start(0), log.end(0)), (0, 0), "a new partition is empty");
    assert_eq!(read(&mut *log, 0, 0).expect("an empty partition can be read"), vec![]);

    let group = [
        Record { partition: 0, bytes: b"a0" },
        Record { partition: 2, bytes: b"c0" },
        Record { partition: 0, bytes: b"a1" },
    ];
    assert_eq!(log.append(&group).expect("a group of two partitions is taken"), [0, 0, 1]);
    assert_eq!((log.end(0), log.end(1), log.end(2)), (2, 0, 1), "offsets are dense for each partition");
    assert_eq!(read(&mut *log, 0, 0).expect("readable"), vec![(0, b"a0".to_vec()), (1, b"a1".to_vec())]);
    assert_eq!(read(&mut *log, 0, 1).expect("readable"), vec![(1, b"a1".to_vec())]);
    assert_eq!(read(&mut *log, 0, 2).expect("the end can be read"), vec![]);

    let large = vec![7_u8; 300_000];
    for _ in 0..5 {
        log.append(&[Record { partition: 1, bytes: &large }]).expect("a large record is taken");
    }
    assert_eq!(read(&mut *log, 1, 4).expect("readable"), vec![(4, large)]);

    log.append(&[Record { partition: 1, bytes: b"short" }]).expect("a short record is taken");
    let mut short = Vec::new();
    log.read_short(1, 2, 5, &mut |offset, bytes| short.push((offset, bytes.to_vec()))).expect("readable");
    assert_eq!(short, vec![(5, b"short".to_vec())], "a record of just the limit is short");
    log.read_short(1, 2, 4, &mut |offset, _| panic!("{offset} is longer than the limit")).expect("readable");

    log.trim(1, 3).expect("trims");
    assert!(log.start(1) <= 3, "trim keeps what is at or behind `before`");
    assert_eq!(log.end(1), 6, "trim does not change the end");
    assert_eq!(read(&mut *log, 1, 3).expect("readable").len(), 3);
    if log.start(1) > 0 {
        assert!(matches!(read(&mut *log, 1, 0), Err(ReadError::Trimmed { partition: 1, wanted: 0, .. })));
    }
    log.trim(1, 99).expect("trimming behind the end is no error");
    assert_eq!(log.end(1), 6, "trim does not change the end");
    let next = log.append(&[Record { partition: 1, bytes: b"next" }]).expect("a trimmed partition goes on");
    assert_eq!(next, [6], "offsets go on");
    assert_eq!(read(&mut *log, 1, 6).expect("what came after the trim is kept"), vec![(6, b"next".to_vec())]);
    assert_eq!(read(&mut *log, 0, 0).expect("other partitions are untouched").len(), 2);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_log_conforms() {
        conformance(|| Box::new(MemoryLog::new(3)));
    }
}
