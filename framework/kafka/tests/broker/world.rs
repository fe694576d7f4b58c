//! An app on a broker, and how to wait for something with a limit.

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use services::kafka::Broker;
use statefn_core::ports::{
    log::{AppendError, Offset, Partition},
    shared::Appender,
};
use statefn_kafka::{AppenderOptions, Connection, KafkaAppender, KafkaLog, TopicOptions, Topics};

/// The largest record of the tests, in bytes.
pub(crate) const RECORD_BYTES_MAX: usize = 1 << 20;
/// How long anything may take before a test fails.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) type Outcome = Result<Offset, AppendError>;

/// The topics of an app, made on a broker.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) connection: Connection,
    pub(crate) topics: Arc<Topics>,
}

impl World {
    /// On the broker that tests share; none if it is not installed.
    pub(crate) fn shared(app: &str, shards: u32) -> Option<Self> {
        Broker::shared().map(|broker| Self::on(broker, app, shards))
    }

    pub(crate) fn on(broker: &Broker, app: &str, shards: u32) -> Self {
        let topics = Arc::new(Topics::new(app, shards).expect("the name is good"));
        let connection = connection(broker);
        topics.ensure(&connection, &topic_options()).expect("topics can be made");
        Self { connection, topics }
    }

    pub(crate) fn appender(&self) -> Arc<KafkaAppender> {
        self.appender_with(LIMIT)
    }

    pub(crate) fn appender_with(&self, message_timeout: Duration) -> Arc<KafkaAppender> {
        let options = AppenderOptions::new(RECORD_BYTES_MAX).message_timeout(message_timeout);
        Arc::new(KafkaAppender::new(&self.connection, &self.topics, &options).expect("a producer can be made"))
    }

    pub(crate) fn log(&self) -> KafkaLog {
        self.log_of(&self.appender(), LIMIT)
    }

    pub(crate) fn log_of(&self, appender: &Arc<KafkaAppender>, patience: Duration) -> KafkaLog {
        KafkaLog::new(&self.connection, appender, patience).expect("a consumer can be made")
    }
}

pub(crate) fn connection(broker: &Broker) -> Connection {
    Connection::parse("log", &format!("kafka://{}", broker.bootstrap())).expect("it is an address")
}

pub(crate) fn topic_options() -> TopicOptions {
    TopicOptions { limit: LIMIT, ..TopicOptions::new(RECORD_BYTES_MAX).replication(1, 1) }
}

/// Begins an append; the outcome comes by the channel.
pub(crate) fn begin(
    appender: &dyn Appender,
    partition: Partition,
    records: Vec<Arc<Vec<u8>>>,
) -> mpsc::Receiver<Outcome> {
    let (told, outcome) = mpsc::channel();
    appender.append(partition, records, Box::new(move |outcome| _ = told.send(outcome)));
    outcome
}

/// Appends and waits for the outcome.
pub(crate) fn append(appender: &dyn Appender, partition: Partition, records: &[&[u8]]) -> Outcome {
    let records = records.iter().map(|record| Arc::new(record.to_vec())).collect();
    begin(appender, partition, records).recv_timeout(LIMIT).expect("each append is told")
}

/// Calls until there is a value.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < LIMIT, "{what} within {LIMIT:?}");
        std::thread::yield_now();
    }
}
