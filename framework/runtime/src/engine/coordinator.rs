//! The coordinator of a run: starts its threads in the right order, waits for the end, stops them.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use actix::{Actor, Arbiter};
use crossbeam_channel::Sender;
use statefn_core::{
    address::ShardId,
    pipeline::Pipeline,
    ports::{
        egress::Egresses,
        log::{Log, MemoryLog, Record},
        membership::{Membership, MemoryMembership, News},
        requests::Condition,
        snapshots::{MemorySnapshots, Snapshots},
    },
    shard::{Accepted, Options, Shard},
    watch::Watch,
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{
    End, Intake, Plan, RunError, Status, Stop, Storage,
    activities::Activities,
    deaths::Deaths,
    egress_writer::{self, EgressRequest, Places},
    fleet::TookOver,
    log_writer::{self, LogRequest},
    reader::Readers,
    requests::Desk,
    shard_host::{Ends, Event, HostState, Journal, ShardHost, Switchboard},
    snapshot_writer::{self, SnapshotRequest},
    take_over::{self, Ports},
    watchdog::Watchdog,
};
use crate::{
    egress::{FileEgress, Place},
    embedded::{EmbeddedLog, FileSnapshots, Options as LogOptions},
    failpoint::failpoint,
    ingress::SourceError,
};

/// How often the coordinator looks whether the run is over.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// How long a stop waits for what is under way; then the next start goes on with it.
const STOP_TIME_MAX: Duration = Duration::from_secs(10);
/// How often a run begins again by itself before it gives up.
const RESTARTS_MAX: u32 = 3;

/// What the coordinator has to know at once.
pub(crate) enum Notice {
    /// An input cannot be read on.
    SourceFailed(SourceError),
    /// Nobody knows what became of an append, or a shard is owned by somebody else.
    Lost(String),
    /// A host has broken an invariant.
    HostBroke(String),
    /// The membership of a fleet has news.
    Named,
    /// A shard of a fleet is not here any more.
    ShardLost(ShardId),
    /// What came of shards of a fleet that were to be taken over.
    TookOver(Vec<ShardId>, TookOver),
    /// The egresses of a shard group cannot be written on as they were opened this time.
    GroupLost(u32, u64),
}

/// How one life of the engine ended.
enum Outcome {
    Ended(End),
    /// Everything was dropped and has to be taken over again.
    Again(String),
}

pub(crate) async fn run(
    plan: &Plan,
    intake: Option<&Intake>,
    status: &Arc<Status>,
    stop: &Stop,
) -> Result<End, RunError> {
    let outcome = live_again(plan, intake, status, stop).await;
    if let Some(intake) = intake {
        intake.close(Condition::Stopping);
        intake.send_away();
    }
    outcome
}

/// Lives, and begins again from what is durable when a life breaks.
async fn live_again(plan: &Plan, intake: Option<&Intake>, status: &Arc<Status>, stop: &Stop) -> Result<End, RunError> {
    let mut restarts = 0;
    loop {
        match live(plan, intake, status, stop).await? {
            Outcome::Ended(end) => return Ok(end),
            Outcome::Again(reason) if restarts < RESTARTS_MAX => {
                restarts += 1;
                tracing::error!("starting again from what is durable: {reason}");
            }
            Outcome::Again(reason) => return Err(RunError::Broken(reason)),
        }
    }
}

async fn live(plan: &Plan, intake: Option<&Intake>, status: &Arc<Status>, stop: &Stop) -> Result<Outcome, RunError> {
    let (switchboard, mut notices) = switchboard(plan, status, false);
    let mut opened = Opened::open(plan, intake.is_some_and(Intake::is_live))?;
    let readers = Arc::new(Readers::open(plan, &opened.shards, switchboard.states.len(), intake.map(Intake::pauses))?);
    let deaths = match &plan.storage {
        Storage::Memory | Storage::Fleet(_) => None,
        Storage::Directory(directory) => Some(Deaths::begin(directory, &mut opened.shards)),
    };
    let watches = watch(&switchboard, &mut opened.shards);
    let watchdog =
        Watchdog::start(watches, &plan.program, plan.handler_time_limit, deaths.as_ref().and_then(Deaths::note))?;
    // Writers that wait for a disk give up only when the run is over.
    let halt = Stop::default();
    let running = Running::start(plan, intake, opened, &switchboard, &readers, &halt)?;
    let generators = readers.start_generators(&switchboard)?;
    intake.into_iter().for_each(|intake| intake.open(&switchboard));
    let outcome = wait(plan, &switchboard, intake, &mut notices, &readers, stop).await;
    intake.into_iter().for_each(|intake| intake.close(Condition::Starting));
    readers.stop();
    generators.into_iter().for_each(join);
    halt.stop();
    let is_written = running.stop();
    // In this order: a process that is ended by its watchdog has not ended by itself.
    drop(watchdog);
    drop(deaths);
    intake.into_iter().for_each(Intake::send_away);
    match outcome? {
        Outcome::Ended(End::Finished) if !is_written => Ok(Outcome::Ended(End::Stopped)),
        outcome => Ok(outcome),
    }
}

/// Lets the calls of each host be seen.
fn watch(switchboard: &Switchboard, shards: &mut [Shard]) -> Vec<Arc<Watch>> {
    for shard in shards {
        shard.set_watch(Arc::clone(&switchboard.states[switchboard.host_of(shard.id())].watch));
    }
    switchboard.states.iter().map(|state| Arc::clone(&state.watch)).collect()
}

/// What the threads of a life know; in a fleet no shard is here at first.
pub(super) fn switchboard(
    plan: &Plan,
    status: &Arc<Status>,
    is_fleet: bool,
) -> (Arc<Switchboard>, UnboundedReceiver<Notice>) {
    let (notices, receiver) = unbounded_channel();
    let threads = plan.hosts();
    let switchboard = Switchboard {
        hosts: OnceLock::new(),
        states: std::iter::repeat_with(HostState::default).take(threads).collect(),
        here: (0..plan.shards).map(|_| AtomicBool::new(!is_fleet)).collect(),
        status: Arc::clone(status),
        egress_backlog_bytes_max: plan.egress_backlog_bytes_max,
        notices,
        sent: AtomicU64::new(0),
        handled: AtomicU64::new(0),
    };
    (Arc::new(switchboard), receiver)
}

/// What is open before anything runs.
pub(super) struct Opened {
    pub(super) log: Option<EmbeddedLog>,
    pub(super) snapshots: Box<dyn Snapshots>,
    pub(super) egress: FileEgress,
    pub(super) places: Places,
    pub(super) shards: Vec<Shard>,
    pub(super) options: Arc<Options>,
    /// Where marks are kept if nothing has to survive.
    _temporary: Option<tempfile::TempDir>,
}

impl Opened {
    /// Opens everything and takes every shard over.
    pub(super) fn open(plan: &Plan, is_live: bool) -> Result<Self, RunError> {
        let mut options = Options { is_live, ..options(plan) };
        match &plan.storage {
            Storage::Fleet(_) => Err(RunError::Broken("an app in a fleet has no log of its own".into())),
            Storage::Memory => {
                options.snapshot_tail_bytes = u64::MAX;
                let temporary = tempfile::tempdir()
                    .map_err(|error| RunError::Broken(format!("cannot make a temporary directory: {error}")))?;
                let (log, snapshots) = (MemoryLog::new(plan.shards), MemorySnapshots::default());
                let egress = open_egress(plan, temporary.path())?;
                let opened = Self::take_over(plan, options, log, Box::new(snapshots), egress)?;
                Ok(Self { _temporary: Some(temporary), ..opened.1 })
            }
            Storage::Directory(directory) => {
                let log_options = LogOptions::new(&plan.program.app, plan.shards).segment_bytes(plan.segment_bytes);
                let (log, _) = EmbeddedLog::open(directory.join("log"), &log_options)?;
                failpoint("start/log-opened");
                let snapshots = Box::new(FileSnapshots::open(directory.join("snapshots"))?);
                failpoint("start/snapshots-opened");
                let egress = open_egress(plan, directory)?;
                failpoint("start/egress-opened");
                let (log, opened) = Self::take_over(plan, options, log, snapshots, egress)?;
                Ok(Self { log: Some(log), ..opened })
            }
        }
    }

    /// Loads every shard, then claims all of them by one append.
    pub(super) fn take_over<L: Log>(
        plan: &Plan,
        options: Options,
        mut log: L,
        mut snapshots: Box<dyn Snapshots>,
        mut egress: FileEgress,
    ) -> Result<(L, Self), RunError> {
        let options = Arc::new(options);
        let places = places(plan);
        // There is no other worker that could be named for a shard.
        let mut membership = MemoryMembership::of_all(plan.shards);
        let mut named = Vec::new();
        while let Some(News::Named(shard)) = membership.next_news() {
            named.push(shard);
        }
        let ports = Ports { log: &mut log, snapshots: &mut *snapshots, egress: &mut egress, places: &places };
        let mut prepared = take_over::prepare(plan, &options, &named, ports)?;
        let claims: Vec<Vec<u8>> = prepared.iter_mut().map(|shard| shard.claim(&plan.program, nonce())).collect();
        let group: Vec<Record<'_>> = (0..).zip(&claims).map(|(partition, bytes)| Record { partition, bytes }).collect();
        failpoint("start/claims-made");
        log.append(&group).map_err(|error| RunError::Broken(format!("the shards cannot be claimed: {error}")))?;
        failpoint("start/claims-appended");
        let mut shards = Vec::new();
        for take_over in prepared {
            match take_over.accept(&mut log, &mut |_| {})? {
                Accepted::Owned(shard) => shards.push(*shard),
                Accepted::Again => return Err(RunError::Broken("somebody else writes to the log of this app".into())),
            }
        }
        failpoint("start/shards-owned");
        Ok((log, Self { log: None, snapshots, egress, places, shards, options, _temporary: None }))
    }
}

/// What the shards of a plan have in common.
pub(super) fn options(plan: &Plan) -> Options {
    let mut options = Options::new(plan.shards, &plan.program);
    options.partitions = plan.inputs.iter().map(|input| input.places.len() as u32).collect();
    options.snapshot_tail_bytes = plan.snapshot_tail_bytes;
    options.parked = plan.parked;
    options.answers_kept_ms = i64::try_from(plan.answers_kept.as_millis()).unwrap_or(i64::MAX);
    options
}

fn open_egress(plan: &Plan, directory: &Path) -> Result<FileEgress, RunError> {
    Ok(FileEgress::open(&directory.join("egress"), plan.outputs.clone(), plan.shards)?)
}

/// A number that no other attempt has: from the operating system's randomness, by way of the
/// random keys of the standard library's maps.
pub(super) fn nonce() -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish()
}

pub(super) fn places(plan: &Plan) -> Places {
    let place = |name: &String| plan.outputs.iter().position(|output| output.name == *name);
    plan.program.names.iter().map(place).collect()
}

/// The threads of a run.
struct Running {
    arbiters: Vec<Arbiter>,
    activities: Option<Activities>,
    log: Option<(Sender<LogRequest>, JoinHandle<()>)>,
    egress: (Sender<EgressRequest>, JoinHandle<bool>),
    snapshots: (Sender<SnapshotRequest>, JoinHandle<()>),
    _temporary: Option<tempfile::TempDir>,
}

impl Running {
    fn start(
        plan: &Plan,
        intake: Option<&Intake>,
        opened: Opened,
        switchboard: &Arc<Switchboard>,
        readers: &Arc<Readers>,
        halt: &Stop,
    ) -> Result<Self, RunError> {
        let Opened { log, snapshots, egress, places, shards, options, _temporary } = opened;
        let taken: Vec<u64> = (0..plan.shards).map(|shard| egress.taken(shard)).collect();
        let log = match log {
            Some(log) => Some(log_writer::start(log, plan.segment_bytes, Arc::clone(switchboard), halt.clone())?),
            None => None,
        };
        let egress = egress_writer::start(egress, places, Arc::clone(switchboard), halt.clone())?;
        let snapshots =
            snapshot_writer::start(snapshots, Some(snapshot_writer::kept(&shards)), Arc::clone(switchboard))?;
        let activities = Activities::start(plan, switchboard)?;
        let commit_interval_ms = i64::try_from(plan.commit_interval.as_millis()).unwrap_or(i64::MAX);
        let hosts = switchboard.states.len();
        let new = || Pipeline::new(Arc::clone(&plan.program), &options, commit_interval_ms);
        let mut pipelines: Vec<Pipeline> = std::iter::repeat_with(new).take(hosts).collect();
        let mut next = Vec::new();
        for shard in shards {
            next.push(shard.next_offset());
            let id = shard.id();
            pipelines[switchboard.host_of(id)].adopt(shard, taken[id as usize]);
        }
        let hosts = pipelines.into_iter().map(|pipeline| {
            let journal = match &log {
                Some((sender, _)) => Journal::Log(sender.clone()),
                None => Journal::Memory(next.clone()),
            };
            let ends = Ends {
                egress: egress.0.clone(),
                snapshots: snapshots.0.clone(),
                calls: activities.as_ref().map(|(_, calls)| calls.clone()),
                spans: plan.spans.clone(),
            };
            (pipeline, journal, ends)
        });
        let arbiters = start_hosts(plan, intake, switchboard, readers, hosts);
        let activities = activities.map(|(activities, _)| activities);
        Ok(Self { arbiters, activities, log, egress, snapshots, _temporary })
    }

    /// Stops every thread in the order in which they hand on; returns whether egresses have all.
    fn stop(self) -> bool {
        self.activities.into_iter().for_each(Activities::stop);
        self.arbiters.iter().for_each(|arbiter| _ = arbiter.stop());
        for arbiter in self.arbiters {
            // The thread ends by itself once its arbiter has stopped.
            let _ = arbiter.join();
        }
        if let Some((sender, thread)) = self.log {
            let _ = sender.send(LogRequest::Stop);
            join(thread);
        }
        let _ = self.egress.0.send(EgressRequest::Stop);
        let is_written = self.egress.1.join().unwrap_or(false);
        let _ = self.snapshots.0.send(SnapshotRequest::Stop);
        join(self.snapshots.1);
        is_written
    }
}

/// Starts the hosts, each on a thread of its own.
pub(super) fn start_hosts(
    plan: &Plan,
    intake: Option<&Intake>,
    switchboard: &Arc<Switchboard>,
    readers: &Arc<Readers>,
    hosts: impl Iterator<Item = (Pipeline, Journal, Ends)>,
) -> Vec<Arbiter> {
    let commit_interval_ms = plan.commit_interval.as_millis() as u64;
    let tick = Duration::from_millis(if commit_interval_ms == 0 { 10 } else { (commit_interval_ms / 4).clamp(1, 10) });
    let mut arbiters = Vec::new();
    let mut addresses = Vec::new();
    for (number, (pipeline, journal, ends)) in hosts.enumerate() {
        let (switchboard, readers) = (Arc::clone(switchboard), Arc::clone(readers));
        let desk = Desk::new(intake.map(|intake| intake.door(number)).unwrap_or_default());
        let host = ShardHost::new(number, pipeline, switchboard, readers, desk, journal, ends, tick);
        let arbiter = Arbiter::new();
        addresses.push(ShardHost::start_in_arbiter(&arbiter.handle(), |_| host));
        arbiters.push(arbiter);
    }
    let is_first = switchboard.hosts.set(addresses).is_ok();
    assert!(is_first, "the hosts of a run are started once");
    (0..arbiters.len()).for_each(|host| switchboard.post(host, Vec::new()));
    arbiters
}

/// Waits for the end of the input, a stop, or trouble.
async fn wait(
    plan: &Plan,
    switchboard: &Switchboard,
    intake: Option<&Intake>,
    notices: &mut UnboundedReceiver<Notice>,
    readers: &Readers,
    stop: &Stop,
) -> Result<Outcome, RunError> {
    let mut stopping: Option<(Instant, Option<SourceError>)> = None;
    let mut is_drained = false;
    let is_live = intake.is_some_and(Intake::is_live);
    let drain = || {
        intake.into_iter().for_each(|intake| intake.close(Condition::Stopping));
        drain(switchboard, readers);
    };
    loop {
        tokio::select! {
            Some(notice) = notices.recv() => match notice {
                Notice::SourceFailed(error) => {
                    // What was read before the place of the error is still committed.
                    drain();
                    stopping = Some((Instant::now(), Some(error)));
                }
                Notice::Lost(reason) => return Ok(Outcome::Again(reason)),
                Notice::HostBroke(reason) => return Ok(Outcome::Again(format!("a shard host broke: {reason}"))),
                // Nobody but this process has shards of an embedded app.
                Notice::Named | Notice::ShardLost(_) | Notice::TookOver(..) | Notice::GroupLost(..) => {
                }
            },
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
        if stop.is_stopped() && stopping.is_none() {
            drain();
            stopping = Some((Instant::now(), None));
        }
        let is_read = readers.is_over();
        if is_read && !is_live && !is_drained {
            is_drained = true;
            // Nothing more will come that a later commit could take along.
            drain();
        }
        if let Some((since, error)) = &mut stopping {
            let is_idle =
                is_read && switchboard.is_quiet(|host| host.is_idle.load(std::sync::atomic::Ordering::Acquire));
            if is_idle || since.elapsed() >= STOP_TIME_MAX {
                return error.take().map_or(Ok(Outcome::Ended(End::Stopped)), |error| Err(error.into()));
            }
        } else if !is_live
            && is_read
            && switchboard.is_quiet(|host| host.is_finished.load(std::sync::atomic::Ordering::Acquire))
            && (!delivers(plan) || switchboard.status.egress_backlog_bytes() == 0)
        {
            return Ok(Outcome::Ended(End::Finished));
        }
    }
}

/// Whether receivers may not have taken yet what was emitted.
fn delivers(plan: &Plan) -> bool {
    plan.outputs.iter().any(|output| matches!(output.place, Place::Webhook(_)))
}

fn drain(switchboard: &Switchboard, readers: &Readers) {
    readers.stop();
    (0..switchboard.states.len()).for_each(|host| switchboard.post(host, vec![Event::Drain]));
}

/// Starts a thread of this run.
pub(crate) fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, RunError> {
    let builder = std::thread::Builder::new().name(format!("statefn-{name}"));
    builder.spawn(work).map_err(|error| RunError::Broken(format!("cannot start the thread `{name}`: {error}")))
}

/// Waits for a thread; if it panicked, the panic has been printed and the run is over anyway.
pub(super) fn join<T>(thread: JoinHandle<T>) {
    let _ = thread.join();
}
