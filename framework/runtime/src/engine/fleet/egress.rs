//! The threads that write the egresses of a worker of a fleet, one for each shard group that is here.
//!
//! A group's egresses are fenced as one, and wait by themselves: one that is slow stops no other. Its
//! shards work while they are being opened, which takes a new client and some turns of the broker.
//!
//! Invariants: egresses are opened, which fences all others, only by a worker that owns a shard of the
//! group; the epochs of a shard are given in order and without gaps, from what its egresses have on: a gap
//! would be lost for good once a position stands behind it; a group whose egresses another worker has
//! fenced, or that was given a gap, is told to the coordinator and given up. Each time that egresses are
//! opened has a number, so that nobody takes what one time has to say for news of another.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, select, unbounded};
use statefn_core::{address::ShardId, shard::Emission};

use super::{
    super::{
        RunError, Stop,
        coordinator::{Notice, spawn},
        egress_writer::EgressRequest,
        shard_host::{Event, Switchboard},
    },
    Backend, EgressTrouble, GroupEgress,
};

/// How long a position without new records may wait; it only lets journals be trimmed.
const MARK_INTERVAL: Duration = Duration::from_millis(500);
/// How long to wait before a failed write is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// How often egresses that cannot be written are reported.
const TROUBLE_INTERVAL: Duration = Duration::from_secs(10);

pub(super) enum Control {
    /// The egresses of a group are to be this worker's, for the time with this number.
    Open(u32, u64),
    /// They are somebody else's.
    Close(u32),
}

/// Where hosts and the coordinator reach the threads.
#[derive(Clone)]
pub(super) struct Ends {
    pub(super) emissions: Sender<EgressRequest>,
    control: Sender<Control>,
    /// By group, how often its egresses were opened and closed: they are open where that is odd.
    times: Arc<Vec<AtomicU64>>,
    /// By shard, up to which epoch this process knows its egresses to have the records.
    pub(super) taken: Arc<Vec<AtomicU64>>,
}

impl Ends {
    /// Whether the egresses of a group are open, or being opened.
    pub(super) fn is_open(&self, group: u32) -> bool {
        self.time(group) % 2 == 1
    }

    /// The number of the time for which they are open.
    pub(super) fn time(&self, group: u32) -> u64 {
        self.times[group as usize].load(Ordering::Acquire)
    }

    /// Opens the egresses of a group, unless they are open.
    pub(super) fn open(&self, group: u32) {
        if let Some(time) = self.turn(group, 0) {
            // The dispatcher is gone only when the run is over.
            let _ = self.control.send(Control::Open(group, time));
        }
    }

    /// Closes the egresses of a group, if they are open.
    pub(super) fn close(&self, group: u32) {
        if self.turn(group, 1).is_some() {
            let _ = self.control.send(Control::Close(group));
        }
    }

    /// Turns to the next number if the last one was even or odd, as `parity` says.
    fn turn(&self, group: u32, parity: u64) -> Option<u64> {
        let next = |time: u64| (time % 2 == parity).then_some(time + 1);
        let turned = self.times[group as usize].fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        turned.ok().map(|time| time + 1)
    }
}

/// Starts the thread that hands emissions to those of their groups; it ends with
/// [`EgressRequest::Stop`], and says whether everything was written.
pub(super) fn start(
    shards: u32,
    groups: u32,
    backend: &Arc<dyn Backend>,
    switchboard: Arc<Switchboard>,
    halt: Stop,
) -> Result<(Ends, JoinHandle<bool>), RunError> {
    let (emissions, emitted) = unbounded();
    let (control, controlled) = unbounded();
    let taken: Arc<Vec<AtomicU64>> = Arc::new((0..shards).map(|_| AtomicU64::new(0)).collect());
    let times = Arc::new((0..groups).map(|_| AtomicU64::new(0)).collect());
    let ends = Ends { emissions, control, times, taken: Arc::clone(&taken) };
    let backend = Arc::clone(backend);
    let mut dispatcher = Dispatcher { groups, shards, backend, switchboard, halt, taken, writers: BTreeMap::new() };
    let thread = spawn("egress", move || dispatcher.run(&emitted, &controlled))?;
    Ok((ends, thread))
}

/// Bytes that are counted as backlog until this is dropped, wherever that happens.
struct Backlog(Arc<Switchboard>, usize);

impl Drop for Backlog {
    fn drop(&mut self) {
        self.0.status.egress_backlog_bytes.fetch_sub(self.1, Ordering::Relaxed);
    }
}

/// What the thread of a group is asked for.
enum GroupRequest {
    Emit(Vec<Emission>, Backlog),
    /// Write everything that came before, and end.
    Stop,
}

struct Dispatcher {
    groups: u32,
    shards: u32,
    backend: Arc<dyn Backend>,
    switchboard: Arc<Switchboard>,
    halt: Stop,
    taken: Arc<Vec<AtomicU64>>,
    writers: BTreeMap<u32, (Sender<GroupRequest>, JoinHandle<bool>)>,
}

impl Dispatcher {
    fn run(&mut self, emitted: &Receiver<EgressRequest>, controlled: &Receiver<Control>) -> bool {
        loop {
            select! {
                recv(controlled) -> control => control.into_iter().for_each(|control| self.control(control)),
                recv(emitted) -> request => {
                    // A group is opened before its first emission is sent.
                    controlled.try_iter().for_each(|control| self.control(control));
                    match request {
                        Ok(EgressRequest::Emit(emissions, _)) => self.emit(emissions),
                        Ok(EgressRequest::Stop) | Err(_) => return self.stop(),
                    }
                }
            }
        }
    }

    fn control(&mut self, control: Control) {
        match control {
            Control::Open(group, time) => {
                self.close(group);
                let (sender, requests) = unbounded();
                let opening = Opening {
                    group,
                    time,
                    shards: (group..self.shards).step_by(self.groups as usize).collect(),
                    backend: Arc::clone(&self.backend),
                    switchboard: Arc::clone(&self.switchboard),
                    halt: self.halt.clone(),
                    taken: Arc::clone(&self.taken),
                };
                match spawn(&format!("egress-{group}"), move || opening.run(&requests)) {
                    Ok(thread) => _ = self.writers.insert(group, (sender, thread)),
                    Err(error) => self.switchboard.notify(Notice::HostBroke(error.to_string())),
                }
            }
            Control::Close(group) => self.close(group),
        }
    }

    /// Lets the thread of a group end without what it has not written: that comes from the journal again.
    fn close(&mut self, group: u32) {
        self.writers.remove(&group);
    }

    fn emit(&mut self, emissions: Vec<Emission>) {
        let mut by_group = BTreeMap::<u32, Vec<Emission>>::new();
        for emission in emissions {
            by_group.entry(emission.shard % self.groups).or_default().push(emission);
        }
        for (group, emissions) in by_group {
            let bytes = emissions.iter().map(|emission| emission.frame.len()).sum();
            let backlog = Backlog(Arc::clone(&self.switchboard), bytes);
            // Of a group that is not here any more nobody writes: its next owner does, from the journal.
            if let Some((writer, _)) = self.writers.get(&group) {
                let _ = writer.send(GroupRequest::Emit(emissions, backlog));
            }
        }
    }

    fn stop(&mut self) -> bool {
        let writers = std::mem::take(&mut self.writers);
        writers.values().for_each(|(sender, _)| _ = sender.send(GroupRequest::Stop));
        let ended: Vec<bool> = writers.into_values().map(|(_, thread)| thread.join().unwrap_or(false)).collect();
        !ended.contains(&false)
    }
}

/// The egresses of one group that are not open yet.
struct Opening {
    group: u32,
    time: u64,
    shards: Vec<ShardId>,
    backend: Arc<dyn Backend>,
    switchboard: Arc<Switchboard>,
    halt: Stop,
    taken: Arc<Vec<AtomicU64>>,
}

impl Opening {
    /// Returns whether everything was written.
    fn run(self, requests: &Receiver<GroupRequest>) -> bool {
        let mut waiting = Vec::new();
        let mut told_at: Option<Instant> = None;
        let egress = loop {
            match self.backend.egress(self.group, &self.shards) {
                Ok(egress) => break egress,
                Err(error) if told_at.is_none_or(|at| at.elapsed() >= TROUBLE_INTERVAL) => {
                    told_at = Some(Instant::now());
                    tracing::error!(group = self.group, "the egresses wait until they can be opened: {error}");
                }
                Err(_) => {}
            }
            match requests.recv_timeout(RETRY_INTERVAL) {
                Ok(request) => waiting.push(request),
                Err(RecvTimeoutError::Timeout) => {}
                // The group is closed.
                Err(RecvTimeoutError::Disconnected) => return true,
            }
            if self.halt.is_stopped() && waiting.iter().any(|request| matches!(request, GroupRequest::Stop)) {
                return false;
            }
        };
        if told_at.is_some() {
            tracing::info!(group = self.group, "the egresses are open");
        }
        self.writer(egress).run(waiting, requests)
    }

    fn writer(self, egress: Box<dyn GroupEgress>) -> Writer {
        let Self { group, time, shards, switchboard, halt, taken, .. } = self;
        let given = shards.iter().map(|shard| (*shard, egress.taken(*shard))).collect();
        Writer {
            group,
            time,
            egress,
            shards,
            given,
            switchboard,
            halt,
            taken,
            backlog: Vec::new(),
            has_records: false,
            has_gap: false,
            synced_at: Instant::now(),
            told_at: None,
        }
    }
}

/// The egresses of one group.
struct Writer {
    group: u32,
    time: u64,
    egress: Box<dyn GroupEgress>,
    /// By shard, the last epoch that they have or were given.
    given: BTreeMap<ShardId, u64>,
    shards: Vec<ShardId>,
    switchboard: Arc<Switchboard>,
    halt: Stop,
    taken: Arc<Vec<AtomicU64>>,
    backlog: Vec<Backlog>,
    has_records: bool,
    /// Whether epochs are missing that nobody gives any more.
    has_gap: bool,
    synced_at: Instant,
    /// Since they could not be written, when that was told.
    told_at: Option<Instant>,
}

/// What came of an attempt to write.
#[derive(PartialEq, Eq)]
enum Written {
    All,
    Later,
    Fenced,
}

impl Writer {
    /// Returns whether everything was written.
    fn run(mut self, waiting: Vec<GroupRequest>, requests: &Receiver<GroupRequest>) -> bool {
        self.tell_taken();
        if waiting.into_iter().any(|request| self.take(request)) {
            return self.finish();
        }
        while !self.has_gap {
            let patience = if self.told_at.is_some() { RETRY_INTERVAL } else { MARK_INTERVAL };
            let first = match requests.recv_timeout(patience) {
                Ok(request) => Some(request),
                Err(RecvTimeoutError::Timeout) => None,
                // The group is closed.
                Err(RecvTimeoutError::Disconnected) => return true,
            };
            let is_stopping = first.into_iter().chain(requests.try_iter()).any(|request| self.take(request));
            if is_stopping {
                return self.finish();
            }
            let is_due = self.has_records || self.synced_at.elapsed() >= MARK_INTERVAL;
            if is_due && self.egress.is_behind() && self.sync() == Written::Fenced {
                return false;
            }
        }
        self.switchboard.notify(Notice::GroupLost(self.group, self.time));
        false
    }

    /// Writes what is left; tries again for as long as the run is not stopped.
    fn finish(&mut self) -> bool {
        loop {
            match if self.egress.is_behind() { self.sync() } else { Written::All } {
                Written::All => return true,
                Written::Fenced => return false,
                Written::Later if self.halt.is_stopped() => return false,
                Written::Later => std::thread::sleep(RETRY_INTERVAL),
            }
        }
    }

    /// Takes a request in; returns whether it is the last.
    fn take(&mut self, request: GroupRequest) -> bool {
        match request {
            GroupRequest::Emit(emissions, backlog) => {
                self.backlog.push(backlog);
                for emission in emissions {
                    // What they had when they were opened was not known when its shard came.
                    let given = self.given.entry(emission.shard).or_default();
                    if emission.epoch <= *given || self.has_gap {
                        continue;
                    }
                    if emission.epoch > *given + 1 {
                        let Emission { shard, epoch, .. } = emission;
                        tracing::error!(
                            shard,
                            epoch,
                            given,
                            "epochs are missing: the group's shards are taken over again"
                        );
                        self.has_gap = true;
                        continue;
                    }
                    *given = emission.epoch;
                    self.has_records |= !emission.records.is_empty();
                    self.egress.write_epoch(&emission);
                }
                false
            }
            GroupRequest::Stop => true,
        }
    }

    fn sync(&mut self) -> Written {
        let status = &self.switchboard.status;
        match self.egress.sync() {
            Ok(()) => {
                self.backlog.clear();
                (self.has_records, self.synced_at) = (false, Instant::now());
                if self.told_at.take().is_some() {
                    status.is_egress_down.store(false, Ordering::Relaxed);
                    tracing::info!(group = self.group, "the egresses are written again");
                }
                self.tell_taken();
                Written::All
            }
            Err(EgressTrouble::Fenced(error)) => {
                tracing::info!(group = self.group, "another worker has the egresses: {error}");
                self.switchboard.notify(Notice::GroupLost(self.group, self.time));
                Written::Fenced
            }
            Err(EgressTrouble::Later(error)) => {
                status.egress_failures.fetch_add(1, Ordering::Relaxed);
                status.is_egress_down.store(true, Ordering::Relaxed);
                if self.told_at.is_none_or(|at| at.elapsed() >= TROUBLE_INTERVAL) {
                    self.told_at = Some(Instant::now());
                    tracing::error!(group = self.group, "the egresses wait until they can be written: {error}");
                }
                Written::Later
            }
        }
    }

    fn tell_taken(&self) {
        for shard in &self.shards {
            let taken = self.egress.taken(*shard);
            if self.taken[*shard as usize].fetch_max(taken, Ordering::AcqRel) < taken {
                let host = self.switchboard.host_of(*shard);
                self.switchboard.post(host, vec![Event::EgressTaken(vec![(*shard, taken)])]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            super::{Status, coordinator::switchboard, disk_tests::app},
            memory::{MemoryBackend, World},
        },
        *,
    };

    const GROUP: u32 = 3;

    fn emission(epoch: u64) -> Emission {
        Emission { shard: GROUP, epoch, frame: Arc::new(Vec::new()), records: Vec::new() }
    }

    #[test]
    fn a_gap_is_told_with_its_time_and_nothing_behind_it_is_written() {
        let plan = app::plan(0);
        let (switchboard, mut notices) = switchboard(&plan, &Arc::new(Status::new()), true);
        let world = World::new(plan.shards, 0);
        let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::new(&world, 0));
        let groups = plan.shards;
        let (ends, thread) =
            start(plan.shards, groups, &backend, switchboard, Stop::default()).expect("threads can be started");
        let emit = |epochs: &[u64]| {
            let emissions = epochs.iter().map(|epoch| emission(*epoch)).collect();
            ends.emissions.send(EgressRequest::Emit(emissions, 0)).expect("the thread lives");
        };
        ends.open(GROUP);
        ends.open(GROUP);
        assert_eq!((ends.is_open(GROUP), ends.time(GROUP)), (true, 1), "it is opened once");
        emit(&[1, 2, 2, 4, 5]);
        assert!(matches!(notices.blocking_recv(), Some(Notice::GroupLost(GROUP, 1))));
        ends.close(GROUP);
        ends.close(GROUP);
        assert_eq!((ends.is_open(GROUP), ends.time(GROUP)), (false, 2));
        ends.open(GROUP);
        emit(&[1, 2, 3]);
        ends.emissions.send(EgressRequest::Stop).expect("the thread lives");
        assert!(thread.join().expect("it does not panic"), "all is written");
        assert_eq!(backend.egress(GROUP, &[GROUP]).expect("memory").taken(GROUP), 3);
    }
}
