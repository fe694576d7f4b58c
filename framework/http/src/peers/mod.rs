//! Every worker of a fleet answers for every key: what is for a shard elsewhere goes to its owner, in one
//! hop, and comes back.
//!
//! ```text
//! client ──► edge ──► Forwarder ──► Intake of this process, if the shard is here
//!                        │ demand, token              ▲
//!                        └────────► Internal ─────────┘ of the worker that has it
//! ```
//! Invariants: a demand that may have been begun is made again only if that does no harm: it has an
//! idempotency key, or reads; any other is told as unknown. A worker does for others what its own
//! shards can do, and forwards nothing that was forwarded.
//!
//! Deliberately absent: who has a shard, which is told by [`Peers`] and may be wrong: who is asked in
//! vain says so, and the demand waits a moment for the owner, so that a move is no error for clients.

mod internal;
mod wire;

use std::{
    fmt, io,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::de::DeserializeOwned;
use statefn_core::{
    address::{ShardId, murmur2, shard_of},
    function::Access,
    ports::{
        inspect::{self, Finding, Inspect, Numbers, Partition, Pausable, Pause, PauseError, Question},
        peers::{Peer, Peers, Place},
        requests::{Condition, Demand, Requests, Tell, Unanswered},
    },
    program::Program,
    shard::{Reply, Wants},
};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::oneshot,
    time::sleep,
};

pub use self::internal::Internal;
use self::wire::{Asked, Forwarded, written};

/// How long a demand waits for a shard to have an owner.
const OWNER_TIME_MAX: Duration = Duration::from_secs(1);
/// How long it waits until it looks again who has the shard.
const PAUSE: Duration = Duration::from_millis(10);
/// How often it is looked whether a worker that does not answer still has the shard.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How long a worker that does not have the shard any more may take to answer.
const LATE_ANSWER_MAX: Duration = Duration::from_secs(1);
/// How long a connection to another worker may take to be made.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);
/// How long an idle connection to another worker is kept: less than a server keeps one.
const IDLE_TIME_MAX: Duration = Duration::from_secs(10);

/// Takes demands and questions for all shards of a fleet.
pub struct Forwarder {
    inside: Arc<Inside>,
    handle: Handle,
    /// Ends with it; what is under way is dropped, and told as unknown.
    runtime: Option<Runtime>,
}

struct Inside {
    program: Arc<Program>,
    fingerprint: u32,
    requests: Arc<dyn Requests>,
    inspect: Arc<dyn Inspect>,
    peers: Arc<dyn Peers>,
    client: reqwest::Client,
}

impl Forwarder {
    /// A forwarder for the app whose shards of this process `local` has.
    ///
    /// # Errors
    /// If its thread cannot be started.
    pub fn new<L>(program: &Arc<Program>, local: L, peers: Arc<dyn Peers>) -> io::Result<Self>
    where
        L: Requests + Inspect + Clone + 'static,
    {
        // Workers speak without TLS. A client that another part of the program has built with it asks for a
        // provider all the same; one that is there already stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIME_MAX)
            .pool_idle_timeout(IDLE_TIME_MAX)
            .tcp_nodelay(true)
            .no_proxy()
            .build();
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("forward").enable_all().build()?;
        let inside = Inside {
            program: Arc::clone(program),
            fingerprint: program.fingerprint(),
            requests: Arc::new(local.clone()),
            inspect: Arc::new(local),
            peers,
            client: client.map_err(io::Error::other)?,
        };
        Ok(Self { inside: Arc::new(inside), handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    /// The workers of the fleet.
    #[must_use]
    pub fn peers(&self) -> Arc<dyn Peers> {
        Arc::clone(&self.inside.peers)
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        // It may be dropped on a thread of a runtime, which may not wait.
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

impl fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Forwarder({})", self.inside.program.app)
    }
}

impl Requests for Forwarder {
    fn demand(&self, demand: Demand, tell: Tell) {
        let (inside, handle) = (Arc::clone(&self.inside), self.handle.clone());
        let begun = Instant::now();
        if inside.peers.place(inside.shard_of(&demand)) != Place::Here {
            handle.spawn(async move { tell(inside.settle(demand, begun, Step::Again).await) });
            return;
        }
        let again = demand.clone();
        let told = move |told| match Step::of(told) {
            Step::Told(told) => tell(told),
            step => {
                handle.spawn(async move { tell(inside.settle(again, begun, step).await) });
            }
        };
        self.inside.requests.demand(demand, Box::new(told));
    }

    fn condition(&self) -> Condition {
        self.inside.requests.condition()
    }
}

/// What came of one attempt.
#[derive(Debug, PartialEq)]
enum Step {
    /// That is it.
    Told(Result<Reply, Unanswered>),
    /// Nothing was done, and another worker may do it.
    Again,
    /// It may have been done.
    Unknown,
}

impl Step {
    fn of(told: Result<Reply, Unanswered>) -> Self {
        match told {
            Err(Unanswered::Elsewhere | Unanswered::NotRunning) => Self::Again,
            Err(Unanswered::Unknown) => Self::Unknown,
            told => Self::Told(told),
        }
    }
}

impl Inside {
    fn shard_of(&self, demand: &Demand) -> ShardId {
        shard_of(murmur2(&demand.key), self.inspect.shards())
    }

    /// Makes a demand until somebody has done it, or there is no use in going on; `first` is what came of
    /// the attempt before.
    async fn settle(&self, demand: Demand, begun: Instant, first: Step) -> Result<Reply, Unanswered> {
        let shard = self.shard_of(&demand);
        let mut step = first;
        let mut owned_at = begun;
        let mut may_be_done = false;
        loop {
            match step {
                Step::Told(told) => return told,
                Step::Unknown if !self.is_repeatable(&demand) => return Err(Unanswered::Unknown),
                Step::Unknown => {
                    may_be_done |= demand.once.is_some();
                    owned_at = Instant::now();
                }
                Step::Again => {}
            }
            let waited = begun.elapsed();
            // What may be done is asked for until its outcome is known, or the client has gone.
            let (patience, longest) = match may_be_done {
                true => (demand.patience.max(demand.deferral_max), None),
                false => (demand.patience, Some(OWNER_TIME_MAX)),
            };
            if longest.is_some_and(|longest| owned_at.elapsed() >= longest) {
                return Err(Unanswered::Elsewhere);
            }
            if waited >= patience {
                return Err(if may_be_done { Unanswered::Unknown } else { Unanswered::Expired });
            }
            let next = Demand { patience: patience - waited, ..demand.clone() };
            step = match self.peers.place(shard) {
                Place::Nowhere => Step::Again,
                Place::Here => self.here(next).await,
                Place::At(peer) => self.there(&peer, shard, next).await,
            };
            if !matches!(step, Step::Told(_)) {
                sleep(PAUSE).await;
            }
        }
    }

    /// Whether a demand that may have been done can be made once more without harm.
    fn is_repeatable(&self, demand: &Demand) -> bool {
        let messages = &self.program.functions[usize::from(demand.function)].spec.messages;
        let handler = messages.get(usize::from(demand.handler));
        let reads = || !demand.is_timer && handler.is_some_and(|handler| handler.access == Access::Read);
        demand.once.is_some() || demand.wants == Wants::State || demand.wants == Wants::Answer && reads()
    }

    async fn here(&self, demand: Demand) -> Step {
        let (teller, told) = oneshot::channel();
        self.requests.demand(demand, Box::new(|outcome| _ = teller.send(outcome)));
        told.await.map_or(Step::Unknown, Step::of)
    }

    async fn there(&self, peer: &Arc<Peer>, shard: ShardId, demand: Demand) -> Step {
        let longest = demand.patience + demand.deferral_max;
        let body = written(&Forwarded::of(&self.program, demand));
        let post = self.post(peer, wire::DEMAND, body, longest);
        tokio::pin!(post);
        let mut moved_at = None;
        loop {
            tokio::select! {
                sent = &mut post => return sent.map_or_else(|step| step, Step::of),
                () = sleep(LOOK_INTERVAL) => {}
            }
            // A worker that is stopped or cut off says nothing, and does not have the shard for long.
            moved_at = match self.peers.place(shard) {
                Place::At(now) if now == *peer => None,
                Place::Nowhere => moved_at,
                Place::At(_) | Place::Here => moved_at.or_else(|| Some(Instant::now())),
            };
            if moved_at.is_some_and(|at| at.elapsed() >= LATE_ANSWER_MAX) {
                return Step::Unknown;
            }
        }
    }

    /// What another worker says to a body; a step if it says nothing that can be read.
    async fn post<T: DeserializeOwned>(
        &self,
        peer: &Peer,
        path: &str,
        body: Vec<u8>,
        longest: Duration,
    ) -> Result<Result<T, Unanswered>, Step> {
        let url = peer.url.as_ref().ok_or(Step::Again)?;
        let request = self.client.post(format!("{url}{path}")).bearer_auth(&peer.token).timeout(longest).body(body);
        let response = request.send().await.map_err(|error| {
            tracing::debug!(worker = peer.worker, "a request could not be forwarded: {error}");
            if error.is_connect() { Step::Again } else { Step::Unknown }
        })?;
        if !response.status().is_success() {
            // It was refused before it was begun: that is another process at the same address, or one of
            // another version.
            tracing::debug!(worker = peer.worker, "a forwarded request was refused: {}", response.status());
            return Err(Step::Again);
        }
        let told = response.bytes().await.map_err(|_| Step::Unknown)?;
        wire::read(&told).ok_or(Step::Unknown)
    }

    async fn ask(&self, peer: &Peer, shard: ShardId, question: Question) -> Result<Finding, Unanswered> {
        let body = written(&Asked { program: self.fingerprint, shard, question });
        let told = self.post(peer, wire::QUESTION, body, CONNECT_TIME_MAX + OWNER_TIME_MAX).await;
        told.unwrap_or(Err(Unanswered::Elsewhere))
    }
}

impl Inspect for Forwarder {
    fn ask(&self, shard: ShardId, question: Question, tell: inspect::Tell) {
        match self.inside.peers.place(shard) {
            Place::Here => self.inside.inspect.ask(shard, question, tell),
            Place::At(peer) if peer.program == self.inside.fingerprint => {
                let inside = Arc::clone(&self.inside);
                self.handle.spawn(async move { tell(inside.ask(&peer, shard, question).await) });
            }
            Place::At(_) | Place::Nowhere => tell(Err(Unanswered::Elsewhere)),
        }
    }

    fn shards(&self) -> u32 {
        self.inside.inspect.shards()
    }

    fn host_of(&self, shard: ShardId) -> usize {
        self.inside.inspect.host_of(shard)
    }

    fn numbers(&self) -> Numbers {
        self.inside.inspect.numbers()
    }

    fn inputs(&self) -> Vec<Vec<Partition>> {
        self.inside.inspect.inputs()
    }

    fn pause(&self, what: Pausable) -> Pause {
        self.inside.inspect.pause(what)
    }

    fn set_pause(&self, what: Pausable, is_paused: bool) -> Result<(), PauseError> {
        self.inside.inspect.set_pause(what, is_paused)
    }
}
