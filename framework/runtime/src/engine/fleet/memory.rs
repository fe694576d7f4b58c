//! A fleet in memory: what its workers share, and what may happen to one of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use statefn_core::{
    address::ShardId,
    ingress::{Batches, ErasedIngress},
    ports::{
        ingress::{ReadLimit, Stretch},
        inspect,
        log::{AppendError, Log, MemoryLog, Offset, Partition, ReadError, Record},
        membership::{Membership, MemoryMembership, News},
        shared::{Appender, Follower, SharedLog, Told},
        snapshots::{MemorySnapshots, Snapshots},
    },
    shard::{Emission, frame::Position},
};

use super::{Backend, EgressTrouble, Feed, GroupEgress, Member, groups};

/// How long those sleep who wait for others.
const PAUSE: Duration = Duration::from_millis(1);

/// What all workers share.
pub(super) struct World {
    shards: u32,
    log: Mutex<MemoryLog>,
    snapshots: Mutex<MemorySnapshots>,
    egress: Mutex<Egress>,
    /// By group, the worker that should own it.
    named: Mutex<Vec<usize>>,
    /// The workers that have joined and not left.
    members: Mutex<BTreeSet<usize>>,
    /// How many records the input has.
    records: u64,
    /// How many of them may be read by now.
    let_in: AtomicU64,
}

#[derive(Default)]
struct Egress {
    /// By group, the number of the owner of its egresses.
    owners: BTreeMap<u32, u64>,
    taken: BTreeMap<ShardId, u64>,
    records: Vec<Vec<u8>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub(super) fn new(shards: u32, records: u64) -> Arc<Self> {
        Arc::new(Self {
            shards,
            log: Mutex::new(MemoryLog::new(2 * shards + 1)),
            snapshots: Mutex::default(),
            egress: Mutex::default(),
            named: Mutex::new(vec![usize::MAX; groups(shards) as usize]),
            members: Mutex::default(),
            records,
            let_in: AtomicU64::new(0),
        })
    }

    /// Lets so many more records be read.
    pub(super) fn let_in(&self, records: u64) {
        self.let_in.fetch_add(records, Ordering::AcqRel);
    }

    /// Shares the groups among these workers.
    pub(super) fn name(&self, workers: &[usize]) {
        for (group, named) in lock(&self.named).iter_mut().enumerate() {
            *named = workers[group % workers.len()];
        }
    }

    pub(super) fn emitted(&self) -> Vec<Vec<u8>> {
        lock(&self.egress).records.clone()
    }

    /// How many records a partition has ever had.
    pub(super) fn end(&self, partition: Partition) -> Offset {
        lock(&self.log).end(partition)
    }
}

/// An append that its worker has given up.
type Late = (Partition, Vec<Arc<Vec<u8>>>);

/// One worker of the fleet.
#[derive(Clone)]
pub(super) struct MemoryBackend {
    pub(super) world: Arc<World>,
    pub(super) worker: usize,
    /// Whether it is cut off: what it appends comes late, and it does not learn of it.
    pub(super) is_cut: Arc<AtomicBool>,
    late: Arc<Mutex<Vec<Late>>>,
}

impl MemoryBackend {
    pub(super) fn new(world: &Arc<World>, worker: usize) -> Self {
        Self { world: Arc::clone(world), worker, is_cut: Arc::default(), late: Arc::default() }
    }

    /// Lets everything stand that it has appended while it was cut off.
    pub(super) fn let_late_appends_stand(&self) {
        for (partition, records) in lock(&self.late).drain(..) {
            let _ = put(&self.world, partition, &records);
        }
    }
}

fn put(world: &World, partition: Partition, records: &[Arc<Vec<u8>>]) -> Result<Offset, AppendError> {
    let group: Vec<Record<'_>> = records.iter().map(|bytes| Record { partition, bytes }).collect();
    Ok(lock(&world.log).append(&group)?[0])
}

impl Appender for MemoryBackend {
    fn append(&self, partition: Partition, records: Vec<Arc<Vec<u8>>>, told: Told) {
        if self.is_cut.load(Ordering::Acquire) {
            lock(&self.late).push((partition, records));
            return told(Err(AppendError::Unknown("the worker is cut off".into())));
        }
        told(put(&self.world, partition, &records));
    }
}

impl Log for MemoryBackend {
    fn append(&mut self, group: &[Record<'_>]) -> Result<Vec<Offset>, AppendError> {
        lock(&self.world.log).append(group)
    }

    fn read(
        &mut self,
        partition: Partition,
        from: Offset,
        each: &mut dyn FnMut(Offset, &[u8]),
    ) -> Result<(), ReadError> {
        // Others may go on while this one looks at what it has read.
        let mut records = Vec::new();
        lock(&self.world.log).read(partition, from, &mut |offset, record| records.push((offset, record.to_vec())))?;
        records.iter().for_each(|(offset, record)| each(*offset, record));
        Ok(())
    }

    fn start(&self, partition: Partition) -> Offset {
        lock(&self.world.log).start(partition)
    }

    fn end(&self, partition: Partition) -> Offset {
        lock(&self.world.log).end(partition)
    }

    fn trim(&mut self, partition: Partition, before: Offset) -> Result<(), String> {
        lock(&self.world.log).trim(partition, before)
    }
}

impl SharedLog for MemoryBackend {
    fn refresh(&mut self, _: &[Partition]) -> Result<(), String> {
        match self.is_cut.load(Ordering::Acquire) {
            true => Err("the worker is cut off".into()),
            false => Ok(()),
        }
    }

    fn ends(&mut self, partitions: &[Partition]) -> Result<Vec<Offset>, String> {
        self.refresh(partitions)?;
        Ok(partitions.iter().map(|partition| self.end(*partition)).collect())
    }
}

/// By partition, where it is read next, and whether it rests.
struct MemoryFollower(MemoryBackend, BTreeMap<Partition, (Offset, bool)>);

impl Follower for MemoryFollower {
    fn follow(&mut self, partition: Partition, from: Offset) {
        self.1.insert(partition, (from, false));
    }

    fn leave(&mut self, partition: Partition) {
        self.1.remove(&partition);
    }

    fn rest(&mut self, partition: Partition, is_resting: bool) {
        self.1.entry(partition).and_modify(|followed| followed.1 = is_resting);
    }

    fn renew(&mut self) -> Result<(), String> {
        Ok(())
    }

    fn next(&mut self, _: Duration, each: &mut dyn FnMut(Partition, Offset, &[u8])) -> Result<(), String> {
        let mut is_any = false;
        for (partition, (next, _)) in self.1.iter_mut().filter(|(_, (_, is_resting))| !is_resting) {
            let from = (*next).max(self.0.start(*partition));
            let read = self.0.read(*partition, from, &mut |offset, record| {
                *next = offset + 1;
                is_any = true;
                each(*partition, offset, record);
            });
            read.map_err(|error| error.to_string())?;
        }
        if !is_any {
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}

impl Snapshots for MemoryBackend {
    fn put(&mut self, name: &str, bytes: &[u8]) -> Result<(), String> {
        lock(&self.world.snapshots).put(name, bytes)
    }

    fn get(&mut self, name: &str) -> Result<Option<Vec<u8>>, String> {
        lock(&self.world.snapshots).get(name)
    }

    fn remove(&mut self, name: &str) -> Result<(), String> {
        lock(&self.world.snapshots).remove(name)
    }

    fn list(&mut self) -> Result<Vec<String>, String> {
        lock(&self.world.snapshots).list()
    }
}

/// What a worker knows of its groups; one that is cut off learns nothing new.
struct MemoryMember(MemoryBackend, MemoryMembership, BTreeSet<u32>);

impl Membership for MemoryMember {
    fn next_news(&mut self) -> Option<News> {
        if !self.0.is_cut.load(Ordering::Acquire) {
            let groups = (0..).zip(lock(&self.0.world.named).clone());
            let mine: BTreeSet<u32> =
                groups.filter(|(_, named)| *named == self.0.worker).map(|(group, _)| group).collect();
            for group in mine.symmetric_difference(&self.2) {
                let of_group = (*group..self.0.world.shards).step_by(groups_of(&self.0.world));
                of_group.for_each(|shard| self.1.tell(shard, mine.contains(group)));
            }
            self.2 = mine;
        }
        self.1.next_news()
    }

    fn is_named(&self, shard: ShardId) -> bool {
        self.1.is_named(shard)
    }
}

impl Member for MemoryMember {
    /// Others are named for what it had.
    fn leave(&mut self) {
        let mut members = lock(&self.0.world.members);
        members.remove(&self.0.worker);
        let mut named = lock(&self.0.world.named);
        let mine = named.iter_mut().filter(|worker| **worker == self.0.worker);
        mine.zip(members.iter().cycle()).for_each(|(mine, other)| *mine = *other);
    }
}

fn groups_of(world: &World) -> usize {
    groups(world.shards) as usize
}

/// The egresses of a group, for the owner with this number.
struct MemoryEgress {
    backend: MemoryBackend,
    group: u32,
    owner: u64,
    buffered: Vec<(ShardId, u64, Vec<Vec<u8>>)>,
}

impl GroupEgress for MemoryEgress {
    fn write_epoch(&mut self, emission: &Emission) {
        let records = emission.records.iter().map(|emitted| emitted.record.of(&emission.frame).to_vec()).collect();
        self.buffered.push((emission.shard, emission.epoch, records));
    }

    fn sync(&mut self) -> Result<(), EgressTrouble> {
        if self.backend.is_cut.load(Ordering::Acquire) {
            return Err(EgressTrouble::Later("the worker is cut off".into()));
        }
        let mut egress = lock(&self.backend.world.egress);
        if egress.owners.get(&self.group) != Some(&self.owner) {
            return Err(EgressTrouble::Fenced("there is a newer one".into()));
        }
        for (shard, epoch, records) in self.buffered.drain(..) {
            let taken = egress.taken.entry(shard).or_default();
            if epoch <= *taken {
                continue;
            }
            assert_eq!(epoch, *taken + 1, "the egresses of shard {shard} get every epoch");
            *taken = epoch;
            egress.records.extend(records);
        }
        Ok(())
    }

    fn taken(&self, shard: ShardId) -> u64 {
        lock(&self.backend.world.egress).taken.get(&shard).copied().unwrap_or_default()
    }

    fn is_behind(&self) -> bool {
        !self.buffered.is_empty()
    }
}

/// Reads what the generator of the only ingress makes.
struct MemoryFeed {
    world: Arc<World>,
    at: Option<Position>,
}

impl Feed for MemoryFeed {
    fn partitions(&mut self) -> Result<Vec<u32>, String> {
        Ok(vec![1])
    }

    fn follow(&mut self, _: usize, _: u32, from: Position) -> Result<Position, String> {
        self.at = Some(from);
        Ok(from)
    }

    fn leave(&mut self, _: usize, _: u32) {
        self.at = None;
    }

    fn ends(&mut self) -> Result<Vec<Vec<inspect::Partition>>, String> {
        Ok(Vec::new())
    }

    fn rest(&mut self, _: usize, _: u32, _: bool) {}

    fn next(
        &mut self,
        _: Duration,
        _: ReadLimit,
        ingresses: &[Arc<dyn ErasedIngress>],
        batches: &mut Batches,
    ) -> Result<Option<(usize, u32, Stretch)>, String> {
        /// Few, so that stretches are many.
        const RECORDS: u64 = 20;
        let Some(at) = self.at.as_mut().filter(|at| !at.is_ended) else {
            std::thread::sleep(PAUSE);
            return Ok(None);
        };
        std::thread::sleep(PAUSE);
        let (from, let_in) = (at.offset, self.world.let_in.load(Ordering::Acquire));
        if from < self.world.records && from >= let_in {
            return Ok(None);
        }
        while at.offset < self.world.records.min(let_in).min(from + RECORDS) {
            let time = ingresses[0].generate(at.offset, batches).ok_or("it ended early")??;
            at.event_time_max = at.event_time_max.max(Some(time));
            at.offset += 1;
            at.records += 1;
        }
        at.is_ended = at.offset == self.world.records;
        Ok(Some((0, 0, Stretch { from, to: *at })))
    }
}

impl Backend for MemoryBackend {
    fn log(&self) -> Result<Box<dyn SharedLog>, String> {
        Ok(Box::new(self.clone()))
    }

    fn appender(&self) -> Result<Arc<dyn Appender>, String> {
        Ok(Arc::new(self.clone()))
    }

    fn follower(&self) -> Result<Box<dyn Follower>, String> {
        Ok(Box::new(MemoryFollower(self.clone(), BTreeMap::new())))
    }

    fn snapshots(&self) -> Result<Box<dyn Snapshots>, String> {
        Ok(Box::new(self.clone()))
    }

    fn membership(&self, _: Box<dyn Fn() + Send + Sync>) -> Result<Box<dyn Member>, String> {
        lock(&self.world.members).insert(self.worker);
        Ok(Box::new(MemoryMember(self.clone(), MemoryMembership::default(), BTreeSet::new())))
    }

    fn egress_taken(&self, _: u32, shards: &[ShardId]) -> Result<BTreeMap<ShardId, u64>, String> {
        let egress = lock(&self.world.egress);
        let taken = |shard: &ShardId| (*shard, egress.taken.get(shard).copied().unwrap_or_default());
        Ok(shards.iter().map(taken).collect())
    }

    fn egress(&self, group: u32, _: &[ShardId]) -> Result<Box<dyn GroupEgress>, String> {
        static OWNERS: AtomicU64 = AtomicU64::new(1);
        let owner = OWNERS.fetch_add(1, Ordering::Relaxed);
        lock(&self.world.egress).owners.insert(group, owner);
        Ok(Box::new(MemoryEgress { backend: self.clone(), group, owner, buffered: Vec::new() }))
    }

    fn feed(&self) -> Result<Option<Box<dyn Feed>>, String> {
        Ok(Some(Box::new(MemoryFeed { world: Arc::clone(&self.world), at: None })))
    }

    fn record_bytes_max(&self) -> usize {
        1 << 20
    }
}
