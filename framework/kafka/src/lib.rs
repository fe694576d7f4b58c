//! statefn on Apache Kafka: one file for each port of the core that it implements.
//!
//! Deliberately absent: any decision about state. What an append, a claim or a position means is
//! decided in the core.

mod connection;
mod error;
mod report;

pub use self::{
    connection::Connection,
    error::{Difference, Error},
};
