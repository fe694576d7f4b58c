//! Kafka topics as input: [`KafkaFeed`] reads many partitions with one consumer, for one thread;
//! [`KafkaSource`] is one partition with an end.
//!
//! Only committed records are read. A [`Position`](statefn_core::shard::frame::Position) is that of
//! the next record: its `offset` is the lowest offset that the next record may have. Kafka's offsets
//! have gaps, where marks of transactions and aborted records stand, so nothing is concluded from
//! their differences; `records` counts.
//!
//! ```text
//! partition:  0 r | 1 r | 2 mark | 3 aborted | 4 mark | 5 r | 6 mark | end, 7
//! positions:  0     1     2                             6              7 once it is ended
//! ```
//! The event time of a record is what the ingress says, or else the time that Kafka has of it. Its key
//! is there for routers (`Router::record_key`).
//!
//! Partitions have numbers in the order in which they were found. Of a single topic, which has
//! Kafka's own numbers, nothing needs to be remembered. Where an ingress has several topics, or a
//! pattern, the numbers depend on what was there when: whoever keeps positions by number has to keep
//! [`KafkaFeed::partitions`] beside them and to give it back as [`Input::known`], and all workers have
//! to agree on it before they read what is new.
//!
//! Invariants:
//! - Records are never passed over. Where the one that is wanted is gone, because the topic did not
//!   keep it or was made anew, there is an error that names the place.
//! - A record that cannot be read becomes a dead letter with topic, partition and offset, and the
//!   position moves past it.
//!
//! Deliberately absent: consumer groups. Who reads which partition, and where it goes on, is decided
//! by frames; group offsets are written for tools that show how far behind an app is, and not read.

mod error;
mod feed;
mod reading;
mod source;
mod topics;

use std::fmt;

use statefn_core::time::ProcessingTime;

pub use self::{
    error::InputError,
    feed::KafkaFeed,
    source::KafkaSource,
    topics::{TopicPartition, Topics},
};

/// What the values of records are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Messages in their own encoding: JSON, protobuf, or whatever the message type reads.
    Message,
    /// UTF-8 text, which the message reads as a JSON string.
    Text,
}

/// Where an ingress begins that has no position yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the first record that is kept.
    Earliest,
    /// Behind all records that are there.
    Latest,
    /// With the first record that has this time or a later one, by the time that Kafka has of it.
    At(ProcessingTime),
}

/// What an ingress reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// The place of the ingress in the program.
    pub ingress: usize,
    /// The topics.
    pub topics: Topics,
    /// What the values of their records are.
    pub format: Format,
    /// The partitions that were known before, each at its number.
    pub known: Vec<TopicPartition>,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "topic `{}`, partition {}", self.topic, self.partition)
    }
}
