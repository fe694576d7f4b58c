//! Tests of what makes an app a service: answers that are remembered, and time that goes on.

use super::*;
use crate::{
    limits::IDLE_INTERVAL_MS,
    ports::log::Log,
    shard::{Reply, Trouble},
    trial::{Add, Get, Later, SHARDS, Worker, key_of, program, reply_to},
};

fn worker(change: impl FnOnce(Options) -> Options) -> Worker {
    let program = program();
    let options = change(Options::new(SHARDS, &program));
    let mut worker = Worker::with(&program, options);
    (0..SHARDS).for_each(|shard| worker.own(shard));
    worker
}

/// The same app after a crash.
fn restarted(worker: &Worker) -> Worker {
    let mut next = worker.fork();
    (0..SHARDS).for_each(|shard| next.own(shard));
    next
}

fn answered(number: u64) -> Option<Reply> {
    Some(Reply::Answered(number.to_string().into_bytes()))
}

fn add_once(worker: &mut Worker, amount: u64, once: &str) -> Option<Reply> {
    let request = worker.call_once(&key_of(0), &Add(amount), Some(once.as_bytes()));
    let actions = worker.run();
    let reply = reply_to(&actions, request);
    worker.keep(actions);
    reply
}

fn frames(worker: &Worker) -> u64 {
    (0..SHARDS).map(|shard| worker.log.end(shard)).sum()
}

#[test]
fn a_request_that_is_repeated_is_done_once() {
    let mut worker = worker(|options| options);
    assert_eq!(add_once(&mut worker, 5, "a"), answered(5));
    assert_eq!(add_once(&mut worker, 1, "b"), answered(6));
    let before = frames(&worker);
    assert_eq!(add_once(&mut worker, 5, "a"), answered(5));
    assert_eq!(frames(&worker), before, "an answer that is known makes no frame");
    let mut worker = restarted(&worker);
    assert_eq!(add_once(&mut worker, 5, "a"), answered(5));
    assert_eq!(add_once(&mut worker, 1, "c"), answered(7));
}

#[test]
fn answers_are_in_snapshots() {
    let mut worker = worker(|options| Options { snapshot_tail_bytes: 1, ..options });
    for number in 0..50 {
        assert_eq!(add_once(&mut worker, 1, &format!("{number}")), answered(number + 1));
    }
    assert!(worker.has_trimmed(0));
    let mut worker = restarted(&worker);
    for number in 0..50 {
        assert_eq!(add_once(&mut worker, 1, &format!("{number}")), answered(number + 1));
    }
}

#[test]
fn a_duplicate_waits_for_the_frame_of_the_first() {
    let mut worker = worker(|options| options);
    let key = key_of(0);
    let first = worker.call_once(&key, &Add(1), Some(b"a"));
    let actions = worker.pump();
    let second = worker.call_once(&key, &Add(1), Some(b"a"));
    assert_eq!(reply_to(&worker.pump(), second), None, "the frame is on its way");
    let (shard, offset) = worker.append(&actions);
    worker.pipeline.appended(shard, offset);
    let actions = worker.run();
    assert_eq!((reply_to(&actions, first), reply_to(&actions, second)), (answered(1), answered(1)));
}

#[test]
fn a_key_is_for_one_request_of_one_address() {
    let mut worker = worker(|options| options);
    assert_eq!(add_once(&mut worker, 5, "a"), answered(5));
    assert_eq!(add_once(&mut worker, 6, "a"), Some(Reply::Failed(Trouble::KeyReused)));
    let other = worker.call_once(&key_of(1), &Add(6), Some(b"a"));
    let read = worker.call_once(&key_of(0), &Get, Some(b"a"));
    let actions = worker.run();
    assert_eq!(reply_to(&actions, other), answered(6));
    assert_eq!(reply_to(&actions, read), answered(5), "reads are always done");
}

#[test]
fn answers_are_forgotten_in_time_and_the_fold_forgets_them_too() {
    let mut worker = worker(|options| Options { answers_kept_ms: 1_200, ..options });
    assert_eq!(add_once(&mut worker, 5, "a"), answered(5));
    worker.now.0 += 1_199;
    assert_eq!(add_once(&mut worker, 5, "a"), answered(5));
    worker.now.0 += 200;
    assert_eq!(add_once(&mut worker, 5, "a"), answered(10));
    let mut worker = restarted(&worker);
    assert_eq!(add_once(&mut worker, 5, "a"), answered(10));
    // Any frame of the shard forgets what has ended.
    worker.now.0 += 5_000;
    let key = key_of(0);
    worker.call(&key, &Add(1));
    worker.run();
    let mut worker = restarted(&worker);
    assert_eq!(add_once(&mut worker, 5, "a"), answered(16));
}

#[test]
fn answers_that_would_take_too_much_memory_are_refused() {
    let mut worker = worker(|options| Options { answers_bytes_max: 1_000, ..options });
    let mut count = 0;
    while add_once(&mut worker, 1, &format!("{count}")) == answered(count + 1) {
        count += 1;
    }
    assert!((3..10).contains(&count), "{count} answers were taken");
    let before = frames(&worker);
    assert_eq!(add_once(&mut worker, 1, "more"), Some(Reply::Failed(Trouble::AnswersFull)));
    assert_eq!(frames(&worker), before, "what is refused has done nothing");
    assert_eq!(add_once(&mut worker, 1, "0"), answered(1));
}

/// How long a timer waits, far more than the interval at which time may be told.
const WAIT_MS: i64 = 1_000 * IDLE_INTERVAL_MS;

/// Reads a counter.
fn get(worker: &mut Worker, key: &str) -> Option<Reply> {
    let read = worker.call(key, &Get);
    reply_to(&worker.run(), read)
}

#[test]
fn time_goes_on_where_something_waits_for_it() {
    let mut worker = worker(|options| Options { is_live: true, ..options });
    let key = key_of(0);
    worker.call(&key, &Later(WAIT_MS as u64));
    worker.run();
    let set_at = worker.now;
    let before = frames(&worker);
    while worker.now.0 < set_at.0 + WAIT_MS {
        worker.run();
        worker.now.0 += 50;
    }
    assert_eq!(get(&mut worker, &key), answered(0));
    // The wheel knows far times about, and better the nearer they are.
    assert!(frames(&worker) - before <= 12 * u64::from(SHARDS), "{} frames", frames(&worker) - before);
    let before = frames(&worker);
    worker.now.0 += 1;
    while get(&mut worker, &key) != answered(100) {
        worker.now.0 += 50;
        assert!(worker.now.0 < set_at.0 + WAIT_MS + 2 * IDLE_INTERVAL_MS, "the timer does not fire");
    }
    // Each shard may have told that time has come, and what that brought.
    assert!(frames(&worker) - before <= 3 * u64::from(SHARDS), "{} frames", frames(&worker) - before);
    let before = frames(&worker);
    for _ in 0..200 {
        worker.now.0 += 100;
        worker.run();
    }
    assert_eq!(frames(&worker), before, "time alone makes no frame");
    assert!(!worker.pipeline.is_finished(), "a service never ends");
}

#[test]
fn requests_happen_now_and_are_never_late() {
    let mut worker = worker(|options| Options { is_live: true, ..options });
    let key = key_of(0);
    for _ in 0..20 {
        worker.call(&key, &Later(1));
        worker.run();
        worker.now.0 += 7;
    }
    let late: u64 = worker.pipeline.shards().map(|shard| shard.counters().late).sum();
    assert_eq!(late, 0);
}
