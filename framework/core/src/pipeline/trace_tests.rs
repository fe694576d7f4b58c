//! Tests of what calls tell of the traces that they are part of.

use super::*;
use crate::{
    envelope::{SpanKind, Trace},
    limits::IDLE_INTERVAL_MS,
    ports::log::Log,
    shard::Wants,
    trial::{Add, Get, Later, Pass, SHARDS, Worker, key_of, program, reply_to, told},
};

const ROOT: Trace = Trace { id: [7; 16], span: 11, parent: 5 };

fn worker() -> Worker {
    let program = program();
    let mut worker = Worker::with(&program, Options { is_live: true, ..Options::new(SHARDS, &program) });
    (0..SHARDS).for_each(|shard| worker.own(shard));
    worker
}

fn traced(request: Request) -> Request {
    Request { trace: Some(ROOT), ..request }
}

fn kinds(spans: &[SpanRecord]) -> Vec<(SpanKind, &str, Trace)> {
    spans.iter().map(|span| (span.kind, span.name.as_str(), span.trace)).collect()
}

#[test]
fn a_message_to_another_shard_is_a_part_of_the_call_that_sent_it() {
    let mut worker = worker();
    worker.request(&key_of(0), &Pass(key_of(1)), traced);
    let spans = told(&worker.run());
    assert_eq!(
        kinds(&spans),
        [(SpanKind::Request, "pass", ROOT), (SpanKind::Message, "add", ROOT.child(1))],
        "each once"
    );
    assert_eq!((spans[1].function.as_str(), &spans[1].key[..]), ("test/counter", key_of(1).as_bytes()));
    assert_eq!((spans[1].now, &spans[1].error), (worker.now.0, &None));
}

#[test]
fn what_is_not_committed_is_not_told() {
    let mut worker = worker();
    worker.request(&key_of(0), &Add(1), traced);
    let actions = worker.pump();
    assert_eq!(told(&actions), []);
    let (shard, offset) = worker.append(&actions);
    worker.pipeline.appended(shard, offset);
    assert_eq!(kinds(&told(&worker.pump())), [(SpanKind::Request, "add", ROOT)]);
}

/// The shard of the sender has committed, that of the receiver has not, and runs its epoch again.
#[test]
fn an_epoch_that_runs_again_has_the_same_spans() {
    let mut worker = worker();
    worker.request(&key_of(0), &Pass(key_of(1)), traced);
    let actions = worker.pump();
    let (shard, offset) = worker.append(&actions);
    assert_eq!(shard, 0);
    let mut next = worker.fork();
    worker.pipeline.appended(shard, offset);
    let first = told(&worker.run());
    (0..SHARDS).for_each(|shard| next.own(shard));
    let again = told(&next.run());
    // What the first shard did is committed, and lost with its process; what the second one does is made again.
    assert_eq!(again, first[1..], "{first:?}");
    assert_eq!(again.len(), 1);
}

#[test]
fn timers_delays_and_sent_requests_are_parts_too() {
    let mut worker = worker();
    let key = key_of(0);
    worker.request(&key, &Later(10), |request| Request { wants: Wants::Commit, ..traced(request) });
    assert_eq!(kinds(&told(&worker.run())), [(SpanKind::Message, "later", ROOT)]);
    let other = Trace { id: [8; 16], ..ROOT };
    worker.request(&key, &Add(1), |request| Request {
        wants: Wants::Commit,
        delay_ms: 10,
        trace: Some(other),
        ..request
    });
    // The timer and the message stand in the journal while nobody runs.
    let mut next = worker.fork();
    worker.run();
    next.log = worker.log.clone();
    (0..SHARDS).for_each(|shard| next.own(shard));
    let mut spans = Vec::new();
    for _ in 0..10 {
        next.now.0 += IDLE_INTERVAL_MS;
        spans.extend(told(&next.run()));
    }
    spans.sort_by_key(|span| span.trace.id);
    assert_eq!(kinds(&spans), [(SpanKind::Timer, "later", ROOT.child(1)), (SpanKind::Message, "add", other)]);
}

#[test]
fn reads_are_told_though_they_make_no_frame() {
    let mut worker = worker();
    let ends: u64 = (0..SHARDS).map(|shard| worker.log.end(shard)).sum();
    let request = worker.request(&key_of(0), &Get, traced);
    let actions = worker.run();
    assert!(reply_to(&actions, request).is_some());
    assert_eq!(kinds(&told(&actions)), [(SpanKind::Request, "get", ROOT)]);
    assert_eq!((0..SHARDS).map(|shard| worker.log.end(shard)).sum::<u64>(), ends);
}

#[test]
fn what_is_part_of_no_trace_tells_nothing() {
    let mut worker = worker();
    worker.call(&key_of(0), &Pass(key_of(1)));
    worker.call(&key_of(0), &Get);
    assert_eq!(told(&worker.run()), []);
}

#[test]
fn a_call_that_is_parked_is_still_a_part_when_it_is_made_again() {
    let mut worker = worker();
    let key = key_of(0);
    worker.call(&key, &Add(u64::MAX));
    worker.request(&key, &Add(1), traced);
    let spans = told(&worker.run());
    assert_eq!(kinds(&spans), [(SpanKind::Request, "add", ROOT)]);
    assert!(spans[0].error.as_ref().is_some_and(|error| error.contains("overflow")), "{spans:?}");
    let mut next = worker.fork();
    (0..SHARDS).for_each(|shard| next.own(shard));
    next.ask(&key, Wants::EditMessage, b"0");
    let spans = told(&next.run());
    assert_eq!((kinds(&spans), &spans[0].error), (vec![(SpanKind::Message, "add", ROOT)], &None));
}

#[test]
fn a_call_that_is_skipped_tells_so() {
    let mut worker = worker();
    let key = key_of(0);
    worker.call(&key, &Add(u64::MAX));
    worker.request(&key, &Add(1), traced);
    worker.run();
    worker.ask(&key, Wants::Skip, b"");
    let spans = told(&worker.run());
    assert_eq!(kinds(&spans), [(SpanKind::Message, "add", ROOT)]);
    assert_eq!(spans[0].error.as_deref(), Some("an operator has skipped the message"));
}
