//! Reads the last position of a group.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::Message;
use statefn_core::address::ShardId;

use super::{
    error::EgressError,
    partition::Partition,
    position::{GroupPosition, Owner},
};
use crate::connection::Connection;

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

/// Reads all positions up to the end of their partition as it is now; see [`Partition::read`].
pub(super) fn read_positions(
    partition: &Partition,
    connection: &Connection,
    patience: Duration,
    is_complete: bool,
) -> Result<Found, EgressError> {
    let mut found = Found::default();
    found.start = partition.read(connection, patience, is_complete, 0, |message| {
        let offset = message.offset();
        let position = GroupPosition::decode(message.payload().unwrap_or_default())
            .map_err(|reason| partition.damaged(format!("at offset {offset} cannot be read: {reason}")))?;
        for (shard, epoch) in position.epochs {
            let known = found.highest.entry(shard).or_default();
            *known = (*known).max(epoch);
        }
        found.last = Some(Last { owner: position.owner, group: position.group, offset: offset as u64 });
        Ok(())
    })?;
    Ok(found)
}
