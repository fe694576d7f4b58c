//! What waits for a time: timers, and messages that come in the order of their event time.
//!
//! An entry stands in a slab as it stands in frames and snapshots: it is copied from one and to the
//! other, and read where it is needed. A wheel for each stage, and one for processing time, holds
//! the places of entries; one that has a name knows where in its wheel it is, as it may be
//! cancelled.
//!
//! Invariants: an entry is in its wheel, but for a re-armed timer that the end of the input has put
//! to sleep; its identity is unique in the shard and rises.
//!
//! Deliberately absent: an ordered map. Nothing is sorted but what is due in one millisecond.

use std::{collections::BTreeMap, sync::Arc};

use hashbrown::HashTable;

use super::{
    frame::{PENDING_MESSAGE, PENDING_PROCESSING_TIMER, PENDING_REARMED, PendingRef},
    slab::{PLACE_MAX, Slab},
};
use crate::{
    address::murmur2,
    codec::{Reader, varint_length},
    effect::{Call, Span},
    program::{FunctionId, NameId, Program},
    time::{
        EventTime,
        wheel::{Position, Wheels},
    },
};

/// Set in the place of an entry that has a name.
const NAMED: u32 = PLACE_MAX + 1;
/// The position of an entry that is in no wheel.
const NOWHERE: Position = Position::MAX;
const POSITION_BYTES: usize = size_of::<Position>();

/// An entry that was taken out of its wheel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting {
    place: u32,
    pub(crate) id: u64,
    /// One of the `PENDING_` kinds, with or without [`PENDING_REARMED`].
    pub(crate) kind: u8,
    pub(crate) due: i64,
    /// The call to be made; its bytes are those of the entry.
    pub(crate) call: Call,
}

impl Waiting {
    pub(crate) fn is_rearmed(&self) -> bool {
        self.kind & PENDING_REARMED != 0
    }

    /// Whether it can be cancelled or replaced by its name.
    pub(crate) fn is_named(&self) -> bool {
        self.place & NAMED != 0
    }

    /// Per key, messages and timers form one order: by time, messages first, then by arrival.
    fn order(&self) -> (i64, bool, u64) {
        (self.due, self.call.is_timer, self.id)
    }
}

pub(super) fn is_timer(kind: u8) -> bool {
    kind & !PENDING_REARMED != PENDING_MESSAGE
}

/// The pending timers and messages of a shard.
#[derive(Debug)]
pub(crate) struct Pending {
    program: Arc<Program>,
    entries: Slab,
    /// The places of those that have a name.
    named: HashTable<u32>,
    wheels: Wheels,
    /// For each stage that is a cycle the times of the messages that wait in it, which hold it.
    buffered: Vec<Option<BTreeMap<i64, u32>>>,
    /// What the wheel gave out last.
    popped: Vec<u32>,
}

impl Pending {
    pub(crate) fn new(program: &Arc<Program>) -> Self {
        Self {
            program: Arc::clone(program),
            entries: Slab::new(),
            named: HashTable::new(),
            wheels: Wheels::new(program.stages.len() + 1),
            buffered: program.stages.iter().map(|stage| stage.is_cycle.then(BTreeMap::new)).collect(),
            popped: Vec::new(),
        }
    }

    /// The wheel of processing time, behind those of the stages.
    pub(crate) fn processing_wheel(&self) -> usize {
        self.program.stages.len()
    }

    /// Adds an entry as it stands in a frame; returns the identity of the one with the same name
    /// that it replaces.
    pub(crate) fn add(&mut self, encoded: &[u8]) -> Option<u64> {
        let entry = read(encoded);
        let (function, kind, due) = (self.function_of(&entry), entry.kind, entry.due);
        let is_named = !entry.name.is_empty();
        let replaced = if is_named { self.cancel(function, entry.message.key, entry.name) } else { None };
        let room = encoded.len() + if is_named { POSITION_BYTES } else { 0 };
        let place = self.entries.insert(room) | if is_named { NAMED } else { 0 };
        self.entries.get_mut(place & PLACE_MAX)[..encoded.len()].copy_from_slice(encoded);
        if is_named {
            let entries = &self.entries;
            self.named.insert_unique(name_hash(&entry), place, |place| name_hash(&read(slot(entries, *place))));
        }
        if let Some(buffered) = self.buffered_of(function, kind) {
            *buffered.entry(due).or_default() += 1;
        }
        self.insert(place, function, kind, due);
        replaced
    }

    /// Takes out the entry of a key with this name; returns its identity.
    pub(crate) fn cancel(&mut self, function: FunctionId, key: &[u8], name: &[u8]) -> Option<u64> {
        let function_name = self.program.functions[usize::from(function)].name;
        let entries = &self.entries;
        let is_it = |place: &u32| {
            let entry = read(slot(entries, *place));
            (entry.message.function, entry.message.key, entry.name) == (function_name, key, name)
        };
        let found = self.named.find_entry(hash_of(function_name, key, name), is_it);
        let (place, _) = found.ok()?.remove();
        let PendingRef { id, kind, due, .. } = read(slot(&self.entries, place));
        let position = Position::from_le_bytes(*position_of(self.entries.get_mut(place & PLACE_MAX)));
        if position != NOWHERE {
            let wheel = self.wheel_of(function, kind);
            let entries = &mut self.entries;
            self.wheels.remove(wheel, place, position, |place, position| set_position(entries, place, position));
        }
        self.remove(place, function, kind, due);
        Some(id)
    }

    /// Takes the entries that are due next, at or before `upto`, out of their wheel and appends
    /// them, in order, to `due`; returns the time of the wheel. They stay entries until
    /// [`Self::take`] or [`Self::put_back`].
    pub(crate) fn pop(&mut self, wheel: usize, upto: i64, due: &mut Vec<Waiting>) -> Option<i64> {
        let mut popped = std::mem::take(&mut self.popped);
        let entries = &mut self.entries;
        let at = self.wheels.pop(wheel, upto, &mut popped, |place, position| set_position(entries, place, position));
        let from = due.len();
        for place in popped.drain(..) {
            set_position(&mut self.entries, place, NOWHERE);
            due.push(self.waiting(place));
        }
        self.popped = popped;
        if due.len() > from + 1 {
            due[from..].sort_unstable_by_key(Waiting::order);
        }
        at
    }

    fn waiting(&self, place: u32) -> Waiting {
        let mut reader = Reader::new(slot(&self.entries, place));
        let entry = PendingRef::read(&mut reader).expect(IS_READABLE);
        let PendingRef { id, kind, due, message, .. } = entry;
        let function = self.function_of(&entry);
        // Key and payload end the entry, each behind its length.
        let payload_at = reader.at() - message.payload.len();
        let key_end = payload_at - varint_length(message.payload.len() as u64);
        let is_timer = is_timer(kind);
        let handler = if is_timer {
            self.program.timer_handler(function, message.message)
        } else {
            self.program.message_handler(function, message.message)
        };
        let call = Call {
            is_timer,
            key: Span::between(key_end - message.key.len(), key_end),
            payload: Span::between(payload_at, reader.at()),
            ..Call::message(function, handler.expect(HAS_HANDLER), murmur2(message.key), message.time)
        };
        Waiting { place, id, kind, due, call }
    }

    /// Puts a popped entry into its wheel again.
    pub(crate) fn put_back(&mut self, waiting: &Waiting) {
        self.insert(waiting.place, waiting.call.function, waiting.kind, waiting.due);
    }

    /// Removes a popped entry, once `each` has seen its key and payload.
    pub(crate) fn take(&mut self, waiting: &Waiting, each: impl FnOnce(&[u8], &[u8])) {
        let place = waiting.place;
        let slot = slot(&self.entries, place);
        each(waiting.call.key.of(slot), waiting.call.payload.of(slot));
        if waiting.is_named() {
            let hash = name_hash(&read(slot));
            let found = self.named.find_entry(hash, |other| *other == place);
            found.expect("an entry that has a name is found by it").remove();
        }
        self.remove(place, waiting.call.function, waiting.kind, waiting.due);
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
        self.entries.len()
    }

    /// Every entry, in the order of identities, as it stands in a snapshot.
    pub(crate) fn sorted(&self) -> impl Iterator<Item = &[u8]> {
        let entries = self.entries.slots().map(|slot| {
            let mut reader = Reader::new(slot);
            let entry = PendingRef::read(&mut reader).expect(IS_READABLE);
            (entry.id, &slot[..reader.at()])
        });
        let mut entries: Vec<(u64, &[u8])> = entries.collect();
        entries.sort_unstable_by_key(|(id, _)| *id);
        entries.into_iter().map(|(_, entry)| entry)
    }

    fn insert(&mut self, place: u32, function: FunctionId, kind: u8, due: i64) {
        let (wheel, time) = (self.wheel_of(function, kind), self.wheel_time(function, kind, due));
        let position = self.wheels.insert(wheel, place, time);
        set_position(&mut self.entries, place, position);
    }

    fn remove(&mut self, place: u32, function: FunctionId, kind: u8, due: i64) {
        self.entries.remove(place & PLACE_MAX);
        if let Some(buffered) = self.buffered_of(function, kind) {
            let count = buffered.entry(due).or_default();
            *count -= 1;
            if *count == 0 {
                buffered.remove(&due);
            }
        }
    }

    /// When the wheel of an entry gives it out. In a cycle a waiting message holds the watermark
    /// just before its own time, so it has to come out at that watermark.
    pub(crate) fn wheel_time(&self, function: FunctionId, kind: u8, due: i64) -> i64 {
        match is_timer(kind) || self.buffered[self.stage_of(function)].is_none() {
            true => due,
            false => EventTime(due).just_before().0,
        }
    }

    fn buffered_of(&mut self, function: FunctionId, kind: u8) -> Option<&mut BTreeMap<i64, u32>> {
        let stage = self.stage_of(function);
        if is_timer(kind) { None } else { self.buffered[stage].as_mut() }
    }

    fn wheel_of(&self, function: FunctionId, kind: u8) -> usize {
        match kind & !PENDING_REARMED {
            PENDING_PROCESSING_TIMER => self.processing_wheel(),
            _ => self.stage_of(function),
        }
    }

    fn stage_of(&self, function: FunctionId) -> usize {
        usize::from(self.program.functions[usize::from(function)].stage)
    }

    fn function_of(&self, entry: &PendingRef<'_>) -> FunctionId {
        self.program.function_named(entry.message.function).expect(HAS_HANDLER)
    }
}

const IS_READABLE: &str = "an entry reads as it was encoded";
const HAS_HANDLER: &str = "an entry waits for a handler of this program";

fn read(bytes: &[u8]) -> PendingRef<'_> {
    PendingRef::read(&mut Reader::new(bytes)).expect(IS_READABLE)
}

fn slot(entries: &Slab, place: u32) -> &[u8] {
    entries.get(place & PLACE_MAX)
}

/// Notes where in its wheel an entry is, if it may be cancelled.
fn set_position(entries: &mut Slab, place: u32, position: Position) {
    if place & NAMED != 0 {
        *position_of(entries.get_mut(place & PLACE_MAX)) = position.to_le_bytes();
    }
}

/// The bytes at the end of a slot in which an entry that has a name keeps its position.
fn position_of(slot: &mut [u8]) -> &mut [u8; POSITION_BYTES] {
    slot.last_chunk_mut().expect("the slot of an entry that has a name has room for its position")
}

fn name_hash(entry: &PendingRef<'_>) -> u64 {
    hash_of(entry.message.function, entry.message.key, entry.name)
}

fn hash_of(function: NameId, key: &[u8], name: &[u8]) -> u64 {
    let mixed = u64::from(murmur2(key)) << 32 | u64::from(murmur2(name) ^ u32::from(function));
    let mixed = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 32
}
