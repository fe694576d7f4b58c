//! The states of an image: their bytes in a few buffers, found by function and key.
//!
//! A fold puts the states of the same keys again and again, and only the last of each counts. So a
//! state is a place in a buffer: a snapshot is taken over as the buffer that it was read into, and
//! what the journal has behind it is appended to others, which do not move.
//!
//! Invariants: a key of a function is there once; the buffers are at most about twice as large as
//! what is in them. The order of the entries follows from what was done to them, never from hashes.
//!
//! Deliberately absent: an order of keys. [`States::sorted`] makes one for those who need it.

use std::fmt;

use hashbrown::HashTable;

use crate::{
    address::murmur2,
    codec::{Reader, Truncated},
    error::Corrupt,
    host::spread,
    program::NameId,
};

/// How many bytes of the buffers may be out of use before they are made anew, at least.
const UNUSED_BYTES_MAX: usize = 1 << 20;
/// How large a buffer is made, in bytes; the first ones are smaller, for a shard with few states.
const BUFFER_BYTES_MIN: usize = 1 << 10;
const BUFFER_BYTES_MAX: usize = 256 << 10;
/// The shortest encoding of an entry in a snapshot: its function, and the lengths of key and state.
const ENTRY_BYTES_MIN: usize = 3;

/// One state.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StateRef<'a> {
    /// The function.
    pub(crate) function: NameId,
    /// The hash of the key.
    pub(crate) hash: u32,
    /// The key.
    pub(crate) key: &'a [u8],
    /// The encoded state.
    pub(crate) state: &'a [u8],
}

/// Where bytes stand.
#[derive(Clone, Copy)]
struct Place {
    buffer: u32,
    length: u32,
    at: usize,
}

#[derive(Clone, Copy)]
struct Entry {
    key: Place,
    state: Place,
    hash: u32,
    function: NameId,
}

impl Entry {
    fn length(&self) -> usize {
        self.key.length as usize + self.state.length as usize
    }
}

/// The states of a shard; see the module.
#[derive(Clone, Default)]
pub(crate) struct States {
    buffers: Buffers,
    /// How many bytes belong to an entry.
    used: usize,
    entries: Vec<Entry>,
    places: HashTable<u32>,
}

/// Bytes that are only added, and do not move.
#[derive(Clone, Default)]
struct Buffers {
    buffers: Vec<Vec<u8>>,
    /// How many bytes they hold.
    length: usize,
}

impl Buffers {
    fn of(bytes: Vec<u8>) -> Self {
        Self { length: bytes.len(), buffers: vec![bytes] }
    }

    fn get(&self, place: Place) -> &[u8] {
        let Place { buffer, length, at } = place;
        &self.buffers[buffer as usize][at..at + length as usize]
    }

    fn add(&mut self, bytes: &[u8]) -> Result<Place, Truncated> {
        let length = length_of(bytes)?;
        let has_room = |buffer: &Vec<u8>| buffer.capacity() - buffer.len() >= bytes.len();
        if !self.buffers.last().is_some_and(has_room) {
            let capacity = self.length.clamp(BUFFER_BYTES_MIN, BUFFER_BYTES_MAX).max(bytes.len());
            self.buffers.push(Vec::with_capacity(capacity));
        }
        let last = self.buffers.len() - 1;
        let buffer = &mut self.buffers[last];
        let at = buffer.len();
        buffer.extend_from_slice(bytes);
        self.length += bytes.len();
        Ok(Place { buffer: u32::try_from(last).map_err(|_| Truncated)?, length, at })
    }
}

/// Functions of an app often have the same keys.
fn hash_of(function: NameId, hash: u32) -> u64 {
    spread(hash.wrapping_add(u32::from(function)))
}

impl States {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Every state, in an order that says nothing.
    pub(crate) fn iter(&self) -> impl Iterator<Item = StateRef<'_>> {
        self.entries.iter().map(|entry| self.state_of(entry))
    }

    /// Every state, in the order of functions and keys.
    pub(crate) fn sorted(&self) -> impl Iterator<Item = StateRef<'_>> {
        let mut entries: Vec<&Entry> = self.entries.iter().collect();
        entries.sort_unstable_by_key(|entry| (entry.function, self.buffers.get(entry.key)));
        entries.into_iter().map(|entry| self.state_of(entry))
    }

    fn state_of(&self, entry: &Entry) -> StateRef<'_> {
        let Entry { key, state, hash, function } = *entry;
        StateRef { function, hash, key: self.buffers.get(key), state: self.buffers.get(state) }
    }

    /// Gives a key a state, in place of one that it has.
    pub(crate) fn put(&mut self, function: NameId, key: &[u8], state: &[u8]) -> Result<(), Corrupt> {
        let hash = murmur2(key);
        match self.find(&self.buffers, function, hash, key) {
            Some(place) => {
                let state = self.buffers.add(state)?;
                let key = self.entries[place as usize].key;
                self.replace(place, Entry { key, state, hash, function });
            }
            None => {
                let (key, state) = (self.buffers.add(key)?, self.buffers.add(state)?);
                self.insert(Entry { key, state, hash, function })?;
            }
        }
        self.tidy()
    }

    /// Takes the state of a key away, if it has one.
    pub(crate) fn remove(&mut self, function: NameId, key: &[u8]) -> Result<(), Corrupt> {
        let hash = murmur2(key);
        let Self { buffers, entries, places, .. } = self;
        let is_it = |place: &u32| is_of(&entries[*place as usize], buffers, function, hash, key);
        let Ok(found) = places.find_entry(hash_of(function, hash), is_it) else { return Ok(()) };
        let (place, _) = found.remove();
        let removed = entries.swap_remove(place as usize);
        // The last entry has moved into the gap.
        if let Some(moved) = entries.get(place as usize) {
            let last = entries.len() as u32;
            let moved = places.find_mut(hash_of(moved.function, moved.hash), |known| *known == last);
            *moved.expect("every entry is in the table") = place;
        }
        self.used -= removed.length();
        self.tidy()
    }

    /// The same states under other names of their functions.
    pub(crate) fn renamed(&self, mut rename: impl FnMut(NameId) -> Result<NameId, Corrupt>) -> Result<Self, Corrupt> {
        let mut renamed = Self::default();
        for StateRef { function, key, state, .. } in self.sorted() {
            renamed.put(rename(function)?, key, state)?;
        }
        Ok(renamed)
    }

    /// Reads the list of states that `bytes` hold from `at` on, up to their end, and keeps `bytes`.
    pub(crate) fn read(bytes: Vec<u8>, at: usize) -> Result<Self, Corrupt> {
        let buffers = Buffers::of(bytes);
        let bytes = &buffers.buffers[0][at..];
        let mut reader = Reader::new(bytes);
        let count = reader.number::<usize>()?;
        let mut states = Self::default();
        let room = count.min(bytes.len() / ENTRY_BYTES_MIN);
        states.entries.reserve(room);
        states.places.reserve(room, |_| 0);
        // A snapshot is sorted, so that a key is there once; other bytes are outside bytes.
        let mut before: Option<(NameId, &[u8])> = None;
        let mut is_sorted = true;
        for _ in 0..count {
            let function = reader.number()?;
            let key = reader.bytes()?;
            let key_place = Place { buffer: 0, length: length_of(key)?, at: at + reader.at() - key.len() };
            let state = reader.bytes()?;
            let state_place = Place { buffer: 0, length: length_of(state)?, at: at + reader.at() - state.len() };
            let hash = murmur2(key);
            let entry = Entry { key: key_place, state: state_place, hash, function };
            is_sorted &= before.is_none_or(|before| before < (function, key));
            before = Some((function, key));
            match if is_sorted { None } else { states.find(&buffers, function, hash, key) } {
                Some(place) => states.replace(place, entry),
                None => states.insert(entry)?,
            }
        }
        if !reader.is_empty() {
            return Err(Corrupt("the snapshot has bytes behind its end".into()));
        }
        states.buffers = buffers;
        Ok(states)
    }

    fn find(&self, buffers: &Buffers, function: NameId, hash: u32, key: &[u8]) -> Option<u32> {
        let is_it = |place: &u32| is_of(&self.entries[*place as usize], buffers, function, hash, key);
        self.places.find(hash_of(function, hash), is_it).copied()
    }

    /// Adds an entry whose key is not there.
    fn insert(&mut self, entry: Entry) -> Result<(), Corrupt> {
        let place = u32::try_from(self.entries.len()).map_err(|_| Corrupt("a shard holds at most 2^32 keys".into()))?;
        self.used += entry.length();
        self.entries.push(entry);
        let entries = &self.entries;
        let hash_at = |place: &u32| {
            let Entry { function, hash, .. } = entries[*place as usize];
            hash_of(function, hash)
        };
        self.places.insert_unique(hash_of(entry.function, entry.hash), place, hash_at);
        Ok(())
    }

    fn replace(&mut self, place: u32, entry: Entry) {
        let old = std::mem::replace(&mut self.entries[place as usize], entry);
        self.used = self.used - old.length() + entry.length();
    }

    /// Makes the buffers anew if more than half of them is out of use.
    fn tidy(&mut self) -> Result<(), Corrupt> {
        if self.buffers.length - self.used <= self.used.max(UNUSED_BYTES_MAX) {
            return Ok(());
        }
        let mut buffers = Buffers::default();
        for Entry { key, state, .. } in &mut self.entries {
            *key = buffers.add(self.buffers.get(*key))?;
            *state = buffers.add(self.buffers.get(*state))?;
        }
        self.buffers = buffers;
        Ok(())
    }
}

fn is_of(entry: &Entry, buffers: &Buffers, function: NameId, hash: u32, key: &[u8]) -> bool {
    (entry.hash, entry.function) == (hash, function) && buffers.get(entry.key) == key
}

fn length_of(bytes: &[u8]) -> Result<u32, Truncated> {
    u32::try_from(bytes.len()).map_err(|_| Truncated)
}

impl fmt::Debug for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "States({} of {} bytes)", self.len(), self.used)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::codec::{put_bytes, put_varint};

    type Model = BTreeMap<(NameId, Vec<u8>), Vec<u8>>;

    fn check(states: &States, model: &Model) {
        let sorted = states.sorted().map(|state| (state.function, state.key, state.state));
        assert!(sorted.eq(model.iter().map(|((function, key), state)| (*function, &key[..], &state[..]))));
        assert_eq!(states.len(), model.len());
        let used: usize = model.iter().map(|((_, key), state)| key.len() + state.len()).sum();
        assert_eq!(states.used, used);
        assert!(states.iter().all(|state| state.hash == murmur2(state.key)), "a hash is that of its key");
    }

    fn listed(items: &[(NameId, Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = b"before".to_vec();
        put_varint(&mut bytes, items.len() as u64);
        for (function, key, state) in items {
            put_varint(&mut bytes, u64::from(*function));
            put_bytes(&mut bytes, key);
            put_bytes(&mut bytes, state);
        }
        bytes
    }

    #[test]
    fn states_that_are_put_again_do_not_fill_the_memory() {
        let mut states = States::default();
        for round in 0..200_u8 {
            for key in 0..10_u8 {
                states.put(1, &[key], &vec![round; 10_000]).expect("is short");
            }
        }
        assert!(states.buffers.length <= 2 * (UNUSED_BYTES_MAX + states.used), "{}", states.buffers.length);
        assert!(states.iter().all(|state| state.state == vec![199; 10_000]));
        (0..10_u8).for_each(|key| states.remove(1, &[key]).expect("is short"));
        assert_eq!((states.len(), states.used), (0, 0));
    }

    #[test]
    fn a_list_that_is_cut_or_goes_on_is_refused() {
        let bytes = listed(&[(1, b"a".to_vec(), b"b".to_vec()), (1, b"c".to_vec(), b"d".to_vec())]);
        let read = |bytes: &[u8]| States::read(bytes.to_vec(), 6).map(|states| states.len());
        assert_eq!(read(&bytes), Ok(2));
        assert!((6..bytes.len()).all(|length| read(&bytes[..length]).is_err()));
        assert!(read(&[&bytes[..], &[0]].concat()).is_err());
    }

    proptest! {
        #[test]
        fn states_are_what_a_map_is(
            list in prop::collection::vec((0..3_u16, prop::collection::vec(0..3_u8, 0..3), prop::collection::vec(any::<u8>(), 0..9)), 0..20),
            is_sorted: bool,
            changes in prop::collection::vec((0..3_u16, prop::collection::vec(0..3_u8, 0..3), prop::option::of(prop::collection::vec(any::<u8>(), 1..9))), 0..60),
        ) {
            let mut list = list;
            if is_sorted {
                list.sort();
                list.dedup_by(|a, b| (a.0, &a.1) == (b.0, &b.1));
            }
            let mut model = Model::new();
            model.extend(list.iter().map(|(function, key, state)| ((*function, key.clone()), state.clone())));
            let mut states = States::read(listed(&list), 6).expect("is whole");
            check(&states, &model);
            for (function, key, state) in changes {
                match state {
                    Some(state) => {
                        states.put(function, &key, &state).expect("is short");
                        model.insert((function, key), state);
                    }
                    None => {
                        states.remove(function, &key).expect("is short");
                        model.remove(&(function, key));
                    }
                }
                check(&states, &model);
            }
            // Two functions get the same name: what comes last stays.
            let renamed = states.renamed(|function| Ok(function / 2)).expect("is short");
            let merged = model.into_iter().map(|((function, key), state)| ((function / 2, key), state)).collect();
            check(&renamed, &merged);
        }

        #[test]
        fn outside_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = States::read(bytes, 0);
        }
    }
}
