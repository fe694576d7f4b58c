//! Progress records: what a shard tells the others about its committed frames.
//!
//! Watermarks travel by sequence numbers, not by messages in order: a shard counts a record of
//! another one only once it has received every message that was sent before it. In a cycle the
//! watermark is the minimum over a consistent cut of records, where a sender holds each message
//! until the receiver's committed frames have it (Samadi 1985, global virtual time).

use std::sync::Arc;

use crate::{address::ShardId, program::StageId, time::EventTime};

/// A shard's progress as of a committed epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The shard.
    pub shard: ShardId,
    /// The committed epoch; of two records of a shard the higher one counts.
    pub epoch: u64,
    /// By ingress: how far this shard has taken it in; empty where every shard reads all of it.
    pub inputs: Vec<InputProgress>,
    /// By stage: how far event time has come.
    pub stages: Vec<StageProgress>,
    /// The earliest event time that a message or timer waits for; none if none waits.
    pub waiting: Option<EventTime>,
    /// By other shard: how far the messages to it and from it have come.
    pub traffic: Vec<Traffic>,
}

/// How far a shard has taken in its partitions of an ingress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputProgress {
    /// No record of them to come has this event time or an earlier one, but late ones. It goes back when
    /// the shard gets one more partition.
    pub out: EventTime,
    /// The newest event time of those that were taken in.
    pub newest: EventTime,
}

impl InputProgress {
    /// Of a shard without partitions, which holds nobody.
    pub const NONE: Self = Self { out: EventTime::MAX, newest: EventTime::MIN };
    /// Of a shard that has told nothing.
    pub const UNKNOWN: Self = Self { out: EventTime::MIN, newest: EventTime::MIN };

    /// Of both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { out: self.out.min(other.out), newest: self.newest.max(other.newest) }
    }

    /// Whether there is nothing to come.
    #[must_use]
    pub fn is_ended(self) -> bool {
        self.out == EventTime::MAX
    }
}

/// How far event time has come in a stage of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageProgress {
    /// No message sent from here on has this event time or an earlier one.
    pub out: EventTime,
    /// What the stages before it let through.
    pub outer: EventTime,
    /// Before the earliest message within the stage that is not acknowledged.
    pub hold: EventTime,
}

/// How far messages between a shard and another one have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// How many messages were sent to it.
    pub sent: u64,
    /// How many messages of it were accepted.
    pub seen: u64,
    /// How many messages to it its committed frames have.
    pub acknowledged: u64,
}

/// The newest progress record of each shard.
///
/// Invariant: no two records but those in `unchecked` contradict each other, so a look for a
/// consistent cut costs as much as there is news.
#[derive(Debug, Clone, Default)]
pub struct Board {
    records: Vec<Option<Arc<Progress>>>,
    version: u64,
    /// By shard: the version that its record made.
    versions: Vec<u64>,
    /// How many shards have a record.
    known: usize,
    /// Shards whose record may contradict that of another one.
    unchecked: Vec<ShardId>,
    /// By shard: whether it is in `unchecked`.
    is_unchecked: Vec<bool>,
    /// By stage: the watermark of the last consistent cut, for those stages that are cycles.
    cut: Vec<EventTime>,
}

impl Board {
    /// A board for `shards` shards and a program of `stages` stages.
    #[must_use]
    pub fn new(shards: u32, stages: usize) -> Self {
        let shards = shards as usize;
        Self {
            records: vec![None; shards],
            versions: vec![0; shards],
            is_unchecked: vec![false; shards],
            cut: vec![EventTime::MIN; stages],
            ..Self::default()
        }
    }

    /// Takes a record unless it, or a newer one of its shard, is known; returns whether it was taken.
    pub fn put(&mut self, progress: Arc<Progress>) -> bool {
        let shard = progress.shard;
        let known = &mut self.records[shard as usize];
        if known.as_ref().is_some_and(|known| known.epoch > progress.epoch || *known == progress) {
            return false;
        }
        self.version += 1;
        self.versions[shard as usize] = self.version;
        self.known += usize::from(known.is_none());
        *known = Some(progress);
        if !std::mem::replace(&mut self.is_unchecked[shard as usize], true) {
            self.unchecked.push(shard);
        }
        true
    }

    /// Recomputes the watermarks of cycles; call it once after a batch of records.
    pub fn refresh_cut(&mut self) {
        if self.known < self.records.len() {
            return;
        }
        while let Some(shard) = self.unchecked.last().copied() {
            if !self.is_consistent(shard) {
                return;
            }
            self.unchecked.pop();
            self.is_unchecked[shard as usize] = false;
        }
        for (stage, cut) in self.cut.iter_mut().enumerate() {
            let records = self.records.iter().flatten().map(|record| &record.stages[stage]);
            let lowest = records.map(|stage| stage.outer.min(stage.hold)).min();
            *cut = lowest.unwrap_or(*cut).max(*cut);
        }
    }

    /// Whether the record of a shard and those that are checked do not contradict each other: no
    /// one knows an acknowledgement that the receiver's record does not know itself.
    fn is_consistent(&self, shard: ShardId) -> bool {
        let Some(one) = &self.records[shard as usize] else { return false };
        let mut others = self.records.iter().flatten().filter(|other| !self.is_unchecked[other.shard as usize]);
        others.all(|other| {
            let (to, from) = (&one.traffic[other.shard as usize], &other.traffic[shard as usize]);
            to.seen >= from.acknowledged && from.seen >= to.acknowledged
        })
    }

    /// The earliest event time that anything in the app waits for.
    #[must_use]
    pub fn earliest_waiting(&self) -> EventTime {
        self.records.iter().flatten().filter_map(|record| record.waiting).min().unwrap_or(EventTime::MAX)
    }

    /// A number that changes with every record.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The versions that the records of the shards made; 0 for a shard without one.
    pub(crate) fn versions(&self) -> &[u64] {
        &self.versions
    }

    /// The newest record of a shard.
    #[must_use]
    pub fn get(&self, shard: ShardId) -> Option<&Progress> {
        self.records[shard as usize].as_deref()
    }

    /// The watermark of a cycle by the last consistent cut.
    #[must_use]
    pub fn cycle_watermark(&self, stage: StageId) -> EventTime {
        self.cut[usize::from(stage)]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(shard: ShardId, epoch: u64, hold: i64, seen: [u64; 2], acknowledged: [u64; 2]) -> Arc<Progress> {
        Arc::new(Progress {
            shard,
            epoch,
            inputs: Vec::new(),
            stages: vec![StageProgress { out: EventTime::MIN, outer: EventTime(100), hold: EventTime(hold) }],
            waiting: None,
            traffic: [0, 1].map(|at| Traffic { sent: 0, seen: seen[at], acknowledged: acknowledged[at] }).to_vec(),
        })
    }

    #[test]
    fn the_newest_record_counts() {
        let mut board = Board::new(2, 1);
        assert!(board.put(record(0, 2, 5, [0, 0], [0, 0])));
        assert!(!board.put(record(0, 1, 9, [0, 0], [0, 0])));
        assert!(!board.put(record(0, 2, 5, [0, 0], [0, 0])), "a repeat is no news");
        assert_eq!(board.get(0).expect("known").epoch, 2);
    }

    #[test]
    fn a_cycle_waits_for_a_consistent_cut() {
        let mut board = Board::new(2, 1);
        // Shard 0 knows that shard 1 has its message; shard 1's record is older than that.
        board.put(record(0, 1, i64::MAX, [0, 0], [0, 1]));
        board.put(record(1, 1, i64::MAX, [0, 0], [0, 0]));
        board.refresh_cut();
        assert_eq!(board.cycle_watermark(0), EventTime::MIN);
        board.put(record(1, 2, 7, [1, 0], [0, 0]));
        board.refresh_cut();
        assert_eq!(board.cycle_watermark(0), EventTime(7));
    }

    /// The cut as it is computed from scratch.
    fn is_cut(records: &[Option<Arc<Progress>>]) -> bool {
        let known: Vec<&Arc<Progress>> = records.iter().flatten().collect();
        known.len() == records.len()
            && known.iter().all(|one| {
                known.iter().all(|other| {
                    let (to, from) = (&one.traffic[other.shard as usize], &other.traffic[one.shard as usize]);
                    to.seen >= from.acknowledged
                })
            })
    }

    proptest! {
        #[test]
        fn a_cut_is_found_whenever_there_is_one(
            news in prop::collection::vec((0_u32..3, [0_u64..2, 0..2, 0..2], [0_u64..2, 0..2, 0..2], 0..9_i64, any::<bool>()), 0..40),
        ) {
            let mut board = Board::new(3, 1);
            let mut expected = EventTime::MIN;
            for (epoch, (shard, seen, acknowledged, hold, is_last)) in (1..).zip(news) {
                let traffic = (0..3).map(|at| match at == shard as usize {
                    true => Traffic::default(),
                    false => Traffic { sent: 0, seen: seen[at], acknowledged: acknowledged[at] },
                });
                let stages = vec![StageProgress { out: EventTime::MIN, outer: EventTime(100), hold: EventTime(hold) }];
                let (inputs, traffic) = (Vec::new(), traffic.collect());
                board.put(Arc::new(Progress { shard, epoch, inputs, stages, waiting: None, traffic }));
                if !is_last {
                    continue;
                }
                board.refresh_cut();
                if is_cut(&board.records) {
                    let holds = board.records.iter().flatten().map(|record| record.stages[0].hold);
                    expected = holds.min().unwrap_or(expected).max(expected);
                }
                prop_assert_eq!(board.cycle_watermark(0), expected);
            }
        }
    }
}
