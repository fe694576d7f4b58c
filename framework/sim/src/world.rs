//! The world: workers, a log they share, and everything that can go wrong between them.
//!
//! One thread, one queue of events ordered by a virtual clock, one seed. Each worker is a process
//! with a [`Pipeline`]; the world executes the pipeline's actions, and a fault may strike before
//! or after each. Who should own a shard is a table of the world (`named`); workers learn of it
//! with delay, so two may believe that they own one shard.
//!
//! ```text
//!   input --> worker: pipeline --Append--> [delay, fate] --> log --> audit folds it
//!                ^        |--Publish, Progress--> [delay, loss, doubled] --> every other worker
//!                |        |--Emit--> egress, store      |--Store, Forget--> snapshots, trim
//!                +--[delay]-- outcomes, news, egress taken
//! ```
//!
//! Invariants: nothing but the plan's seed decides what happens; an event for a worker that has
//! died since is dropped; a worker that is paused gets its events, in order, when it goes on.
//!
//! Deliberately absent: what the functions do and which outcome is right, see `workload`.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use statefn_core::{
    ProcessingTime,
    address::{ShardId, murmur2, shard_of},
    dead_letter::DeadLetter,
    effect::{Call, Calls},
    ingress::{Batches, ErasedIngress, RawRecord},
    pipeline::{Action, Append, Pipeline},
    ports::{
        log::{Log, Offset},
        snapshots::{MemorySnapshots, Snapshots},
        store::{MemoryStore, Store},
    },
    program::Program,
    shard::{
        Accepted, Answer, Emission, Options, Request, Shard, Snapshot, TakeOver,
        frame::{Position, SnapshotMark},
        outbox::Mail,
        progress::Progress,
    },
};

use crate::{
    check::{Accounts, Audit, Sink, changes, snapshot_equals_fold},
    log::{Bytes, Fate, SharedLog},
    plan::{Faults, Plan},
    random::Random,
    report::Report,
    workload::{Asked, End, Workload},
};

/// How many events a world may have; one that has more does not come to an end.
const STEPS_MAX: u64 = 1_000_000;
/// How long after the faults, in virtual milliseconds, everything has to be done.
const DRAIN_MS_MAX: i64 = 120_000;
/// After how many committed frames the workload looks at the whole.
const FRAMES_BETWEEN_CHECKS: u64 = 25;

type WorkerId = usize;
/// A life of a worker: a number that a crash changes.
type Life = (WorkerId, u64);

#[derive(Debug)]
enum Event {
    Turn(Life, u64),
    TakeOver(Life, ShardId),
    Told(Life, ShardId, u64, Outcome),
    Mail(Life, Arc<Mail>),
    Progress(Life, Arc<Progress>),
    SnapshotTold(Life, ShardId, u64, Option<SnapshotMark>),
    Flush(Life),
    EgressTaken(Life, ShardId, u64),
    News(Life, ShardId),
    Arrive(Flight),
    Restart(WorkerId),
    Request,
    Trouble,
    Calm,
}

impl Event {
    fn life(&self) -> Option<Life> {
        match self {
            Self::Turn(life, _)
            | Self::TakeOver(life, _)
            | Self::Told(life, ..)
            | Self::Mail(life, _)
            | Self::Progress(life, _)
            | Self::SnapshotTold(life, ..)
            | Self::Flush(life)
            | Self::EgressTaken(life, ..)
            | Self::News(life, _) => Some(*life),
            Self::Arrive(_) | Self::Restart(_) | Self::Request | Self::Trouble | Self::Calm => None,
        }
    }
}

/// What a worker learns of its append.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    Stands(Offset),
    Lost,
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
    /// None while it is dead.
    pipeline: Option<Pipeline>,
    /// The shards that it believes it is named for.
    named: BTreeSet<ShardId>,
    claims: BTreeMap<ShardId, (u64, TakeOver)>,
    /// What its egresses have not written yet; they write in order.
    emissions: VecDeque<Emission>,
    paused_until: i64,
    clock_skew_ms: i64,
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
    is_calm: bool,
    /// When everything was done for the first time.
    done_at: Option<i64>,

    workers: Vec<Worker>,
    named: Vec<WorkerId>,
    nonce: u64,
    log: SharedLog,
    snapshots: MemorySnapshots,
    /// The shards whose newest snapshot was damaged once.
    rotten: BTreeSet<usize>,
    sinks: Vec<Sink>,
    stores: Vec<MemoryStore>,
    audit: Audit,
    answers: Vec<Answer>,
    requests: u64,
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
            rules: plan.rules,
            ..Options::new(plan.shards, &program)
        };
        let shards = plan.shards as usize;
        let mut world = Self {
            ingresses: setup.ingresses.into_iter().map(|bind| bind(&program)).collect(),
            inputs: setup.inputs,
            now: 1_000_000,
            sequence: 0,
            queue: BTreeMap::new(),
            flights: 0,
            faults: plan.faults,
            is_calm: false,
            done_at: None,
            workers: Vec::new(),
            named: Vec::new(),
            nonce: 0,
            log: SharedLog::new(plan.shards),
            snapshots: MemorySnapshots::default(),
            rotten: BTreeSet::new(),
            sinks: std::iter::repeat_with(Sink::default).take(shards).collect(),
            stores: vec![MemoryStore::default(); shards],
            audit: Audit::new(plan.shards),
            answers: Vec::new(),
            requests: 0,
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
            let clock_skew_ms = self.random.between(-30, 30);
            self.workers.push(Worker {
                life: 0,
                pipeline: None,
                named: BTreeSet::new(),
                claims: BTreeMap::new(),
                emissions: VecDeque::new(),
                paused_until: 0,
                clock_skew_ms,
                turn: 0,
                turn_at: None,
            });
            self.restart(id);
        }
        self.after(self.plan.calm_at, Event::Calm);
        self.after(10, Event::Trouble);
        self.after(20, Event::Request);
    }

    /// Runs the world to its end; returns its counts and a number that sums up all that happened.
    ///
    /// # Errors
    /// What went wrong first.
    pub fn run(mut self) -> Result<(Report, u64), String> {
        let end = self.now + self.plan.calm_at + DRAIN_MS_MAX;
        while !self.is_done() || !self.has_lingered() {
            self.report.steps += 1;
            if self.report.steps > STEPS_MAX || self.now > end {
                return Err(self.not_drained());
            }
            let Some(((at, _), event)) = self.queue.pop_first() else { return Err(self.not_drained()) };
            self.now = at;
            self.step(event)?;
        }
        self.check_end()?;
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
            Event::Mail((worker, _), mail) => {
                let now = self.clock(worker);
                self.pipeline(worker).mail(mail, now);
            }
            Event::Progress((worker, _), progress) => self.pipeline(worker).progress(&[progress]),
            Event::SnapshotTold((worker, _), shard, nonce, mark) => {
                if self.owned(worker, shard).is_some_and(|shard| shard.nonce() == nonce) {
                    self.pipeline(worker).snapshot_stored(shard, mark);
                }
            }
            Event::Flush((worker, _)) => self.flush(worker)?,
            Event::EgressTaken((worker, _), shard, epoch) => self.pipeline(worker).egress_taken(shard, epoch),
            Event::News((worker, _), shard) => self.news(worker, shard),
            Event::Arrive(flight) => self.arrive(flight)?,
            Event::Restart(worker) => self.restart(worker),
            Event::Request => self.request(),
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
        let jitter = self.random.between(-2, 2);
        ProcessingTime(self.now + self.workers[worker].clock_skew_ms + jitter)
    }

    /// Adds to the sum of all that happened (FNV-1a, by words).
    fn note(&mut self, word: u64) {
        self.trace = (self.trace ^ word).wrapping_mul(0x0100_0000_01b3);
    }
}

/// Workers: their turns, their deaths.
impl World<'_> {
    fn pipeline(&mut self, worker: WorkerId) -> &mut Pipeline {
        self.wake(worker, 1);
        self.workers[worker].pipeline.as_mut().expect("an event reaches a living worker only")
    }

    fn owned(&self, worker: WorkerId, shard: ShardId) -> Option<&Shard> {
        self.workers[worker].pipeline.as_ref()?.shards().find(|owned| owned.id() == shard)
    }

    fn turn(&mut self, worker: WorkerId, turn: u64) -> Result<(), String> {
        if self.workers[worker].turn != turn {
            return Ok(());
        }
        self.workers[worker].turn_at = None;
        let mut is_busy = self.random.chance(400) && self.read_input(worker);
        let now = self.clock(worker);
        self.pipeline(worker).pump(now);
        while let Some(action) = self.workers[worker].pipeline.as_mut().and_then(Pipeline::next_action) {
            is_busy = true;
            if self.random.chance(self.faults.crash) {
                self.crash(worker)?;
                break;
            }
            self.execute(worker, action)?;
            if self.random.chance(self.faults.crash) {
                self.crash(worker)?;
            }
        }
        self.wake(worker, if is_busy { 3 } else { 40 });
        Ok(())
    }

    fn restart(&mut self, worker: WorkerId) {
        let pipeline = Pipeline::new(Arc::clone(&self.program), &self.options, self.plan.commit_interval_ms);
        self.workers[worker].pipeline = Some(pipeline);
        for shard in 0..self.plan.shards {
            if self.named[shard as usize] == worker {
                self.news(worker, shard);
            }
        }
        self.wake(worker, 5);
    }

    fn crash(&mut self, worker: WorkerId) -> Result<(), String> {
        if self.workers[worker].pipeline.take().is_none() {
            return Ok(());
        }
        self.report.crashes += 1;
        self.note(worker as u64);
        let known = &mut self.workers[worker];
        known.life += 1;
        known.turn_at = None;
        known.named.clear();
        known.claims.clear();
        known.emissions.clear();
        let ms = self.random.between(1, 400);
        self.after(ms, Event::Restart(worker));
        if self.plan.is_embedded { self.tear() } else { Ok(()) }
    }

    /// The log of a process dies with it: of what was not confirmed any part may stand, in order.
    fn tear(&mut self) -> Result<(), String> {
        let is_flight = |event: &Event| matches!(event, Event::Arrive(_));
        let places: Vec<_> = self.queue.iter().filter(|(_, event)| is_flight(event)).map(|(place, _)| *place).collect();
        for place in places {
            if let Some(Event::Arrive(flight)) = self.queue.remove(&place) {
                self.flights -= 1;
                self.put_partly(flight.shard, &flight.records)?;
            }
        }
        Ok(())
    }

    /// Reads a stretch of one partition for all shards of a worker, from the lowest position on.
    fn read_input(&mut self, worker: WorkerId) -> bool {
        let pipeline = self.workers[worker].pipeline.as_ref().expect("a worker with a turn lives");
        if !pipeline.wants_input() || self.inputs.is_empty() {
            return false;
        }
        let ingress = self.random.place(self.inputs.len());
        let partition = self.random.place(self.inputs[ingress].len());
        let positions = pipeline.shards().map(|shard| shard.position(ingress, partition as u32));
        let from = positions.min_by_key(|position| (position.offset, position.is_ended));
        let Some(from) = from.filter(|from| !from.is_ended) else { return false };
        let count = self.random.between(1, self.plan.stretch_max) as usize;
        let batches = self.route(ingress, partition, from, count);
        let now = self.clock(worker);
        let pipeline = self.pipeline(worker);
        for (shard, batch) in (0..).zip(&batches.shards) {
            pipeline.ingress(shard, batch, now);
        }
        true
    }

    fn route(&mut self, ingress: usize, partition: usize, from: Position, count: usize) -> Batches {
        /// Records do not lie at dense offsets.
        const RECORD_LENGTH: u64 = 7;
        let mut batches = Batches::new(self.plan.shards);
        let input = &self.inputs[ingress][partition];
        let first = from.records as usize;
        let mut to = from;
        for record in input.iter().skip(first).take(count) {
            match self.ingresses[ingress].route(to.offset, RawRecord::Bytes(record), &mut batches) {
                Ok(time) => to.event_time_max = to.event_time_max.max(Some(time)),
                Err(error) => {
                    let position = format!("partition {partition}, record {}", to.records);
                    let name = self.program.ingresses[ingress].name;
                    batches.dead_letter(to.offset, DeadLetter::of_record(name, &position, &error, record));
                }
            }
            to.offset += RECORD_LENGTH;
            to.records += 1;
            self.report.records += 1;
        }
        to.is_ended = to.records as usize == input.len();
        for batch in &mut batches.shards {
            (batch.ingress, batch.partition, batch.from, batch.to) = (ingress, partition as u32, from.offset, to);
        }
        batches
    }
}

/// The actions of pipelines.
impl World<'_> {
    fn execute(&mut self, worker: WorkerId, action: Action) -> Result<(), String> {
        match action {
            Action::Append(Append { shard, records }) => {
                let nonce = self.owned(worker, shard).map(Shard::nonce);
                // A pipeline may have lost the shard between asking and now.
                let Some(nonce) = nonce else { return Ok(()) };
                self.append(worker, shard, nonce, records);
            }
            Action::Publish(mail) => self.publish(worker, &mail)?,
            Action::Emit(emission) => {
                let changes = changes(&self.program, &emission.frame)?;
                self.stores[emission.shard as usize].apply(emission.epoch, &changes)?;
                self.emit(worker, emission)?;
            }
            Action::Progress(progress) => self.tell_progress(worker, &progress)?,
            Action::Answer(answer) => {
                self.report.answers += 1;
                self.answers.push(answer);
            }
            Action::Store(snapshot) => self.store(worker, snapshot)?,
            Action::Forget { shard, snapshots, before } => {
                for mark in &snapshots {
                    self.snapshots.remove(&mark.name)?;
                }
                if self.random.chance(self.faults.crash) {
                    return self.crash(worker);
                }
                if let Some(before) = before {
                    self.log.trim(shard, before)?;
                    self.report.trims += 1;
                }
            }
            Action::TakeOver(shard) => self.take_over_later(worker, shard),
        }
        Ok(())
    }

    fn life(&self, worker: WorkerId) -> Life {
        (worker, self.workers[worker].life)
    }

    fn others(&self, worker: WorkerId) -> Vec<Life> {
        let living = (0..self.workers.len()).filter(|id| *id != worker && self.workers[*id].pipeline.is_some());
        living.map(|id| self.life(id)).collect()
    }

    fn publish(&mut self, worker: WorkerId, mail: &Arc<Mail>) -> Result<(), String> {
        if self.plan.looks_inside && mail.last() > self.audit.sent(mail.source, mail.target) {
            return Err(format!("shard {} publishes what it has not committed (I3): {mail:?}", mail.source));
        }
        for life in self.others(worker) {
            for _ in 0..self.copies() {
                self.send(Event::Mail(life, Arc::clone(mail)));
            }
        }
        Ok(())
    }

    fn tell_progress(&mut self, worker: WorkerId, progress: &Arc<Progress>) -> Result<(), String> {
        let committed = self.audit.shards[progress.shard as usize].image.epoch();
        if self.plan.looks_inside && progress.epoch > committed {
            return Err(format!(
                "shard {} tells progress of epoch {}, which is not committed",
                progress.shard, progress.epoch
            ));
        }
        for life in self.others(worker) {
            for _ in 0..self.copies() {
                self.send(Event::Progress(life, Arc::clone(progress)));
            }
        }
        Ok(())
    }

    /// How often something arrives that was sent once.
    fn copies(&mut self) -> u32 {
        if self.random.chance(self.faults.loss) {
            self.report.mail_lost += 1;
            return 0;
        }
        if self.random.chance(self.faults.doubled) {
            self.report.mail_doubled += 1;
            return 2;
        }
        1
    }

    fn emit(&mut self, worker: WorkerId, emission: Emission) -> Result<(), String> {
        let committed = self.audit.shards[emission.shard as usize].image.epoch();
        if self.plan.looks_inside && emission.epoch > committed {
            return Err(format!("shard {} emits epoch {}, which is not committed", emission.shard, emission.epoch));
        }
        self.workers[worker].emissions.push_back(emission);
        let ms = self.random.between(0, self.plan.egress_ms_max);
        self.after(ms, Event::Flush(self.life(worker)));
        Ok(())
    }

    /// Lets the egresses of a worker write all they have, and its pipeline know with more delay.
    fn flush(&mut self, worker: WorkerId) -> Result<(), String> {
        for emission in std::mem::take(&mut self.workers[worker].emissions) {
            let shard = emission.shard;
            let sink = &mut self.sinks[shard as usize];
            match sink.take(&emission)? {
                true => self.report.emitted += emission.records.len() as u64,
                false => self.report.emitted_again += 1,
            }
            let taken = sink.taken;
            self.send(Event::EgressTaken(self.life(worker), shard, taken));
        }
        Ok(())
    }

    fn store(&mut self, worker: WorkerId, snapshot: Snapshot) -> Result<(), String> {
        let Snapshot { shard, mark, mut bytes } = snapshot;
        snapshot_equals_fold(&self.log, shard, mark.next_offset, &bytes)?;
        let Some(nonce) = self.owned(worker, shard).map(Shard::nonce) else { return Ok(()) };
        let is_stored = !self.random.chance(self.faults.snapshot);
        if is_stored {
            self.report.snapshots += 1;
        } else {
            self.report.snapshots_failed += 1;
            let place = self.random.place(bytes.len());
            bytes[place] ^= 0x10;
            bytes.truncate(place + 1);
        }
        // A put that fails may leave anything behind.
        if is_stored || self.random.chance(500) {
            self.snapshots.put(&mark.name, &bytes)?;
        }
        self.send(Event::SnapshotTold(self.life(worker), shard, nonce, is_stored.then_some(mark)));
        Ok(())
    }
}

/// The log.
impl World<'_> {
    fn append(&mut self, worker: WorkerId, shard: ShardId, nonce: u64, records: Vec<Bytes>) {
        let fate = Fate::draw(&mut self.random, self.faults.refused, self.faults.unknown);
        // The only process of an embedded world has nobody who could append after it gave up.
        let comes_again = matches!(fate, Fate::Late | Fate::Doubled);
        let fate = if self.plan.is_embedded && comes_again { Fate::PartlyUnknown } else { fate };
        let flight = Flight { life: self.life(worker), shard, nonce, records, fate };
        if fate == Fate::Late {
            self.report.appends_unknown += 1;
            self.send(Event::Told(flight.life, shard, nonce, Outcome::Lost));
            let ms = self.random.between(1, 2_000);
            self.after(ms, Event::Arrive(flight));
        } else {
            self.send(Event::Arrive(flight));
        }
    }

    fn arrive(&mut self, flight: Flight) -> Result<(), String> {
        self.flights -= 1;
        let Flight { life, shard, nonce, records, fate } = flight;
        let mut outcome = Outcome::Lost;
        match fate {
            Fate::Stands => outcome = Outcome::Stands(self.put_all(shard, &records)?),
            Fate::Doubled => {
                self.report.appends_doubled += 1;
                outcome = Outcome::Stands(self.put_all(shard, &records)?);
                self.put_all(shard, &records)?;
            }
            Fate::Refused => self.report.appends_refused += 1,
            Fate::FailsUnknown => self.report.appends_unknown += 1,
            Fate::StandsUnknown => {
                self.report.appends_unknown += 1;
                self.put_all(shard, &records)?;
            }
            Fate::PartlyUnknown => {
                self.report.appends_unknown += 1;
                self.put_partly(shard, &records)?;
            }
            Fate::Late => {
                self.report.appends_late += 1;
                self.put_all(shard, &records)?;
                return Ok(());
            }
        }
        self.send(Event::Told(life, shard, nonce, outcome));
        Ok(())
    }

    fn put_all(&mut self, shard: ShardId, records: &[Bytes]) -> Result<Offset, String> {
        let first = self.log.end(shard);
        records.iter().try_for_each(|record| self.put(shard, record))?;
        Ok(first)
    }

    fn put_partly(&mut self, shard: ShardId, records: &[Bytes]) -> Result<(), String> {
        let mut stand = 0;
        for record in records {
            if self.random.chance(500) {
                stand += 1;
                self.put(shard, record)?;
            }
        }
        self.report.appends_torn += u64::from(stand > 0 && stand < records.len());
        Ok(())
    }

    fn put(&mut self, shard: ShardId, record: &Bytes) -> Result<(), String> {
        let offset = self.log.put(shard, record);
        self.note(u64::from(shard) << 32 | record.len() as u64);
        let frames = self.report.frames;
        self.audit.fold(shard, offset, record, &mut self.report)?;
        if frames != self.report.frames && self.report.frames.is_multiple_of(FRAMES_BETWEEN_CHECKS) {
            self.workload.check_running(&self.program, &self.audit)?;
        }
        Ok(())
    }

    fn told(&mut self, worker: WorkerId, shard: ShardId, nonce: u64, outcome: Outcome) -> Result<(), String> {
        if self.workers[worker].claims.get(&shard).is_some_and(|(claimed, _)| *claimed == nonce) {
            return self.claim_told(worker, shard, outcome);
        }
        // Of an ownership that was given up since nobody wants to know.
        if self.owned(worker, shard).is_none_or(|owned| owned.nonce() != nonce) {
            return Ok(());
        }
        match outcome {
            Outcome::Stands(offset) => {
                self.pipeline(worker).appended(shard, offset);
                self.report.deposed += u64::from(self.owned(worker, shard).is_none());
            }
            Outcome::Lost => self.pipeline(worker).lost(shard),
        }
        Ok(())
    }
}

/// Ownership.
impl World<'_> {
    /// Tells a worker whether it is named for a shard, as things stand now.
    fn news(&mut self, worker: WorkerId, shard: ShardId) {
        let is_named = self.named[shard as usize] == worker;
        let known = &mut self.workers[worker];
        if is_named {
            known.named.insert(shard);
            self.take_over_later(worker, shard);
        } else {
            known.named.remove(&shard);
            known.claims.remove(&shard);
            self.pipeline(worker).drop_shard(shard);
        }
    }

    fn take_over_later(&mut self, worker: WorkerId, shard: ShardId) {
        // Random, so that two who want the same shard do not run into each other for ever.
        let ms = self.random.between(1, 60);
        self.after(ms, Event::TakeOver(self.life(worker), shard));
    }

    fn prepare(&mut self, worker: WorkerId, shard: ShardId) -> Result<(), String> {
        let known = &self.workers[worker];
        if !known.named.contains(&shard) || known.claims.contains_key(&shard) || self.owned(worker, shard).is_some() {
            return Ok(());
        }
        let taken = self.sinks[shard as usize].taken;
        let mut missing = Vec::new();
        let ports: (&mut dyn Log, &mut dyn Snapshots) = (&mut self.log, &mut self.snapshots);
        let take_over = TakeOver::prepare(&self.program, &self.options, shard, ports, taken, &mut |emission| {
            missing.push(emission);
        });
        let mut take_over = take_over.map_err(|error| error.to_string())?;
        missing.into_iter().try_for_each(|emission| self.emit(worker, emission))?;
        self.nonce += 1;
        // The varints of nonces have all lengths.
        let nonce = self.nonce << 40 | self.random.below(1 << 40);
        let claim = Arc::new(take_over.claim(&self.program, nonce));
        self.workers[worker].claims.insert(shard, (nonce, take_over));
        self.report.claims += 1;
        self.append(worker, shard, nonce, vec![claim]);
        Ok(())
    }

    fn claim_told(&mut self, worker: WorkerId, shard: ShardId, outcome: Outcome) -> Result<(), String> {
        let Some((_, take_over)) = self.workers[worker].claims.remove(&shard) else { return Ok(()) };
        let accepted = match outcome {
            Outcome::Stands(_) => take_over.accept(&mut self.log).map_err(|error| error.to_string())?,
            Outcome::Lost => Accepted::Again,
        };
        match accepted {
            Accepted::Owned(owned) => {
                self.report.takeovers += 1;
                self.catch_up(shard, owned.epoch())?;
                let taken = self.sinks[shard as usize].taken;
                self.pipeline(worker).adopt(*owned, taken);
            }
            Accepted::Again => self.take_over_later(worker, shard),
        }
        Ok(())
    }

    /// Brings the store of a shard up to what its new owner begins with.
    fn catch_up(&mut self, shard: ShardId, epoch: u64) -> Result<(), String> {
        let store = &mut self.stores[shard as usize];
        let changes = &self.audit.shards[shard as usize].changes;
        for missing in store.applied_epoch()? + 1..=epoch {
            store.apply(missing, &changes[missing as usize - 1])?;
        }
        Ok(())
    }
}

/// Troubles from outside, and their end.
impl World<'_> {
    fn trouble(&mut self) -> Result<(), String> {
        if self.is_calm {
            return Ok(());
        }
        let ms = self.random.between(10, 100);
        self.after(ms, Event::Trouble);
        if self.random.chance(self.faults.pause) {
            self.pause();
        }
        if self.workers.len() > 1 && self.random.chance(self.faults.moved) {
            let shard = self.random.place(self.named.len());
            self.move_shard(shard);
        }
        if self.random.chance(self.faults.rot) {
            return self.rot();
        }
        Ok(())
    }

    /// Stops a worker for a while; others may be given its shards, so that it wakes as a zombie.
    fn pause(&mut self) {
        let worker = self.random.place(self.workers.len());
        self.workers[worker].paused_until = self.now + self.random.between(20, 1_500);
        self.report.pauses += 1;
        if self.workers.len() == 1 || !self.random.chance(500) {
            return;
        }
        for shard in 0..self.named.len() {
            if self.named[shard] == worker {
                self.move_shard(shard);
            }
        }
    }

    fn move_shard(&mut self, shard: usize) {
        let to = self.random.place(self.workers.len());
        let from = std::mem::replace(&mut self.named[shard], to);
        self.report.moves += 1;
        for worker in [from, to] {
            let is_slow = self.random.chance(self.faults.slow_news);
            let ms = self.random.between(0, if is_slow { 2_000 } else { 30 });
            if self.workers[worker].pipeline.is_some() {
                self.after(ms, Event::News(self.life(worker), shard as ShardId));
            }
        }
    }

    /// Damages the newest snapshot of a shard, once, as all processes die; the older one of the two
    /// that are kept is good. Those who start again notice, because they have to read it: it is not
    /// behind what egresses have.
    fn rot(&mut self) -> Result<(), String> {
        let shard = self.random.place(self.named.len());
        let start = self.log.start(shard as ShardId);
        let mut marks = self.audit.shards[shard].marks.clone();
        marks.retain(|mark| mark.next_offset >= start);
        marks.sort_by_key(|mark| mark.epoch);
        marks.dedup_by_key(|mark| mark.epoch);
        let [.., _, newest] = &marks[..] else { return Ok(()) };
        if newest.epoch > self.sinks[shard].taken || !self.rotten.insert(shard) {
            return Ok(());
        }
        self.report.snapshots_rotten += 1;
        self.snapshots.put(&newest.name, b"rotten")?;
        (0..self.workers.len()).try_for_each(|worker| self.crash(worker))
    }

    fn calm(&mut self) {
        self.is_calm = true;
        self.faults = Faults::default();
        for worker in 0..self.workers.len() {
            self.workers[worker].paused_until = self.now;
            if self.workers[worker].pipeline.is_none() {
                continue;
            }
            for shard in 0..self.plan.shards {
                self.news(worker, shard);
            }
            self.wake(worker, 1);
        }
    }

    /// A client calls a handler of some key and waits for the answer; it never calls twice.
    fn request(&mut self) {
        if self.is_calm {
            return;
        }
        let ms = self.random.between(5, 60);
        self.after(ms, Event::Request);
        let id = self.requests;
        let Some(Asked { function, message, key, payload }) = self.workload.request(&mut self.random, id) else {
            return;
        };
        let hash = murmur2(&key);
        let shard = shard_of(hash, self.plan.shards);
        let owners: Vec<WorkerId> =
            (0..self.workers.len()).filter(|worker| self.owned(*worker, shard).is_some()).collect();
        if owners.is_empty() {
            return;
        }
        self.requests += 1;
        let worker = self.random.one_of(&owners);
        let functions = &self.program.functions;
        let function =
            functions.iter().position(|known| known.spec.name == function).expect("a function of the program");
        let handlers = &functions[function].spec.messages;
        let handler =
            handlers.iter().position(|handler| handler.message == message).expect("a message of the function");
        let mut calls = Calls::default();
        let call = Call::message(function as u16, handler as u16, hash, statefn_core::EventTime(0));
        calls.push(call, &key, &payload);
        let now = self.clock(worker);
        self.pipeline(worker).request(shard, &Request { id, calls }, now);
    }

    /// Whether time went on long enough for the timers that wait for the clock, and then all was done.
    fn has_lingered(&mut self) -> bool {
        let done_at = *self.done_at.get_or_insert(self.now);
        self.now >= done_at + self.workload.lingers_ms()
    }

    fn is_done(&mut self) -> bool {
        if !self.is_calm || self.flights > 0 || !self.report.steps.is_multiple_of(16) {
            return false;
        }
        for shard in 0..self.plan.shards {
            let worker = self.named[shard as usize];
            let Some(owned) = self.owned(worker, shard) else { return false };
            if owned.nonce() != self.audit.shards[shard as usize].image.nonce() {
                // A dead worker's late claim has deposed an owner that had nothing left to write.
                self.pipeline(worker).lost(shard);
                return false;
            }
        }
        self.workers.iter().all(|worker| worker.emissions.is_empty())
            && self.workers.iter().flat_map(|worker| &worker.pipeline).all(Pipeline::is_finished)
            && self
                .named
                .iter()
                .zip(0..)
                .all(|(worker, shard)| self.owned(*worker, shard).is_some_and(Shard::is_finished))
    }

    fn not_drained(&self) -> String {
        let shards = (0..self.plan.shards).map(|shard| {
            let worker = self.named[shard as usize];
            let Some(owned) = self.owned(worker, shard) else { return format!("shard {shard} has no owner") };
            let watermarks: Vec<String> =
                (0..self.program.stages.len()).map(|stage| owned.watermark(stage as u16).to_string()).collect();
            format!(
                "{owned:?} of worker {worker}: finished {}, changes {}, pending {}, unacknowledged {}, input ended {}, watermarks {}",
                owned.is_finished(),
                owned.has_changes(),
                owned.pending(),
                owned.unacknowledged_bytes(),
                owned.is_input_ended(),
                watermarks.join(" "),
            )
        });
        let shards: Vec<String> = shards.collect();
        format!("not drained after {} steps at {} (I8):\n{}", self.report.steps, self.now, shards.join("\n"))
    }

    fn check_end(&mut self) -> Result<(), String> {
        for shard in 0..self.plan.shards {
            let owner = self.workers[self.named[shard as usize]].pipeline.as_ref().expect("all workers live");
            let owner = owner.shards().find(|owned| owned.id() == shard).expect("every shard is owned");
            let at = shard as usize;
            let accounts = Accounts {
                shard,
                owner,
                committed: &self.audit.shards[at],
                store: &mut self.stores[at],
                sink: &self.sinks[at],
            };
            accounts.agree(&mut self.log, &mut self.snapshots, &mut self.report)?;
            self.report.parked += owner.parked_keys() as u64;
        }
        self.workload.check_running(&self.program, &self.audit)?;
        let end = End { program: &self.program, audit: &self.audit, answers: &self.answers };
        self.workload.check_end(&end)
    }
}
