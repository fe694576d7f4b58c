//! One function alone, for tests of it: no log, store, clock or other function.
//!
//! The calls run through the same host as in a shard, so a call that fails leaves nothing behind,
//! and timers and messages in event-time order come as they would.
//!
//! Deliberately absent: other functions. What is sent is noted, not delivered.

use std::{fmt, sync::Arc};

use crate::{
    activity::Activity,
    address::murmur2,
    ask::{AnyReply, Done, HandlesReply},
    codec::Reader,
    context::Resources,
    effect::{Call, Calls, Effects, TimerRequest},
    egress::Egress,
    envelope::{self, Caller, Ticket},
    error::{DecodeError, Failed, Fault, Reject},
    function::{Function, HandledBy, HandlerReturn, MessageTo, Target},
    host::{ErasedHost, Failure, Host, Run},
    key::{IntoKey, Key},
    message::{Message, Wire},
    program::Links,
    shard::{
        Reply,
        frame::{self, OpRef, PendingRef},
        read_late,
    },
    time::{Due, EventTime, ProcessingTime},
};

type AnswerOf<M, F> = <<M as MessageTo<F>>::Return as HandlerReturn>::Answer;
type RejectionOf<M, F> = <<M as MessageTo<F>>::Return as HandlerReturn>::Rejection;
type Outcome<M, F, A = AnswerOf<M, F>> = Result<A, Failed<RejectionOf<M, F>>>;

/// A timer that is set, as [`Harness::timers`] tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetTimer {
    /// When it is due.
    pub due: Due,
    /// Its name; empty for a plain timer.
    pub name: String,
    /// The name of its payload's type.
    pub payload: &'static str,
}

struct Waiting {
    due: Due,
    id: u64,
    name: Vec<u8>,
    call: Call,
    payload: Vec<u8>,
}

impl Waiting {
    fn order(&self) -> (i64, bool, u64) {
        let (Due::Event(EventTime(at)) | Due::Processing(ProcessingTime(at))) = self.due;
        (at, self.call.is_timer, self.id)
    }
}

/// One instance of `F` in a test; `statefn::testing` shows how to use it.
pub struct Harness<F: Function> {
    host: Host<F>,
    key: Vec<u8>,
    effects: Effects,
    waiting: Vec<Waiting>,
    watermark: EventTime,
    now: ProcessingTime,
    timer_names: Vec<&'static str>,
    /// How many messages were delivered.
    calls: u64,
}

impl<F: Function> Harness<F> {
    /// The instance with this key; its state is the default, event time and clock are at 0.
    #[must_use]
    pub fn at(key: impl IntoKey<F::Key>) -> Self {
        Self::with_resources(key, Resources::default())
    }

    /// The instance with this key and a state that it has already.
    #[must_use]
    pub fn with_state(key: impl IntoKey<F::Key>, state: F) -> Self {
        let mut harness = Self::at(key);
        harness.host.set_state(murmur2(&harness.key), &harness.key, state);
        harness
    }

    /// The same with what `ctx.resource` is to find.
    #[must_use]
    pub fn with_resources(key: impl IntoKey<F::Key>, resources: Resources) -> Self {
        let host = Host::new(Arc::new(Links::alone::<F>(resources)));
        let timer_names = host.timer_names();
        let mut effects = Effects::recording();
        // Numbers of pending timers begin at 1, as in a shard that has had one.
        effects.pending_next = 1;
        Self {
            host,
            key: key.into_bytes().get().to_vec(),
            effects,
            waiting: Vec::new(),
            watermark: EventTime(0),
            now: ProcessingTime(0),
            timer_names,
            calls: 0,
        }
    }

    /// Calls the handler of `M` with the event time that was last reached; returns its answer.
    ///
    /// # Errors
    /// What the handler returned; a panic is a fault. State and effects of the call are then gone.
    pub fn deliver<M: HandledBy<F>>(&mut self, msg: M) -> Outcome<M, F> {
        self.call(self.watermark, &msg)
    }

    /// Delivers a message with this event time; returns the answer, or `None` if the handler takes
    /// its messages in event-time order and the time is still to come.
    ///
    /// # Errors
    /// As [`Self::deliver`].
    pub fn deliver_at<M: HandledBy<F>>(&mut self, time: EventTime, msg: M) -> Outcome<M, F, Option<AnswerOf<M, F>>> {
        if !M::ORDERED || time <= self.watermark {
            return self.call(time, &msg).map(Some);
        }
        let id = self.effects.pending_next;
        self.effects.pending_next += 1;
        let mut payload = Vec::new();
        msg.encode(&mut payload);
        let call = Call::message(0, <M as MessageTo<F>>::INDEX, murmur2(&self.key), time);
        self.waiting.push(Waiting { due: Due::Event(time), id, name: Vec::new(), call, payload });
        Ok(None)
    }

    /// Calls the handler of `M`; returns its answer, or `None` if it answers later.
    ///
    /// # Errors
    /// As [`Self::deliver`].
    pub fn begin<M: HandledBy<F>>(&mut self, msg: M) -> Outcome<M, F, Option<AnswerOf<M, F>>> {
        self.call_or_defer(self.watermark, &msg)
    }

    /// Calls the handler of a reply, as if what was asked had answered.
    ///
    /// # Errors
    /// A fault of the handler; its state and effects are then gone.
    pub fn reply<R: AnyReply>(&mut self, reply: R) -> Result<(), Fault>
    where
        F: HandlesReply<R>,
    {
        let mut payload = Vec::new();
        envelope::put(None, None, &mut payload);
        reply.write(&mut payload);
        let handler = self.host.first_reply() + <F as HandlesReply<R>>::INDEX;
        let call = Call::message(0, handler, murmur2(&self.key), self.watermark);
        self.run(call, &payload).map_err(fault)
    }

    /// Moves event time on: everything due until then happens, in order.
    ///
    /// # Errors
    /// The first fault; what was due behind it waits.
    pub fn advance_to(&mut self, time: EventTime) -> Result<(), Fault> {
        self.fire(|due| matches!(due, Due::Event(at) if *at <= time))?;
        self.watermark = self.watermark.max(time);
        Ok(())
    }

    /// Moves the clock on: processing-time timers due until then fire, in order.
    ///
    /// # Errors
    /// The first fault; what was due behind it waits.
    pub fn advance_clock_to(&mut self, now: ProcessingTime) -> Result<(), Fault> {
        self.now = self.now.max(now);
        self.fire(|due| matches!(due, Due::Processing(at) if *at <= now))
    }

    /// The state of the instance.
    #[must_use]
    pub fn state(&mut self) -> &F {
        self.host.state(murmur2(&self.key), &self.key)
    }

    /// The messages of type `M` that were sent to `T`, with the keys they went to, oldest first.
    #[must_use]
    pub fn sent<T: Target, M: MessageTo<T>>(&self) -> Vec<(T::Key, M)> {
        let names = self.host.links();
        let target = names.target_named(T::NAME).map(|target| target.plain[usize::from(M::INDEX)].names);
        let mut decoded = Vec::new();
        self.each_op(|op| match op {
            OpRef::Send(_, message, _) if Some([message.function, message.message]) == target => {
                decoded.push((expect(T::Key::read(message.key)), expect(M::decode(message.payload))));
            }
            _ => {}
        });
        decoded
    }

    /// The messages of type `M` that were asked of `T`: the keys, the messages and the tokens, oldest first.
    #[must_use]
    pub fn asked<T: Target, M: MessageTo<T>>(&self) -> Vec<(T::Key, M, u64)> {
        let target = self.host.links().target_named(T::NAME);
        let target = target.map(|target| target.enveloped[usize::from(M::INDEX)].names);
        let mut decoded = Vec::new();
        self.each_op(|op| match op {
            OpRef::Send(_, message, _) if Some([message.function, message.message]) == target => {
                let mut reader = Reader::new(message.payload);
                let (asker, _) = envelope::read(&mut reader).expect("it was just written");
                let msg = expect(M::decode(&message.payload[reader.at()..]));
                decoded.extend(asker.map(|asker| (expect(T::Key::read(message.key)), msg, asker.token)));
            }
            _ => {}
        });
        decoded
    }

    /// The messages of type `M` that are to be sent to `T` later: when, the keys, and the messages.
    #[must_use]
    pub fn sent_later<T: Target, M: MessageTo<T>>(&self) -> Vec<(ProcessingTime, T::Key, M)> {
        let target = self.host.links().target_named(T::NAME);
        let target = target.map(|target| target.plain[usize::from(M::INDEX)].names);
        let mut decoded = Vec::new();
        self.each_op(|op| match op {
            OpRef::PendingAdd(PendingRef { kind: frame::PENDING_DELAYED, due, message, .. })
                if Some([message.function, message.message]) == target =>
            {
                let key = expect(T::Key::read(message.key));
                decoded.push((ProcessingTime(due), key, expect(M::decode(message.payload))));
            }
            _ => {}
        });
        decoded
    }

    /// The calls of the activity `A` that were asked for, with their tokens, oldest first.
    #[must_use]
    pub fn called<A: Activity>(&self) -> Vec<(A::Call, u64)>
    where
        F: HandlesReply<Done<A>>,
    {
        let handler = self.host.links().replies[usize::from(<F as HandlesReply<Done<A>>>::INDEX)];
        let mut decoded = Vec::new();
        self.each_op(|op| match op {
            OpRef::PendingAdd(PendingRef { kind: frame::PENDING_ACTIVITY, message, .. })
                if message.message == handler =>
            {
                let mut reader = Reader::new(message.payload);
                envelope::read(&mut reader).expect("it was just written");
                let token = reader.varint().expect("it was just written");
                decoded.push((expect(A::Call::decode(&message.payload[reader.at()..])), token));
            }
            _ => {}
        });
        decoded
    }

    /// The answers that were given later than their calls, oldest first.
    #[must_use]
    pub fn answers<A: Wire, E: Reject>(&self) -> Vec<Result<A, E>> {
        let given = self.effects.unresolved.iter().map(|(_, bytes)| read_late(bytes).expect("it was just written"));
        given
            .map(|reply| match reply {
                Reply::Rejected(rejection) => Err(expect(E::decode(&rejection.value))),
                Reply::Answered(answer) => Ok(expect(A::decode(&answer))),
                other => panic!("an answer is given or refused, not {other:?}"),
            })
            .collect()
    }

    fn each_op(&self, each: impl FnMut(OpRef<'_>)) {
        let read = frame::ops(self.effects.body(), each);
        read.unwrap_or_else(|error| panic!("a body holds only what was written: {error}"));
    }

    /// The records that were emitted to an egress, oldest first.
    #[must_use]
    pub fn emitted<T: Message>(&self, egress: &'static Egress<T>) -> Vec<T> {
        let id = self.host.links().egress(egress.identity(), egress.name());
        let emitted = self.effects.emitted.iter().filter(|emitted| Some(emitted.egress) == id);
        expect(emitted.map(|emitted| T::decode(emitted.record.of(self.effects.body()))).collect())
    }

    /// The timers that are set, in the order in which they are due.
    #[must_use]
    pub fn timers(&self) -> Vec<SetTimer> {
        let mut timers: Vec<&Waiting> = self.waiting.iter().filter(|waiting| waiting.call.is_timer).collect();
        timers.sort_by_key(|timer| timer.order());
        let told = timers.into_iter().map(|timer| SetTimer {
            due: timer.due,
            name: String::from_utf8_lossy(&timer.name).into_owned(),
            payload: self.timer_names[usize::from(timer.call.handler)],
        });
        told.collect()
    }

    fn call<M: HandledBy<F>>(&mut self, time: EventTime, msg: &M) -> Outcome<M, F> {
        let answer = self.call_or_defer(time, msg)?;
        Ok(answer.unwrap_or_else(|| panic!("the handler of `{}` answers later: call it by `begin`", M::NAME)))
    }

    fn call_or_defer<M: HandledBy<F>>(&mut self, time: EventTime, msg: &M) -> Outcome<M, F, Option<AnswerOf<M, F>>> {
        let mut payload = Vec::new();
        msg.encode(&mut payload);
        let call = Call::message(0, <M as MessageTo<F>>::INDEX, murmur2(&self.key), time);
        self.calls += 1;
        self.effects.caller = Caller::Outside(Ticket::Number(0, self.calls));
        let made = self.run(call, &payload);
        let is_deferred = self.effects.is_deferred;
        self.effects.close();
        match made {
            Ok(()) if is_deferred => Ok(None),
            Ok(()) => Ok(Some(expect(AnswerOf::<M, F>::decode(&self.effects.answer.take().unwrap_or_default())))),
            Err(Failure::Rejected(rejection)) => {
                Err(Failed::Rejected(expect(RejectionOf::<M, F>::decode(&rejection.value))))
            }
            Err(failure) => Err(Failed::Fault(fault(failure))),
        }
    }

    fn fire(&mut self, is_due: impl Fn(&Due) -> bool) -> Result<(), Fault> {
        loop {
            let due = self.waiting.iter().enumerate().filter(|(_, waiting)| is_due(&waiting.due));
            let Some((place, _)) = due.min_by_key(|(_, waiting)| waiting.order()) else { return Ok(()) };
            let waiting = self.waiting.remove(place);
            if let Due::Event(at) = waiting.due {
                self.watermark = self.watermark.max(at);
            }
            match self.run(waiting.call, &waiting.payload) {
                // Nobody waits for the answer of a message that waited.
                Ok(()) | Err(Failure::Rejected(_)) => {}
                Err(failure) => return Err(fault(failure)),
            }
        }
    }

    fn run(&mut self, call: Call, payload: &[u8]) -> Result<(), Failure> {
        let mut calls = Calls::default();
        calls.push(call, &self.key, payload);
        let mut failures = Vec::new();
        self.effects.wants_answer = true;
        self.effects.answer = None;
        let Calls { calls, bytes, decoded } = &mut calls;
        let run = Run { calls, bytes, decoded, now: self.now };
        self.host.run(run, &mut self.effects, &mut failures);
        self.take_timers();
        match failures.pop() {
            None => Ok(()),
            Some((_, failure)) => {
                // In an app the key would be parked; in a test the next call is to be seen.
                expect(self.host.set_parked(call.hash, &self.key, false));
                Err(failure)
            }
        }
    }

    fn take_timers(&mut self) {
        for request in std::mem::take(&mut self.effects.timers) {
            match request {
                // Whoever tests what is asked for here reads it in the body.
                TimerRequest::Add(_) => {}
                TimerRequest::Cancel { name, .. } => self.waiting.retain(|waiting| waiting.name != name.as_bytes()),
                TimerRequest::Set(timer) => {
                    let mut entry = Reader::new(timer.entry.of(self.effects.body()));
                    let PendingRef { id, name, message, .. } =
                        PendingRef::read(&mut entry).expect("it was just written");
                    let (name, payload) = (name.to_vec(), message.payload.to_vec());
                    if !name.is_empty() {
                        self.waiting.retain(|waiting| waiting.name != name);
                    }
                    let hash = murmur2(&self.key);
                    let call = Call { is_timer: true, ..Call::message(0, timer.handler, hash, message.time) };
                    self.waiting.push(Waiting { due: timer.due, id, name, call, payload });
                }
            }
        }
    }
}

impl<F: Function> fmt::Debug for Harness<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Harness({})", F::NAME)
    }
}

fn fault(failure: Failure) -> Fault {
    match failure {
        Failure::Fault(reason) | Failure::Unreadable(reason) => Fault::new(reason),
        Failure::Parked => Fault::new("the key is parked"),
        Failure::Rejected(rejection) => Fault::new(rejection.code),
    }
}

/// A test is the place to fail loudly: what cannot be read back has a broken encoding.
fn expect<T>(result: Result<T, DecodeError>) -> T {
    result.unwrap_or_else(|error| panic!("a value does not survive its own encoding: {error}"))
}
