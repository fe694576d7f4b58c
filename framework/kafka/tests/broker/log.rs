//! The log: its contract, and what it does where others append and trim too.

use std::time::Duration;

use services::kafka::Broker;
use statefn_core::ports::log::{self, AppendError, Log, ReadError, Record};
use statefn_kafka::KafkaLog;

use crate::world::{LIMIT, RECORD_BYTES_MAX, World, append, until};

fn read(log: &mut KafkaLog, partition: u32, from: u64) -> Result<Vec<(u64, Vec<u8>)>, ReadError> {
    let mut records = Vec::new();
    log.read(partition, from, &mut |offset, bytes| records.push((offset, bytes.to_vec()))).map(|()| records)
}

#[test]
fn the_log_conforms() {
    let Some(broker) = Broker::shared() else { return };
    let mut apps = 0;
    log::conformance(|| {
        apps += 1;
        Box::new(World::on(broker, &format!("log-conforms-{apps}"), 3).log())
    });
}

#[test]
fn a_log_learns_what_others_have_done() {
    let Some(world) = World::shared("log-learns", 2) else { return };
    let (mut mine, mut others) = (world.log(), world.log());
    let mailbox = 2;
    for bytes in [b"a", b"b", b"c"] {
        others.append(&[Record { partition: 1, bytes }, Record { partition: mailbox, bytes }]).unwrap();
    }
    assert_eq!((mine.start(1), mine.end(1)), (0, 0), "it has not asked yet");
    assert_eq!(mine.ends(&[mailbox, 0, 1]).unwrap(), [3, 0, 3]);
    assert_eq!((mine.end(1), mine.end(mailbox), mine.end(4)), (3, 3, 0));
    others.trim(1, 2).unwrap();
    mine.refresh(&[0, 1]).unwrap();
    assert_eq!((mine.start(1), mine.end(1), mine.end(0)), (2, 3, 0));
    assert_eq!(read(&mut mine, 1, 2).unwrap(), [(2, b"c".to_vec())]);
    others.append(&[Record { partition: 1, bytes: b"d" }]).unwrap();
    assert_eq!(read(&mut mine, 1, 3).unwrap(), [(3, b"d".to_vec())], "it reads to the end as it is now");
    assert_eq!(mine.ends(&[]).unwrap(), Vec::<u64>::new());
}

#[test]
fn a_place_that_was_trimmed_is_told_with_the_first_one_kept() {
    let Some(world) = World::shared("log-trimmed", 1) else { return };
    let (mut mine, mut others) = (world.log(), world.log());
    for bytes in [b"a", b"b", b"c"] {
        others.append(&[Record { partition: 0, bytes }]).unwrap();
    }
    assert_eq!(read(&mut mine, 0, 0).unwrap().len(), 3);
    others.trim(0, 2).unwrap();
    let error = read(&mut mine, 0, 1).unwrap_err();
    assert!(matches!(error, ReadError::Trimmed { partition: 0, wanted: 1, start: 2 }), "{error}");
    assert_eq!(mine.start(0), 2, "it has learnt that");
    others.trim(0, 3).unwrap();
    let error = read(&mut mine, 0, 2).unwrap_err();
    assert!(matches!(error, ReadError::Trimmed { wanted: 2, start: 3, .. }), "{error}");
    assert_eq!(read(&mut mine, 0, 3).unwrap(), []);
}

#[test]
fn a_place_behind_the_end_means_lost_records() {
    let Some(world) = World::shared("log-lost", 1) else { return };
    let mut log = world.log();
    log.append(&[Record { partition: 0, bytes: b"a" }]).unwrap();
    let error = read(&mut log, 0, 2).unwrap_err().to_string();
    assert!(error.starts_with("partition 0 of topic `log-lost.journal`: it ends at 1, but offset 2"), "{error}");
}

#[test]
fn records_of_the_largest_size_go_through_and_larger_ones_are_refused() {
    let Some(world) = World::shared("log-large", 1) else { return };
    let mut log = world.log();
    let large: Vec<u8> = (0..RECORD_BYTES_MAX).map(|place| (place % 251) as u8).collect();
    let group = vec![Record { partition: 0, bytes: &large }; 12];
    assert_eq!(log.append(&group).unwrap(), (0..12).collect::<Vec<u64>>());
    let records = read(&mut log, 0, 0).unwrap();
    assert_eq!(records.len(), 12);
    assert!(records.iter().all(|(_, bytes)| *bytes == large));

    let larger = vec![1; RECORD_BYTES_MAX + 1];
    let group = [Record { partition: 0, bytes: b"small" }, Record { partition: 0, bytes: &larger }];
    let error = log.append(&group).unwrap_err();
    assert!(matches!(&error, AppendError::Refused(why) if why.contains("1048577 bytes")), "{error}");
    assert_eq!(log.ends(&[0]).unwrap(), [12], "nothing of a refused group stands");
}

#[test]
fn a_broker_that_is_away_ends_no_call_late_and_no_read_silently() {
    let Ok(mut broker) = Broker::start() else { return };
    let world = World::on(&broker, "log-away", 1);
    let appender = world.appender_with(Duration::from_secs(1));
    let mut log = world.log_of(&appender, Duration::from_secs(1));
    log.append(&[Record { partition: 0, bytes: b"a" }]).unwrap();
    broker.kill().unwrap();
    let error = log.append(&[Record { partition: 0, bytes: b"b" }]).unwrap_err();
    assert!(matches!(error, AppendError::Unknown(_)), "{error}");
    let error = read(&mut log, 0, 0).unwrap_err().to_string();
    assert!(error.contains("log-away.journal"), "{error}");
    assert!(log.trim(0, 1).unwrap_err().contains("log-away.journal"));
    assert!(log.refresh(&[0]).is_err());

    broker.restart().unwrap();
    let mut log = world.log_of(&appender, LIMIT);
    let first = read(&mut log, 0, 0).unwrap().swap_remove(0);
    assert_eq!(first, (0, b"a".to_vec()));
    until("appends work again", || append(&*appender, 0, &[b"c"]).ok());
}
