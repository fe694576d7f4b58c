//! Demands and questions for shards of another worker, over a real socket.

use std::{
    io::Read,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use statefn::prelude::*;
use statefn_core::{
    Encoding,
    address::ShardId,
    ports::{
        inspect::{self, Finding, Question},
        peers::{Peer, Peers, Place, Worker},
        requests::{Condition, Demand, Requests, Unanswered, conformance},
    },
    program::{FunctionSpec, Program, ProgramSpec},
    shard::{ParkedLimits, Reply, Wants},
};
use statefn_http::{
    Meter, Options, Others, Server,
    admin::Subject,
    peers::{Forwarder, Internal},
};
use statefn_runtime::{
    egress::{Place as Output, SinkSpec},
    engine::{self, End, Intake, Plan, RunError, Status, Stop, Storage},
};

const TOKEN: &str = "open sesame";

#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "add")]
struct Add(u64);

#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "get")]
struct Get;

#[derive(Debug, Default, Clone, Serialize, Deserialize, State)]
struct Counter {
    sum: u64,
}

#[function(name = "test/counter")]
impl Counter {
    #[on]
    fn add(&mut self, Add(amount): &Add, _: &mut Context<Self>) -> u64 {
        self.sum += amount;
        self.sum
    }

    #[on]
    fn get(&self, _: &Get, _: &Context<Self>) -> u64 {
        self.sum
    }
}

fn plan() -> Plan {
    let spec =
        ProgramSpec { app: "test".into(), functions: vec![FunctionSpec::of::<Counter>()], ..ProgramSpec::default() };
    let dead_letters = SinkSpec { name: "dead-letters".into(), encoding: Encoding::Json, place: Output::Counter };
    Plan {
        program: Program::link(spec).expect("the app links"),
        ingresses: Vec::new(),
        inputs: Vec::new(),
        outputs: vec![dead_letters],
        storage: Storage::Memory,
        shards: 8,
        threads: 1,
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

/// All shards are in one place at a time.
struct Everywhere(Mutex<Place>);

impl Peers for Everywhere {
    fn place(&self, _: ShardId) -> Place {
        self.0.lock().expect("no test panics with it").clone()
    }

    fn workers(&self) -> Vec<Worker> {
        Vec::new()
    }
}

/// An app with all its shards, the server that does for others what it can, and a worker beside it.
struct Fleet {
    program: Arc<Program>,
    stop: Stop,
    thread: JoinHandle<Result<End, RunError>>,
    server: Server,
    peers: Arc<Everywhere>,
    forwarder: Forwarder,
}

impl Fleet {
    fn start() -> Self {
        let (plan, status, stop) = (plan(), Arc::new(Status::new()), Stop::default());
        let (program, intake) = (Arc::clone(&plan.program), Intake::new(&plan, &status));
        let (given, stopped) = (intake.clone(), stop.clone());
        let thread = std::thread::spawn(move || engine::run(&plan, Some(&given), &status, &stopped));
        while intake.condition() == Condition::Starting {
            assert!(!thread.is_finished(), "the run ends before it has begun");
            std::thread::sleep(Duration::from_millis(1));
        }
        let (requests, inspect) = (Arc::new(intake.clone()), Arc::new(intake.clone()));
        let internal = Internal {
            token: TOKEN.into(),
            program: Arc::clone(&program),
            requests: Arc::clone(&requests) as _,
            inspect: Arc::clone(&inspect) as _,
        };
        let subject = Subject {
            program: Arc::clone(&program),
            requests,
            inspect,
            meter: Arc::new(Meter::new()),
            others: Others { peers: None, internal: Some(Arc::new(internal)) },
        };
        let listen = "127.0.0.1:0".parse().expect("an address");
        let server = Server::start(listen, Options::default(), subject).expect("a port is free");
        let peers = Arc::new(Everywhere(Mutex::new(Place::Nowhere)));
        let forwarder = Forwarder::new(&program, intake, Arc::clone(&peers) as _).expect("threads can be started");
        let fleet = Self { program, stop, thread, server, peers, forwarder };
        fleet.is_at(fleet.place(fleet.server.address(), TOKEN));
        fleet
    }

    fn place(&self, address: SocketAddr, token: &str) -> Place {
        let url = Some(format!("http://{address}"));
        let peer = Peer { worker: "other".into(), url, token: token.into(), program: self.program.fingerprint() };
        Place::At(Arc::new(peer))
    }

    fn is_at(&self, place: Place) {
        *self.peers.0.lock().expect("no test panics with it") = place;
    }

    fn demand(&self, demand: Demand) -> Receiver<Result<Reply, Unanswered>> {
        let (teller, told) = channel();
        self.forwarder.demand(demand, Box::new(move |outcome| teller.send(outcome).expect("the test waits")));
        told
    }

    fn told(&self, demand: Demand) -> Result<Reply, Unanswered> {
        self.demand(demand).recv().expect("each demand is told")
    }

    fn ask(&self, shard: ShardId, question: Question) -> Result<Finding, Unanswered> {
        let (teller, told) = channel();
        let tell = move |found| teller.send(found).expect("the test waits");
        inspect::Inspect::ask(&self.forwarder, shard, question, Box::new(tell));
        told.recv().expect("each question is told")
    }

    fn stop(self) {
        self.stop.stop();
        assert_eq!(self.thread.join().expect("does not panic").expect("runs"), End::Stopped);
        self.server.stop();
    }
}

fn add(key: &str, once: Option<&str>) -> Demand {
    let demand = Demand::new(0, Wants::Answer, key.into(), Duration::from_secs(60));
    Demand { payload: b"7".to_vec(), once: once.map(|once| once.as_bytes().to_vec()), ..demand }
}

fn get(key: &str) -> Demand {
    let demand = Demand::new(0, Wants::Answer, key.into(), Duration::from_secs(60));
    Demand { handler: 1, payload: b"null".to_vec(), ..demand }
}

fn answered(sum: u64) -> Result<Reply, Unanswered> {
    Ok(Reply::Answered(sum.to_string().into_bytes()))
}

/// A worker that reads a request, and dies.
fn dying() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let deaths = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&deaths);
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.expect("a connection");
            assert!(socket.read(&mut [0; 1024]).expect("a request comes") > 0);
            counted.fetch_add(1, Ordering::AcqRel);
        }
    });
    (address, deaths)
}

#[test]
fn what_is_forwarded_conforms() {
    let fleet = Fleet::start();
    conformance(&add("a", None), |demands| {
        let told: Vec<_> = demands.into_iter().map(|demand| fleet.demand(demand)).collect();
        told.into_iter()
            .map(|told| {
                let told: Vec<_> = told.iter().collect();
                assert_eq!(told.len(), 1, "each demand is told once");
                told[0].clone()
            })
            .collect()
    });
    inspect::conformance(&fleet.forwarder, |shard, question| fleet.ask(shard, question));
    fleet.stop();
}

#[test]
fn a_request_waits_a_moment_for_an_owner() {
    let fleet = Fleet::start();
    let place = fleet.peers.place(0);
    fleet.is_at(Place::Nowhere);
    assert_eq!(fleet.told(add("a", None)), Err(Unanswered::Elsewhere));
    assert_eq!(fleet.ask(0, Question::Status), Err(Unanswered::Elsewhere));
    let told = fleet.demand(add("a", None));
    fleet.is_at(place);
    assert_eq!(told.recv(), Ok(answered(7)), "what was refused before was not done");
    fleet.stop();
}

#[test]
fn a_request_whose_worker_dies_is_made_again_only_where_that_does_no_harm() {
    let fleet = Fleet::start();
    let (address, deaths) = dying();
    let broken = fleet.place(address, TOKEN);
    fleet.is_at(broken);
    assert_eq!(fleet.told(add("a", None)), Err(Unanswered::Unknown));
    assert_eq!(deaths.load(Ordering::Acquire), 1, "it is never made again");
    let (once, read) = (fleet.demand(add("b", Some("once"))), fleet.demand(get("b")));
    while deaths.load(Ordering::Acquire) < 3 {
        std::thread::sleep(Duration::from_millis(1));
    }
    fleet.is_at(Place::Here);
    assert_eq!(once.recv(), Ok(answered(7)));
    assert!(matches!(read.recv(), Ok(Ok(Reply::Answered(_)))));
    assert_eq!(fleet.told(add("b", Some("once"))), answered(7), "it was done once");
    assert_eq!(fleet.told(get("a")), answered(0), "what nobody knows was not done here");
    fleet.stop();
}

#[test]
fn a_worker_without_a_reachable_address_or_with_another_token_does_nothing() {
    let fleet = Fleet::start();
    let free = TcpListener::bind("127.0.0.1:0").expect("a port is free").local_addr().expect("it is bound");
    for place in [fleet.place(fleet.server.address(), "another"), fleet.place(free, TOKEN)] {
        fleet.is_at(place);
        assert_eq!(fleet.told(add("a", None)), Err(Unanswered::Elsewhere));
        assert_eq!(fleet.ask(0, Question::Status), Err(Unanswered::Elsewhere));
    }
    fleet.is_at(Place::Here);
    assert_eq!(fleet.told(get("a")), answered(0));
    fleet.stop();
}
