//! What waits to be delivered: a lane for each shard, and when it may go on.
//!
//! Invariants: a record is under way at most once at a time, and the next one of its shard only when it is
//! taken or refused; what was not told as taken or refused stays. No clock and no thread: the time comes
//! in as an argument.

use std::{
    collections::VecDeque,
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use statefn_core::address::ShardId;

use super::super::Written;

/// A record and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Delivery {
    pub(super) shard: ShardId,
    pub(super) epoch: u64,
    /// Its place among the records of this egress in that epoch.
    pub(super) index: u64,
    pub(super) record: Arc<Vec<u8>>,
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Taken,
    /// The receiver will never take it, and why.
    Refused(String),
    /// It may take it later: not before this time, if it says so.
    Later(Option<Duration>),
}

/// A record that the receiver will never take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) delivery: Delivery,
    pub(super) reason: String,
}

/// What a worker does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Send(Delivery),
    /// Nothing may go on before this moment; none if only news can help.
    Wait(Option<Instant>),
}

/// How long to wait between attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BackOff {
    pub(super) first: Duration,
    pub(super) longest: Duration,
}

impl BackOff {
    /// The wait after so many failures: twice as long each time, shorter by up to half by chance (`chance`
    /// is 0 to 1), and at least as long as the receiver asked for.
    fn after(self, failures: u32, asked_for: Option<Duration>, chance: f64) -> Duration {
        /// A receiver cannot stop an egress for longer.
        const ASKED_FOR_MAX: Duration = Duration::from_secs(3_600);
        let doubled = self.first.saturating_mul(1 << failures.saturating_sub(1).min(20));
        let whole = doubled.min(self.longest);
        let wait = whole.mul_f64(1.0 - chance.clamp(0.0, 1.0) / 2.0);
        wait.max(asked_for.unwrap_or_default().min(ASKED_FOR_MAX))
    }
}

#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<Delivery>,
    is_under_way: bool,
    failures: u32,
    /// Not before this moment.
    due: Option<Instant>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    back_off: BackOff,
    /// The lane that is looked at first.
    first: usize,
    bytes: usize,
    written: Written,
    refused: Vec<Refused>,
}

impl Lanes {
    pub(super) fn new(shards: usize, back_off: BackOff) -> Self {
        let lanes = std::iter::repeat_with(Lane::default).take(shards).collect();
        Self { lanes, back_off, first: 0, bytes: 0, written: Written::default(), refused: Vec::new() }
    }

    pub(super) fn push(&mut self, delivery: Delivery) {
        self.bytes += delivery.record.len();
        self.lanes[delivery.shard as usize].waiting.push_back(delivery);
    }

    /// How many bytes wait, what is under way included.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| lane.waiting.is_empty())
    }

    /// What was delivered.
    pub(super) fn written(&self) -> Written {
        self.written
    }

    /// Takes the next record that may be sent out of one of the lanes, each of them in turn.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        let mut earliest: Option<Instant> = None;
        for step in 0..self.lanes.len() {
            let at = (self.first + step) % self.lanes.len();
            let lane = &mut self.lanes[at];
            let Some(delivery) = lane.waiting.front().filter(|_| !lane.is_under_way) else { continue };
            match lane.due.filter(|due| *due > now) {
                Some(due) => earliest = Some(earliest.map_or(due, |earliest| earliest.min(due))),
                None => {
                    let delivery = delivery.clone();
                    lane.is_under_way = true;
                    self.first = at + 1;
                    return Next::Send(delivery);
                }
            }
        }
        Next::Wait(earliest)
    }

    /// Says what came of the attempt that is under way; returns how long its lane waits.
    pub(super) fn tell(&mut self, shard: ShardId, outcome: Outcome, now: Instant, chance: f64) -> Duration {
        let lane = &mut self.lanes[shard as usize];
        assert!(mem::take(&mut lane.is_under_way), "what is told was under way");
        let reason = match outcome {
            Outcome::Later(asked_for) => {
                lane.failures = lane.failures.saturating_add(1);
                let wait = self.back_off.after(lane.failures, asked_for, chance);
                lane.due = Some(now + wait);
                return wait;
            }
            Outcome::Taken => None,
            Outcome::Refused(reason) => Some(reason),
        };
        (lane.failures, lane.due) = (0, None);
        let delivery = lane.waiting.pop_front().expect("what is under way is the first");
        self.bytes -= delivery.record.len();
        match reason {
            None => {
                self.written.records += 1;
                self.written.bytes += delivery.record.len() as u64;
            }
            Some(reason) => self.refused.push(Refused { delivery, reason }),
        }
        Duration::ZERO
    }

    /// Up to which epoch each shard is done with, where all that has ended was pushed, and what was refused
    /// since this was asked last: both at one moment.
    pub(super) fn collect(&mut self, ended: &[u64]) -> (Vec<u64>, Vec<Refused>) {
        let done = self.lanes.iter().zip(ended).map(|(lane, ended)| match lane.waiting.front() {
            Some(first) => first.epoch - 1,
            None => *ended,
        });
        (done.collect(), mem::take(&mut self.refused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACK_OFF: BackOff = BackOff { first: Duration::from_millis(100), longest: Duration::from_secs(30) };

    fn delivery(shard: ShardId, epoch: u64, index: u64) -> Delivery {
        Delivery { shard, epoch, index, record: Arc::new(vec![7; 10]) }
    }

    fn sent(lanes: &mut Lanes, now: Instant) -> (ShardId, u64, u64) {
        match lanes.next(now) {
            Next::Send(Delivery { shard, epoch, index, .. }) => (shard, epoch, index),
            Next::Wait(due) => panic!("nothing may be sent before {due:?}"),
        }
    }

    #[test]
    fn a_shard_keeps_its_order_and_others_do_not_wait_for_it() {
        let (mut lanes, now) = (Lanes::new(3, BACK_OFF), Instant::now());
        [delivery(0, 4, 0), delivery(0, 4, 1), delivery(2, 9, 0)].into_iter().for_each(|one| lanes.push(one));
        assert_eq!(sent(&mut lanes, now), (0, 4, 0));
        assert_eq!(sent(&mut lanes, now), (2, 9, 0));
        assert_eq!(lanes.next(now), Next::Wait(None), "the second of a shard waits for the first");
        assert_eq!(lanes.collect(&[5, 5, 9]).0, [3, 5, 8]);
        lanes.tell(2, Outcome::Taken, now, 0.0);
        let wait = lanes.tell(0, Outcome::Later(None), now, 0.0);
        assert_eq!(lanes.next(now), Next::Wait(Some(now + wait)), "only what failed is left");
        assert_eq!(sent(&mut lanes, now + wait), (0, 4, 0), "the same again");
        lanes.tell(0, Outcome::Refused("no".into()), now, 0.0);
        let (done, refused) = lanes.collect(&[5, 5, 9]);
        assert_eq!((done, refused.len(), &*refused[0].reason), (vec![3, 5, 9], 1, "no"));
        assert_eq!(sent(&mut lanes, now), (0, 4, 1), "what is refused stops nothing");
        lanes.tell(0, Outcome::Taken, now, 0.0);
        assert_eq!(lanes.collect(&[5, 5, 9]), (vec![5, 5, 9], vec![]));
        assert!(lanes.is_empty() && lanes.bytes() == 0);
        assert_eq!(lanes.written(), Written { records: 2, bytes: 20 });
    }

    #[test]
    fn waits_grow_up_to_a_limit_and_differ_by_chance() {
        let millis = |failures, chance| BACK_OFF.after(failures, None, chance).as_millis();
        assert_eq!([1, 2, 3, 9, 60].map(|failures| millis(failures, 0.0)), [100, 200, 400, 25_600, 30_000]);
        assert_eq!([1, 60].map(|failures| millis(failures, 1.0)), [50, 15_000]);
        let asked = |seconds| BACK_OFF.after(1, Some(Duration::from_secs(seconds)), 0.5).as_secs();
        assert_eq!([asked(5), asked(1_000_000)], [5, 3_600]);
    }
}
