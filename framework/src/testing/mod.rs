//! Tests of functions and apps, without log, clock or threads.
//!
//! [`Harness`] holds one function alone; [`TestApp`] runs a whole app in memory, on a clock that
//! the test moves, and can crash it; [`simulate`] runs a whole app in seeded worlds in which
//! everything that can go wrong does. All run the very code that a process runs. `TESTING.md` among
//! the documents says which to take when.
//!
//! ```
//! use std::time::Duration;
//!
//! use serde::{Deserialize, Serialize};
//! use statefn::{prelude::*, testing::Harness};
//!
//! #[derive(Default, Clone, Serialize, Deserialize, State)]
//! struct Account { balance_cents: u64 }
//!
//! #[derive(Serialize, Deserialize, Message)] #[message(name = "hold")]
//! struct Hold { cents: u64 }
//!
//! #[derive(Serialize, Deserialize, Message)] #[message(name = "hold-expired")]
//! struct HoldExpired { cents: u64 }
//!
//! #[function(name = "bank/account")]
//! impl Account {
//!     #[on]
//!     fn hold(&mut self, msg: &Hold, ctx: &mut Context<Self>) {
//!         self.balance_cents -= msg.cents;
//!         ctx.set_timer(ctx.event_time() + Duration::from_secs(60), HoldExpired { cents: msg.cents });
//!     }
//!     #[on_timer]
//!     fn hold_expired(&mut self, timer: &HoldExpired) { self.balance_cents += timer.cents; }
//! }
//!
//! let mut alice = Harness::<Account>::with_state("alice", Account { balance_cents: 100 });
//! alice.deliver(Hold { cents: 80 }).unwrap();
//! assert_eq!(alice.state().balance_cents, 20);
//! alice.advance_to(EventTime(60_000)).unwrap();
//! assert_eq!(alice.state().balance_cents, 100);
//! ```
//!
//! Deliberately absent: tests of whole processes; those start the program.

mod committed;
mod outside;
mod sequential;
mod shrink;
mod simulate;
mod trial;

use std::{
    collections::BTreeMap,
    fmt,
    marker::PhantomData,
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use statefn_core::{
    Address, Egress, EventTime, Failed, Fault, LinkError, Message, Wire,
    activity::{self, Activity, ActivityContext, Attempted, CallOutcome, ErasedActivity, NotDone, TryAgain},
    address::{murmur2, shard_of},
    dead_letter::DeadLetter,
    effect::{Call, Calls},
    function::{Function, HandlerReturn, MessageTo, Target, TargetDeclaration},
    ingress::Batches,
    pipeline::{Action, Pipeline},
    ports::{
        clock::{Clock, ManualClock},
        egress::{Egresses, MemoryEgresses},
        ingress::{MemorySource, ReadLimit, Source, finish_stretch},
        log::{Log, MemoryLog, Record},
        snapshots::{MemorySnapshots, Snapshots},
    },
    shard::{
        Accepted, ActivityCall, Emission, Options, Reply, Request, TakeOver, frame::Position, image::Parked, read_back,
    },
};
pub use statefn_core::{
    context::Resources,
    envelope::{SpanKind, SpanRecord, Trace},
    harness::{Harness, SetTimer},
};

pub use statefn_sim::plan::Fault as WorldFault;

pub use self::{
    committed::{Committed, Requested},
    sequential::Sequential,
    simulate::{Failure, Random, Report, Shrunk, Simulation, simulate},
};
use crate::{App, app::Linked};

/// What a request `M` to a target `T` brings: the handler's answer, its rejection, or a fault.
pub type AnswerTo<M, T> = Result<
    <<M as MessageTo<T>>::Return as HandlerReturn>::Answer,
    Failed<<<M as MessageTo<T>>::Return as HandlerReturn>::Rejection>,
>;

/// How many shards a test app has if it is not told: enough that keys do not all meet.
const SHARDS: u32 = 4;

/// A whole app in memory.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use statefn::{prelude::*, testing::TestApp};
///
/// #[derive(Default, Clone, Serialize, Deserialize, State)]
/// struct Counter { count: u64 }
///
/// #[derive(Clone, Serialize, Deserialize, Message)] #[message(name = "word")]
/// struct Word { text: String }
///
/// #[function(name = "words/counter")]
/// impl Counter {
///     #[on]
///     fn word(&mut self, _: &Word) { self.count += 1; }
/// }
///
/// let app = App::new("words")
///     .function::<Counter>()
///     .ingress(Ingress::<Word>::new("words").to::<Counter>(), |word, out| out.send(Counter::at(&word.text), word));
/// let mut app = TestApp::new(app);
/// app.ingest("words", &Word { text: "hello".into() });
/// app.run();
/// app.crash();
/// app.ingest("words", &Word { text: "hello".into() });
/// app.run();
/// assert_eq!(app.state(Counter::at("hello")).map(|counter| counter.count), Some(2));
/// ```
pub struct TestApp {
    linked: Linked,
    options: Arc<Options>,
    log: MemoryLog,
    snapshots: MemorySnapshots,
    pipeline: Pipeline,
    inputs: Vec<Input>,
    egresses: MemoryEgresses,
    clock: ManualClock,
    nonce: u64,
    replies: BTreeMap<u64, Reply>,
    requests: u64,
    stand_ins: BTreeMap<&'static str, ErasedActivity>,
    /// Calls of activities that have no result yet, and how often each was tried.
    calls: Vec<(ActivityCall, u32)>,
    spans: Vec<SpanRecord>,
}

/// A request that was begun; see [`TestApp::begin`].
pub struct Begun<T: Target, M: MessageTo<T>> {
    id: u64,
    answer: PhantomData<fn() -> (T, M)>,
}

impl<T: Target, M: MessageTo<T>> fmt::Debug for Begun<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Begun({} to {}, request {})", M::NAME, T::NAME, self.id)
    }
}

/// What was put into one ingress, and how far it was read since the last start.
#[derive(Debug, Default)]
struct Input {
    records: Vec<Vec<u8>>,
    is_ended: bool,
    at: Position,
}

impl TestApp {
    /// Starts the app on 4 shards.
    ///
    /// # Panics
    /// If its parts do not fit together; the text says all that is wrong.
    #[must_use]
    pub fn new(app: App) -> Self {
        Self::with_shards(app, SHARDS)
    }

    /// Starts the app on `shards` shards.
    ///
    /// # Panics
    /// As [`Self::new`], or if `shards` is 0.
    #[must_use]
    pub fn with_shards(app: App, shards: u32) -> Self {
        Self::try_with_shards(app, shards).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Starts the app on `shards` shards.
    ///
    /// # Errors
    /// Everything that does not fit together, a line each.
    ///
    /// # Panics
    /// If `shards` is 0.
    pub fn try_with_shards(app: App, shards: u32) -> Result<Self, LinkError> {
        assert!(shards > 0, "an app has at least one shard");
        let linked = app.take_parts().linked?;
        let options = Arc::new(Options::new(shards, &linked.program));
        let pipeline = Pipeline::new(Arc::clone(&linked.program), &options, 0);
        let inputs = linked.ingresses.iter().map(|_| Input::default()).collect();
        let mut app = Self {
            linked,
            log: MemoryLog::new(shards),
            snapshots: MemorySnapshots::default(),
            pipeline,
            inputs,
            egresses: MemoryEgresses::new(shards),
            clock: ManualClock::default(),
            nonce: 0,
            replies: BTreeMap::new(),
            requests: 0,
            stand_ins: BTreeMap::new(),
            calls: Vec::new(),
            spans: Vec::new(),
            options,
        };
        app.start();
        Ok(app)
    }

    /// Puts a record at the end of an ingress; it is read by [`Self::run`].
    ///
    /// # Panics
    /// If there is no such ingress.
    pub fn ingest<M: Message>(&mut self, ingress: &str, record: &M) {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        self.ingest_bytes(ingress, &bytes);
    }

    /// Puts bytes at the end of an ingress as one record, readable or not.
    ///
    /// # Panics
    /// If there is no such ingress.
    pub fn ingest_bytes(&mut self, ingress: &str, record: &[u8]) {
        self.input(ingress).records.push(record.to_vec());
    }

    /// Ends every ingress: all that waits for a time happens with the next [`Self::run`].
    pub fn end_input(&mut self) {
        self.inputs.iter_mut().for_each(|input| input.is_ended = true);
    }

    /// Lets `stand_in` answer the calls of an activity; one that answers [`TryAgain`]
    /// is tried again with the next [`Self::run`].
    pub fn stand_in<A: Activity>(
        &mut self,
        stand_in: impl Fn(A::Call, ActivityContext) -> Result<activity::AnswerOf<A>, NotDone<activity::RejectionOf<A>>>
        + Send
        + Sync
        + 'static,
    ) {
        self.stand_ins.insert(A::NAME, ErasedActivity::stand_in::<A>(stand_in));
    }

    /// Runs until nothing is left to do.
    ///
    /// # Panics
    /// If a function calls an activity that has no [`stand_in`](Self::stand_in).
    pub fn run(&mut self) {
        self.read_inputs();
        loop {
            loop {
                self.pipeline.pump(self.clock.now());
                if !self.execute() {
                    break;
                }
            }
            if !self.attempt_calls() {
                // What is to be tried again is, next time.
                self.calls.iter_mut().for_each(|(_, attempts)| *attempts = 0);
                return;
            }
        }
    }

    /// Makes an attempt of each call that had none in this run; returns whether there was one.
    fn attempt_calls(&mut self) -> bool {
        let mut is_any = false;
        let now = self.clock.now();
        for (call, attempts) in std::mem::take(&mut self.calls) {
            if attempts > 0 {
                self.calls.push((call, attempts));
                continue;
            }
            is_any = true;
            let stand_in = self.stand_ins.get(call.activity.as_str());
            let stand_in = stand_in.unwrap_or_else(|| {
                panic!("the activity `{}` has no stand-in in this test: add `.stand_in::<..>(..)`", call.activity)
            });
            let trace = call.attempt(1).map(|trace| trace.traceparent());
            let ctx = ActivityContext::new(format!("{}/{}", call.shard, call.id), 1, trace)
                .with_resources(self.linked.program.resources.clone());
            let outcome = match stand_in.attempt(&call.call, ctx) {
                Ok(attempted) => poll_once(attempted),
                Err(error) => Ok(error.into()),
            };
            match outcome {
                Ok(outcome) => self.pipeline.result(call.shard, call.id, &outcome, now),
                Err(_) if now >= call.give_up_at => {
                    self.pipeline.result(call.shard, call.id, &CallOutcome::given_up("it takes too long"), now);
                }
                Err(_) => self.calls.push((call, 1)),
            }
        }
        is_any
    }

    /// Calls a handler as one from outside would, and waits for the answer.
    ///
    /// # Errors
    /// What the handler returned, and a fault for a key that is parked.
    ///
    /// # Panics
    /// If the app has not registered the function.
    pub fn request<T: Target, M: MessageTo<T>>(&mut self, to: Address<T>, msg: M) -> AnswerTo<M, T> {
        let begun = self.begin(to, msg, None);
        let answer = self.answer(&begun);
        answer.unwrap_or_else(|| panic!("`{}` answers later: use `begin` and `answer`", T::NAME))
    }

    /// Calls a handler as one from outside would, and runs until nothing is left to do; a request with an
    /// idempotency key that was made before is not done again.
    ///
    /// # Panics
    /// If the app has not registered the function.
    pub fn begin<T: Target, M: MessageTo<T>>(&mut self, to: Address<T>, msg: M, once: Option<&str>) -> Begun<T, M> {
        self.begin_with(to, msg, |request| Request { once: once.map(|once| once.as_bytes().to_vec()), ..request })
    }

    /// The same, with a request that has a place in a trace: [`spans`](Self::spans) tells what became of it.
    ///
    /// # Panics
    /// If the app has not registered the function.
    pub fn begin_traced<T: Target, M: MessageTo<T>>(&mut self, to: Address<T>, msg: M, trace: Trace) -> Begun<T, M> {
        self.begin_with(to, msg, |request| Request { trace: Some(trace), ..request })
    }

    /// What committed calls did in traces so far.
    #[must_use]
    pub fn spans(&self) -> &[SpanRecord] {
        &self.spans
    }

    fn begin_with<T: Target, M: MessageTo<T>>(
        &mut self,
        to: Address<T>,
        msg: M,
        change: impl FnOnce(Request) -> Request,
    ) -> Begun<T, M> {
        let target = TargetDeclaration::of::<T>();
        let route = self.linked.program.route(&target);
        let route = route.unwrap_or_else(|| panic!("`{}` is not registered: add `.function::<..>()`", T::NAME));
        let handler = route.handlers[usize::from(<M as MessageTo<T>>::INDEX)];
        let mut payload = Vec::new();
        msg.encode(&mut payload);
        let (hash, now) = (murmur2(to.key()), self.clock.now());
        let mut calls = Calls::default();
        calls.push(Call::message(route.function, handler, hash, EventTime(now.0)), to.key(), &payload);
        self.requests += 1;
        let request = change(Request::for_answer(self.requests, calls));
        self.pipeline.request(shard_of(hash, self.options.shards), &request, now);
        self.run();
        Begun { id: request.id, answer: PhantomData }
    }

    /// What came of a request, `None` if it is still to come, or if the app was killed before.
    ///
    /// # Errors
    /// What the handler returned, and a fault for a key that is parked.
    pub fn answer<T: Target, M: MessageTo<T>>(&mut self, begun: &Begun<T, M>) -> Option<AnswerTo<M, T>> {
        self.replies.get(&begun.id).cloned().map(read_reply::<M, T>)
    }

    /// Moves the clock on; processing-time timers fire with the next [`Self::run`].
    pub fn advance_clock(&mut self, by: Duration) {
        self.clock.advance(by);
    }

    /// Kills the app and starts it again from what was committed; what was not read or not
    /// committed is read again.
    pub fn crash(&mut self) {
        self.pipeline = Pipeline::new(Arc::clone(&self.linked.program), &self.options, 0);
        self.egresses.crash();
        self.replies.clear();
        self.calls.clear();
        self.start();
    }

    /// The committed state of an instance, `None` if it has none.
    ///
    /// # Panics
    /// If the state cannot be read, which is an error in its encoding.
    #[must_use]
    pub fn state<F: Function>(&mut self, of: Address<F>) -> Option<F> {
        let key = of.key();
        let image = self.image(shard_of(murmur2(key), self.options.shards));
        let mut found = image.states().filter(|(function, known, _)| *function == F::NAME && *known == key);
        found.next().map(|(_, _, state)| {
            F::decode_state(state).unwrap_or_else(|error| panic!("the state of {of:?} cannot be read: {error}"))
        })
    }

    /// What was emitted to an egress, in the order of commits.
    ///
    /// # Panics
    /// If a record cannot be read, which is an error in its encoding.
    #[must_use]
    pub fn emitted<T: Message>(&self, egress: &'static Egress<T>) -> Vec<T> {
        self.records(egress.name()).map(decode).collect()
    }

    /// The dead letters so far.
    ///
    /// # Panics
    /// Never; dead letters are written by the framework.
    #[must_use]
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        let letters = self.records(statefn_core::egress::DEAD_LETTERS);
        letters.map(|letter| serde_json::from_slice(letter).expect("a dead letter is JSON")).collect()
    }

    /// The keys that are parked: function, key, and what waits.
    #[must_use]
    pub fn parked(&mut self) -> Vec<(String, Vec<u8>, Parked)> {
        let mut parked = Vec::new();
        for shard in 0..self.options.shards {
            let image = self.image(shard);
            parked.extend(
                image.parked().map(|(function, key, parked)| (function.to_owned(), key.to_vec(), parked.clone())),
            );
        }
        parked
    }

    fn records(&self, egress: &str) -> impl Iterator<Item = &[u8]> {
        let names = &self.linked.program.names;
        let records = self.egresses.records().iter().filter(move |record| names[record.egress] == egress);
        records.map(|record| record.bytes.as_slice())
    }

    fn input(&mut self, ingress: &str) -> &mut Input {
        let place = self.linked.program.ingresses.iter().position(|spec| spec.name == ingress);
        let place = place.unwrap_or_else(|| panic!("the app has no ingress `{ingress}`"));
        &mut self.inputs[place]
    }

    fn image(&mut self, shard: u32) -> statefn_core::shard::image::Image {
        let recovered =
            statefn_core::shard::Replica::recover(shard, &mut self.log, &mut self.snapshots, u64::MAX, &mut |_, _| {});
        recovered.unwrap_or_else(|error| panic!("a log in memory is whole: {error}")).image
    }

    /// Takes every shard over.
    fn start(&mut self) {
        for shard in 0..self.options.shards {
            let taken = self.egresses.taken(shard);
            let mut emissions = Vec::new();
            let ports = (&mut self.log as &mut dyn Log, &mut self.snapshots as &mut dyn Snapshots);
            let prepared =
                TakeOver::prepare(&self.linked.program, &self.options, shard, ports, taken, &mut |emission| {
                    emissions.push(emission);
                });
            let mut prepared = prepared.unwrap_or_else(|error| panic!("{error}"));
            emissions.iter().for_each(|emission| self.emit(emission));
            self.nonce += 1;
            let claim = prepared.claim(&self.linked.program, self.nonce);
            self.append(shard, &[&claim]);
            match prepared.accept(&mut self.log, &mut |_| {}) {
                Ok(Accepted::Owned(owned)) => self.pipeline.adopt(*owned, taken),
                other => panic!("a log with one writer accepts its claim: {other:?}"),
            }
        }
        for (ingress, input) in self.inputs.iter_mut().enumerate() {
            let positions = self.pipeline.shards().map(|shard| shard.position(ingress, 0));
            input.at = positions.min_by_key(|position| position.offset).unwrap_or_default();
        }
    }

    fn append(&mut self, shard: u32, records: &[&[u8]]) -> u64 {
        let group: Vec<Record<'_>> = records.iter().map(|bytes| Record { partition: shard, bytes }).collect();
        let offsets = self.log.append(&group).unwrap_or_else(|error| panic!("a log in memory takes all: {error}"));
        offsets[0]
    }

    fn read_inputs(&mut self) {
        for ingress in 0..self.inputs.len() {
            let mut batches = Batches::new(self.options.shards);
            let input = &mut self.inputs[ingress];
            let mut source = MemorySource::open(&input.records, input.at).goes_on(!input.is_ended);
            let limit = ReadLimit { records: u64::MAX, bytes: u64::MAX };
            let Ok(stretch) = source.read(&*self.linked.ingresses[ingress], &mut batches, limit);
            input.at = stretch.to;
            finish_stretch(&mut batches, ingress, 0, stretch);
            for (shard, batch) in (0..).zip(&mut batches.shards) {
                self.pipeline.ingress(shard, batch, self.clock.now());
            }
        }
    }

    /// Does what the pipeline asks for; returns whether there was anything.
    fn execute(&mut self) -> bool {
        let mut is_any = false;
        while let Some(action) = self.pipeline.next_action() {
            is_any = true;
            match action {
                Action::Append(append) => {
                    let records: Vec<&[u8]> = append.records.iter().map(|record| record.as_slice()).collect();
                    let offset = self.append(append.shard, &records);
                    self.pipeline.appended(append.shard, offset);
                }
                Action::Emit(emission) => {
                    self.emit(&emission);
                    self.pipeline.egress_taken(emission.shard, emission.epoch);
                }
                Action::Answer(answer) if answer.reply != Reply::Deferred => {
                    _ = self.replies.insert(answer.request, answer.reply);
                }
                Action::Call(call) => self.calls.push((call, 0)),
                Action::Trace(spans) => self.spans.extend(spans),
                Action::Store(snapshot) => {
                    let stored = self.snapshots.put(&snapshot.mark.name, &snapshot.bytes);
                    self.pipeline.snapshot_stored(snapshot.shard, stored.ok().map(|()| snapshot.mark));
                }
                Action::ReadBack { shard, snapshot } => {
                    let read = read_back(&mut self.snapshots, &snapshot);
                    self.pipeline.snapshot_read_back(shard, &snapshot, read.is_ok());
                }
                Action::Forget { shard, snapshots, before } => {
                    // What cannot be forgotten now is only kept longer.
                    snapshots.iter().for_each(|mark| _ = self.snapshots.remove(&mark.name));
                    before.into_iter().for_each(|before| _ = self.log.trim(shard, before));
                }
                // An answer that is deferred comes later. All shards are here, the log is not shared, and
                // nobody can take a shard away.
                Action::Answer(_)
                | Action::Publish(_)
                | Action::Progress(_)
                | Action::TakeOver(_)
                | Action::AskEnd { .. }
                | Action::TrimMailbox { .. } => {}
            }
        }
        is_any
    }

    fn emit(&mut self, emission: &Emission) {
        let records = emission.records.iter();
        let records = records.map(|emitted| (usize::from(emitted.egress), emitted.record.of(&emission.frame)));
        self.egresses.write_epoch(emission.shard, emission.epoch, records);
        let Ok(()) = self.egresses.sync();
    }
}

impl fmt::Debug for TestApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TestApp({}, {:?})", self.linked.program.app, self.pipeline)
    }
}

fn read_reply<M: MessageTo<T>, T: Target>(reply: Reply) -> AnswerTo<M, T> {
    match reply {
        Reply::Answered(answer) => Ok(decode(&answer)),
        Reply::Rejected(rejection) => Err(Failed::Rejected(decode(&rejection.value))),
        Reply::Failed(trouble) => Err(Failed::Fault(Fault::new(trouble))),
        Reply::Taken | Reply::State(_) | Reply::Resumed { .. } | Reply::Deferred => {
            unreachable!("a request for an answer gets one")
        }
    }
}

/// What a stand-in has answered: it does not wait.
fn poll_once(mut attempted: Attempted) -> Result<CallOutcome, TryAgain> {
    match attempted.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => unreachable!("a stand-in is no async code"),
    }
}

/// A test is the place to fail loudly: what cannot be read back has a broken encoding.
fn decode<T: Wire>(bytes: &[u8]) -> T {
    T::decode(bytes).unwrap_or_else(|error| panic!("a value does not survive its own encoding: {error}"))
}
