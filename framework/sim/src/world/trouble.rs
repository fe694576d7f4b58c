//! Troubles from outside, and their end.

use statefn_core::{
    address::ShardId,
    ports::{egress::Egresses, log::Log, membership::Membership, snapshots::Snapshots},
    shard::{Shard, wire::progress_partition},
};

use super::{Event, WorkerId, World};
use crate::{
    check::Committed,
    plan::{Fault, Faults, JUMP_MS_MAX},
};

impl World<'_> {
    pub(super) fn trouble(&mut self) -> Result<(), String> {
        if self.is_calm {
            return Ok(());
        }
        let ms = self.random.between(10, 100);
        self.after(ms, Event::Trouble);
        if self.strikes(Fault::Pause) {
            self.pause();
        }
        if self.workers.len() > 1 && self.strikes(Fault::MovedShard) {
            let shard = self.random.place(self.named.len());
            self.move_shard(shard);
        }
        if self.strikes(Fault::ClockJump) {
            self.jump();
        }
        if self.strikes(Fault::StalledJournal) {
            let shard = self.random.place(self.named.len());
            self.stalled_until[shard] = self.now + self.random.between(20, 800);
            self.report.stalls += 1;
            self.tell(format_args!("appends to shard {shard} stall"));
        }
        if self.plan.is_embedded && self.random.chance(500) {
            let shard = self.random.place(self.named.len());
            self.flushed[shard].clone_from(&self.stores[shard]);
        }
        if !self.plan.is_embedded && self.random.chance(200) {
            // What the log keeps of progress is its own affair.
            let progress = progress_partition(self.plan.shards);
            let kept = self.random.below(20);
            self.log.trim(progress, self.log.end(progress).saturating_sub(kept))?;
        }
        if self.random.chance(self.faults.forgets) && !self.has_forgotten {
            self.lose_a_record()?;
        }
        if self.strikes(Fault::DamagedSnapshot) {
            return self.rot();
        }
        Ok(())
    }

    /// Loses the newest epoch of a journal, once, though its writer was told that it stands.
    fn lose_a_record(&mut self) -> Result<(), String> {
        let shard = self.random.place(self.named.len());
        let Committed { image, .. } = &self.audit.shards[shard];
        let (nonce, epoch) = (image.nonce(), image.epoch());
        let is_told = |owned: &Shard| owned.nonce() == nonce && owned.epoch() == epoch && !owned.is_in_flight();
        if epoch > 0 && self.owned(self.named[shard], shard as ShardId).is_some_and(is_told) {
            self.has_forgotten = self.log.forget(shard as ShardId);
            self.report.records_forgotten += u64::from(self.has_forgotten);
            return self.audit.fold_again(shard as ShardId, self.log.whole(shard as ShardId));
        }
        Ok(())
    }

    /// Sets a clock forward or back by far more than clocks differ, once for each worker.
    fn jump(&mut self) {
        let worker = self.random.place(self.workers.len());
        let by = self.random.one_of(&[-5_000, -400, 400, JUMP_MS_MAX]);
        let skew = &mut self.workers[worker].clock.skew_ms;
        if skew.abs() < 100 {
            *skew += by;
            self.report.jumps += 1;
            self.tell(format_args!("the clock of worker {worker} jumps by {by} ms"));
        }
    }

    /// Stops a worker for a while; others may be given its shards, so that it wakes as a zombie.
    pub(super) fn pause(&mut self) {
        let worker = self.random.place(self.workers.len());
        self.workers[worker].paused_until = self.now + self.random.between(20, 1_500);
        self.report.pauses += 1;
        let ms = self.workers[worker].paused_until - self.now;
        self.tell(format_args!("worker {worker} pauses for {ms} ms"));
        if self.workers.len() == 1 || !self.random.chance(500) {
            return;
        }
        for shard in 0..self.named.len() {
            if self.named[shard] == worker {
                self.move_shard(shard);
            }
        }
    }

    pub(super) fn move_shard(&mut self, shard: usize) {
        let to = self.random.place(self.workers.len());
        let from = self.named[shard];
        self.move_shard_to(shard, to);
        if from != to && self.random.chance(self.faults.slow_news / 2) && !self.is_spared() {
            self.report.ping_pongs += 1;
            let mut ms = 0;
            for to in [from, to, from] {
                ms += self.random.between(5, 120);
                self.after(ms, Event::Move(shard as ShardId, to));
            }
        }
    }

    pub(super) fn move_shard_to(&mut self, shard: usize, to: WorkerId) {
        let from = std::mem::replace(&mut self.named[shard], to);
        self.report.moves += 1;
        self.tell(format_args!("shard {shard} moves from worker {from} to worker {to}"));
        for worker in [from, to] {
            let is_slow = self.strikes(Fault::SlowNews);
            self.report.slow_news += u64::from(is_slow);
            let ms = self.random.between(0, if is_slow { 2_000 } else { 30 });
            if self.workers[worker].pipeline.is_some() {
                self.after(ms, Event::News(self.life(worker), shard as ShardId));
            }
        }
    }

    /// Damages one of the two snapshots that the owner of a shard keeps, but never both.
    ///
    /// The two are the newest that egresses have reached, but for those that were damaged before the
    /// newest was one of them: the owner has to notice those before it lets go of what is older.
    /// Often all processes die as well, so that what is left has to be read at once.
    pub(super) fn rot(&mut self) -> Result<(), String> {
        let shard = self.random.place(self.named.len());
        let taken = self.egresses.taken(shard as ShardId);
        let mut marks = self.audit.shards[shard].marks.clone();
        marks.retain(|mark| mark.epoch <= taken);
        marks.sort_by_key(|mark| mark.epoch);
        marks.dedup_by_key(|mark| mark.epoch);
        let Some(newest) = marks.last().map(|mark| mark.epoch) else { return Ok(()) };
        marks.retain(|mark| self.rotten.get(&mark.name).is_none_or(|since| *since == newest));
        let [.., older, newer] = &marks[..] else { return Ok(()) };
        if [older, newer].iter().any(|mark| self.rotten.contains_key(&mark.name)) {
            return Ok(());
        }
        let mark = if self.random.chance(500) { older } else { newer }.clone();
        self.rotten.insert(mark.name.clone(), newest);
        self.report.snapshots_rotten += 1;
        self.tell(format_args!("the snapshot {} is damaged", mark.name));
        match self.random.chance(500) {
            true => self.snapshots.put(&mark.name, b"rotten")?,
            false => self.snapshots.remove(&mark.name)?,
        }
        match self.random.chance(300) {
            true => (0..self.workers.len()).try_for_each(|worker| self.crash(worker)),
            false => Ok(()),
        }
    }

    /// Whether the newest snapshot that a recovery may begin with is damaged.
    pub(super) fn is_newest_rotten(&self, shard: ShardId) -> bool {
        let taken = self.egresses.taken(shard);
        let marks = self.audit.shards[shard as usize].marks.iter().filter(|mark| mark.epoch <= taken);
        marks.max_by_key(|mark| mark.epoch).is_some_and(|mark| self.rotten.contains_key(&mark.name))
    }

    pub(super) fn calm(&mut self) {
        self.is_calm = true;
        self.tell(format_args!("the faults end"));
        self.faults = Faults::default();
        for worker in 0..self.workers.len() {
            self.workers[worker].paused_until = self.now;
            self.workers[worker].clock.skew_ms = 0;
            if self.workers[worker].pipeline.is_none() {
                continue;
            }
            for shard in 0..self.plan.shards {
                // The end of the troubles heals nothing but news that is on its way.
                let knows = self.workers[worker].membership.is_named(shard);
                if knows != (self.named[shard as usize] == worker) {
                    self.news(worker, shard);
                }
            }
            self.wake(worker, 1);
        }
    }
}
