//! Where partitions begin and end, asked of the brokers that lead them.
//!
//! Invariants: an answer was given after the call began, never from a cache; one request for each
//! leading broker, whatever the number of partitions.
//!
//! Deliberately absent: offsets for times, and of topics with transactions: the end is that of all
//! records, committed or not.

use std::{
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    Offset as Place, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult},
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
    let started = Instant::now();
    loop {
        let left = limit.saturating_sub(started.elapsed());
        match ask_once(consumer, topics, partitions, end, left) {
            Err(error) if left > RETRY_INTERVAL && !error.rdkafka_error_code().is_some_and(is_denied) => {
                thread::sleep(RETRY_INTERVAL);
            }
            answer => return answer,
        }
    }
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
