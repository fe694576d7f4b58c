//! The host of a function in a shard: its instances, and the loops that call its handlers.
//!
//! Erasure is per run of calls, not per call: [`ErasedHost::run`] is generic code over the typed
//! table of instances. A call runs on a copy of the state that is kept when it succeeds, so a
//! rejection, a fault or a panic leaves neither state nor effects behind.
//!
//! Deliberately absent: loading state while a run is on; all instances are in memory.

use std::{
    borrow::Cow,
    fmt,
    marker::PhantomData,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use hashbrown::HashTable;
use serde::{Deserialize, Serialize};

use crate::{
    address::murmur2,
    ask::{AnyReply, Asked, HandlesReply},
    codec::{Reader, put_bytes, put_varint, put_with},
    context::Context,
    decoded::Decoded,
    effect::{Call, Effects},
    envelope::{self, SpanKind, SpanRecord},
    error::{DecodeError, Reject},
    function::{Accepts, Access, Function, HandlerReturn, Handles, HandlesTimer, Incoming, Outcome},
    key::{Key, KeyBytes},
    message::{Message, Wire},
    ports::inspect::Keys,
    program::{Links, MessageHandler, NameId},
    shard::{frame::Op, rules::Rule},
    time::ProcessingTime,
};

/// Calls of one handler, in order.
#[derive(Debug)]
pub struct Run<'a> {
    /// The calls; all have the same function and handler.
    pub calls: &'a [Call],
    /// Their keys and payloads.
    pub bytes: &'a [u8],
    /// Messages among them that are decoded already.
    pub decoded: &'a mut Decoded,
    /// The clock of the epoch.
    pub now: ProcessingTime,
}

/// A call that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Its key is parked.
    Parked,
    /// Its key or payload cannot be read.
    Unreadable(String),
    /// The handler said no.
    Rejected(Rejection),
    /// The handler is broken.
    Fault(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parked => f.write_str("the key is parked"),
            Self::Unreadable(text) | Self::Fault(text) => f.write_str(text),
            Self::Rejected(rejection) => f.write_str(&rejection.code),
        }
    }
}

/// A rejection without its type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// Its stable code.
    pub code: Cow<'static, str>,
    /// The HTTP status of its answer.
    pub status: u16,
    /// Its encoded value.
    pub value: Vec<u8>,
}

/// A host without its type.
pub trait ErasedHost: Send {
    /// Makes the calls of a run; appends the place in the run and the cause of each that fails.
    fn run(&mut self, run: Run<'_>, effects: &mut Effects, failures: &mut Vec<(usize, Failure)>);

    /// Makes room for so many more keys.
    fn reserve(&mut self, keys: usize);

    /// Puts a stored state in place.
    ///
    /// # Errors
    /// If the key or the state cannot be read.
    fn load(&mut self, hash: u32, key: &[u8], state: &[u8]) -> Result<(), DecodeError>;

    /// Stops or resumes a key.
    ///
    /// # Errors
    /// If the key cannot be read.
    fn set_parked(&mut self, hash: u32, key: &[u8], parked: bool) -> Result<(), DecodeError>;

    /// Puts another state in place, as if a handler had made it.
    ///
    /// # Errors
    /// If the key or the state cannot be read; nothing was changed then.
    fn replace(&mut self, hash: u32, key: &[u8], state: &[u8]) -> Result<(), DecodeError>;

    /// Whether bytes are what a handler takes.
    ///
    /// # Errors
    /// If they are not.
    fn check(&mut self, handler: u16, is_timer: bool, payload: &[u8]) -> Result<(), DecodeError>;

    /// Writes the states that changed since the last call into the body of a frame.
    fn seal(&mut self, function: NameId, body: &mut Vec<u8>);

    /// Returns every state, encoded, in the order of the keys' bytes.
    fn states(&self) -> Vec<(&[u8], Vec<u8>)>;

    /// The encoded state of a key; none if it has none.
    fn encoded_state(&self, hash: u32, key: &[u8]) -> Option<Vec<u8>>;

    /// Forgets the instance that was made last, if its key has no state after all: a read, or a
    /// call that failed, must not cost memory for each key that anybody may think of.
    fn forget_last(&mut self);

    /// Whether any state changed since the last `seal`.
    fn is_dirty(&self) -> bool;

    /// How many keys have a state, and about how much memory they take.
    fn keys(&self) -> Keys;

    /// Shows the keys of some instances, by place, that have a state; returns whether there are none behind
    /// them. Instances never move.
    fn look(&self, places: Range<usize>, each: &mut dyn FnMut(&[u8])) -> bool;
}

struct Slot<F: Function> {
    /// Whether the key has a state in the journal, or will have with the next frame.
    exists: bool,
    dirty: bool,
    parked: bool,
    /// Small, as there is one for each key.
    key: KeyBytes<22>,
    state: F,
}

/// Where the instance of a key is, and the hash that tells it from most others without a look there.
#[derive(Clone, Copy)]
struct Place {
    hash: u32,
    slot: u32,
}

/// The typed instances of a function in one shard.
struct Table<F: Function> {
    places: HashTable<Place>,
    slots: Vec<Slot<F>>,
    dirty: Vec<u32>,
    /// How many instances have a state in the journal, or will have with the next frame.
    existing: usize,
    /// How many bytes the encoded states had that were seen so far, and how many these were.
    encoded: (u64, u64),
    /// The key of the call that runs. It is read from the call, whose bytes are at hand, and not
    /// kept in the slot, where a text would be one more wait for memory.
    key: Option<F::Key>,
}

/// Keys of one shard share the low bits of their murmur2 hash; multiplying spreads the others.
#[inline]
pub(crate) fn spread(hash: u32) -> u64 {
    let spread = u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    spread ^ (spread >> 32)
}

impl<F: Function> Table<F> {
    fn new() -> Self {
        Self { places: HashTable::new(), slots: Vec::new(), dirty: Vec::new(), existing: 0, encoded: (0, 0), key: None }
    }

    #[inline]
    fn find(&self, hash: u32, key: &[u8]) -> Option<u32> {
        let equal = |place: &Place| place.hash == hash && self.slots[place.slot as usize].key.get() == key;
        self.places.find(spread(hash), equal).map(|place| place.slot)
    }

    /// Finds the instances of several calls; `found` has one place for each of them.
    ///
    /// A lookup waits for memory, and side by side the processor waits for many at once: so the slots
    /// are touched only when the places of all are known.
    #[inline]
    fn find_all(&self, calls: &[Call], bytes: &[u8], found: &mut [Option<u32>]) {
        for (found, call) in found.iter_mut().zip(calls) {
            let place = self.places.find(spread(call.hash), |place| place.hash == call.hash);
            *found = place.map(|place| place.slot);
        }
        for (found, call) in found.iter_mut().zip(calls) {
            let key = call.key.of(bytes);
            if found.is_some_and(|slot| self.slots[slot as usize].key.get() != key) {
                // Another key with the same hash stands before it.
                *found = self.find(call.hash, key);
            }
        }
    }

    #[inline]
    fn slot(&mut self, hash: u32, key: &[u8]) -> Result<u32, DecodeError> {
        match self.find(hash, key) {
            Some(place) => Ok(place),
            None => self.insert(hash, key),
        }
    }

    #[cold]
    fn insert(&mut self, hash: u32, key: &[u8]) -> Result<u32, DecodeError> {
        self.read_key(key)?;
        let place = u32::try_from(self.slots.len()).map_err(|_| DecodeError::new("a shard holds at most 2^32 keys"))?;
        let key = KeyBytes::new(key);
        self.slots.push(Slot { exists: false, dirty: false, parked: false, key, state: F::default() });
        self.places.insert_unique(spread(hash), Place { hash, slot: place }, |place| spread(place.hash));
        Ok(place)
    }

    #[inline]
    fn read_key(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        match &mut self.key {
            Some(key) => key.read_into(bytes),
            None => {
                self.key = Some(F::Key::read(bytes)?);
                Ok(())
            }
        }
    }

    #[inline]
    fn mark_dirty(&mut self, place: u32, exists: bool) {
        let slot = &mut self.slots[place as usize];
        if slot.exists != exists {
            slot.exists = exists;
            self.existing = if exists { self.existing + 1 } else { self.existing - 1 };
        }
        if !slot.dirty {
            slot.dirty = true;
            self.dirty.push(place);
        }
    }
}

/// One handler's loop over a run.
trait Loop<F: Function>: Send {
    /// Whether bytes are what the handler takes; of a message, without the envelope that it may come in.
    fn check(&self, payload: &[u8]) -> Result<(), DecodeError>;

    fn run(
        &mut self,
        table: &mut Table<F>,
        links: &Links,
        run: Run<'_>,
        effects: &mut Effects,
        failures: &mut Vec<(usize, Failure)>,
    );
}

/// The loops of a handler: of what comes as it is, and of what comes in envelopes.
type Loops<F> = [Box<dyn Loop<F>>; 2];

/// The handlers of a function, in the order of their index.
pub struct Handlers<F: Function> {
    messages: Vec<(MessageHandler, Loops<F>)>,
    timers: Vec<(&'static str, Loops<F>)>,
    replies: Vec<(Asked, Box<dyn Loop<F>>)>,
}

impl<F: Function> Handlers<F> {
    pub(crate) fn new() -> Self {
        let mut handlers = Self { messages: Vec::new(), timers: Vec::new(), replies: Vec::new() };
        F::handlers(&mut handlers);
        handlers
    }

    /// Registers the handler of `M`.
    ///
    /// # Panics
    /// If it is not registered in the order of `Accepts::INDEX`.
    pub fn on<M: Message>(&mut self)
    where
        F: Handles<M>,
    {
        assert_eq!(
            usize::from(<F as Accepts<M>>::INDEX),
            self.messages.len(),
            "handlers are registered in the order of their INDEX"
        );
        let handler = MessageHandler {
            message: M::NAME,
            in_event_time_order: <F as Handles<M>>::IN_EVENT_TIME_ORDER,
            access: <F as Handles<M>>::ACCESS,
            encoding: M::ENCODING,
            answer_encoding: <<F as Accepts<M>>::Return as HandlerReturn>::Answer::CONTENT,
            check: |bytes| M::decode(bytes).map(drop),
            schemas: || {
                let answer = <<<F as Accepts<M>>::Return as HandlerReturn>::Answer as Wire>::json_schema();
                let rejection = <<<F as Accepts<M>>::Return as HandlerReturn>::Rejection as Wire>::json_schema();
                [M::json_schema(), answer, rejection]
            },
        };
        let of = |is_enveloped| Box::new(OnMessage::<M> { incoming: Incoming::empty(), is_enveloped });
        self.messages.push((handler, [of(false), of(true)]));
    }

    /// Registers the handler of timers with payload `T`.
    ///
    /// # Panics
    /// If it is not registered in the order of `HandlesTimer::INDEX`.
    pub fn on_timer<T: Message>(&mut self)
    where
        F: HandlesTimer<T>,
    {
        assert_eq!(
            usize::from(<F as HandlesTimer<T>>::INDEX),
            self.timers.len(),
            "timer handlers are registered in the order of their INDEX"
        );
        let of = |is_enveloped| Box::new(OnTimer::<T> { incoming: Incoming::empty(), is_enveloped });
        self.timers.push((T::NAME, [of(false), of(true)]));
    }

    /// Registers the handler of replies `R`.
    ///
    /// # Panics
    /// If it is not registered in the order of `HandlesReply::INDEX`.
    pub fn on_reply<R: AnyReply>(&mut self)
    where
        F: HandlesReply<R>,
    {
        assert_eq!(
            usize::from(<F as HandlesReply<R>>::INDEX),
            self.replies.len(),
            "handlers of replies are registered in the order of their INDEX"
        );
        self.replies.push((R::ASKED, Box::new(OnReply::<R>(PhantomData))));
    }

    pub(crate) fn messages(&self) -> Vec<MessageHandler> {
        self.messages.iter().map(|(handler, _)| *handler).collect()
    }

    pub(crate) fn timers(&self) -> Vec<&'static str> {
        self.timers.iter().map(|(name, _)| *name).collect()
    }

    pub(crate) fn replies(&self) -> Vec<Asked> {
        self.replies.iter().map(|(asked, _)| *asked).collect()
    }

    fn message_loop(&mut self, handler: usize) -> &mut dyn Loop<F> {
        let count = self.messages.len();
        match handler.checked_sub(2 * count) {
            Some(reply) => self.replies[reply].1.as_mut(),
            None => self.messages[handler % count].1[handler / count].as_mut(),
        }
    }

    fn timer_loop(&mut self, handler: usize) -> &mut dyn Loop<F> {
        let count = self.timers.len();
        self.timers[handler % count].1[handler / count].as_mut()
    }
}

impl<F: Function> fmt::Debug for Handlers<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handlers({})", F::NAME)
    }
}

struct OnMessage<M> {
    incoming: Incoming<M>,
    is_enveloped: bool,
}

impl<F: Handles<M>, M: Message> Loop<F> for OnMessage<M> {
    fn check(&self, payload: &[u8]) -> Result<(), DecodeError> {
        M::decode(payload).map(drop)
    }

    fn run(
        &mut self,
        table: &mut Table<F>,
        links: &Links,
        run: Run<'_>,
        effects: &mut Effects,
        failures: &mut Vec<(usize, Failure)>,
    ) {
        let Self { incoming: own, is_enveloped } = self;
        let is_enveloped = *is_enveloped;
        let is_awaited = is_enveloped || effects.wants_answer;
        let kind = if is_enveloped { SpanKind::Message } else { SpanKind::Request };
        let Run { calls, bytes, decoded, now } = run;
        let decoded = decoded.list();
        each_call(table, calls, bytes, failures, |table, place, call| {
            let at_hand = call.decoded.and_then(|place| decoded.get_mut(place.get() as usize - 1));
            let incoming = match at_hand.filter(|incoming| incoming.is_there()) {
                Some(incoming) => incoming,
                None => {
                    let payload = call.payload.of(bytes);
                    let payload = if is_enveloped { open(payload, effects)? } else { payload };
                    own.decode(payload)
                        .map_err(|error| given_up(error, kind, M::NAME, links, call, bytes, now, effects))?;
                    &mut *own
                }
            };
            let handle = |state: &mut F, ctx: &mut Context<'_, F>| match state.handle(incoming, ctx).into_outcome() {
                Outcome::Answer(answer) => {
                    if is_awaited {
                        ctx.give(&answer);
                    }
                    Ok(())
                }
                Outcome::Deferred => {
                    ctx.defer();
                    Ok(())
                }
                Outcome::Rejected(rejection) => Err(rejected(&rejection)),
                Outcome::Fault(fault) => Err(Failure::Fault(fault.to_string())),
            };
            let made = invoke(table, place, links, call, bytes, now, effects, <F as Handles<M>>::ACCESS, handle);
            if is_awaited {
                told(kind, M::NAME, links, call, bytes, now, made.as_ref().err(), effects);
            }
            made
        });
    }
}

struct OnTimer<T> {
    incoming: Incoming<T>,
    is_enveloped: bool,
}

impl<F: HandlesTimer<T>, T: Message> Loop<F> for OnTimer<T> {
    fn check(&self, payload: &[u8]) -> Result<(), DecodeError> {
        T::decode(payload).map(drop)
    }

    fn run(
        &mut self,
        table: &mut Table<F>,
        links: &Links,
        run: Run<'_>,
        effects: &mut Effects,
        failures: &mut Vec<(usize, Failure)>,
    ) {
        let Self { incoming, is_enveloped } = self;
        let is_enveloped = *is_enveloped;
        let Run { calls, bytes, now, .. } = run;
        each_call(table, calls, bytes, failures, |table, place, call| {
            let payload = call.payload.of(bytes);
            let payload = if is_enveloped { open(payload, effects)? } else { payload };
            let kind = SpanKind::Timer;
            incoming
                .decode(payload)
                .map_err(|error| given_up(error, kind, T::NAME, links, call, bytes, now, effects))?;
            let fire = |state: &mut F, ctx: &mut Context<'_, F>| {
                state.fire(incoming, ctx).map_err(|fault| Failure::Fault(fault.to_string()))
            };
            let made = invoke(table, place, links, call, bytes, now, effects, Access::Write, fire);
            if is_enveloped {
                told(kind, T::NAME, links, call, bytes, now, made.as_ref().err(), effects);
            }
            made
        });
    }
}

struct OnReply<R>(PhantomData<fn() -> R>);

impl<F: HandlesReply<R>, R: AnyReply> Loop<F> for OnReply<R> {
    fn check(&self, payload: &[u8]) -> Result<(), DecodeError> {
        let mut reader = Reader::new(payload);
        envelope::read(&mut reader).map_err(|error| DecodeError::new(error.to_string()))?;
        R::read(&payload[reader.at()..]).map(drop)
    }

    fn run(
        &mut self,
        table: &mut Table<F>,
        links: &Links,
        run: Run<'_>,
        effects: &mut Effects,
        failures: &mut Vec<(usize, Failure)>,
    ) {
        let Run { calls, bytes, now, .. } = run;
        each_call(table, calls, bytes, failures, |table, place, call| {
            let (kind, name) = (SpanKind::Reply, R::ASKED.reply_name());
            let reply = R::read(open(call.payload.of(bytes), effects)?)
                .map_err(|error| given_up(error, kind, &name, links, call, bytes, now, effects))?;
            let handle = |state: &mut F, ctx: &mut Context<'_, F>| {
                state.on_reply(reply, ctx).map_err(|fault| Failure::Fault(fault.to_string()))
            };
            let made = invoke(table, place, links, call, bytes, now, effects, Access::Write, handle);
            told(kind, &name, links, call, bytes, now, made.as_ref().err(), effects);
            made
        });
    }
}

/// Begins a call whose payload is an envelope; returns what stands in it.
fn open<'a>(payload: &'a [u8], effects: &mut Effects) -> Result<&'a [u8], Failure> {
    let mut reader = Reader::new(payload);
    let (asker, trace) = envelope::read(&mut reader).map_err(|error| Failure::Unreadable(error.to_string()))?;
    effects.open(asker, trace);
    Ok(&payload[reader.at()..])
}

/// Ends a call whose message cannot be read.
#[cold]
#[allow(clippy::too_many_arguments, reason = "the parts of a call; few calls come here")]
fn given_up(
    error: DecodeError,
    kind: SpanKind,
    name: &str,
    links: &Links,
    call: &Call,
    bytes: &[u8],
    now: ProcessingTime,
    effects: &mut Effects,
) -> Failure {
    let failure = unreadable(error);
    told(kind, name, links, call, bytes, now, Some(&failure), effects);
    failure
}

/// Notes what a call did in its trace, and ends it if it came in an envelope; who has asked for it is told of a
/// failure by the shard.
#[allow(clippy::too_many_arguments, reason = "the parts of a call; few calls come here")]
fn told(
    kind: SpanKind,
    name: &str,
    links: &Links,
    call: &Call,
    bytes: &[u8],
    now: ProcessingTime,
    failure: Option<&Failure>,
    effects: &mut Effects,
) {
    if let Some(trace) = effects.trace {
        effects.spans.push(SpanRecord {
            trace,
            kind,
            function: links.name.to_owned(),
            name: name.to_owned(),
            key: call.key.of(bytes).to_vec(),
            event_time: call.time.0,
            now: now.0,
            error: failure.map(Failure::to_string),
        });
    }
    // A request is ended by the shard.
    if kind != SpanKind::Request {
        effects.close();
    }
}

/// How many instances are looked up before their calls are made; see [`Table::find_all`].
const LOOKUPS: usize = 32;

/// Finds the instance of each call and makes the call, unless its key is parked.
#[inline]
fn each_call<F: Function>(
    table: &mut Table<F>,
    calls: &[Call],
    bytes: &[u8],
    failures: &mut Vec<(usize, Failure)>,
    mut call_one: impl FnMut(&mut Table<F>, u32, &Call) -> Result<(), Failure>,
) {
    let mut found = [None; LOOKUPS];
    for (place_in_run, call) in calls.iter().enumerate() {
        if place_in_run % LOOKUPS == 0 {
            table.find_all(&calls[place_in_run..], bytes, &mut found);
        }
        // A key that was missing may be there by now. Instances never move.
        let place = found[place_in_run % LOOKUPS].map_or_else(|| table.slot(call.hash, call.key.of(bytes)), Ok);
        let made = match place {
            Ok(place) if table.slots[place as usize].parked => Err(Failure::Parked),
            Ok(place) => {
                let made = call_one(table, place, call);
                if let Err(Failure::Fault(_)) = made {
                    table.slots[place as usize].parked = true;
                }
                made
            }
            Err(error) => Err(unreadable(error)),
        };
        if let Err(failure) = made {
            failures.push((place_in_run, failure));
        }
    }
}

#[inline]
#[allow(clippy::too_many_arguments, reason = "the parts of a call; inlined into each loop")]
fn invoke<F: Function>(
    table: &mut Table<F>,
    place: u32,
    links: &Links,
    call: &Call,
    bytes: &[u8],
    now: ProcessingTime,
    effects: &mut Effects,
    access: Access,
    handler: impl FnOnce(&mut F, &mut Context<'_, F>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    table.read_key(call.key.of(bytes)).map_err(unreadable)?;
    let key = table.key.as_ref().expect("the key of this call was just read");
    let mark = effects.mark();
    effects.note_call(call.hash);
    let slot = &mut table.slots[place as usize];
    let mut copy = (access == Access::Write).then(|| slot.state.clone());
    let state = copy.as_mut().unwrap_or(&mut slot.state);
    let outcome =
        catch_unwind(AssertUnwindSafe(|| handler(state, &mut Context::new(key, call.time, now, links, effects))));
    let outcome = match (outcome, effects.take_fault()) {
        (Ok(Ok(())), None) => Ok(()),
        (Ok(Ok(())), Some(fault)) => Err(Failure::Fault(fault.to_string())),
        (Ok(Err(failure)), _) => Err(failure),
        (Err(panic), _) => Err(Failure::Fault(panic_text(panic.as_ref()))),
    };
    match (&outcome, copy) {
        (Err(_), copy) => {
            effects.undo(mark);
            if !effects.rules.holds(Rule::FailedCallsChangeNothing)
                && let Some(copy) = copy
            {
                slot.state = copy;
                table.mark_dirty(place, true);
            }
        }
        (Ok(()), None) => {}
        (Ok(()), Some(_)) if effects.take_cleared() => {
            slot.state = F::default();
            let existed = slot.exists;
            if existed {
                table.mark_dirty(place, false);
            }
        }
        (Ok(()), Some(copy)) => {
            slot.state = copy;
            table.mark_dirty(place, true);
        }
    }
    outcome
}

fn unreadable(error: DecodeError) -> Failure {
    Failure::Unreadable(error.to_string())
}

fn rejected(rejection: &impl Reject) -> Failure {
    let mut value = Vec::new();
    rejection.encode(&mut value);
    Failure::Rejected(Rejection { code: rejection.code().into(), status: rejection.status(), value })
}

/// The text of a panic.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panicked: {}", text.as_deref().unwrap_or("with a value that is no text"))
}

/// The instances and handlers of `F` in one shard.
pub struct Host<F: Function> {
    table: Table<F>,
    handlers: Handlers<F>,
    links: Arc<Links>,
}

impl<F: Function> Host<F> {
    pub(crate) fn new(links: Arc<Links>) -> Self {
        Self { table: Table::new(), handlers: Handlers::new(), links }
    }

    pub(crate) fn links(&self) -> &Links {
        &self.links
    }

    /// The handler of the function's first reply.
    pub(crate) fn first_reply(&self) -> u16 {
        2 * self.handlers.messages.len() as u16
    }

    pub(crate) fn timer_names(&self) -> Vec<&'static str> {
        self.handlers.timers()
    }

    /// Gives a key of this function a state.
    ///
    /// # Panics
    /// If the bytes are no key of this function.
    pub(crate) fn set_state(&mut self, hash: u32, key: &[u8], state: F) {
        let place = self.table.slot(hash, key).expect("a key reads what it wrote");
        self.table.slots[place as usize].state = state;
        self.table.mark_dirty(place, true);
    }

    /// The state of a key that is this function's, the default if it has none.
    ///
    /// # Panics
    /// If the bytes are no key of this function.
    pub(crate) fn state(&mut self, hash: u32, key: &[u8]) -> &F {
        let place = self.table.slot(hash, key).expect("a key reads what it wrote");
        &self.table.slots[place as usize].state
    }
}

impl<F: Function> fmt::Debug for Host<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Host({}, {} keys)", F::NAME, self.table.slots.len())
    }
}

impl<F: Function> ErasedHost for Host<F> {
    fn run(&mut self, run: Run<'_>, effects: &mut Effects, failures: &mut Vec<(usize, Failure)>) {
        let Some(first) = run.calls.first() else { return };
        let handler = usize::from(first.handler);
        let handlers = &mut self.handlers;
        let handler = if first.is_timer { handlers.timer_loop(handler) } else { handlers.message_loop(handler) };
        handler.run(&mut self.table, &self.links, run, effects, failures);
    }

    fn reserve(&mut self, keys: usize) {
        let Table { places, slots, .. } = &mut self.table;
        slots.reserve(keys);
        places.reserve(keys, |place| spread(place.hash));
    }

    fn load(&mut self, hash: u32, key: &[u8], state: &[u8]) -> Result<(), DecodeError> {
        let (bytes, state) = (state.len() as u64, F::decode_state(state)?);
        let place = self.table.slot(hash, key)?;
        self.table.encoded = (self.table.encoded.0 + bytes, self.table.encoded.1 + 1);
        let slot = &mut self.table.slots[place as usize];
        slot.state = state;
        if !std::mem::replace(&mut slot.exists, true) {
            self.table.existing += 1;
        }
        Ok(())
    }

    fn set_parked(&mut self, hash: u32, key: &[u8], parked: bool) -> Result<(), DecodeError> {
        let place = self.table.slot(hash, key)?;
        self.table.slots[place as usize].parked = parked;
        Ok(())
    }

    fn replace(&mut self, hash: u32, key: &[u8], state: &[u8]) -> Result<(), DecodeError> {
        let state = F::decode_state(state)?;
        let place = self.table.slot(hash, key)?;
        self.table.slots[place as usize].state = state;
        self.table.mark_dirty(place, true);
        Ok(())
    }

    fn check(&mut self, handler: u16, is_timer: bool, payload: &[u8]) -> Result<(), DecodeError> {
        let handler = usize::from(handler);
        match is_timer {
            true => self.handlers.timer_loop(handler).check(payload),
            false => self.handlers.message_loop(handler).check(payload),
        }
    }

    fn seal(&mut self, function: NameId, body: &mut Vec<u8>) {
        if self.table.dirty.is_empty() {
            return;
        }
        body.push(Op::States as u8);
        put_varint(body, u64::from(function));
        put_varint(body, self.table.dirty.len() as u64);
        let before = body.len();
        let mut dirty = std::mem::take(&mut self.table.dirty);
        let slots = &mut self.table.slots;
        for chunk in dirty.chunks(LOOKUPS) {
            // As lookups do, these wait for memory side by side.
            chunk.iter().for_each(|place| _ = std::hint::black_box(slots[*place as usize].exists));
            for place in chunk {
                let slot = &mut slots[*place as usize];
                slot.dirty = false;
                put_bytes(body, slot.key.get());
                // An encoded state is never empty, so no bytes mean that the state is gone.
                put_with(body, |body| {
                    if slot.exists {
                        slot.state.encode_state(body);
                    }
                });
            }
        }
        let (bytes, states) = &mut self.table.encoded;
        (*bytes, *states) = (*bytes + (body.len() - before) as u64, *states + dirty.len() as u64);
        dirty.clear();
        self.table.dirty = dirty;
    }

    fn states(&self) -> Vec<(&[u8], Vec<u8>)> {
        let exists = self.table.slots.iter().filter(|slot| slot.exists);
        let mut states: Vec<_> = exists
            .map(|slot| {
                let mut state = Vec::new();
                slot.state.encode_state(&mut state);
                (slot.key.get(), state)
            })
            .collect();
        states.sort_unstable_by_key(|(key, _)| *key);
        states
    }

    fn encoded_state(&self, hash: u32, key: &[u8]) -> Option<Vec<u8>> {
        let slot = &self.table.slots[self.table.find(hash, key)? as usize];
        slot.exists.then(|| {
            let mut state = Vec::new();
            slot.state.encode_state(&mut state);
            state
        })
    }

    fn forget_last(&mut self) {
        let Some(slot) = self.table.slots.last().filter(|slot| !slot.exists && !slot.dirty && !slot.parked) else {
            return;
        };
        let (hash, last) = (spread(murmur2(slot.key.get())), self.table.slots.len() as u32 - 1);
        if let Ok(found) = self.table.places.find_entry(hash, |place| place.slot == last) {
            found.remove();
        }
        self.table.slots.pop();
    }

    fn is_dirty(&self) -> bool {
        !self.table.dirty.is_empty()
    }

    fn keys(&self) -> Keys {
        let Table { existing, encoded: (bytes, states), .. } = &self.table;
        let of_one = size_of::<Slot<F>>() + size_of::<Place>() + (bytes / (*states).max(1)) as usize;
        Keys { count: *existing, bytes: existing * of_one }
    }

    fn look(&self, places: Range<usize>, each: &mut dyn FnMut(&[u8])) -> bool {
        let slots = &self.table.slots;
        let looked = &slots[places.start.min(slots.len())..places.end.min(slots.len())];
        looked.iter().filter(|slot| slot.exists).for_each(|slot| each(slot.key.get()));
        places.end >= slots.len()
    }
}
