//! The coordinator of a worker: which shards it should have, has, and is about to have.
//!
//! ```text
//!            named                  owned                   released
//!   away ───────────► taking over ─────────► here ─────────────────────► leaving
//!    ▲                    │ again (pause)     │ lost, fenced               │ its journal has another
//!    └────────────────────┴───────────────────┴───────────────◄────────────┘ owner's claim
//! ```
//! Invariant: a shard is in one of these states; what is leaving is worked on until it is lost.
//!
//! Deliberately absent: any knowledge of other workers.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use actix::Arbiter;
use crossbeam_channel::Sender;
use statefn_core::{
    address::ShardId,
    pipeline::Pipeline,
    ports::{membership::News, requests::Condition, shared::Appender},
    shard::{Options, wire::progress_partition},
};
use tokio::sync::mpsc::UnboundedReceiver;

use super::{
    super::{
        End, Intake, Plan, RunError, Status, Stop,
        activities::Activities,
        coordinator::{self, Notice, join, start_hosts, switchboard},
        egress_writer::EgressRequest,
        reader::Readers,
        shard_host::{Ends, Event, Journal, Switchboard},
        snapshot_writer::{self, SnapshotRequest},
        watchdog::Watchdog,
    },
    ClerkRequest, Directory, Feed, FeedRequest, Fleet, Member, PostRequest, clerk, egress, feed, groups, post,
    post::SharedJournal,
    take_over::{self, Job, TookOver},
};

/// How often the coordinator looks whether anything has to be done; of what threads do it is told at once.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How long a worker that stops works on until others have taken its shards over.
const HAND_OVER_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a stop waits for what is under way; another worker goes on with it.
const STOP_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a shard that could not be taken over rests at first, and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(1)];
/// How long a shard that cannot be loaded rests.
const BROKEN_PAUSE: Duration = Duration::from_secs(30);
/// How often a shard that cannot be had is reported.
const TROUBLE_INTERVAL: Duration = Duration::from_secs(10);
/// The smallest record limit of a log, in bytes, that frames can be split by.
const RECORD_BYTES_MIN: usize = 64 * 1024;
/// How often a life of the engine may break by itself before the process gives up.
const RESTARTS_MAX: u32 = 3;

/// How a life ended.
enum Outcome {
    Ended(End),
    Broke(String),
    /// This program cannot be a worker of the app.
    Refused(RunError),
}

/// Runs a worker until it is stopped.
pub(in super::super) async fn run(
    plan: &Plan,
    fleet: &Fleet,
    intake: Option<&Intake>,
    status: &Arc<Status>,
    stop: &Stop,
) -> Result<End, RunError> {
    let outcome = live_again(plan, fleet, intake, status, stop).await;
    if let Some(intake) = intake {
        intake.close(Condition::Stopping);
        intake.send_away();
    }
    outcome
}

async fn live_again(
    plan: &Plan,
    fleet: &Fleet,
    intake: Option<&Intake>,
    status: &Arc<Status>,
    stop: &Stop,
) -> Result<End, RunError> {
    let mut restarts = 0;
    loop {
        match live(plan, fleet, intake, status, stop).await? {
            Outcome::Ended(end) => return Ok(end),
            Outcome::Broke(reason) if restarts < RESTARTS_MAX => {
                restarts += 1;
                tracing::error!("taking all shards over again: {reason}");
            }
            Outcome::Broke(reason) => return Err(RunError::Broken(reason)),
            Outcome::Refused(error) => return Err(error),
        }
    }
}

async fn live(
    plan: &Plan,
    fleet: &Fleet,
    intake: Option<&Intake>,
    status: &Arc<Status>,
    stop: &Stop,
) -> Result<Outcome, RunError> {
    let (switchboard, mut notices) = switchboard(plan, status, true);
    let watches = switchboard.states.iter().map(|state| Arc::clone(&state.watch)).collect();
    let watchdog = Watchdog::start(watches, &plan.program, plan.handler_time_limit, None)?;
    let halt = Stop::default();
    let is_live = intake.is_some_and(Intake::is_live);
    let feed = fleet.backend.feed().map_err(RunError::Broken)?;
    let mut worker = Worker::start(plan, fleet, intake, is_live, feed, &switchboard, &halt)?;
    intake.into_iter().for_each(|intake| intake.open(&switchboard));
    let outcome = worker.wait(intake, &mut notices, stop).await;
    intake.into_iter().for_each(|intake| intake.close(Condition::Starting));
    halt.stop();
    worker.stop();
    drop(watchdog);
    intake.into_iter().for_each(Intake::send_away);
    Ok(outcome)
}

/// How far a stop is.
#[derive(Debug, Clone, Copy)]
enum Stopping {
    Not,
    /// Others are named for the shards, which are worked on until they have them.
    HandingOver(Instant),
    /// What was taken in is committed, and nothing else begun.
    Draining(Instant),
}

/// What a shard is to this worker.
#[derive(Debug, Clone, Copy)]
enum Place {
    Away,
    /// It is to be taken over, not before this moment.
    Due(Instant),
    TakingOver,
    Here,
}

struct Known {
    place: Place,
    pause: Duration,
    told_at: Option<Instant>,
}

/// One life of a worker.
struct Worker {
    shards: u32,
    groups: u32,
    appender: Arc<dyn Appender>,
    directory: Arc<Directory>,
    membership: Box<dyn Member>,
    named: Arc<Vec<AtomicBool>>,
    known: Vec<Known>,
    switchboard: Arc<Switchboard>,
    jobs: Option<Sender<Job>>,
    egress: egress::Ends,
    threads: Threads,
}

/// The threads of a life.
struct Threads {
    arbiters: Vec<Arbiter>,
    activities: Option<Activities>,
    take_over: Vec<JoinHandle<()>>,
    egress: JoinHandle<bool>,
    post: (Sender<PostRequest>, JoinHandle<()>),
    feed: Option<(Sender<FeedRequest>, JoinHandle<()>)>,
    clerk: (Sender<ClerkRequest>, JoinHandle<()>),
    snapshots: (Sender<SnapshotRequest>, JoinHandle<()>),
}

impl Worker {
    fn start(
        plan: &Plan,
        fleet: &Fleet,
        intake: Option<&Intake>,
        is_live: bool,
        mut feed: Option<Box<dyn Feed>>,
        switchboard: &Arc<Switchboard>,
        halt: &Stop,
    ) -> Result<Self, RunError> {
        let backend = &fleet.backend;
        let record_bytes_max = backend.record_bytes_max();
        if record_bytes_max < RECORD_BYTES_MIN {
            return Err(RunError::Broken(format!(
                "the log takes records of {record_bytes_max} bytes, which is less than {RECORD_BYTES_MIN}: raise the limit of its topics"
            )));
        }
        let (shards, groups) = (plan.shards, groups(plan.shards));
        let mut options = Options { is_live, is_log_shared: true, record_bytes_max, ..coordinator::options(plan) };
        if let Some(feed) = &mut feed {
            options.partitions = feed.partitions().map_err(RunError::Broken)?;
        }
        let options = Arc::new(options);
        let appender = backend.appender().map_err(RunError::Broken)?;
        let log = backend.log().map_err(RunError::Broken)?;
        let directory = Arc::clone(&fleet.directory);
        let follower = backend.follower().map_err(RunError::Broken)?;
        let log_of_post = backend.log().map_err(RunError::Broken)?;
        let post = post::start(follower, log_of_post, shards, Arc::clone(&directory), Arc::clone(switchboard))?;
        let feed = feed.map(|feed| feed::start(feed, options.partitions.clone(), plan, intake, switchboard));
        let feed = feed.transpose()?;
        let clerk = clerk::start(log, Arc::clone(switchboard))?;
        let (egress, egress_thread) = egress::start(shards, groups, backend, Arc::clone(switchboard), halt.clone())?;
        let place = backend.snapshots().map_err(RunError::Broken)?;
        let snapshots = snapshot_writer::start(place, None, Arc::clone(switchboard))?;
        let activities = Activities::start(plan, switchboard)?;
        let named = take_over::flags(shards);
        let journal = |appender: &Arc<dyn Appender>| {
            // Mailboxes of a program whose shards send each other nothing are empty.
            let posts = plan.program.has_mail(true).then(|| post.0.clone());
            let feed = feed.as_ref().map(|(feed, _)| feed.clone());
            let (clerk, program) = (clerk.0.clone(), Arc::clone(&plan.program));
            SharedJournal::new(Arc::clone(appender), posts, clerk, feed, program, shards, record_bytes_max)
        };
        let commit_interval_ms = i64::try_from(plan.commit_interval.as_millis()).unwrap_or(i64::MAX);
        let hosts = (0..switchboard.states.len()).map(|_| {
            let pipeline = Pipeline::new(Arc::clone(&plan.program), &options, commit_interval_ms);
            let ends = Ends {
                egress: egress.emissions.clone(),
                snapshots: snapshots.0.clone(),
                calls: activities.as_ref().map(|(_, calls)| calls.clone()),
                spans: plan.spans.clone(),
            };
            (pipeline, Journal::Shared(journal(&appender)), ends)
        });
        let arbiters = start_hosts(plan, intake, switchboard, &Arc::new(Readers::none()), hosts);
        let office = take_over::Office {
            program: Arc::clone(&plan.program),
            options: Arc::clone(&options),
            backend: Arc::clone(backend),
            appender: Arc::clone(&appender),
            switchboard: Arc::clone(switchboard),
            egress: egress.clone(),
            directory: Arc::clone(&directory),
            named: Arc::clone(&named),
        };
        let (jobs, take_over) = take_over::start(office, plan.threads.max(2))?;
        let news = {
            let switchboard = Arc::clone(switchboard);
            Box::new(move || switchboard.notify(Notice::Named))
        };
        let membership = backend.membership(news).map_err(RunError::Broken)?;
        tracing::info!(worker = fleet.worker, shards, "a worker has joined the fleet");
        let activities = activities.map(|(activities, _)| activities);
        let threads = Threads { arbiters, activities, take_over, egress: egress_thread, post, feed, clerk, snapshots };
        let away = || Known { place: Place::Away, pause: PAUSES[0], told_at: None };
        Ok(Self {
            shards,
            groups,
            appender,
            directory,
            membership,
            named,
            known: std::iter::repeat_with(away).take(shards as usize).collect(),
            switchboard: Arc::clone(switchboard),
            jobs: Some(jobs),
            egress,
            threads,
        })
    }

    /// Works until a stop, or until a host breaks.
    async fn wait(&mut self, intake: Option<&Intake>, notices: &mut UnboundedReceiver<Notice>, stop: &Stop) -> Outcome {
        let mut stopping = Stopping::Not;
        loop {
            tokio::select! {
                Some(notice) = notices.recv() => {
                    if let Some(outcome) = self.take(notice) {
                        return outcome;
                    }
                }
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
            self.take_news();
            self.tell_presence();
            match stopping {
                Stopping::Not if self.is_finished() => {
                    self.leave();
                    return Outcome::Ended(End::Finished);
                }
                Stopping::Not if stop.is_stopped() => stopping = self.hand_over(),
                Stopping::Not => self.take_over_due(),
                Stopping::HandingOver(since) if since.elapsed() < HAND_OVER_TIME_MAX && self.has_to_hand_over() => {}
                Stopping::HandingOver(_) => stopping = self.drain(intake),
                Stopping::Draining(since) => {
                    let is_idle = self.switchboard.is_quiet(|host| host.is_idle.load(Ordering::Acquire));
                    if is_idle || since.elapsed() >= STOP_TIME_MAX {
                        self.leave();
                        tracing::info!(is_idle, "the worker has committed what it took in, and leaves the fleet");
                        return Outcome::Ended(End::Stopped);
                    }
                }
            }
        }
    }

    /// Gives the shards to other workers, if there are any, as if these had been named for them.
    fn hand_over(&mut self) -> Stopping {
        self.directory.leaves();
        self.tell_presence();
        if self.directory.has_heirs(Instant::now()) {
            self.membership.leave();
            self.take_news();
        }
        Stopping::HandingOver(Instant::now())
    }

    /// Whether a shard is here that another worker can still take over.
    fn has_to_hand_over(&self) -> bool {
        let is_here = |known: &Known| matches!(known.place, Place::Here | Place::TakingOver);
        self.known.iter().any(is_here) && self.directory.has_heirs(Instant::now())
    }

    fn drain(&mut self, intake: Option<&Intake>) -> Stopping {
        self.stop_reading();
        self.named.iter().for_each(|named| named.store(false, Ordering::Release));
        intake.into_iter().for_each(|intake| intake.close(Condition::Stopping));
        let hosts = 0..self.switchboard.states.len();
        hosts.for_each(|host| self.switchboard.post(host, vec![Event::Drain]));
        Stopping::Draining(Instant::now())
    }

    /// Takes in what a thread has to say; returns how this life is over, if it is.
    fn take(&mut self, notice: Notice) -> Option<Outcome> {
        match notice {
            Notice::Named => {}
            Notice::ShardLost(shard) => {
                tracing::info!(shard, "a shard was lost");
                self.lose(shard, Duration::ZERO);
            }
            // Others have, or get, what it is named for.
            Notice::TookOver(_, TookOver::Refused(error)) => return Some(Outcome::Refused(error.into())),
            Notice::TookOver(shards, outcome) => {
                shards.into_iter().for_each(|shard| self.took_over(shard, &outcome));
            }
            Notice::GroupLost(group, time) => self.lose_group(group, time),
            Notice::HostBroke(reason) => {
                return Some(Outcome::Broke(format!("a shard host broke: {reason}")));
            }
            Notice::Lost(reason) => return Some(Outcome::Broke(reason)),
            Notice::SourceFailed(error) => return Some(Outcome::Broke(error.to_string())),
        }
        None
    }

    /// Others have the shards from now on.
    fn leave(&mut self) {
        (0..self.shards).for_each(|shard| self.directory.closed(shard));
        self.tell_presence();
        self.membership.leave();
    }

    /// Leaves word of this worker for the others, if it is time for that.
    fn tell_presence(&self) {
        if let Some(presence) = self.directory.presence(Instant::now()) {
            let partition = progress_partition(self.shards);
            self.appender.append(partition, vec![Arc::new(presence)], Box::new(|_| ()));
        }
    }

    fn take_news(&mut self) {
        while let Some(news) = self.membership.next_news() {
            let (shard, is_named) = match news {
                News::Named(shard) => (shard, true),
                News::Released(shard) => (shard, false),
            };
            self.named[shard as usize].store(is_named, Ordering::Release);
            let known = &mut self.known[shard as usize];
            match known.place {
                Place::Away if is_named => known.place = Place::Due(Instant::now()),
                Place::Due(_) if !is_named => known.place = Place::Away,
                Place::Here => {
                    let host = self.switchboard.host_of(shard);
                    self.switchboard.post(host, vec![Event::Leaving(shard, !is_named)]);
                }
                _ => {}
            }
        }
    }

    /// Gives all shards that are due to the threads that take over, those of a group together, and one lot
    /// after the other: they share their egresses.
    fn take_over_due(&mut self) {
        let now = Instant::now();
        let mut due = BTreeMap::<u32, Vec<ShardId>>::new();
        let is_taking_over = |known: &Known| matches!(known.place, Place::TakingOver);
        let busy: Vec<bool> = (0..self.groups as usize)
            .map(|group| self.known.iter().skip(group).step_by(self.groups as usize).any(is_taking_over))
            .collect();
        for (shard, known) in (0..).zip(&mut self.known) {
            if busy[(shard % self.groups) as usize] {
                continue;
            }
            if matches!(known.place, Place::Due(at) if at <= now) {
                known.place = Place::TakingOver;
                due.entry(shard % self.groups).or_default().push(shard);
            }
        }
        for (group, shards) in due {
            let job = Job { group, shards };
            if let Some(jobs) = &self.jobs {
                // The threads are gone only when the run is over.
                let _ = jobs.send(job);
            }
        }
    }

    fn took_over(&mut self, shard: ShardId, outcome: &TookOver) {
        let is_named = self.is_named(shard);
        let group = shard % self.groups;
        let known = &mut self.known[shard as usize];
        match outcome {
            // They were lost while it was on its way, so nobody writes what it commits.
            TookOver::Owned if !self.egress.is_open(group) => {
                let host = self.switchboard.host_of(shard);
                self.switchboard.post(host, vec![Event::Release(shard)]);
                self.lose(shard, random(PAUSES[0]));
            }
            TookOver::Owned => {
                (known.place, known.pause, known.told_at) = (Place::Here, PAUSES[0], None);
                if !is_named {
                    let host = self.switchboard.host_of(shard);
                    self.switchboard.post(host, vec![Event::Leaving(shard, true)]);
                }
            }
            TookOver::Again(reason) => {
                let pause = known.pause;
                known.pause = (pause * 2).min(PAUSES[1]);
                if is_named && pause > PAUSES[0] * 8 && known.tells() {
                    tracing::warn!(shard, "a shard waits to be taken over: {reason}");
                }
                self.lose(shard, random(pause));
            }
            // That is the end of the worker.
            TookOver::Refused(_) => {}
            TookOver::Broken(reason) => {
                if known.tells() {
                    tracing::error!(shard, "a shard cannot be taken over, the others go on: {reason}");
                }
                self.lose(shard, BROKEN_PAUSE);
            }
        }
    }

    /// A shard is not here; it is to be had again after a pause, if this worker is named for it.
    fn lose(&mut self, shard: ShardId, pause: Duration) {
        self.directory.closed(shard);
        let place = if self.is_named(shard) { Place::Due(Instant::now() + pause) } else { Place::Away };
        self.known[shard as usize].place = place;
        let group = shard % self.groups;
        let mut of_group = self.known.iter().skip(group as usize).step_by(self.groups as usize);
        let is_any = of_group.any(|known| matches!(known.place, Place::Here | Place::TakingOver | Place::Due(_)));
        if !is_any {
            self.close_egress(group);
        }
    }

    fn close_egress(&mut self, group: u32) {
        self.egress.close(group);
        take_over::forget_taken(&self.egress.taken, group, self.groups);
    }

    /// Somebody else has the egresses of a group, so its shards too, or soon; or they have to be opened again.
    fn lose_group(&mut self, group: u32, time: u64) {
        if time != self.egress.time(group) {
            // They were closed, and perhaps opened again, since.
            return;
        }
        self.close_egress(group);
        for shard in (group..self.shards).step_by(self.groups as usize) {
            if matches!(self.known[shard as usize].place, Place::Here) {
                let host = self.switchboard.host_of(shard);
                self.switchboard.post(host, vec![Event::Release(shard)]);
                self.lose(shard, random(PAUSES[0] * 10));
            }
        }
    }

    fn is_named(&self, shard: ShardId) -> bool {
        self.named[shard as usize].load(Ordering::Acquire)
    }

    fn stop_reading(&self) {
        self.threads.feed.iter().for_each(|(feed, _)| _ = feed.send(FeedRequest::Stop));
    }

    /// Whether every shard that this worker is named for is here, and has nothing left to do. A worker that
    /// ends then leaves its shards to others, which find them so.
    fn is_finished(&self) -> bool {
        let mut named = (0..self.shards).filter(|shard| self.is_named(*shard)).peekable();
        named.peek().is_some()
            && named.all(|shard| matches!(self.known[shard as usize].place, Place::Here))
            && self.switchboard.is_quiet(|host| host.is_finished.load(Ordering::Acquire))
            && self.switchboard.status.egress_backlog_bytes() == 0
    }

    /// Stops every thread in the order in which they hand on.
    fn stop(mut self) {
        self.jobs = None;
        (0..self.shards).for_each(|shard| self.directory.closed(shard));
        self.stop_reading();
        let Threads { arbiters, activities, take_over, egress, post, feed, clerk, snapshots } = self.threads;
        feed.into_iter().for_each(|(_, thread)| join(thread));
        activities.into_iter().for_each(Activities::stop);
        arbiters.iter().for_each(|arbiter| _ = arbiter.stop());
        for arbiter in arbiters {
            // The thread ends by itself once its arbiter has stopped.
            let _ = arbiter.join();
        }
        let _ = self.egress.emissions.send(EgressRequest::Stop);
        let _ = egress.join();
        let _ = post.0.send(PostRequest::Stop);
        let _ = clerk.0.send(ClerkRequest::Stop);
        let _ = snapshots.0.send(SnapshotRequest::Stop);
        join(post.1);
        join(clerk.1);
        join(snapshots.1);
        take_over.into_iter().for_each(join);
    }
}

impl Known {
    /// Whether trouble with it is to be told now.
    fn tells(&mut self) -> bool {
        let is_due = self.told_at.is_none_or(|at| at.elapsed() >= TROUBLE_INTERVAL);
        if is_due {
            self.told_at = Some(Instant::now());
        }
        is_due
    }
}

/// A random part of a pause, so that two who want the same shard do not run into each other for ever.
fn random(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64())
}
