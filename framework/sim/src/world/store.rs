//! Stores: what is committed is applied late, may be applied again, and comes from anybody.
//!
//! A worker of a fleet writes the epochs of a shard in order, the next ones when the last write has
//! returned. A write that is on its way arrives whatever becomes of its worker; what the worker had
//! not sent dies with it. An embedded store is applied at once and loses in a crash what it had
//! not flushed.

use std::sync::Arc;

use statefn_core::{
    address::ShardId,
    ports::store::{Change, MemoryStore, Store, StoreKey},
};

use super::{Event, Life, WorkerId, World};
use crate::plan::Fault;

/// An epoch and what it changes.
pub(super) type Epoch = (u64, Vec<Change>);

/// Epochs of a shard on their way to its store.
#[derive(Debug, Clone)]
pub(super) struct Write {
    life: Life,
    shard: ShardId,
    epochs: Arc<Vec<Epoch>>,
    is_copy: bool,
}

impl World<'_> {
    pub(super) fn apply_to_store(&mut self, worker: WorkerId, shard: ShardId, epoch: Epoch) -> Result<(), String> {
        if self.plan.is_embedded {
            return self.stores[shard as usize].apply(epoch.0, &epoch.1);
        }
        let unapplied = self.workers[worker].unapplied.entry(shard).or_default();
        unapplied.waiting.push(epoch);
        self.write_on(worker, shard);
        Ok(())
    }

    /// Sends what waits, unless a write is on its way.
    fn write_on(&mut self, worker: WorkerId, shard: ShardId) {
        let Some(unapplied) = self.workers[worker].unapplied.get_mut(&shard) else { return };
        if unapplied.is_writing || unapplied.waiting.is_empty() {
            return;
        }
        unapplied.is_writing = true;
        let epochs = Arc::new(std::mem::take(&mut unapplied.waiting));
        let write = Write { life: self.life(worker), shard, epochs, is_copy: false };
        if self.strikes(Fault::DoubledMail) {
            let ms = self.random.between(0, 2_000);
            self.after(ms, Event::Write(Write { is_copy: true, ..write.clone() }));
        }
        let ms = self.random.between(0, self.plan.store_ms_max);
        self.after(ms, Event::Write(write));
    }

    /// A write arrives.
    pub(super) fn write(&mut self, write: &Write) -> Result<(), String> {
        let Write { life, shard, ref epochs, is_copy } = *write;
        let store = &mut self.stores[shard as usize];
        let had = store.applied_epoch()?;
        for (epoch, changes) in epochs.iter() {
            store.apply(*epoch, changes)?;
        }
        let last = epochs.last().map_or(0, |(epoch, _)| *epoch);
        if is_copy {
            self.report.store_writes_doubled += 1;
            self.report.store_writes_overtaken += u64::from(had > last);
            return Ok(());
        }
        let is_owner = self.workers[life.0].life == life.1 && self.owned(life.0, shard).is_some();
        self.report.store_writes_deposed += u64::from(!is_owner);
        self.report.store_writes_void += u64::from(!is_owner && had >= last);
        self.report.store_writes_late += u64::from(self.audit.shards[shard as usize].image.epoch() > last);
        self.send(Event::Written(life, shard));
        Ok(())
    }

    pub(super) fn written(&mut self, worker: WorkerId, shard: ShardId) {
        if let Some(unapplied) = self.workers[worker].unapplied.get_mut(&shard) {
            unapplied.is_writing = false;
        }
        self.write_on(worker, shard);
    }

    /// The stores of a process lose what was not flushed.
    pub(super) fn lose_stores(&mut self) {
        for (store, flushed) in self.stores.iter_mut().zip(&self.flushed) {
            self.report.stores_behind += u64::from(store != flushed);
            store.clone_from(flushed);
        }
    }
}

/// What a worker has for the store of one shard.
#[derive(Debug, Default)]
pub(super) struct Unapplied {
    pub(super) waiting: Vec<Epoch>,
    pub(super) is_writing: bool,
}

impl Unapplied {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && !self.is_writing
    }
}

/// A store that notes whether it was replaced.
pub(super) struct Watched<'a> {
    pub(super) store: &'a mut MemoryStore,
    pub(super) is_replaced: bool,
}

impl Store for Watched<'_> {
    fn get_many(&mut self, keys: &[StoreKey]) -> Result<Vec<Option<Vec<u8>>>, String> {
        self.store.get_many(keys)
    }

    fn apply(&mut self, epoch: u64, changes: &[Change]) -> Result<(), String> {
        self.store.apply(epoch, changes)
    }

    fn replace(&mut self, epoch: u64, states: &[(StoreKey, Vec<u8>)]) -> Result<(), String> {
        self.is_replaced = true;
        self.store.replace(epoch, states)
    }

    fn applied_epoch(&mut self) -> Result<u64, String> {
        self.store.applied_epoch()
    }

    fn scan(&mut self, after: Option<&StoreKey>, limit: usize) -> Result<Vec<(StoreKey, Vec<u8>)>, String> {
        self.store.scan(after, limit)
    }
}
