//! The world: workers, a log they share, and everything that can go wrong between them.
//!
//! One thread, one queue of events ordered by a virtual clock, one seed. Each worker is a process
//! with a [`Pipeline`]; the world executes the pipeline's actions, and a fault may strike before
//! or after each. Who should own a shard is a table of the world (`named`); workers learn of it
//! with delay, so two may believe that they own one shard.
//!
//! ```text
//!   input --> worker: pipeline --Append--> [delay, fate] --> log --> audit folds it
//!              ^  ^       |--Publish, Progress--> [delay, loss, doubled, late] --> log
//!              |  |       |--Emit--> egress, [delay] --> store   |--Store, Forget--> snapshots, trim
//!              |  +--[delay]-- outcomes, news, egress taken, ends of journals
//!              +-- mailboxes of its shards, progress of all: read from the log at each turn
//! ```
//!
//! Invariants: nothing but the plan's seed decides what happens; an event for a worker that has
//! died since is dropped; a worker that is paused gets its events, in order, when it goes on.
//!
//! Deliberately absent: what the functions do and which outcome is right, see `workload`.

mod action;
mod client;
mod end;
mod journal;
mod outside;
mod ownership;
mod post;
mod store;
mod trouble;
mod worker;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    sync::Arc,
};

use statefn_core::{
    ProcessingTime,
    activity::CallOutcome,
    address::ShardId,
    ingress::ErasedIngress,
    pipeline::Pipeline,
    ports::{
        clock::Clock,
        egress::MemoryEgresses,
        log::{Log, Offset, Partition},
        membership::{MemoryMembership, Watch},
        snapshots::MemorySnapshots,
        store::MemoryStore,
    },
    program::Program,
    shard::{
        ActivityCall, Emission, Options, Reply, TakeOver,
        frame::SnapshotMark,
        wire::{mailbox_partition, progress_partition},
    },
};

use self::store::{Unapplied, Write};
use crate::{
    check::Audit,
    clock::WorkerClock,
    linear::Operation,
    log::{Bytes, Fate, SharedLog},
    plan::{Fault, Faults, Plan},
    random::Random,
    report::Report,
    workload::{Asked, Told, Unparks, Workload},
};

/// How many events a world may have; one that has more does not come to an end.
const STEPS_MAX: u64 = 1_000_000;
/// How long after the faults, in virtual milliseconds, everything has to be done. Where an epoch may
/// have few calls and an append takes long, thousands of timers take minutes, one epoch each.
const DRAIN_MS_MAX: i64 = 600_000;

/// The time at which a world begins.
pub(crate) const BEGIN_MS: i64 = 1_000_000;
/// How long it takes until somebody looks for parked keys again.
const UNPARK_MS: i64 = 40;

type WorkerId = usize;
/// A life of a worker: a number that a crash changes.
type Life = (WorkerId, u64);

#[derive(Debug)]
enum Event {
    Turn(Life, u64),
    TakeOver(Life, ShardId),
    Told(Life, ShardId, u64, Outcome),
    /// A question for the end of a journal arrives at the log.
    AskEnd(Life, ShardId, u64),
    End(Life, ShardId, u64, Offset),
    /// A record comes to a mailbox or to the partition of progress.
    Posted(Partition, Bytes),
    TrimMailbox(Life, ShardId, Offset),
    /// Epochs arrive at a store.
    Write(Write),
    Written(Life, ShardId),
    SnapshotTold(Life, ShardId, u64, Option<SnapshotMark>),
    ReadBack(Life, ShardId, SnapshotMark),
    Flush(Life),
    Forget(Life, ShardId, Vec<SnapshotMark>, Option<Offset>),
    EgressTaken(Life, ShardId, u64),
    /// A worker makes an attempt of an activity, or learns its result.
    Attempt(Life, ActivityCall, u32),
    Result(Life, ShardId, u64, CallOutcome),
    News(Life, ShardId),
    Arrive(Flight),
    Restart(WorkerId),
    Move(ShardId, WorkerId),
    Request,
    /// A client has waited long enough for the answer of a request.
    Again(u64),
    Unpark,
    Trouble,
    Calm,
}

impl Event {
    fn life(&self) -> Option<Life> {
        match self {
            Self::Turn(life, _)
            | Self::TakeOver(life, _)
            | Self::Told(life, ..)
            | Self::End(life, ..)
            | Self::TrimMailbox(life, ..)
            | Self::Written(life, _)
            | Self::SnapshotTold(life, ..)
            | Self::ReadBack(life, ..)
            | Self::Flush(life)
            | Self::Forget(life, ..)
            | Self::EgressTaken(life, ..)
            | Self::Attempt(life, ..)
            | Self::Result(life, ..)
            | Self::News(life, _) => Some(*life),
            Self::Arrive(_)
            | Self::AskEnd(..)
            | Self::Posted(..)
            | Self::Write(_)
            | Self::Restart(_)
            | Self::Move(..)
            | Self::Request
            | Self::Again(_)
            | Self::Unpark
            | Self::Trouble
            | Self::Calm => None,
        }
    }
}

/// What a worker learns of its append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Stands(Offset),
    Refused,
    Unknown,
}

/// An append on its way to the log.
#[derive(Debug)]
struct Flight {
    life: Life,
    shard: ShardId,
    nonce: u64,
    records: Vec<Bytes>,
    fate: Fate,
}

struct Worker {
    life: u64,
    /// What its process has linked; another one after each death.
    program: Arc<Program>,
    ingresses: Vec<Arc<dyn ErasedIngress>>,
    /// None while it is dead.
    pipeline: Option<Pipeline>,
    /// The shards that it believes it is named for.
    membership: MemoryMembership,
    claims: BTreeMap<ShardId, (u64, TakeOver)>,
    /// What its egresses have not written yet; they write in order.
    emissions: VecDeque<Emission>,
    /// What stores have not applied yet.
    unapplied: BTreeMap<ShardId, Unapplied>,
    /// The first record of the partition of progress that it has not read.
    progress_from: Offset,
    paused_until: i64,
    clock: WorkerClock,
    turn: u64,
    turn_at: Option<i64>,
}

/// A world; see the module.
pub struct World<'a> {
    plan: Plan,
    random: Random,
    workload: &'a dyn Workload,
    program: Arc<Program>,
    options: Arc<Options>,
    ingresses: Vec<Arc<dyn ErasedIngress>>,
    /// By ingress, by partition.
    inputs: Vec<Vec<Vec<Vec<u8>>>>,

    now: i64,
    sequence: u64,
    queue: BTreeMap<(i64, u64), Event>,
    flights: usize,
    faults: Faults,
    /// How many faults were drawn, those that are spared included.
    strikes: u64,
    is_calm: bool,
    /// Whether the log has lost a record that it had acknowledged.
    has_forgotten: bool,
    /// When everything was done for the first time.
    done_at: Option<i64>,

    workers: Vec<Worker>,
    named: Vec<WorkerId>,
    /// What all workers have learnt of it.
    watch: Watch,
    /// When the faults end.
    calm_at: i64,
    nonce: u64,
    log: SharedLog,
    snapshots: MemorySnapshots,
    /// The snapshots that are damaged, and the epoch of the newest one that egresses had reached then.
    rotten: BTreeMap<String, u64>,
    /// The shards whose last snapshot could not be stored.
    failed_snapshots: BTreeSet<ShardId>,
    /// By source and target, the last message that was published.
    published: BTreeMap<(ShardId, ShardId), u64>,
    /// By worker and partition, when the last record comes that it has posted there.
    posted_at: BTreeMap<(WorkerId, Partition), i64>,
    /// Mail that meant nothing to an owner who read it.
    void_mail: BTreeSet<(ShardId, Offset)>,
    /// By shard, until when appends to its journal wait.
    stalled_until: Vec<i64>,
    /// The newest reading of any clock.
    newest_clock: i64,
    /// Those of all workers: they write to the same places, each shard's owner what it has committed.
    egresses: MemoryEgresses,
    stores: Vec<MemoryStore>,
    /// What a crash leaves of the stores of an embedded world.
    flushed: Vec<MemoryStore>,
    audit: Audit,
    answers: Vec<Told>,
    /// By request: when it was asked, and what it was answered first.
    history: Vec<Operation<Asked, Reply>>,
    /// How many begins and ends of requests there were.
    history_moments: u64,
    /// The last requests that change something, which may be asked again.
    repeatable: VecDeque<u64>,
    /// By attempt.
    asked: BTreeMap<u64, client::Asking>,
    /// Requests whose client still waits, and what it does if no answer comes.
    waiting: BTreeMap<u64, client::Patience>,
    /// The first request that was answered in two ways.
    differing: Option<String>,
    report: Report,
    trace: u64,
}

impl<'a> World<'a> {
    /// The world of a plan, before its first event.
    ///
    /// # Errors
    /// If the workload's program does not link.
    pub fn new(plan: Plan, workload: &'a dyn Workload) -> Result<Self, String> {
        let random = Random::new(plan.seed);
        let setup = workload.setup();
        let program = Program::link(setup.program).map_err(|error| error.to_string())?;
        let partitions = setup.inputs.iter().map(|partitions| partitions.len() as u32).collect();
        let options = Options {
            partitions,
            record_bytes_max: plan.record_bytes_max,
            snapshot_tail_bytes: plan.snapshot_tail_bytes,
            epoch_calls_max: plan.epoch_calls_max,
            is_log_shared: !plan.is_embedded,
            is_live: workload.is_live(),
            rules: plan.rules,
            ..Options::new(plan.shards, &program)
        };
        let shards = plan.shards as usize;
        let mut world = Self {
            ingresses: setup.ingresses.into_iter().map(|bind| bind(&program)).collect(),
            inputs: setup.inputs,
            now: BEGIN_MS,
            sequence: 0,
            queue: BTreeMap::new(),
            flights: 0,
            faults: plan.faults,
            strikes: 0,
            is_calm: false,
            has_forgotten: false,
            done_at: None,
            workers: Vec::new(),
            named: Vec::new(),
            watch: Watch::default(),
            calm_at: 0,
            nonce: 0,
            log: SharedLog::new(progress_partition(plan.shards) + 1),
            snapshots: MemorySnapshots::default(),
            rotten: BTreeMap::new(),
            failed_snapshots: BTreeSet::new(),
            published: BTreeMap::new(),
            posted_at: BTreeMap::new(),
            void_mail: BTreeSet::new(),
            stalled_until: vec![0; shards],
            newest_clock: i64::MIN,
            egresses: MemoryEgresses::new(plan.shards),
            stores: vec![MemoryStore::default(); shards],
            flushed: vec![MemoryStore::default(); shards],
            audit: Audit::new(plan.shards, plan.judges_by()),
            answers: Vec::new(),
            history: Vec::new(),
            history_moments: 0,
            repeatable: VecDeque::new(),
            asked: BTreeMap::new(),
            waiting: BTreeMap::new(),
            differing: None,
            report: Report { seeds: 1, ..Report::default() },
            trace: 0xcbf2_9ce4_8422_2325,
            options: Arc::new(options),
            program,
            workload,
            random,
            plan,
        };
        world.begin();
        Ok(world)
    }

    fn begin(&mut self) {
        let workers = self.plan.workers;
        self.named = (0..self.plan.shards).map(|_| self.random.place(workers)).collect();
        for id in 0..workers {
            let skew_ms = self.random.between(-30, 30);
            self.workers.push(Worker {
                life: 0,
                program: Arc::clone(&self.program),
                ingresses: self.ingresses.clone(),
                pipeline: None,
                membership: MemoryMembership::default(),
                claims: BTreeMap::new(),
                emissions: VecDeque::new(),
                unapplied: BTreeMap::new(),
                progress_from: 0,
                paused_until: 0,
                clock: WorkerClock { skew_ms, ..WorkerClock::default() },
                turn: 0,
                turn_at: None,
            });
            self.restart(id);
        }
        self.calm_at = self.now + self.plan.calm_at;
        self.after(self.plan.calm_at, Event::Calm);
        self.after(10, Event::Trouble);
        self.after(20, Event::Request);
        if self.workload.unparks() != Unparks::Never {
            self.after(UNPARK_MS, Event::Unpark);
        }
    }

    /// Runs the world to its end; returns its counts and a number that sums up all that happened.
    ///
    /// # Errors
    /// What went wrong first.
    pub fn run(mut self) -> Result<(Report, u64), String> {
        let end = self.now + self.plan.calm_at + DRAIN_MS_MAX + self.workload.lingers_ms();
        while !self.is_done() || !self.has_lingered() {
            self.report.steps += 1;
            if self.report.steps > STEPS_MAX || self.now > end {
                return Err(self.not_drained());
            }
            let Some(((at, _), event)) = self.queue.pop_first() else { return Err(self.not_drained()) };
            self.now = at;
            self.step(event).map_err(|error| {
                format!("step {}, {} ms before the faults end: {error}", self.report.steps, self.calm_at - self.now)
            })?;
        }
        self.check_end().map_err(|error| format!("step {}, at the end: {error}", self.report.steps))?;
        Ok((self.report, self.trace))
    }

    fn step(&mut self, event: Event) -> Result<(), String> {
        if let Some((worker, life)) = event.life() {
            let known = &self.workers[worker];
            if known.life != life {
                return Ok(());
            }
            if known.paused_until > self.now {
                let at = known.paused_until;
                self.at(at, event);
                return Ok(());
            }
        }
        self.note(self.now as u64);
        match event {
            Event::Turn((worker, _), turn) => return self.turn(worker, turn),
            Event::TakeOver((worker, _), shard) => self.prepare(worker, shard)?,
            Event::Told((worker, _), shard, nonce, outcome) => self.told(worker, shard, nonce, outcome)?,
            Event::AskEnd(life, shard, question) => {
                let end = self.log.end(shard);
                self.send(Event::End(life, shard, question, end));
            }
            Event::End((worker, _), shard, question, end) => self.end_told(worker, shard, question, end),
            Event::Posted(partition, record) => self.posted(partition, &record),
            Event::TrimMailbox(_, shard, before) => {
                self.report.mailboxes_trimmed += 1;
                self.log.trim(mailbox_partition(self.plan.shards, shard), before)?;
            }
            Event::Write(write) => self.write(&write)?,
            Event::Written((worker, _), shard) => self.written(worker, shard),
            Event::SnapshotTold((worker, _), shard, nonce, mark) => {
                if self.owned(worker, shard).is_some_and(|shard| shard.nonce() == nonce) {
                    self.pipeline(worker).snapshot_stored(shard, mark);
                }
            }
            Event::ReadBack((worker, _), shard, mark) => self.read_back(worker, shard, &mark),
            Event::Flush((worker, _)) => self.flush(worker)?,
            Event::Forget((worker, _), shard, snapshots, before) => self.forget(worker, shard, &snapshots, before)?,
            Event::EgressTaken((worker, _), shard, epoch) => self.pipeline(worker).egress_taken(shard, epoch),
            Event::Attempt((worker, _), call, attempt) => self.attempt(worker, call, attempt),
            Event::Result((worker, _), shard, id, outcome) => self.result(worker, shard, id, &outcome),
            Event::News((worker, _), shard) => self.news(worker, shard),
            Event::Arrive(flight) => self.arrive(flight)?,
            Event::Restart(worker) => self.restart(worker),
            Event::Move(shard, to) if !self.is_calm => self.move_shard_to(shard as usize, to),
            Event::Move(..) => {}
            Event::Request => self.request(),
            Event::Again(request) => self.ask_again(request),
            Event::Unpark => self.unpark(),
            Event::Trouble => self.trouble()?,
            Event::Calm => self.calm(),
        }
        Ok(())
    }
}

/// Time and chance.
impl World<'_> {
    fn at(&mut self, at: i64, event: Event) {
        self.sequence += 1;
        self.flights += usize::from(matches!(event, Event::Arrive(_)));
        self.queue.insert((at, self.sequence), event);
    }

    fn after(&mut self, ms: i64, event: Event) {
        self.at(self.now + ms, event);
    }

    /// Whether a fault happens now; one that the plan spares does not, and the others keep their numbers.
    fn strikes(&mut self, fault: Fault) -> bool {
        let rate = self.faults.of(fault);
        self.random.chance(rate) && !self.is_spared()
    }

    /// Counts a fault that was drawn; returns whether the plan spares it.
    fn is_spared(&mut self) -> bool {
        self.strikes += 1;
        self.plan.spared.contains(self.strikes - 1)
    }

    /// Tells the workload what happens.
    fn tell(&self, what: fmt::Arguments<'_>) {
        self.workload.tell(self.report.steps, self.now - BEGIN_MS, what);
    }

    /// Soon, as the network goes.
    fn send(&mut self, event: Event) {
        let ms = self.random.between(0, self.plan.delay_ms_max);
        self.after(ms, event);
    }

    /// Lets a worker act soon.
    fn wake(&mut self, worker: WorkerId, within_ms: i64) {
        let at = self.now + self.random.between(0, within_ms);
        let known = &mut self.workers[worker];
        if known.pipeline.is_none() || known.turn_at.is_some_and(|turn_at| turn_at <= at) {
            return;
        }
        known.turn += 1;
        known.turn_at = Some(at);
        let turn = Event::Turn((worker, known.life), known.turn);
        self.at(at, turn);
    }

    /// What a worker's clock shows; it may go back.
    fn clock(&mut self, worker: WorkerId) -> ProcessingTime {
        /// Clocks differ by less than this unless one jumps.
        const SKEW_MS: i64 = 100;
        let clock = &mut self.workers[worker].clock;
        (clock.world_ms, clock.jitter_ms) = (self.now, self.random.between(-2, 2));
        let now = clock.now();
        self.report.clocks_behind += u64::from(now.0 < self.newest_clock.saturating_sub(SKEW_MS));
        self.newest_clock = self.newest_clock.max(now.0);
        now
    }

    /// Adds to the sum of all that happened (FNV-1a, by words).
    fn note(&mut self, word: u64) {
        self.trace = (self.trace ^ word).wrapping_mul(0x0100_0000_01b3);
    }
}
