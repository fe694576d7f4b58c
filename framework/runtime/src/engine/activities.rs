//! Makes the calls of activities: the only async code of users, on threads of its own.
//!
//! ```text
//! host ──(committed call)──► queue of the activity ──► attempts, back-off ──(result)──► host
//! ```
//! Invariants: a call begins only after the frame that asked for it is committed, as hosts hand on only
//! such calls; each is told one result, or none if the life of the engine ends before. Then the next
//! life begins it again, under the same identity.
//!
//! Deliberately absent: what was tried before a crash; attempts are counted by the process.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

use statefn_core::{
    activity::{ActivityContext, CallOutcome, ErasedActivity, TryAgain},
    context::Resources,
    ports::clock::Clock,
    program::Program,
    shard::ActivityCall,
};
use tokio::{
    sync::{
        Semaphore,
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
        oneshot,
    },
    time::{sleep, timeout},
};

use super::{
    Plan, RunError, SpanSink, Status,
    coordinator::spawn,
    shard_host::{Event, Switchboard},
    spans::{self, Begun},
};
use crate::clock::MachineClock;

/// How many threads run the attempts of all activities; they wait for the outside, they do not work.
const THREADS: usize = 2;
/// How long the end of a life waits for attempts that do not stop at once.
const STOP_TIME_MAX: Duration = Duration::from_millis(100);

/// The threads that make calls.
pub(super) struct Activities {
    thread: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

impl Activities {
    /// Starts them; returns where committed calls go. A program without activities has none.
    pub(super) fn start(
        plan: &Plan,
        switchboard: &Arc<Switchboard>,
    ) -> Result<Option<(Self, UnboundedSender<ActivityCall>)>, RunError> {
        if plan.program.activities.is_empty() {
            return Ok(None);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("statefn-activity")
            .enable_all()
            .build()
            .map_err(|error| RunError::Broken(format!("cannot start the threads of activities: {error}")))?;
        let (sender, receiver) = unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let desk = Desk::new(&plan.program, plan.spans.clone(), switchboard);
        let thread = spawn("activities", move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(desk, receiver) => {}
                    _ = stopped => {}
                }
            });
            runtime.shutdown_timeout(STOP_TIME_MAX);
        })?;
        Ok(Some((Self { thread, stop }, sender)))
    }

    /// Stops them in the middle of what they do.
    pub(super) fn stop(self) {
        // It may have ended by itself.
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

/// What all calls share.
struct Desk {
    app: String,
    resources: Resources,
    activities: BTreeMap<&'static str, (ErasedActivity, Arc<Semaphore>)>,
    spans: Option<SpanSink>,
    switchboard: Arc<Switchboard>,
}

impl Desk {
    fn new(program: &Program, spans: Option<SpanSink>, switchboard: &Arc<Switchboard>) -> Self {
        let activities = program.activities.iter().map(|activity| {
            let places = Arc::new(Semaphore::new(activity.policy.concurrency_max.clamp(1, Semaphore::MAX_PERMITS)));
            (activity.name, (activity.clone(), places))
        });
        let activities = activities.collect();
        Self {
            app: program.app.clone(),
            resources: program.resources.clone(),
            activities,
            spans,
            switchboard: Arc::clone(switchboard),
        }
    }
}

async fn serve(desk: Desk, mut calls: UnboundedReceiver<ActivityCall>) {
    let desk = Arc::new(desk);
    while let Some(call) = calls.recv().await {
        let desk = Arc::clone(&desk);
        tokio::spawn(async move {
            let outcome = outcome(&desk, &call).await;
            let host = desk.switchboard.host_of(call.shard);
            desk.switchboard.post(host, vec![Event::Result(call.shard, call.id, outcome)]);
        });
    }
}

/// Tries until there is a result, or it is time to give up.
async fn outcome(desk: &Desk, call: &ActivityCall) -> CallOutcome {
    let status = &desk.switchboard.status;
    let Some((activity, places)) = desk.activities.get(call.activity.as_str()) else {
        // Linking has checked that the app has what its functions call.
        return CallOutcome::given_up(&format!("the app has no activity `{}`", call.activity));
    };
    let id = format!("{}/{}/{}", desk.app, call.shard, call.id);
    let policy = &activity.policy;
    for attempt in 1.. {
        let Ok(place) = places.acquire().await else { unreachable!("the places of an activity are never closed") };
        if MachineClock.now() >= call.give_up_at {
            return CallOutcome::given_up("it was tried for as long as it may be");
        }
        let trace = spans::next_attempt(call);
        let ctx = ActivityContext::new(id.clone(), attempt, trace.map(|trace| trace.traceparent()));
        let ctx = ctx.with_resources(desk.resources.clone());
        status.activity_attempts.fetch_add(1, Ordering::Relaxed);
        let begun = Begun::begin();
        let made = attempted(activity, call, ctx).await;
        if let Some(trace) = trace {
            let end = || begun.end(trace, activity.name, &id, attempt, made.as_ref().err());
            spans::tell(desk.spans.as_ref(), end);
        }
        let again = match made {
            Ok(outcome) => return outcome,
            Err(again) => again,
        };
        drop(place);
        status.activity_failures.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(activity = activity.name, id, attempt, "an attempt failed: {again}");
        if policy.attempts_max == attempt {
            return CallOutcome::given_up(&format!("{attempt} attempts failed, the last one because: {again}"));
        }
        sleep(jittered(policy.back_off_behind(attempt))).await;
    }
    unreachable!("attempts are counted without end")
}

/// Makes one attempt, in a task of its own, so that a panic in it ends nothing else.
async fn attempted(
    activity: &ErasedActivity,
    call: &ActivityCall,
    ctx: ActivityContext,
) -> Result<CallOutcome, TryAgain> {
    let attempt = match activity.attempt(&call.call, ctx) {
        Ok(attempt) => attempt,
        Err(error) => return Ok(error.into()),
    };
    let mut task = tokio::spawn(attempt);
    let longest = Duration::from_millis(activity.policy.attempt_time_max_ms);
    match timeout(longest, &mut task).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => Err(TryAgain::new(format_args!("it panicked: {error}"))),
        Err(_) => {
            task.abort();
            Err(TryAgain::new(format_args!("it took longer than {} ms", longest.as_millis())))
        }
    }
}

/// Between a half and the whole of a wait, so that calls that failed together do not come back together.
fn jittered(wait_ms: u64) -> Duration {
    Duration::from_millis(fastrand::u64(wait_ms / 2..=wait_ms))
}

impl Status {
    /// How many attempts of activities were begun, and how many of them failed.
    #[must_use]
    pub fn activity_attempts(&self) -> (u64, u64) {
        (self.activity_attempts.load(Ordering::Relaxed), self.activity_failures.load(Ordering::Relaxed))
    }
}
