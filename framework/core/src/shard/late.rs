//! Answers that come later than the call: of a handler that deferred its own, of those that are asked,
//! and of activities.
//!
//! A handler that defers its answer leaves its caller in its state. When it answers, a message goes to
//! the address that was called, whose shard tells the requests that wait and remembers the answer for
//! those that are made again.
//!
//! Invariants: the requests that wait are of this owner and are in its memory alone; what a repeated
//! request finds stands in frames. An answer is given once: who has one gets no other.
//!
//! Deliberately absent: time-outs. Who waits outside knows how long.

use std::collections::BTreeMap;

use super::{Answer, Reply, Request, Shard, frame, read, remembered, rules::Rule};
use crate::{
    activity::CallOutcome,
    ask::{self, Waiting},
    codec::Reader,
    dead_letter::{DeadLetter, Reason},
    decoded::Decoded,
    effect::{Call, Calls},
    envelope::{self, Asker, Caller, SpanKind, SpanRecord, Ticket, Trace},
    error::{Failed, Reject},
    host::Rejection,
    message::Wire,
    program::{HandlerKind, NameId},
    shard::ActivityCall,
    time::ProcessingTime,
};

/// The requests that wait, by the address that was called and by what they are found by.
pub(super) type Awaited = BTreeMap<(NameId, Vec<u8>, Ticket), Vec<u64>>;

/// Appends an answer that is given later, as it is remembered.
pub(crate) fn put_late<A: Wire, E: Reject>(outcome: &Result<A, Failed<E>>, out: &mut Vec<u8>) {
    let mut value = Vec::new();
    let reply = match outcome {
        Ok(answer) => {
            answer.encode(&mut value);
            Reply::Answered(value)
        }
        Err(Failed::Rejected(rejection)) => {
            rejection.encode(&mut value);
            Reply::Rejected(Rejection { code: rejection.code().into(), status: rejection.status(), value })
        }
        Err(Failed::Fault(fault)) => Reply::Failed(super::Trouble::Faulted(fault.to_string())),
    };
    out.extend(remembered::encode(&reply).unwrap_or_default());
}

impl Shard {
    /// Lets a request wait whose answer comes later.
    pub(super) fn wait_if_deferred(&mut self, reply: &Reply, request: u64, ticket: Ticket, call: &Call, bytes: &[u8]) {
        if *reply == Reply::Deferred {
            let function = self.program.functions[usize::from(call.function)].name;
            self.awaited.entry((function, call.key.of(bytes).to_vec(), ticket)).or_default().push(request);
        }
    }

    /// A message from outside, which brings no envelope, in that of its trace.
    pub(super) fn traced(&self, trace: Option<Trace>, call: &Call, bytes: &[u8]) -> Calls {
        let messages = self.program.functions[usize::from(call.function)].spec.messages.len() as u16;
        let handler = if trace.is_some() { call.handler + messages } else { call.handler };
        let mut payload = Vec::new();
        if trace.is_some() {
            envelope::put(None, trace.as_ref(), &mut payload);
        }
        payload.extend_from_slice(call.payload.of(bytes));
        let mut calls = Calls::default();
        calls.push(Call { handler, ..*call }, call.key.of(bytes), &payload);
        calls
    }

    /// Sends the message of a request that is delayed or part of a trace.
    pub(super) fn send_in(&mut self, request: &Request, call: &Call, bytes: &[u8]) {
        let Calls { calls, bytes, .. } = &self.traced(request.trace, call, bytes);
        if request.delay_ms == 0 {
            return self.deliver(calls, bytes, &mut Decoded::default());
        }
        let (call, function) = (&calls[0], &self.program.functions[usize::from(call.function)]);
        let names = [function.name, function.message_name(call.handler)];
        let name = function.spec.name;
        let due = ProcessingTime(self.now.0.saturating_add_unsigned(request.delay_ms));
        let (key, payload) = (call.key.of(bytes), call.payload.of(bytes));
        self.effects.delay(due, names, key, call.time, name, |out| out.extend_from_slice(payload));
        // The sizes of what comes from outside were checked at the edge.
        self.effects.take_fault();
        self.take_timers();
    }

    /// Sends a message whose delay is over to its key.
    pub(super) fn send_delayed(&mut self, call: &Call, key: &[u8], payload: &[u8]) {
        let function = &self.program.functions[usize::from(call.function)];
        let names = [function.name, function.message_name(call.handler)];
        let to = crate::effect::Destination { function: call.function, handler: call.handler, names };
        let name = function.spec.name;
        self.effects.post(to, name, key, call.time, |out| out.extend_from_slice(payload));
        self.effects.close();
    }

    /// Tells the one who has asked for a call that failed; returns whether somebody has.
    pub(super) fn tell_asker(&mut self, call: &Call, bytes: &[u8], outcome: impl FnOnce(&mut Vec<u8>)) -> bool {
        let function = &self.program.functions[usize::from(call.function)];
        if call.is_timer || !matches!(function.handler_kind(call.handler), HandlerKind::Enveloped(_)) {
            return false;
        }
        if !self.options.rules.holds(Rule::AskersAreTold) {
            return true;
        }
        let Ok((Some(asker), trace)) = envelope::read(&mut Reader::new(call.payload.of(bytes))) else { return false };
        self.effects.begin_trace(trace);
        let to = Waiting { caller: Caller::Asker(asker), function: String::new(), key: call.key.of(bytes).to_vec() };
        self.effects.reply(&to, call.time, outcome);
        self.effects.close();
        self.bury_replies();
        true
    }

    /// Makes dead letters of replies whose asker this program does not have, or that it no longer takes.
    #[inline]
    pub(super) fn bury_replies(&mut self) {
        if self.effects.unresolved.is_empty() {
            return;
        }
        for (caller, reply) in std::mem::take(&mut self.effects.unresolved) {
            let Caller::Asker(Asker { function, reply: name, key, .. }) = caller else { continue };
            let error = "nobody takes this reply: give the function its `#[on_reply]` handler again";
            self.dead_letter(DeadLetter::of_message(Reason::UnreadableMessage, error, &function, &key, &name, &reply));
        }
    }

    /// Notes in its trace that a call is not made, now or ever; what the one who has asked is told is a part of that.
    pub(super) fn tell_not_made(&mut self, call: &Call, bytes: &[u8], error: &str) {
        let (function, name) = self.program.names_of(call);
        let (function, name) = (self.program.name(function), self.program.name(name));
        if !envelope::is_made(name) {
            return;
        }
        let kind = match name.strip_suffix('=') {
            _ if call.is_timer => SpanKind::Timer,
            Some(_) => SpanKind::Reply,
            None => SpanKind::Message,
        };
        let Ok((_, Some(trace))) = envelope::read(&mut Reader::new(call.payload.of(bytes))) else { return };
        self.effects.spans.push(SpanRecord {
            trace,
            kind,
            function: function.to_owned(),
            name: name.trim_end_matches('+').to_owned(),
            key: call.key.of(bytes).to_vec(),
            event_time: call.time.0,
            now: self.now.0,
            error: Some(error.to_owned()),
        });
    }

    /// Whether the calls of a run are answers that were given later.
    pub(super) fn are_late_answers(&self, run: &[Call]) -> bool {
        let first = &run[0];
        !first.is_timer && first.handler == self.program.functions[usize::from(first.function)].answer_handler()
    }

    pub(super) fn take_late_answers(&mut self, run: &[Call], bytes: &[u8]) {
        self.calls += run.len();
        for call in run {
            // They are written by `Context::answer` alone.
            let payload = call.payload.of(bytes);
            let mut reader = Reader::new(payload);
            let Ok(ticket) = Ticket::read(&mut reader) else { continue };
            let encoded = &payload[reader.at()..];
            let Ok(reply) = remembered::decode(encoded) else { continue };
            self.take_late_answer(call, call.key.of(bytes), ticket, encoded, &reply);
        }
    }

    fn take_late_answer(&mut self, call: &Call, key: &[u8], ticket: Ticket, encoded: &[u8], reply: &Reply) {
        let function = self.program.functions[usize::from(call.function)].name;
        if let Ticket::Once(once, hash) = &ticket {
            self.forget_answers();
            let known = self.remembered.find(function, key, once);
            let is_given = known
                .is_some_and(|known| known.hash != *hash || read(remembered::decode(&known.reply)) != Reply::Deferred);
            if is_given {
                return;
            }
            if self.options.rules.holds(Rule::LateAnswersAreRemembered) {
                self.remember(function, key, once, (*hash, self.options.answers_kept_ms), encoded);
            }
        }
        let waiting = self.awaited.remove(&(function, key.to_vec(), ticket)).unwrap_or_default();
        self.answers.extend(waiting.into_iter().map(|request| Answer { request, reply: reply.clone() }));
    }

    /// Takes the result of the call of an activity; one that is not waited for does not count.
    pub(super) fn apply_result(&mut self, id: u64, outcome: &CallOutcome) {
        let Some(pending) = self.pending.activity(id) else { return };
        let Some(called) = Called::of(&pending) else { return };
        let mut payload = Vec::new();
        // The result is what the call has asked for; attempts are parts of the call beside it.
        envelope::put(None, called.trace.as_ref(), &mut payload);
        ask::put_head(&[], called.token, &mut payload);
        payload.extend_from_slice(&outcome.0);
        let Some((function, handler)) = self.handler_of(false, &pending.message) else { return };
        let key = pending.message.key;
        let call = Call::message(function, handler, crate::address::murmur2(key), pending.message.time);
        let mut calls = Calls::default();
        calls.push(call, key, &payload);
        if self.options.rules.holds(Rule::ResultsCountOnce) {
            self.pending.remove_activity(id);
            self.put_removed(id);
        }
        self.deliver(&calls.calls, &calls.bytes, &mut Decoded::default());
    }

    /// The call of an activity, as the runtime makes it.
    pub(super) fn activity_call(&self, id: u64) -> Option<ActivityCall> {
        let pending = self.pending.activity(id)?;
        let called = Called::of(&pending)?;
        let name = self.program.name(pending.message.message);
        Some(ActivityCall {
            shard: self.id,
            id,
            activity: name.strip_suffix('=').unwrap_or(name).to_owned(),
            call: called.call.to_vec(),
            give_up_at: ProcessingTime(pending.due),
            trace: called.trace,
        })
    }

    /// Every call of an activity that waits for its result; all of them are committed in a shard that
    /// was just taken over.
    pub fn activity_calls(&self) -> impl Iterator<Item = ActivityCall> {
        self.pending.activities().filter_map(|id| self.activity_call(id))
    }
}

/// What stands in the entry of a call of an activity.
struct Called<'a> {
    trace: Option<Trace>,
    token: u64,
    call: &'a [u8],
}

impl<'a> Called<'a> {
    fn of(pending: &frame::PendingRef<'a>) -> Option<Self> {
        let payload = pending.message.payload;
        let mut reader = Reader::new(payload);
        let (_, trace) = envelope::read(&mut reader).ok()?;
        let token = reader.varint().ok()?;
        Some(Self { trace, token, call: &payload[reader.at()..] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        EventTime,
        pipeline::Action,
        shard::outbox::Mail,
        trial::{Add, Worker, key_of, program},
    };

    /// An ask of a function that the program no longer has, as it comes from another shard.
    fn orphaned(key: &str) -> Mail {
        let program = program();
        let asker =
            Asker { function: "test/gone".into(), reply: "test/counter/add=".into(), key: b"k".into(), token: 1 };
        let mut payload = Vec::new();
        envelope::put(Some(&asker), None, &mut payload);
        Add(5).encode(&mut payload);
        let messages = program.functions[0].spec.messages.len() as u16;
        let mut calls = Calls::default();
        let hash = crate::address::murmur2(key.as_bytes());
        calls.push(Call::message(0, messages, hash, EventTime(0)), key.as_bytes(), &payload);
        Mail::new(1, 0, 1, calls)
    }

    #[test]
    fn a_reply_that_nobody_takes_is_a_dead_letter() {
        let mut worker = Worker::new(false);
        worker.own(0);
        worker.pipeline.mail(orphaned(&key_of(0)));
        let emitted = worker.run().into_iter().filter_map(|action| match action {
            Action::Emit(emission) => Some(emission),
            _ => None,
        });
        let letters: Vec<DeadLetter> = emitted
            .flat_map(|emission| {
                let read = |bytes: &[u8]| serde_json::from_slice(bytes).expect("a dead letter");
                emission.records.iter().map(|emitted| read(emitted.record.of(&emission.frame))).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(letters.len(), 1, "{letters:?}");
        assert_eq!(letters[0].function.as_deref(), Some("test/gone"));
        assert_eq!(letters[0].bytes(), [&[0][..], b"5"].concat(), "the outcome of the reply");
        assert!(letters[0].error.contains("`#[on_reply]`") && letters[0].id.is_some());
    }
}
