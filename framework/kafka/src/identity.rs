//! Whose topics these are: one record, the first of the topic `<app>.ownership`.
//!
//! It is written when all topics stand, so where it stands a topic that is missing was removed by
//! somebody, and is not made anew as if nothing had been lost.
//!
//! Invariants: the first record counts; workers that start at the same time may write it several
//! times, all alike, because each has found the same numbers of partitions before.
//!
//! Deliberately absent: a check of what the topics hold.

use std::time::{Duration, Instant};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult},
    message::DeliveryResult,
    producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer},
};
use serde::{Deserialize, Serialize};

use crate::{
    connection::{Connection, Isolation, ProducerOptions},
    error::{Difference, Error},
    offsets::again,
    report::Reporter,
    topics::Topics,
};

/// The version of what this code writes to the topics of an app.
const FORMAT: u32 = 1;
const RECORD_BYTES_MAX: usize = 1 << 10;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    format: u32,
    app: String,
    shards: u32,
}

impl Identity {
    fn of(topics: &Topics) -> Self {
        Self { format: FORMAT, app: topics.app().to_owned(), shards: topics.shards() }
    }
}

/// Reads the record and compares it; returns whether it stands. The topic must be there.
pub(crate) fn check(connection: &Connection, topics: &Topics, limit: Duration) -> Result<bool, Error> {
    let doing = format!("read the topic `{}`", topics.ownership());
    let config = connection.consumer_config(&format!("{}-reader", topics.app()), Isolation::Uncommitted);
    let consumer: BaseConsumer<Reporter> =
        connection.client("read the identity of the app", &config, connection.reporter("identity"))?;
    match first_record(&consumer, topics.ownership(), limit) {
        Ok(None) => Ok(false),
        Ok(Some(record)) => match difference(topics, &record) {
            None => Ok(true),
            Some(difference) => Err(Error::Topics(vec![difference])),
        },
        Err(error) => Err(connection.failed(&doing, &error)),
    }
}

/// Writes the record.
pub(crate) fn write(connection: &Connection, topics: &Topics, limit: Duration) -> Result<(), Error> {
    let options =
        ProducerOptions { message_timeout: limit, record_bytes_max: RECORD_BYTES_MAX, transactional_id: None };
    let (told, outcome) = std::sync::mpsc::sync_channel(1);
    let context = Context { reporter: connection.reporter("identity"), told };
    let config = connection.producer_config(&options);
    let producer: ThreadedProducer<Context> = connection.client("write the identity of the app", &config, context)?;
    // Makes the first record quick, see the settings.
    drop(producer.client().fetch_metadata(Some(topics.ownership()), limit));
    let record = serde_json::to_vec(&Identity::of(topics)).expect("text and numbers are JSON");
    let record = BaseRecord::<(), [u8]>::to(topics.ownership()).partition(0).payload(record.as_slice());
    let sent = producer.send(record).map_err(|(error, _)| error);
    // A report comes within the message timeout.
    let sent = sent.and_then(|()| outcome.recv().unwrap_or(Err(KafkaError::Canceled)));
    sent.map_err(|error| connection.failed(&format!("take a record for the topic `{}`", topics.ownership()), &error))
}

struct Context {
    reporter: Reporter,
    told: std::sync::mpsc::SyncSender<KafkaResult<()>>,
}

impl rdkafka::ClientContext for Context {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, text: &str) {
        self.reporter.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.reporter.error(error, reason);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        // Who waited may be gone.
        _ = self.told.try_send(result.as_ref().map(|_| ()).map_err(|(error, _)| error.clone()));
    }
}

/// The first record of the first partition of a topic, if there is one.
fn first_record(consumer: &BaseConsumer<Reporter>, topic: &str, limit: Duration) -> KafkaResult<Option<Vec<u8>>> {
    let started = Instant::now();
    let left = || limit.saturating_sub(started.elapsed());
    // A topic that was made a moment ago may have no leader yet.
    let refresh = |left| drop(consumer.fetch_metadata(Some(topic), left));
    let (start, end) = again(limit, refresh, |left| consumer.fetch_watermarks(topic, 0, left))?;
    if start >= end {
        return Ok(None);
    }
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Offset(start))?;
    consumer.assign(&list)?;
    while !left().is_zero() {
        match consumer.poll(left()) {
            Some(Ok(message)) => return Ok(Some(message.payload().unwrap_or_default().to_vec())),
            // The client goes on by itself once it can.
            Some(Err(error)) if left().is_zero() => return Err(error),
            _ => {}
        }
    }
    Err(KafkaError::NoMessageReceived)
}

/// What is wrong with an identity, if anything is.
fn difference(topics: &Topics, record: &[u8]) -> Option<Difference> {
    let found = serde_json::from_slice::<Identity>(record);
    let wanted = Identity::of(topics);
    let text = |identity: &Identity| format!("app `{}` with {} shards", identity.app, identity.shards);
    let (found, fix) = match found {
        Ok(found) if found == wanted => return None,
        Ok(Identity { format, .. }) if format != FORMAT => {
            (format!("of format {format}"), "use the statefn that wrote it".to_owned())
        }
        Ok(found) if found.app == wanted.app => {
            let fix =
                format!("set the number of shards back to {} (it cannot change), or name a new app", found.shards);
            (text(&found), fix)
        }
        Ok(found) => (text(&found), format!("name the app `{}` again, or name a new one", found.app)),
        Err(error) => {
            (format!("unreadable ({error})"), "these are topics of something else: name the app otherwise".to_owned())
        }
    };
    Some(Difference {
        topic: topics.ownership().to_owned(),
        setting: "its first record, which says whose topics these are,",
        found,
        wanted: format!("this is the {} of format {FORMAT}", text(&wanted)),
        fix,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_app_with_the_same_shards_and_format_is_taken() {
        let topics = Topics::new("bank", 8).unwrap();
        let difference = |record: &str| difference(&topics, record.as_bytes()).map(|found| found.to_string());
        assert_eq!(difference(r#"{"format":1,"app":"bank","shards":8}"#), None);
        let bad = [
            (r#"{"format":1,"app":"bank","shards":16}"#, "back to 16"),
            (r#"{"format":2,"app":"bank","shards":8}"#, "use the statefn that wrote it"),
            (r#"{"format":1,"app":"shop","shards":8}"#, "name the app `shop` again"),
            ("hello", "topics of something else"),
            ("", "topics of something else"),
        ];
        for (record, fix) in bad {
            let text = difference(record).unwrap();
            assert!(text.starts_with("topic `bank.ownership`: ") && text.contains(fix), "{text}");
        }
    }
}
