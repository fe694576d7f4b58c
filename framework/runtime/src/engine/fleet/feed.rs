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
//! on its way while the shard came: it comes again. A shard that has nothing of a stretch is not given
//! it at once: it would write a frame for each record of others, only to say how far it has read. The next
//! stretch that it is given begins where its last one ended, and at the latest after [`SILENT_INTERVAL`].
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
/// How long a shard may not be told how far the input was read that has nothing for it.
const SILENT_INTERVAL: Duration = Duration::from_millis(100);
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
        silent_since: Instant::now(),
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

/// How far a shard is in a partition.
struct Reach {
    /// Where what it was given ends.
    given: u64,
    /// Where what was looked through for it ends: there is nothing in between.
    seen: Position,
}

impl Reach {
    fn at(position: Position) -> Self {
        Self { given: position.offset, seen: position }
    }

    /// Whether the shard is to be given a batch; what holds nothing for it may wait.
    fn takes(&mut self, batch: &mut IngressBatch) -> bool {
        let is_new = (batch.to.offset, batch.to.is_ended) > (self.seen.offset, self.seen.is_ended);
        // What is missing in front of it comes again, and it with that.
        if batch.from > self.seen.offset || !is_new {
            return false;
        }
        self.seen = batch.to;
        let is_silent = batch.offsets.is_empty() && batch.dead_letters.is_empty() && !batch.to.is_ended;
        if !is_silent {
            batch.from = batch.from.min(self.given);
            self.given = batch.to.offset;
        }
        !is_silent
    }

    /// What the shard was not told, if there is any.
    fn untold(&mut self) -> Option<(u64, Position)> {
        let from = std::mem::replace(&mut self.given, self.seen.offset);
        (from < self.seen.offset).then_some((from, self.seen))
    }
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
    /// By shard that is here, by ingress and partition, how far it is.
    here: BTreeMap<ShardId, Vec<Vec<Reach>>>,
    /// When shards were told last that had nothing of the input.
    silent_since: Instant,
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
                self.tell_silent();
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
        let reached = |partitions: Vec<Position>| partitions.into_iter().map(Reach::at).collect();
        self.here.insert(shard, positions.into_iter().map(reached).collect());
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
        let mut shares = self.shares();
        let mut spare: Vec<IngressBatch> = self.spare.try_iter().flatten().map(|(_, batch)| batch).collect();
        for (shard, batch) in (0..).zip(&mut self.batches.shards) {
            status.unreadable.fetch_add(batch.dead_letters.len() as u64, Ordering::Relaxed);
            let reach = self.here.get_mut(&shard).map(|reached| &mut reached[ingress][partition as usize]);
            if reach.is_some_and(|reach| reach.takes(batch)) {
                let mut empty = spare.pop().unwrap_or_default();
                empty.clear();
                shares[self.switchboard.host_of(shard)].push((shard, std::mem::replace(batch, empty)));
            } else {
                batch.clear();
            }
        }
        self.send(shares);
    }

    /// Tells shards how far the input was read that had nothing for them.
    fn tell_silent(&mut self) {
        if self.silent_since.elapsed() < SILENT_INTERVAL {
            return;
        }
        self.silent_since = Instant::now();
        let mut shares = self.shares();
        for (shard, reached) in &mut self.here {
            let share = &mut shares[self.switchboard.host_of(*shard)];
            for (ingress, partitions) in reached.iter_mut().enumerate() {
                for (partition, reach) in (0..).zip(partitions) {
                    let Some((from, to)) = reach.untold() else { continue };
                    share.push((*shard, IngressBatch { ingress, partition, from, to, ..IngressBatch::default() }));
                }
            }
        }
        self.send(shares);
    }

    /// For each host, what it is to be given: nothing yet.
    fn shares(&self) -> Vec<Vec<(ShardId, IngressBatch)>> {
        self.switchboard.states.iter().map(|_| Vec::new()).collect()
    }

    fn send(&self, shares: Vec<Vec<(ShardId, IngressBatch)>>) {
        if shares.iter().all(Vec::is_empty) {
            return;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn position(offset: u64) -> Position {
        Position { offset, ..Position::default() }
    }

    fn batch(from: u64, to: u64, offsets: &[u64]) -> IngressBatch {
        IngressBatch { from, to: position(to), offsets: offsets.to_vec(), ..IngressBatch::default() }
    }

    #[test]
    fn a_batch_begins_where_the_one_before_ended_that_the_shard_was_given() {
        let mut reach = Reach::at(position(10));
        assert!(!reach.takes(&mut batch(10, 20, &[])), "it has nothing for the shard");
        let mut next = batch(20, 30, &[25]);
        assert!(reach.takes(&mut next));
        assert_eq!(next.from, 10);
        assert!(!reach.takes(&mut batch(15, 25, &[21])), "the shard has it: another one is read again for");
        let mut overlap = batch(15, 40, &[21, 35]);
        assert!(reach.takes(&mut overlap));
        assert_eq!(overlap.from, 15);
        assert!(reach.untold().is_none());
    }

    #[test]
    fn a_gap_is_not_passed_over() {
        let mut reach = Reach::at(position(10));
        assert!(!reach.takes(&mut batch(11, 20, &[12])), "what is at 10 was not looked through for the shard");
        assert!(reach.untold().is_none());
        assert!(reach.takes(&mut batch(5, 20, &[10])));
    }

    #[test]
    fn a_shard_is_told_at_some_time_how_far_the_input_was_read_and_at_once_that_it_ended() {
        let mut reach = Reach::at(position(10));
        assert!(!reach.takes(&mut batch(10, 20, &[])));
        assert!(!reach.takes(&mut batch(20, 22, &[])));
        assert_eq!(reach.untold(), Some((10, position(22))));
        assert!(reach.untold().is_none());
        let mut end = batch(22, 22, &[]);
        end.to.is_ended = true;
        assert!(reach.takes(&mut end));
        assert!(!reach.takes(&mut end), "once");
    }
}
