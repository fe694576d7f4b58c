//! What a handler can ask for.

use std::{
    any::{Any, TypeId},
    collections::BTreeMap,
    fmt,
    marker::PhantomData,
    sync::Arc,
    time::Duration,
};

use crate::{
    activity::Activity,
    address::Address,
    ask::{AnyReply, Deferred, Done, HandlesReply, Reply, ReplyTo, Waiting, put_answer, put_outcome},
    effect::Effects,
    egress::Egress,
    envelope::{Asker, Caller},
    error::{Failed, Fault, Reject},
    function::{Function, MessageTo, TargetOf, TimerOf},
    key::KeyBytes,
    message::{Message, Wire},
    program::{Links, NameId},
    shard::put_late,
    time::{Due, EventTime, ProcessingTime},
};

/// Values that every handler may read: one of each type.
///
/// ```
/// use statefn_core::context::Resources;
/// let mut resources = Resources::default();
/// resources.insert(42_u32);
/// assert_eq!(resources.get::<u32>(), Some(&42));
/// ```
#[derive(Default, Clone)]
pub struct Resources {
    by_type: BTreeMap<TypeId, Arc<dyn Any + Send + Sync>>,
}

impl Resources {
    /// Adds a value, in place of one of the same type.
    pub fn insert<R: Send + Sync + 'static>(&mut self, resource: R) {
        self.by_type.insert(TypeId::of::<R>(), Arc::new(resource));
    }

    /// Returns the value of type `R`.
    #[must_use]
    pub fn get<R: 'static>(&self) -> Option<&R> {
        self.by_type.get(&TypeId::of::<R>())?.downcast_ref()
    }
}

impl fmt::Debug for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Resources({})", self.by_type.len())
    }
}

/// What a handler can see and ask for, during one call.
///
/// All that a call asks for becomes durable together with its state, or not at all. Whatever
/// changes something takes `&mut self`, so a reading handler, which has a `&Context`, cannot.
pub struct Context<'a, F: Function> {
    key: &'a F::Key,
    event_time: EventTime,
    now: ProcessingTime,
    links: &'a Links,
    effects: &'a mut Effects,
    function: PhantomData<fn() -> F>,
}

impl<'a, F: Function> Context<'a, F> {
    /// For hosts and test harnesses; handlers are given one.
    #[doc(hidden)]
    pub fn new(
        key: &'a F::Key,
        event_time: EventTime,
        now: ProcessingTime,
        links: &'a Links,
        effects: &'a mut Effects,
    ) -> Self {
        Self { key, event_time, now, links, effects, function: PhantomData }
    }

    /// The key of this instance.
    #[must_use]
    pub fn key(&self) -> &'a F::Key {
        self.key
    }

    /// The event time of the message, or the due time of the timer.
    #[must_use]
    pub fn event_time(&self) -> EventTime {
        self.event_time
    }

    /// The reading of the clock that this epoch uses; it never goes back.
    #[must_use]
    pub fn now(&self) -> ProcessingTime {
        self.now
    }

    /// A value that was given to `App::resource`.
    ///
    /// # Panics
    /// If the app has none of this type; the key is then parked.
    #[must_use]
    pub fn resource<R: 'static>(&self) -> &'a R {
        let found = self.links.resources.get();
        found.unwrap_or_else(|| {
            panic!("no resource {0} in this app: add `.resource::<{0}>(..)`", std::any::type_name::<R>())
        })
    }

    /// Sends a message; it carries this call's event time.
    ///
    /// Messages from one key to another arrive in the order they were sent.
    pub fn send<T: TargetOf<F>, M: MessageTo<T>>(&mut self, to: Address<T>, msg: M) {
        let target = &self.links.targets[usize::from(T::SLOT)];
        self.effects.send(target, <M as MessageTo<T>>::INDEX, to.key(), &msg, self.event_time);
    }

    /// Sends a message once so much time of the clock has passed; it carries this call's event time.
    ///
    /// Meanwhile it holds no watermark: in a window it may be late.
    pub fn send_after<T: TargetOf<F>, M: MessageTo<T>>(&mut self, delay: Duration, to: Address<T>, msg: M) {
        let target = &self.links.targets[usize::from(T::SLOT)];
        let index = <M as MessageTo<T>>::INDEX;
        self.effects.send_at(self.now + delay, target, index, to.key(), &msg, self.event_time);
    }

    /// Sends a message whose answer comes back to this instance: a handler marked `#[on_reply]` takes a
    /// [`Reply<T, M>`](Reply) with the answer or the rejection, and with `token`.
    ///
    /// While the key that is asked is parked no reply comes: one who does not want to wait for ever
    /// sets a timer. Asker and asked are a cycle for the watermark, as the reply is a message.
    pub fn ask<T: TargetOf<F>, M: MessageTo<T>>(&mut self, to: Address<T>, msg: M, token: u64)
    where
        F: HandlesReply<Reply<T, M>>,
    {
        let target = &self.links.targets[usize::from(T::SLOT)];
        let asker = Asker {
            function: self.links.name.to_owned(),
            reply: <Reply<T, M> as AnyReply>::ASKED.reply_name(),
            key: KeyBytes::of(self.key).get().to_vec(),
            token,
        };
        let index = <M as MessageTo<T>>::INDEX;
        self.effects.send_enveloped(target, index, Some(&asker), to.key(), &msg, self.event_time);
    }

    /// Asks for a call to the outside, which begins once this call is committed; a handler marked
    /// `#[on_reply]` takes a [`Done<A>`](Done) with its result, exactly once, and with `token`.
    ///
    /// The activity itself may run more than once; see [`activity`](crate::activity).
    pub fn call<A: Activity>(&mut self, call: A::Call, token: u64)
    where
        F: HandlesReply<Done<A>>,
    {
        let handler = self.links.replies[usize::from(<F as HandlesReply<Done<A>>>::INDEX)];
        let names = [self.links.function_name, handler];
        let give_up_at = self.now + Duration::from_millis(A::POLICY.give_up_after_ms);
        let key = KeyBytes::of(self.key);
        self.effects.call_activity(names, give_up_at, key.get(), self.event_time, token, A::NAME, |out| {
            call.encode(out);
        });
    }

    /// Takes the caller of this call, who is then answered later: return the first, and keep the second
    /// until [`answer`](Self::answer).
    ///
    /// A caller over HTTP waits as long as a request may; one with an idempotency key asks again with
    /// it, also after a restart, and gets the same answer. Called twice, both name the same caller.
    pub fn defer_reply<A: Wire, E: Reject>(&mut self) -> (Deferred<A>, ReplyTo<A, E>) {
        let waiting = Waiting {
            caller: self.effects.caller.clone(),
            function: self.links.name.to_owned(),
            key: KeyBytes::of(self.key).get().to_vec(),
        };
        (Deferred::new(), ReplyTo::new(waiting))
    }

    /// Answers a caller who waits since [`defer_reply`](Self::defer_reply).
    ///
    /// One who got an answer already gets no other, if he called from outside; nobody, if nobody waits.
    pub fn answer<A: Wire, E: Reject>(&mut self, caller: ReplyTo<A, E>, answer: Result<A, E>) {
        let waiting = caller.to;
        let outcome = answer.map_err(Failed::Rejected);
        match waiting.caller {
            Caller::Outside(_) => self.effects.reply(&waiting, self.event_time, |out| put_late(&outcome, out)),
            _ => self.effects.reply(&waiting, self.event_time, |out| put_outcome(&outcome, out)),
        }
    }

    /// Emits a record to an egress that the function declares by `emits(..)`.
    ///
    /// A record for an egress that is not declared is a fault.
    pub fn emit<T: Message>(&mut self, egress: &'static Egress<T>, record: &T) {
        if let Some(egress) = self.declared(egress) {
            self.effects.emit(egress, record);
        }
    }

    /// Emits a record that `fill` makes of a default one, whose memory is used again for the next.
    ///
    /// It does what [`emit`](Self::emit) does, without an allocation for each text in the record:
    /// `record.account.clone_from(key)`.
    pub fn emit_with<T: Message + Default>(&mut self, egress: &'static Egress<T>, fill: impl FnOnce(&mut T)) {
        if let Some(egress) = self.declared(egress) {
            self.effects.emit_filled(egress, fill);
        }
    }

    fn declared<T: Message>(&mut self, egress: &'static Egress<T>) -> Option<NameId> {
        let declared = self.links.egress(egress.identity(), egress.name());
        if declared.is_none() {
            self.effects.fail(Fault::new(format_args!(
                "`{}` emits to `{}` but does not declare it: add it to `emits(..)` of its `#[function]`",
                F::NAME,
                egress.name()
            )));
        }
        declared
    }

    /// Sets a timer beside those that are set already.
    ///
    /// An event-time timer fires once every message up to `due` has been handled. A `due` in the
    /// past fires as soon as this call is over.
    pub fn set_timer<T: TimerOf<F>>(&mut self, due: impl Into<Due>, timer: T) {
        self.effects.set_timer(self.links, <T as TimerOf<F>>::INDEX, "", due.into(), self.key, &timer, self.event_time);
    }

    /// Sets the timer of this key called `name`, in place of one that is pending.
    ///
    /// `name` has 1 to `limits::NAME_BYTES_MAX` bytes; an empty or longer one is a fault.
    pub fn set_timer_as<T: TimerOf<F>>(&mut self, name: &str, due: impl Into<Due>, timer: T) {
        if self.effects.check_timer_name(name) {
            self.effects.set_timer(
                self.links,
                <T as TimerOf<F>>::INDEX,
                name,
                due.into(),
                self.key,
                &timer,
                self.event_time,
            );
        }
    }

    /// Takes back the timer of this key called `name`; nothing happens if there is none.
    pub fn cancel_timer(&mut self, name: &str) {
        if self.effects.check_timer_name(name) {
            self.effects.cancel_timer(self.links.function, self.key, name);
        }
    }

    /// Keeps the answer of this call for the one who waits for it.
    pub(crate) fn give(&mut self, answer: &impl Wire) {
        if self.effects.wants_answer {
            let mut bytes = Vec::new();
            answer.encode(&mut bytes);
            self.effects.answer = Some(bytes);
        } else if let Caller::Asker(_) = self.effects.caller {
            let caller = std::mem::take(&mut self.effects.caller);
            let waiting = Waiting { caller, function: String::new(), key: KeyBytes::of(self.key).get().to_vec() };
            self.effects.reply(&waiting, self.event_time, |out| put_answer(answer, out));
        }
    }

    /// Notes that this call answers later.
    pub(crate) fn defer(&mut self) {
        self.effects.is_deferred = true;
    }

    /// Deletes the state of this key once the call is over; timers stay.
    pub fn clear(&mut self) {
        self.effects.clear();
    }
}

impl<F: Function> fmt::Debug for Context<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({}/{:?} at {})", F::NAME, self.key, self.event_time)
    }
}
