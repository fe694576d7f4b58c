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
    /// By stage: no message sent from here on has this event time or an earlier one.
    pub out: Vec<EventTime>,
    /// By stage: what the stages before it let through.
    pub outer: Vec<EventTime>,
    /// By stage: before the earliest message within the stage that is not acknowledged.
    pub hold: Vec<EventTime>,
    /// The earliest event time that a message or timer waits for; none if none waits.
    pub waiting: Option<EventTime>,
    /// By target: how many messages were sent.
    pub sent: Vec<u64>,
    /// By source: how many messages were accepted.
    pub seen: Vec<u64>,
    /// By target: how many messages its committed frames have.
    pub acknowledged: Vec<u64>,
}

/// The newest progress record of each shard.
#[derive(Debug, Clone, Default)]
pub struct Board {
    records: Vec<Option<Arc<Progress>>>,
    version: u64,
    /// By shard: the version that its record made.
    versions: Vec<u64>,
    /// By stage: the watermark of the last consistent cut, for those stages that are cycles.
    cut: Vec<EventTime>,
}

impl Board {
    /// A board for `shards` shards and a program of `stages` stages.
    #[must_use]
    pub fn new(shards: u32, stages: usize) -> Self {
        let records = vec![None; shards as usize];
        let versions = vec![0; shards as usize];
        Self { records, version: 0, versions, cut: vec![EventTime::MIN; stages] }
    }

    /// Takes a record unless it, or a newer one of its shard, is known; returns whether it was taken.
    pub fn put(&mut self, progress: Arc<Progress>) -> bool {
        let known = &mut self.records[progress.shard as usize];
        if known.as_ref().is_some_and(|known| known.epoch > progress.epoch || *known == progress) {
            return false;
        }
        self.version += 1;
        self.versions[progress.shard as usize] = self.version;
        *known = Some(progress);
        true
    }

    /// Recomputes the watermarks of cycles; call it once after a batch of records.
    pub fn refresh_cut(&mut self) {
        let known: Vec<&Arc<Progress>> = self.records.iter().flatten().collect();
        if known.len() < self.records.len() || !is_consistent(&known) {
            return;
        }
        for (stage, cut) in self.cut.iter_mut().enumerate() {
            let lowest = known.iter().map(|record| record.outer[stage].min(record.hold[stage])).min();
            *cut = lowest.unwrap_or(*cut).max(*cut);
        }
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

    /// The shards that have a record newer than a version, with the versions that those made.
    pub(crate) fn newer_than<'a>(&'a self, known: &'a [u64]) -> impl Iterator<Item = (ShardId, u64)> + 'a {
        let versions = (0..).zip(&self.versions).zip(known);
        versions.filter(|((_, version), known)| version > known).map(|((shard, version), _)| (shard, *version))
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

/// Whether no record knows an acknowledgement that the receiver's record does not know itself.
fn is_consistent(records: &[&Arc<Progress>]) -> bool {
    records.iter().all(|sender| {
        records
            .iter()
            .all(|receiver| receiver.seen[sender.shard as usize] >= sender.acknowledged[receiver.shard as usize])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(shard: ShardId, epoch: u64, hold: i64, seen: [u64; 2], acknowledged: [u64; 2]) -> Arc<Progress> {
        Arc::new(Progress {
            shard,
            epoch,
            out: vec![EventTime::MIN],
            outer: vec![EventTime(100)],
            hold: vec![EventTime(hold)],
            waiting: None,
            sent: vec![0, 0],
            seen: seen.to_vec(),
            acknowledged: acknowledged.to_vec(),
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
}
