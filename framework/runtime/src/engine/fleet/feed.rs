//! The input of a worker of a fleet: one thread reads every partition for all shards that are here.
//!
//! ```text
//! partition:   | read before | shard 3 stands here | shard 0, 1, 2 stand here | ...
//!                            ^ a worker that takes shard 3 over reads on from here
//! ```
//! Each shard has its own position of each partition in its frames, as in an app that is alone: the
//! thread reads from the lowest one, and a shard passes over what it has.
//!
//! Invariants: the stretches of a partition reach a host in order, each beginning where the one before
//! ended or earlier; a host passes over one that begins behind a shard's position, which is what was
//! on its way while the shard came: it comes again.
//!
//! Deliberately absent: any choice of which worker reads what. Every worker reads all partitions and
//! keeps what is for its shards (decision 0040).

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, unbounded};
use statefn_core::{
    address::ShardId,
    ingress::{Batches, ErasedIngress, IngressBatch},
    ports::{
        ingress::{ReadLimit, Stretch, finish_stretch},
        inspect,
    },
    shard::frame::Position,
};

use super::{
    super::{
        Intake, Plan, RunError,
        coordinator::{Notice, spawn},
        pauses::Pauses,
        reader::Permit,
        shard_host::{Event, Share, Switchboard},
        status::lock,
    },
    Feed,
};

/// How long the thread waits for records, or for hosts that take no more, before it looks for requests.
const PATIENCE: Duration = Duration::from_millis(5);
/// How many stretches may be on their way besides one for each host.
const STRETCHES_BESIDES: usize = 2;
/// How much one stretch takes.
const STRETCH: ReadLimit = ReadLimit { records: 4_096, bytes: 512 * 1024 };
/// How often an input that cannot be read is reported.
const TROUBLE_INTERVAL: Duration = Duration::from_secs(10);
/// How often it is looked whether an ingress has more partitions.
const GROWTH_INTERVAL: Duration = Duration::from_secs(5);
/// How often it is looked where the input ends, for those who watch.
const ENDS_INTERVAL: Duration = Duration::from_secs(2);

pub(crate) enum FeedRequest {
    /// A shard has come; by ingress and partition, where it stands.
    Opened(ShardId, Vec<Vec<Position>>),
    /// A shard has gone.
    Closed(ShardId),
    /// Nothing is to be read any more.
    Stop,
}

/// Starts the thread; it ends with [`FeedRequest::Stop`].
pub(super) fn start(
    feed: Box<dyn Feed>,
    plan: &Plan,
    intake: Option<&Intake>,
    switchboard: &Arc<Switchboard>,
) -> Result<(Sender<FeedRequest>, JoinHandle<()>), RunError> {
    let (sender, requests) = unbounded();
    let (spares, spare) = unbounded();
    let mut reader = Reader {
        feed,
        ingresses: plan.ingresses.clone(),
        pauses: intake.map(|intake| Arc::clone(intake.pauses())),
        inputs: intake.map(|intake| Arc::clone(&intake.inputs)),
        partitions: BTreeMap::new(),
        due: BTreeMap::new(),
        here: BTreeMap::new(),
        switchboard: Arc::clone(switchboard),
        on_their_way: Arc::default(),
        batches: Batches::new(plan.shards),
        spares,
        spare,
        told_at: None,
        grown_at: Instant::now(),
        ends_at: None,
    };
    let thread = spawn("feed", move || reader.run(&requests))?;
    Ok((sender, thread))
}

/// What is known of a partition that is read.
struct Followed {
    /// Where the next stretch begins.
    next: Position,
    is_resting: bool,
}

struct Reader {
    feed: Box<dyn Feed>,
    ingresses: Vec<Arc<dyn ErasedIngress>>,
    pauses: Option<Arc<Pauses>>,
    /// Where those who watch the app see what it reads.
    inputs: Option<Arc<Mutex<Vec<Vec<inspect::Partition>>>>>,
    /// By ingress and partition.
    partitions: BTreeMap<(usize, u32), Followed>,
    /// Those that are to be read from a position on.
    due: BTreeMap<(usize, u32), Position>,
    /// By shard that is here, by ingress and partition, where it stood when it came.
    here: BTreeMap<ShardId, Vec<Vec<Position>>>,
    switchboard: Arc<Switchboard>,
    on_their_way: Arc<AtomicUsize>,
    batches: Batches,
    spares: Sender<Vec<(ShardId, IngressBatch)>>,
    spare: Receiver<Vec<(ShardId, IngressBatch)>>,
    told_at: Option<Instant>,
    grown_at: Instant,
    ends_at: Option<Instant>,
}

impl Reader {
    fn run(&mut self, requests: &Receiver<FeedRequest>) {
        loop {
            let is_open = self.may_read();
            let first = if is_open { None } else { requests.recv_timeout(PATIENCE).ok() };
            for request in first.into_iter().chain(requests.try_iter()) {
                match request {
                    FeedRequest::Opened(shard, positions) => self.open(shard, positions),
                    FeedRequest::Closed(shard) => self.close(shard),
                    FeedRequest::Stop => return,
                }
            }
            self.follow();
            self.heed_pauses();
            if is_open {
                self.read();
            }
            self.look_for_growth();
            self.look_for_ends();
        }
    }

    fn may_read(&self) -> bool {
        let most = self.switchboard.states.len() + STRETCHES_BESIDES;
        !self.here.is_empty() && self.on_their_way.load(Ordering::Acquire) < most
    }

    /// Reads on from where a shard stands that has come, if that is before what is read already.
    fn open(&mut self, shard: ShardId, positions: Vec<Vec<Position>>) {
        for (ingress, partitions) in positions.iter().enumerate() {
            for (partition, position) in (0..).zip(partitions) {
                let followed = self.partitions.get(&(ingress, partition));
                let is_behind = |followed: &Followed| {
                    (position.offset, position.is_ended) < (followed.next.offset, followed.next.is_ended)
                };
                if !position.is_ended && followed.is_none_or(is_behind) {
                    self.due.insert((ingress, partition), *position);
                    // Until it is followed, no other shard may come in between.
                    self.partitions.insert((ingress, partition), Followed { next: *position, is_resting: false });
                }
            }
        }
        self.here.insert(shard, positions);
    }

    /// Begins to read the partitions that are due.
    fn follow(&mut self) {
        for (place, from) in std::mem::take(&mut self.due) {
            match self.feed.follow(place.0, place.1, from) {
                // Shards that have never read it learn where it begins, before its first record.
                Ok(to) if to.offset > from.offset => {
                    self.deliver(place.0, place.1, Stretch { from: from.offset, to });
                }
                Ok(_) => {}
                Err(error) => {
                    self.complain(&error);
                    self.due.insert(place, from);
                }
            }
        }
    }

    fn complain(&mut self, error: &str) {
        if self.told_at.is_none_or(|at| at.elapsed() >= TROUBLE_INTERVAL) {
            self.told_at = Some(Instant::now());
            tracing::error!("an input cannot be read, and is tried again: {error}");
        }
    }

    fn close(&mut self, shard: ShardId) {
        self.here.remove(&shard);
        if self.here.is_empty() {
            self.due.clear();
            for (ingress, partition) in std::mem::take(&mut self.partitions).into_keys() {
                self.feed.leave(ingress, partition);
            }
        }
    }

    /// Lets the partitions of ingresses rest that somebody has paused.
    fn heed_pauses(&mut self) {
        let Some(pauses) = &self.pauses else { return };
        for ((ingress, partition), followed) in &mut self.partitions {
            let is_held = pauses.holds_ingress(*ingress);
            if is_held != followed.is_resting {
                followed.is_resting = is_held;
                self.feed.rest(*ingress, *partition, is_held);
            }
        }
    }

    fn read(&mut self) {
        match self.feed.next(PATIENCE, STRETCH, &self.ingresses, &mut self.batches) {
            Ok(Some((ingress, partition, stretch))) => self.deliver(ingress, partition, stretch),
            Ok(None) => {}
            Err(error) => {
                self.complain(&error);
                std::thread::sleep(PATIENCE);
            }
        }
    }

    fn deliver(&mut self, ingress: usize, partition: u32, stretch: Stretch) {
        let Some(followed) = self.partitions.get_mut(&(ingress, partition)) else {
            return self.batches.shards.iter_mut().for_each(IngressBatch::clear);
        };
        let read = stretch.to.records.saturating_sub(followed.next.records);
        followed.next = stretch.to;
        let status = &self.switchboard.status;
        status.records.fetch_add(read, Ordering::Relaxed);
        finish_stretch(&mut self.batches, ingress, partition, stretch);
        let hosts = self.switchboard.states.len();
        let mut shares: Vec<Vec<(ShardId, IngressBatch)>> = std::iter::repeat_with(Vec::new).take(hosts).collect();
        let mut spare: Vec<IngressBatch> = self.spare.try_iter().flatten().map(|(_, batch)| batch).collect();
        for (shard, batch) in (0..).zip(&mut self.batches.shards) {
            status.unreadable.fetch_add(batch.dead_letters.len() as u64, Ordering::Relaxed);
            if self.here.contains_key(&shard) {
                let mut empty = spare.pop().unwrap_or_default();
                empty.clear();
                shares[self.switchboard.host_of(shard)].push((shard, std::mem::replace(batch, empty)));
            } else {
                batch.clear();
            }
        }
        self.on_their_way.fetch_add(1, Ordering::AcqRel);
        let permit = Arc::new(Permit::new(Arc::clone(&self.on_their_way)));
        for (host, batches) in shares.into_iter().enumerate().filter(|(_, batches)| !batches.is_empty()) {
            let share = Share { batches, spares: self.spares.clone(), _permit: Arc::clone(&permit) };
            self.switchboard.post(host, vec![Event::Input(share)]);
        }
    }

    /// Shows those who watch the app how far behind it is.
    fn look_for_ends(&mut self) {
        if self.here.is_empty() || self.ends_at.is_some_and(|at| at.elapsed() < ENDS_INTERVAL) {
            return;
        }
        self.ends_at = Some(Instant::now());
        match self.feed.ends() {
            Ok(ends) => self.inputs.iter().for_each(|inputs| lock(inputs).clone_from(&ends)),
            Err(error) => self.complain(&error),
        }
    }

    /// Tells the coordinator of an ingress that has more partitions than the shards know.
    fn look_for_growth(&mut self) {
        if self.here.is_empty() || self.grown_at.elapsed() < GROWTH_INTERVAL {
            return;
        }
        self.grown_at = Instant::now();
        let Ok(partitions) = self.feed.partitions() else { return };
        let known = self.here.values().next().map_or(&[][..], Vec::as_slice);
        if known.iter().zip(&partitions).any(|(known, found)| known.len() < *found as usize) {
            self.switchboard.notify(Notice::InputGrew);
        }
    }
}
