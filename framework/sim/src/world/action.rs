//! The actions of pipelines, as the world executes them.

use statefn_core::{
    address::ShardId,
    pipeline::{Action, Append},
    ports::{
        egress::Egresses,
        log::{Log, Offset},
        snapshots::Snapshots,
    },
    shard::{Answer, Emission, Reply, Shard, Snapshot, frame::SnapshotMark, read_back, rules::Rule, stored},
};

use super::{Event, Life, WorkerId, World};
use crate::{check::snapshot_equals_fold, plan::Fault};

impl World<'_> {
    pub(super) fn execute(&mut self, worker: WorkerId, action: Action) -> Result<(), String> {
        match action {
            Action::Append(Append { shard, records }) => {
                let nonce = self.owned(worker, shard).map(Shard::nonce);
                // A pipeline may have lost the shard between asking and now.
                let Some(nonce) = nonce else { return Ok(()) };
                self.append(worker, shard, nonce, records);
            }
            Action::Publish(mail) => self.publish(worker, &mail)?,
            Action::Emit(emission) => {
                let changes = stored::changes(&self.program, &emission.frame).map_err(|error| error.to_string())?;
                self.apply_to_store(worker, emission.shard, (emission.epoch, changes))?;
                self.emit(worker, emission)?;
            }
            Action::Progress(news) => self.tell_progress(worker, &news)?,
            Action::Answer(answer) => self.answer(answer)?,
            Action::Call(call) => self.call(worker, call)?,
            Action::AskEnd { shard, question } => {
                self.report.ends_asked += 1;
                self.send(Event::AskEnd(self.life(worker), shard, question));
            }
            Action::TrimMailbox { shard, before } => {
                if self.plan.looks_inside {
                    self.check_trim(shard, before)?;
                }
                let ms = self.random.between(0, 200);
                self.after(ms, Event::TrimMailbox(self.life(worker), shard, before));
            }
            Action::Store(snapshot) => self.store(worker, snapshot)?,
            Action::ReadBack { shard, snapshot } => {
                let ms = self.random.between(0, 200);
                self.after(ms, Event::ReadBack(self.life(worker), shard, snapshot));
            }
            Action::Forget { shard, snapshots, before } => {
                let ms = self.random.between(0, 200);
                self.after(ms, Event::Forget(self.life(worker), shard, snapshots, before));
            }
            Action::TakeOver(shard) if self.plan.rules.holds(Rule::DeposedClaimsAgain) => {
                self.take_over_later(worker, shard);
            }
            // Nobody listens to traces.
            Action::TakeOver(_) | Action::Trace(_) => {}
        }
        Ok(())
    }

    pub(super) fn life(&self, worker: WorkerId) -> Life {
        (worker, self.workers[worker].life)
    }

    fn answer(&mut self, answer: Answer) -> Result<(), String> {
        if answer.reply == Reply::Deferred {
            // The request waits, unless its owner is gone by then.
            self.report.deferred += 1;
            return Ok(());
        }
        self.report.answers += 1;
        let Some(asking) = self.asked.remove(&answer.request) else {
            return Err(format!("request {} is answered twice (I7)", answer.request));
        };
        self.tell(format_args!("request {} is answered", answer.request));
        if let Reply::Resumed { waiting, .. } = &answer.reply {
            self.report.unparked += u64::from(*waiting == 0);
            self.report.parked_again += u64::from(*waiting > 0);
        }
        if self.plan.looks_inside {
            self.check_answered(answer.request, asking)?;
        }
        let answer = Answer { request: asking.first, ..answer };
        if self.plan.looks_inside {
            self.workload.check_answer(&self.program, &self.audit, &answer)?;
        }
        self.tell_client(answer, asking.known)
    }

    /// A worker learns where a journal ends.
    pub(super) fn end_told(&mut self, worker: WorkerId, shard: ShardId, question: u64, end: Offset) {
        let was_owned = self.owned(worker, shard).is_some();
        self.pipeline(worker).journal_end(shard, question, end);
        self.report.ends_elsewhere += u64::from(was_owned && self.owned(worker, shard).is_none());
    }

    pub(super) fn read_back(&mut self, worker: WorkerId, shard: ShardId, mark: &SnapshotMark) {
        let is_whole = read_back(&mut self.snapshots, mark).is_ok();
        self.report.snapshots_read_back += 1;
        self.report.snapshots_read_back_damaged += u64::from(!is_whole);
        self.pipeline(worker).snapshot_read_back(shard, mark, is_whole);
    }

    /// Removes what is no longer needed: snapshots first, and then the journal.
    pub(super) fn forget(
        &mut self,
        worker: WorkerId,
        shard: ShardId,
        snapshots: &[SnapshotMark],
        before: Option<Offset>,
    ) -> Result<(), String> {
        for mark in snapshots {
            self.snapshots.remove(&mark.name)?;
        }
        if self.strikes(Fault::Crash) {
            return self.crash(worker);
        }
        if let Some(before) = before {
            self.log.trim(shard, before)?;
            self.report.trims += 1;
        }
        Ok(())
    }

    /// Lets the owner of a shard forget its journal while somebody else begins to read it.
    pub(super) fn forget_while_read(&mut self, shard: ShardId) -> Result<(), String> {
        let is_it = |event: &Event| match event {
            Event::Forget((worker, life), of, ..) => *of == shard && self.workers[*worker].life == *life,
            _ => false,
        };
        let Some(place) = self.queue.iter().find(|(_, event)| is_it(event)).map(|(place, _)| *place) else {
            return Ok(());
        };
        let Some(Event::Forget(_, _, snapshots, Some(before))) = self.queue.remove(&place) else { return Ok(()) };
        for mark in &snapshots {
            self.snapshots.remove(&mark.name)?;
        }
        self.report.trims_raced += u64::from(before > self.log.start(shard));
        self.log.trim_before_the_next_read(shard, before);
        Ok(())
    }

    pub(super) fn emit(&mut self, worker: WorkerId, emission: Emission) -> Result<(), String> {
        let committed = self.audit.shards[emission.shard as usize].image.epoch();
        if self.plan.looks_inside && emission.epoch > committed {
            return Err(format!("shard {} emits epoch {}, which is not committed", emission.shard, emission.epoch));
        }
        self.workers[worker].emissions.push_back(emission);
        let ms = self.random.between(0, self.plan.egress_ms_max);
        self.after(ms, Event::Flush(self.life(worker)));
        Ok(())
    }

    /// Lets the egresses of a worker write all they have, and its pipeline know with more delay.
    pub(super) fn flush(&mut self, worker: WorkerId) -> Result<(), String> {
        for emission in std::mem::take(&mut self.workers[worker].emissions) {
            let Emission { shard, epoch, frame, records } = emission;
            let taken = self.egresses.taken(shard);
            if epoch > taken + 1 {
                return Err(format!("egress of shard {shard}: epoch {epoch} comes after epoch {taken}"));
            }
            match epoch > taken {
                true => self.report.emitted += records.len() as u64,
                false => self.report.emitted_again += 1,
            }
            let records = records.iter().map(|emitted| (usize::from(emitted.egress), emitted.record.of(&frame)));
            self.egresses.write_epoch(shard, epoch, records);
            let Ok(()) = self.egresses.sync();
            let taken = self.egresses.taken(shard);
            self.send(Event::EgressTaken(self.life(worker), shard, taken));
        }
        Ok(())
    }

    pub(super) fn store(&mut self, worker: WorkerId, snapshot: Snapshot) -> Result<(), String> {
        let Snapshot { shard, mark, mut bytes } = snapshot;
        if self.plan.looks_inside {
            snapshot_equals_fold(&self.log, shard, mark.next_offset, &bytes)?;
        }
        let Some(nonce) = self.owned(worker, shard).map(Shard::nonce) else { return Ok(()) };
        let is_stored = !self.strikes(Fault::FailedSnapshot);
        if is_stored {
            self.report.snapshots += 1;
            self.report.snapshots_after_failure += u64::from(self.failed_snapshots.remove(&shard));
        } else {
            self.failed_snapshots.insert(shard);
            self.report.snapshots_failed += 1;
            self.tell(format_args!("a snapshot of shard {shard} cannot be stored"));
            let place = self.random.place(bytes.len());
            bytes[place] ^= 0x10;
            bytes.truncate(place + 1);
        }
        // A put that fails may leave anything behind.
        if is_stored || self.random.chance(500) {
            self.snapshots.put(&mark.name, &bytes)?;
        }
        self.send(Event::SnapshotTold(self.life(worker), shard, nonce, is_stored.then_some(mark)));
        Ok(())
    }
}
