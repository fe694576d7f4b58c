//! A small app and one worker of it, for the tests of this crate.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    Address, Context, DecodeError, Encoding, EventTime, Fault, Message, ProcessingTime, State, Wire,
    address::{ShardId, murmur2, shard_of},
    effect::{Call, Calls},
    egress::EgressDeclaration,
    envelope::SpanRecord,
    function::{Accepts, Access, Function, Handles, HandlesTimer, Incoming, SendsTo, Target, TargetDeclaration},
    host::Handlers,
    ingress::{ErasedIngress, Ingress, Router, bind},
    message::{decode_json, encode_json},
    pipeline::{Action, Pipeline},
    ports::{
        log::{Log, MemoryLog, Offset, Record},
        snapshots::{MemorySnapshots, Snapshots},
        store::Store,
    },
    program::{FunctionSpec, Program, ProgramSpec},
    shard::{Accepted, Emission, Options, Reply, Request, TakeOver, Wants, outbox::Mail, read_back, stored},
    state::Field,
};

/// Shards of the app.
pub(crate) const SHARDS: u32 = 2;

macro_rules! json {
    ($type:ident, $name:literal) => {
        impl Wire for $type {
            fn encode(&self, out: &mut Vec<u8>) {
                encode_json(self, out);
            }
            fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
                decode_json(bytes)
            }
        }
        impl Message for $type {
            const NAME: &'static str = $name;
            const ENCODING: Encoding = Encoding::Json;
        }
    };
}

/// Adds to a counter.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Add(pub(crate) u64);
json!(Add, "add");

/// Sends an [`Add`] of 1 to another counter.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Pass(pub(crate) String);
json!(Pass, "pass");

/// Reads a counter.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Get;
json!(Get, "get");

/// Lets a counter add 100 after so many milliseconds of event time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Later(pub(crate) u64);
json!(Later, "later");

/// The one function.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Counter(u64);

impl State for Counter {
    const FIELDS: &'static [Field] = &[];
    const VERSION: u32 = 1;
    fn encode_state(&self, out: &mut Vec<u8>) {
        crate::state::encode(self, 1, out);
    }
    fn decode_state(bytes: &[u8]) -> Result<Self, DecodeError> {
        crate::state::decode(bytes, 1)
    }
}

impl Target for Counter {
    const NAME: &'static str = "test/counter";
    const MESSAGES: &'static [&'static str] = &["add", "pass", "get", "later"];
    type Key = String;
}

impl Function for Counter {
    const SENDS: &'static [TargetDeclaration] = &[TargetDeclaration::of::<Self>()];
    fn emits() -> Vec<EgressDeclaration> {
        Vec::new()
    }
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.on::<Add>();
        handlers.on::<Pass>();
        handlers.on::<Get>();
        handlers.on::<Later>();
        handlers.on_timer::<Later>();
    }
}

impl SendsTo<Self> for Counter {
    const SLOT: u16 = 0;
}

macro_rules! handles {
    ($index:literal $message:ident -> $return:ty, $access:ident, |$state:ident, $msg:ident, $ctx:ident| $body:expr) => {
        impl Accepts<$message> for Counter {
            type Return = $return;
            const INDEX: u16 = $index;
        }
        impl Handles<$message> for Counter {
            const ACCESS: Access = Access::$access;
            const IN_EVENT_TIME_ORDER: bool = false;
            fn handle(&mut self, msg: &mut Incoming<$message>, $ctx: &mut Context<'_, Self>) -> $return {
                let ($state, $msg) = (self, msg.get());
                let _ = &$ctx;
                $body
            }
        }
    };
}
handles!(0 Add -> u64, Write, |counter, add, ctx| {
    counter.0 += add.0;
    counter.0
});
handles!(1 Pass -> (), Write, |counter, pass, ctx| {
    counter.0 += 1;
    ctx.send(Address::<Self>::new(pass.0.clone()), Add(1));
});
handles!(2 Get -> u64, Read, |counter, _get, ctx| counter.0);

handles!(3 Later -> (), Write, |_counter, later, ctx| {
    ctx.set_timer(ctx.event_time() + Duration::from_millis(later.0), Later(0));
});

impl HandlesTimer<Later> for Counter {
    const INDEX: u16 = 0;
    fn fire(&mut self, _: &mut Incoming<Later>, _: &mut Context<'_, Self>) -> Result<(), Fault> {
        self.0 += 100;
        Ok(())
    }
}

/// The linked app.
pub(crate) fn program() -> Arc<Program> {
    let spec = ProgramSpec { app: "test".into(), functions: vec![FunctionSpec::of::<Counter>()], ..Default::default() };
    Program::link(spec).expect("links")
}

/// The linked app with a way in, whose records are for the counter that their key names, and that way.
pub(crate) fn program_with_input(ingress: Ingress<Add>) -> (Arc<Program>, Arc<dyn ErasedIngress>) {
    let ingress = ingress.to::<Counter>();
    let (functions, ingresses) = (vec![FunctionSpec::of::<Counter>()], vec![ingress.spec()]);
    let spec = ProgramSpec { app: "test".into(), functions, ingresses, ..Default::default() };
    let program = Program::link(spec).expect("links");
    let bind = bind(ingress, |add: Add, out: &mut Router<'_, (Counter, ())>| {
        let key = out.record_key().map_or("none".into(), |key| String::from_utf8_lossy(key).into_owned());
        out.forward_unchanged(Address::<Counter>::new(key), add);
    });
    let bound = bind(&program);
    (program, bound)
}

/// A key of a shard.
pub(crate) fn key_of(shard: ShardId) -> String {
    let mut keys = (0..).map(|number: u32| format!("key-{number}"));
    keys.find(|key| shard_of(murmur2(key.as_bytes()), SHARDS) == shard).expect("some key is there")
}

/// One worker: a pipeline, and the journals that it appends to.
pub(crate) struct Worker {
    pub(crate) program: Arc<Program>,
    pub(crate) options: Arc<Options>,
    pub(crate) pipeline: Pipeline,
    pub(crate) log: MemoryLog,
    pub(crate) snapshots: MemorySnapshots,
    pub(crate) now: ProcessingTime,
    requests: u64,
    nonce: u64,
}

impl Worker {
    pub(crate) fn new(is_log_shared: bool) -> Self {
        let program = program();
        let options = Options { is_log_shared, ..Options::new(SHARDS, &program) };
        Self::with(&program, options)
    }

    pub(crate) fn with(program: &Arc<Program>, options: Options) -> Self {
        Self {
            program: Arc::clone(program),
            pipeline: Pipeline::new(Arc::clone(program), &options, 0),
            options: Arc::new(options),
            log: MemoryLog::new(2 * SHARDS + 1),
            snapshots: MemorySnapshots::default(),
            now: ProcessingTime(1_000),
            requests: 0,
            nonce: 0,
        }
    }

    /// Another worker with the same log and snapshots, as they stand now.
    pub(crate) fn fork(&self) -> Self {
        Self {
            log: self.log.clone(),
            snapshots: self.snapshots.clone(),
            nonce: self.nonce + 1_000,
            now: self.now,
            ..Self::with(&self.program, Options::clone(&self.options))
        }
    }

    /// Takes a shard over.
    pub(crate) fn own(&mut self, shard: ShardId) {
        self.take_over(shard, None);
    }

    pub(crate) fn own_with_store(&mut self, shard: ShardId, store: &mut dyn Store) {
        self.take_over(shard, Some(store));
    }

    fn take_over(&mut self, shard: ShardId, store: Option<&mut dyn Store>) {
        let (program, options, log) = (&self.program, &self.options, &mut self.log);
        let mut ignore = |_: Emission| {};
        let prepared = match store {
            None => TakeOver::prepare(program, options, shard, (log, &mut self.snapshots), u64::MAX, &mut ignore),
            Some(store) => {
                let ports: (&mut dyn Log, _, _) = (log, &mut self.snapshots as _, store);
                TakeOver::prepare_with_store(program, options, shard, ports, u64::MAX, &mut ignore)
            }
        };
        let mut prepared = prepared.expect("is whole");
        self.nonce += 1;
        let claim = prepared.claim(&self.program, self.nonce);
        self.log.append(&[Record { partition: shard, bytes: &claim }]).expect("memory");
        let accepted = prepared.accept(&mut self.log, &mut |_| {}).expect("is whole");
        let Accepted::Owned(shard) = accepted else { panic!("nobody else is there") };
        self.pipeline.adopt(*shard, u64::MAX);
    }

    /// Calls a handler of a key; returns the number of the request.
    pub(crate) fn call<M: Message>(&mut self, key: &str, msg: &M) -> u64
    where
        Counter: Handles<M>,
    {
        self.call_once(key, msg, None)
    }

    /// The same with an idempotency key, at the time that it is.
    pub(crate) fn call_once<M: Message>(&mut self, key: &str, msg: &M, once: Option<&[u8]>) -> u64
    where
        Counter: Handles<M>,
    {
        self.request(key, msg, |request| Request { once: once.map(<[u8]>::to_vec), ..request })
    }

    /// The same with a request that `change` makes of one for an answer.
    pub(crate) fn request<M: Message>(&mut self, key: &str, msg: &M, change: impl FnOnce(Request) -> Request) -> u64
    where
        Counter: Handles<M>,
    {
        let hash = murmur2(key.as_bytes());
        let mut payload = Vec::new();
        msg.encode(&mut payload);
        let mut calls = Calls::default();
        let handler = <Counter as Accepts<M>>::INDEX;
        calls.push(Call::message(0, handler, hash, EventTime::MIN), key.as_bytes(), &payload);
        self.requests += 1;
        let id = self.requests;
        self.pipeline.request(shard_of(hash, SHARDS), &change(Request::for_answer(id, calls)), self.now);
        id
    }

    /// Asks for something about a key, an edit by its bytes; returns the number of the request.
    pub(crate) fn ask(&mut self, key: &str, wants: Wants, payload: &[u8]) -> u64 {
        let hash = murmur2(key.as_bytes());
        let mut calls = Calls::default();
        calls.push(Call::message(0, 0, hash, EventTime::MIN), key.as_bytes(), payload);
        self.requests += 1;
        let id = self.requests;
        let request = Request { wants, ..Request::for_answer(id, calls) };
        self.pipeline.request(shard_of(hash, SHARDS), &request, self.now);
        id
    }

    /// Pumps once; returns what is asked for.
    pub(crate) fn pump(&mut self) -> Vec<Action> {
        self.pipeline.pump(self.now);
        std::iter::from_fn(|| self.pipeline.next_action()).collect()
    }

    /// Puts the records of the append among these actions into the log; returns where they begin.
    pub(crate) fn append(&mut self, actions: &[Action]) -> (ShardId, Offset) {
        let append = actions.iter().find_map(|action| match action {
            Action::Append(append) => Some(append),
            _ => None,
        });
        let append = append.expect("an append is asked for");
        let offset = self.log.end(append.shard);
        for record in &append.records {
            self.log.append(&[Record { partition: append.shard, bytes: record }]).expect("memory");
        }
        (append.shard, offset)
    }

    /// Pumps, appends and confirms until nothing is left; returns what else was asked for.
    pub(crate) fn run(&mut self) -> Vec<Action> {
        let mut others = Vec::new();
        loop {
            let actions = self.pump();
            if actions.is_empty() {
                return others;
            }
            for action in actions {
                match action {
                    Action::Append(_) => {
                        let (shard, offset) = self.append(&[action]);
                        self.pipeline.appended(shard, offset);
                    }
                    other => others.push(other),
                }
            }
        }
    }

    /// Keeps snapshots and forgets journals, as these actions ask for.
    pub(crate) fn keep(&mut self, actions: Vec<Action>) {
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Store(snapshot) => {
                    self.snapshots.put(&snapshot.mark.name, &snapshot.bytes).expect("memory");
                    self.pipeline.snapshot_stored(snapshot.shard, Some(snapshot.mark));
                }
                Action::ReadBack { shard, snapshot } => {
                    let is_whole = read_back(&mut self.snapshots, &snapshot).is_ok();
                    self.pipeline.snapshot_read_back(shard, &snapshot, is_whole);
                    actions.extend(self.run());
                }
                Action::Forget { shard, before: Some(before), .. } => self.log.trim(shard, before).expect("memory"),
                _ => {}
            }
        }
    }

    /// Whether the journal of a shard no longer begins at its first record.
    pub(crate) fn has_trimmed(&self, shard: ShardId) -> bool {
        self.log.start(shard) > 0
    }

    /// What the store of a shard is to apply, by these actions.
    pub(crate) fn apply(&self, actions: &[Action], store: &mut dyn Store) {
        for action in actions {
            if let Action::Emit(emission) = action {
                let changes = stored::changes(&self.program, &emission.frame).expect("a frame");
                store.apply(emission.epoch, &changes).expect("it follows");
            }
        }
    }
}

/// The requests that these actions answer.
pub(crate) fn answered(actions: &[Action]) -> Vec<u64> {
    let answers = actions.iter().filter_map(|action| match action {
        Action::Answer(answer) => Some(answer.request),
        _ => None,
    });
    answers.collect()
}

/// What these actions reply to a request.
pub(crate) fn reply_to(actions: &[Action], request: u64) -> Option<Reply> {
    actions.iter().find_map(|action| match action {
        Action::Answer(answer) if answer.request == request => Some(answer.reply.clone()),
        _ => None,
    })
}

/// What these actions tell of traces.
pub(crate) fn told(actions: &[Action]) -> Vec<SpanRecord> {
    let spans = actions.iter().filter_map(|action| match action {
        Action::Trace(spans) => Some(spans.clone()),
        _ => None,
    });
    spans.flatten().collect()
}

/// The mail that these actions publish.
pub(crate) fn published(actions: &[Action]) -> Vec<Mail> {
    let mails = actions.iter().filter_map(|action| match action {
        Action::Publish(mail) => Some(mail.clone()),
        _ => None,
    });
    mails.collect()
}
