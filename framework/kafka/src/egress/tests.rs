//! Commits whose outcome is not known, or not what a real broker says of it.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use futures_executor::block_on;
use rdkafka::{
    admin::{AdminOptions, NewTopic, TopicReplication},
    consumer::{BaseConsumer, Consumer},
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};
use services::kafka::Broker;

use super::*;
use crate::{connection::Isolation, report::Reporter};

thread_local! {
    /// What happens when this thread is about to commit, once.
    static AT_COMMIT: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
    /// Whether this thread is to be told that its next transaction is committed, and nothing of it is.
    static PRETENDS: Cell<bool> = const { Cell::new(false) };
}

pub(super) fn pretends_to_commit() -> bool {
    PRETENDS.take()
}

pub(super) fn reach_commit() {
    if let Some(act) = AT_COMMIT.take() {
        act();
    }
}

const TOPIC: &str = "sales";
const LIMIT: Duration = Duration::from_secs(60);

/// A broker that a test may harm, with the topics of an app.
fn broker() -> Option<Rc<RefCell<Broker>>> {
    Broker::shared()?;
    let broker = Broker::start().expect("it starts, as the shared one did");
    let admin = connection(&broker).admin().expect("a client");
    let topics = ["app.egress", TOPIC].map(|topic| NewTopic::new(topic, 1, TopicReplication::Fixed(1)));
    let made = block_on(admin.create_topics(&topics, &AdminOptions::new())).expect("the broker answers");
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    Some(Rc::new(RefCell::new(broker)))
}

fn connection(broker: &Broker) -> Connection {
    Connection::parse("log", &format!("kafka://{}", broker.bootstrap())).expect("an address")
}

fn open(connection: &Connection) -> GroupEgress {
    let group = ShardGroup { app: "app".into(), group: 0, shards: vec![0] };
    let outputs = [Output { egress: "sales".into(), topic: TOPIC.into() }];
    let options = EgressOptions { patience: Duration::from_secs(1), ..EgressOptions::default() };
    until("it opens", || GroupEgress::open(connection, group.clone(), &outputs, options.clone()))
}

fn until<T>(what: &str, mut attempt: impl FnMut() -> Result<T, EgressError>) -> T {
    let begun = Instant::now();
    loop {
        match attempt() {
            Ok(done) => return done,
            Err(error) => assert!(begun.elapsed() < LIMIT, "it never came that {what}: {error}"),
        }
    }
}

fn give(egress: &mut GroupEgress, epoch: u64) {
    egress.write_epoch(0, epoch, [(0, epoch.to_string().as_bytes())].into_iter());
}

/// The records of the topic, committed or all that were ever written.
fn records(connection: &Connection, isolation: Isolation) -> Vec<String> {
    let mut config = connection.consumer_config("reader", isolation);
    config.set("enable.partition.eof", "true");
    let consumer: BaseConsumer<Reporter> =
        connection.client("read", &config, connection.reporter("reader")).expect("a client");
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition_offset(TOPIC, 0, rdkafka::Offset::Offset(0)).expect("an offset");
    consumer.assign(&list).expect("a partition");
    let (mut found, begun) = (Vec::new(), Instant::now());
    loop {
        assert!(begun.elapsed() < LIMIT, "the topic has no end that can be reached");
        match consumer.poll(Duration::from_millis(20)) {
            Some(Ok(message)) => {
                found.push(String::from_utf8_lossy(rdkafka::Message::payload(&message).unwrap_or_default()).into());
            }
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => return found,
            Some(Err(_)) | None => {}
        }
    }
}

/// An egress that has written one epoch and was given another.
fn begin() -> Option<(Rc<RefCell<Broker>>, Connection, GroupEgress)> {
    let broker = broker()?;
    let connection = connection(&broker.borrow());
    let mut egress = open(&connection);
    give(&mut egress, 1);
    until("an epoch is written", || egress.sync());
    give(&mut egress, 2);
    Some((broker, connection, egress))
}

/// Writes one epoch, then another whose commit meets `trouble`, and returns what was written in all.
fn commit_into(trouble: impl FnOnce(&mut Broker) + 'static, heal: impl FnOnce(&mut Broker)) -> Option<Vec<String>> {
    let (broker, connection, mut egress) = begin()?;
    let at_commit = Rc::clone(&broker);
    AT_COMMIT.set(Some(Box::new(move || trouble(&mut at_commit.borrow_mut()))));
    let error = egress.sync().expect_err("the broker does not answer").to_string();
    assert!(error.starts_with("cannot commit a transaction: "), "{error}");
    assert_eq!((egress.taken(0), egress.ended(0)), (1, 2), "an outcome that is not known is no outcome");
    heal(&mut broker.borrow_mut());
    until("everything is taken", || egress.sync());
    assert_eq!(egress.taken(0), 2);
    give(&mut egress, 3);
    until("it goes on", || egress.sync());
    assert_eq!(records(&connection, Isolation::Committed), ["1", "2", "3"]);
    let mut written = records(&connection, Isolation::Uncommitted);
    // A producer that takes over has written records without a value, and taken them back.
    assert!(written.iter().any(String::is_empty), "{written:?}");
    written.retain(|record| !record.is_empty());
    Some(written)
}

/// Freezes it and returns when all of its threads stand still, which takes a moment.
fn freeze(broker: &mut Broker) {
    broker.pause().expect("it runs");
    let id = broker.process_id().expect("it runs");
    let begun = Instant::now();
    let is_frozen = || {
        let threads = std::fs::read_dir(format!("/proc/{id}/task")).expect("it has threads");
        threads.flatten().all(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|state| state.starts_with('T'))
        })
    };
    while !is_frozen() {
        assert!(begun.elapsed() < LIMIT, "it does not freeze");
    }
}

#[test]
fn a_commit_that_came_through_unseen_is_not_written_again() {
    // The request waits at the frozen broker, which does it later.
    let written = commit_into(freeze, |broker| broker.resume().expect("it is frozen"));
    let Some(written) = written else { return };
    assert_eq!(written, ["1", "2", "3"], "what stands is found and not written again");
}

#[test]
fn a_commit_that_was_lost_is_written_again() {
    let written =
        commit_into(|broker| broker.kill().expect("it runs"), |broker| broker.restart().expect("it starts again"));
    let Some(written) = written else { return };
    assert_eq!(written, ["1", "2", "2", "3"], "what was aborted is written again");
}

/// Writes three epochs. Of the second the broker says that it is committed, as one does that is being
/// stopped, and leaves out all marks; `marked` puts what it left marked all the same. Returns what stands.
fn lose_marks_of_the_second(marked: impl FnOnce(&Connection, &GroupEgress)) -> Option<Vec<String>> {
    let (_broker, connection, mut egress) = begin()?;
    PRETENDS.set(true);
    until("the broker says that it is committed", || egress.sync());
    assert_eq!((egress.taken(0), egress.written(0).records), (2, 2));
    let stable = egress.session.as_ref().and_then(|session| session.stable_end(&egress.place.positions));
    assert_eq!(stable, egress.attempts.last().and_then(|attempt| attempt.said.flatten()), "it has no mark");
    marked(&connection, &egress);
    give(&mut egress, 3);
    until("everything is taken", || egress.sync());
    assert_eq!((egress.taken(0), egress.written(0).records), (3, 3));
    drop(egress);
    assert_eq!(open(&connection).taken(0), 3);
    Some(records(&connection, Isolation::Committed))
}

/// Writes one record that stands.
fn write_marked(connection: &Connection, topic: &str, id: Option<&str>, value: &[u8]) {
    let options =
        ProducerOptions { message_timeout: LIMIT, record_bytes_max: MESSAGE_BYTES_MAX, transactional_id: None };
    let producer: BaseProducer = connection.producer_config(&options).create().expect("a client");
    let headers = id.map(|id| OwnedHeaders::new().insert(Header { key: ID_HEADER, value: Some(id) }));
    let record = BaseRecord::<(), [u8]>::to(topic).partition(0).payload(value);
    producer.send(headers.into_iter().fold(record, BaseRecord::headers)).map_err(|(error, _)| error).expect("room");
    producer.flush(LIMIT).expect("the broker is there");
}

#[test]
fn what_is_said_to_be_committed_and_has_no_marks_is_written_again() {
    let Some(standing) = lose_marks_of_the_second(|_, _| ()) else { return };
    assert_eq!(standing, ["1", "2", "3"]);
}

#[test]
fn records_that_stand_without_their_position_are_not_written_again() {
    let record = |connection: &Connection, _: &GroupEgress| write_marked(connection, TOPIC, Some("0/2/0"), b"2");
    let Some(standing) = lose_marks_of_the_second(record) else { return };
    assert_eq!(standing, ["1", "2", "3"]);
}

#[test]
fn records_that_do_not_stand_though_their_position_does_are_written_again() {
    let position = |connection: &Connection, egress: &GroupEgress| {
        let position = GroupPosition { owner: egress.place.owner, group: 0, epochs: [(0, 2)].into() };
        write_marked(connection, "app.egress", None, &position.encode());
    };
    let Some(standing) = lose_marks_of_the_second(position) else { return };
    assert_eq!(standing, ["1", "2", "3"]);
}
