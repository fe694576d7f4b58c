//! Logs that are shared: answers, mailboxes and progress.

use super::*;
use crate::{
    limits::MAILBOX_TRIM_INTERVAL_MS,
    ports::log::{Log, Record},
    shard::wire::{encode_mail, encode_progress, mailbox_partition},
    trial::{Add, Get, Pass, SHARDS, Worker, answered, key_of, published},
};

fn question(actions: &[Action]) -> u64 {
    let mut questions = actions.iter().filter_map(|action| match action {
        Action::AskEnd { question, .. } => Some(*question),
        _ => None,
    });
    let question = questions.next().expect("the end is asked for");
    assert!(questions.next().is_none(), "one question for all answers that wait");
    question
}

fn owner() -> (Worker, String) {
    let mut worker = Worker::new(true);
    worker.own(0);
    worker.run();
    (worker, key_of(0))
}

#[test]
fn an_answer_waits_for_the_end_of_the_journal() {
    let (mut worker, key) = owner();
    let reads = [worker.call(&key, &Get), worker.call(&key, &Get)];
    let actions = worker.pump();
    assert!(answered(&actions).is_empty());
    assert!(!worker.pipeline.is_idle(), "answers wait");
    let end = worker.log.end(0);
    worker.pipeline.journal_end(0, question(&actions), end);
    assert_eq!(answered(&worker.pump()), reads);
    assert!(worker.pipeline.is_idle());
}

#[test]
fn an_end_that_another_owner_has_moved_loses_the_shard_and_its_answers() {
    let (mut worker, key) = owner();
    worker.call(&key, &Get);
    let asked = question(&worker.pump());
    let mut other = worker.fork();
    other.own(0);
    worker.pipeline.journal_end(0, asked, other.log.end(0));
    let actions = worker.pump();
    assert!(matches!(actions[..], [Action::TakeOver(0)]), "{actions:?}");
}

#[test]
fn a_later_epoch_of_somebody_else_loses_a_shard_that_has_nothing_to_append() {
    let (mut worker, key) = owner();
    let mut other = worker.fork();
    other.own(0);
    let told = |other: &mut Worker| {
        let progress = Arc::new(other.pipeline.shard(0).expect("it is here").progress());
        encode_progress(&other.program, &[progress], usize::MAX).remove(0)
    };
    worker.pipeline.progress_record(&told(&mut other));
    assert!(worker.pipeline.owns(0), "its epoch is the same");
    other.call(&key, &Add(1));
    other.run();
    worker.pipeline.progress_record(&told(&mut other));
    let actions = worker.pump();
    assert!(matches!(actions[..], [Action::TakeOver(0)]), "{actions:?}");
}

#[test]
fn an_answer_waits_for_a_question_of_its_own() {
    let (mut worker, key) = owner();
    let first = worker.call(&key, &Get);
    let asked = question(&worker.pump());
    let second = worker.call(&key, &Get);
    assert!(worker.pump().is_empty(), "one question is out at a time");
    let end = worker.log.end(0);
    worker.pipeline.journal_end(0, asked, end);
    let actions = worker.pump();
    assert_eq!(answered(&actions), [first]);
    worker.pipeline.journal_end(0, asked, end);
    assert!(answered(&worker.pump()).is_empty(), "a reply counts once");
    worker.pipeline.journal_end(0, question(&actions), end);
    assert_eq!(answered(&worker.pump()), [second]);
}

#[test]
fn a_frame_that_was_on_its_way_before_a_call_proves_nothing_for_it() {
    let (mut worker, key) = owner();
    let write = worker.call(&key, &Add(1));
    let actions = worker.pump();
    let read = worker.call(&key, &Get);
    assert!(worker.pump().is_empty());
    let (shard, offset) = worker.append(&actions);
    worker.pipeline.appended(shard, offset);
    let actions = worker.pump();
    assert_eq!(answered(&actions), [write]);
    let end = worker.log.end(0);
    worker.pipeline.journal_end(0, question(&actions), end);
    assert_eq!(answered(&worker.pump()), [read]);
}

#[test]
fn a_frame_that_is_sealed_after_a_question_proves_its_answers() {
    let (mut worker, key) = owner();
    let read = worker.call(&key, &Get);
    let asked = question(&worker.pump());
    let write = worker.call(&key, &Add(1));
    let actions = worker.pump();
    let (shard, offset) = worker.append(&actions);
    // The end has moved, by the frame of its own.
    worker.pipeline.journal_end(0, asked, worker.log.end(0));
    assert!(worker.pipeline.owns(0));
    worker.pipeline.appended(shard, offset);
    assert_eq!(answered(&worker.pump()), [write, read]);
}

#[test]
fn nobody_asks_where_the_log_has_one_writer() {
    let mut worker = Worker::new(false);
    worker.own(0);
    worker.run();
    let read = worker.call(&key_of(0), &Get);
    assert_eq!(answered(&worker.pump()), [read]);
    assert_eq!(worker.pipeline.mailbox_from(0), None);
}

#[test]
fn an_epoch_of_reads_alone_does_not_fill_a_shard_for_ever() {
    let program = crate::trial::program();
    let options = Options { epoch_calls_max: 1, ..Options::new(SHARDS, &program) };
    let mut worker = Worker::with(&program, options);
    worker.own(0);
    worker.run();
    let read = worker.call(&key_of(0), &Get);
    assert!(!worker.pipeline.wants_input(), "the epoch is full");
    assert_eq!(answered(&worker.run()), [read]);
    assert!(worker.pipeline.wants_input());
}

/// Mails from shard 1 to shard 0, as their records.
fn mail(count: usize) -> Vec<Vec<u8>> {
    let mut source = Worker::new(true);
    source.own(1);
    let mut records = Vec::new();
    for _ in 0..count {
        source.call(&key_of(1), &Pass(key_of(0)));
        let mails = published(&source.run());
        records.extend(mails.iter().flat_map(|mail| encode_mail(&source.program, mail, usize::MAX)));
    }
    records
}

fn deliver(worker: &mut Worker, offset: Offset, record: &[u8]) -> Taken {
    let now = worker.now;
    worker.pipeline.mailbox_record(0, offset, record, now)
}

fn trims(actions: &[Action]) -> Vec<Offset> {
    let trims = actions.iter().filter_map(|action| match action {
        Action::TrimMailbox { shard: 0, before } => Some(*before),
        _ => None,
    });
    trims.collect()
}

#[test]
fn a_mailbox_is_trimmed_to_what_confirmed_frames_have() {
    let (mut worker, _) = owner();
    let records = mail(2);
    assert_eq!(deliver(&mut worker, 0, &records[0]), Taken::Applied);
    assert_eq!(deliver(&mut worker, 1, &records[0]), Taken::Void, "it is doubled");
    assert_eq!(deliver(&mut worker, 2, b"garbage"), Taken::Unreadable);
    assert_eq!(worker.pipeline.mailbox_from(0), Some(3));
    let actions = worker.pump();
    assert!(trims(&actions).is_empty(), "the frame is on its way");
    assert_eq!(deliver(&mut worker, 3, &records[1]), Taken::Applied);
    let (shard, offset) = worker.append(&actions);
    worker.pipeline.appended(shard, offset);
    let actions = worker.pump();
    assert_eq!(trims(&actions), [3], "what was read since is not in it");
    let (shard, offset) = worker.append(&actions);
    worker.pipeline.appended(shard, offset);
    assert!(trims(&worker.run()).is_empty(), "it was trimmed just now");
    assert_eq!(deliver(&mut worker, 4, b"garbage"), Taken::Unreadable);
    worker.now = ProcessingTime(worker.now.0 + MAILBOX_TRIM_INTERVAL_MS);
    assert_eq!(trims(&worker.run()), [5], "garbage alone makes no frame");
}

#[test]
fn a_full_shard_leaves_its_mail_in_the_mailbox() {
    let program = crate::trial::program();
    let options = Options { is_log_shared: true, epoch_calls_max: 1, ..Options::new(SHARDS, &program) };
    let mut worker = Worker::with(&program, options);
    worker.own(0);
    worker.run();
    let records = mail(1);
    assert_eq!(deliver(&mut worker, 0, &records[0]), Taken::Applied);
    assert_eq!(worker.pipeline.mailbox_from(0), None);
    assert_eq!(deliver(&mut worker, 1, &records[0]), Taken::NotYet);
    worker.run();
    assert_eq!(worker.pipeline.mailbox_from(0), Some(1));
}

#[test]
fn a_new_owner_reads_its_mailbox_from_the_start() {
    let (mut worker, key) = owner();
    let records = mail(1);
    let mailbox = mailbox_partition(SHARDS, 0);
    worker.log.append(&[Record { partition: mailbox, bytes: &records[0] }]).expect("memory");
    deliver(&mut worker, 0, &records[0]);
    worker.run();
    let mut next = worker.fork();
    next.own(0);
    assert_eq!(next.pipeline.mailbox_from(0), Some(0));
    assert_eq!(deliver(&mut next, 0, &records[0]), Taken::Void, "its frames have it");
    let read = next.call(&key, &Add(0));
    let actions = next.run();
    let answer = actions.iter().find_map(|action| match action {
        Action::Answer(answer) if answer.request == read => Some(answer.reply.clone()),
        _ => None,
    });
    assert_eq!(answer, Some(crate::shard::Reply::Answered(b"1".to_vec())));
}

#[test]
fn mail_for_another_shard_is_passed_over() {
    let (mut worker, _) = owner();
    let mut wrong = Worker::new(true);
    wrong.own(0);
    wrong.call(&key_of(0), &Pass(key_of(1)));
    let mails = published(&wrong.run());
    let records = encode_mail(&wrong.program, &mails[0], usize::MAX);
    assert_eq!(deliver(&mut worker, 0, &records[0]), Taken::Unreadable);
}

#[test]
fn progress_of_one_pump_is_one_record_and_a_repeat_is_no_news() {
    let mut source = Worker::new(true);
    source.own(0);
    source.own(1);
    let news = source.pump().into_iter().find_map(|action| match action {
        Action::Progress(news) => Some(news),
        _ => None,
    });
    let news = news.expect("progress is told");
    assert_eq!(news.len(), 2);
    let records = encode_progress(&source.program, &news, usize::MAX);
    assert_eq!(records.len(), 1);
    let mut worker = Worker::new(true);
    assert_eq!(worker.pipeline.progress_record(&records[0]), Taken::Applied);
    assert_eq!(worker.pipeline.progress_record(&records[0]), Taken::Void);
    assert_eq!(worker.pipeline.progress_record(b"garbage"), Taken::Unreadable);
}

#[test]
fn progress_that_is_confirmed_and_repeated_at_once_is_told_once() {
    let (mut worker, key) = owner();
    worker.call(&key, &Add(1));
    let actions = worker.pump();
    let (shard, offset) = worker.append(&actions);
    worker.pipeline.appended(shard, offset);
    worker.now = ProcessingTime(worker.now.0 + PROGRESS_INTERVAL_MS);
    let news = worker.pump().into_iter().find_map(|action| match action {
        Action::Progress(news) => Some(news),
        _ => None,
    });
    let told: Vec<(ShardId, u64)> =
        news.expect("progress is told").iter().map(|progress| (progress.shard, progress.epoch)).collect();
    assert_eq!(told, [(0, 1)]);
}
