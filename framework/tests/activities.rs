//! Activities as the runtime makes them: what fails is tried again, what hangs is cut off, what panics
//! ends nothing, and what is tried for long enough is given up.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use statefn::{Policy, prelude::*};

const QUICK: Policy = Policy::new().back_off(Duration::from_millis(1), Duration::from_millis(2));
/// How many calls of `crowded` are made at a time.
const PLACES: usize = 2;
const TASKS: u64 = 12;

#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "task")]
struct Task {
    number: u64,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone, Serialize, Deserialize, Message)]
#[message(name = "line")]
struct Line {
    number: u64,
    what: String,
}

static LINES: Egress<Line> = Egress::new("lines");

/// What the outside has seen: how many calls at a time, and the identities of attempts.
#[derive(Debug, Default)]
struct Outside {
    inside: AtomicUsize,
    most: AtomicUsize,
    attempts: Mutex<Vec<(String, u32)>>,
}

#[activity(name = "test/panics", policy = QUICK)]
async fn panics(task: Task, ctx: ActivityContext) -> Result<u64, TryAgain> {
    ctx.resource::<Arc<Outside>>().attempts.lock().expect("nobody panics here").push((ctx.id().into(), ctx.attempt()));
    tokio::task::yield_now().await;
    assert!(ctx.attempt() > 2, "not yet");
    Ok(task.number)
}

#[activity(name = "test/hangs", policy = QUICK.attempt_time_max(Duration::from_millis(30)))]
async fn hangs(task: Task, ctx: ActivityContext) -> Result<u64, TryAgain> {
    if ctx.attempt() == 1 {
        std::future::pending::<()>().await;
    }
    Ok(task.number)
}

#[activity(name = "test/fails", policy = QUICK.attempts_max(3))]
async fn fails(_: Task, ctx: ActivityContext) -> Result<u64, TryAgain> {
    tokio::task::yield_now().await;
    Err(TryAgain::new(format_args!("attempt {}", ctx.attempt())))
}

#[activity(name = "test/too-late", policy = QUICK.give_up_after(Duration::from_millis(20)))]
async fn too_late(_: Task) -> Result<u64, TryAgain> {
    tokio::task::yield_now().await;
    Err(TryAgain::new("never"))
}

#[activity(name = "test/crowded", policy = QUICK.concurrency_max(PLACES))]
async fn crowded(task: Task, ctx: ActivityContext) -> Result<u64, TryAgain> {
    let outside = ctx.resource::<Arc<Outside>>();
    let inside = outside.inside.fetch_add(1, Ordering::AcqRel) + 1;
    outside.most.fetch_max(inside, Ordering::AcqRel);
    tokio::time::sleep(Duration::from_millis(5)).await;
    outside.inside.fetch_sub(1, Ordering::AcqRel);
    Ok(task.number)
}

#[derive(Debug, Default, Clone, Serialize, Deserialize, State)]
struct Caller {}

/// What a result says, in words.
fn told<E: std::fmt::Debug>(what: &str, outcome: Result<u64, Failed<E>>) -> String {
    match outcome {
        Ok(number) => format!("{what} {number}"),
        Err(Failed::Fault(fault)) => format!("{what} gave up: {fault}"),
        Err(Failed::Rejected(rejection)) => format!("{what} said no: {rejection:?}"),
    }
}

#[function(name = "test/caller", key = u64, emits(LINES))]
impl Caller {
    #[on]
    fn task(&mut self, msg: &Task, ctx: &mut Context<Self>) {
        ctx.call::<crowded>(msg.clone(), msg.number);
        if msg.number == 0 {
            ctx.call::<panics>(msg.clone(), 0);
            ctx.call::<hangs>(msg.clone(), 0);
            ctx.call::<fails>(msg.clone(), 0);
            ctx.call::<too_late>(msg.clone(), 0);
        }
    }

    #[on_reply]
    fn crowded(&mut self, done: Done<crowded>, ctx: &mut Context<Self>) {
        self.line(done.token, told("crowded", done.outcome), ctx);
    }

    #[on_reply]
    fn panicked(&mut self, done: Done<panics>, ctx: &mut Context<Self>) {
        self.line(done.token, told("panics", done.outcome), ctx);
    }

    #[on_reply]
    fn hung(&mut self, done: Done<hangs>, ctx: &mut Context<Self>) {
        self.line(done.token, told("hangs", done.outcome), ctx);
    }

    #[on_reply]
    fn failed(&mut self, done: Done<fails>, ctx: &mut Context<Self>) {
        self.line(done.token, told("fails", done.outcome), ctx);
    }

    #[on_reply]
    fn came_too_late(&mut self, done: Done<too_late>, ctx: &mut Context<Self>) {
        self.line(done.token, told("too-late", done.outcome), ctx);
    }

    fn line(&self, number: u64, what: String, ctx: &mut Context<Self>) {
        ctx.emit(&LINES, &Line { number, what });
    }
}

/// The run ends by itself, so the end of the input waits for results.
#[test]
fn every_call_has_one_result_whatever_its_attempts_do() {
    let directory = tempfile::tempdir().expect("a directory");
    let outside = Arc::new(Outside::default());
    let tasks = Ingress::<Task>::new("tasks").generate(|number| (number < TASKS).then_some(Task { number }));
    let app = App::new("activities")
        .function::<Caller>()
        .activity::<panics>()
        .activity::<hangs>()
        .activity::<fails>()
        .activity::<too_late>()
        .activity::<crowded>()
        .resource(Arc::clone(&outside))
        .ingress(tasks.to::<Caller>(), |task, out| out.send(Caller::at(task.number), task))
        .egress(&LINES)
        .settings(Settings::new().data(directory.path()));
    let summary = app.run().expect("runs to its end");
    assert_eq!(summary.totals.parked_keys, 0);
    let text = std::fs::read_to_string(directory.path().join("lines.jsonl")).expect("is written");
    let mut lines: Vec<Line> = text.lines().map(|line| serde_json::from_str(line).expect("a line")).collect();
    lines.sort();
    let mut expected: Vec<Line> = (0..TASKS).map(|number| Line { number, what: format!("crowded {number}") }).collect();
    let of_first = [
        "fails gave up: 3 attempts failed, the last one because: attempt 3",
        "hangs 0",
        "panics 0",
        "too-late gave up: it was tried for as long as it may be",
    ];
    expected.extend(of_first.map(|what| Line { number: 0, what: what.into() }));
    expected.sort();
    assert_eq!(lines, expected);
    let most = outside.most.load(Ordering::Acquire);
    assert!((1..=PLACES).contains(&most), "{most} calls at a time");
    let attempts = outside.attempts.lock().expect("nobody panics here");
    let numbers: Vec<u32> = attempts.iter().map(|(_, attempt)| *attempt).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert!(attempts.iter().all(|(id, _)| *id == attempts[0].0 && id.starts_with("activities/")), "{attempts:?}");
}
