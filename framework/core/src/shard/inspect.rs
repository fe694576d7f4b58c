//! What a shard tells of itself: its status, its keys, timers and parked keys.
//!
//! Invariants: looking changes nothing; one look goes through no more than [`LOOKED_AT_ONCE`] entries,
//! so a question about many is a row of looks, between which the shard may go on. What is there from
//! the first look to the last is found; what comes or goes meanwhile may be found or not.
//!
//! Deliberately absent: when a finding may be told; see [`Shard::is_committed`].

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Shard,
    frame::{PENDING_EVENT_TIMER, PENDING_MESSAGE, PENDING_REARMED, PendingRef},
    image::Parked,
    progress::Board,
    seal::Sealed,
};
use crate::{
    address::murmur2,
    ports::inspect::{
        FOUND_MAX, Finding, Hold, KeysWanted, PAYLOAD_BYTES_MAX, ParkedFound, Question, ShardStatus, StageStatus,
        Start, TimerFound, TimerKind,
    },
    program::{FunctionId, NameId, StageId},
    time::EventTime,
};

/// How many keys, or about how many timers, one look goes through at most.
pub const LOOKED_AT_ONCE: usize = 16_384;
/// A page of pending entries has at most 256.
const PAGES_AT_ONCE: usize = LOOKED_AT_ONCE / 256;

/// A question to a shard, and how far it was looked into.
#[derive(Debug, Clone)]
pub struct Inquiry {
    question: Question,
    next: usize,
    keys: BTreeSet<Vec<u8>>,
    timers: BTreeMap<u64, TimerFound>,
}

impl Inquiry {
    /// The beginning of a question.
    #[must_use]
    pub fn new(question: Question) -> Self {
        Self { question, next: 0, keys: BTreeSet::new(), timers: BTreeMap::new() }
    }

    /// Whether what is found may be told before it is committed.
    #[must_use]
    pub fn is_told_at_once(&self) -> bool {
        self.question == Question::Status
    }
}

impl Shard {
    /// Looks on into a question; none if that takes more looks.
    #[must_use]
    pub fn look(&self, inquiry: &mut Inquiry, board: &Board) -> Option<Finding> {
        let Inquiry { question, next, keys, timers } = inquiry;
        match question {
            Question::Status => Some(Finding::Status(Box::new(self.status(board)))),
            Question::Keys(wanted) => {
                let is_over = self.look_for_keys(wanted, next, keys);
                is_over.then(|| Finding::Keys(self.still_there(wanted, std::mem::take(keys))))
            }
            Question::Timers { function, key, limit } => {
                let is_over = self.look_for_timers(*function, key, (*limit).min(FOUND_MAX), next, timers);
                is_over.then(|| {
                    let mut found: Vec<_> = std::mem::take(timers).into_values().collect();
                    found.sort_by_key(|timer| (timer.due, timer.kind != TimerKind::Message, timer.id));
                    Finding::Timers(found)
                })
            }
            Question::Parked { after, limit } => Some(Finding::Parked(self.parked_after(after.as_ref(), *limit))),
            Question::ParkedKey { function, key } => {
                Some(Finding::Parked(self.parked_key(*function, key).into_iter().collect()))
            }
        }
    }

    /// The epoch that has to be committed so that all that can be seen now is.
    #[must_use]
    pub fn visible_epoch(&self) -> u64 {
        self.epoch + u64::from(self.has_epoch())
    }

    /// Whether all that could be seen when `visible` was the visible epoch is committed.
    #[must_use]
    pub fn is_committed(&self, visible: u64) -> bool {
        let is_on_its_way = self.in_flight.as_ref().is_some_and(Sealed::has_epoch);
        let committed = self.epoch - u64::from(is_on_its_way);
        // What was seen may have changed nothing after all: then no epoch follows.
        committed >= visible || !is_on_its_way && !self.has_epoch()
    }

    fn look_for_keys(&self, wanted: &KeysWanted, next: &mut usize, found: &mut BTreeSet<Vec<u8>>) -> bool {
        let host = &self.hosts[usize::from(wanted.function)];
        let limit = wanted.limit.min(FOUND_MAX);
        let upto = *next + LOOKED_AT_ONCE;
        let is_over = host.look(*next..upto, &mut |key| {
            let is_wanted = key.starts_with(&wanted.prefix)
                && wanted.after.as_deref().is_none_or(|after| key > after)
                && (found.len() < limit || found.last().is_some_and(|last| key < &last[..]));
            if is_wanted {
                found.insert(key.to_vec());
                if found.len() > limit {
                    found.pop_last();
                }
            }
        });
        *next = upto;
        is_over
    }

    fn still_there(&self, wanted: &KeysWanted, keys: BTreeSet<Vec<u8>>) -> Vec<Vec<u8>> {
        let host = &self.hosts[usize::from(wanted.function)];
        // A key may have been cleared since it was found.
        keys.into_iter().filter(|key| host.encoded_state(murmur2(key), key).is_some()).collect()
    }

    fn look_for_timers(
        &self,
        function: FunctionId,
        key: &[u8],
        limit: usize,
        next: &mut usize,
        found: &mut BTreeMap<u64, TimerFound>,
    ) -> bool {
        let name = self.program.functions[usize::from(function)].name;
        let upto = *next + PAGES_AT_ONCE;
        let is_over = self.pending.look(*next..upto, &mut |entry| {
            if (entry.message.function, entry.message.key) == (name, key) {
                found.insert(entry.id, self.timer_found(entry));
                // Those that are due last are more than was asked for.
                if found.len() > limit
                    && let Some(last) = found.values().max_by_key(|timer| (timer.due, timer.id)).map(|timer| timer.id)
                {
                    found.remove(&last);
                }
            }
        });
        *next = upto;
        is_over
    }

    fn timer_found(&self, entry: &PendingRef<'_>) -> TimerFound {
        TimerFound {
            id: entry.id,
            kind: match entry.kind & !PENDING_REARMED {
                PENDING_MESSAGE => TimerKind::Message,
                PENDING_EVENT_TIMER => TimerKind::EventTime,
                _ => TimerKind::ProcessingTime,
            },
            due: entry.due,
            name: (!entry.name.is_empty()).then(|| String::from_utf8_lossy(entry.name).into_owned()),
            message: self.name(entry.message.message).to_owned(),
            payload: Start::of(entry.message.payload, PAYLOAD_BYTES_MAX),
        }
    }

    fn parked_after(&self, after: Option<&(FunctionId, Vec<u8>)>, limit: usize) -> Vec<ParkedFound> {
        let after = after.map(|(function, key)| self.parked_place(*function, key));
        let behind = self.parked.behind(after);
        let found = behind.filter_map(|(place, parked)| self.parked_found(place, parked, PAYLOAD_BYTES_MAX));
        found.take(limit.min(FOUND_MAX)).collect()
    }

    fn parked_key(&self, function: FunctionId, key: &[u8]) -> Option<ParkedFound> {
        let place = self.parked_place(function, key);
        self.parked_found(&place, self.parked.get(&place)?, usize::MAX)
    }

    fn parked_place(&self, function: FunctionId, key: &[u8]) -> (NameId, Vec<u8>) {
        (self.program.functions[usize::from(function)].name, key.to_vec())
    }

    fn parked_found(&self, place: &(NameId, Vec<u8>), parked: &Parked, bytes_max: usize) -> Option<ParkedFound> {
        let (is_timer, first) = parked.calls().next()?;
        Some(ParkedFound {
            function: self.program.function_named(place.0)?,
            key: place.1.clone(),
            reason: parked.reason.clone(),
            message: self.name(first.message).to_owned(),
            is_timer,
            payload: Start::of(first.payload, bytes_max),
            time: first.time,
            queue: parked.queue.len(),
        })
    }

    fn status(&self, board: &Board) -> ShardStatus {
        ShardStatus {
            shard: self.id,
            term: self.term,
            epoch: self.epoch,
            journal_offset: self.next_offset,
            functions: self.hosts.iter().map(|host| host.keys()).collect(),
            pending: self.pending(),
            pending_bytes: self.pending_bytes(),
            parked_keys: self.parked_keys(),
            parked_bytes: self.parked_bytes(),
            is_stopped_by_parked: self.is_stopped_by_parked(),
            unacknowledged_bytes: self.unacknowledged_bytes(),
            counters: self.counters,
            positions: self.positions(),
            stages: (0..self.stages.len()).map(|stage| self.stage_status(stage, board)).collect(),
        }
    }

    fn stage_status(&self, stage: usize, board: &Board) -> StageStatus {
        let time = &self.stages[stage];
        StageStatus {
            watermark: time.reached,
            out: time.out,
            held_by: self.held_by(stage, board),
            out_held_by: (time.out < time.reached).then(|| self.out_held_by(stage)).flatten(),
        }
    }

    /// What the watermark of a stage waits for: the least of all that it is the minimum of.
    fn held_by(&self, stage: usize, board: &Board) -> Hold {
        if self.stages[stage].reached == EventTime::MAX {
            return Hold::Ended;
        }
        let spec = &self.program.stages[stage];
        let is_live = self.options.is_live;
        let ingresses = spec.ingresses.iter().flat_map(|&ingress| {
            let lateness_ms = self.program.ingresses[ingress].lateness_ms;
            let own = self.partitions(ingress).map(move |(partition, position)| {
                (position.watermark(lateness_ms), Hold::Ingress { ingress, partition })
            });
            own.chain(self.inputs_elsewhere(ingress))
        });
        let has_time = |sender: &StageId| is_live || !self.program.stages[usize::from(*sender)].sources.is_empty();
        let senders = spec.senders.iter().copied().filter(has_time);
        let senders = senders.flat_map(|sender| self.out_of_shards(sender));
        let clock = is_live.then_some((self.live, Hold::Clock));
        let cycle = spec.is_cycle.then(|| self.cycle_hold(stage, board)).flatten();
        let all = ingresses.chain(senders).chain(clock).chain(cycle);
        all.min_by_key(|(time, _)| *time).map_or(Hold::NoSource, |(_, hold)| hold)
    }

    /// How far other shards have taken in an ingress, as far as this one knows.
    fn inputs_elsewhere(&self, ingress: usize) -> impl Iterator<Item = (EventTime, Hold)> {
        let inputs = self.heard_inputs_all.len();
        let heard = (0..).zip(self.heard_inputs.iter().skip(ingress).step_by(inputs.max(1)));
        let others = heard.filter(|(shard, _)| *shard != self.id);
        others.map(move |(shard, heard)| (heard.out, Hold::IngressOf { ingress, shard }))
    }

    /// How far a stage lets event time out, as far as this shard knows.
    fn out_of_shards(&self, stage: StageId) -> impl Iterator<Item = (EventTime, Hold)> {
        let stages = self.stages.len();
        (0..self.options.shards).map(move |shard| {
            let out = match shard == self.id {
                true => self.stages[usize::from(stage)].out,
                false => self.heard[shard as usize * stages + usize::from(stage)],
            };
            (out, Hold::Sender { stage, shard })
        })
    }

    /// The shard that holds a cycle.
    fn cycle_hold(&self, stage: usize, board: &Board) -> Option<(EventTime, Hold)> {
        let of_shard = |shard| {
            let record = board.get(shard).map(|record| record.stages[stage]);
            record.map_or(EventTime::MIN, |record| record.outer.min(record.hold))
        };
        let held = (0..self.options.shards).map(|shard| (of_shard(shard), Hold::Cycle { shard }));
        held.min_by_key(|(time, _)| *time)
    }

    fn out_held_by(&self, stage: usize) -> Option<Hold> {
        let reached = self.stages[stage].reached;
        let due = self.pending.earliest(stage).filter(|earliest| *earliest <= reached.0);
        let due = due.map(|due| (EventTime(due), Hold::Timer(EventTime(due))));
        let carried = self.holding().map(|call| (call.time, Hold::Carried(call.time)));
        due.into_iter().chain(carried).min_by_key(|(time, _)| *time).map(|(_, hold)| hold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        shard::Wants,
        trial::{Add, Later, SHARDS, Worker, key_of, program},
    };

    fn worker() -> Worker {
        let program = program();
        let mut worker = Worker::with(&program, crate::shard::Options::new(SHARDS, &program));
        (0..SHARDS).for_each(|shard| worker.own(shard));
        worker
    }

    fn settle(worker: &mut Worker) {
        let actions = worker.run();
        worker.keep(actions);
    }

    /// What all shards find, and how many looks the one with most took.
    fn found(worker: &Worker, question: &Question) -> (Vec<Finding>, usize) {
        let mut looks_max = 0;
        let of_shard = |shard| {
            let mut inquiry = Inquiry::new(question.clone());
            for looks in 1.. {
                if let Some(found) = worker.pipeline.look(shard, &mut inquiry) {
                    looks_max = looks_max.max(looks);
                    return found;
                }
            }
            unreachable!("a question ends")
        };
        let found = (0..SHARDS).map(of_shard).collect();
        (found, looks_max)
    }

    #[test]
    fn many_keys_take_several_looks_and_all_are_found() {
        let mut worker = worker();
        let names: BTreeSet<Vec<u8>> =
            (0..LOOKED_AT_ONCE * 5).map(|number| format!("k{number}").into_bytes()).collect();
        for (number, name) in names.iter().enumerate() {
            worker.call(std::str::from_utf8(name).expect("is text"), &Add(1));
            if number % 4_096 == 0 {
                settle(&mut worker);
            }
        }
        settle(&mut worker);
        let mut all = BTreeSet::new();
        let mut after = None;
        loop {
            let wanted = KeysWanted { function: 0, prefix: b"k1".to_vec(), after: after.clone(), limit: FOUND_MAX };
            let (findings, looks) = found(&worker, &Question::Keys(wanted));
            assert!(looks > 1, "a shard with many keys is not held up for all of them");
            let mut page = BTreeSet::new();
            for finding in findings {
                let Finding::Keys(keys) = finding else { panic!("keys are found") };
                assert!(keys.len() <= FOUND_MAX && keys.is_sorted());
                page.extend(keys);
            }
            // Behind the end of a full page there may be keys that another shard did not tell.
            let Some(last) = page.iter().nth(FOUND_MAX - 1).cloned() else {
                all.extend(page);
                break;
            };
            all.extend(page.into_iter().filter(|key| *key <= last));
            after = Some(last);
        }
        assert!(all.iter().eq(names.iter().filter(|name| name.starts_with(b"k1"))));
        let counted: usize = worker.pipeline.shards().map(|shard| shard.hosts[0].keys().count).sum();
        assert_eq!(counted, names.len());
    }

    #[test]
    fn what_is_seen_counts_only_once_it_is_committed() {
        let mut worker = worker();
        settle(&mut worker);
        let shard = |worker: &Worker| worker.pipeline.shard(0).map(|shard| (shard.visible_epoch(), shard.epoch()));
        let (before, epoch) = shard(&worker).expect("is owned");
        assert_eq!(before, epoch, "nothing is open");
        worker.call(&key_of(0), &Add(1));
        let (visible, epoch) = shard(&worker).expect("is owned");
        assert_eq!(visible, epoch + 1);
        let is_committed = |worker: &Worker| worker.pipeline.shard(0).is_some_and(|shard| shard.is_committed(visible));
        assert!(!is_committed(&worker), "it is not sealed");
        let actions = worker.pump();
        assert!(!is_committed(&worker), "it is on its way");
        let (shard, offset) = worker.append(&actions);
        worker.pipeline.appended(shard, offset);
        assert!(is_committed(&worker));
    }

    #[test]
    fn timers_and_parked_keys_of_one_key_are_told() {
        let mut worker = worker();
        worker.call(&key_of(0), &Later(5_000_000));
        worker.call(&key_of(0), &Later(4_000_000));
        worker.call(&key_of(0), &Add(u64::MAX));
        worker.call(&key_of(0), &Add(1));
        worker.ask(&key_of(0), Wants::Retry, &[]);
        settle(&mut worker);
        let key = key_of(0).into_bytes();
        let mut inquiry = Inquiry::new(Question::ParkedKey { function: 0, key: key.clone() });
        let Some(Finding::Parked(parked)) = worker.pipeline.look(0, &mut inquiry) else { panic!("parked is found") };
        assert_eq!((parked[0].message.as_str(), parked[0].queue), ("add", 1));
        let mut inquiry = Inquiry::new(Question::Timers { function: 0, key, limit: 1 });
        let Some(Finding::Timers(timers)) = worker.pipeline.look(0, &mut inquiry) else { panic!("timers are found") };
        assert_eq!(timers.len(), 1, "no more than was asked for");
    }
}
