//! The log that all workers of a world share, and what may happen to an append on its way.
//!
//! Any worker may append to any partition at any time, which is what makes zombies possible.
//! Trimmed records can no longer be read through the port, but the world keeps them, so that
//! checks can fold a whole journal.
//!
//! Invariant: offsets are dense, and the records of one append that stand whole follow each other.
//!
//! Deliberately absent: `Log::append`. Appends take time and may fail in parts, so the world
//! executes them itself ([`SharedLog::put`]).

use std::{collections::BTreeMap, sync::Arc};

use statefn_core::{
    ports::log::{AppendError, Log, Offset, Partition, ReadError, Record},
    shard::frame,
};

use crate::random::Random;

/// One record.
pub type Bytes = Arc<Vec<u8>>;

#[derive(Debug, Default)]
struct Journal {
    start: Offset,
    /// Everything that was ever appended, what is trimmed included.
    records: Vec<Bytes>,
}

/// The partitions of all journals.
#[derive(Debug)]
pub struct SharedLog {
    journals: Vec<Journal>,
    /// By partition, the trim that comes between a reader's look at the start and its read.
    races: BTreeMap<Partition, Offset>,
}

impl SharedLog {
    /// An empty log of `partitions` partitions.
    #[must_use]
    pub fn new(partitions: u32) -> Self {
        let journals = std::iter::repeat_with(Journal::default).take(partitions as usize).collect();
        Self { journals, races: BTreeMap::new() }
    }

    /// Appends one record and returns its offset.
    pub fn put(&mut self, partition: Partition, record: &Bytes) -> Offset {
        let offset = self.end(partition);
        self.journals[partition as usize].records.push(Arc::clone(record));
        offset
    }

    /// Trims a partition just before somebody reads it the next time.
    pub fn trim_before_the_next_read(&mut self, partition: Partition, before: Offset) {
        self.races.insert(partition, before);
    }

    /// Loses the newest record of a partition if that is an epoch; returns whether it did.
    pub fn forget(&mut self, partition: Partition) -> bool {
        let records = &mut self.journals[partition as usize].records;
        let is_epoch = |record: &Bytes| frame::parse(record).is_ok_and(|frame| frame.header.kind == frame::Kind::Epoch);
        records.pop_if(|record| is_epoch(record)).is_some()
    }

    /// Every record of a partition from its first on, as if nothing had been trimmed.
    #[must_use]
    pub fn whole(&self, partition: Partition) -> &[Bytes] {
        &self.journals[partition as usize].records
    }
}

impl Log for SharedLog {
    fn append(&mut self, _: &[Record<'_>]) -> Result<Vec<Offset>, AppendError> {
        Err(AppendError::Refused("the world appends, see the module".into()))
    }

    fn read(
        &mut self,
        partition: Partition,
        from: Offset,
        each: &mut dyn FnMut(Offset, &[u8]),
    ) -> Result<(), ReadError> {
        if let Some(before) = self.races.remove(&partition) {
            self.trim(partition, before).map_err(ReadError::Damaged)?;
        }
        let Journal { start, records } = &self.journals[partition as usize];
        if from < *start {
            return Err(ReadError::Trimmed { partition, wanted: from, start: *start });
        }
        (from..).zip(&records[from as usize..]).for_each(|(offset, record)| each(offset, record));
        Ok(())
    }

    fn start(&self, partition: Partition) -> Offset {
        self.journals[partition as usize].start
    }

    fn end(&self, partition: Partition) -> Offset {
        self.journals[partition as usize].records.len() as Offset
    }

    fn trim(&mut self, partition: Partition, before: Offset) -> Result<(), String> {
        let end = self.end(partition);
        let start = &mut self.journals[partition as usize].start;
        *start = before.min(end).max(*start);
        Ok(())
    }
}

/// What becomes of an append that was given to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It stands, and its writer learns that.
    Stands,
    /// Nothing of it stands, and its writer learns that.
    Refused,
    /// It stands, but its writer learns only that nobody knows.
    StandsUnknown,
    /// Nothing of it stands, and its writer learns only that nobody knows.
    FailsUnknown,
    /// Some of its records stand; its writer learns only that nobody knows.
    PartlyUnknown,
    /// It stands after its writer has given it up.
    Late,
    /// It stands twice, as after a retry below the writer, who learns of the first.
    Doubled,
}

impl Fate {
    /// What a story of the world says of it.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Stands => "stands",
            Self::Refused => "is refused",
            Self::StandsUnknown => "stands, which its writer does not learn",
            Self::FailsUnknown => "fails, which its writer does not learn",
            Self::PartlyUnknown => "stands in parts, which its writer does not learn",
            Self::Late => "comes late, when its writer has given it up",
            Self::Doubled => "stands twice",
        }
    }

    /// Draws a fate; most appends stand.
    pub fn draw(random: &mut Random, refused: u32, unknown: u32) -> Self {
        if random.chance(refused) {
            return Self::Refused;
        }
        if !random.chance(unknown) {
            return Self::Stands;
        }
        random.one_of(&[Self::StandsUnknown, Self::FailsUnknown, Self::PartlyUnknown, Self::Late, Self::Doubled])
    }
}
