//! Ingress: the suite of its port, and what partitions, topics and positions do while they are read.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Instant,
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    producer::{BaseProducer, BaseRecord, Producer},
};
use services::kafka::Broker;
use statefn_core::{
    dead_letter::DeadLetter,
    effect::Call,
    ingress::{Batches, ErasedIngress, RawRecord},
    ports::ingress::{ReadLimit, Source, conformance},
    shard::frame::Position,
    time::{EventTime, ProcessingTime},
};
use statefn_kafka::{
    InputError, KafkaFeed, KafkaSource,
    ingress::{Format, Input, Start, TopicPartition, Topics},
};

use crate::support::{
    LIMIT, LOOK, config, connection, grow_topic, make_topic, offsets, plain, produce, remove_before, transact,
    transactional, until,
};

const SHARDS: u32 = 3;
const ALL: ReadLimit = ReadLimit { records: u64::MAX, bytes: u64::MAX };

/// Takes values that are JSON texts, and remembers the key and the time of each.
#[derive(Debug, Default)]
struct Texts(Mutex<Vec<Taken>>);

/// A text, its key and its time.
type Taken = (String, Option<Vec<u8>>, Option<EventTime>);

impl Texts {
    fn lock(&self) -> MutexGuard<'_, Vec<Taken>> {
        self.0.lock().expect("no panic")
    }
}

impl ErasedIngress for Texts {
    fn name(&self) -> &'static str {
        "texts"
    }

    fn route(&self, offset: u64, record: RawRecord<'_>, batches: &mut Batches) -> Result<EventTime, String> {
        let RawRecord::Logged(logged) = record else { return Err("it is of no log".into()) };
        let text: String = statefn_core::message::decode_json(logged.value).map_err(|error| error.to_string())?;
        let time = logged.time.unwrap_or_default();
        let batch = &mut batches.shards[text.len() % SHARDS as usize];
        batch.calls.push(Call::message(0, 0, 0, time), logged.key.unwrap_or_default(), logged.value);
        batch.offsets.push(offset);
        self.lock().push((text, logged.key.map(<[u8]>::to_vec), logged.time));
        Ok(time)
    }

    fn generate(&self, _: u64, _: &mut Batches) -> Option<Result<EventTime, String>> {
        None
    }

    fn is_generator(&self) -> bool {
        false
    }
}

fn place(topic: &str, partition: u32) -> TopicPartition {
    TopicPartition { topic: topic.to_owned(), partition }
}

fn named(ingress: usize, topics: &[&str]) -> Input {
    let topics = Topics::Named(topics.iter().map(|topic| (*topic).to_owned()).collect());
    Input { ingress, topics, format: Format::Text, known: Vec::new() }
}

fn open_source(bootstrap: &str, at: TopicPartition, from: Position, until: Option<u64>) -> KafkaSource {
    KafkaSource::open(&connection(bootstrap), "source", at, Format::Text, from, until, LIMIT).expect("opens")
}

/// A feed and everything that it gave.
struct Reader {
    feed: KafkaFeed,
    ingresses: Vec<Arc<dyn ErasedIngress>>,
    texts: Arc<Texts>,
    /// By ingress and partition: where it is.
    at: BTreeMap<(usize, u32), Position>,
    dead_letters: Vec<(u64, DeadLetter)>,
}

impl Reader {
    fn open(bootstrap: &str, group: &str, inputs: Vec<Input>) -> Result<Self, InputError> {
        let texts = Arc::new(Texts::default());
        let ingresses = (0..2).map(|_| Arc::clone(&texts) as Arc<dyn ErasedIngress>).collect();
        let feed = KafkaFeed::open(&connection(bootstrap), group, inputs, LIMIT)?;
        Ok(Self { feed, ingresses, texts, at: BTreeMap::new(), dead_letters: Vec::new() })
    }

    fn follow(&mut self, ingress: usize, partition: u32, from: Position, until: Option<u64>) {
        self.feed.follow(ingress, partition, from, until).expect("the client takes it");
        self.at.insert((ingress, partition), from);
    }

    /// Reads one stretch, if there is one soon.
    fn read(&mut self, limit: ReadLimit) -> Result<Option<(usize, u32)>, InputError> {
        let mut batches = Batches::new(SHARDS);
        let Some((ingress, partition, stretch)) = self.feed.next(LOOK, &self.ingresses, &mut batches, limit)? else {
            return Ok(None);
        };
        let at = self.at.insert((ingress, partition), stretch.to).expect("it is followed");
        assert_eq!(stretch.from, at.offset, "a stretch begins where the one before ended");
        assert!(stretch.to.records > at.records || stretch.to.is_ended, "a stretch is empty only at the end");
        self.dead_letters.extend(batches.shards.into_iter().flat_map(|shard| shard.dead_letters));
        Ok(Some((ingress, partition)))
    }

    /// Reads until so many records were read, and returns their texts in the order in which they came.
    fn read_records(&mut self, count: usize) -> Vec<String> {
        let begun = Instant::now();
        while self.texts.lock().len() < count {
            assert!(begun.elapsed() < LIMIT, "only {:?} came", self.texts);
            self.read(ALL).expect("it can be read");
        }
        self.texts.lock().drain(..).map(|(text, ..)| text).collect()
    }

    fn read_error(&mut self) -> InputError {
        until("there is an error", || match self.read(ALL) {
            Err(error) => Ok(error),
            Ok(read) => Err(read),
        })
    }
}

/// A partition that holds committed and aborted transactions, records without one, and bad ones; ends
/// with marks.
fn mixed(bootstrap: &str, topic: &str) {
    make_topic(bootstrap, topic, 1);
    let (plain, transactional) = (plain(bootstrap), transactional(bootstrap, topic));
    transact(&transactional, topic, 0, &["aborted first"], false);
    produce(&plain, topic, 0, &["one"]);
    transact(&transactional, topic, 0, &["two", "three"], true);
    transact(&transactional, topic, 0, &["aborted", "aborted too"], false);
    let bad = BaseRecord::<(), [u8]>::to(topic).partition(0).payload(&[0xff, 0xfe]);
    plain.send(bad).map_err(|(error, _)| error).expect("there is room");
    produce(&plain, topic, 0, &["four"]);
    transact(&transactional, topic, 0, &["five"], true);
    let tombstone = BaseRecord::<str, ()>::to(topic).partition(0).key("a key");
    plain.send(tombstone).map_err(|(error, _)| error).expect("there is room");
    produce(&plain, topic, 0, &["six"]);
    transact(&transactional, topic, 0, &["aborted last"], false);
    // Marks are written a moment after the end of a transaction was answered, before or behind what comes next.
    until("all is decided", || match offsets(bootstrap, topic, 0).1 {
        MIXED_END => Ok(()),
        end => Err(end),
    });
}

/// Twelve records and five marks.
const MIXED_END: i64 = 17;

#[test]
fn a_source_conforms() {
    let Some(broker) = Broker::shared() else { return };
    mixed(broker.bootstrap(), "source-conforms");
    let open = |from| open_source(broker.bootstrap(), place("source-conforms", 0), from, None);
    conformance(&Texts::default(), open);
}

#[test]
fn a_source_has_committed_records_and_letters_for_bad_ones() {
    let Some(broker) = Broker::shared() else { return };
    mixed(broker.bootstrap(), "source-mixed");
    let (texts, mut batches) = (Texts::default(), Batches::new(SHARDS));
    let mut source = open_source(broker.bootstrap(), place("source-mixed", 0), Position::default(), None);
    while !source.read(&texts, &mut batches, ALL).expect("it can be read").to.is_ended {}
    let found: Vec<_> = texts.lock().iter().map(|(text, ..)| text.clone()).collect();
    assert_eq!(found, ["one", "two", "three", "four", "five", "six"]);
    let mut letters: Vec<_> = batches.shards.iter().flat_map(|shard| &shard.dead_letters).collect();
    letters.sort_by_key(|(offset, _)| *offset);
    let told: Vec<_> =
        letters.iter().map(|(_, letter)| (letter.position.as_deref().unwrap_or_default(), &*letter.error)).collect();
    let wanted = ["the record is no UTF-8 text: ", "the record has no value: it is a tombstone of its key"];
    assert_eq!(told.len(), wanted.len(), "{told:?}");
    for ((position, error), wanted) in told.into_iter().zip(wanted) {
        assert!(
            position.starts_with("topic `source-mixed`, partition 0, offset ") && error.starts_with(wanted),
            "{error}"
        );
    }
    let end = source.position();
    assert_eq!((end.records, end.offset), (8, MIXED_END as u64), "the end is behind the last mark");
}

#[test]
fn a_bounded_input_ends_before_what_is_undecided_and_a_followed_one_waits_for_it() {
    let Some(broker) = Broker::shared() else { return };
    let (bootstrap, topic) = (broker.bootstrap(), "undecided");
    make_topic(bootstrap, topic, 1);
    produce(&plain(bootstrap), topic, 0, &["decided"]);
    let open = transactional(bootstrap, topic);
    open.begin_transaction().expect("no other one is open");
    produce(&open, topic, 0, &["open"]);
    produce(&plain(bootstrap), topic, 0, &["behind it"]);

    let (texts, mut batches) = (Texts::default(), Batches::new(SHARDS));
    let mut source = open_source(bootstrap, place(topic, 0), Position::default(), None);
    while !source.read(&texts, &mut batches, ALL).expect("it can be read").to.is_ended {}
    assert_eq!((source.position().records, source.position().offset), (1, 1));

    let mut reader = Reader::open(bootstrap, "undecided", vec![named(0, &[topic])]).expect("opens");
    reader.follow(0, 0, Position::default(), None);
    assert_eq!(reader.read_records(1), ["decided"]);
    assert_eq!(reader.read(ALL), Ok(None));
    open.commit_transaction(LIMIT).expect("the broker answers");
    assert_eq!(reader.read_records(2), ["open", "behind it"]);
}

#[test]
fn a_record_brings_its_key_and_its_time() {
    let Some(broker) = Broker::shared() else { return };
    let (bootstrap, topic) = (broker.bootstrap(), "key-and-time");
    make_topic(bootstrap, topic, 1);
    let producer = plain(bootstrap);
    let record = BaseRecord::<str, str>::to(topic).partition(0).key("alice").payload("hello").timestamp(1_234);
    producer.send(record).map_err(|(error, _)| error).expect("there is room");
    producer.flush(LIMIT).expect("the broker answers");
    let mut reader = Reader::open(bootstrap, topic, vec![named(0, &[topic])]).expect("opens");
    reader.follow(0, 0, Position::default(), None);
    until("the record is there", || reader.read(ALL).expect("it can be read").ok_or("not yet"));
    let found = reader.texts.lock().clone();
    assert_eq!(found, [("hello".to_owned(), Some(b"alice".to_vec()), Some(EventTime(1_234)))]);
    assert_eq!(reader.at[&(0, 0)].event_time_max, Some(EventTime(1_234)));
}

#[test]
fn bounded_partitions_of_several_topics_all_end() {
    let Some(broker) = Broker::shared() else { return };
    let bootstrap = broker.bootstrap();
    let producer = plain(bootstrap);
    for topic in ["bounded-a", "bounded-b"] {
        make_topic(bootstrap, topic, 2);
        produce(&producer, topic, 0, &[topic, topic, topic]);
    }
    let mut reader = Reader::open(bootstrap, "bounded", vec![named(0, &["bounded-b", "bounded-a"])]).expect("opens");
    let all = [place("bounded-a", 0), place("bounded-a", 1), place("bounded-b", 0), place("bounded-b", 1)];
    assert_eq!(reader.feed.partitions(0), all);
    for partition in 0..4 {
        let end = reader.feed.end(0, partition).expect("the broker answers");
        reader.follow(0, partition, Position::default(), Some(end));
    }
    // These come too late.
    produce(&producer, "bounded-a", 0, &["late"]);
    produce(&producer, "bounded-b", 1, &["late"]);
    let mut ended = Vec::new();
    until("all have ended", || {
        if let Some(key) = reader.read(ReadLimit { records: 2, ..ALL }).expect("it can be read") {
            ended.extend(reader.at[&key].is_ended.then_some(key));
        }
        if ended.len() == 4 { Ok(()) } else { Err("not yet") }
    });
    assert_eq!(ended.iter().collect::<BTreeSet<_>>().len(), 4, "each ends once: {ended:?}");
    let positions: Vec<_> = reader.at.values().map(|at| (at.records, at.offset)).collect();
    assert_eq!(positions, [(3, 3), (0, 0), (3, 3), (0, 0)]);
    assert_eq!(reader.read(ALL), Ok(None), "what has ended says nothing more");
}

#[test]
fn topics_that_grow_and_topics_that_come_are_found() {
    let Some(broker) = Broker::shared() else { return };
    let bootstrap = broker.bootstrap();
    let producer = plain(bootstrap);
    make_topic(bootstrap, "grows-b", 1);
    make_topic(bootstrap, "never-grows-b", 1);
    let input = |known| Input { topics: Topics::Matching("^grows-.*".into()), known, ..named(1, &[]) };
    let mut reader = Reader::open(bootstrap, "grows", vec![input(Vec::new())]).expect("opens");
    assert_eq!(reader.feed.partitions(1), [place("grows-b", 0)]);
    assert_eq!(reader.feed.discover(), Ok(false));
    reader.follow(1, 0, Position::default(), None);
    produce(&producer, "grows-b", 0, &["b-0"]);
    assert_eq!(reader.read_records(1), ["b-0"]);

    make_topic(bootstrap, "grows-a", 1);
    until("the new topic is found", || reader.feed.discover().expect("it answers").then_some(()).ok_or("not yet"));
    grow_topic(bootstrap, "grows-b", 2);
    until("the new partition is found", || reader.feed.discover().expect("it answers").then_some(()).ok_or("not yet"));
    let all = [place("grows-b", 0), place("grows-a", 0), place("grows-b", 1)];
    assert_eq!(reader.feed.partitions(1), all, "a partition keeps its number");
    for partition in [1, 2] {
        reader.follow(1, partition, Position::default(), None);
    }
    // The one from before does not know of the new partition.
    let producer = plain(bootstrap);
    produce(&producer, "grows-b", 1, &["b-1"]);
    produce(&producer, "grows-a", 0, &["a-0"]);
    produce(&producer, "grows-b", 0, &["b-0"]);
    let mut found = reader.read_records(3);
    found.sort();
    assert_eq!(found, ["a-0", "b-0", "b-1"]);

    let again = Reader::open(bootstrap, "grows", vec![input(all.to_vec())]).expect("opens");
    assert_eq!(again.feed.partitions(1), all, "also for who opens it again");
}

#[test]
fn an_ingress_starts_at_the_first_record_the_end_or_a_time() {
    let Some(broker) = Broker::shared() else { return };
    let (bootstrap, topic) = (broker.bootstrap(), "starts");
    make_topic(bootstrap, topic, 1);
    let producer = plain(bootstrap);
    for time in [1_000, 2_000, 3_000, 4_000] {
        let value = time.to_string();
        let record = BaseRecord::<(), str>::to(topic).partition(0).payload(&value).timestamp(time);
        producer.send(record).map_err(|(error, _)| error).expect("there is room");
    }
    producer.flush(LIMIT).expect("the broker answers");
    remove_before(bootstrap, topic, 0, Offset::Offset(1));
    let mut reader = Reader::open(bootstrap, topic, vec![named(0, &[topic])]).expect("opens");
    let resolve = |start| reader.feed.resolve(0, 0, start).expect("the broker answers").offset;
    assert_eq!(resolve(Start::Earliest), 1);
    assert_eq!(resolve(Start::Latest), 4);
    assert_eq!(resolve(Start::At(ProcessingTime(2_500))), 2);
    assert_eq!(resolve(Start::At(ProcessingTime(3_000))), 2);
    assert_eq!(resolve(Start::At(ProcessingTime(9_000))), 4, "a time to come is the end");
    let latest = reader.feed.resolve(0, 0, Start::Latest).expect("the broker answers");
    reader.follow(0, 0, latest, None);
    produce(&producer, topic, 0, &["new"]);
    assert_eq!(reader.read_records(1), ["new"]);
}

#[test]
fn records_that_are_gone_are_an_error_that_names_the_place() {
    let Some(broker) = Broker::shared() else { return };
    let (bootstrap, topic) = (broker.bootstrap(), "lost");
    make_topic(bootstrap, topic, 2);
    let producer = plain(bootstrap);
    produce(&producer, topic, 1, &["0", "1", "2", "3"]);
    produce(&producer, topic, 0, &["other"]);
    remove_before(bootstrap, topic, 1, Offset::Offset(3));
    let mut reader = Reader::open(bootstrap, topic, vec![named(0, &[topic])]).expect("opens");
    reader.follow(0, 1, Position { offset: 2, records: 2, ..Position::default() }, None);
    let lost = InputError::Lost { topic: topic.into(), partition: 1, wanted: 2, first: 3 };
    assert_eq!(reader.read_error(), lost);
    reader.follow(0, 0, Position::default(), None);
    assert_eq!(reader.read_records(1), ["other"], "the others go on");

    reader.follow(0, 0, Position { offset: 9, ..Position::default() }, None);
    let shrunk = InputError::Shrunk { topic: topic.into(), partition: 0, wanted: 9, end: 1 };
    assert_eq!(reader.read_error(), shrunk);

    let mut source = open_source(bootstrap, place(topic, 1), Position::default(), None);
    for _ in 0..2 {
        let read = source.read(&Texts::default(), &mut Batches::new(SHARDS), ALL);
        let lost = InputError::Lost { topic: topic.into(), partition: 1, wanted: 0, first: 3 };
        assert_eq!(read, Err(lost), "the error stays");
    }
}

#[test]
fn partitions_take_turns_rest_and_are_left() {
    let Some(broker) = Broker::shared() else { return };
    let bootstrap = broker.bootstrap();
    let producer = plain(bootstrap);
    make_topic(bootstrap, "turns", 2);
    let text: Vec<_> = (0..50).map(|number| number.to_string()).collect();
    let text: Vec<_> = text.iter().map(String::as_str).collect();
    let mut reader = Reader::open(bootstrap, "turns", vec![named(0, &["turns"])]).expect("opens");
    for partition in [0, 1] {
        produce(&producer, "turns", partition as i32, &text);
        reader.follow(0, partition, Position::default(), None);
    }
    let one = ReadLimit { records: 1, ..ALL };
    let next = |reader: &mut Reader| until("a record comes", || reader.read(one).expect("is read").ok_or("not yet")).1;
    // After this all records of both have come.
    for partition in [0, 1] {
        reader.feed.rest(0, 1 - partition, true);
        reader.feed.rest(0, partition, false);
        assert_eq!(next(&mut reader), partition);
    }
    reader.feed.rest(0, 0, false);
    let turns: Vec<_> = (0..6).map(|_| next(&mut reader)).collect();
    assert!(turns.windows(2).all(|pair| pair[0] != pair[1]), "{turns:?}");

    reader.feed.rest(0, 0, true);
    assert!((0..10).all(|_| next(&mut reader) == 1), "one rests");
    reader.feed.rest(0, 0, false);
    reader.feed.leave(0, 1);
    assert_eq!(reader.feed.position(0, 1), None);
    until("the other is read to its end", || {
        let read = reader.read(ReadLimit { records: 3, ..ALL }).expect("it can be read");
        assert_ne!(read, Some((0, 1)), "it was left");
        if reader.at[&(0, 0)].records == 50 { Ok(()) } else { Err("not yet") }
    });

    reader.texts.lock().clear();
    let from = Position { offset: 45, records: 45, ..Position::default() };
    reader.follow(0, 1, from, None);
    assert_eq!(reader.read_records(5), ["45", "46", "47", "48", "49"], "it is followed again from there");
    reader.follow(0, 1, from, None);
    assert_eq!(reader.read_records(5), ["45", "46", "47", "48", "49"], "also where it was followed already");
}

#[test]
fn a_new_client_reads_on_where_the_one_before_was() {
    let Some(broker) = Broker::shared() else { return };
    let bootstrap = broker.bootstrap();
    let producer = plain(bootstrap);
    make_topic(bootstrap, "renewed", 2);
    let mut reader = Reader::open(bootstrap, "renewed", vec![named(0, &["renewed"])]).expect("opens");
    for partition in [0, 1] {
        produce(&producer, "renewed", partition as i32, &["one", "two", "three"]);
        reader.follow(0, partition, Position::default(), None);
    }
    reader.feed.rest(0, 1, true);
    let two = ReadLimit { records: 2, ..ALL };
    until("some are read", || reader.read(two).expect("it can be read").ok_or("not yet"));
    reader.feed.renew().expect("the broker is there");
    // `Reader::read` sees to it that nothing is left out and nothing comes twice.
    assert_eq!(reader.read_records(3), ["one", "two", "three"]);
    assert_eq!(reader.read(ALL).expect("it can be read"), None, "the other one rests");
    reader.feed.rest(0, 1, false);
    assert_eq!(reader.read_records(3), ["one", "two", "three"]);
}

#[test]
fn topics_that_cannot_be_meant_are_refused() {
    let Some(broker) = Broker::shared() else { return };
    let bootstrap = broker.bootstrap();
    make_topic(bootstrap, "meant", 2);
    let open = |inputs| Reader::open(bootstrap, "meant", inputs).map(|_| ()).expect_err("it is refused");
    assert_eq!(open(vec![named(0, &["no-such"])]), InputError::NoTopic { topic: "no-such".into() });
    let twice = vec![named(0, &["meant"]), Input { topics: Topics::Matching("mea.*".into()), ..named(1, &[]) }];
    assert_eq!(open(twice), InputError::TopicTwice { topic: "meant".into() });
    let known = (0..3).map(|partition| place("meant", partition)).collect();
    let fewer = InputError::FewerPartitions { topic: "meant".into(), found: 2, known: 3 };
    assert_eq!(open(vec![Input { known, ..named(0, &["meant"]) }]), fewer);
}

#[test]
fn offsets_of_the_group_are_for_lag_tools() {
    let Some(broker) = Broker::shared() else { return };
    let (bootstrap, topic) = (broker.bootstrap(), "lag");
    make_topic(bootstrap, topic, 2);
    let reader = Reader::open(bootstrap, "lag-group", vec![named(0, &[topic])]).expect("opens");
    let position = Position { offset: 17, ..Position::default() };
    reader.feed.commit_for_lag(&[(0, 1, position)]).expect("the client takes them");
    let tool: BaseConsumer = config(bootstrap).set("group.id", "lag-group").create().expect("a client");
    until("the offset is there", || {
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, 1);
        let found = tool.committed_offsets(list, LIMIT).expect("the broker answers");
        let found = found.find_partition(topic, 1).map(|partition| partition.offset());
        if found == Some(Offset::Offset(17)) { Ok(()) } else { Err(found) }
    });
}

#[test]
fn a_feed_goes_on_when_its_broker_comes_back() {
    if Broker::shared().is_none() {
        return;
    }
    let mut broker = Broker::start().expect("it starts, as the shared one did");
    let (bootstrap, topic) = (broker.bootstrap().to_owned(), "comes-back");
    make_topic(&bootstrap, topic, 1);
    let texts = |range: std::ops::Range<u32>| range.map(|number| number.to_string()).collect::<Vec<_>>();
    let write = |producer: &BaseProducer, range| {
        let texts = texts(range);
        produce(producer, topic, 0, &texts.iter().map(String::as_str).collect::<Vec<_>>());
    };
    let producer = transactional(&bootstrap, topic);
    let mut reader = Reader::open(&bootstrap, topic, vec![named(0, &[topic])]).expect("opens");
    reader.follow(0, 0, Position::default(), None);
    write(&plain(&bootstrap), 0..100);
    transact(&producer, topic, 0, &["aborted"], false);
    // A broker that dies before it has written the mark of a transaction may owe it for good.
    until("the transaction is decided", || match offsets(&bootstrap, topic, 0).1 {
        102 => Ok(()),
        end => Err(end),
    });
    assert_eq!(reader.read_records(100), texts(0..100));
    broker.kill().expect("it runs");
    assert_eq!(reader.read(ALL), Ok(None), "a broker that is gone is no error");
    broker.restart().expect("it starts again");
    write(&plain(&bootstrap), 100..200);
    assert_eq!(reader.read_records(100), texts(100..200), "nothing is missing, nothing comes twice");
}
