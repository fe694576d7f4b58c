//! Tests of parked keys that go on. A counter that would overflow breaks its handler.

use super::*;
use crate::{
    State,
    dead_letter::{DeadLetter, Reason},
    message::decode_json,
    ports::log::Log,
    shard::{Guard, Guarded, Overflow, ParkedLimits, Replica, Reply, Trouble, Wants, frame, image::Image},
    trial::{Add, Counter, Get, Later, Pass, SHARDS, Worker, key_of, program, reply_to},
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

/// Runs until nothing is left; returns the reply to a request, and the dead letters on the way.
fn finish(worker: &mut Worker, request: u64) -> (Option<Reply>, Vec<DeadLetter>) {
    let actions = worker.run();
    let mut letters = Vec::new();
    for action in &actions {
        let Action::Emit(emission) = action else { continue };
        let records = emission.records.iter().map(|emitted| emitted.record.of(&emission.frame));
        letters.extend(records.map(|record| decode_json(record).expect("a dead letter")));
    }
    let reply = reply_to(&actions, request);
    worker.keep(actions);
    fold_equals_owner(worker);
    (reply, letters)
}

fn add(worker: &mut Worker, amount: u64) -> Option<Reply> {
    let request = worker.call(&key_of(0), &Add(amount));
    finish(worker, request).0
}

fn ask(worker: &mut Worker, wants: Wants, payload: &[u8]) -> (Option<Reply>, Vec<DeadLetter>) {
    let request = worker.ask(&key_of(0), wants, payload);
    finish(worker, request)
}

fn sum(worker: &mut Worker) -> Option<Reply> {
    let request = worker.call(&key_of(0), &Get);
    finish(worker, request).0
}

fn answered(number: u64) -> Option<Reply> {
    Some(Reply::Answered(number.to_string().into_bytes()))
}

fn waits(reply: Option<Reply>) -> (u64, String) {
    match reply {
        Some(Reply::Resumed { waiting, reason }) => (waiting, reason),
        other => panic!("a key that goes on is told so, not {other:?}"),
    }
}

/// What snapshot and journal tell of a shard is what its owner has (I4).
fn fold_equals_owner(worker: &mut Worker) {
    for shard in 0..SHARDS {
        let (log, snapshots) = (&mut worker.log, &mut worker.snapshots);
        let image: Image = Replica::recover(shard, log, snapshots, u64::MAX, &mut |_, _| {}).expect("is whole").image;
        let owner = worker.pipeline.shards().find(|owned| owned.id() == shard).expect("is owned");
        assert_eq!(Image::decode(&owner.encode(image.next_offset())).map(|image| image.encode()), Ok(image.encode()));
    }
}

/// A worker whose key is parked with an addition of `first`, and of `behind` behind it.
fn parked(first: u64, behind: &[u64], change: impl FnOnce(Options) -> Options) -> Worker {
    let mut worker = worker(change);
    assert_eq!(add(&mut worker, u64::MAX), answered(u64::MAX));
    for amount in [&[first], behind].concat() {
        let request = worker.ask(&key_of(0), Wants::Commit, amount.to_string().as_bytes());
        assert_eq!(finish(&mut worker, request).0, Some(Reply::Taken));
    }
    worker
}

fn state(number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    crate::state::encode(&number, Counter::VERSION, &mut out);
    out
}

#[test]
fn a_retry_makes_the_calls_again_until_one_fails() {
    let mut worker = parked(1, &[2, 3], |options| options);
    let (waiting, reason) = waits(ask(&mut worker, Wants::Retry, b"").0);
    assert_eq!((waiting, &*reason), (3, "panicked: attempt to add with overflow"));
    assert_eq!(add(&mut worker, 4), Some(Reply::Failed(Trouble::Parked)));
    let mut worker = restarted(&worker);
    assert_eq!(waits(ask(&mut worker, Wants::EditState, &state(u64::MAX - 3)).0).0, 1, "the third does not fit");
    let mut worker = restarted(&worker);
    assert_eq!(waits(ask(&mut worker, Wants::EditState, &state(10)).0), (0, String::new()));
    assert_eq!(sum(&mut worker), answered(13));
    assert_eq!(sum(&mut restarted(&worker)), answered(13));
    assert_eq!(ask(&mut worker, Wants::Retry, b"").0, Some(Reply::Failed(Trouble::NotParked)));
}

#[test]
fn a_call_that_is_skipped_becomes_a_dead_letter() {
    let mut worker = parked(7, &[0, 9], |options| options);
    let (reply, letters) = ask(&mut worker, Wants::Skip, b"");
    assert_eq!(waits(reply).0, 1);
    let [letter] = &letters[..] else { panic!("one call was skipped: {letters:?}") };
    assert_eq!((letter.reason, letter.bytes()), (Reason::Skipped, b"7".to_vec()));
    assert_eq!(letter.error, "panicked: attempt to add with overflow");
    let owner = worker.pipeline.shards().next().expect("owned");
    assert_eq!(letter.id, Some(format!("0/{}/0", owner.epoch())));
    assert_eq!(waits(ask(&mut worker, Wants::Skip, b"").0), (0, String::new()));
    assert_eq!(sum(&mut worker), answered(u64::MAX));
}

#[test]
fn an_edit_that_cannot_be_read_changes_nothing() {
    let mut worker = parked(7, &[1], |options| options);
    for wants in [Wants::EditMessage, Wants::EditState] {
        let (reply, letters) = ask(&mut worker, wants, b"no such thing");
        assert!(matches!(reply, Some(Reply::Failed(Trouble::Unreadable(_)))), "{reply:?}");
        assert!(letters.is_empty());
    }
    let waiting: Vec<usize> =
        worker.pipeline.shards().flat_map(Shard::parked).map(|(.., key)| key.queue.len()).collect();
    assert_eq!(waiting, [2]);
    assert_eq!(waits(ask(&mut worker, Wants::EditMessage, b"0").0).0, 1, "the first one fits now");
    assert_eq!(waits(ask(&mut worker, Wants::EditMessage, b"0").0), (0, String::new()));
    assert_eq!(sum(&mut worker), answered(u64::MAX));
}

#[test]
fn what_a_retried_call_sends_and_sets_is_as_of_a_first_one() {
    let mut worker = worker(|options| Options { is_live: true, ..options });
    let (key, other) = (key_of(0), key_of(1));
    let full = worker.call(&key, &Add(u64::MAX));
    assert_eq!(finish(&mut worker, full).0, answered(u64::MAX));
    worker.call(&key, &Later(5));
    worker.run();
    worker.call(&key, &Pass(other.clone()));
    worker.run();
    // The timer comes behind the message that stopped the key.
    worker.now = ProcessingTime(worker.now.0 + 10_000);
    worker.run();
    let mut worker = restarted(&worker);
    let queues: Vec<Vec<bool>> = worker
        .pipeline
        .shards()
        .flat_map(Shard::parked)
        .map(|(.., parked)| parked.calls().map(|(is_timer, _)| is_timer).collect())
        .collect();
    assert_eq!(queues, [[false, true]]);
    assert_eq!(waits(ask(&mut worker, Wants::EditState, &state(1)).0), (0, String::new()));
    assert_eq!(sum(&mut worker), answered(102));
    let request = worker.call(&other, &Get);
    assert_eq!(finish(&mut worker, request).0, answered(1));
}

#[test]
fn a_queue_that_is_longer_than_an_epoch_takes_several() {
    let mut worker = parked(1, &[1; 1_000], |options| Options { epoch_calls_max: 10, ..options });
    let mut expected = 1_001;
    let (mut waiting, _) = waits(ask(&mut worker, Wants::EditState, &state(0)).0);
    while waiting > 0 {
        assert!(waiting < expected, "each retry makes some calls");
        expected = waiting;
        let mut next = restarted(&worker);
        // What comes meanwhile stands behind them.
        let request = next.ask(&key_of(0), Wants::Commit, b"0");
        assert_eq!(finish(&mut next, request).0, Some(Reply::Taken));
        waiting = waits(ask(&mut worker, Wants::Retry, b"").0).0;
    }
    assert_eq!(sum(&mut worker), answered(1_001));
}

#[test]
fn a_full_queue_makes_dead_letters_of_what_comes() {
    let limits = ParkedLimits { key_bytes_max: 120, ..ParkedLimits::default() };
    let mut worker = parked(1, &[2, 3], |options| Options { parked: limits, ..options });
    let request = worker.ask(&key_of(0), Wants::Commit, b"4");
    let (reply, letters) = finish(&mut worker, request);
    assert_eq!(reply, Some(Reply::Taken));
    let letters: Vec<_> = letters.iter().map(|letter| (letter.reason, letter.bytes())).collect();
    assert_eq!(letters, [(Reason::ParkedQueueFull, b"4".to_vec())]);
    assert!(!worker.pipeline.is_stopped_by_parked());
    // What was parked before has its place, also when it fails again under a smaller limit.
    let limits = ParkedLimits { key_bytes_max: 1, shard_bytes_max: 1, ..limits };
    let mut small = Worker::with(&worker.program, Options { parked: limits, ..Options::clone(&worker.options) });
    (small.log, small.snapshots) = (worker.log.clone(), worker.snapshots.clone());
    (0..SHARDS).for_each(|shard| small.own(shard));
    let (reply, letters) = ask(&mut small, Wants::Retry, b"");
    assert_eq!((waits(reply).0, letters.len()), (3, 0));
    assert_eq!(waits(ask(&mut small, Wants::EditState, &state(0)).0), (0, String::new()));
    assert_eq!(sum(&mut small), answered(6));
}

#[test]
fn a_full_queue_can_stop_the_input() {
    let limits = ParkedLimits { key_bytes_max: 120, overflow: Overflow::StopIngress, ..ParkedLimits::default() };
    let mut worker = parked(1, &[2], |options| Options { parked: limits, ..options });
    assert!(!worker.pipeline.is_stopped_by_parked());
    for _ in 0..2 {
        let request = worker.ask(&key_of(0), Wants::Commit, b"4");
        assert_eq!(finish(&mut worker, request).1, []);
    }
    assert!(worker.pipeline.is_stopped_by_parked());
    let mut worker = restarted(&worker);
    assert!(worker.pipeline.is_stopped_by_parked());
    assert_eq!(waits(ask(&mut worker, Wants::EditState, &state(0)).0), (0, String::new()));
    assert!(!worker.pipeline.is_stopped_by_parked());
    assert_eq!(sum(&mut worker), answered(11));
}

#[test]
fn a_shard_has_a_limit_for_all_its_parked_keys() {
    let limits = ParkedLimits { shard_bytes_max: 150, ..ParkedLimits::default() };
    let mut worker = parked(1, &[2, 3, 4, 5], |options| Options { parked: limits, ..options });
    let refused: u64 = worker.pipeline.shards().map(|shard| shard.counters().parked_refused).sum();
    assert!(refused > 0);
    // The first call of a key always has a place.
    let others = (0..).map(|number: u32| format!("other-{number}"));
    let is_here = |key: &String| crate::address::shard_of(crate::address::murmur2(key.as_bytes()), SHARDS) == 0;
    let other = others.into_iter().find(is_here).expect("some key is there");
    worker.call(&other, &Add(u64::MAX));
    worker.call(&other, &Add(1));
    worker.run();
    assert_eq!(worker.pipeline.shards().next().expect("owned").parked_keys(), 2);
    fold_equals_owner(&mut worker);
}

#[test]
fn a_key_goes_on_in_one_frame() {
    let mut worker = parked(1, &[2], |options| options);
    let end = worker.log.end(0);
    worker.ask(&key_of(0), Wants::EditState, &state(0));
    worker.run();
    let mut ops = Vec::new();
    let mut read = |_: Offset, record: &[u8]| {
        let frame = frame::parse(record).expect("a frame");
        frame::ops(frame.body, |op| ops.push(format!("{op:?}"))).expect("readable");
    };
    worker.log.read(0, end, &mut read).expect("readable");
    assert!(ops.iter().any(|op| op.starts_with("Unpark(")), "{ops:?}");
    assert!(ops.iter().any(|op| op.starts_with("State(")), "{ops:?}");
    assert_eq!(worker.log.end(0), end + 1);
}

/// Refuses additions of 5, and notes all others.
struct Refusing(Arc<std::sync::atomic::AtomicU64>);

impl Guard for Refusing {
    fn enter(&mut self, call: &Guarded<'_>) -> Result<(), String> {
        assert_eq!((call.function_name, call.message, call.is_timer), ("test/counter", "add", false));
        if call.payload == b"5" { Err("the process died".into()) } else { Ok(()) }
    }
    fn leave(&mut self) -> bool {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 2
    }
}

#[test]
fn what_a_guard_refuses_is_parked_and_not_called() {
    let mut worker = worker(|options| options);
    let seen = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let mut shard = worker.pipeline.drop_shard(0).expect("owned");
    shard.set_guard(Box::new(Refusing(Arc::clone(&seen))));
    worker.pipeline.adopt(shard, u64::MAX);
    assert_eq!(add(&mut worker, 1), answered(1));
    assert_eq!(add(&mut worker, 5), Some(Reply::Failed(Trouble::Faulted("the process died".into()))));
    assert_eq!(add(&mut worker, 2), Some(Reply::Failed(Trouble::Parked)));
    let mut worker = restarted(&worker);
    assert_eq!(waits(ask(&mut worker, Wants::Retry, b"").0), (0, String::new()), "nobody guards it any more");
    assert_eq!(add(&mut worker, 1), answered(7));
    assert_eq!(seen.load(std::sync::atomic::Ordering::Relaxed), 1);
}
