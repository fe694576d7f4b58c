//! Who should own a shard, who believes so, and take-overs.

use std::sync::Arc;

use statefn_core::{
    address::ShardId,
    ports::{
        egress::Egresses,
        log::Log,
        membership::{Membership, News},
        snapshots::Snapshots,
        store::Store,
    },
    shard::{Accepted, Shard, TakeOver, rules::Rule},
};

use super::{Event, Outcome, WorkerId, World, store::Watched};

impl World<'_> {
    /// Tells a worker whether it is named for a shard, as things stand now.
    pub(super) fn news(&mut self, worker: WorkerId, shard: ShardId) {
        let is_named = self.named[shard as usize] == worker;
        self.workers[worker].membership.tell(shard, is_named);
        while let Some(news) = self.workers[worker].membership.next_news() {
            self.watch.news(worker, news, &self.workers[worker].membership);
            match news {
                News::Named(shard) => self.take_over_later(worker, shard),
                News::Released(shard) => {
                    self.workers[worker].claims.remove(&shard);
                    self.report.given_away += u64::from(self.pipeline(worker).drop_shard(shard).is_some());
                }
            }
        }
    }

    pub(super) fn take_over_later(&mut self, worker: WorkerId, shard: ShardId) {
        // Random, so that two who want the same shard do not run into each other for ever.
        let ms = self.random.between(1, 60);
        self.after(ms, Event::TakeOver(self.life(worker), shard));
    }

    pub(super) fn prepare(&mut self, worker: WorkerId, shard: ShardId) -> Result<(), String> {
        let known = &self.workers[worker];
        if !known.membership.is_named(shard) || known.claims.contains_key(&shard) || self.owned(worker, shard).is_some()
        {
            return Ok(());
        }
        let taken = self.egresses.taken(shard);
        if self.random.chance(500) {
            self.forget_while_read(shard)?;
        }
        let program = Arc::clone(&self.workers[worker].program);
        let mut missing = Vec::new();
        let applied = self.stores[shard as usize].applied_epoch()?;
        let mut store = Watched { store: &mut self.stores[shard as usize], is_replaced: false };
        let ports: (&mut dyn Log, &mut dyn Snapshots, &mut dyn Store) =
            (&mut self.log, &mut self.snapshots, &mut store);
        let take_over = TakeOver::prepare_with_store(&program, &self.options, shard, ports, taken, &mut |emission| {
            missing.push(emission);
        });
        let mut take_over = take_over.map_err(|error| error.to_string())?;
        self.report.stores_replaced += u64::from(store.is_replaced);
        self.report.stores_mended += u64::from(self.stores[shard as usize].applied_epoch()? > applied);
        self.report.snapshots_passed_over += u64::from(self.is_newest_rotten(shard));
        missing.into_iter().try_for_each(|emission| self.emit(worker, emission))?;
        self.nonce += 1;
        // The varints of nonces have all lengths.
        let mut nonce = self.nonce << 40 | self.random.below(1 << 40);
        if !self.plan.rules.holds(Rule::NoncesAreNew) {
            nonce = 1 + u64::from(shard);
        }
        let claim = Arc::new(take_over.claim(&program, nonce));
        self.workers[worker].claims.insert(shard, (nonce, take_over));
        self.report.claims += 1;
        self.append(worker, shard, nonce, vec![claim]);
        Ok(())
    }

    pub(super) fn claim_told(&mut self, worker: WorkerId, shard: ShardId, outcome: Outcome) -> Result<(), String> {
        let Some((_, take_over)) = self.workers[worker].claims.remove(&shard) else { return Ok(()) };
        let mut missing = Vec::new();
        let mut store = Watched { store: &mut self.stores[shard as usize], is_replaced: false };
        let accepted = match outcome {
            Outcome::Stands(_) => {
                let mut emit = |emission| missing.push(emission);
                take_over.accept_with_store(&mut self.log, &mut store, &mut emit).map_err(|error| error.to_string())?
            }
            Outcome::Refused | Outcome::Unknown => Accepted::Again,
        };
        self.report.stores_replaced += u64::from(store.is_replaced);
        self.report.folded_on += u64::from(!missing.is_empty());
        missing.into_iter().try_for_each(|emission| self.emit(worker, emission))?;
        match accepted {
            Accepted::Owned(owned) => {
                self.report.takeovers += 1;
                self.tell(format_args!("worker {worker} owns shard {shard}, from epoch {} on", owned.epoch()));
                let others = (0..self.workers.len()).filter(|other| *other != worker);
                let is_owned_twice = others.into_iter().any(|other| self.owned(other, shard).is_some());
                self.report.owned_twice += u64::from(is_owned_twice);
                self.remove_unkept(&owned)?;
                let taken = self.egresses.taken(shard);
                self.pipeline(worker).adopt(*owned, taken);
            }
            Accepted::Again => {
                self.report.claims_in_vain += 1;
                self.take_over_later(worker, shard);
            }
        }
        Ok(())
    }

    /// Removes the snapshots that the new owner does not keep, as the runtime does at its start;
    /// elsewhere an owner of before may still bring the mark of one.
    fn remove_unkept(&mut self, owned: &Shard) -> Result<(), String> {
        if !self.plan.is_embedded {
            return Ok(());
        }
        let mut names = self.snapshots.list()?;
        let of_shard = format!("shard-{}/", owned.id());
        names.retain(|name| name.starts_with(&of_shard) && owned.snapshots().iter().all(|kept| kept.name != *name));
        names.iter().try_for_each(|name| self.snapshots.remove(name))
    }
}
