//! Egress: the suite of its port, fences, and what is refused.

use std::time::Duration;

use rdkafka::{Offset, producer::Producer};
use services::kafka::Broker;
use statefn_core::ports::egress::{Egresses, conformance};
use statefn_kafka::{
    EgressError, GroupEgress,
    egress::{Delivery, EgressOptions, Output, ShardGroup},
};

use crate::support::{App, connection, make_topic, offsets, produce, remove_before, transactional, write};

fn conforms(name: &str, delivery: Delivery) {
    let Some(broker) = Broker::shared() else { return };
    let app = App::new(broker, name, delivery);
    let reopen = |egress: GroupEgress| {
        drop(egress);
        app.open()
    };
    conformance(app.open(), reopen, |_, output| app.values(output).into_iter().map(String::into_bytes).collect());
}

#[test]
fn exactly_once_conforms() {
    conforms("conforms-once", Delivery::ExactlyOnce);
}

#[test]
fn at_least_once_conforms() {
    conforms("conforms-again", Delivery::AtLeastOnce);
}

#[test]
fn each_record_has_its_identity_and_the_partition_of_its_shard() {
    let Some(broker) = Broker::shared() else { return };
    let app = App::new(broker, "identities", Delivery::ExactlyOnce);
    make_topic(&app.bootstrap, "identities-wide", 3);
    let outputs = [Output { egress: "wide".into(), topic: "identities-wide".into() }];
    let group = ShardGroup { shards: vec![0, 1, 5], ..app.group() };
    let mut egress =
        GroupEgress::open(&connection(&app.bootstrap), group, &outputs, app.options.clone()).expect("opens");
    for (shard, epoch) in [(0, 7), (1, 7), (5, 8)] {
        write(&mut egress, shard, epoch, &[(0, "a"), (0, "b")]);
    }
    egress.sync().expect("the broker is there");
    let found = crate::support::committed(&app.bootstrap, "identities-wide");
    let found: Vec<_> = found.iter().map(|found| (found.partition, found.id.as_str(), found.value.as_str())).collect();
    let wanted = [
        (0, "0/7/0", "a"),
        (0, "0/7/1", "b"),
        (1, "1/7/0", "a"),
        (1, "1/7/1", "b"),
        (2, "5/8/0", "a"),
        (2, "5/8/1", "b"),
    ];
    assert_eq!(found, wanted);
    assert_eq!(egress.written(0).records, 6);
    assert_eq!(egress.renewals(), 0, "without a fault a producer is not replaced");
}

#[test]
fn an_epoch_without_records_waits_for_its_position_and_the_end_writes_it() {
    let Some(broker) = Broker::shared() else { return };
    let mut app = App::new(broker, "empty-epochs", Delivery::ExactlyOnce);
    app.options.position_interval = Duration::from_secs(3600);
    let mut egress = app.open();
    let before = offsets(&app.bootstrap, "empty-epochs.egress", 0);
    for epoch in 1..=20 {
        write(&mut egress, 0, epoch, &[]);
        egress.sync().expect("the broker is there");
    }
    assert_eq!(offsets(&app.bootstrap, "empty-epochs.egress", 0), before, "nothing is written for them");
    assert_eq!((egress.taken(0), egress.is_behind()), (0, true));
    write(&mut egress, 1, 1, &[(0, "a record")]);
    egress.sync().expect("the broker is there");
    assert_eq!((egress.taken(0), egress.taken(1)), (20, 1), "a transaction takes them along");
    write(&mut egress, 0, 21, &[]);
    egress.finish().expect("the broker is there");
    drop(egress);
    assert_eq!(app.open().taken(0), 21);
}

#[test]
fn what_was_produced_and_not_committed_does_not_stand() {
    let Some(broker) = Broker::shared() else { return };
    let app = App::new(broker, "uncommitted", Delivery::ExactlyOnce);
    let mut egress = app.open();
    write(&mut egress, 0, 1, &[(0, "a1")]);
    egress.sync().expect("the broker is there");
    drop(egress);
    // What a process leaves behind that dies between its records and its commit.
    let dead = transactional(&app.bootstrap, "uncommitted-0");
    dead.begin_transaction().expect("a new producer");
    produce(&dead, &app.topic(0), 0, &["a2"]);
    produce(&dead, "uncommitted.egress", 0, &["no position, and never committed"]);
    let mut egress = app.open();
    assert_eq!((egress.taken(0), egress.ended(0)), (1, 1));
    write(&mut egress, 0, 2, &[(0, "a2")]);
    egress.sync().expect("the broker is there");
    assert_eq!(app.values(0), ["a1", "a2"]);
    dead.commit_transaction(Duration::from_secs(10)).expect_err("it was fenced");
    assert_eq!(app.values(0), ["a1", "a2"]);
}

#[test]
fn a_zombie_is_fenced_and_does_not_fence_its_successor() {
    let Some(broker) = Broker::shared() else { return };
    let app = App::new(broker, "zombie", Delivery::ExactlyOnce);
    let mut zombie = app.open();
    write(&mut zombie, 0, 1, &[(0, "a1")]);
    zombie.sync().expect("the broker is there");
    let mut owner = app.open();
    assert_eq!(owner.taken(0), 1);
    for egress in [&mut zombie, &mut owner] {
        write(egress, 0, 2, &[(0, "a2")]);
    }
    for _ in 0..2 {
        let error = zombie.sync().expect_err("another has taken over");
        assert!(error.is_fenced(), "{error}");
    }
    assert_eq!(zombie.taken(0), 1);
    owner.sync().expect("it owns the group");
    assert_eq!((owner.taken(0), owner.renewals()), (2, 0));
    assert_eq!(app.values(0), ["a1", "a2"]);
}

#[test]
fn an_owner_that_only_the_broker_gave_up_goes_on() {
    let Some(broker) = Broker::shared() else { return };
    let app = App::new(broker, "given-up", Delivery::ExactlyOnce);
    let mut egress = app.open();
    write(&mut egress, 0, 1, &[(0, "a1")]);
    egress.sync().expect("the broker is there");
    // The broker raises the epoch of the producer, as it does after the time-out of a transaction.
    drop(transactional(&app.bootstrap, "given-up-0"));
    write(&mut egress, 0, 2, &[(0, "a2")]);
    egress.sync().expect("nobody else owns the group");
    assert_eq!((egress.taken(0), egress.renewals()), (2, 1));
    assert_eq!(app.values(0), ["a1", "a2"]);
}

#[test]
fn a_position_that_is_missing_stops_the_egress() {
    let Some(broker) = Broker::shared() else { return };
    let app = App::new(broker, "no-position", Delivery::ExactlyOnce);
    let known = App { options: EgressOptions { has_position: true, ..app.options.clone() }, ..app.clone() };
    let error = known.try_open().expect_err("it never wrote one").to_string();
    assert!(error.contains("the position of the egress is missing, but the journals"), "{error}");
    drop(app.open());
    drop(known.open());
    remove_before(&app.bootstrap, "no-position.egress", 0, Offset::End);
    let error = app.try_open().expect_err("it was removed").to_string();
    assert!(error.starts_with("no-position.egress, partition 0: the position of the egress is missing"), "{error}");
    assert!(error.contains("was removed"), "{error}");
}

#[test]
fn a_position_of_other_shards_or_of_nobody_stops_the_egress() {
    let Some(broker) = Broker::shared() else { return };
    let app = App::new(broker, "other-shards", Delivery::ExactlyOnce);
    drop(app.open());
    let open = |shards| {
        let group = ShardGroup { shards, ..app.group() };
        GroupEgress::open(&connection(&app.bootstrap), group, &app.outputs(), app.options.clone())
    };
    let error = open(vec![0, 1, 2]).expect_err("it has two shards").to_string();
    assert!(error.contains("with the shards [0, 1], but this is group 0 with the shards [0, 1, 2]"), "{error}");
    drop(open(vec![1, 0]).expect("the order does not matter"));
    let foreign = transactional(&app.bootstrap, "foreign");
    foreign.begin_transaction().expect("a new producer");
    produce(&foreign, "other-shards.egress", 0, &["not a position of anything"]);
    foreign.commit_transaction(Duration::from_secs(10)).expect("the broker is there");
    let error = app.try_open().expect_err("it is damaged").to_string();
    assert!(error.contains("cannot be read: it is no position of an egress"), "{error}");
}

#[test]
fn a_topic_that_is_missing_is_named_with_its_egress() {
    let Some(broker) = Broker::shared() else { return };
    let app = App::new(broker, "no-topic", Delivery::ExactlyOnce);
    let outputs = [Output { egress: "sales".into(), topic: "no-such-topic".into() }];
    let error = GroupEgress::open(&connection(&app.bootstrap), app.group(), &outputs, app.options.clone());
    let error = error.expect_err("it is not there");
    assert!(matches!(error, EgressError::NoTopic { .. }), "{error}");
    let text = error.to_string();
    assert!(text.starts_with("the topic `no-such-topic` of the egress `sales` does not exist"), "{text}");
}

#[test]
fn a_record_that_the_topic_does_not_take_is_named_and_nothing_else_is_written() {
    let Some(broker) = Broker::shared() else { return };
    let app = App::new(broker, "too-large", Delivery::ExactlyOnce);
    let mut egress = app.open();
    let large = "x".repeat(2 * 1024 * 1024);
    write(&mut egress, 0, 1, &[(0, "a1")]);
    write(&mut egress, 0, 2, &[(0, &large)]);
    for _ in 0..2 {
        let error = egress.sync().expect_err("the topic takes one mebibyte").to_string();
        assert!(error.contains("the record 0/2/0 of 2097152 bytes to the topic `too-large-0`"), "{error}");
    }
    assert_eq!(egress.ended(0), 2, "nothing is lost");
}

#[test]
fn old_positions_are_removed() {
    let Some(broker) = Broker::shared() else { return };
    let app = App::new(broker, "trimmed", Delivery::ExactlyOnce);
    let mut egress = app.open();
    let mut epoch = 0;
    while offsets(&app.bootstrap, "trimmed.egress", 0).0 == 0 {
        assert!(epoch < 3_000, "nothing was removed");
        for _ in 0..100 {
            epoch += 1;
            write(&mut egress, 0, epoch, &[]);
            egress.sync().expect("the broker is there");
        }
    }
    drop(egress);
    assert_eq!(app.open().taken(0), epoch);
}
