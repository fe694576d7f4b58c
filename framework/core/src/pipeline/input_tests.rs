//! Input where processes share the log: each partition is one shard's, which sends on what is for others.

use std::{ops::Range, sync::Arc};

use super::*;
use crate::{
    error::LinkError,
    ingress::{Batches, ErasedIngress, Ingress, Logged, RawRecord},
    ports::ingress::{Stretch, finish_stretch},
    shard::{TakeOver, TakeOverError, frame::Position},
    time::EventTime,
    trial::{Add, SHARDS, Worker, key_of, published},
};

/// A worker with a topic of a partition for each shard.
struct Reader {
    worker: Worker,
    ingress: Arc<dyn ErasedIngress>,
}

impl Reader {
    fn new(is_log_shared: bool) -> Self {
        let ingress = Ingress::<Add>::new("sums").event_time(|add| EventTime(add.0 as i64));
        let (program, ingress) = crate::trial::program_with_input(ingress);
        let options = Options { is_log_shared, partitions: vec![SHARDS], ..Options::new(SHARDS, &program) };
        Self { worker: Worker::with(&program, options), ingress }
    }

    /// Reads records of a partition, which lie at the offsets from `from` on: a key and a time each.
    fn read(&mut self, partition: u32, from: u64, records: &[(&str, u64)], is_ended: bool) {
        let mut batches = Batches::new(SHARDS);
        let mut to = Position { offset: from, records: from, event_time_max: None, is_ended };
        for (key, time) in records {
            let value = time.to_string();
            let record = Logged { value: value.as_bytes(), key: Some(key.as_bytes()), time: None };
            let time = self.ingress.route(to.offset, RawRecord::Logged(record), &mut batches).expect("readable");
            to = Position { offset: to.offset + 1, records: to.records + 1, ..to };
            to.event_time_max = to.event_time_max.max(Some(time));
        }
        finish_stretch(&mut batches, 0, partition, Stretch { from, to });
        let owner = partition % SHARDS;
        batches.gather(owner);
        let now = self.worker.now;
        self.worker.pipeline.ingress(owner, &mut batches.shards[owner as usize], now);
    }

    fn shard(&self, shard: ShardId) -> &Shard {
        self.worker.pipeline.shard(shard).expect("it is here")
    }
}

/// A reader of these shards, which have told each other all, with a log that others write to as well.
fn sharing(shards: Range<ShardId>) -> Reader {
    let mut reader = Reader::new(true);
    shards.for_each(|shard| reader.worker.own(shard));
    reader.worker.run();
    reader
}

#[test]
fn a_record_of_the_shard_is_taken_without_a_hop_and_others_are_sent_on() {
    let mut reader = sharing(0..1);
    let (own, other) = (key_of(0), key_of(1));
    reader.read(0, 0, &[(&own, 1), (&other, 2), (&own, 3), (&other, 4)], false);
    assert_eq!(reader.shard(0).counters().calls, 2);
    let mails = published(&reader.worker.run());
    let [mail] = &mails[..] else { panic!("one frame has mail for one shard: {mails:?}") };
    assert_eq!((mail.target, mail.first, mail.last()), (1, 1, 2));
    assert_eq!(reader.shard(0).counters().messages, 2);
}

#[test]
fn what_is_read_again_is_neither_taken_nor_sent_on_again() {
    let mut reader = sharing(0..1);
    let (own, other) = (key_of(0), key_of(1));
    let records = [(own.as_str(), 1), (&other, 2), (&own, 3), (&other, 4)];
    reader.read(0, 0, &records[..2], false);
    reader.read(0, 0, &records[..2], false);
    reader.read(0, 0, &records, false);
    assert_eq!(reader.shard(0).counters().calls, 2);
    let mails = published(&reader.worker.run());
    assert_eq!(mails.iter().map(|mail| (mail.first, mail.last())).collect::<Vec<_>>(), [(1, 2)]);
}

#[test]
fn event_time_waits_for_the_partitions_of_all_shards() {
    let mut reader = sharing(0..SHARDS);
    let key = key_of(0);
    reader.read(0, 0, &[(&key, 1_000)], false);
    reader.worker.run();
    assert_eq!(reader.shard(0).watermark(0), EventTime::MIN, "nothing was read of partition 1");
    reader.read(1, 0, &[(&key, 500)], false);
    reader.worker.run();
    reader.worker.now = ProcessingTime(reader.worker.now.0 + 1_000);
    reader.worker.run();
    for shard in 0..SHARDS {
        assert_eq!(reader.shard(shard).watermark(0), EventTime(499), "shard {shard}");
    }
}

#[test]
fn time_alone_makes_no_frame_at_once() {
    let mut reader = sharing(0..SHARDS);
    let key = key_of(0);
    reader.read(0, 0, &[(&key, 1_000)], false);
    reader.worker.run();
    let epoch = reader.shard(0).epoch();
    reader.read(1, 0, &[(&key_of(1), 500)], false);
    reader.worker.run();
    assert_eq!(reader.shard(0).epoch(), epoch);
    reader.worker.now = ProcessingTime(reader.worker.now.0 + 100);
    reader.worker.run();
    assert_eq!(reader.shard(0).epoch(), epoch + 1);
}

#[test]
fn the_input_has_ended_when_it_has_for_all_shards() {
    let mut reader = sharing(0..SHARDS);
    let key = key_of(1);
    reader.read(0, 0, &[(&key, 1)], true);
    reader.worker.run();
    assert!(!reader.shard(0).is_input_ended() && !reader.worker.pipeline.is_finished());
    reader.read(1, 0, &[], true);
    reader.worker.run();
    assert!(reader.worker.pipeline.is_finished());
}

#[test]
fn a_partition_that_is_added_is_taken_in_and_holds_event_time() {
    let mut reader = sharing(0..SHARDS);
    let key = key_of(0);
    for partition in 0..SHARDS {
        reader.read(partition, 0, &[(&key, 1_000)], false);
    }
    reader.worker.run();
    assert_eq!(reader.shard(0).watermark(0), EventTime(999));
    reader.read(SHARDS, 0, &[(&key, 2_000)], false);
    for partition in 0..SHARDS {
        reader.read(partition, 1, &[(&key, 3_000)], false);
    }
    reader.worker.run();
    assert_eq!(reader.shard(0).watermark(0), EventTime(1_999));
    assert_eq!(reader.shard(0).position(0, SHARDS).offset, 1);
    // A worker that has not looked yet how many there are keeps it.
    let mut successor = reader.worker.fork();
    successor.own(0);
    assert_eq!(successor.pipeline.shard(0).expect("it is here").position(0, SHARDS).offset, 1);
}

#[test]
fn a_shard_that_has_read_what_is_now_another_ones_is_refused() {
    let mut alone = Reader::new(false);
    alone.worker.own(0);
    let mut batches = Batches::new(SHARDS);
    let to = Position { offset: 5, records: 5, ..Position::default() };
    finish_stretch(&mut batches, 0, 1, Stretch { from: 0, to });
    alone.worker.pipeline.ingress(0, &mut batches.shards[0], ProcessingTime(1));
    alone.worker.run();
    let Worker { program, options, log, snapshots, .. } = &mut alone.worker;
    let options = Arc::new(Options { is_log_shared: true, ..Options::clone(options) });
    let prepared = TakeOver::prepare(program, &options, 0, (log, snapshots), u64::MAX, &mut |_| {});
    let Err(TakeOverError::Incompatible { problems: LinkError(problems), .. }) = prepared else {
        panic!("it is refused")
    };
    assert!(problems[0].contains("has read partition 1 of `sums`, which shard 1 takes in"), "{problems:?}");
}
