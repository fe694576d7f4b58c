//! The ingress port: one partition of an ingress, read from a position on.
//!
//! ```text
//! partition:  | stretch | stretch | ...        | end
//!             ^ from    ^ to, and from of the next
//! ```
//! A source, a [`Stretch`] and an [`IngressBatch`](crate::ingress::IngressBatch) are three sizes of
//! one thing: all of the input, what one call of [`Source::read`] takes of it, and the part of that
//! for one shard.
//!
//! Invariants an implementation MUST keep:
//! - Opened again at any position it has returned, a source gives the same records as before, with
//!   the same offsets, and the same positions; so a crash is healed by reading again.
//! - A stretch begins where the one before ended. The offsets of its records lie in it, in order;
//!   its position counts all of them and knows their highest event time.
//! - A record that cannot be read or routed becomes a dead letter at its offset, and the position
//!   moves past it. Only input that cannot be read on is an error, and everything before that place
//!   has been handed out by then.
//! - A stretch is no longer than its limit says, and not empty but at the end.
//! - The last stretch says that the partition has ended; read again it is empty and says so again.
//!
//! Deliberately absent: where records come from, and how fast.

use crate::{
    dead_letter::DeadLetter,
    ingress::{Batches, ErasedIngress, RawRecord},
    shard::frame::Position,
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

/// One partition of an ingress that has an end; see the module for the contract.
pub trait Source: Send {
    /// Why the input cannot be read on.
    type Error: std::fmt::Debug;

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
    ) -> Result<Stretch, Self::Error>;

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

/// A partition in memory, whose records are encoded messages.
///
/// ```
/// use statefn_core::{ports::ingress::{MemorySource, Source}, shard::frame::Position};
/// let records = [b"1".to_vec(), b"2".to_vec()];
/// let source = MemorySource::open(&records, Position { offset: 1, records: 1, ..Position::default() });
/// assert_eq!(source.position().offset, 1);
/// ```
#[derive(Debug, Clone)]
pub struct MemorySource<'a> {
    records: &'a [Vec<u8>],
    apart: u64,
    goes_on: bool,
    at: Position,
    dead_letters: u64,
}

impl<'a> MemorySource<'a> {
    /// Opens a partition of these records at a position; the default one is the beginning.
    #[must_use]
    pub fn open(records: &'a [Vec<u8>], from: Position) -> Self {
        Self { records, apart: 1, goes_on: false, at: from, dead_letters: 0 }
    }

    /// Sets how far apart the offsets of two records are, 1 if not set.
    #[must_use]
    pub fn apart(self, offsets: u64) -> Self {
        Self { apart: offsets, ..self }
    }

    /// Says whether records are still to be added, so that the partition does not end with the last.
    #[must_use]
    pub fn goes_on(self, goes_on: bool) -> Self {
        Self { goes_on, ..self }
    }

    fn next(&self) -> Option<&'a [u8]> {
        self.records.get(usize::try_from(self.at.records).ok()?).map(Vec::as_slice)
    }

    fn step(&mut self, record: &[u8], ingress: &dyn ErasedIngress, batches: &mut Batches) {
        match ingress.route(self.at.offset, RawRecord::Bytes(record), batches) {
            Ok(time) => self.at.event_time_max = self.at.event_time_max.max(Some(time)),
            Err(reason) => {
                let place = format!("record {}", self.at.records);
                batches.dead_letter(self.at.offset, DeadLetter::of_record(ingress.name(), &place, &reason, record));
                self.dead_letters += 1;
            }
        }
        self.at.offset += self.apart;
        self.at.records += 1;
    }
}

impl Source for MemorySource<'_> {
    type Error = std::convert::Infallible;

    fn read(
        &mut self,
        ingress: &dyn ErasedIngress,
        batches: &mut Batches,
        limit: ReadLimit,
    ) -> Result<Stretch, Self::Error> {
        let (from, records, written) = (self.at.offset, self.at.records, batches.written());
        let mut bytes = 0;
        while self.at.records - records < limit.records && bytes < limit.bytes {
            let Some(record) = self.next() else { break };
            self.step(record, ingress, batches);
            bytes = (bytes + record.len() as u64).max(batches.written() - written);
        }
        self.at.is_ended |= !self.goes_on && self.next().is_none();
        Ok(Stretch { from, to: self.at })
    }

    fn position(&self) -> Position {
        self.at
    }

    fn dead_letters(&self) -> u64 {
        self.dead_letters
    }
}

/// A shard count of the suite: enough that records do not all meet.
const SHARDS: u32 = 3;
const ALL: ReadLimit = ReadLimit { records: u64::MAX, bytes: u64::MAX };

/// The suite that every [`Source`] passes; `open` opens a partition of `ingress` at a position.
///
/// The partition has at least 4 records, and at least one that becomes a dead letter.
///
/// # Panics
/// If the source breaks its contract.
pub fn conformance<S: Source>(ingress: &dyn ErasedIngress, mut open: impl FnMut(Position) -> S) {
    let whole = Taken::of(&mut open(Position::default()), ingress, ALL);
    let is_enough = whole.records.len() >= 4 && whole.dead_letters > 0 && whole.error.is_none();
    assert!(is_enough, "the suite needs 4 records, one of them a dead letter, and no error");
    check(ingress, open, |_| {});
}

/// The part of the suite that holds for any input, also one that cannot be read to its end; `error`
/// is called with the error that ends it.
///
/// # Panics
/// If the source breaks its contract.
pub fn check<S: Source>(
    ingress: &dyn ErasedIngress,
    mut open: impl FnMut(Position) -> S,
    mut error: impl FnMut(&S::Error),
) {
    let whole = Taken::of(&mut open(Position::default()), ingress, ALL);
    whole.error.iter().for_each(&mut error);
    let why = |taken: &Taken<S::Error>| taken.error.as_ref().map(|error| format!("{error:?}"));
    for limit in [
        ReadLimit { records: 1, ..ALL },
        ReadLimit { records: 3, ..ALL },
        ReadLimit { bytes: 1, ..ALL },
        ReadLimit { bytes: 50, ..ALL },
    ] {
        let parts = Taken::of(&mut open(Position::default()), ingress, limit);
        assert_eq!(parts.records, whole.records, "however it is read, a partition has the same records");
        assert_eq!(parts.end, whole.end, "however it is read, a partition ends at the same position");
        assert_eq!(why(&parts), why(&whole), "however it is read, a partition has the same error");
        for stretch in &parts.stretches {
            let rest = Taken::of(&mut open(stretch.to), ingress, ALL);
            let behind: Vec<_> = whole.records.iter().filter(|record| record.offset >= stretch.to.offset).collect();
            let found: Vec<_> = rest.records.iter().collect();
            assert_eq!(found, behind, "opened again at {:?}, a source gives the same records", stretch.to);
            assert_eq!(rest.end, whole.end, "opened again, a source ends at the same position");
            assert_eq!(why(&rest), why(&whole), "opened again, a source has the same error");
        }
    }
    let one = Taken::of(&mut open(Position::default()), ingress, ReadLimit { records: 1, ..ALL });
    assert!(one.stretches.iter().all(|stretch| stretch.count <= 1), "a stretch is no longer than its limit says");
    let small = Taken::of(&mut open(Position::default()), ingress, ReadLimit { bytes: 1, ..ALL });
    assert!(
        small.stretches.iter().all(|stretch| stretch.count <= 1),
        "a stretch ends with the record that reaches its bytes"
    );
}

/// What became of a record.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Became {
    offset: u64,
    /// The shard, the key and the message of each message; none of a dead letter.
    messages: Vec<(usize, Vec<u8>, Vec<u8>)>,
    /// Where it stands and why it is a dead letter.
    reason: Option<(Option<String>, String)>,
}

struct Part {
    to: Position,
    count: u64,
}

/// All that a source gave.
struct Taken<E> {
    records: Vec<Became>,
    stretches: Vec<Part>,
    dead_letters: u64,
    end: Position,
    error: Option<E>,
}

impl<E: std::fmt::Debug> Taken<E> {
    fn of(source: &mut impl Source<Error = E>, ingress: &dyn ErasedIngress, limit: ReadLimit) -> Self {
        let end = source.position();
        let mut taken = Self { records: Vec::new(), stretches: Vec::new(), dead_letters: 0, end, error: None };
        loop {
            let before = source.position();
            let mut batches = Batches::new(SHARDS);
            let stretch = source.read(ingress, &mut batches, limit);
            let stretch = match stretch {
                Ok(stretch) => stretch,
                Err(error) => return taken.fail(error, source.read(ingress, &mut Batches::new(SHARDS), limit)),
            };
            taken.add(before, stretch, batches);
            assert_eq!(source.position(), stretch.to, "`position` is behind what was read");
            assert_eq!(source.dead_letters(), taken.dead_letters, "`dead_letters` counts since the source was opened");
            assert!(source.read_permille() <= 1000, "no more is read than there is");
            if stretch.to.is_ended {
                break;
            }
            assert!(stretch.to.records > before.records, "a stretch is empty only at the end");
        }
        assert_eq!(source.read_permille(), 1000, "at the end all is read");
        let (end, mut batches) = (source.position(), Batches::new(SHARDS));
        let again = source.read(ingress, &mut batches, limit).expect("the end can be read again");
        assert_eq!(again, Stretch { from: end.offset, to: end }, "read again, the end is empty and says so again");
        taken
    }

    fn fail(self, error: E, again: Result<Stretch, E>) -> Self {
        let (first, again) = (format!("{error:?}"), again.map_err(|again| format!("{again:?}")));
        assert_eq!(again, Err(first), "an error stays");
        Self { error: Some(error), ..self }
    }

    fn add(&mut self, before: Position, stretch: Stretch, batches: Batches) {
        let to = stretch.to;
        assert_eq!(stretch.from, before.offset, "a stretch begins where the one before ended");
        assert!(to.event_time_max >= before.event_time_max, "the highest event time does not go back");
        let mut found = std::collections::BTreeMap::<u64, Became>::new();
        for (shard, batch) in batches.shards.into_iter().enumerate() {
            let calls = &batch.calls;
            for (call, offset) in calls.calls.iter().zip(&batch.offsets) {
                assert!(to.event_time_max >= Some(call.time), "a position knows the highest event time before it");
                let message = (shard, call.key.of(&calls.bytes).to_vec(), call.payload.of(&calls.bytes).to_vec());
                let new = || Became { offset: *offset, messages: Vec::new(), reason: None };
                found.entry(*offset).or_insert_with(new).messages.push(message);
            }
            for (offset, letter) in batch.dead_letters {
                self.dead_letters += 1;
                let became = Became { offset, messages: Vec::new(), reason: Some((letter.position, letter.error)) };
                let twice = found.insert(offset, became);
                assert!(twice.is_none(), "of a record that is a dead letter nothing is sent");
            }
        }
        let inside = found.keys().all(|offset| (stretch.from..to.offset).contains(offset));
        assert!(inside, "the offsets of records lie in their stretch: {:?}, {stretch:?}", found.keys());
        let count = found.len() as u64;
        assert!(to.records - before.records >= count, "a position counts all records before it");
        self.stretches.push(Part { to, count: to.records - before.records });
        self.records.extend(found.into_values());
        self.end = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{effect::Call, time::EventTime};

    /// Takes records of one digit, which are their event times; sends each twice.
    struct Digits;

    impl ErasedIngress for Digits {
        fn name(&self) -> &'static str {
            "digits"
        }

        fn route(&self, offset: u64, record: RawRecord<'_>, batches: &mut Batches) -> Result<EventTime, String> {
            let RawRecord::Bytes([digit @ b'0'..=b'9']) = record else { return Err("it is no digit".into()) };
            let time = EventTime(i64::from(*digit));
            for shard in [0, usize::from(digit % 3)] {
                let batch = &mut batches.shards[shard];
                batch.calls.push(Call::message(0, 0, 0, time), &[*digit], b"sent");
                batch.offsets.push(offset);
            }
            Ok(time)
        }

        fn generate(&self, _: u64, _: &mut Batches) -> Option<Result<EventTime, String>> {
            None
        }

        fn is_generator(&self) -> bool {
            false
        }
    }

    fn records() -> Vec<Vec<u8>> {
        ["1", "9", "not one", "3", "3"].map(|record| record.as_bytes().to_vec()).into()
    }

    /// A source that does not do what it should.
    struct Wrong<'a> {
        inner: MemorySource<'a>,
        forgets_its_end: bool,
    }

    impl Source for Wrong<'_> {
        type Error = std::convert::Infallible;

        fn read(
            &mut self,
            ingress: &dyn ErasedIngress,
            batches: &mut Batches,
            limit: ReadLimit,
        ) -> Result<Stretch, Self::Error> {
            let is_ended = self.inner.at.is_ended;
            let stretch = self.inner.read(ingress, batches, limit)?;
            let from = if is_ended && self.forgets_its_end { 0 } else { stretch.from };
            Ok(Stretch { from, ..stretch })
        }

        fn position(&self) -> Position {
            self.inner.position()
        }

        fn dead_letters(&self) -> u64 {
            self.inner.dead_letters()
        }
    }

    #[test]
    fn memory_conforms() {
        let records = records();
        conformance(&Digits, |from| MemorySource::open(&records, from));
        conformance(&Digits, |from| MemorySource::open(&records, from).apart(7));
    }

    #[test]
    #[should_panic(expected = "a source gives the same records")]
    fn a_source_that_passes_a_record_over_when_it_is_opened_again_is_found() {
        let records = records();
        conformance(&Digits, |from| {
            let is_again = from.records == 1;
            let from = Position { records: from.records + u64::from(is_again), ..from };
            Wrong { inner: MemorySource::open(&records, from).apart(7), forgets_its_end: false }
        });
    }

    #[test]
    #[should_panic(expected = "read again, the end is empty")]
    fn a_source_that_forgets_its_end_is_found() {
        let records = records();
        conformance(&Digits, |from| Wrong { inner: MemorySource::open(&records, from), forgets_its_end: true });
    }
}
