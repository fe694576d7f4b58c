//! Where partitions begin and end, asked of the brokers that lead them.
//!
//! Invariants: an answer was given after the call began, never from a cache; one request for each
//! leading broker, whatever the number of partitions.
//!
//! Deliberately absent: offsets for times, and of topics with transactions: the end is that of all
//! records, committed or not.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    Offset as Place, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
};
use statefn_core::ports::log::{Offset, Partition};

use crate::{connection::is_denied, report::Reporter, topics::Topics};

/// How long it is waited before a request that failed is made again.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// Which end of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The offset of the first record that is kept.
    Start,
    /// The offset that the next record gets.
    End,
}

/// Asks for one end of each of some partitions, in their order, until a time limit.
pub(crate) fn ask(
    consumer: &BaseConsumer<Reporter>,
    topics: &Topics,
    partitions: &[Partition],
    end: End,
    limit: Duration,
) -> Result<Vec<Offset>, KafkaError> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let refresh = |left| {
        let names: BTreeSet<&str> = partitions.iter().map(|partition| topics.place(*partition).0).collect();
        names.into_iter().for_each(|topic| drop(consumer.fetch_metadata(Some(topic), left)));
    };
    again(limit, refresh, |left| ask_once(consumer, topics, partitions, end, left))
}

/// Makes a request until it succeeds, fails for good, or a time limit has passed. After a failure the
/// client is made to look up leaders again: it keeps it in mind when there was none.
pub(crate) fn again<T>(
    limit: Duration,
    refresh: impl Fn(Duration),
    mut request: impl FnMut(Duration) -> KafkaResult<T>,
) -> KafkaResult<T> {
    let started = Instant::now();
    loop {
        let left = limit.saturating_sub(started.elapsed());
        let answer = request(left);
        let is_final = |error: &KafkaError| error.rdkafka_error_code().is_some_and(is_final);
        if left <= RETRY_INTERVAL || answer.as_ref().err().is_none_or(is_final) {
            return answer;
        }
        thread::sleep(RETRY_INTERVAL);
        refresh(limit.saturating_sub(started.elapsed()));
    }
}

fn is_final(code: RDKafkaErrorCode) -> bool {
    is_denied(code) || matches!(code, RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::PolicyViolation)
}

fn ask_once(
    consumer: &BaseConsumer<Reporter>,
    topics: &Topics,
    partitions: &[Partition],
    end: End,
    limit: Duration,
) -> KafkaResult<Vec<Offset>> {
    // A request for times takes the two ends as well, and is the one that takes many partitions.
    let time = match end {
        End::Start => Place::Beginning,
        End::End => Place::End,
    };
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        let (topic, number) = topics.place(*partition);
        list.add_partition_offset(topic, number, time)?;
    }
    let answer = consumer.offsets_for_times(list, limit)?;
    let offset_of = |partition: &Partition| {
        let (topic, number) = topics.place(*partition);
        let found = answer.find_partition(topic, number).ok_or(KafkaError::NoMessageReceived)?;
        found.error()?;
        match found.offset() {
            Place::Offset(offset) => Offset::try_from(offset).map_err(|_| KafkaError::NoMessageReceived),
            _ => Err(KafkaError::NoMessageReceived),
        }
    };
    partitions.iter().map(offset_of).collect()
}
