//! The appender: side by side with others, and over faults of the broker.

use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc::Receiver},
    time::Duration,
};

use services::kafka::Broker;
use statefn_core::ports::{
    log::{AppendError, Log, Offset},
    shared,
};
use statefn_kafka::{AppenderOptions, Connection, KafkaAppender, KafkaFollower, KafkaLog, Topics};

use crate::world::{LIMIT, Outcome, World, append, begin, until};

type Bytes = Arc<Vec<u8>>;

fn whole(log: &mut KafkaLog, partition: u32) -> BTreeMap<Offset, Vec<u8>> {
    let mut records = BTreeMap::new();
    log.read(partition, 0, &mut |offset, bytes| {
        records.insert(offset, bytes.to_vec());
    })
    .expect("the partition can be read");
    records
}

/// The records of append `number` of a writer.
fn records(writer: &str, number: usize) -> Vec<Bytes> {
    (0..1 + number % 3).map(|index| Arc::new(format!("{writer}/{number}/{index}").into_bytes())).collect()
}

#[test]
fn two_appenders_on_one_partition_each_learn_their_offsets() {
    let Some(world) = World::shared("appender-two", 1) else { return };
    let appenders = [world.appender(), world.appender()];
    let mut flights: Vec<(Vec<Bytes>, Receiver<Outcome>)> = Vec::new();
    for number in 0..300 {
        for (appender, writer) in appenders.iter().zip(["a", "b"]) {
            let records = records(writer, number);
            let outcome = begin(&**appender, 0, records.clone());
            flights.push((records, outcome));
        }
    }
    let stands = whole_after(&flights, &mut world.log());
    assert_eq!(stands.len(), 2 * (0..300).map(|number| 1 + number % 3).sum::<usize>());
}

/// Waits for all appends, checks that each told one stands where it was told, in a row and in order,
/// and returns what the partition holds.
fn whole_after(flights: &[(Vec<Bytes>, Receiver<Outcome>)], log: &mut KafkaLog) -> BTreeMap<Offset, Vec<u8>> {
    let outcomes: Vec<Outcome> =
        flights.iter().map(|(_, outcome)| outcome.recv_timeout(LIMIT).expect("each append is told")).collect();
    let stands = whole(log, 0);
    let mut last: BTreeMap<u8, Offset> = BTreeMap::new();
    for ((records, _), outcome) in flights.iter().zip(outcomes) {
        let Ok(first) = outcome else { continue };
        for (offset, record) in (first..).zip(records) {
            assert_eq!(stands.get(&offset), Some(&**record), "what was told stands there");
        }
        let before = last.insert(records[0][0], first);
        assert!(before.is_none_or(|before| before < first), "appends of one appender stand in their order");
    }
    stands
}

#[test]
fn what_does_not_fit_is_refused_and_stands_nowhere() {
    let Some(world) = World::shared("appender-refused", 1) else { return };
    let appender = world.appender();
    let large = vec![0; crate::world::RECORD_BYTES_MAX + 1];
    assert!(matches!(append(&*appender, 0, &[b"small", &large]), Err(AppendError::Refused(_))));
    assert!(matches!(append(&*appender, 0, &[]), Err(AppendError::Refused(_))));
    assert_eq!(append(&*appender, 0, &[b"next"]).unwrap(), 0);
}

#[test]
fn what_is_too_much_to_be_under_way_is_refused_at_once() {
    let nobody = Connection::parse("log", "kafka://127.0.0.1:1").unwrap();
    let topics = Arc::new(Topics::new("appender-full", 2).unwrap());
    let options = AppenderOptions::new(100).message_timeout(Duration::from_secs(1)).under_way_bytes_max(150);
    let appender = KafkaAppender::new(&nobody, &topics, &options).unwrap();
    let under_way = begin(&appender, 0, vec![Arc::new(vec![1; 100]), Arc::new(vec![2; 100])]);
    let refused = begin(&appender, 1, vec![Arc::new(vec![3; 10])]);
    let refused = refused.try_recv().expect("a refusal is told within the call");
    assert!(
        matches!(&refused, Err(AppendError::Refused(why)) if why.contains("2 records of 200 bytes")),
        "{refused:?}"
    );
    let outcome = under_way.recv_timeout(LIMIT).expect("each append is told");
    assert!(matches!(outcome, Err(AppendError::Unknown(_))), "one that is alone is taken, whatever its size");
    let next = begin(&appender, 1, vec![Arc::new(vec![4; 10])]);
    assert!(next.try_recv().is_err(), "there is room again");
}

#[test]
fn what_is_under_way_when_an_appender_ends_is_told() {
    let Ok(mut broker) = Broker::start() else { return };
    let world = World::on(&broker, "appender-ends", 1);
    let appender = world.appender();
    append(&*appender, 0, &[b"first"]).unwrap();
    broker.pause().unwrap();
    let outcome = begin(&*appender, 0, records("a", 2));
    drop(appender);
    let outcome = outcome.recv_timeout(LIMIT).expect("it is told");
    assert!(matches!(outcome, Err(AppendError::Unknown(_))), "{outcome:?}");
    broker.resume().unwrap();
}

#[test]
fn what_was_told_stands_when_the_broker_dies_and_comes_back() {
    let Ok(mut broker) = Broker::start() else { return };
    let world = World::on(&broker, "appender-killed", 1);
    let appender = world.appender_with(Duration::from_secs(4));
    let mut flights = Vec::new();
    let mut begin_some = |count: usize| {
        for _ in 0..count {
            let records = records("a", flights.len());
            let outcome = begin(&*appender, 0, records.clone());
            flights.push((records, outcome));
        }
        flights.len()
    };
    begin_some(500);
    broker.kill().unwrap();
    begin_some(500);
    broker.restart().unwrap();
    begin_some(500);
    until("appends work again", || append(&*appender, 0, &[b"b"]).ok());
    begin_some(500);
    let stands = whole_after(&flights, &mut world.log());
    assert!(stands.len() > 500, "only {} records stand", stands.len());
}

#[test]
fn a_broker_that_pauses_beyond_the_limit_makes_outcomes_unknown_and_later_appends_work() {
    let Ok(mut broker) = Broker::start() else { return };
    let world = World::on(&broker, "appender-paused", 2);
    let appender = world.appender_with(Duration::from_secs(1));
    append(&*appender, 0, &[b"before"]).unwrap();
    broker.pause().unwrap();
    let unknown: Vec<Receiver<Outcome>> = (0..50).map(|number| begin(&*appender, 0, records("a", number))).collect();
    for outcome in unknown {
        let outcome = outcome.recv_timeout(LIMIT).expect("each append is told");
        assert!(matches!(outcome, Err(AppendError::Unknown(_))), "{outcome:?}");
    }
    broker.resume().unwrap();
    for partition in [0, 1] {
        until("appends work again", || append(&*appender, partition, &[b"after"]).ok());
    }
    let flights: Vec<(Vec<Bytes>, Receiver<Outcome>)> = (0..50)
        .map(|number| records("b", number))
        .map(|records| (records.clone(), begin(&*appender, 0, records)))
        .collect();
    let stands = whole_after(&flights, &mut world.log());
    assert_eq!(stands[&0], b"before");
    assert!(stands.values().filter(|record| record.starts_with(b"b/")).count() >= 50);
}

#[test]
fn appenders_and_followers_conform() {
    let Some(world) = World::shared("appender-conforms", 3) else { return };
    let (mine, others) = (world.appender(), world.appender());
    let follower = KafkaFollower::new(&world.connection, &world.topics).unwrap();
    let log = world.log_of(&mine, LIMIT);
    shared::conformance(shared::Ports {
        appenders: [Box::new(mine), Box::new(others)],
        follower: Box::new(follower),
        log: Box::new(log),
    });
}
