//! The input of a worker of a fleet: one thread reads the partitions of the shards that are here.
//!
//! ```text
//! partition 5 of 8 shards: | read | shard 5 stands here | ...
//!                                 ^ a worker that takes shard 5 over reads on from here
//! ```
//! A partition is taken in by one shard ([`partition_owner`]), whose frames have its position. The shard
//! gets all of a stretch: its own messages, and those that it sends on to other shards.
//!
//! Invariants: the stretches of a partition reach a host in order, each beginning where the one before
//! ended or earlier; a host passes over one that begins behind the shard's position, which is what was
//! on its way for an ownership before: it comes again. A partition that is added to a topic is read from
//! its start, by the worker that has its shard.
//!
//! Deliberately absent: any choice of which worker reads what; it follows from who has the shards
//! (decision 0045).

use std::{
    collections::{BTreeMap, BTreeSet},
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
    ingress::{Batches, ErasedIngress, IngressBatch, partition_owner},
    ports::{
        ingress::{ReadLimit, Stretch, finish_stretch},
        inspect,
    },
    shard::frame::Position,
};

use super::{
    super::{
        Intake, Plan, RunError,
        coordinator::spawn,
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
    /// A shard has come; by ingress and partition that it takes in, where it stands.
    Opened(ShardId, Vec<Vec<Option<Position>>>),
    /// A shard has gone.
    Closed(ShardId),
    /// Nothing is to be read any more.
    Stop,
}

/// Starts the thread; it ends with [`FeedRequest::Stop`]. `counts` is how many partitions each ingress has.
pub(super) fn start(
    feed: Box<dyn Feed>,
    counts: Vec<u32>,
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
        shards: plan.shards,
        counts,
        partitions: BTreeMap::new(),
        due: BTreeMap::new(),
        here: BTreeSet::new(),
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
    shards: u32,
    /// By ingress, how many partitions it is known to have.
    counts: Vec<u32>,
    /// By ingress and partition, those of the shards that are here.
    partitions: BTreeMap<(usize, u32), Followed>,
    /// Those that are to be read from a position on.
    due: BTreeMap<(usize, u32), Position>,
    here: BTreeSet<ShardId>,
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

    /// Reads the partitions of a shard that has come on from where it stands.
    fn open(&mut self, shard: ShardId, positions: Vec<Vec<Option<Position>>>) {
        self.here.insert(shard);
        let shards = self.shards;
        for (ingress, known) in positions.into_iter().enumerate() {
            // The owner before may have found partitions that this worker has not found yet.
            let all = 0..self.counts[ingress].max(known.len() as u32);
            for partition in all.filter(|partition| partition_owner(*partition, shards) == shard) {
                let position = known.get(partition as usize).copied().flatten().unwrap_or_default();
                self.begin(ingress, partition, position);
            }
        }
    }

    fn begin(&mut self, ingress: usize, partition: u32, from: Position) {
        if !from.is_ended {
            self.due.insert((ingress, partition), from);
        }
        self.partitions.insert((ingress, partition), Followed { next: from, is_resting: false });
    }

    /// Begins to read the partitions that are due, but for those that were not found yet.
    fn follow(&mut self) {
        let counts = &self.counts;
        for (place, from) in self.due.extract_if(.., |place, _| place.1 < counts[place.0]).collect::<Vec<_>>() {
            match self.feed.follow(place.0, place.1, from) {
                // A shard that has never read it learns where it begins, before its first record.
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
        let shards = self.shards;
        let is_its_own = |(_, partition): &(usize, u32)| partition_owner(*partition, shards) == shard;
        self.due.retain(|place, _| !is_its_own(place));
        let feed = &mut self.feed;
        self.partitions.retain(|place, _| {
            let is_left = is_its_own(place);
            if is_left {
                feed.leave(place.0, place.1);
            }
            !is_left
        });
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

    /// Gives a stretch to the shard that takes the partition in.
    fn deliver(&mut self, ingress: usize, partition: u32, stretch: Stretch) {
        let Some(followed) = self.partitions.get_mut(&(ingress, partition)) else {
            // Its shard has gone meanwhile.
            return self.batches.shards.iter_mut().for_each(IngressBatch::clear);
        };
        let read = stretch.to.records.saturating_sub(followed.next.records);
        followed.next = stretch.to;
        let owner = partition_owner(partition, self.shards);
        finish_stretch(&mut self.batches, ingress, partition, stretch);
        self.batches.gather(owner);
        let mut empty = self.spare.try_iter().flatten().map(|(_, batch)| batch).next().unwrap_or_default();
        empty.clear();
        let batch = std::mem::replace(&mut self.batches.shards[owner as usize], empty);
        let status = &self.switchboard.status;
        status.records.fetch_add(read, Ordering::Relaxed);
        status.unreadable.fetch_add(batch.dead_letters.len() as u64, Ordering::Relaxed);
        self.on_their_way.fetch_add(1, Ordering::AcqRel);
        let permit = Arc::new(Permit::new(Arc::clone(&self.on_their_way)));
        let share = Share { batches: vec![(owner, batch)], spares: self.spares.clone(), _permit: permit };
        self.switchboard.post(self.switchboard.host_of(owner), vec![Event::Input(share)]);
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

    /// Begins to read partitions that ingresses were given since, if their shards are here.
    fn look_for_growth(&mut self) {
        if self.grown_at.elapsed() < GROWTH_INTERVAL {
            return;
        }
        self.grown_at = Instant::now();
        let found = match self.feed.partitions() {
            Ok(found) => found,
            Err(error) => return self.complain(&error),
        };
        for (ingress, found) in found.into_iter().enumerate() {
            let known = std::mem::replace(&mut self.counts[ingress], found);
            for partition in known..found {
                tracing::info!(
                    ingress = self.ingresses[ingress].name(),
                    partition,
                    "an ingress has one more partition"
                );
                let is_unknown = !self.partitions.contains_key(&(ingress, partition));
                if is_unknown && self.here.contains(&partition_owner(partition, self.shards)) {
                    self.begin(ingress, partition, Position::default());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::{
        super::super::{Status, coordinator::switchboard, disk_tests::app},
        *,
    };

    /// Has so many partitions, and notes which are followed, and from where.
    #[derive(Default, Clone)]
    struct Growing {
        count: Arc<AtomicU32>,
        followed: Arc<Mutex<Vec<(u32, u64)>>>,
    }

    impl Feed for Growing {
        fn partitions(&mut self) -> Result<Vec<u32>, String> {
            Ok(vec![self.count.load(Ordering::Acquire)])
        }
        fn follow(&mut self, _: usize, partition: u32, from: Position) -> Result<Position, String> {
            assert!(partition < self.count.load(Ordering::Acquire), "there is no such partition");
            lock(&self.followed).push((partition, from.offset));
            Ok(from)
        }
        fn leave(&mut self, _: usize, _: u32) {}
        fn ends(&mut self) -> Result<Vec<Vec<inspect::Partition>>, String> {
            Ok(Vec::new())
        }
        fn rest(&mut self, _: usize, _: u32, _: bool) {}
        fn next(
            &mut self,
            _: Duration,
            _: ReadLimit,
            _: &[Arc<dyn ErasedIngress>],
            _: &mut Batches,
        ) -> Result<Option<(usize, u32, Stretch)>, String> {
            Ok(None)
        }
    }

    #[test]
    fn a_partition_that_the_owner_before_has_found_is_read_once_it_is_found_here() {
        let plan = app::plan(0);
        let (switchboard, _notices) = switchboard(&plan, &Arc::new(Status::new()), true);
        let (growing, (spares, spare)) = (Growing::default(), unbounded());
        growing.count.store(1, Ordering::Release);
        let mut reader = Reader {
            feed: Box::new(growing.clone()),
            ingresses: plan.ingresses.clone(),
            pauses: None,
            inputs: None,
            shards: plan.shards,
            counts: vec![1],
            partitions: BTreeMap::new(),
            due: BTreeMap::new(),
            here: BTreeSet::new(),
            switchboard,
            on_their_way: Arc::default(),
            batches: Batches::new(plan.shards),
            spares,
            spare,
            told_at: None,
            grown_at: Instant::now(),
            ends_at: None,
        };
        let read_before = Position { offset: 7, records: 7, ..Position::default() };
        reader.open(0, vec![vec![Some(Position::default())]]);
        reader.open(1, vec![vec![None, Some(read_before)]]);
        reader.follow();
        assert_eq!(*lock(&growing.followed), [(0, 0)]);
        growing.count.store(plan.shards + 1, Ordering::Release);
        reader.look_for_growth();
        reader.follow();
        assert_eq!(lock(&growing.followed).len(), 1, "it is looked for now and then only");
        reader.grown_at -= GROWTH_INTERVAL;
        reader.look_for_growth();
        reader.follow();
        // One goes on where it was read to, and one more of the first shard begins.
        assert_eq!(*lock(&growing.followed), [(0, 0), (1, 7), (plan.shards, 0)]);
    }
}
