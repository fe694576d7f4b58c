//! Readers: the partitions of the input, which shard hosts read themselves, side by side.
//!
//! A host that has nothing else to do cuts the next stretch out of a partition, decodes and routes
//! it, and fans it out to all hosts, itself included, by their mailboxes. So what was read and
//! decoded is applied while it is still in the cache of the same core, one thread uses one core,
//! and several share the work of one file: only cutting has to be done by one at a time.
//!
//! ```text
//! host 0:  cut 1 | route 1 ........... | deliver 1 | cut 3 | ..
//! host 1:        | cut 2 | route 2 ... (waits for 1) ... deliver 2
//! ```
//! What a router makes of a stretch may be far more than the stretch. What goes beyond the limit
//! stays as it was cut, and is routed once everything before it was delivered, part by part.
//!
//! Invariants: a partition is cut by one host at a time, and its stretches enter each mailbox in
//! the order of their offsets, because whoever has the next one delivers it and all that wait for
//! it; no more stretches of a partition are on their way than there are hosts, and
//! [`STRETCHES_BESIDES`];
//! an input that cannot be read on ends the run once everything before that place was delivered.
//!
//! A generator is code of the app and may wait for something, so it has a thread of its own.
//!
//! Deliberately absent: waiting of a host; one that may not read now is woken by its tick, by the
//! next stretch of another host, or when the pace of the ingress allows.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, unbounded};
use statefn_core::{
    address::ShardId,
    ingress::{Batches, ErasedIngress, IngressBatch},
    ports::ingress::{ReadLimit, Source, Stretch, finish_stretch},
    shard::{Shard, frame::Position},
};

use super::{
    InputPlace, Plan, RunError,
    coordinator::{Notice, spawn},
    pauses::Pauses,
    shard_host::{Event, Share, Switchboard},
};
use crate::{
    failpoint::failpoint,
    ingress::{FileSource, Frontier, GeneratorSource, RawStretch, Routed, SourceError},
};

/// How many stretches of a partition may be on their way besides one for each host: each more takes room
/// in the caches, which costs more than a host that waits.
const STRETCHES_BESIDES: usize = 1;
/// How many records a stretch has at most: some for each shard, as each has a cost of its own, and no
/// more, so that what was decoded is still in the second cache of the core when it is applied.
const RECORDS_PER_SHARD: u64 = 16;
const RECORDS: std::ops::RangeInclusive<u64> = 1024..=16_384;
/// How many bytes a stretch has at most.
const BYTES_MAX: u64 = 512 * 1024;
/// The same for a generator, which is on another core: stretches are large, so that they are few.
const STRETCHES_OF_GENERATOR: usize = 8;
const STRETCH_OF_GENERATOR: ReadLimit = ReadLimit { records: 16_384, bytes: 2 * 1024 * 1024 };
/// How often a throttled ingress is read; timers of hosts are no finer.
const THROTTLE_INTERVAL: Duration = Duration::from_millis(1);
/// How long the thread of a generator sleeps when it may not go on.
const GENERATOR_PAUSE: Duration = Duration::from_micros(200);

/// The right to have one stretch on its way; given back when dropped.
pub(crate) struct Permit(Arc<AtomicUsize>);

impl Permit {
    /// One of those that `held` counts, and counts already.
    pub(super) fn new(held: Arc<AtomicUsize>) -> Self {
        Self(held)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What came of an attempt to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// A stretch is on its way to the hosts.
    Read,
    /// Nothing may be read until something else happens.
    Nothing,
    /// The pace of an ingress allows more after this time.
    Later(Duration),
}

/// The partitions of all ingresses; see the module.
pub(crate) struct Readers {
    partitions: Vec<Partition>,
    /// How many partitions have not ended.
    open: AtomicUsize,
    stopped: AtomicBool,
    /// How many threads read at this moment.
    reading: AtomicUsize,
    pauses: Option<Arc<Pauses>>,
}

struct Partition {
    is_generator: bool,
    /// The place of the ingress in the program.
    place: usize,
    ingress: Arc<dyn ErasedIngress>,
    number: u32,
    /// The most that one stretch takes.
    stretch: ReadLimit,
    /// How many stretches may be on their way.
    stretches: usize,
    pace: Arc<Pace>,
    /// Stretches read so far: partitions take turns, so that none holds the watermark back for
    /// longer than it must.
    turns: AtomicU64,
    /// Its stretches on their way, and those that are cut or routed.
    on_their_way: Arc<AtomicUsize>,
    /// Whether nothing is left to cut.
    is_cut: AtomicBool,
    /// Whether what was cut and goes beyond a limit is to be routed before anything else.
    has_rest: AtomicBool,
    source: Mutex<AnySource>,
    delivery: Mutex<Delivery>,
}

/// What a partition is read from, and the number of the next stretch.
enum AnySource {
    File(Box<FileSource>, u64),
    Generator(GeneratorSource),
}

/// Brings stretches back into the order of their offsets.
struct Delivery {
    frontier: Frontier,
    /// The number of the stretch that is delivered next.
    next: u64,
    /// Stretches that were routed before their turn.
    early: BTreeMap<u64, Arrival>,
    /// The stretch `next`, as far as its parts before were delivered.
    rest: Option<RawStretch>,
    is_over: bool,
    /// Memory that is used again.
    spare_raw: Vec<RawStretch>,
    spare_batches: Vec<Batches>,
    /// By shard: batches that came back and are empty.
    spare: Vec<Vec<IngressBatch>>,
    spares: (Sender<Spares>, Receiver<Spares>),
}

/// A stretch that was cut and routed, or why there is none.
struct Arrival {
    outcome: Result<(Routed, Batches), SourceError>,
    raw: RawStretch,
    permit: Permit,
}

/// How fast an ingress may be read, all partitions together.
struct Pace {
    records_per_second: Option<f64>,
    started_at: Instant,
    records: AtomicU64,
}

/// Batches that came back, with the shards they were for.
type Spares = Vec<(ShardId, IngressBatch)>;

impl Readers {
    /// Opens every partition where the last shard stands; those that have ended are left out.
    ///
    /// # Errors
    /// If one of them cannot be read; nothing was read then.
    pub(super) fn open(
        plan: &Plan,
        shards: &[Shard],
        hosts: usize,
        pauses: Option<&Arc<Pauses>>,
    ) -> Result<Self, SourceError> {
        let mut partitions = Vec::new();
        for (place, input) in plan.inputs.iter().enumerate() {
            let pace = Arc::new(Pace::new(input.records_per_second));
            for (partition, at) in (0..).zip(&input.places) {
                let positions = shards.iter().map(|shard| shard.position(place, partition));
                let first = positions.min_by_key(|position| (position.is_ended, position.offset)).unwrap_or_default();
                if first.is_ended {
                    continue;
                }
                let source = open(at, first)?;
                let is_generator = matches!(source, AnySource::Generator(_));
                partitions.push(Partition {
                    is_generator,
                    place,
                    ingress: Arc::clone(&plan.ingresses[place]),
                    number: partition,
                    stretch: if is_generator { STRETCH_OF_GENERATOR } else { stretch_of(plan.shards) },
                    stretches: if is_generator { STRETCHES_OF_GENERATOR } else { hosts + STRETCHES_BESIDES },
                    pace: Arc::clone(&pace),
                    turns: AtomicU64::new(0),
                    on_their_way: Arc::default(),
                    is_cut: AtomicBool::new(false),
                    has_rest: AtomicBool::new(false),
                    source: Mutex::new(source),
                    delivery: Mutex::new(Delivery::new(first, plan.shards)),
                });
            }
        }
        let open = AtomicUsize::new(partitions.len());
        let (stopped, reading) = (AtomicBool::new(false), AtomicUsize::new(0));
        Ok(Self { partitions, open, stopped, reading, pauses: pauses.cloned() })
    }

    /// Readers of nothing.
    pub(super) fn none() -> Self {
        let (stopped, reading) = (AtomicBool::new(false), AtomicUsize::new(0));
        Self { partitions: Vec::new(), open: AtomicUsize::new(0), stopped, reading, pauses: None }
    }

    /// Starts the threads of the generators; each ends with its records, or when reading stops.
    pub(super) fn start_generators(
        self: &Arc<Self>,
        switchboard: &Arc<Switchboard>,
    ) -> Result<Vec<JoinHandle<()>>, RunError> {
        let generators = self.partitions.iter().enumerate().filter(|(_, partition)| partition.is_generator);
        let start = |(place, _)| {
            let (readers, switchboard) = (Arc::clone(self), Arc::clone(switchboard));
            spawn(&format!("generator-{place}"), move || readers.generate(place, &switchboard))
        };
        generators.map(start).collect()
    }

    fn generate(&self, place: usize, switchboard: &Switchboard) {
        let partition = &self.partitions[place];
        while !self.stopped.load(Ordering::SeqCst) && !partition.is_cut.load(Ordering::Acquire) {
            if self.read_one_of(vec![partition], switchboard) != Attempt::Read {
                std::thread::sleep(GENERATOR_PAUSE);
            }
        }
    }

    /// Ends all reading.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    /// Whether nothing is read any more.
    pub(crate) fn is_over(&self) -> bool {
        // A thread says that it reads before it looks whether it may.
        let is_stopped = self.stopped.load(Ordering::SeqCst) && self.reading.load(Ordering::SeqCst) == 0;
        is_stopped || self.open.load(Ordering::Acquire) == 0
    }

    /// Reads one stretch of the partition whose turn it is, if one may be read now.
    pub(crate) fn read(&self, switchboard: &Switchboard) -> Attempt {
        self.read_one_of(self.partitions.iter().filter(|partition| !partition.is_generator).collect(), switchboard)
    }

    fn read_one_of(&self, partitions: Vec<&Partition>, switchboard: &Switchboard) -> Attempt {
        self.reading.fetch_add(1, Ordering::SeqCst);
        let attempt = match self.stopped.load(Ordering::SeqCst) {
            true => Attempt::Nothing,
            false => self.read_first_of(partitions, switchboard),
        };
        self.reading.fetch_sub(1, Ordering::SeqCst);
        attempt
    }

    fn read_first_of(&self, mut order: Vec<&Partition>, switchboard: &Switchboard) -> Attempt {
        let is_held = |place| self.pauses.as_ref().is_some_and(|pauses| pauses.holds_ingress(place));
        order.retain(|partition| partition.may_be_read() && !is_held(partition.place));
        order.sort_by_key(|partition| partition.turns.load(Ordering::Relaxed));
        let mut attempt = Attempt::Nothing;
        for partition in order {
            match partition.read(self, switchboard) {
                Attempt::Read => {
                    partition.turns.fetch_add(1, Ordering::Relaxed);
                    return Attempt::Read;
                }
                Attempt::Later(wait) => attempt = Attempt::Later(wait),
                Attempt::Nothing => {}
            }
        }
        attempt
    }
}

impl Partition {
    fn may_be_read(&self) -> bool {
        let on_their_way = self.on_their_way.load(Ordering::Acquire);
        // All stretches on their way may wait for the rest of the one before them.
        let is_rest = self.has_rest.load(Ordering::Acquire) && on_their_way <= self.stretches;
        is_rest || !self.is_cut.load(Ordering::Acquire) && on_their_way < self.stretches
    }

    fn read(&self, readers: &Readers, switchboard: &Switchboard) -> Attempt {
        if self.has_rest.load(Ordering::Acquire) {
            return self.route_rest(readers, switchboard);
        }
        let Some(mut source) = unless_taken(&self.source) else { return Attempt::Nothing };
        if self.is_cut.load(Ordering::Acquire) {
            // Another host has found the end in the meantime, which is told once.
            return Attempt::Nothing;
        }
        let Some(limit) = self.pace.limit(self.stretch) else { return Attempt::Later(THROTTLE_INTERVAL) };
        let permit = self.permit();
        match &mut *source {
            AnySource::File(file, next) => {
                let mut raw = lock(&self.delivery).spare_raw.pop().unwrap_or_default();
                let cut = file.cut(&mut raw, limit);
                let number = *next;
                *next += 1;
                // Behind an error there is nothing: everything before it is on its way.
                if cut.is_err() || raw.is_last() {
                    self.is_cut.store(true, Ordering::Release);
                }
                self.pace.records.fetch_add(raw.records(), Ordering::Relaxed);
                switchboard.status.read_permille.store(file.read_permille(), Ordering::Relaxed);
                drop(source);
                let outcome = cut.map(|()| self.route(&mut raw));
                self.deliver(number, Arrival { outcome, raw, permit }, readers, switchboard);
            }
            AnySource::Generator(generator) => {
                let mut batches = lock(&self.delivery).batches();
                let before = (generator.position().records, generator.dead_letters());
                let stretch = match generator.read(&*self.ingress, &mut batches, limit) {
                    Ok(stretch) => stretch,
                    Err(error) => {
                        self.fail(&mut lock(&self.delivery), error, readers, switchboard);
                        return Attempt::Nothing;
                    }
                };
                let counts = [stretch.to.records - before.0, generator.dead_letters() - before.1];
                self.pace.records.fetch_add(counts[0], Ordering::Relaxed);
                self.is_cut.store(stretch.to.is_ended, Ordering::Release);
                let mut delivery = lock(&self.delivery);
                self.post(&mut delivery, batches, (stretch, counts), permit, readers, switchboard);
            }
        }
        Attempt::Read
    }

    fn permit(&self) -> Permit {
        self.on_their_way.fetch_add(1, Ordering::AcqRel);
        Permit(Arc::clone(&self.on_their_way))
    }

    fn route(&self, raw: &mut RawStretch) -> (Routed, Batches) {
        let mut batches = lock(&self.delivery).batches();
        let routed = raw.route(&*self.ingress, &mut batches, self.stretch);
        (routed, batches)
    }

    /// Delivers a stretch if it is its turn, and then those that waited for it.
    fn deliver(&self, number: u64, arrival: Arrival, readers: &Readers, switchboard: &Switchboard) {
        let mut delivery = lock(&self.delivery);
        delivery.early.insert(number, arrival);
        self.deliver_early(&mut delivery, readers, switchboard);
    }

    fn deliver_early(&self, delivery: &mut Delivery, readers: &Readers, switchboard: &Switchboard) {
        while delivery.rest.is_none() && !delivery.is_over {
            let next = delivery.next;
            let Some(Arrival { outcome, raw, permit }) = delivery.early.remove(&next) else { return };
            match outcome {
                Ok((routed, batches)) => {
                    self.pass(delivery, (routed, batches), raw, permit, readers, switchboard);
                }
                Err(error) => self.fail(delivery, error, readers, switchboard),
            }
        }
    }

    /// Posts what was routed of the stretch whose turn it is, and keeps what is left of it.
    fn pass(
        &self,
        delivery: &mut Delivery,
        (routed, batches): (Routed, Batches),
        mut raw: RawStretch,
        permit: Permit,
        readers: &Readers,
        switchboard: &Switchboard,
    ) {
        let counts = [routed.records(), routed.dead_letters()];
        let (stretch, error) = delivery.frontier.pass(routed);
        self.post(delivery, batches, (stretch, counts), permit, readers, switchboard);
        if let Some(error) = error {
            return self.fail(delivery, error, readers, switchboard);
        }
        if raw.is_done() {
            delivery.next += 1;
            delivery.spare_raw.push(raw);
            return;
        }
        if delivery.frontier.is_proven() {
            raw.prove();
        }
        delivery.rest = Some(raw);
        self.has_rest.store(true, Ordering::Release);
    }

    /// Routes the next part of what went beyond a limit; nothing behind it is delivered before.
    fn route_rest(&self, readers: &Readers, switchboard: &Switchboard) -> Attempt {
        let Some(mut delivery) = unless_taken(&self.delivery) else { return Attempt::Nothing };
        let Some(mut raw) = delivery.rest.take() else { return Attempt::Nothing };
        self.has_rest.store(false, Ordering::Release);
        let permit = self.permit();
        let mut batches = delivery.batches();
        let routed = raw.route(&*self.ingress, &mut batches, self.stretch);
        self.pass(&mut delivery, (routed, batches), raw, permit, readers, switchboard);
        self.deliver_early(&mut delivery, readers, switchboard);
        Attempt::Read
    }

    /// One input that cannot be read on ends the run: the others are not read further.
    fn fail(&self, delivery: &mut Delivery, error: SourceError, readers: &Readers, switchboard: &Switchboard) {
        delivery.is_over = true;
        self.is_cut.store(true, Ordering::Release);
        readers.stop();
        switchboard.notify(Notice::SourceFailed(error));
    }

    fn post(
        &self,
        delivery: &mut Delivery,
        mut batches: Batches,
        (stretch, [records, dead_letters]): (Stretch, [u64; 2]),
        permit: Permit,
        readers: &Readers,
        switchboard: &Switchboard,
    ) {
        switchboard.status.records.fetch_add(records, Ordering::Relaxed);
        switchboard.status.unreadable.fetch_add(dead_letters, Ordering::Relaxed);
        finish_stretch(&mut batches, self.place, self.number, stretch);
        failpoint("reader/stretch-read");
        fan_out(&mut batches, &delivery.spares.0, permit, switchboard);
        failpoint("reader/fanned-out");
        delivery.spare_batches.push(batches);
        if stretch.to.is_ended {
            readers.open.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Delivery {
    fn new(from: Position, shards: u32) -> Self {
        Self {
            frontier: Frontier::new(from),
            next: 0,
            early: BTreeMap::new(),
            rest: None,
            is_over: false,
            spare_raw: Vec::new(),
            spare_batches: vec![Batches::new(shards)],
            spare: vec![Vec::new(); shards as usize],
            spares: unbounded(),
        }
    }

    /// Empty batches, in the memory that was used last: it is near.
    fn batches(&mut self) -> Batches {
        for (shard, mut batch) in self.spares.1.try_iter().flatten() {
            batch.clear();
            self.spare[shard as usize].push(batch);
        }
        let mut batches = self.spare_batches.pop().unwrap_or_else(|| Batches::new(self.spare.len() as u32));
        for (batch, spare) in batches.shards.iter_mut().zip(&mut self.spare) {
            if let Some(spare) = spare.pop() {
                *batch = spare;
            }
        }
        batches
    }
}

/// Sends each host the batches of its shards.
fn fan_out(batches: &mut Batches, spares: &Sender<Spares>, permit: Permit, switchboard: &Switchboard) {
    let permit = Arc::new(permit);
    let hosts = switchboard.states.len();
    let mut shares: Vec<Spares> = (0..hosts).map(|_| Vec::new()).collect();
    for (shard, batch) in (0..).zip(&mut batches.shards) {
        shares[switchboard.host_of(shard)].push((shard, std::mem::take(batch)));
    }
    for (host, batches) in shares.into_iter().enumerate() {
        let share = Share { batches, spares: spares.clone(), _permit: Arc::clone(&permit) };
        switchboard.post(host, vec![Event::Input(share)]);
        failpoint("reader/share-posted");
    }
}

/// What a lock guards. What a panic left behind belongs to a run that is over.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The same, unless another thread has it.
fn unless_taken<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

impl Pace {
    fn new(records_per_second: Option<f64>) -> Self {
        Self { records_per_second, started_at: Instant::now(), records: AtomicU64::new(0) }
    }

    /// How much may be read now, if anything.
    fn limit(&self, stretch: ReadLimit) -> Option<ReadLimit> {
        let Some(rate) = self.records_per_second else { return Some(stretch) };
        let allowed = (self.started_at.elapsed().as_secs_f64() * rate) as u64;
        let records = allowed.saturating_sub(self.records.load(Ordering::Relaxed)).min(stretch.records);
        (records > 0).then_some(ReadLimit { records, ..stretch })
    }
}

/// How much hosts read at a time.
fn stretch_of(shards: u32) -> ReadLimit {
    let records = (u64::from(shards) * RECORDS_PER_SHARD).clamp(*RECORDS.start(), *RECORDS.end());
    ReadLimit { records, bytes: BYTES_MAX }
}

/// Opens what an ingress reads.
fn open(place: &InputPlace, position: Position) -> Result<AnySource, SourceError> {
    Ok(match place {
        InputPlace::File(path, format) => AnySource::File(Box::new(FileSource::open(path, *format, position)?), 0),
        InputPlace::Generator => AnySource::Generator(GeneratorSource::new(position)),
    })
}
