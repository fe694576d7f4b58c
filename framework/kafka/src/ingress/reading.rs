//! One partition as it is read: its queue, its position, and its records as messages.
//!
//! Each partition has a queue of its own in the client, because the errors and the end of a partition
//! do not say of which topic they are. What is not polled waits in it, so resting costs nothing.

use std::{sync::Arc, time::Duration};

use rdkafka::{
    ClientContext, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, base_consumer::PartitionQueue},
    error::{KafkaError, RDKafkaErrorCode},
};
use statefn_core::{
    dead_letter::DeadLetter,
    ingress::{Batches, ErasedIngress, Logged, RawRecord},
    limits::MESSAGE_BYTES_MAX,
    message::encode_json,
    ports::ingress::{ReadLimit, Stretch},
    shard::frame::Position,
    time::EventTime,
};

use super::{Format, TopicPartition, error::InputError};
use crate::{
    connection::{Connection, Isolation},
    report::Reporter,
};

/// How many kilobytes of a partition the client reads ahead.
const AHEAD_KILOBYTES: &str = "16384";
/// How long the client waits before it reads on, once it has read ahead enough.
const AHEAD_INTERVAL_MS: &str = "5";

/// A consumer that reads committed records where it is told to; the broker waits for so long before it
/// answers that there are none, which is also what tells the end of a partition.
pub(super) fn consumer(
    connection: &Connection,
    group: &str,
    empty_wait: Duration,
) -> Result<Arc<BaseConsumer<Reporter>>, InputError> {
    let mut config = connection.consumer_config(group, Isolation::Committed);
    config
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", empty_wait.as_millis().to_string())
        .set("queued.max.messages.kbytes", AHEAD_KILOBYTES)
        .set("fetch.queue.backoff.ms", AHEAD_INTERVAL_MS);
    let consumer = connection
        .client("read topics", &config, connection.reporter("ingress"))
        .map_err(|error| InputError::failed("make a consumer", error))?;
    Ok(Arc::new(consumer))
}

/// The first offset that is kept, and the one behind everything that is decided.
pub(super) fn offsets(
    consumer: &BaseConsumer<Reporter>,
    place: &TopicPartition,
    patience: Duration,
) -> Result<(u64, u64), InputError> {
    let TopicPartition { topic, partition } = place;
    let found = consumer.fetch_watermarks(topic, *partition as i32, patience);
    let (first, end) =
        found.map_err(|error| InputError::failed(format!("ask where {place} begins and ends"), error))?;
    match (u64::try_from(first), u64::try_from(end)) {
        (Ok(first), Ok(end)) => Ok((first, end)),
        _ => {
            Err(InputError::failed(format!("ask where {place} begins and ends"), format!("it said {first} and {end}")))
        }
    }
}

/// Hears what the client has to say beside records.
pub(super) fn listen(consumer: &BaseConsumer<Reporter>) -> Result<(), InputError> {
    match consumer.poll(Duration::ZERO) {
        Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => Err(InputError::failed("read topics", error)),
        Some(Ok(message)) => {
            // Each partition has its queue before it is fetched; without that a record would be passed over.
            let (topic, partition) = (message.topic().to_owned(), message.partition() as u32);
            let place = TopicPartition { topic, partition };
            Err(InputError::failed(format!("read {place}"), "the client gave a record that nobody waits for"))
        }
        // The client goes on by itself.
        Some(Err(error)) => {
            let text = error.to_string();
            consumer.context().error(error, &text);
            Ok(())
        }
        None => Ok(()),
    }
}

/// A partition that is read.
pub(super) struct Reading {
    place: TopicPartition,
    format: Format,
    queue: PartitionQueue<Reporter>,
    consumer: Arc<BaseConsumer<Reporter>>,
    at: Position,
    /// Where the input ends; none if it never does.
    until: Option<u64>,
    dead_letters: u64,
    patience: Duration,
    /// Why it cannot be read on; it is told once what comes before it was.
    problem: Option<InputError>,
    text: Vec<u8>,
}

/// What looking into the queue has given.
enum Look {
    /// Nothing for now.
    Nothing,
    /// A record that was routed, and its bytes.
    Record(u64),
    /// Something that needs no more.
    Passed,
    /// All of a bounded input was read.
    End,
}

impl Reading {
    /// Begins to read a partition; `has_news` is called, from any thread, when there is something to
    /// take after there was nothing.
    pub(super) fn begin(
        consumer: &Arc<BaseConsumer<Reporter>>,
        place: TopicPartition,
        format: Format,
        (from, until): (Position, Option<u64>),
        patience: Duration,
        has_news: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, InputError> {
        let partition = place.partition as i32;
        let queue = consumer.split_partition_queue(&place.topic, partition);
        let mut queue =
            queue.ok_or_else(|| InputError::failed(format!("read {place}"), "the client has no queue for it"))?;
        queue.set_nonempty_callback(has_news);
        let reading = Self {
            place,
            format,
            queue,
            consumer: Arc::clone(consumer),
            at: from,
            until,
            dead_letters: 0,
            patience,
            problem: None,
            text: Vec::new(),
        };
        reading.assign()?;
        Ok(reading)
    }

    pub(super) fn position(&self) -> Position {
        self.at
    }

    pub(super) fn until(&self) -> Option<u64> {
        self.until
    }

    /// Where it is, and where it ends.
    pub(super) fn bounds(&self) -> (Position, Option<u64>) {
        (self.at, self.until)
    }

    pub(super) fn dead_letters(&self) -> u64 {
        self.dead_letters
    }

    /// Takes records that are there, and waits for the first at most so long.
    ///
    /// The stretch is empty if there was nothing; then, or if the limit was not reached, all was taken.
    pub(super) fn take(
        &mut self,
        ingress: &dyn ErasedIngress,
        batches: &mut Batches,
        limit: ReadLimit,
        wait: Duration,
    ) -> Result<(Stretch, Rest), InputError> {
        let (from, records, written) = (self.at.offset, self.at.records, batches.written());
        let mut bytes = 0;
        let mut rest = Rest::Maybe;
        while self.problem.is_none() && !self.at.is_ended {
            if self.at.records - records >= limit.records || bytes >= limit.bytes {
                return Ok((Stretch { from, to: self.at }, rest));
            }
            let is_first = self.at.records == records;
            match self.look(ingress, batches, if is_first { wait } else { Duration::ZERO }) {
                Ok(Look::Record(length)) => bytes = (bytes + length).max(batches.written() - written),
                Ok(Look::Passed) => {}
                Ok(Look::End) => self.end(),
                Ok(Look::Nothing) => {
                    rest = Rest::None;
                    break;
                }
                Err(problem) => self.problem = Some(problem),
            }
        }
        match &self.problem {
            Some(problem) if self.at.records == records && !self.at.is_ended => Err(problem.clone()),
            _ => Ok((Stretch { from, to: self.at }, rest)),
        }
    }

    fn look(&mut self, ingress: &dyn ErasedIngress, batches: &mut Batches, wait: Duration) -> Result<Look, InputError> {
        if self.until.is_some_and(|until| self.at.offset >= until) {
            return Ok(Look::End);
        }
        let error = match self.queue.poll(wait) {
            None => return Ok(Look::Nothing),
            Some(Ok(message)) => {
                let offset = u64::try_from(message.offset()).unwrap_or_default();
                if offset < self.at.offset {
                    return Ok(Look::Passed);
                }
                if self.until.is_some_and(|until| offset >= until) {
                    return Ok(Look::End);
                }
                let routed = route(&message, &self.place, self.format, &mut self.text, ingress, batches);
                self.at.event_time_max = self.at.event_time_max.max(routed);
                self.dead_letters += u64::from(routed.is_none());
                self.at.offset = offset + 1;
                self.at.records += 1;
                let bytes = message.payload_len() + message.key_len();
                // One without any counts too, so that a stretch has an end.
                return Ok(Look::Record(bytes.max(1) as u64));
            }
            Some(Err(error)) => error,
        };
        match error {
            // The end of a bounded input lies before what is the end now.
            KafkaError::PartitionEOF(_) if self.until.is_some() => Ok(Look::End),
            KafkaError::PartitionEOF(_) => Ok(Look::Passed),
            error => self.judge(&error),
        }
    }

    fn end(&mut self) {
        self.at.offset = self.at.offset.max(self.until.unwrap_or_default());
        self.at.is_ended = true;
    }

    /// What an error of the partition means.
    fn judge(&self, error: &KafkaError) -> Result<Look, InputError> {
        let TopicPartition { topic, partition } = self.place.clone();
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                let wanted = self.at.offset;
                let (first, end) = offsets(&self.consumer, &self.place, self.patience)?;
                if wanted < first {
                    return Err(InputError::Lost { topic, partition, wanted, first });
                }
                if wanted > end {
                    return Err(InputError::Shrunk { topic, partition, wanted, end });
                }
                // The broker that was asked did not know better yet.
                self.assign_again()?;
                Ok(Look::Passed)
            }
            Some(
                RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition,
            ) => Err(InputError::NoTopic { topic }),
            // The client goes on by itself.
            Some(
                RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::Resolve,
            ) => Ok(Look::Passed),
            _ => Err(InputError::failed(format!("read {}", self.place), error)),
        }
    }

    fn assign(&self) -> Result<(), InputError> {
        let list = self.list(Offset::Offset(self.at.offset as i64));
        list.and_then(|list| self.consumer.incremental_assign(&list))
            .map_err(|error| InputError::failed(format!("read {}", self.place), error))
    }

    fn assign_again(&self) -> Result<(), InputError> {
        self.unassign();
        self.assign()
    }

    fn unassign(&self) {
        let left = self.list(Offset::Invalid).and_then(|list| self.consumer.incremental_unassign(&list));
        if let Err(error) = left {
            tracing::warn!("{} goes on to be fetched: {error}", self.place);
        }
    }

    fn list(&self, offset: Offset) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.place.topic, self.place.partition as i32, offset)?;
        Ok(list)
    }
}

/// Whether more may be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    Maybe,
    None,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.unassign();
    }
}

/// Routes a record and returns its event time; one that cannot be read becomes a dead letter.
fn route(
    message: &impl Message,
    place: &TopicPartition,
    format: Format,
    text: &mut Vec<u8>,
    ingress: &dyn ErasedIngress,
    batches: &mut Batches,
) -> Option<EventTime> {
    let offset = u64::try_from(message.offset()).unwrap_or_default();
    let value = message.payload();
    let routed = encoded(value, format, text).and_then(|encoded| {
        let time = message.timestamp().to_millis().map(EventTime);
        let logged = Logged { value: encoded, key: message.key(), time };
        ingress.route(offset, RawRecord::Logged(logged), batches)
    });
    match routed {
        Ok(time) => Some(time),
        Err(reason) => {
            let place = format!("{place}, offset {offset}");
            let letter = DeadLetter::of_record(ingress.name(), &place, &reason, value.unwrap_or_default());
            batches.dead_letter(offset, letter);
            None
        }
    }
}

/// The value as the message is encoded.
fn encoded<'a>(value: Option<&'a [u8]>, format: Format, text: &'a mut Vec<u8>) -> Result<&'a [u8], String> {
    let value = value.ok_or("the record has no value: it is a tombstone of its key")?;
    if value.len() > MESSAGE_BYTES_MAX {
        return Err(format!("the record has {} bytes; the limit is {MESSAGE_BYTES_MAX}", value.len()));
    }
    match format {
        Format::Message => Ok(value),
        Format::Text => {
            let value = std::str::from_utf8(value).map_err(|error| format!("the record is no UTF-8 text: {error}"))?;
            text.clear();
            encode_json(&value, text);
            Ok(text)
        }
    }
}
