//! The outside, as activities reach it: attempts are lost, doubled and late.
//!
//! What an attempt does outside is done, whatever becomes of its answer and of the worker that made it.

use statefn_core::{
    activity::CallOutcome,
    address::ShardId,
    shard::{ActivityCall, Shard},
};

use super::{Event, WorkerId, World};
use crate::plan::Fault;

/// How long an attempt takes at most, and how late a late result is, in milliseconds.
const ATTEMPT_MS_MAX: i64 = 40;
const LATE_MS_MAX: i64 = 2_000;

impl World<'_> {
    /// A worker begins a call of an activity.
    pub(super) fn call(&mut self, worker: WorkerId, call: ActivityCall) -> Result<(), String> {
        self.report.calls += 1;
        let next = self.audit.shards[call.shard as usize].image.pending_next();
        if self.plan.looks_inside && call.id >= next {
            return Err(format!("shard {} calls an activity that it has not committed: {call:?}", call.shard));
        }
        self.attempt_later(worker, call, 1);
        Ok(())
    }

    fn attempt_later(&mut self, worker: WorkerId, call: ActivityCall, attempt: u32) {
        let ms = self.random.between(0, ATTEMPT_MS_MAX);
        self.after(ms, Event::Attempt(self.life(worker), call, attempt));
    }

    pub(super) fn attempt(&mut self, worker: WorkerId, call: ActivityCall, attempt: u32) {
        let is_doubled = self.strikes(Fault::DoubledAttempt);
        for _ in 0..=u32::from(is_doubled) {
            self.report.attempts += 1;
            self.report.attempts_again += u64::from(attempt > 1);
            let outcome = self.workload.attempt(&call, attempt);
            self.tell(format_args!("worker {worker} attempts call {} of shard {}", call.id, call.shard));
            let is_lost = self.strikes(Fault::LostAttempt);
            self.report.attempts_lost += u64::from(is_lost);
            match outcome {
                Ok(outcome) if !is_lost => self.result_later(worker, call.shard, call.id, outcome),
                _ => self.attempt_later(worker, call.clone(), attempt + 1),
            }
        }
        self.report.attempts_doubled += u64::from(is_doubled);
    }

    fn result_later(&mut self, worker: WorkerId, shard: ShardId, id: u64, outcome: CallOutcome) {
        let is_late = self.strikes(Fault::LateResult);
        self.report.results_late += u64::from(is_late);
        let ms = self.random.between(0, if is_late { LATE_MS_MAX } else { ATTEMPT_MS_MAX });
        self.after(ms, Event::Result(self.life(worker), shard, id, outcome));
    }

    pub(super) fn result(&mut self, worker: WorkerId, shard: ShardId, id: u64, outcome: &CallOutcome) {
        let now = self.clock(worker);
        let pending = |world: &Self| world.owned(worker, shard).map(Shard::pending_activities);
        let before = pending(self);
        self.pipeline(worker).result(shard, id, outcome, now);
        self.report.results_elsewhere += u64::from(before.is_none());
        self.report.results_void += u64::from(before.is_some() && before == pending(self));
        self.wake(worker, 1);
    }
}
