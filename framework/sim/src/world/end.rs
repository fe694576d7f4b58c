//! The end of a world: when it has come, and what must be true then.

use statefn_core::pipeline::Pipeline;

use super::{World, store::Unapplied};
use crate::{
    check::Accounts,
    workload::{End, Unparks},
};

impl World<'_> {
    /// Whether time went on long enough for the timers that wait for the clock, and then all was done.
    pub(super) fn has_lingered(&mut self) -> bool {
        let done_at = *self.done_at.get_or_insert(self.now);
        self.now >= done_at + self.workload.lingers_ms()
    }

    pub(super) fn is_done(&mut self) -> bool {
        if !self.is_calm || self.flights > 0 || !self.report.steps.is_multiple_of(16) {
            return false;
        }
        for shard in 0..self.plan.shards {
            let worker = self.named[shard as usize];
            let Some(owned) = self.owned(worker, shard) else { return false };
            if owned.nonce() != self.audit.shards[shard as usize].image.nonce() {
                // A dead worker's late claim has deposed an owner that had nothing left to write.
                self.pipeline(worker).lost(shard);
                return false;
            }
        }
        if self.workload.unparks() == Unparks::UntilNone && self.parked_keys() > 0 {
            return false;
        }
        self.workers
            .iter()
            .all(|worker| worker.emissions.is_empty() && worker.unapplied.values().all(Unapplied::is_empty))
            && self.workers.iter().flat_map(|worker| &worker.pipeline).all(|pipeline| self.has_finished(pipeline))
            && self.named.iter().zip(0..).all(|(worker, shard)| {
                self.owned(*worker, shard).is_some_and(|owned| self.ingresses.is_empty() || owned.is_finished())
            })
    }

    /// Whether nothing is left to do; a program that only requests reach never ends by itself.
    fn has_finished(&self, pipeline: &Pipeline) -> bool {
        match self.ingresses.is_empty() {
            true => pipeline.is_idle() && pipeline.shards().all(|shard| shard.unacknowledged_bytes() == 0),
            false => pipeline.is_finished(),
        }
    }

    pub(super) fn not_drained(&self) -> String {
        let shards = (0..self.plan.shards).map(|shard| {
            let worker = self.named[shard as usize];
            let Some(owned) = self.owned(worker, shard) else { return format!("shard {shard} has no owner") };
            let watermarks: Vec<String> =
                (0..self.program.stages.len()).map(|stage| owned.watermark(stage as u16).to_string()).collect();
            format!(
                "{owned:?} of worker {worker}: finished {}, changes {}, pending {}, unacknowledged {}, input ended {}, watermarks {}",
                owned.is_finished(),
                owned.has_changes(),
                owned.pending(),
                owned.unacknowledged_bytes(),
                owned.is_input_ended(),
                watermarks.join(" "),
            )
        });
        let shards: Vec<String> = shards.collect();
        format!("not drained after {} steps at {} (I8):\n{}", self.report.steps, self.now, shards.join("\n"))
    }

    pub(super) fn check_end(&mut self) -> Result<(), String> {
        for shard in 0..self.plan.shards {
            let owner = self.workers[self.named[shard as usize]].pipeline.as_ref().expect("all workers live");
            let owner = owner.shards().find(|owned| owned.id() == shard).expect("every shard is owned");
            let at = shard as usize;
            let accounts = Accounts {
                shard,
                owner,
                committed: &self.audit.shards[at],
                store: &mut self.stores[at],
                egresses: &self.egresses,
            };
            accounts.agree(&mut self.log, &mut self.snapshots, &mut self.report)?;
            self.report.parked += owner.parked_keys() as u64;
        }
        self.watch.at_rest(self.plan.shards);
        self.workload.check_running(&self.program, &self.audit)?;
        let end = End { program: &self.program, audit: &self.audit, answers: &self.answers };
        self.workload.check_end(&end)
    }
}
