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
    ask::{self, Waiting},
    codec::{Short, put_bytes, put_signed, put_varint, put_with},
    decoded::Decoded,
    envelope::{self, Asker, Caller, SpanRecord, Trace},
    error::Fault,
    key::{Key, KeyBytes},
    limits::{KEY_BYTES_MAX, MESSAGE_BYTES_MAX, NAME_BYTES_MAX},
    message::Message,
    program::{FunctionId, Links, NameId, Program, TargetLink},
    shard::{
        frame::{self, Op},
        rules::{Rule, Rules},
    },
    time::{Due, EventTime, ProcessingTime},
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
    Cancel {
        function: FunctionId,
        key: Box<[u8]>,
        name: Box<str>,
    },
    /// A message that is to be sent later, or a call of an activity: the encoded entry, as of a timer.
    Add(Span),
}

/// A handler of a message, as it is named in the program and on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) function: FunctionId,
    pub(crate) handler: u16,
    pub(crate) names: [NameId; 2],
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
    unresolved: usize,
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
    /// Who waits for what the call that runs answers, if that is not told by `answer`.
    pub(crate) caller: Caller,
    /// Whether the call that runs answers later.
    pub(crate) is_deferred: bool,
    /// The place of the call that runs in its trace, if it is part of one.
    pub(crate) trace: Option<Trace>,
    /// How many things the call that runs has asked for, as far as they are part of a trace.
    traced: u32,
    /// What calls of this epoch did in traces.
    pub(crate) spans: Vec<SpanRecord>,
    /// Answers to those whom nothing here can find: in a test of one function, and of an asker that the
    /// program no longer has.
    pub(crate) unresolved: Vec<(Caller, Vec<u8>)>,
    /// Where replies find the one who has asked.
    pub(crate) program: Option<Arc<Program>>,
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
            unresolved: self.unresolved.len(),
        }
    }

    pub(crate) fn undo(&mut self, mark: Mark) {
        self.fault = None;
        self.cleared = false;
        self.is_deferred = false;
        self.answer = None;
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
        self.unresolved.truncate(mark.unresolved);
    }

    /// Begins a call that brings an envelope along.
    pub(crate) fn open(&mut self, asker: Option<Asker>, trace: Option<Trace>) {
        self.caller = asker.map_or(Caller::Nobody, Caller::Asker);
        self.begin_trace(trace);
    }

    pub(crate) fn begin_trace(&mut self, trace: Option<Trace>) {
        self.trace = trace;
        self.traced = 0;
    }

    /// Ends the call that was begun last.
    pub(crate) fn close(&mut self) {
        self.caller = Caller::Nobody;
        self.is_deferred = false;
        self.trace = None;
        // What was too long for a reply is no fault of the next call.
        self.fault = None;
    }

    /// The place in its trace of the next thing that the call asks for.
    fn next_trace(&mut self) -> Option<Trace> {
        let trace = self.trace?;
        self.traced += 1;
        Some(trace.child(self.traced))
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
        if self.trace.is_some() {
            return self.send_enveloped(target, message, None, key, msg, time);
        }
        self.post(target.plain[usize::from(message)], target.name, key, time, |out| msg.encode(out));
    }

    /// Sends a message that has somebody who waits for the answer, or is part of a trace.
    pub(crate) fn send_enveloped<M: Message>(
        &mut self,
        target: &TargetLink,
        message: u16,
        asker: Option<&Asker>,
        key: &[u8],
        msg: &M,
        time: EventTime,
    ) {
        let trace = self.next_trace();
        self.post(target.enveloped[usize::from(message)], target.name, key, time, |out| {
            envelope::put(asker, trace.as_ref(), out);
            msg.encode(out);
        });
    }

    /// Sends what `payload` writes to a key.
    pub(crate) fn post(
        &mut self,
        to: Destination,
        target: &str,
        key: &[u8],
        time: EventTime,
        payload: impl FnOnce(&mut Vec<u8>),
    ) {
        if key.len() > KEY_BYTES_MAX {
            return self.fail(too_long("a key", key.len(), KEY_BYTES_MAX, target));
        }
        let hash = murmur2(key);
        let shard = shard_of(hash, self.shards);
        let call = Call::message(to.function, to.handler, hash, time);
        let length = if self.local_delivery && shard == self.shard {
            self.send_local(call, key, payload)
        } else {
            self.send_remote(call, key, shard, to.names, payload)
        };
        if length > MESSAGE_BYTES_MAX {
            self.fail(too_long("a message", length, MESSAGE_BYTES_MAX, target));
        }
    }

    #[inline]
    fn send_local(&mut self, call: Call, key: &[u8], payload: impl FnOnce(&mut Vec<u8>)) -> usize {
        let bytes = &mut self.local.bytes;
        let start = bytes.len();
        bytes.extend_from_slice(key);
        let middle = bytes.len();
        payload(bytes);
        let (key, payload) = (Span::between(start, middle), Span::between(middle, bytes.len()));
        self.local.calls.push(Call { key, payload, ..call });
        payload.length as usize
    }

    #[inline]
    fn send_remote(
        &mut self,
        call: Call,
        key: &[u8],
        shard: ShardId,
        names: [NameId; 2],
        payload: impl FnOnce(&mut Vec<u8>),
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
            payload(body);
            length = body.len() - start;
        });
        let payload = Span::between(body.len() - length, body.len());
        self.sent.push(Sent { target: shard, call: Call { key, payload, ..call } });
        length
    }

    /// Sends a message that came from outside on to the shard it is for; its bytes stand in `bytes`, and its
    /// length was checked where it was read.
    pub(crate) fn send_on(&mut self, call: &Call, bytes: &[u8], shard: ShardId, names: [NameId; 2]) {
        let payload = call.payload.of(bytes);
        self.send_remote(*call, call.key.of(bytes), shard, names, |body| body.extend_from_slice(payload));
    }

    /// Tells the one who waits what came of his call; `key` is the one that he called.
    ///
    /// `outcome` writes the outcome of a reply, or for one outside the remembered reply.
    pub(crate) fn reply(&mut self, to: &Waiting, time: EventTime, outcome: impl FnOnce(&mut Vec<u8>)) {
        let Some(program) = self.program.clone() else {
            let mut bytes = Vec::new();
            outcome(&mut bytes);
            return self.unresolved.push((to.caller.clone(), bytes));
        };
        match &to.caller {
            Caller::Nobody => {}
            Caller::Asker(asker) => {
                let Some(destination) = program.destination(&asker.function, &asker.reply) else {
                    // Nobody of this program takes it.
                    let mut bytes = Vec::new();
                    outcome(&mut bytes);
                    return self.unresolved.push((to.caller.clone(), bytes));
                };
                let trace = self.next_trace();
                self.post(destination, &asker.function, &asker.key, time, |out| {
                    envelope::put(None, trace.as_ref(), out);
                    ask::put_head(&to.key, asker.token, out);
                    outcome(out);
                });
            }
            Caller::Outside(ticket) => {
                let Some(destination) = program.destination(&to.function, envelope::ANSWER) else { return };
                self.post(destination, &to.function, &to.key, time, |out| {
                    ticket.put(out);
                    outcome(out);
                });
            }
        }
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
        let trace = self.next_trace();
        let count = links.timers.len() as u16 / 2;
        let firing = self.firing.map(|(function, handler)| (function, handler % count));
        let rearmed = matches!(due, Due::Event(_)) && firing == Some((links.function, handler));
        let (kind, at, time) = match due {
            Due::Event(at) => (frame::PENDING_EVENT_TIMER, at.0, at),
            Due::Processing(at) => (frame::PENDING_PROCESSING_TIMER, at.0, time),
        };
        let kind = kind | if rearmed { frame::PENDING_REARMED } else { 0 };
        let handler = if trace.is_some() { handler + count } else { handler };
        let names = [links.function_name, links.timers[usize::from(handler)]];
        let entry = self.put_pending(kind, names, at, time, name, KeyBytes::of(key).get(), |body| {
            if trace.is_some() {
                envelope::put(None, trace.as_ref(), body);
            }
            timer.encode(body);
        });
        self.check_length("a timer", entry, links.name);
        self.timers.push(TimerRequest::Set(PendingTimer { due, handler, entry }));
    }

    /// Sends a message once the clock has come to `due`.
    #[allow(clippy::too_many_arguments, reason = "each is one part of a message; a struct would be built for one call")]
    pub(crate) fn send_at<M: Message>(
        &mut self,
        due: ProcessingTime,
        target: &TargetLink,
        message: u16,
        key: &[u8],
        msg: &M,
        time: EventTime,
    ) {
        if key.len() > KEY_BYTES_MAX {
            return self.fail(too_long("a key", key.len(), KEY_BYTES_MAX, target.name));
        }
        let trace = self.next_trace();
        let list = if trace.is_some() { &target.enveloped } else { &target.plain };
        let names = list[usize::from(message)].names;
        self.delay(due, names, key, time, target.name, |body| {
            if trace.is_some() {
                envelope::put(None, trace.as_ref(), body);
            }
            msg.encode(body);
        });
    }

    /// Lets what `payload` writes wait until the clock has come to `due`.
    pub(crate) fn delay(
        &mut self,
        due: ProcessingTime,
        names: [NameId; 2],
        key: &[u8],
        time: EventTime,
        target: &str,
        payload: impl FnOnce(&mut Vec<u8>),
    ) {
        let entry = self.put_pending(frame::PENDING_DELAYED, names, due.0, time, "", key, payload);
        self.check_length("a message", entry, target);
        self.timers.push(TimerRequest::Add(entry));
    }

    /// Asks for a call of an activity; `names` are the function's and that of its handler of the result.
    #[allow(clippy::too_many_arguments, reason = "each is one part of a call; a struct would be built for one call")]
    pub(crate) fn call_activity(
        &mut self,
        names: [NameId; 2],
        give_up_at: ProcessingTime,
        key: &[u8],
        time: EventTime,
        token: u64,
        activity: &str,
        call: impl FnOnce(&mut Vec<u8>),
    ) {
        let trace = self.next_trace();
        let entry = self.put_pending(frame::PENDING_ACTIVITY, names, give_up_at.0, time, "", key, |body| {
            envelope::put(None, trace.as_ref(), body);
            put_varint(body, token);
            call(body);
        });
        self.check_length("a call", entry, activity);
        self.timers.push(TimerRequest::Add(entry));
    }

    /// Appends an entry of what waits; returns where it stands behind its tag.
    #[allow(clippy::too_many_arguments, reason = "each is one part of an entry; it is inlined")]
    #[inline]
    fn put_pending(
        &mut self,
        kind: u8,
        names: [NameId; 2],
        due: i64,
        time: EventTime,
        name: &str,
        key: &[u8],
        payload: impl FnOnce(&mut Vec<u8>),
    ) -> Span {
        let id = self.pending_next;
        self.pending_next += 1;
        let body = &mut self.body;
        body.push(Op::PendingAdd as u8);
        let start = body.len();
        put_varint(body, id);
        body.push(kind);
        names.into_iter().for_each(|name| put_varint(body, u64::from(name)));
        put_signed(body, due);
        put_signed(body, time.0);
        put_bytes(body, name.as_bytes());
        put_bytes(body, key);
        put_with(body, payload);
        Span::between(start, body.len())
    }

    fn check_length(&mut self, what: &str, entry: Span, target: &str) {
        let length = entry.length as usize;
        if length > MESSAGE_BYTES_MAX {
            self.fail(too_long(what, length, MESSAGE_BYTES_MAX, target));
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
