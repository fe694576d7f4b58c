//! statefn on Apache Kafka: one file for each port of the core that it implements.
//!
//! Deliberately absent: any decision about state. What an append, a claim or a position means is
//! decided in the core.

mod appender;
mod connection;
pub mod egress;
mod ensure;
mod error;
mod follower;
mod identity;
pub mod ingress;
mod ledger;
mod log;
mod membership;
mod offsets;
mod readers;
mod report;
mod topics;

pub use self::{
    appender::{AppenderOptions, KafkaAppender},
    connection::Connection,
    egress::{EgressError, GroupEgress},
    ensure::TopicOptions,
    error::{Difference, Error},
    follower::KafkaFollower,
    ingress::{InputError, KafkaFeed, KafkaSource},
    log::KafkaLog,
    membership::{KafkaMembership, MembershipOptions, Moved},
    topics::Topics,
};
