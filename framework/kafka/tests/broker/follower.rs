//! The follower: each record once and in order, whatever is followed, left, rested and trimmed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use services::kafka::Broker;
use statefn_core::ports::{
    log::{Log, Offset, Partition},
    shared::Follower,
};
use statefn_kafka::KafkaFollower;

use crate::world::{World, append, begin, until};

const PATIENCE: Duration = Duration::from_millis(100);

type Seen = BTreeMap<Partition, Vec<(Offset, Vec<u8>)>>;

fn follower(world: &World) -> KafkaFollower {
    KafkaFollower::new(&world.connection, &world.topics).expect("a consumer can be made")
}

/// Takes what the follower has until `is_enough`.
fn take(follower: &mut KafkaFollower, seen: &mut Seen, is_enough: impl Fn(&Seen) -> bool) {
    until("the records come", || {
        follower
            .next(PATIENCE, &mut |partition, offset, bytes| {
                seen.entry(partition).or_default().push((offset, bytes.to_vec()));
            })
            .expect("nothing is lost");
        is_enough(seen).then_some(())
    });
}

fn count(seen: &Seen, partition: Partition) -> usize {
    seen.get(&partition).map_or(0, Vec::len)
}

#[test]
fn each_record_comes_once_and_in_order_whatever_rests() {
    let Some(world) = World::shared("follower-rests", 2) else { return };
    let (appender, mut follower) = (world.appender(), follower(&world));
    let (mut seen, partitions) = (Seen::new(), [0, 1, 2, 3, 4]);
    partitions.iter().for_each(|partition| follower.follow(*partition, 0));
    for round in 0..30_u32 {
        let flights: Vec<_> = partitions
            .iter()
            .map(|partition| {
                let records = (0..20).map(|index| Arc::new(format!("{round}/{index}").into_bytes())).collect();
                begin(&*appender, *partition, records)
            })
            .collect();
        follower.rest(round % 5, round % 2 == 0);
        take(&mut follower, &mut seen, |_| true);
        flights.iter().for_each(|told| _ = told.recv().unwrap().unwrap());
    }
    partitions.iter().for_each(|partition| follower.rest(*partition, false));
    take(&mut follower, &mut seen, |seen| partitions.iter().all(|partition| count(seen, *partition) >= 600));
    let wanted: Vec<(Offset, Vec<u8>)> =
        (0..600).map(|offset| (offset, format!("{}/{}", offset / 20, offset % 20).into_bytes())).collect();
    for partition in partitions {
        assert!(seen[&partition] == wanted, "partition {partition} comes whole and in order");
    }
}

#[test]
fn a_partition_can_be_left_and_followed_from_anywhere() {
    let Some(world) = World::shared("follower-again", 1) else { return };
    let (appender, mut follower) = (world.appender(), follower(&world));
    for record in [b"a", b"b", b"c", b"d"] {
        append(&*appender, 0, &[record]).unwrap();
        append(&*appender, 1, &[record]).unwrap();
    }
    let mut seen = Seen::new();
    follower.follow(0, 1);
    follower.follow(1, 3);
    take(&mut follower, &mut seen, |seen| count(seen, 0) == 3 && count(seen, 1) == 1);
    follower.leave(1);
    follower.follow(0, 2);
    append(&*appender, 1, &[b"e"]).unwrap();
    take(&mut follower, &mut seen, |seen| count(seen, 0) == 5);
    follower.follow(1, 0);
    take(&mut follower, &mut seen, |seen| count(seen, 1) == 6);
    let offsets = |partition| seen[&partition].iter().map(|(offset, _)| *offset).collect::<Vec<Offset>>();
    assert_eq!((offsets(0), offsets(1)), (vec![1, 2, 3, 2, 3], vec![3, 0, 1, 2, 3, 4]));
    assert_eq!(seen[&1].last(), Some(&(4, b"e".to_vec())));
}

#[test]
fn where_the_place_was_trimmed_it_goes_on_with_the_first_one_kept() {
    let Some(world) = World::shared("follower-trimmed", 2) else { return };
    let (appender, mut follower, mut log) = (world.appender(), follower(&world), world.log());
    for record in [b"a", b"b", b"c", b"d"] {
        append(&*appender, 0, &[record]).unwrap();
        append(&*appender, 1, &[record]).unwrap();
    }
    log.trim(0, 2).unwrap();
    let mut seen = Seen::new();
    follower.follow(0, 0);
    follower.follow(1, 1);
    take(&mut follower, &mut seen, |seen| count(seen, 0) >= 2 && count(seen, 1) >= 3);
    follower.rest(0, true);
    take(&mut follower, &mut seen, |_| true);
    append(&*appender, 0, &[b"e"]).unwrap();
    append(&*appender, 0, &[b"f"]).unwrap();
    log.trim(0, 5).unwrap();
    follower.rest(0, false);
    take(&mut follower, &mut seen, |seen| count(seen, 0) >= 3);
    let wanted = [(2, b"c".to_vec()), (3, b"d".to_vec()), (5, b"f".to_vec())];
    assert_eq!(seen[&0], wanted);
    assert_eq!(seen[&1].iter().map(|(offset, _)| *offset).collect::<Vec<Offset>>(), [1, 2, 3]);
}

#[test]
fn a_place_behind_the_end_is_told_and_the_others_go_on() {
    let Some(world) = World::shared("follower-lost", 2) else { return };
    let (appender, mut follower) = (world.appender(), follower(&world));
    follower.follow(0, 7);
    follower.follow(1, 0);
    append(&*appender, 1, &[b"a"]).unwrap();
    let mut seen = 0;
    let error = until("it is told", || follower.next(PATIENCE, &mut |_, _, _| seen += 1).err());
    assert!(error.starts_with("partition 0 of topic `follower-lost.journal` ends at 0, but offset 7"), "{error}");
    follower.leave(0);
    until("the other one goes on", || {
        follower.next(PATIENCE, &mut |_, _, _| seen += 1).unwrap();
        (seen == 1).then_some(())
    });
}

#[test]
fn a_broker_that_comes_back_is_followed_on() {
    let Ok(mut broker) = Broker::start() else { return };
    let world = World::on(&broker, "follower-killed", 1);
    let (appender, mut follower) = (world.appender_with(Duration::from_secs(4)), follower(&world));
    let mut seen = Seen::new();
    follower.follow(0, 0);
    append(&*appender, 0, &[b"a"]).unwrap();
    take(&mut follower, &mut seen, |seen| count(seen, 0) == 1);
    broker.kill().unwrap();
    follower.next(PATIENCE, &mut |_, offset, _| panic!("{offset} comes from nowhere")).unwrap();
    broker.restart().unwrap();
    let offset = until("appends work again", || append(&*appender, 0, &[b"b"]).ok());
    take(&mut follower, &mut seen, |seen| seen[&0].last().is_some_and(|last| *last == (offset, b"b".to_vec())));
    let offsets: Vec<Offset> = seen[&0].iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, (0..=offset).collect::<Vec<Offset>>());
}
