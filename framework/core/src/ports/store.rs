//! The store port: where the states of keys live that are not in memory; a cache, never the truth.
//!
//! Invariants an implementation MUST keep: `apply` and `replace` of an epoch at or before the applied
//! one change nothing, also where they come late, from an owner that is none any more; `apply` of
//! an epoch that leaves a gap is refused; after `apply` of epoch e `get_many` yields what e wrote; a
//! crash may lose any number of the newest epochs, but whole ones only, and `applied_epoch` then
//! says so. It MAY lose everything: the journal and a snapshot bring it back.
//!
//! Deliberately absent: durability. A store is behind the journal by design.

use std::{collections::BTreeMap, ops::Bound};

/// A change of one state; `None` if it is gone.
pub type Change = (StoreKey, Option<Vec<u8>>);

/// The states of one shard: encoded states by function name and key.
pub trait Store: Send {
    /// Returns the states of these keys, `None` where there is none, in the order asked for.
    ///
    /// # Errors
    /// A text that names the place and the cause.
    fn get_many(&mut self, keys: &[StoreKey]) -> Result<Vec<Option<Vec<u8>>>, String>;

    /// Applies what a confirmed epoch changed; `changes` are in the order of their keys, each key once.
    ///
    /// # Errors
    /// A text that names the place and the cause, also if an epoch before it is missing; the epoch is
    /// then not applied.
    fn apply(&mut self, epoch: u64, changes: &[Change]) -> Result<(), String>;

    /// Holds exactly `states` from here on, in the order of their keys: all that there is at `epoch`.
    ///
    /// # Errors
    /// A text that names the place and the cause; the store then holds what it held, or nothing.
    fn replace(&mut self, epoch: u64, states: &[(StoreKey, Vec<u8>)]) -> Result<(), String>;

    /// Returns the last epoch that was applied, 0 if none was.
    ///
    /// # Errors
    /// A text that names the place and the cause.
    fn applied_epoch(&mut self) -> Result<u64, String>;

    /// Returns up to `limit` states behind `after`, in the order of their keys.
    ///
    /// # Errors
    /// A text that names the place and the cause.
    fn scan(&mut self, after: Option<&StoreKey>, limit: usize) -> Result<Vec<(StoreKey, Vec<u8>)>, String>;
}

/// A key of a store: the name of a function and the bytes of a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoreKey {
    /// The function's stable name.
    pub function: String,
    /// The key's bytes.
    pub key: Vec<u8>,
}

/// A store in memory.
///
/// ```
/// use statefn_core::ports::store::{MemoryStore, Store, StoreKey};
/// let key = StoreKey { function: "bank/account".into(), key: b"alice".to_vec() };
/// let mut store = MemoryStore::default();
/// store.apply(1, &[(key.clone(), Some(b"state".to_vec()))]).unwrap();
/// assert_eq!(store.get_many(&[key]).unwrap(), [Some(b"state".to_vec())]);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryStore {
    epoch: u64,
    states: BTreeMap<StoreKey, Vec<u8>>,
}

impl Store for MemoryStore {
    fn get_many(&mut self, keys: &[StoreKey]) -> Result<Vec<Option<Vec<u8>>>, String> {
        Ok(keys.iter().map(|key| self.states.get(key).cloned()).collect())
    }

    fn apply(&mut self, epoch: u64, changes: &[Change]) -> Result<(), String> {
        if epoch <= self.epoch {
            return Ok(());
        }
        if epoch != self.epoch + 1 {
            return Err(format!("the store has epoch {}: epoch {epoch} does not follow it", self.epoch));
        }
        for (key, state) in changes {
            match state {
                Some(state) => _ = self.states.insert(key.clone(), state.clone()),
                None => _ = self.states.remove(key),
            }
        }
        self.epoch = epoch;
        Ok(())
    }

    fn replace(&mut self, epoch: u64, states: &[(StoreKey, Vec<u8>)]) -> Result<(), String> {
        if epoch > self.epoch {
            (self.epoch, self.states) = (epoch, states.iter().cloned().collect());
        }
        Ok(())
    }

    fn applied_epoch(&mut self) -> Result<u64, String> {
        Ok(self.epoch)
    }

    fn scan(&mut self, after: Option<&StoreKey>, limit: usize) -> Result<Vec<(StoreKey, Vec<u8>)>, String> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let states = self.states.range::<StoreKey, _>((from, Bound::Unbounded)).take(limit);
        Ok(states.map(|(key, state)| (key.clone(), state.clone())).collect())
    }
}

/// The suite that every [`Store`] passes; `open` makes an empty store.
///
/// # Panics
/// If the store breaks its contract.
pub fn conformance(mut open: impl FnMut() -> Box<dyn Store>) {
    let key = |name: &str| StoreKey { function: "test/f".into(), key: name.as_bytes().to_vec() };
    let mut store = open();
    assert_eq!(store.applied_epoch().expect("readable"), 0, "a new store has applied nothing");
    store.apply(1, &[(key("a"), Some(b"1".to_vec())), (key("b"), Some(b"2".to_vec()))]).expect("applied");
    store.apply(2, &[(key("a"), None), (key("c"), Some(b"3".to_vec()))]).expect("applied");
    store.apply(1, &[(key("b"), Some(b"old".to_vec()))]).expect("an old epoch is no error");
    assert_eq!(store.applied_epoch().expect("readable"), 2, "an old epoch changes nothing");
    store.apply(4, &[(key("b"), None)]).expect_err("an epoch that leaves a gap is refused");
    assert_eq!(store.applied_epoch().expect("readable"), 2, "what is refused changes nothing");
    store.replace(2, &[]).expect("an old epoch is no error");
    let found = store.get_many(&[key("c"), key("a"), key("b")]).expect("readable");
    assert_eq!(found, [Some(b"3".to_vec()), None, Some(b"2".to_vec())], "in the order asked for");
    let first = store.scan(None, 1).expect("readable");
    assert_eq!(first, [(key("b"), b"2".to_vec())], "in the order of the keys");
    assert_eq!(store.scan(Some(&key("b")), 9).expect("readable"), [(key("c"), b"3".to_vec())]);
    store.replace(7, &[(key("d"), b"4".to_vec())]).expect("replaced");
    assert_eq!(store.scan(None, 9).expect("readable"), [(key("d"), b"4".to_vec())], "nothing of before is left");
    store.apply(6, &[(key("d"), None)]).expect("an old epoch is no error");
    store.apply(8, &[(key("a"), Some(b"5".to_vec()))]).expect("the next one follows");
    assert_eq!(store.get_many(&[key("a"), key("d")]).expect("readable"), [Some(b"5".to_vec()), Some(b"4".to_vec())]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_conforms() {
        conformance(|| Box::new(MemoryStore::default()));
    }
}
