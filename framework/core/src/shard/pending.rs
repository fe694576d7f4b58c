//! What waits: timers, messages that come in the order of their event time or after a delay, and calls
//! of activities for their results.
//!
//! An entry stands in a slab as it stands in frames and snapshots: it is copied from one and to the
//! other, and read where it is needed. A wheel for each stage, and one for processing time, holds
//! the places of entries; one that has a name knows where in its wheel it is, as it may be
//! cancelled.
//!
//! Invariants: an entry is in its wheel, but for a re-armed timer that the end of the input has put
//! to sleep, and for activities, which no time calls; its identity is unique in the shard and rises.
//!
//! Deliberately absent: an ordered map. Nothing is sorted but what is due in one millisecond.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use hashbrown::HashTable;

use super::{
    frame::{
        PENDING_ACTIVITY, PENDING_DELAYED, PENDING_EVENT_TIMER, PENDING_MESSAGE, PENDING_PROCESSING_TIMER,
        PENDING_REARMED, PendingRef,
    },
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

/// How much [`Pending::pop`] takes out.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wanted {
    /// All of one time of the wheel.
    OneTime,
    /// So many, of several times.
    Some(usize),
}

pub(super) fn is_timer(kind: u8) -> bool {
    matches!(kind & !PENDING_REARMED, PENDING_EVENT_TIMER | PENDING_PROCESSING_TIMER)
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
    /// The places of the calls of activities, by their identities.
    activities: BTreeMap<u64, u32>,
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
            activities: BTreeMap::new(),
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
        let id = entry.id;
        let place = self.entries.insert(room) | if is_named { NAMED } else { 0 };
        self.entries.get_mut(place & PLACE_MAX)[..encoded.len()].copy_from_slice(encoded);
        if kind == PENDING_ACTIVITY {
            self.activities.insert(id, place);
            return None;
        }
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

    /// The calls of activities that wait for their results.
    pub(crate) fn activities(&self) -> impl Iterator<Item = u64> {
        self.activities.keys().copied()
    }

    pub(crate) fn activity_count(&self) -> usize {
        self.activities.len()
    }

    /// The call of an activity, if it waits for its result.
    pub(crate) fn activity(&self, id: u64) -> Option<PendingRef<'_>> {
        self.activities.get(&id).map(|place| read(slot(&self.entries, *place)))
    }

    /// Removes the call of an activity.
    pub(crate) fn remove_activity(&mut self, id: u64) {
        if let Some(place) = self.activities.remove(&id) {
            self.entries.remove(place);
        }
    }

    /// Takes the entries that are due next, at or before `upto`, out of their wheel and puts them, in
    /// order, into the empty `due`: all of one millisecond, or of as many as it takes to have
    /// `wanted`, some more included. They stay entries until [`Self::take`] or [`Self::put_back`].
    pub(crate) fn pop(&mut self, wheel: usize, upto: i64, wanted: Wanted, due: &mut Vec<Waiting>) {
        assert!(due.is_empty(), "what was due is called before more is asked for");
        let mut popped = std::mem::take(&mut self.popped);
        let entries = &mut self.entries;
        let mut moved = |place, position| set_position(entries, place, position);
        match wanted {
            Wanted::OneTime => _ = self.wheels.pop(wheel, upto, &mut popped, moved),
            Wanted::Some(count) => {
                while popped.len() < count && self.wheels.pop_some(wheel, upto, &mut popped, &mut moved).is_some() {}
            }
        }
        // The processor waits for all of them at once, and not for each when it is read.
        popped.iter().for_each(|place| _ = std::hint::black_box(slot(&self.entries, *place)[0]));
        for place in popped.drain(..) {
            set_position(&mut self.entries, place, NOWHERE);
            due.push(self.waiting(place));
        }
        self.popped = popped;
        due.sort_unstable_by_key(Waiting::order);
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

    /// What all of it takes of memory, in bytes, what is free at the moment included.
    pub(crate) fn bytes(&self) -> usize {
        // A hash table has a byte of its own for each place.
        self.entries.bytes() + self.wheels.bytes() + self.named.capacity() * (size_of::<u32>() + 1)
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

    /// Shows every entry of some pages; returns whether there are none behind them.
    pub(crate) fn look(&self, pages: Range<usize>, each: &mut dyn FnMut(&PendingRef<'_>)) -> bool {
        let is_over = pages.end >= self.entries.pages();
        self.entries.slots_of(pages).for_each(|slot| each(&read(slot)));
        is_over
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
        match kind != PENDING_MESSAGE || self.buffered[self.stage_of(function)].is_none() {
            true => due,
            false => EventTime(due).just_before().0,
        }
    }

    fn buffered_of(&mut self, function: FunctionId, kind: u8) -> Option<&mut BTreeMap<i64, u32>> {
        let stage = self.stage_of(function);
        if kind == PENDING_MESSAGE { self.buffered[stage].as_mut() } else { None }
    }

    fn wheel_of(&self, function: FunctionId, kind: u8) -> usize {
        match kind & !PENDING_REARMED {
            PENDING_PROCESSING_TIMER | PENDING_DELAYED => self.processing_wheel(),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::frame::MessageRef, *};
    use crate::{
        program::{FunctionSpec, ProgramSpec},
        trial::Counter,
    };

    /// Two functions that have timers, of which the second one is a cycle.
    fn program() -> Arc<Program> {
        let mut functions = vec![FunctionSpec::of::<Counter>(), FunctionSpec::of::<Counter>()];
        functions.iter_mut().for_each(|function| function.timers = vec!["late", "ring"]);
        (functions[0].name, functions[0].sends) = ("test/alone", &[]);
        let spec = ProgramSpec { app: "test".into(), functions, ..Default::default() };
        Program::link(spec).expect("links")
    }

    #[derive(Debug, Clone)]
    struct Entry {
        function: FunctionId,
        kind: u8,
        due: i64,
        key: Vec<u8>,
        name: Vec<u8>,
        payload: Vec<u8>,
    }

    impl Entry {
        fn message<'a>(&'a self, program: &Program) -> MessageRef<'a> {
            let function = &program.functions[usize::from(self.function)];
            let message = if is_timer(self.kind) { function.timer_name(1) } else { function.message_name(0) };
            let time = EventTime(self.due);
            MessageRef { function: function.name, message, time, key: &self.key, payload: &self.payload }
        }

        fn encoded(&self, id: u64, program: &Program) -> Vec<u8> {
            let message = self.message(program);
            let mut bytes = Vec::new();
            PendingRef { id, kind: self.kind, due: self.due, name: &self.name, message }.put(&mut bytes);
            bytes
        }

        fn order(&self, id: u64) -> (i64, bool, u64) {
            (self.due, is_timer(self.kind), id)
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Add(Entry),
        Cancel(FunctionId, Vec<u8>, Vec<u8>),
        /// Pops, takes so many, and puts the others back or to sleep.
        Pop {
            wheel: usize,
            upto: i64,
            wanted: Wanted,
            taken: usize,
            puts_back: bool,
        },
    }

    fn names() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![Just(b"a".to_vec()), Just(b"b".to_vec())]
    }

    fn keys() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![Just(b"".to_vec()), Just(b"key".to_vec()), Just(vec![7; 40])]
    }

    fn entries() -> impl Strategy<Value = Entry> {
        let due = prop_oneof![4 => 0_i64..20, 4 => 0_i64..20_000, 1 => any::<i64>()];
        let length = prop_oneof![4 => Just(0_usize), 4 => 1_usize..20, 1 => 100_usize..400];
        let name = prop_oneof![1 => Just(Vec::new()), 1 => names()];
        let kind = prop_oneof![Just(0_u8), Just(1), Just(2), Just(1 | PENDING_REARMED)];
        (0_u16..2, kind, due, keys(), name, length).prop_map(|(function, kind, due, key, name, length)| Entry {
            function,
            kind,
            due,
            key,
            name: if is_timer(kind) { name } else { Vec::new() },
            payload: vec![due as u8; length],
        })
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let upto = prop_oneof![9 => 0_i64..25, 9 => 0_i64..25_000, 1 => any::<i64>()];
        let wanted = prop_oneof![Just(Wanted::OneTime), (1_usize..40).prop_map(Wanted::Some)];
        let taken = prop_oneof![Just(usize::MAX), 0_usize..3];
        let pop = (0_usize..3, upto, wanted, taken, any::<bool>())
            .prop_map(|(wheel, upto, wanted, taken, puts_back)| Step::Pop { wheel, upto, wanted, taken, puts_back });
        let cancel = (0_u16..2, keys(), names()).prop_map(|(function, key, name)| Step::Cancel(function, key, name));
        prop::collection::vec(prop_oneof![6 => entries().prop_map(Step::Add), 1 => cancel, 2 => pop], 0..300)
    }

    /// What pending entries are, without any structure that finds them fast.
    #[derive(Default)]
    struct Model {
        entries: BTreeMap<u64, Entry>,
        sleeping: BTreeMap<u64, Entry>,
        next: u64,
        /// How far each wheel was asked: time never goes back.
        upto: [Option<i64>; 3],
    }

    impl Model {
        fn cancel(&mut self, function: FunctionId, key: &[u8], name: &[u8]) -> Option<u64> {
            let mut all = self.entries.iter().chain(&self.sleeping);
            let is_it = |entry: &Entry| (entry.function, &*entry.key, &*entry.name) == (function, key, name);
            let id = *all.find(|(_, entry)| is_it(entry))?.0;
            self.entries.remove(&id);
            self.sleeping.remove(&id);
            Some(id)
        }

        fn add(&mut self, entry: Entry) -> (u64, Option<u64>) {
            let named = !entry.name.is_empty();
            let replaced = if named { self.cancel(entry.function, &entry.key, &entry.name) } else { None };
            self.next += 1;
            self.entries.insert(self.next, entry);
            (self.next, replaced)
        }
    }

    fn check_pop(pending: &mut Pending, model: &mut Model, step: &Step) {
        let &Step::Pop { wheel, upto, wanted, taken, puts_back } = step else { return };
        let upto = model.upto[wheel].map_or(upto, |before| before.max(upto));
        model.upto[wheel] = Some(upto);
        let mut due = Vec::new();
        pending.pop(wheel, upto, wanted, &mut due);
        let found: Vec<u64> = due.iter().map(|waiting| waiting.id).collect();
        let time_of = |entry: &Entry| pending.wheel_time(entry.function, entry.kind, entry.due);
        let of_wheel = |entry: &Entry| pending.wheel_of(entry.function, entry.kind) == wheel;
        let all = model.entries.iter().filter(|(_, entry)| of_wheel(entry) && time_of(entry) <= upto);
        let mut expected: Vec<(u64, &Entry)> = all.map(|(id, entry)| (*id, entry)).collect();
        expected.sort_by_key(|(_, entry)| time_of(entry));
        assert_eq!(found.is_empty(), expected.is_empty());
        // Of those that are due the earliest, and all of each time.
        let behind = expected.split_off(found.len());
        let last = expected.last().map(|(_, entry)| time_of(entry));
        assert!(behind.first().is_none_or(|(_, entry)| Some(time_of(entry)) > last), "a time comes at once");
        expected.sort_by_key(|(id, entry)| entry.order(*id));
        assert_eq!(found, expected.iter().map(|(id, _)| *id).collect::<Vec<_>>());
        if let Wanted::Some(count) = wanted {
            assert!(found.len() >= count || behind.is_empty(), "as many as are wanted");
        }
        for (place, waiting) in due.iter().enumerate() {
            if place < taken {
                let entry = model.entries.remove(&waiting.id).expect("it is pending");
                let hash = murmur2(&entry.key);
                assert_eq!(
                    (waiting.call.hash, waiting.call.time, waiting.due),
                    (hash, EventTime(entry.due), entry.due)
                );
                assert_eq!(waiting.call.handler, u16::from(is_timer(entry.kind)));
                pending.take(waiting, |key, payload| assert_eq!((key, payload), (&*entry.key, &*entry.payload)));
            } else if puts_back {
                pending.put_back(waiting);
            } else {
                let entry = model.entries.remove(&waiting.id).expect("it is pending");
                model.sleeping.insert(waiting.id, entry);
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_pending_equals_a_model_without_structure(steps in steps()) {
            let program = program();
            let (mut pending, mut model) = (Pending::new(&program), Model::default());
            for step in steps {
                match step {
                    Step::Add(entry) => {
                        let (id, replaced) = model.add(entry.clone());
                        prop_assert_eq!(pending.add(&entry.encoded(id, &program)), replaced);
                    }
                    Step::Cancel(function, key, name) => {
                        let cancelled = model.cancel(function, &key, &name);
                        prop_assert_eq!(pending.cancel(function, &key, &name), cancelled);
                    }
                    Step::Pop { .. } => check_pop(&mut pending, &mut model, &step),
                }
                let mut all = model.entries.clone();
                all.extend(model.sleeping.clone());
                prop_assert_eq!(pending.len(), all.len());
                let encoded: Vec<Vec<u8>> = all.iter().map(|(id, entry)| entry.encoded(*id, &program)).collect();
                prop_assert_eq!(pending.sorted().map(<[u8]>::to_vec).collect::<Vec<_>>(), encoded);
                for stage in 0..program.stages.len() {
                    let is_held = |entry: &&Entry| {
                        let of_stage = usize::from(program.functions[usize::from(entry.function)].stage) == stage;
                        of_stage && program.stages[stage].is_cycle && !is_timer(entry.kind)
                    };
                    let buffered = all.values().filter(is_held).map(|entry| entry.due).min();
                    prop_assert_eq!(pending.earliest_buffered(stage), buffered);
                }
            }
        }
    }

    /// How many bytes there are for a timer beside its key, when so many are set and each that is
    /// due has been set again.
    fn bytes_beside_key(span_ms: i64) -> f64 {
        const TIMERS: i64 = 100_000;
        // A time of our days: how far it is from 1970 counts.
        const START: i64 = 1_800_000_000_000;
        let program = program();
        let mut pending = Pending::new(&program);
        let timer = |number: i64, due: i64| Entry {
            function: 0,
            kind: 1,
            due: START + due,
            key: number.to_be_bytes().to_vec(),
            name: Vec::new(),
            payload: Vec::new(),
        };
        for number in 0..TIMERS {
            let due = number * 7_919 % span_ms;
            pending.add(&timer(number, due).encoded(number as u64, &program));
        }
        let mut due = Vec::new();
        for time in (0..span_ms).step_by(1_000) {
            loop {
                pending.pop(0, START + time, Wanted::Some(256), &mut due);
                if due.is_empty() {
                    break;
                }
                for waiting in due.drain(..) {
                    pending.take(&waiting, |_, _| {});
                    let again = timer(waiting.id as i64 % TIMERS, waiting.due - START + span_ms);
                    pending.add(&again.encoded(waiting.id + TIMERS as u64, &program));
                }
            }
        }
        assert_eq!(pending.len(), TIMERS as usize);
        pending.bytes() as f64 / TIMERS as f64 - 8.0
    }

    #[test]
    fn a_timer_takes_at_most_forty_bytes_beside_its_key() {
        for span_ms in [10_000, 1_000_000, 100_000_000] {
            let bytes = bytes_beside_key(span_ms);
            assert!(bytes <= 40.0, "{bytes} bytes over {span_ms} ms");
        }
    }
}
