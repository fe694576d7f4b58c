//! Readers: the partitions of the input, which shard hosts read themselves, in turn.
//!
//! A host that has nothing else to do reads the next stretch of a partition that nobody else reads
//! at the moment, and fans it out to all hosts, itself included, by their mailboxes. So what was
//! read and decoded is applied while it is still in the cache of the same core, one thread uses
//! one core, and several share the work of reading.
//!
//! Invariants: a partition is read by one host at a time, and its stretches enter each mailbox in
//! the order of their offsets, because they are posted before the partition is let go; no more than
//! [`STRETCHES_PER_HOST`] stretches of a partition for each host are on their way.
//!
//! A generator is code of the app and may wait for something, so it has a thread of its own.
//!
//! Deliberately absent: waiting of a host; one that may not read now is woken by its tick, by the
//! next stretch of another host, or when the pace of the ingress allows.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, TryLockError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, unbounded};
use statefn_core::{
    address::ShardId,
    ingress::{Batches, ErasedIngress, IngressBatch},
    ports::ingress::{ReadLimit, Source, finish_stretch},
    shard::{Shard, frame::Position},
};

use super::{
    InputPlace, Plan, RunError,
    coordinator::{Notice, spawn},
    shard_host::{Event, Share, Switchboard},
};
use crate::{
    failpoint::failpoint,
    ingress::{FileSource, GeneratorSource, SourceError},
};

/// How many stretches of a partition may be on their way for each host.
const STRETCHES_PER_HOST: usize = 2;
/// How many records a stretch has at most: some for each shard, as each has a cost of its own, and no
/// more, so that what was decoded is still in the second cache of the core when it is applied.
const RECORDS_PER_SHARD: u64 = 16;
const RECORDS: std::ops::RangeInclusive<u64> = 1024..=16_384;
/// How many bytes a stretch has at most.
const BYTES_MAX: u64 = 512 * 1024;
/// The same for a generator, which is on another core: stretches are large, so that they are few.
const STRETCHES_OF_GENERATOR: usize = 8;
const STRETCH_OF_GENERATOR: ReadLimit = ReadLimit { records: 16_384, bytes: 2 * 1024 * 1024 };
/// How often a throttled ingress is read.
const THROTTLE_INTERVAL: Duration = Duration::from_millis(1);

/// The right to have one stretch on its way; given back when dropped.
pub(crate) struct Permit(Arc<AtomicUsize>);

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
}

struct Partition {
    is_generator: bool,
    /// The most that one stretch takes.
    stretch: ReadLimit,
    /// How many stretches may be on their way.
    stretches: usize,
    pace: Arc<Pace>,
    /// Stretches read so far: partitions take turns, so that none holds the watermark back for
    /// longer than it must.
    turns: AtomicU64,
    /// Its stretches on their way, and the one that is read.
    on_their_way: Arc<AtomicUsize>,
    is_ended: AtomicBool,
    reader: Mutex<Reader>,
}

/// How fast an ingress may be read, all partitions together.
struct Pace {
    records_per_second: Option<f64>,
    started_at: Instant,
    records: AtomicU64,
}

struct Reader {
    /// The place of the ingress in the program.
    place: usize,
    ingress: Arc<dyn ErasedIngress>,
    partition: u32,
    source: Box<AnySource>,
    batches: Batches,
    /// By shard: batches that came back and are empty.
    spare: Vec<Vec<IngressBatch>>,
    spares: (Sender<Spares>, Receiver<Spares>),
}

/// Batches that came back, with the shards they were for.
type Spares = Vec<(ShardId, IngressBatch)>;

impl Readers {
    /// Opens every partition where the last shard stands; those that have ended are left out.
    ///
    /// # Errors
    /// If one of them cannot be read; nothing was read then.
    pub(super) fn open(plan: &Plan, shards: &[Shard], hosts: usize) -> Result<Self, SourceError> {
        let mut partitions = Vec::new();
        for (place, input) in plan.inputs.iter().enumerate() {
            let pace = Arc::new(Pace::new(input.records_per_second));
            for (partition, at) in (0..).zip(&input.places) {
                let positions = shards.iter().map(|shard| shard.position(place, partition));
                let first = positions.min_by_key(|position| (position.is_ended, position.offset)).unwrap_or_default();
                if first.is_ended {
                    continue;
                }
                let reader = Reader {
                    place,
                    ingress: Arc::clone(&plan.ingresses[place]),
                    partition,
                    source: open(at, first)?,
                    batches: Batches::new(plan.shards),
                    spare: vec![Vec::new(); plan.shards as usize],
                    spares: unbounded(),
                };
                let is_generator = matches!(at, InputPlace::Generator);
                partitions.push(Partition {
                    is_generator,
                    stretch: if is_generator { STRETCH_OF_GENERATOR } else { stretch_of(plan.shards) },
                    stretches: if is_generator { STRETCHES_OF_GENERATOR } else { STRETCHES_PER_HOST * hosts },
                    pace: Arc::clone(&pace),
                    turns: AtomicU64::new(0),
                    on_their_way: Arc::default(),
                    is_ended: AtomicBool::new(false),
                    reader: Mutex::new(reader),
                });
            }
        }
        let open = AtomicUsize::new(partitions.len());
        let (stopped, reading) = (AtomicBool::new(false), AtomicUsize::new(0));
        Ok(Self { partitions, open, stopped, reading })
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
        while !self.stopped.load(Ordering::SeqCst) && !partition.is_ended.load(Ordering::Acquire) {
            match self.read_one_of(vec![partition], switchboard) {
                Ok(Attempt::Read) => {}
                Ok(Attempt::Nothing | Attempt::Later(_)) => std::thread::sleep(THROTTLE_INTERVAL),
                Err(error) => return switchboard.notify(Notice::SourceFailed(error)),
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
    ///
    /// # Errors
    /// If an input cannot be read on; what was read before that place is on its way.
    pub(crate) fn read(&self, switchboard: &Switchboard) -> Result<Attempt, SourceError> {
        self.read_one_of(self.partitions.iter().filter(|partition| !partition.is_generator).collect(), switchboard)
    }

    fn read_one_of(&self, partitions: Vec<&Partition>, switchboard: &Switchboard) -> Result<Attempt, SourceError> {
        self.reading.fetch_add(1, Ordering::SeqCst);
        let attempt = match self.stopped.load(Ordering::SeqCst) {
            true => Ok(Attempt::Nothing),
            false => self.read_first_of(partitions, switchboard),
        };
        self.reading.fetch_sub(1, Ordering::SeqCst);
        attempt
    }

    fn read_first_of(&self, mut order: Vec<&Partition>, switchboard: &Switchboard) -> Result<Attempt, SourceError> {
        order.retain(|partition| partition.may_be_read());
        order.sort_by_key(|partition| partition.turns.load(Ordering::Relaxed));
        let mut attempt = Attempt::Nothing;
        for partition in order {
            let Some(mut reader) = partition.try_lock() else { continue };
            let Some(limit) = partition.pace.limit(partition.stretch) else {
                attempt = Attempt::Later(THROTTLE_INTERVAL);
                continue;
            };
            partition.on_their_way.fetch_add(1, Ordering::AcqRel);
            let permit = Permit(Arc::clone(&partition.on_their_way));
            let read = reader.read(limit, &partition.pace, switchboard, permit);
            // One input that cannot be read on ends the run: the others are not read further.
            let is_ended = read.inspect_err(|_| self.stop())?;
            partition.turns.fetch_add(1, Ordering::Relaxed);
            // Another host may have found the end as well; it is counted once.
            if is_ended && !partition.is_ended.swap(true, Ordering::AcqRel) {
                self.open.fetch_sub(1, Ordering::AcqRel);
            }
            return Ok(Attempt::Read);
        }
        Ok(attempt)
    }
}

impl Partition {
    fn may_be_read(&self) -> bool {
        !self.is_ended.load(Ordering::Acquire) && self.on_their_way.load(Ordering::Acquire) < self.stretches
    }

    /// The reader, unless another host has it. One that a panic left behind belongs to a run that is over.
    fn try_lock(&self) -> Option<MutexGuard<'_, Reader>> {
        match self.reader.try_lock() {
            Ok(reader) => Some(reader),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
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

impl Reader {
    fn read(
        &mut self,
        limit: ReadLimit,
        pace: &Pace,
        switchboard: &Switchboard,
        permit: Permit,
    ) -> Result<bool, SourceError> {
        self.take_spares();
        let before = (self.source.position().records, self.source.dead_letters());
        let stretch = self.source.read(&*self.ingress, &mut self.batches, limit)?;
        let records = stretch.to.records - before.0;
        pace.records.fetch_add(records, Ordering::Relaxed);
        let status = &switchboard.status;
        status.records.fetch_add(records, Ordering::Relaxed);
        status.unreadable.fetch_add(self.source.dead_letters() - before.1, Ordering::Relaxed);
        status.read_permille.store(self.source.read_permille(), Ordering::Relaxed);
        finish_stretch(&mut self.batches, self.place, self.partition, stretch);
        failpoint("reader/stretch-read");
        self.fan_out(permit, switchboard);
        failpoint("reader/fanned-out");
        Ok(stretch.to.is_ended)
    }

    /// Fills the batches whose memory was used last: it is near.
    fn take_spares(&mut self) {
        for (shard, mut batch) in self.spares.1.try_iter().flatten() {
            batch.clear();
            self.spare[shard as usize].push(batch);
        }
        for (batch, spare) in self.batches.shards.iter_mut().zip(&mut self.spare) {
            if let Some(spare) = spare.pop() {
                *batch = spare;
            }
        }
    }

    fn fan_out(&mut self, permit: Permit, switchboard: &Switchboard) {
        let permit = Arc::new(permit);
        let hosts = switchboard.states.len();
        let mut shares: Vec<Spares> = (0..hosts).map(|_| Vec::new()).collect();
        for (shard, batch) in (0..).zip(&mut self.batches.shards) {
            shares[switchboard.host_of(shard)].push((shard, std::mem::take(batch)));
        }
        for (host, batches) in shares.into_iter().enumerate() {
            let share = Share { batches, spares: self.spares.0.clone(), _permit: Arc::clone(&permit) };
            switchboard.post(host, vec![Event::Input(share)]);
            failpoint("reader/share-posted");
        }
    }
}

/// What a reader reads, of any kind.
type AnySource = dyn Source<Error = SourceError>;

/// How much hosts read at a time.
fn stretch_of(shards: u32) -> ReadLimit {
    let records = (u64::from(shards) * RECORDS_PER_SHARD).clamp(*RECORDS.start(), *RECORDS.end());
    ReadLimit { records, bytes: BYTES_MAX }
}

/// Opens what an ingress reads.
fn open(place: &InputPlace, position: Position) -> Result<Box<AnySource>, SourceError> {
    Ok(match place {
        InputPlace::File(path, format) => Box::new(FileSource::open(path, *format, position)?),
        InputPlace::Generator => Box::new(GeneratorSource::new(position)),
    })
}
