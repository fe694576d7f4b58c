//! The effects of handlers: one arena for each shard, whose bytes are the body of the frame.
//!
//! A call writes into the arena as it runs; a call that fails is cut off again by `Mark`.
//! Messages to the own shard do not enter the frame: they stand in a second buffer and are
//! delivered within the epoch.
//!
//! Deliberately absent: a second copy. What a handler emits is encoded once, in its place; only
//! messages to other shards are copied once more, when the frame is sealed, so that those for one
//! target stand together (`shard::outbox`).

use std::{
    any::{Any, TypeId},
    num::NonZeroU32,
    sync::Arc,
};

use crate::{
    address::{ShardId, murmur2, shard_of},
    codec::{Short, put_bytes, put_signed, put_varint, put_with},
    decoded::Decoded,
    error::Fault,
    key::{Key, KeyBytes},
    limits::{KEY_BYTES_MAX, MESSAGE_BYTES_MAX, NAME_BYTES_MAX},
    message::Message,
    program::{FunctionId, Links, NameId, TargetLink},
    shard::{
        frame::{self, Op},
        rules::{Rule, Rules},
    },
    time::{Due, EventTime},
    watch::Watch,
};

/// A stretch of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Where it begins.
    pub start: u32,
    /// How long it is, in bytes.
    pub length: u32,
}

impl Span {
    /// From `start` to the end of a buffer that is now `end` long.
    pub(crate) fn between(start: usize, end: usize) -> Self {
        Self { start: offset(start), length: offset(end - start) }
    }

    /// The bytes it spans.
    #[must_use]
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..self.start as usize + self.length as usize]
    }
}

/// Buffers stay below 4 GiB: epochs and batches are closed far earlier.
fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("a buffer of effects stays below 4 GiB")
}

/// One call that is to be made: a message or a timer for a key, its bytes in some buffer.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// The function.
    pub function: FunctionId,
    /// The handler among the function's message handlers, or among its timer handlers.
    pub handler: u16,
    /// Whether it is a timer.
    pub is_timer: bool,
    /// The murmur2 hash of the key.
    pub hash: u32,
    /// The event time.
    pub time: EventTime,
    /// The key's bytes.
    pub key: Span,
    /// The message's or payload's bytes.
    pub payload: Span,
    /// Its place in [`Calls::decoded`], if the message is decoded already.
    pub decoded: Option<NonZeroU32>,
}

impl Call {
    /// A call of a message handler, its bytes still to be placed.
    #[must_use]
    pub fn message(function: FunctionId, handler: u16, hash: u32, time: EventTime) -> Self {
        let (key, payload) = (Span::default(), Span::default());
        Self { function, handler, is_timer: false, hash, time, key, payload, decoded: None }
    }

    /// The same call, the bytes from its key on copied to `place` of another buffer.
    pub(crate) fn moved(self, place: u32) -> Self {
        let key = Span { start: place, ..self.key };
        let payload = Span { start: place + (self.payload.start - self.key.start), ..self.payload };
        Self { key, payload, ..self }
    }
}

/// Calls and the bytes they refer to.
#[derive(Debug, Clone, Default)]
pub struct Calls {
    /// Keys and payloads.
    pub bytes: Vec<u8>,
    /// The calls, in order.
    pub calls: Vec<Call>,
    /// Messages that are decoded already; their payloads stand in `bytes` all the same.
    pub decoded: Decoded,
}

impl Calls {
    /// Appends a call, of whose message only the bytes are taken.
    pub fn push(&mut self, call: Call, key: &[u8], payload: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        let middle = self.bytes.len();
        self.bytes.extend_from_slice(payload);
        let end = self.bytes.len();
        let (key, payload) = (Span::between(start, middle), Span::between(middle, end));
        self.calls.push(Call { key, payload, decoded: None, ..call });
    }

    /// Appends `call`, whose bytes stand in `other`.
    pub fn push_from(&mut self, call: &Call, other: &[u8]) {
        self.push(*call, call.key.of(other), call.payload.of(other));
    }

    /// Appends a message whose payload stands behind its key in `other`, as in a mail.
    pub(crate) fn push_message(&mut self, call: &Call, other: &[u8]) {
        let place = offset(self.bytes.len());
        let (from, to) = (call.key.start, call.payload.start + call.payload.length);
        self.bytes.extend_from_slice(&other[from as usize..to as usize]);
        self.calls.push(call.moved(place));
    }

    /// Forgets all calls, keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.calls.clear();
        self.decoded.clear();
    }

    /// Whether there is no call.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }
}

/// A record for an egress, within the body of a frame.
#[derive(Debug, Clone, Copy)]
pub struct Emitted {
    /// The name of the egress in the program.
    pub egress: NameId,
    /// Its bytes in the frame.
    pub record: Span,
}

/// A message to another shard, within the body of a frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) target: ShardId,
    /// What its target is to call: what is known here is not to be found out again there.
    pub(crate) call: Call,
}

/// A change of the pending timers that the shard makes once the run is over.
#[derive(Debug, Clone)]
pub(crate) enum TimerRequest {
    Set(PendingTimer),
    Cancel { function: FunctionId, key: Box<[u8]>, name: Box<str> },
}

#[derive(Debug, Clone)]
pub(crate) struct PendingTimer {
    pub(crate) due: Due,
    pub(crate) handler: u16,
    /// The encoded entry in the body, behind the tag of its `Op::PendingAdd`.
    pub(crate) entry: Span,
}

/// Where the buffers stood before a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    body: usize,
    local_bytes: usize,
    local_calls: usize,
    sent: usize,
    emitted: usize,
    timers: usize,
    pending_next: u64,
}

/// The effects of the calls of one epoch of a shard.
#[derive(Debug, Default)]
pub struct Effects {
    pub(crate) body: Vec<u8>,
    pub(crate) local: Calls,
    pub(crate) sent: Vec<Sent>,
    pub(crate) emitted: Vec<Emitted>,
    pub(crate) timers: Vec<TimerRequest>,
    /// The number that the next pending timer or message gets.
    pub(crate) pending_next: u64,
    /// The timer handler that runs: an event-time timer it sets for itself is marked as re-armed.
    pub(crate) firing: Option<(FunctionId, u16)>,
    /// Whether somebody waits for what the call that runs answers.
    pub(crate) wants_answer: bool,
    /// The encoded answer.
    pub(crate) answer: Option<Vec<u8>>,
    /// The rules in force.
    pub(crate) rules: Rules,
    /// Where those who watch see that calls end.
    pub(crate) watch: Arc<Watch>,
    /// Calls that were noted there.
    noted: u32,
    shard: ShardId,
    shards: u32,
    local_delivery: bool,
    fault: Option<Fault>,
    cleared: bool,
    /// One record of each type that handlers fill in; an app emits few types of records.
    records: Vec<(TypeId, Box<dyn Any + Send>)>,
}

impl Effects {
    /// The arena of shard `shard` of `shards`.
    #[must_use]
    pub fn new(shard: ShardId, shards: u32) -> Self {
        Self { shard, shards, local_delivery: true, ..Self::default() }
    }

    /// An arena for one function alone: every message enters the body, none is delivered.
    #[must_use]
    pub fn recording() -> Self {
        Self { shards: 1, ..Self::default() }
    }

    /// The body written since `from`, for those who read what was recorded.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Notes for those who watch that another call begins.
    #[inline]
    pub(crate) fn note_call(&mut self, hash: u32) {
        self.noted = self.noted.wrapping_add(1);
        self.watch.call(hash, self.noted);
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark {
            body: self.body.len(),
            local_bytes: self.local.bytes.len(),
            local_calls: self.local.calls.len(),
            sent: self.sent.len(),
            emitted: self.emitted.len(),
            timers: self.timers.len(),
            pending_next: self.pending_next,
        }
    }

    pub(crate) fn undo(&mut self, mark: Mark) {
        self.fault = None;
        self.cleared = false;
        if !self.rules.holds(Rule::FailedCallsHaveNoEffects) {
            return;
        }
        self.body.truncate(mark.body);
        self.local.bytes.truncate(mark.local_bytes);
        self.local.calls.truncate(mark.local_calls);
        self.sent.truncate(mark.sent);
        self.emitted.truncate(mark.emitted);
        self.timers.truncate(mark.timers);
        self.pending_next = mark.pending_next;
    }

    /// Begins a call: returns whether an earlier one was left in a clean state.
    pub(crate) fn take_fault(&mut self) -> Option<Fault> {
        self.fault.take()
    }

    /// Whether the call asked for its state to be deleted.
    pub(crate) fn take_cleared(&mut self) -> bool {
        std::mem::take(&mut self.cleared)
    }

    pub(crate) fn fail(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }

    pub(crate) fn clear(&mut self) {
        self.cleared = true;
    }

    pub(crate) fn send<M: Message>(&mut self, target: &TargetLink, message: u16, key: &[u8], msg: &M, time: EventTime) {
        if key.len() > KEY_BYTES_MAX {
            return self.fail(too_long("a key", key.len(), KEY_BYTES_MAX, target.name));
        }
        let hash = murmur2(key);
        let shard = shard_of(hash, self.shards);
        let call = Call::message(target.function, target.handlers[usize::from(message)], hash, time);
        let length = if self.local_delivery && shard == self.shard {
            self.send_local(call, key, msg)
        } else {
            self.send_remote(call, key, shard, [target.function_name, target.messages[usize::from(message)]], msg)
        };
        if length > MESSAGE_BYTES_MAX {
            self.fail(too_long("a message", length, MESSAGE_BYTES_MAX, target.name));
        }
    }

    fn send_local<M: Message>(&mut self, call: Call, key: &[u8], msg: &M) -> usize {
        let bytes = &mut self.local.bytes;
        let start = bytes.len();
        bytes.extend_from_slice(key);
        let middle = bytes.len();
        msg.encode(bytes);
        let (key, payload) = (Span::between(start, middle), Span::between(middle, bytes.len()));
        self.local.calls.push(Call { key, payload, ..call });
        payload.length as usize
    }

    fn send_remote<M: Message>(
        &mut self,
        call: Call,
        key: &[u8],
        shard: ShardId,
        names: [NameId; 2],
        msg: &M,
    ) -> usize {
        let mut head = Short::new();
        head.byte(Op::Send as u8);
        head.varint(u64::from(shard));
        names.into_iter().for_each(|name| head.varint(u64::from(name)));
        head.signed(call.time.0);
        head.varint(key.len() as u64);
        let body = &mut self.body;
        body.extend_from_slice(head.bytes());
        body.extend_from_slice(key);
        let key = Span::between(body.len() - key.len(), body.len());
        let mut length = 0;
        put_with(body, |body| {
            let start = body.len();
            msg.encode(body);
            length = body.len() - start;
        });
        let payload = Span::between(body.len() - length, body.len());
        self.sent.push(Sent { target: shard, call: Call { key, payload, ..call } });
        length
    }

    pub(crate) fn emit<T: Message>(&mut self, egress: NameId, record: &T) {
        self.emit_with(egress, |body| record.encode(body));
    }

    /// Emits a record made of the one that stands here since the last, with its memory.
    pub(crate) fn emit_filled<T: Message + Default>(&mut self, egress: NameId, fill: impl FnOnce(&mut T)) {
        let of = TypeId::of::<T>();
        let at = self.records.iter().position(|(known, _)| *known == of).unwrap_or_else(|| {
            self.records.push((of, Box::new(T::default())));
            self.records.len() - 1
        });
        let mut records = std::mem::take(&mut self.records);
        let record = records[at].1.downcast_mut::<T>().expect("a record stands beside its own type");
        record.reset();
        fill(record);
        self.emit(egress, record);
        self.records = records;
    }

    pub(crate) fn emit_with(&mut self, egress: NameId, record: impl FnOnce(&mut Vec<u8>)) {
        self.body.push(Op::Emit as u8);
        put_varint(&mut self.body, u64::from(egress));
        let mut length = 0;
        put_with(&mut self.body, |body| {
            let start = body.len();
            record(body);
            length = body.len() - start;
        });
        let end = self.body.len();
        self.emitted.push(Emitted { egress, record: Span::between(end - length, end) });
        if length > MESSAGE_BYTES_MAX {
            self.fail(too_long("a record", length, MESSAGE_BYTES_MAX, "an egress"));
        }
    }

    #[allow(clippy::too_many_arguments, reason = "each is one part of a timer; a struct would be built for one call")]
    pub(crate) fn set_timer<K: Key, T: Message>(
        &mut self,
        links: &Links,
        handler: u16,
        name: &str,
        due: Due,
        key: &K,
        timer: &T,
        time: EventTime,
    ) {
        let key_bytes = KeyBytes::of(key);
        let id = self.pending_next;
        self.pending_next += 1;
        let rearmed = matches!(due, Due::Event(_)) && self.firing == Some((links.function, handler));
        let (kind, at, time) = match due {
            Due::Event(at) => (frame::PENDING_EVENT_TIMER, at.0, at),
            Due::Processing(at) => (frame::PENDING_PROCESSING_TIMER, at.0, time),
        };
        let body = &mut self.body;
        body.push(Op::PendingAdd as u8);
        let start = body.len();
        put_varint(body, id);
        body.push(kind | if rearmed { frame::PENDING_REARMED } else { 0 });
        put_varint(body, u64::from(links.function_name));
        put_varint(body, u64::from(links.timers[usize::from(handler)]));
        put_signed(body, at);
        put_signed(body, time.0);
        put_bytes(body, name.as_bytes());
        put_bytes(body, key_bytes.get());
        let mut length = 0;
        put_with(body, |body| {
            let start = body.len();
            timer.encode(body);
            length = body.len() - start;
        });
        let entry = Span::between(start, body.len());
        self.timers.push(TimerRequest::Set(PendingTimer { due, handler, entry }));
        if length > MESSAGE_BYTES_MAX {
            self.fail(too_long("a timer", length, MESSAGE_BYTES_MAX, links.name));
        }
    }

    pub(crate) fn cancel_timer<K: Key>(&mut self, function: FunctionId, key: &K, name: &str) {
        let key = KeyBytes::of(key).get().into();
        self.timers.push(TimerRequest::Cancel { function, key, name: name.into() });
    }

    pub(crate) fn check_timer_name(&mut self, name: &str) -> bool {
        let fits = (1..=NAME_BYTES_MAX).contains(&name.len());
        if !fits {
            self.fail(Fault::new(format_args!(
                "the timer name {name:?} has {} bytes; it must have 1 to {NAME_BYTES_MAX}",
                name.len()
            )));
        }
        fits
    }
}

fn too_long(what: &str, length: usize, limit: usize, target: &str) -> Fault {
    Fault::new(format_args!(
        "{what} for `{target}` has {length} bytes; the limit is {limit}: send less, or a reference to it"
    ))
}
