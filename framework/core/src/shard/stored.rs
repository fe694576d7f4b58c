//! What an epoch changes in a store, and how a new owner brings a store up to date.
//!
//! A store is behind the journal by design: applying is late, and what a process had not applied
//! when it died is lost. A new owner folds snapshot and journal anyway, and gives the store each
//! epoch that it lacks on the way; where the snapshot begins behind what the store has, the store
//! is replaced. What an owner before still has on its way comes too late and changes nothing, by
//! the contract of [`Store::apply`].
//!
//! Invariant: a store is given committed epochs only (I5).

use std::collections::BTreeMap;

use super::{
    frame::{self, FrameRef, OpRef},
    image::Image,
};
use crate::{
    error::Corrupt,
    ports::store::{Change, Store, StoreKey},
    program::{NameId, Program},
};

/// The states that a confirmed frame of this program changes, as a store takes them.
///
/// # Errors
/// If the bytes are no whole frame.
pub fn changes(program: &Program, frame: &[u8]) -> Result<Vec<Change>, Corrupt> {
    changes_of(frame::parse(frame)?.body, |name| program.name(name).to_owned())
}

fn changes_of(body: &[u8], name: impl Fn(NameId) -> String) -> Result<Vec<Change>, Corrupt> {
    let mut changed = BTreeMap::new();
    frame::ops(body, |op| {
        if let OpRef::State(function, key, state) = op {
            let key = StoreKey { function: name(function), key: key.to_vec() };
            changed.insert(key, (!state.is_empty()).then(|| state.to_vec()));
        }
    })?;
    Ok(changed.into_iter().collect())
}

/// A store that is brought up to date while a journal is folded.
pub(super) struct Mending<'a> {
    store: &'a mut dyn Store,
    applied: u64,
    outcome: Result<(), Corrupt>,
}

impl<'a> Mending<'a> {
    pub(super) fn new(store: &'a mut dyn Store) -> Result<Self, Corrupt> {
        let applied = store.applied_epoch().map_err(Corrupt)?;
        Ok(Self { store, applied, outcome: Ok(()) })
    }

    /// Applies the epoch of a committed frame if it is the next one that the store lacks.
    pub(super) fn apply(&mut self, image: &Image, frame: &FrameRef<'_>) {
        let epoch = frame.header.epoch;
        if self.outcome.is_err() || epoch != self.applied + 1 {
            return;
        }
        let changes = changes_of(frame.body, |name| image.name(name).to_owned());
        self.outcome = changes.and_then(|changes| self.store.apply(epoch, &changes).map_err(Corrupt));
        self.applied = epoch;
    }

    /// Replaces the store if the fold began behind what it has.
    pub(super) fn finish(self, image: &Image) -> Result<(), Corrupt> {
        self.outcome?;
        if self.applied >= image.epoch() {
            return Ok(());
        }
        let states = image.states().map(|(function, key, state)| {
            (StoreKey { function: function.to_owned(), key: key.to_vec() }, state.to_vec())
        });
        let states: Vec<_> = states.collect();
        self.store.replace(image.epoch(), &states).map_err(Corrupt)
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        ports::store::{MemoryStore, Store},
        shard::Options,
        trial::{Add, Process, SHARDS, key_of, program},
    };

    /// Commits so many epochs; returns what stores and egresses are to be given.
    fn commit(process: &mut Process, epochs: usize) -> Vec<crate::pipeline::Action> {
        let mut actions = Vec::new();
        for _ in 0..epochs {
            process.call(&key_of(0), &Add(1));
            actions.extend(process.run());
        }
        actions
    }

    fn states(store: &mut MemoryStore) -> Vec<Vec<u8>> {
        store.scan(None, 10).expect("readable").into_iter().map(|(_, state)| state).collect()
    }

    #[test]
    fn a_new_owner_gives_the_store_what_it_lacks_and_late_writes_change_nothing() {
        let mut process = Process::new(true);
        process.own(0);
        let (mut store, mut whole) = (MemoryStore::default(), MemoryStore::default());
        let first = commit(&mut process, 1);
        process.apply(&first, &mut store);
        process.apply(&first, &mut whole);
        let late = commit(&mut process, 3);
        process.apply(&late, &mut whole);
        let mut next = process.fork();
        next.own_with_store(0, &mut store);
        assert_eq!(store, whole);
        let more = commit(&mut next, 1);
        next.apply(&more, &mut store);
        let expected = store.clone();
        process.apply(&late, &mut store);
        assert_eq!(store, expected);
    }

    #[test]
    fn a_store_behind_the_snapshot_is_replaced() {
        let program = program();
        let options = Options { snapshot_tail_bytes: 1, ..Options::new(SHARDS, &program) };
        let mut process = Process::with(&program, options);
        process.own(0);
        let mut whole = MemoryStore::default();
        for _ in 0..4 {
            let actions = commit(&mut process, 1);
            process.apply(&actions, &mut whole);
            process.keep(actions);
        }
        assert!(process.has_trimmed(0), "the first epochs are gone");
        let mut store = MemoryStore::default();
        let mut next = process.fork();
        next.own_with_store(0, &mut store);
        assert_eq!(states(&mut store), states(&mut whole));
    }
}
