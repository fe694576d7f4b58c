//! The end of a world: when it has come, and what must be true then.

use statefn_core::{pipeline::Pipeline, shard::Shard};

use super::{World, client::Asking, store::Unapplied};
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
        if !self.is_calm || self.flights > 0 || !self.waiting.is_empty() || !self.report.steps.is_multiple_of(16) {
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
                self.owned(*worker, shard).is_some_and(|owned| !self.ends_by_itself() || owned.is_finished())
            })
    }

    /// Whether its input has an end, behind which all is finished; that of a service has none.
    fn ends_by_itself(&self) -> bool {
        !self.ingresses.is_empty() && !self.options.is_live
    }

    fn has_finished(&self, pipeline: &Pipeline) -> bool {
        if self.ends_by_itself() {
            return pipeline.is_finished();
        }
        pipeline.is_idle()
            && pipeline.shards().all(|shard| self.has_read_all(shard) && shard.unacknowledged_bytes() == 0)
    }

    /// Whether a shard has what there is of input.
    fn has_read_all(&self, shard: &Shard) -> bool {
        shard.positions().iter().flatten().flatten().all(|position| position.is_ended)
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

    /// One who has asked an owner that still is one was told.
    fn check_answered_all(&self) -> Result<(), String> {
        let waits = |asking: &Asking| {
            self.owned(asking.worker, asking.shard).is_some_and(|owned| owned.nonce() == asking.nonce)
        };
        let forgotten = self.asked.iter().find(|(_, asking)| waits(asking));
        forgotten.map_or(Ok(()), |(request, _)| {
            Err(format!("request {request} is never answered, though its owner lives (I8)"))
        })
    }

    /// What clients and readers of egresses see first: a mutant should be found by what it does to them.
    pub(super) fn check_end(&mut self) -> Result<(), String> {
        self.workload.check_running(&self.program, &self.audit)?;
        let end = End { program: &self.program, audit: &self.audit, answers: &self.answers, history: &self.history };
        self.workload.check_end(&end)?;
        self.differing.take().map_or(Ok(()), Err)?;
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
        self.check_answered_all()?;
        self.watch.at_rest(self.plan.shards);
        Ok(())
    }
}
