//! The servers of a run, and an independent client of the broker.

use std::{
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    message::{BorrowedMessage, Headers},
    producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer},
    types::RDKafkaErrorCode,
};
use services::{kafka::Broker, s3::Server};

use super::app::{ADDS, Add, SUMS, Sum};
use crate::bench::Failure;

/// How long the broker may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait before a record is given again to a client that is full.
const FULL_PAUSE: Duration = Duration::from_millis(2);
/// The header with the identity of a record out, `shard/epoch/index`.
const ID_HEADER: &str = "statefn-id";

/// A broker and an S3 server that nobody else uses; both end with this.
pub(super) struct Servers {
    pub(super) broker: Broker,
    pub(super) server: Server,
}

impl Servers {
    pub(super) fn start() -> Result<Self, Failure> {
        Ok(Self { broker: Broker::start()?, server: Server::start()? })
    }

    /// Makes topics, each with so many partitions.
    pub(super) fn create(&self, topics: &[(&str, u32)]) -> Result<(), Failure> {
        let admin: AdminClient<DefaultClientContext> = self.config().create()?;
        let topics: Vec<NewTopic<'_>> = topics
            .iter()
            .map(|(name, partitions)| NewTopic::new(name, *partitions as i32, TopicReplication::Fixed(1)))
            .collect();
        for made in futures_executor::block_on(admin.create_topics(&topics, &AdminOptions::new()))? {
            made.map_err(|(topic, code)| format!("the topic `{topic}` cannot be made: {code}"))?;
        }
        Ok(())
    }

    /// The id of the broker's process.
    pub(super) fn broker_id(&self) -> Result<u32, Failure> {
        self.broker.process_id().ok_or_else(|| "the broker is down".into())
    }

    fn config(&self) -> ClientConfig {
        config(self.broker.bootstrap())
    }

    /// A producer that spreads records over partitions by their key as Kafka's Java client does, and gathers
    /// them for so long.
    pub(super) fn producer(&self, linger_ms: u32) -> Result<Producer, Failure> {
        Producer::new(self.broker.bootstrap(), linger_ms)
    }

    /// A consumer of what is committed in a topic, from its beginning.
    pub(super) fn consumer(&self, topic: &str, partitions: u32) -> Result<BaseConsumer, Failure> {
        let consumer: BaseConsumer = consumer_config(self.broker.bootstrap(), "reader").create()?;
        assign_all(&consumer, topic, partitions)?;
        Ok(consumer)
    }

    /// How many offsets of a topic are behind the last open transaction.
    pub(super) fn committed(&self, asker: &BaseConsumer, topic: &str, partitions: u32) -> Result<u64, Failure> {
        let mut sum = 0;
        for partition in 0..partitions {
            let (start, end) = asker.fetch_watermarks(topic, partition as i32, PATIENCE)?;
            sum += u64::try_from(end - start)?;
        }
        Ok(sum)
    }
}

/// What all clients have.
fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("socket.nagle.disable", "true");
    config
}

/// What all consumers have. A fetch is answered as soon as there is a record.
pub(super) fn consumer_config(bootstrap: &str, group: &str) -> ClientConfig {
    let mut config = config(bootstrap);
    config.set("group.id", group).set("enable.auto.commit", "false").set("isolation.level", "read_committed");
    config.set("fetch.min.bytes", "1").set("fetch.queue.backoff.ms", "2");
    config
}

pub(super) fn assign_all(consumer: &BaseConsumer, topic: &str, partitions: u32) -> Result<(), Failure> {
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition as i32, Offset::Beginning)?;
    }
    Ok(consumer.assign(&list)?)
}

/// A producer with a thread that hears what the broker says.
pub(super) struct Producer(ThreadedProducer<DefaultProducerContext>);

impl Producer {
    pub(super) fn new(bootstrap: &str, linger_ms: u32) -> Result<Self, Failure> {
        let mut config = config(bootstrap);
        config.set("acks", "all").set("compression.type", "none").set("partitioner", "murmur2_random");
        config.set("linger.ms", linger_ms.to_string()).set("enable.idempotence", "true");
        Ok(Self(config.create()?))
    }

    /// Sends a record; waits where the client has enough of them.
    pub(super) fn send(&self, topic: &str, key: &str, value: &[u8]) -> Result<(), Failure> {
        let mut record = BaseRecord::to(topic).key(key).payload(value);
        while let Err((error, back)) = self.0.send(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            thread::sleep(FULL_PAUSE);
            record = back;
        }
        Ok(())
    }

    pub(super) fn add(&self, add: &Add) -> Result<(), Failure> {
        self.send(ADDS, add.user(), &add.bytes())
    }

    /// Waits until the broker has everything.
    pub(super) fn flush(&self) -> Result<(), Failure> {
        Ok(self.0.flush(PATIENCE)?)
    }
}

/// A record out as a reader of committed records gets it.
pub(super) struct Seen {
    pub(super) at: Instant,
    pub(super) sum: Sum,
    /// None of what the loop by hand has written.
    pub(super) shard: Option<u32>,
    /// Where it stands, and its identity, for people.
    pub(super) place: (i32, i64, String),
}

/// The next record out, if one comes soon.
pub(super) fn read(consumer: &BaseConsumer, patience: Duration) -> Result<Option<Seen>, Failure> {
    let Some(message) = consumer.poll(patience).transpose()? else { return Ok(None) };
    let at = Instant::now();
    let sum = Sum::read(message.payload().ok_or_else(|| format!("a record of `{SUMS}` has no value"))?)?;
    let id = id_of(&message).unwrap_or_default();
    let shard = id.split('/').next().and_then(|shard| shard.parse().ok());
    Ok(Some(Seen { at, sum, shard, place: (message.partition(), message.offset(), id.to_owned()) }))
}

fn id_of<'a>(message: &'a BorrowedMessage<'_>) -> Option<&'a str> {
    let headers = message.headers()?;
    let header = headers.iter().find(|header| header.key == ID_HEADER)?;
    std::str::from_utf8(header.value?).ok()
}
