//! An independent client of the broker: it makes topics, writes transfers, and reads statements.

use std::time::Duration;

use futures_executor::block_on;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewPartitions},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    message::Headers,
    producer::{BaseProducer, BaseRecord, Producer},
};
use services::kafka::Broker;

/// The topic that the ingress of the ledger reads.
pub(crate) const TRANSFERS: &str = "transfers";
/// The mailboxes of the ledger.
const MAILBOX: &str = "ledger.mailbox";
/// The topic that the egress of either program writes.
pub(crate) const STATEMENTS: &str = "statements";
/// How long the broker may take for anything, an outage included.
const PATIENCE: Duration = Duration::from_secs(120);

/// The topics of the app.
pub(crate) struct Topics {
    bootstrap: String,
    pub(crate) partitions: i32,
}

impl Topics {
    /// Makes them, each with so many partitions.
    pub(crate) fn create(broker: &Broker, partitions: i32, names: &[&str]) -> Self {
        names.iter().for_each(|name| broker.create_topic(name, partitions).unwrap());
        Self { bootstrap: broker.bootstrap().to_owned(), partitions }
    }

    pub(crate) fn producer(&self) -> BaseProducer {
        let mut config = config(&self.bootstrap);
        config.set("enable.idempotence", "true").set("linger.ms", "2");
        config.set("message.timeout.ms", PATIENCE.as_millis().to_string());
        config.create().unwrap()
    }

    /// Adds partitions to the transfers, so that they have so many.
    pub(crate) fn grow(&self, partitions: usize) {
        let admin: AdminClient<DefaultClientContext> = config(&self.bootstrap).create().unwrap();
        let grown = NewPartitions::new(TRANSFERS, partitions);
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        let grown = block_on(admin.create_partitions([&grown], &options)).unwrap();
        assert!(grown.iter().all(Result::is_ok), "{grown:?}");
    }

    /// How many records the mailboxes of an app of so many shards have ever had.
    pub(crate) fn mails(&self, shards: i32) -> i64 {
        let client: BaseConsumer = config(&self.bootstrap).create().unwrap();
        (0..shards).map(|shard| client.fetch_watermarks(MAILBOX, shard, PATIENCE).unwrap().1).sum()
    }

    /// A consumer of all statements that are committed.
    pub(crate) fn statements(&self) -> BaseConsumer {
        let mut config = config(&self.bootstrap);
        config.set("group.id", "auditor").set("enable.auto.commit", "false").set("isolation.level", "read_committed");
        let consumer: BaseConsumer = config.create().unwrap();
        let mut list = TopicPartitionList::new();
        for partition in 0..self.partitions {
            list.add_partition_offset(STATEMENTS, partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&list).unwrap();
        consumer
    }
}

fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("reconnect.backoff.ms", "10").set("reconnect.backoff.max.ms", "500");
    config
}

/// Writes a record to a partition of the transfers.
pub(crate) fn write(producer: &BaseProducer, partition: i32, key: &str, value: &[u8]) {
    let mut record = BaseRecord::to(TRANSFERS).partition(partition).key(key).payload(value);
    while let Err((error, back)) = producer.send(record) {
        assert_eq!(error.rdkafka_error_code(), Some(rdkafka::types::RDKafkaErrorCode::QueueFull), "{error}");
        producer.poll(Duration::from_millis(10));
        record = back;
    }
    producer.poll(Duration::ZERO);
}

/// Waits until the broker has everything.
pub(crate) fn flush(producer: &BaseProducer) {
    producer.flush(PATIENCE).unwrap();
}

/// The next statement, if one comes soon.
pub(crate) fn read(consumer: &BaseConsumer, patience: Duration) -> Option<Vec<u8>> {
    read_with_place(consumer, patience).map(|(value, _)| value)
}

/// The same, with where it stands and its identity: partition, offset and `shard/epoch/index`.
pub(crate) fn read_with_place(consumer: &BaseConsumer, patience: Duration) -> Option<(Vec<u8>, String)> {
    // A broker that is away for a while is one of the faults.
    let message = consumer.poll(patience)?.ok()?;
    let id = message.headers().and_then(|headers| headers.iter().find(|header| header.key == "statefn-id"));
    let id = id.and_then(|id| id.value).unwrap_or_default();
    let place = format!("{}@{} {}", message.partition(), message.offset(), String::from_utf8_lossy(id));
    Some((message.payload().unwrap_or_default().to_vec(), place))
}
