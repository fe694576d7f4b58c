//! A partition that an egress writes to, read by itself.

use std::time::{Duration, Instant};

use futures_executor::block_on;
use rdkafka::{
    Message, Offset, TopicPartitionList,
    admin::AdminOptions,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
    topic_partition_list::TopicPartitionListElem,
};

use super::error::EgressError;
use crate::{
    connection::{Connection, Isolation},
    report::Reporter,
};

/// How long one look at a partition lasts.
const LOOK: Duration = Duration::from_millis(20);

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Partition {
    pub(super) topic: String,
    pub(super) number: u32,
}

impl Partition {
    /// Gives each committed record from an offset on, or from the first that is kept, up to the end of the
    /// partition as it is now; returns the first offset that is kept.
    ///
    /// `is_complete`: waits until no transaction is open any more that was when this was called.
    /// Offsets have gaps, so the end is what the client calls the end, or a record behind it.
    pub(super) fn read(
        &self,
        connection: &Connection,
        patience: Duration,
        is_complete: bool,
        from: u64,
        mut each: impl FnMut(&BorrowedMessage<'_>) -> Result<(), EgressError>,
    ) -> Result<u64, EgressError> {
        connection.readers().read(connection, &self.topic, Isolation::Committed, |committed| {
            let (start, end) = self.wait_for_end(connection, committed, patience, is_complete)?;
            self.read_between(committed, start.max(from), end, patience, &mut each)?;
            Ok(start)
        })
    }

    fn read_between(
        &self,
        committed: &BaseConsumer<Reporter>,
        from: u64,
        end: Option<i64>,
        patience: Duration,
        each: &mut impl FnMut(&BorrowedMessage<'_>) -> Result<(), EgressError>,
    ) -> Result<(), EgressError> {
        let begun = Instant::now();
        self.assign(committed, from).map_err(|error| self.waits(&error))?;
        loop {
            match committed.poll(LOOK) {
                Some(Ok(message)) if end.is_some_and(|end| message.offset() >= end) => return Ok(()),
                Some(Ok(message)) => each(&message)?,
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
                Some(Err(KafkaError::MessageConsumption(code))) if is_passing(code) => {}
                Some(Err(error)) => return Err(self.waits(&error)),
                None => {}
            }
            if begun.elapsed() > patience {
                return Err(self.waits(&format!("its end was not reached within {} ms", patience.as_millis())));
            }
        }
    }

    /// Returns the first offset that is kept, and the end, once everything before that is decided.
    fn wait_for_end(
        &self,
        connection: &Connection,
        committed: &BaseConsumer<Reporter>,
        patience: Duration,
        is_complete: bool,
    ) -> Result<(u64, Option<i64>), EgressError> {
        let begun = Instant::now();
        let end = if is_complete { Some(self.end(connection, patience)?) } else { None };
        loop {
            let left = patience.saturating_sub(begun.elapsed()).max(LOOK);
            let (start, stable) = self.watermarks(committed, left)?;
            if end.is_none_or(|end| stable >= end) {
                let start = u64::try_from(start).map_err(|_| self.waits(&format!("it begins at {start}")))?;
                return Ok((start, end));
            }
            if begun.elapsed() > patience {
                let end = end.unwrap_or_default();
                return Err(self.waits(&format!(
                    "a transaction that nobody ends holds it back at offset {stable} of {end}: find and abort it with `kafka-transactions.sh`"
                )));
            }
            // A broker tells nobody when a transaction is decided, so it is asked again.
            std::thread::sleep(LOOK);
        }
    }

    /// The end of everything that stands in it, decided or not.
    fn end(&self, connection: &Connection, patience: Duration) -> Result<i64, EgressError> {
        let look = |all: &BaseConsumer<Reporter>| self.watermarks(all, patience);
        let (_, end) = connection.readers().read(connection, &self.topic, Isolation::Uncommitted, look)?;
        Ok(end)
    }

    fn watermarks(&self, consumer: &BaseConsumer<Reporter>, left: Duration) -> Result<(i64, i64), EgressError> {
        let number = self.number as i32;
        consumer.client().fetch_watermarks(&self.topic, number, left).map_err(|error| self.waits(&error))
    }

    fn assign(&self, consumer: &BaseConsumer<Reporter>, start: u64) -> Result<(), KafkaError> {
        consumer.assign(&self.list(start)?)
    }

    /// Removes what stands before an offset.
    pub(super) fn trim(&self, connection: &Connection, before: u64, patience: Duration) -> Result<(), EgressError> {
        let list = self.list(before).map_err(|error| self.waits(&error))?;
        let options = AdminOptions::new().request_timeout(Some(patience));
        let removed = block_on(connection.admin()?.delete_records(&list, &options));
        let removed = removed.map_err(|error| self.waits(&error))?;
        removed.elements().iter().try_for_each(TopicPartitionListElem::error).map_err(|error| self.waits(&error))
    }

    fn list(&self, offset: u64) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, self.number as i32, Offset::Offset(offset as i64))?;
        Ok(list)
    }

    /// An error about a position that stands, or should stand, in it.
    pub(super) fn damaged(&self, reason: String) -> EgressError {
        EgressError::Position { topic: self.topic.clone(), partition: self.number, reason }
    }

    fn waits(&self, cause: &impl ToString) -> EgressError {
        let doing = format!("read back {}, partition {}", self.topic, self.number);
        EgressError::Waits { doing, cause: cause.to_string() }
    }
}

/// Whether the client goes on by itself.
fn is_passing(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut, Resolve};
    matches!(code, AllBrokersDown | BrokerTransportFailure | OperationTimedOut | Resolve)
}
