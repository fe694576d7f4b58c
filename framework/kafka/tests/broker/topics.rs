//! Topics: made once, by any number of workers, and refused where they are not right.

use std::{collections::BTreeMap, thread, time::Duration};

use futures_executor::block_on;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
};
use services::kafka::Broker;
use statefn_kafka::{Connection, Difference, Error, TopicOptions, Topics};

use crate::world::{LIMIT, RECORD_BYTES_MAX, connection, topic_options, until};

fn admin(broker: &Broker) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", broker.bootstrap()).create().expect("a client can be made")
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(LIMIT))
}

fn differences(broker: &Broker, topics: &Topics, options: &TopicOptions) -> Vec<Difference> {
    match topics.ensure(&connection(broker), options) {
        Err(Error::Topics(differences)) => differences,
        other => panic!("the topics are refused, not {other:?}"),
    }
}

#[test]
fn topics_are_made_as_the_app_needs_them() {
    let Some(broker) = Broker::shared() else { return };
    let topics = Topics::new("topics-made", 40).unwrap();
    topics.ensure(&connection(broker), &topic_options()).unwrap();
    let wanted = [
        (topics.journal(), 40, "-1"),
        (topics.mailbox(), 40, "-1"),
        (topics.egress(), 32, "-1"),
        (topics.ownership(), 32, "-1"),
        (topics.dead_letters(), 1, "-1"),
        (topics.progress(), 1, "600000"),
    ];
    let admin = admin(broker);
    for (topic, partitions, retention) in wanted {
        let metadata = admin.inner().fetch_metadata(Some(topic), LIMIT).unwrap();
        assert_eq!(metadata.topics()[0].partitions().len(), partitions, "{topic}");
        let config = block_on(admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &options())).unwrap();
        let config = config.into_iter().next().unwrap().unwrap();
        let value = |name: &str| config.get(name).unwrap().value.clone().unwrap();
        assert_eq!((value("retention.ms"), value("cleanup.policy")), (retention.to_owned(), "delete".to_owned()));
        assert!(value("max.message.bytes").parse::<usize>().unwrap() > RECORD_BYTES_MAX, "{topic}");
    }
    topics.ensure(&connection(broker), &topic_options()).expect("what it has made is right");
}

#[test]
fn workers_that_start_together_make_the_topics_once() {
    let Some(broker) = Broker::shared() else { return };
    let topics = Topics::new("topics-together", 4).unwrap();
    thread::scope(|scope| {
        let workers: Vec<_> =
            (0..4).map(|_| scope.spawn(|| topics.ensure(&connection(broker), &topic_options()))).collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap().unwrap());
    });
    topics.ensure(&connection(broker), &topic_options()).unwrap();
}

#[test]
fn another_number_of_shards_is_refused() {
    let Some(broker) = Broker::shared() else { return };
    let eight = Topics::new("topics-shards", 8).unwrap();
    eight.ensure(&connection(broker), &topic_options()).unwrap();
    let found = differences(broker, &Topics::new("topics-shards", 16).unwrap(), &topic_options());
    let text = found[0].to_string();
    assert!(text.contains("app `topics-shards` with 8 shards") && text.contains("back to 8"), "{text}");
}

#[test]
fn each_setting_that_is_not_right_is_named_with_its_fix() {
    let Some(broker) = Broker::shared() else { return };
    let topics = Topics::new("topics-settings", 2).unwrap();
    topics.ensure(&connection(broker), &topic_options()).unwrap();
    let admin = admin(broker);
    let alter = |topic: &str, settings: &[(&str, &str)]| {
        let mut entries: BTreeMap<&str, &str> = settings.iter().copied().collect();
        entries.entry("retention.ms").or_insert("-1");
        entries.entry("max.message.bytes").or_insert("9000000");
        let config = entries
            .into_iter()
            .fold(AlterConfig::new(ResourceSpecifier::Topic(topic)), |config, (name, value)| config.set(name, value));
        block_on(admin.alter_configs(&[config], &options())).unwrap()[0].as_ref().unwrap();
    };
    alter(topics.journal(), &[("cleanup.policy", "compact"), ("retention.ms", "1000")]);
    alter(topics.mailbox(), &[("max.message.bytes", "1000000"), ("retention.bytes", "5")]);
    alter(topics.egress(), &[("unclean.leader.election.enable", "true")]);
    alter(topics.progress(), &[("retention.ms", "1000")]);
    let wanted = [
        (topics.journal(), "cleanup.policy", "compact"),
        (topics.journal(), "retention.ms", "1000"),
        (topics.journal(), "min.insync.replicas", "1"),
        (topics.mailbox(), "retention.bytes", "5"),
        (topics.mailbox(), "max.message.bytes", "1000000"),
        (topics.egress(), "unclean.leader.election.enable", "true"),
        (topics.progress(), "retention.ms", "1000"),
    ];
    // The broker takes a moment to apply what was altered.
    let found = until("all is seen", || {
        let mut found = differences(broker, &topics, &topic_options().replication(1, 2));
        found.retain(|found| found.setting != "min.insync.replicas" || found.topic == topics.journal());
        (found.len() >= wanted.len()).then_some(found)
    });
    let found: Vec<(&str, &str, &str)> =
        found.iter().map(|found| (found.topic.as_str(), found.setting, found.found.as_str())).collect();
    assert_eq!(found, wanted);
    let text = topics.ensure(&connection(broker), &topic_options()).unwrap_err().to_string();
    let line = "topic `topics-settings.mailbox`: max.message.bytes is 1000000, but records of 1048576 bytes need 1114112: \
                `kafka-configs.sh --alter --topic topics-settings.mailbox --add-config max.message.bytes=1114112`";
    assert!(text.lines().any(|found| found == line), "{text}");
}

#[test]
fn a_topic_with_another_number_of_partitions_is_refused() {
    let Some(broker) = Broker::shared() else { return };
    let topics = Topics::new("topics-partitions", 2).unwrap();
    topics.ensure(&connection(broker), &topic_options()).unwrap();
    let admin = admin(broker);
    block_on(admin.create_partitions(&[NewPartitions::new(topics.mailbox(), 3)], &options())).unwrap()[0]
        .as_ref()
        .unwrap();
    let found = until("the partition is seen", || match topics.ensure(&connection(broker), &topic_options()) {
        Err(Error::Topics(differences)) => Some(differences),
        _ => None,
    });
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].topic.as_str(), found[0].found.as_str()), (topics.mailbox(), "3"));
}

#[test]
fn topics_of_something_else_are_refused() {
    let Some(broker) = Broker::shared() else { return };
    let topics = Topics::new("topics-foreign", 4).unwrap();
    let admin = admin(broker);
    let journal = NewTopic::new(topics.journal(), 3, TopicReplication::Fixed(1));
    block_on(admin.create_topics(&[journal], &options())).unwrap()[0].as_ref().unwrap();
    let found = differences(broker, &topics, &topic_options());
    assert!(found.iter().all(|found| found.topic == topics.journal()), "{found:?}");
    assert!(found.iter().any(|found| (found.setting, found.found.as_str()) == ("the number of partitions", "3")));
}

#[test]
fn a_journal_that_somebody_removed_is_not_made_anew() {
    let Some(broker) = Broker::shared() else { return };
    let topics = Topics::new("topics-removed", 2).unwrap();
    topics.ensure(&connection(broker), &topic_options()).unwrap();
    let admin = admin(broker);
    block_on(admin.delete_topics(&[topics.journal()], &options())).unwrap()[0].as_ref().unwrap();
    let found = until("the topic is gone", || match topics.ensure(&connection(broker), &topic_options()) {
        Err(Error::Topics(differences)) => Some(differences),
        _ => None,
    });
    assert_eq!((found.len(), found[0].topic.as_str(), found[0].found.as_str()), (1, topics.journal(), "missing"));
}

#[test]
fn more_replicas_than_brokers_are_refused_with_the_setting() {
    let Some(broker) = Broker::shared() else { return };
    let topics = Topics::new("topics-replicas", 2).unwrap();
    let text = differences(broker, &topics, &topic_options().replication(3, 2))[0].to_string();
    assert!(text.contains("settings say 3 brokers for each partition"), "{text}");
}

#[test]
fn an_address_where_nobody_is_is_named_with_its_setting() {
    let nobody = Connection::parse("log", "kafka://127.0.0.1:1").unwrap();
    let options = TopicOptions { limit: Duration::from_millis(300), ..topic_options() };
    let error = Topics::new("topics-nobody", 1).unwrap().ensure(&nobody, &options).unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("`127.0.0.1:1` (setting `log`)"), "{error}");
}
