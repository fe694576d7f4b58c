//! Records that the app makes itself, by number.

use statefn_core::{
    dead_letter::DeadLetter,
    ingress::{Batches, ErasedIngress},
    ports::ingress::{ReadLimit, Source, Stretch},
    shard::frame::Position,
    time::EventTime,
};

use super::SourceError;

/// The source of an ingress that was built with `Ingress::generate`; its offset is the number of
/// the next record.
///
/// A generator that panics at a number gives a dead letter without bytes, and goes on.
///
/// ```
/// use statefn_core::{ports::ingress::Source, shard::frame::Position};
/// use statefn_runtime::ingress::GeneratorSource;
/// let source = GeneratorSource::new(Position { offset: 7, records: 7, ..Position::default() });
/// assert_eq!(source.position().offset, 7);
/// ```
#[derive(Debug)]
pub struct GeneratorSource {
    at: Position,
    dead_letters: u64,
}

impl GeneratorSource {
    /// Goes on at a position; the default one is the beginning.
    #[must_use]
    pub fn new(from: Position) -> Self {
        Self { at: from, dead_letters: 0 }
    }

    fn step(&mut self, ingress: &dyn ErasedIngress, batches: &mut Batches) {
        let number = self.at.offset;
        match ingress.generate(number, batches) {
            None => {
                self.at.is_ended = true;
                return;
            }
            Some(Ok(time)) => pass(&mut self.at, time),
            Some(Err(reason)) => {
                let letter = DeadLetter::of_record(ingress.name(), &format!("record {number}"), &reason, b"");
                batches.dead_letter(number, letter);
                self.dead_letters += 1;
            }
        }
        self.at.offset += 1;
        self.at.records += 1;
    }
}

impl Source for GeneratorSource {
    type Error = SourceError;

    fn read(
        &mut self,
        ingress: &dyn ErasedIngress,
        batches: &mut Batches,
        limit: ReadLimit,
    ) -> Result<Stretch, SourceError> {
        let (from, records, written) = (self.at.offset, self.at.records, batches.written());
        while !self.at.is_ended
            && self.at.records - records < limit.records
            && batches.written() - written < limit.bytes
        {
            self.step(ingress, batches);
        }
        Ok(Stretch { from, to: self.at })
    }

    fn position(&self) -> Position {
        self.at
    }

    fn dead_letters(&self) -> u64 {
        self.dead_letters
    }
}

/// Moves the highest event time past a record's.
pub(super) fn pass(at: &mut Position, time: EventTime) {
    at.event_time_max = at.event_time_max.max(Some(time));
}
