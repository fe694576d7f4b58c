//! Reads the last position of a group.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures_executor::block_on;
use rdkafka::{
    Message, Offset, TopicPartitionList,
    admin::AdminOptions,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    topic_partition_list::TopicPartitionListElem,
};

use statefn_core::address::ShardId;

use super::{
    error::EgressError,
    position::{GroupPosition, Owner},
};
use crate::{
    connection::{Connection, Isolation},
    report::Reporter,
};

/// How long one look at a partition lasts.
const LOOK: Duration = Duration::from_millis(20);

/// Where positions of a group stand.
#[derive(Debug, Clone)]
pub(super) struct PositionPlace {
    pub(super) topic: String,
    pub(super) partition: u32,
}

/// What was found there.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Whose position is the last.
    pub(super) last: Option<Last>,
    /// The highest epoch of each shard in any position. Of a group that is written by transactions it
    /// is that of the last one; without them one of an earlier owner may stand behind it.
    pub(super) highest: BTreeMap<ShardId, u64>,
    /// The first offset that is kept.
    pub(super) start: u64,
}

#[derive(Debug)]
pub(super) struct Last {
    pub(super) owner: Owner,
    pub(super) group: u32,
    pub(super) offset: u64,
}

impl PositionPlace {
    /// Reads all positions up to the end of the partition as it is now.
    ///
    /// `is_complete`: no transaction may be open any more, so waits until none holds the end back.
    /// Offsets have gaps, so the end is what the client calls the end, not a number.
    pub(super) fn read(
        &self,
        connection: &Connection,
        patience: Duration,
        is_complete: bool,
    ) -> Result<Found, EgressError> {
        let begun = Instant::now();
        let committed = self.consumer(connection, Isolation::Committed)?;
        let start = self.wait_for_end(connection, &committed, patience, is_complete)?;
        let mut found = Found { start, ..Found::default() };
        self.assign(&committed, start).map_err(|error| self.waits(&error))?;
        loop {
            match committed.poll(LOOK) {
                Some(Ok(message)) => self.take(&mut found, &message)?,
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(found),
                Some(Err(KafkaError::MessageConsumption(code))) if is_passing(code) => {}
                Some(Err(error)) => return Err(self.waits(&error)),
                None => {}
            }
            if begun.elapsed() > patience {
                return Err(self.waits(&format!("its end was not reached within {} ms", patience.as_millis())));
            }
        }
    }

    /// Returns the first offset that is kept, once everything before the end is decided.
    fn wait_for_end(
        &self,
        connection: &Connection,
        committed: &BaseConsumer<Reporter>,
        patience: Duration,
        is_complete: bool,
    ) -> Result<u64, EgressError> {
        let begun = Instant::now();
        let all = if is_complete { Some(self.consumer(connection, Isolation::Uncommitted)?) } else { None };
        let mut end = None;
        loop {
            let left = patience.saturating_sub(begun.elapsed()).max(LOOK);
            if let (None, Some(all)) = (end, &all) {
                end = Some(self.watermarks(all, left)?.1);
            }
            let (start, stable) = self.watermarks(committed, left)?;
            if end.is_none_or(|end| stable >= end) {
                return u64::try_from(start).map_err(|_| self.waits(&format!("it begins at {start}")));
            }
            if begun.elapsed() > patience {
                let end = end.unwrap_or_default();
                return Err(self.waits(&format!(
                    "a transaction that nobody ends holds it back at offset {stable} of {end}: find and abort it with `kafka-transactions.sh`"
                )));
            }
            std::thread::sleep(LOOK);
        }
    }

    fn watermarks(&self, consumer: &BaseConsumer<Reporter>, left: Duration) -> Result<(i64, i64), EgressError> {
        let partition = self.partition as i32;
        consumer.client().fetch_watermarks(&self.topic, partition, left).map_err(|error| self.waits(&error))
    }

    fn consumer(&self, connection: &Connection, isolation: Isolation) -> Result<BaseConsumer<Reporter>, EgressError> {
        let mut config = connection.consumer_config(&self.topic, isolation);
        // The end is told by an empty answer, which a broker withholds for as long as it may.
        config.set("enable.partition.eof", "true").set("fetch.wait.max.ms", "1");
        Ok(connection.client("read positions of egresses", &config, connection.reporter("egress positions"))?)
    }

    /// Removes what stands before an offset.
    pub(super) fn trim(&self, connection: &Connection, before: u64, patience: Duration) -> Result<(), EgressError> {
        let mut list = TopicPartitionList::new();
        let offset = Offset::Offset(before as i64);
        list.add_partition_offset(&self.topic, self.partition as i32, offset).map_err(|error| self.waits(&error))?;
        let options = AdminOptions::new().request_timeout(Some(patience));
        let removed = block_on(connection.admin()?.delete_records(&list, &options));
        let removed = removed.map_err(|error| self.waits(&error))?;
        removed.elements().iter().try_for_each(TopicPartitionListElem::error).map_err(|error| self.waits(&error))
    }

    fn assign(&self, consumer: &BaseConsumer<Reporter>, start: u64) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, self.partition as i32, Offset::Offset(start as i64))?;
        consumer.assign(&list)
    }

    fn take(&self, found: &mut Found, message: &impl Message) -> Result<(), EgressError> {
        let offset = message.offset();
        let position = GroupPosition::decode(message.payload().unwrap_or_default())
            .map_err(|reason| self.damaged(format!("at offset {offset} cannot be read: {reason}")))?;
        for (shard, epoch) in position.epochs {
            let known = found.highest.entry(shard).or_default();
            *known = (*known).max(epoch);
        }
        found.last = Some(Last { owner: position.owner, group: position.group, offset: offset as u64 });
        Ok(())
    }

    pub(super) fn damaged(&self, reason: String) -> EgressError {
        EgressError::Position { topic: self.topic.clone(), partition: self.partition, reason }
    }

    fn waits(&self, cause: &impl ToString) -> EgressError {
        let doing = format!("read the positions in {}, partition {}", self.topic, self.partition);
        EgressError::Waits { doing, cause: cause.to_string() }
    }
}

/// Whether the client goes on by itself.
fn is_passing(code: rdkafka::error::RDKafkaErrorCode) -> bool {
    use rdkafka::error::RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut, Resolve};
    matches!(code, AllBrokersDown | BrokerTransportFailure | OperationTimedOut | Resolve)
}
