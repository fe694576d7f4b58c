//! The thread of an ingress: reads its partitions in turn and fans each stretch out to the hosts.

use std::{
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use statefn_core::{
    address::ShardId,
    ingress::{Batches, ErasedIngress, IngressBatch},
    ports::ingress::{ReadLimit, Source, finish_stretch},
    shard::frame::Position,
};

use super::{
    InputPlace, RunError, Stop,
    coordinator::{Notice, spawn},
    shard_host::{Event, Share, Switchboard},
};
use crate::{
    failpoint::failpoint,
    ingress::{FileSource, GeneratorSource, SourceError},
};

/// How many stretches may be on their way to hosts.
const STRETCHES: usize = 8;
/// How large a stretch is at most.
const STRETCH: ReadLimit = ReadLimit { records: 16_384, bytes: 2 * 1024 * 1024 };
/// How often a throttled reader reads.
const THROTTLE_INTERVAL: Duration = Duration::from_millis(10);

/// The right to have one stretch on its way; given back when dropped.
pub(crate) struct Permit(Sender<()>);

impl Drop for Permit {
    fn drop(&mut self) {
        // The reader is gone when nothing is to be read any more.
        let _ = self.0.try_send(());
    }
}

/// What a reader reads.
pub(crate) struct Work {
    pub(crate) place: usize,
    pub(crate) ingress: Arc<dyn ErasedIngress>,
    /// The partitions, and where each begins; those that have ended are not here.
    pub(crate) partitions: Vec<(u32, InputPlace, Position)>,
    pub(crate) records_per_second: Option<f64>,
    pub(crate) shards: u32,
}

/// Starts the thread; it ends with the input, or when `stop` says so.
pub(crate) fn start(work: Work, switchboard: Arc<Switchboard>, stop: Stop) -> Result<JoinHandle<()>, RunError> {
    let name = format!("reader-{}", work.place);
    spawn(&name, move || {
        let (give, permits) = bounded(STRETCHES);
        (0..STRETCHES).for_each(|_| _ = give.try_send(()));
        let batches = Batches::new(work.shards);
        let spare = (0..work.shards).map(|_| Vec::new()).collect();
        let spares = unbounded();
        let started_at = Instant::now();
        let mut reader = Reader { work, switchboard, stop, batches, spare, spares, give, permits, started_at, read: 0 };
        if let Err(error) = reader.run() {
            reader.switchboard.notify(Notice::SourceFailed(error));
        }
    })
}

/// What a reader reads, of any kind.
type AnySource = dyn Source<Error = SourceError>;

/// Opens what an ingress reads; a place that cannot be read is found before anything runs.
fn open(place: &InputPlace, position: Position) -> Result<Box<AnySource>, SourceError> {
    Ok(match place {
        InputPlace::File(path, format) => Box::new(FileSource::open(path, *format, position)?),
        InputPlace::Generator => Box::new(GeneratorSource::new(position)),
    })
}

/// Batches that came back, with the shards they were for.
type Spares = Vec<(ShardId, IngressBatch)>;

struct Reader {
    work: Work,
    switchboard: Arc<Switchboard>,
    stop: Stop,
    batches: Batches,
    /// By shard: batches that came back and are empty.
    spare: Vec<Vec<IngressBatch>>,
    spares: (Sender<Spares>, Receiver<Spares>),
    give: Sender<()>,
    permits: Receiver<()>,
    started_at: Instant,
    /// Records read since the start, all partitions together.
    read: u64,
}

impl Reader {
    fn run(&mut self) -> Result<(), SourceError> {
        let mut sources = Vec::new();
        for (partition, place, position) in &self.work.partitions {
            sources.push((*partition, open(place, *position)?));
        }
        // Partitions take turns, so that none holds the watermark back for longer than it must.
        while !sources.is_empty() {
            let mut open = Vec::with_capacity(sources.len());
            for (partition, mut source) in sources {
                let Some(permit) = self.permit() else { return Ok(()) };
                let is_ended = self.read(partition, &mut *source, permit)?;
                if !is_ended {
                    open.push((partition, source));
                }
            }
            sources = open;
        }
        Ok(())
    }

    /// Waits until another stretch may be read; `None` if the run stops.
    fn permit(&self) -> Option<Permit> {
        loop {
            if self.stop.is_stopped() {
                return None;
            }
            if self.permits.recv_timeout(Duration::from_millis(50)).is_ok() {
                return Some(Permit(self.give.clone()));
            }
        }
    }

    fn read(&mut self, partition: u32, source: &mut AnySource, permit: Permit) -> Result<bool, SourceError> {
        let before = (source.position().records, source.dead_letters());
        let limit = self.limit();
        let stretch = source.read(&*self.work.ingress, &mut self.batches, limit)?;
        let status = &self.switchboard.status;
        let records = stretch.to.records - before.0;
        self.read += records;
        status.records.fetch_add(records, Ordering::Relaxed);
        status.unreadable.fetch_add(source.dead_letters() - before.1, Ordering::Relaxed);
        status.read_permille.store(source.read_permille(), Ordering::Relaxed);
        finish_stretch(&mut self.batches, self.work.place, partition, stretch);
        failpoint("reader/stretch-read");
        self.fan_out(permit);
        failpoint("reader/fanned-out");
        Ok(stretch.to.is_ended)
    }

    /// How much may be read now; waits for it if the ingress is throttled.
    fn limit(&self) -> ReadLimit {
        let Some(rate) = self.work.records_per_second else { return STRETCH };
        loop {
            let allowed = (self.started_at.elapsed().as_secs_f64() * rate) as u64;
            let records = allowed.saturating_sub(self.read).min(STRETCH.records);
            if records > 0 || self.stop.is_stopped() {
                return ReadLimit { records: records.max(1), ..STRETCH };
            }
            std::thread::sleep(THROTTLE_INTERVAL);
        }
    }

    fn fan_out(&mut self, permit: Permit) {
        for (shard, mut batch) in self.spares.1.try_iter().flatten() {
            batch.clear();
            self.spare[shard as usize].push(batch);
        }
        let permit = Arc::new(permit);
        let hosts = self.switchboard.states.len();
        let mut shares: Vec<Vec<(u32, IngressBatch)>> = (0..hosts).map(|_| Vec::new()).collect();
        for (shard, batch) in (0..).zip(&mut self.batches.shards) {
            // The next batch of this shard will be about as large.
            let spare = self.spare[shard as usize].pop();
            let empty = spare.unwrap_or_else(|| IngressBatch::like(batch));
            shares[self.switchboard.host_of(shard)].push((shard, std::mem::replace(batch, empty)));
        }
        for (host, batches) in shares.into_iter().enumerate() {
            let share = Share { batches, spares: self.spares.0.clone(), _permit: Arc::clone(&permit) };
            self.switchboard.post(host, vec![Event::Input(share)]);
            failpoint("reader/share-posted");
        }
    }
}
