//! Requests from outside: each is told once, after its commit, and those that are too many at once.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use statefn_core::{
    Context, DecodeError, Encoding, Fault, Message, State, Wire,
    egress::EgressDeclaration,
    function::{Accepts, Access, Function, Handles, Incoming, Target, TargetDeclaration},
    host::Handlers,
    message::{decode_json, encode_json},
    ports::{
        inspect::{self, Inspect, Pausable, Question},
        requests::{Condition, Demand, Requests, Unanswered, conformance},
    },
    program::{FunctionSpec, Program, ProgramSpec},
    shard::{ParkedLimits, Reply, Trouble, Wants},
    state::{self, Field},
};
use statefn_runtime::{
    egress::{Place, SinkSpec},
    engine::{self, End, Intake, Plan, RunError, Status, Stop, Storage},
};

/// Held by a test that wants the handler of [`Add`] with `amount` 0 to wait.
static GATE: Mutex<()> = Mutex::new(());

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Counter {
    sum: u64,
}

impl State for Counter {
    const FIELDS: &'static [Field] = &[];
    const VERSION: u32 = 1;
    fn encode_state(&self, out: &mut Vec<u8>) {
        state::encode(self, 1, out);
    }
    fn decode_state(bytes: &[u8]) -> Result<Self, DecodeError> {
        state::decode(bytes, 1)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Add {
    amount: u64,
}

impl Wire for Add {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_json(self, out);
    }
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode_json(bytes)
    }
}

impl Message for Add {
    const NAME: &'static str = "add";
    const ENCODING: Encoding = Encoding::Json;
}

impl Target for Counter {
    const NAME: &'static str = "test/counter";
    const MESSAGES: &'static [&'static str] = &[Add::NAME];
    type Key = String;
}

impl Function for Counter {
    const SENDS: &'static [TargetDeclaration] = &[];
    fn emits() -> Vec<EgressDeclaration> {
        Vec::new()
    }
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.on::<Add>();
    }
}

impl Accepts<Add> for Counter {
    type Return = Result<u64, Fault>;
    const INDEX: u16 = 0;
}

impl Handles<Add> for Counter {
    const ACCESS: Access = Access::Write;
    const IN_EVENT_TIME_ORDER: bool = false;
    fn handle(&mut self, add: &mut Incoming<Add>, _: &mut Context<'_, Self>) -> Result<u64, Fault> {
        match add.get().amount {
            0 => drop(GATE.lock()),
            666 => return Err(Fault::new("an unlucky number")),
            amount => self.sum += amount,
        }
        Ok(self.sum)
    }
}

fn plan(data: &Path) -> Plan {
    let spec =
        ProgramSpec { app: "test".into(), functions: vec![FunctionSpec::of::<Counter>()], ..ProgramSpec::default() };
    let dead_letters = SinkSpec { name: "dead-letters".into(), encoding: Encoding::Json, place: Place::Counter };
    Plan {
        program: Program::link(spec).expect("the app links"),
        ingresses: Vec::new(),
        inputs: Vec::new(),
        outputs: vec![dead_letters],
        storage: Storage::Directory(data.into()),
        shards: 8,
        threads: 2,
        commit_interval: Duration::ZERO,
        snapshot_tail_bytes: 1 << 20,
        segment_bytes: 1 << 20,
        answers_kept: Duration::from_secs(3600),
        spans: None,
        handler_time_limit: Duration::from_secs(600),
        parked: ParkedLimits::default(),
        egress_backlog_bytes_max: 256 << 20,
    }
}

/// A service that runs on a thread of its own.
struct Service {
    intake: Intake,
    stop: Stop,
    thread: JoinHandle<Result<End, RunError>>,
}

impl Service {
    fn start(data: &Path, pending_max: usize) -> Self {
        let (plan, status, stop) = (plan(data), Arc::new(Status::new()), Stop::default());
        let intake = Intake::with_limits(&plan, &status, pending_max, 1 << 20);
        let (given, stopped) = (intake.clone(), stop.clone());
        let thread = std::thread::spawn(move || engine::run(&plan, Some(&given), &status, &stopped));
        while intake.condition() == Condition::Starting {
            assert!(!thread.is_finished(), "the run ends before it has begun");
            std::thread::sleep(Duration::from_millis(1));
        }
        Self { intake, stop, thread }
    }

    fn demand(&self, demand: Demand) -> Receiver<Result<Reply, Unanswered>> {
        let (teller, told) = channel();
        self.intake.demand(demand, Box::new(move |outcome| teller.send(outcome).expect("the test waits")));
        told
    }

    fn add(&self, key: &str, amount: u64) -> Receiver<Result<Reply, Unanswered>> {
        self.demand(demand(key, Wants::Answer, &format!("{{\"amount\":{amount}}}")))
    }

    fn stop(self) -> Intake {
        self.stop.stop();
        let end = self.thread.join().expect("does not panic").expect("runs");
        assert_eq!(end, End::Stopped);
        self.intake
    }
}

fn demand(key: &str, wants: Wants, payload: &str) -> Demand {
    let patience = Duration::from_secs(60);
    Demand { payload: payload.into(), ..Demand::new(0, wants, key.into(), patience) }
}

fn answered(sum: u64) -> Result<Reply, Unanswered> {
    Ok(Reply::Answered(sum.to_string().into_bytes()))
}

#[test]
fn each_request_is_answered_and_what_was_answered_is_there_after_a_restart() {
    let data = tempfile::tempdir().expect("a directory");
    let service = Service::start(data.path(), 1_000);
    let told: Vec<_> = (1..=100_u64).map(|number| service.add(&format!("key-{}", number % 7), number)).collect();
    let mut sums = [0; 7];
    for (number, told) in (1..=100_u64).zip(told) {
        sums[(number % 7) as usize] += number;
        assert_eq!(told.recv(), Ok(answered(sums[(number % 7) as usize])));
    }
    // A service has no input that could end: it runs until it is stopped.
    let late = service.add("key-0", 1);
    let intake = service.stop();
    assert_eq!(late.recv(), Ok(answered(sums[0] + 1)));
    assert_eq!(intake.condition(), Condition::Stopping);

    let service = Service::start(data.path(), 1_000);
    assert_eq!(service.add("key-0", 1).recv(), Ok(answered(sums[0] + 2)));
    let Ok(Ok(Reply::State(Some(state)))) = service.demand(demand("key-3", Wants::State, "")).recv() else {
        panic!("the key has a state")
    };
    assert_eq!(Counter::decode_state(&state).expect("reads").sum, sums[3]);
    assert_eq!(service.demand(demand("nobody", Wants::State, "")).recv(), Ok(Ok(Reply::State(None))));
    service.stop();
}

#[test]
fn the_intake_conforms() {
    let data = tempfile::tempdir().expect("a directory");
    let service = Service::start(data.path(), 50);
    conformance(&demand("a", Wants::Answer, "{\"amount\":1}"), |demands| {
        let told: Vec<_> = demands.into_iter().map(|demand| service.demand(demand)).collect();
        told.into_iter()
            .map(|told| told.iter().collect::<Vec<_>>())
            .map(|told| {
                assert_eq!(told.len(), 1, "each demand is told once");
                told[0].clone()
            })
            .collect()
    });
    service.stop();
}

#[test]
fn what_cannot_be_handled_says_why() {
    let data = tempfile::tempdir().expect("a directory");
    let service = Service::start(data.path(), 1_000);
    let told = service.demand(demand("a", Wants::Answer, "{")).recv();
    assert!(matches!(told, Ok(Ok(Reply::Failed(Trouble::Unreadable(_))))), "{told:?}");
    let told = service.add("a", 666).recv();
    assert_eq!(told, Ok(Ok(Reply::Failed(Trouble::Faulted("an unlucky number".into())))));
    assert_eq!(service.add("a", 1).recv(), Ok(Ok(Reply::Failed(Trouble::Parked))));
    assert_eq!(service.demand(demand("a", Wants::Commit, "{\"amount\":1}")).recv(), Ok(Ok(Reply::Taken)));
    let expired = service.demand(Demand { patience: Duration::ZERO, ..demand("b", Wants::Answer, "{\"amount\":1}") });
    assert_eq!(expired.recv(), Ok(Err(Unanswered::Expired)));
    assert_eq!(service.add("b", 2).recv(), Ok(answered(2)));
    service.stop();
}

#[test]
fn too_many_at_once_are_refused_at_once() {
    const PENDING_MAX: usize = 4;
    let data = tempfile::tempdir().expect("a directory");
    let service = Service::start(data.path(), PENDING_MAX);
    let gate = GATE.lock().expect("nobody panicked");
    let pending: Vec<_> = (0..PENDING_MAX).map(|_| service.add("a", 0)).collect();
    for _ in 0..1_000 {
        assert_eq!(service.add("a", 1).recv(), Ok(Err(Unanswered::Overloaded)));
    }
    let large = demand("b", Wants::Answer, &" ".repeat(2 << 20));
    assert_eq!(service.demand(large).recv(), Ok(Err(Unanswered::Overloaded)));
    drop(gate);
    for told in pending {
        assert_eq!(told.recv(), Ok(answered(0)));
    }
    assert_eq!(service.add("a", 1).recv(), Ok(answered(1)));
    let intake = service.stop();
    let (teller, told) = channel();
    intake.demand(demand("a", Wants::Answer, "{}"), Box::new(move |outcome| teller.send(outcome).expect("waits")));
    assert_eq!(told.recv(), Ok(Err(Unanswered::NotRunning)));
}

#[test]
fn the_intake_conforms_to_inspection_too() {
    let data = tempfile::tempdir().expect("a directory");
    let service = Service::start(data.path(), 1_000);
    let told: Vec<_> = (0..100).map(|number| service.add(&format!("key-{number}"), 1)).collect();
    told.into_iter().for_each(|told| assert_eq!(told.recv(), Ok(answered(1))));
    inspect::conformance(&service.intake, |shard, question| {
        let (teller, told) = channel();
        service.intake.ask(shard, question, Box::new(move |found| teller.send(found).expect("the test waits")));
        told.recv().expect("a question is answered")
    });
    let intake = service.stop();
    let (teller, told) = channel();
    intake.ask(0, Question::Status, Box::new(move |found| teller.send(found).expect("the test waits")));
    assert_eq!(told.recv(), Ok(Err(Unanswered::NotRunning)));
}

#[test]
fn a_function_that_is_paused_refuses_new_work_until_it_goes_on() {
    let data = tempfile::tempdir().expect("a directory");
    let service = Service::start(data.path(), 1_000);
    assert_eq!(service.add("a", 1).recv(), Ok(answered(1)));
    service.intake.set_pause(Pausable::Function(0), true).expect("is stored");
    assert_eq!(service.add("a", 1).recv(), Ok(Err(Unanswered::Paused)));
    let state = service.demand(demand("a", Wants::State, "")).recv();
    assert!(matches!(state, Ok(Ok(Reply::State(Some(_))))), "states can be read: {state:?}");
    service.stop();
    let service = Service::start(data.path(), 1_000);
    assert_eq!(service.add("a", 1).recv(), Ok(Err(Unanswered::Paused)), "it is paused after a restart");
    service.intake.set_pause(Pausable::Function(0), false).expect("is stored");
    assert_eq!(service.add("a", 1).recv(), Ok(answered(2)));
    service.stop();
}
