//! What waits for a time: timers, and messages that come in the order of their event time.
//!
//! Entries live in a slab; a wheel for each stage, and one for processing time, holds their places.
//!
//! Invariant: an entry is in its wheel, but for a re-armed timer that the end of the input has put
//! to sleep; its identity is unique in the shard and rises.
//!
//! Deliberately absent: an ordered map. Nothing is sorted but what is due in one millisecond.

use std::collections::BTreeMap;

use hashbrown::HashTable;

use super::frame::{
    MessageRef, PENDING_EVENT_TIMER, PENDING_MESSAGE, PENDING_PROCESSING_TIMER, PENDING_REARMED, PendingRef,
};
use crate::{
    address::murmur2,
    program::{FunctionId, Program},
    time::{EventTime, wheel::Wheels},
};

/// What is known of an entry besides its bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting {
    pub(crate) id: u64,
    /// One of the `PENDING_` kinds, with or without [`PENDING_REARMED`].
    pub(crate) kind: u8,
    pub(crate) due: i64,
    pub(crate) time: EventTime,
    pub(crate) function: FunctionId,
    pub(crate) handler: u16,
    pub(crate) hash: u32,
}

impl Waiting {
    pub(crate) fn is_timer(&self) -> bool {
        self.kind & !PENDING_REARMED != PENDING_MESSAGE
    }

    pub(crate) fn is_rearmed(&self) -> bool {
        self.kind & PENDING_REARMED != 0
    }
}

#[derive(Debug)]
struct Entry {
    waiting: Waiting,
    key_length: u32,
    name_length: u32,
    /// Key, name and payload.
    bytes: Box<[u8]>,
}

impl Entry {
    fn key(&self) -> &[u8] {
        &self.bytes[..self.key_length as usize]
    }

    fn name(&self) -> &[u8] {
        &self.bytes[self.key_length as usize..][..self.name_length as usize]
    }

    fn payload(&self) -> &[u8] {
        &self.bytes[self.key_length as usize + self.name_length as usize..]
    }
}

/// The pending timers and messages of a shard.
#[derive(Debug)]
pub(crate) struct Pending {
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    named: HashTable<u32>,
    wheels: Wheels,
    /// The stage of each function, and behind them the wheel of processing time.
    stage_of: Vec<usize>,
    processing: usize,
    /// For each stage that is a cycle the times of the messages that wait in it, which hold it.
    buffered: Vec<Option<BTreeMap<i64, u32>>>,
}

impl Pending {
    pub(crate) fn new(program: &Program) -> Self {
        let processing = program.stages.len();
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            named: HashTable::new(),
            wheels: Wheels::new(processing + 1),
            stage_of: program.functions.iter().map(|function| usize::from(function.stage)).collect(),
            processing,
            buffered: program.stages.iter().map(|stage| stage.is_cycle.then(BTreeMap::new)).collect(),
        }
    }

    /// The wheel of processing time.
    pub(crate) fn processing_wheel(&self) -> usize {
        self.processing
    }

    /// Adds an entry; returns the identity of the one with the same name that it replaces.
    pub(crate) fn add(&mut self, waiting: Waiting, key: &[u8], name: &[u8], payload: &[u8]) -> Option<u64> {
        let replaced = if name.is_empty() { None } else { self.cancel(waiting.function, key, name) };
        let mut bytes = Vec::with_capacity(key.len() + name.len() + payload.len());
        for part in [key, name, payload] {
            bytes.extend_from_slice(part);
        }
        let entry = Entry {
            waiting,
            key_length: key.len() as u32,
            name_length: name.len() as u32,
            bytes: bytes.into_boxed_slice(),
        };
        let place = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            u32::try_from(self.entries.len() - 1).expect("a shard has fewer than 2^32 pending timers")
        });
        self.entries[place as usize] = Some(entry);
        if !name.is_empty() {
            let entries = &self.entries;
            let hash =
                |place: &u32| entries[*place as usize].as_ref().map_or(0, |entry| name_hash(&entry.waiting, entry));
            self.named.insert_unique(hash(&place), place, hash);
        }
        self.wheels.insert(self.wheel_of(&waiting), place, self.wheel_time(&waiting));
        if let Some(buffered) = self.buffered_of(&waiting) {
            *buffered.entry(waiting.due).or_default() += 1;
        }
        replaced
    }

    /// Takes out the entry of a key with this name; returns its identity.
    pub(crate) fn cancel(&mut self, function: FunctionId, key: &[u8], name: &[u8]) -> Option<u64> {
        let entries = &self.entries;
        let is_it = |place: &u32| {
            let entry = entries[*place as usize].as_ref();
            entry.is_some_and(|entry| entry.waiting.function == function && entry.key() == key && entry.name() == name)
        };
        let found = self.named.find_entry(hash_of(function, murmur2(key), name), is_it);
        let place = *found.ok()?.get();
        let wheel = self.wheel_of(&self.waiting(place));
        self.wheels.remove(wheel, place);
        Some(self.remove(place).waiting.id)
    }

    /// Takes the entries that are due next, at or before `upto`, out of their wheel and appends
    /// them to `places`, which it then brings into order; returns the time of the wheel. They stay
    /// entries until [`Self::take`] or [`Self::put_back`].
    pub(crate) fn pop(&mut self, wheel: usize, upto: i64, places: &mut Vec<u32>) -> Option<i64> {
        let at = self.wheels.pop(wheel, upto, places)?;
        if places.len() > 1 {
            places.sort_unstable_by_key(|place| self.order(*place));
        }
        Some(at)
    }

    /// Per key, messages and timers form one order: by time, messages first, then by arrival.
    fn order(&self, place: u32) -> (i64, bool, u64) {
        let waiting = self.waiting(place);
        (waiting.due, waiting.is_timer(), waiting.id)
    }

    /// Puts a popped entry into its wheel again.
    pub(crate) fn put_back(&mut self, place: u32) {
        let waiting = self.waiting(place);
        self.wheels.insert(self.wheel_of(&waiting), place, self.wheel_time(&waiting));
    }

    /// What is known of an entry.
    pub(crate) fn waiting(&self, place: u32) -> Waiting {
        self.entries[place as usize].as_ref().expect("a place in a wheel has an entry").waiting
    }

    /// Whether an entry can be cancelled or replaced by its name.
    pub(crate) fn is_named(&self, place: u32) -> bool {
        self.entries[place as usize].as_ref().is_some_and(|entry| entry.name_length > 0)
    }

    /// Removes a popped entry and hands its key and payload to `each`.
    pub(crate) fn take(&mut self, place: u32, each: impl FnOnce(&Waiting, &[u8], &[u8])) {
        let entry = self.remove(place);
        each(&entry.waiting, entry.key(), entry.payload());
    }

    /// The time of the earliest message that waits in a cycle.
    pub(crate) fn earliest_buffered(&self, stage: usize) -> Option<i64> {
        self.buffered[stage].as_ref()?.first_key_value().map(|(time, _)| *time)
    }

    /// A time before which nothing of a wheel is due.
    pub(crate) fn earliest(&self, wheel: usize) -> Option<i64> {
        self.wheels.earliest(wheel)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Every entry, in the order of identities, as it stands in a snapshot.
    pub(crate) fn sorted(&self, program: &Program, mut each: impl FnMut(PendingRef<'_>)) {
        let mut entries: Vec<&Entry> = self.entries.iter().flatten().collect();
        entries.sort_unstable_by_key(|entry| entry.waiting.id);
        for entry in entries {
            let Waiting { id, kind, due, time, function, handler, .. } = entry.waiting;
            let linked = &program.functions[usize::from(function)];
            let name = if entry.waiting.is_timer() { linked.timer_name(handler) } else { linked.message_name(handler) };
            let message =
                MessageRef { function: linked.name, message: name, time, key: entry.key(), payload: entry.payload() };
            each(PendingRef { id, kind, due, name: entry.name(), message });
        }
    }

    fn remove(&mut self, place: u32) -> Entry {
        let entry = self.entries[place as usize].take().expect("a pending entry is removed once");
        if entry.name_length > 0 {
            let hash = name_hash(&entry.waiting, &entry);
            if let Ok(found) = self.named.find_entry(hash, |other| *other == place) {
                found.remove();
            }
        }
        if let Some(buffered) = self.buffered_of(&entry.waiting) {
            let count = buffered.entry(entry.waiting.due).or_default();
            *count -= 1;
            if *count == 0 {
                buffered.remove(&entry.waiting.due);
            }
        }
        self.free.push(place);
        entry
    }

    /// When the wheel of an entry gives it out. In a cycle a waiting message holds the watermark
    /// just before its own time, so it has to come out at that watermark.
    pub(crate) fn wheel_time(&self, waiting: &Waiting) -> i64 {
        let stage = self.stage_of[usize::from(waiting.function)];
        match waiting.is_timer() || self.buffered[stage].is_none() {
            true => waiting.due,
            false => EventTime(waiting.due).just_before().0,
        }
    }

    fn buffered_of(&mut self, waiting: &Waiting) -> Option<&mut BTreeMap<i64, u32>> {
        let stage = self.stage_of[usize::from(waiting.function)];
        if waiting.is_timer() { None } else { self.buffered[stage].as_mut() }
    }

    fn wheel_of(&self, waiting: &Waiting) -> usize {
        match waiting.kind & !PENDING_REARMED {
            PENDING_PROCESSING_TIMER => self.processing,
            _ => self.stage_of[usize::from(waiting.function)],
        }
    }
}

/// The kind of an entry for a timer that waits for event time.
pub(crate) fn event_timer_kind(rearmed: bool) -> u8 {
    PENDING_EVENT_TIMER | if rearmed { PENDING_REARMED } else { 0 }
}

fn name_hash(waiting: &Waiting, entry: &Entry) -> u64 {
    hash_of(waiting.function, waiting.hash, entry.name())
}

fn hash_of(function: FunctionId, key_hash: u32, name: &[u8]) -> u64 {
    let mixed = u64::from(key_hash) << 32 | u64::from(murmur2(name) ^ u32::from(function));
    let mixed = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 32
}
