//! Topics, records and readers that are independent of the crate that is tested.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures_executor::block_on;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::Headers,
    producer::{BaseProducer, BaseRecord, Producer},
};
use services::kafka::Broker;
use statefn_core::ports::egress::Egresses;
use statefn_kafka::{
    Connection, GroupEgress,
    egress::{Delivery, EgressOptions, ID_HEADER, Output, ShardGroup},
};

/// How long a test waits for anything, at most.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// How long one look lasts.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

/// Settings of clients that are ready soon.
pub(crate) fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("enable.sparse.connections", "false")
        .set("reconnect.backoff.ms", "1")
        .set("reconnect.backoff.max.ms", "100");
    config
}

pub(crate) fn connection(bootstrap: &str) -> Connection {
    Connection::parse("log", &format!("kafka://{bootstrap}")).expect("an address")
}

fn admin(bootstrap: &str) -> AdminClient<DefaultClientContext> {
    config(bootstrap).create().expect("a client")
}

/// Adds partitions to a topic, so that it has so many.
pub(crate) fn grow_topic(bootstrap: &str, topic: &str, partitions: usize) {
    let grown = NewPartitions::new(topic, partitions);
    let options = AdminOptions::new().operation_timeout(Some(LIMIT));
    let made = block_on(admin(bootstrap).create_partitions([&grown], &options)).expect("the broker answers");
    assert!(made.iter().all(Result::is_ok), "{made:?}");
}

pub(crate) fn make_topic(bootstrap: &str, topic: &str, partitions: i32) {
    let topic = NewTopic::new(topic, partitions, TopicReplication::Fixed(1)).set("retention.ms", "-1");
    let options = AdminOptions::new().operation_timeout(Some(LIMIT));
    let made = block_on(admin(bootstrap).create_topics([&topic], &options)).expect("the broker answers");
    assert!(made.iter().all(Result::is_ok), "{made:?}");
}

/// Removes what stands before an offset; `End` is everything.
pub(crate) fn remove_before(bootstrap: &str, topic: &str, partition: i32, before: Offset) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, before).expect("an offset");
    let removed = block_on(admin(bootstrap).delete_records(&list, &AdminOptions::new())).expect("the broker answers");
    assert!(removed.elements().iter().all(|partition| partition.error().is_ok()), "{removed:?}");
}

/// The first offset that is kept, and the end.
pub(crate) fn offsets(bootstrap: &str, topic: &str, partition: i32) -> (i64, i64) {
    let consumer: BaseConsumer = config(bootstrap).set("group.id", "offsets").create().expect("a client");
    consumer.fetch_watermarks(topic, partition, LIMIT).expect("the broker answers")
}

/// A record as an independent reader finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) partition: i32,
    pub(crate) id: String,
    pub(crate) value: String,
}

/// All committed records of a topic, by partition and in order.
pub(crate) fn committed(bootstrap: &str, topic: &str) -> Vec<Found> {
    let mut config = config(bootstrap);
    config.set("group.id", "reader").set("isolation.level", "read_committed").set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.set("enable.auto.commit", "false").create().expect("a client");
    let metadata = consumer.fetch_metadata(Some(topic), LIMIT).expect("the broker answers");
    let partitions = metadata.topics()[0].partitions().len() as i32;
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, Offset::Offset(0)).expect("an offset");
    }
    consumer.assign(&list).expect("partitions");
    let (mut found, mut ended, begun) = (BTreeMap::<i32, Vec<Found>>::new(), 0, Instant::now());
    while ended < partitions {
        assert!(begun.elapsed() < LIMIT, "{topic} has no end that can be reached");
        match consumer.poll(LOOK) {
            Some(Ok(message)) => found.entry(message.partition()).or_default().push(found_of(&message)),
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            Some(Err(_)) | None => {}
        }
    }
    found.into_values().flatten().collect()
}

fn found_of(message: &impl Message) -> Found {
    let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
    let headers = message.headers();
    let id = headers.and_then(|headers| headers.iter().find(|header| header.key == ID_HEADER));
    Found {
        partition: message.partition(),
        id: text(id.and_then(|header| header.value)),
        value: text(message.payload()),
    }
}

/// An app with two outputs and one group of the shards 0 and 1.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) bootstrap: String,
    pub(crate) name: String,
    pub(crate) options: EgressOptions,
}

impl App {
    pub(crate) fn new(broker: &Broker, name: &str, delivery: Delivery) -> Self {
        let bootstrap = broker.bootstrap().to_owned();
        make_topic(&bootstrap, &format!("{name}.egress"), 1);
        for output in 0..2 {
            make_topic(&bootstrap, &format!("{name}-{output}"), 1);
        }
        let options = EgressOptions {
            delivery,
            position_interval: Duration::ZERO,
            patience: Duration::from_secs(10),
            ..EgressOptions::default()
        };
        Self { bootstrap, name: name.to_owned(), options }
    }

    pub(crate) fn patience(mut self, patience: Duration) -> Self {
        self.options.patience = patience;
        self
    }

    pub(crate) fn topic(&self, output: usize) -> String {
        format!("{}-{output}", self.name)
    }

    pub(crate) fn outputs(&self) -> Vec<Output> {
        let output = |place| Output { egress: format!("output-{place}"), topic: self.topic(place) };
        vec![output(0), output(1)]
    }

    pub(crate) fn group(&self) -> ShardGroup {
        ShardGroup { app: self.name.clone(), group: 0, shards: vec![0, 1] }
    }

    pub(crate) fn try_open(&self) -> Result<GroupEgress, statefn_kafka::EgressError> {
        GroupEgress::open(&connection(&self.bootstrap), self.group(), &self.outputs(), self.options.clone())
    }

    /// Opens the egress, again while the broker does not answer.
    pub(crate) fn open(&self) -> GroupEgress {
        until("the egress opens", || self.try_open())
    }

    pub(crate) fn standing(&self, output: usize) -> Vec<Found> {
        committed(&self.bootstrap, &self.topic(output))
    }

    pub(crate) fn values(&self, output: usize) -> Vec<String> {
        self.standing(output).into_iter().map(|found| found.value).collect()
    }
}

/// Tries until it succeeds.
pub(crate) fn until<T, E: std::fmt::Debug>(what: &str, mut attempt: impl FnMut() -> Result<T, E>) -> T {
    let begun = Instant::now();
    loop {
        match attempt() {
            Ok(done) => return done,
            Err(error) => assert!(begun.elapsed() < LIMIT, "it never came that {what}: {error:?}"),
        }
    }
}

pub(crate) fn write(egress: &mut GroupEgress, shard: u32, epoch: u64, records: &[(usize, &str)]) {
    egress.write_epoch(shard, epoch, records.iter().map(|(output, record)| (*output, record.as_bytes())));
}

/// A transactional producer of a test.
pub(crate) fn transactional(bootstrap: &str, id: &str) -> BaseProducer {
    let mut config = config(bootstrap);
    config.set("transactional.id", id).set("retry.backoff.ms", "1").set("transaction.timeout.ms", "60000");
    let producer: BaseProducer = config.create().expect("a client");
    until("a producer has its identity", || producer.init_transactions(LIMIT));
    producer
}

/// A producer without transactions.
pub(crate) fn plain(bootstrap: &str) -> BaseProducer {
    config(bootstrap).create().expect("a client")
}

/// Writes records in a transaction, which is committed or not.
pub(crate) fn transact(producer: &BaseProducer, topic: &str, partition: i32, values: &[&str], commits: bool) {
    producer.begin_transaction().expect("no other one is open");
    produce(producer, topic, partition, values);
    let ended = if commits { producer.commit_transaction(LIMIT) } else { producer.abort_transaction(LIMIT) };
    ended.expect("the broker answers");
}

/// Sends records to a partition and waits until they are acknowledged.
pub(crate) fn produce(producer: &BaseProducer, topic: &str, partition: i32, values: &[&str]) {
    for value in values {
        let record = BaseRecord::<(), str>::to(topic).partition(partition).payload(value);
        producer.send(record).map_err(|(error, _)| error).expect("there is room");
    }
    producer.flush(LIMIT).expect("the broker answers");
}
