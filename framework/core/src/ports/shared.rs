//! The port of a log that other processes write to as well: appends that are under way side by
//! side, and partitions that are followed as they grow. A [`Log`] of the same
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

use std::{
    collections::BTreeMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::log::{AppendError, Log, Offset, Partition, ReadError, Record};

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

    /// Begins anew with all that is followed, each partition where it is: for when partitions that have
    /// records give none, also after they were followed again.
    ///
    /// # Errors
    /// A text that names the cause; it goes on as before.
    fn renew(&mut self) -> Result<(), String>;

    /// Waits for records, as long as `patience` at most, and hands out those that are there.
    ///
    /// # Errors
    /// A text that names the partition and the cause; what is followed stays so, and the next call goes on.
    fn next(&mut self, patience: Duration, each: &mut dyn FnMut(Partition, Offset, &[u8])) -> Result<(), String>;
}

impl<A: Appender + ?Sized> Appender for Arc<A> {
    fn append(&self, partition: Partition, records: Vec<Arc<Vec<u8>>>, told: Told) {
        (**self).append(partition, records, told);
    }
}

/// A log in memory that appenders and followers share, for tests: it finds its end by walking there.
/// Durable as long as one of its clones lives.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use statefn_core::ports::shared::{Appender, Follower, MemoryShared};
/// let log = MemoryShared::new(2);
/// log.append(1, vec![Arc::new(b"a".to_vec())], Box::new(|told| assert_eq!(told.unwrap(), 0)));
/// let mut follower = log.follower();
/// follower.follow(1, 0);
/// follower.next(Duration::ZERO, &mut |_, offset, bytes| assert_eq!((offset, bytes), (0, &b"a"[..]))).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct MemoryShared {
    partitions: Arc<Vec<MemoryPartition>>,
}

#[derive(Debug, Default)]
struct MemoryPartition {
    start: AtomicU64,
    first: Link,
}

/// Where the next record comes, or is: set once, so that nobody has to wait for anybody.
type Link = OnceLock<Box<Node>>;

#[derive(Debug)]
struct Node {
    bytes: Arc<Vec<u8>>,
    next: Link,
}

impl MemoryPartition {
    /// Appends records in a row, and returns the offset of the first.
    fn put(&self, records: Vec<Arc<Vec<u8>>>) -> Offset {
        let chain =
            records.into_iter().rev().fold(Link::new(), |next, bytes| Link::from(Box::new(Node { bytes, next })));
        let Some(mut chain) = chain.into_inner() else { return self.end() };
        let (mut link, mut offset) = (&self.first, 0);
        loop {
            match link.get() {
                Some(node) => (link, offset) = (&node.next, offset + 1),
                None => match link.set(chain) {
                    Ok(()) => return offset,
                    // Somebody else was quicker.
                    Err(again) => chain = again,
                },
            }
        }
    }

    fn records(&self) -> impl Iterator<Item = (Offset, &[u8])> {
        let nodes = std::iter::successors(self.first.get(), |node| node.next.get());
        (0..).zip(nodes.map(|node| node.bytes.as_slice()))
    }

    fn start(&self) -> Offset {
        self.start.load(Ordering::SeqCst)
    }

    fn end(&self) -> Offset {
        self.records().count() as Offset
    }
}

impl Drop for MemoryPartition {
    /// One node after the other: a long chain would drop itself too deep.
    fn drop(&mut self) {
        let mut next = self.first.take();
        while let Some(mut node) = next {
            next = node.next.take();
        }
    }
}

impl MemoryShared {
    /// An empty log of `partitions` partitions.
    #[must_use]
    pub fn new(partitions: u32) -> Self {
        let partitions = std::iter::repeat_with(MemoryPartition::default).take(partitions as usize).collect();
        Self { partitions: Arc::new(partitions) }
    }

    /// A follower of nothing yet.
    #[must_use]
    pub fn follower(&self) -> MemoryFollower {
        MemoryFollower { log: self.clone(), followed: BTreeMap::new() }
    }

    fn partition(&self, partition: Partition) -> &MemoryPartition {
        &self.partitions[partition as usize]
    }
}

impl Appender for MemoryShared {
    fn append(&self, partition: Partition, records: Vec<Arc<Vec<u8>>>, told: Told) {
        told(match records.is_empty() {
            true => Err(AppendError::Refused("an append has no record".into())),
            false => Ok(self.partition(partition).put(records)),
        });
    }
}

impl Log for MemoryShared {
    fn append(&mut self, group: &[Record<'_>]) -> Result<Vec<Offset>, AppendError> {
        let put = |record: &Record<'_>| self.partition(record.partition).put(vec![Arc::new(record.bytes.to_vec())]);
        Ok(group.iter().map(put).collect())
    }

    fn read(
        &mut self,
        partition: Partition,
        from: Offset,
        each: &mut dyn FnMut(Offset, &[u8]),
    ) -> Result<(), ReadError> {
        let start = self.start(partition);
        if from < start {
            return Err(ReadError::Trimmed { partition, wanted: from, start });
        }
        let records = self.partition(partition).records().skip_while(|(offset, _)| *offset < from);
        records.for_each(|(offset, bytes)| each(offset, bytes));
        Ok(())
    }

    fn start(&self, partition: Partition) -> Offset {
        self.partition(partition).start()
    }

    fn end(&self, partition: Partition) -> Offset {
        self.partition(partition).end()
    }

    fn trim(&mut self, partition: Partition, before: Offset) -> Result<(), String> {
        let partition = self.partition(partition);
        partition.start.fetch_max(before.min(partition.end()), Ordering::SeqCst);
        Ok(())
    }
}

/// Follows partitions of a [`MemoryShared`]; it never waits.
#[derive(Debug)]
pub struct MemoryFollower {
    log: MemoryShared,
    /// By partition, the next offset and whether it rests.
    followed: BTreeMap<Partition, (Offset, bool)>,
}

impl Follower for MemoryFollower {
    fn follow(&mut self, partition: Partition, from: Offset) {
        self.followed.entry(partition).or_default().0 = from;
    }

    fn leave(&mut self, partition: Partition) {
        self.followed.remove(&partition);
    }

    fn rest(&mut self, partition: Partition, is_resting: bool) {
        if let Some(followed) = self.followed.get_mut(&partition) {
            followed.1 = is_resting;
        }
    }

    fn renew(&mut self) -> Result<(), String> {
        Ok(())
    }

    fn next(&mut self, _: Duration, each: &mut dyn FnMut(Partition, Offset, &[u8])) -> Result<(), String> {
        for (partition, (next, is_resting)) in &mut self.followed {
            if *is_resting {
                continue;
            }
            let of = self.log.partition(*partition);
            let from = (*next).max(of.start());
            for (offset, bytes) in of.records().skip_while(|(offset, _)| *offset < from) {
                *next = offset + 1;
                each(*partition, offset, bytes);
            }
        }
        Ok(())
    }
}

/// What the suite works with: all of one empty log of at least 3 partitions.
#[expect(missing_debug_implementations, reason = "implementations need not have one")]
pub struct Ports {
    /// Two appenders, of different processes.
    pub appenders: [Box<dyn Appender>; 2],
    /// A follower of nothing yet.
    pub follower: Box<dyn Follower>,
    /// The log, for what is read once and trimmed.
    pub log: Box<dyn Log>,
}

/// The suite that every [`Appender`] and [`Follower`] passes.
///
/// # Panics
/// If one of them breaks its contract.
pub fn conformance(ports: Ports) {
    let mut suite = Suite { ports, seen: BTreeMap::new() };
    suite.appends_are_told_where_they_stand();
    suite.appends_side_by_side_stand_in_rows_and_in_order();
    suite.records_are_followed_once_and_in_order();
    suite.a_trimmed_place_is_passed_over();
}

/// How long the suite waits at a time, and how many times before it says that nothing comes.
const PATIENCE: Duration = Duration::from_millis(10);
const WAITS_MAX: u32 = 6_000;

/// What came of an append, once it was told.
type Slot = Arc<OnceLock<Result<Offset, AppendError>>>;
type Records = Vec<(Offset, Vec<u8>)>;

struct Suite {
    ports: Ports,
    /// What the follower gave, by partition.
    seen: BTreeMap<Partition, Records>,
}

impl Suite {
    fn appends_are_told_where_they_stand(&mut self) {
        for (appender, partition, records, wanted) in
            [(0, 0, &["a", "b"][..], 0), (1, 0, &["c"], 2), (0, 1, &["d"], 0), (0, 0, &["e", "f", "g"], 3)]
        {
            let slot = self.begin(appender, partition, records);
            let told = self.told(&slot);
            assert_eq!(told, Some(wanted), "the first offset of {records:?} is told");
        }
        assert_eq!(text(&self.read(0)), ["a", "b", "c", "e", "f", "g"]);
        assert_eq!(text(&self.read(1)), ["d"]);
    }

    fn appends_side_by_side_stand_in_rows_and_in_order(&mut self) {
        let appends = (0..50).flat_map(|number| [(0_usize, number), (1, number)]);
        let appends: Vec<(usize, Vec<String>)> = appends
            .map(|(appender, number)| (appender, (0..3).map(|index| format!("{appender}/{number}/{index}")).collect()))
            .collect();
        let slots: Vec<Slot> = appends
            .iter()
            .map(|(appender, records)| {
                let records: Vec<&str> = records.iter().map(String::as_str).collect();
                self.begin(*appender, 2, &records)
            })
            .collect();
        let told: Vec<Option<Offset>> = slots.iter().map(|slot| self.told(slot)).collect();
        let stands: BTreeMap<Offset, Vec<u8>> = self.read(2).into_iter().collect();
        let mut last = [None, None];
        for ((appender, records), first) in appends.iter().zip(told) {
            // Where another writer came between, the outcome is unknown.
            let Some(first) = first else { continue };
            for (offset, record) in (first..).zip(records) {
                assert_eq!(stands.get(&offset).map(Vec::as_slice), Some(record.as_bytes()), "offset {offset}");
            }
            assert!(last[*appender] < Some(first), "appends of one appender stand in the order of their beginning");
            last[*appender] = Some(first);
        }
        assert!(last.iter().all(Option::is_some), "a usable log takes appends of both");
    }

    fn records_are_followed_once_and_in_order(&mut self) {
        self.ports.follower.follow(0, 1);
        self.ports.follower.follow(2, 0);
        let wanted = self.read(2);
        self.wait("what stands is followed", |seen| count(seen, 0) >= 5 && count(seen, 2) >= wanted.len());
        assert_eq!(self.seen[&2], wanted, "each record comes once and in order");
        assert_eq!(text(&self.seen[&0]), ["b", "c", "e", "f", "g"], "from the offset that was told");

        self.ports.follower.rest(0, true);
        self.ports.follower.leave(2);
        for (partition, record) in [(0, "h"), (2, "left"), (1, "i")] {
            let slot = self.begin(0, partition, &[record]);
            assert!(self.told(&slot).is_some(), "a usable log takes an append");
        }
        self.ports.follower.follow(1, 1);
        self.wait("a partition that grows is followed", |seen| count(seen, 1) >= 1);
        assert_eq!((count(&self.seen, 0), count(&self.seen, 2)), (5, wanted.len()), "one rests, the other was left");
        self.ports.follower.renew().expect("a usable log is followed anew");
        self.ports.follower.rest(0, false);
        self.wait("after a rest it goes on", |seen| count(seen, 0) >= 6);
        self.ports.follower.follow(1, 0);
        self.wait("it can be followed from another place", |seen| count(seen, 1) >= 3);
        assert_eq!(text(&self.seen[&0]), ["b", "c", "e", "f", "g", "h"]);
        assert_eq!(text(&self.seen[&1]), ["i", "d", "i"]);
    }

    fn a_trimmed_place_is_passed_over(&mut self) {
        self.ports.log.trim(0, 4).expect("trims");
        self.seen.clear();
        self.ports.follower.follow(0, 0);
        self.wait("what is kept is followed", |seen| {
            seen.get(&0).and_then(|seen| seen.last()).is_some_and(|last| last.0 == 6)
        });
        let kept = self.seen[&0][0].0;
        assert!(kept <= 4, "what is behind a trim is kept, but the first is {kept}");
        let offsets: Vec<Offset> = self.seen[&0].iter().map(|(offset, _)| *offset).collect();
        assert_eq!(offsets, (kept..7).collect::<Vec<Offset>>(), "each record comes once and in order");
    }

    fn begin(&self, appender: usize, partition: Partition, records: &[&str]) -> Slot {
        let slot = Slot::default();
        let told = Arc::clone(&slot);
        let records = records.iter().map(|record| Arc::new(record.as_bytes().to_vec())).collect();
        let told = Box::new(move |outcome| assert!(told.set(outcome).is_ok(), "an append is told once"));
        self.ports.appenders[appender].append(partition, records, told);
        slot
    }

    /// Waits for what is told; none if an append came to nothing.
    fn told(&mut self, slot: &Slot) -> Option<Offset> {
        self.wait("an append is told", |_| slot.get().is_some());
        slot.get().and_then(|outcome| outcome.as_ref().ok()).copied()
    }

    fn wait(&mut self, what: &str, is_there: impl Fn(&BTreeMap<Partition, Records>) -> bool) {
        for _ in 0..WAITS_MAX {
            if is_there(&self.seen) {
                return;
            }
            let seen = &mut self.seen;
            let each = &mut |partition, offset, bytes: &[u8]| {
                seen.entry(partition).or_default().push((offset, bytes.to_vec()));
            };
            self.ports.follower.next(PATIENCE, each).expect("a usable log is followed");
        }
        panic!("{what}, but that never comes");
    }

    fn read(&mut self, partition: Partition) -> Records {
        let mut records = Vec::new();
        let read = self.ports.log.read(partition, 0, &mut |offset, bytes| records.push((offset, bytes.to_vec())));
        read.expect("readable");
        records
    }
}

fn count(seen: &BTreeMap<Partition, Records>, partition: Partition) -> usize {
    seen.get(&partition).map_or(0, Vec::len)
}

fn text(records: &[(Offset, Vec<u8>)]) -> Vec<&str> {
    records.iter().map(|(_, bytes)| std::str::from_utf8(bytes).expect("the suite appends text")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(log: &MemoryShared, follower: impl Follower + 'static) -> Ports {
        let appenders: [Box<dyn Appender>; 2] = [Box::new(log.clone()), Box::new(log.clone())];
        Ports { appenders, follower: Box::new(follower), log: Box::new(log.clone()) }
    }

    #[test]
    fn memory_conforms() {
        let log = MemoryShared::new(3);
        conformance(ports(&log, log.follower()));
        crate::ports::log::conformance(|| Box::new(MemoryShared::new(3)));
    }

    #[test]
    fn a_long_log_is_dropped() {
        let log = MemoryShared::new(1);
        let records = (0..300_000).map(|_| Arc::new(vec![1])).collect();
        Appender::append(&log, 0, records, Box::new(|told| assert_eq!(told.expect("memory"), 0)));
        assert_eq!(log.end(0), 300_000);
    }

    /// Forgets where it was when it goes on after a rest.
    struct Forgetful(MemoryFollower);

    impl Follower for Forgetful {
        fn follow(&mut self, partition: Partition, from: Offset) {
            self.0.follow(partition, from);
        }
        fn leave(&mut self, partition: Partition) {
            self.0.leave(partition);
        }
        fn rest(&mut self, partition: Partition, is_resting: bool) {
            self.0.rest(partition, is_resting);
            if !is_resting {
                self.0.follow(partition, 0);
            }
        }
        fn renew(&mut self) -> Result<(), String> {
            self.0.renew()
        }
        fn next(&mut self, patience: Duration, each: &mut dyn FnMut(Partition, Offset, &[u8])) -> Result<(), String> {
            self.0.next(patience, each)
        }
    }

    #[test]
    #[should_panic(expected = "assertion `left == right` failed")]
    fn a_follower_that_repeats_records_is_found() {
        let log = MemoryShared::new(3);
        conformance(ports(&log, Forgetful(log.follower())));
    }

    /// Tells the offset of its last record.
    struct Off(MemoryShared);

    impl Appender for Off {
        fn append(&self, partition: Partition, records: Vec<Arc<Vec<u8>>>, told: Told) {
            let behind = records.len() as Offset - 1;
            self.0.append(partition, records, Box::new(move |first| told(first.map(|first| first + behind))));
        }
    }

    #[test]
    #[should_panic(expected = "the first offset of [\"a\", \"b\"] is told")]
    fn an_appender_that_tells_another_offset_is_found() {
        let log = MemoryShared::new(3);
        let appenders: [Box<dyn Appender>; 2] = [Box::new(Off(log.clone())), Box::new(log.clone())];
        conformance(Ports { appenders, ..ports(&log, log.follower()) });
    }
}
