//! statefn on Apache Kafka: one file for each port of the core that it implements.
//!
//! Deliberately absent: any decision about state. What an append, a claim or a position means is
//! decided in the core.

mod block;
mod connection;
pub mod egress;
mod error;
pub mod ingress;
mod report;

pub use self::{
    connection::Connection,
    egress::{EgressError, GroupEgress},
    error::{Difference, Error},
    ingress::{InputError, KafkaFeed, KafkaSource},
};
