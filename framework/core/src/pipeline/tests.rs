//! Logs that are shared: answers, mailboxes and progress.

use super::*;
use crate::{
    limits::MAILBOX_TRIM_INTERVAL_MS,
    ports::log::{Log, Record},
    shard::wire::{encode_mail, encode_progress, mailbox_partition},
    trial::{Add, Get, Pass, Process, SHARDS, answered, key_of, published},
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

fn owner() -> (Process, String) {
    let mut process = Process::new(true);
    process.own(0);
    process.run();
    (process, key_of(0))
}

#[test]
fn an_answer_waits_for_the_end_of_the_journal() {
    let (mut process, key) = owner();
    let reads = [process.call(&key, &Get), process.call(&key, &Get)];
    let actions = process.pump();
    assert!(answered(&actions).is_empty());
    assert!(!process.pipeline.is_idle(), "answers wait");
    let end = process.log.end(0);
    process.pipeline.journal_end(0, question(&actions), end);
    assert_eq!(answered(&process.pump()), reads);
    assert!(process.pipeline.is_idle());
}

#[test]
fn an_end_that_another_owner_has_moved_loses_the_shard_and_its_answers() {
    let (mut process, key) = owner();
    process.call(&key, &Get);
    let asked = question(&process.pump());
    let mut other = process.fork();
    other.own(0);
    process.pipeline.journal_end(0, asked, other.log.end(0));
    let actions = process.pump();
    assert!(matches!(actions[..], [Action::TakeOver(0)]), "{actions:?}");
}

#[test]
fn an_answer_waits_for_a_question_of_its_own() {
    let (mut process, key) = owner();
    let first = process.call(&key, &Get);
    let asked = question(&process.pump());
    let second = process.call(&key, &Get);
    assert!(process.pump().is_empty(), "one question is out at a time");
    let end = process.log.end(0);
    process.pipeline.journal_end(0, asked, end);
    let actions = process.pump();
    assert_eq!(answered(&actions), [first]);
    process.pipeline.journal_end(0, asked, end);
    assert!(answered(&process.pump()).is_empty(), "a reply counts once");
    process.pipeline.journal_end(0, question(&actions), end);
    assert_eq!(answered(&process.pump()), [second]);
}

#[test]
fn a_frame_that_was_on_its_way_before_a_call_proves_nothing_for_it() {
    let (mut process, key) = owner();
    let write = process.call(&key, &Add(1));
    let actions = process.pump();
    let read = process.call(&key, &Get);
    assert!(process.pump().is_empty());
    let (shard, offset) = process.append(&actions);
    process.pipeline.appended(shard, offset);
    let actions = process.pump();
    assert_eq!(answered(&actions), [write]);
    let end = process.log.end(0);
    process.pipeline.journal_end(0, question(&actions), end);
    assert_eq!(answered(&process.pump()), [read]);
}

#[test]
fn a_frame_that_is_sealed_after_a_question_proves_its_answers() {
    let (mut process, key) = owner();
    let read = process.call(&key, &Get);
    let asked = question(&process.pump());
    let write = process.call(&key, &Add(1));
    let actions = process.pump();
    let (shard, offset) = process.append(&actions);
    // The end has moved, by the frame of its own.
    process.pipeline.journal_end(0, asked, process.log.end(0));
    assert!(process.pipeline.owns(0));
    process.pipeline.appended(shard, offset);
    assert_eq!(answered(&process.pump()), [write, read]);
}

#[test]
fn nobody_asks_where_the_log_has_one_writer() {
    let mut process = Process::new(false);
    process.own(0);
    process.run();
    let read = process.call(&key_of(0), &Get);
    assert_eq!(answered(&process.pump()), [read]);
    assert_eq!(process.pipeline.mailbox_from(0), None);
}

/// Mails from shard 1 to shard 0, as their records.
fn mail(count: usize) -> Vec<Vec<u8>> {
    let mut source = Process::new(true);
    source.own(1);
    let mut records = Vec::new();
    for _ in 0..count {
        source.call(&key_of(1), &Pass(key_of(0)));
        let mails = published(&source.run());
        records.extend(mails.iter().flat_map(|mail| encode_mail(&source.program, mail, usize::MAX)));
    }
    records
}

fn deliver(process: &mut Process, offset: Offset, record: &[u8]) -> Taken {
    let now = process.now;
    process.pipeline.mailbox_record(0, offset, record, now)
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
    let (mut process, _) = owner();
    let records = mail(2);
    assert_eq!(deliver(&mut process, 0, &records[0]), Taken::Applied);
    assert_eq!(deliver(&mut process, 1, &records[0]), Taken::Void, "it is doubled");
    assert_eq!(deliver(&mut process, 2, b"garbage"), Taken::Unreadable);
    assert_eq!(process.pipeline.mailbox_from(0), Some(3));
    let actions = process.pump();
    assert!(trims(&actions).is_empty(), "the frame is on its way");
    assert_eq!(deliver(&mut process, 3, &records[1]), Taken::Applied);
    let (shard, offset) = process.append(&actions);
    process.pipeline.appended(shard, offset);
    let actions = process.pump();
    assert_eq!(trims(&actions), [3], "what was read since is not in it");
    let (shard, offset) = process.append(&actions);
    process.pipeline.appended(shard, offset);
    assert!(trims(&process.run()).is_empty(), "it was trimmed just now");
    assert_eq!(deliver(&mut process, 4, b"garbage"), Taken::Unreadable);
    process.now = ProcessingTime(process.now.0 + MAILBOX_TRIM_INTERVAL_MS);
    assert_eq!(trims(&process.run()), [5], "garbage alone makes no frame");
}

#[test]
fn a_full_shard_leaves_its_mail_in_the_mailbox() {
    let program = crate::trial::program();
    let options = Options { is_log_shared: true, epoch_calls_max: 1, ..Options::new(SHARDS, &program) };
    let mut process = Process::with(&program, options);
    process.own(0);
    process.run();
    let records = mail(1);
    assert_eq!(deliver(&mut process, 0, &records[0]), Taken::Applied);
    assert_eq!(process.pipeline.mailbox_from(0), None);
    assert_eq!(deliver(&mut process, 1, &records[0]), Taken::NotYet);
    process.run();
    assert_eq!(process.pipeline.mailbox_from(0), Some(1));
}

#[test]
fn a_new_owner_reads_its_mailbox_from_the_start() {
    let (mut process, key) = owner();
    let records = mail(1);
    let mailbox = mailbox_partition(SHARDS, 0);
    process.log.append(&[Record { partition: mailbox, bytes: &records[0] }]).expect("memory");
    deliver(&mut process, 0, &records[0]);
    process.run();
    let mut next = process.fork();
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
    let (mut process, _) = owner();
    let mut wrong = Process::new(true);
    wrong.own(0);
    wrong.call(&key_of(0), &Pass(key_of(1)));
    let mails = published(&wrong.run());
    let records = encode_mail(&wrong.program, &mails[0], usize::MAX);
    assert_eq!(deliver(&mut process, 0, &records[0]), Taken::Unreadable);
}

#[test]
fn progress_of_one_pump_is_one_record_and_a_repeat_is_no_news() {
    let mut source = Process::new(true);
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
    let mut process = Process::new(true);
    assert_eq!(process.pipeline.progress_record(&records[0]), Taken::Applied);
    assert_eq!(process.pipeline.progress_record(&records[0]), Taken::Void);
    assert_eq!(process.pipeline.progress_record(b"garbage"), Taken::Unreadable);
}
