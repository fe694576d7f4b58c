//! The thread that stores, reads back and removes snapshots.
//!
//! It begins with what a crash has left; nobody waits for that.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use statefn_core::{
    address::ShardId,
    ports::snapshots::Snapshots,
    shard::{self, Shard, Snapshot, frame::SnapshotMark},
};

use super::{
    RunError,
    coordinator::spawn,
    shard_host::{Event, Switchboard},
};
use crate::failpoint::failpoint;

/// How long nothing must be asked for before snapshots that nobody needs are looked for.
const QUIET: Duration = Duration::from_secs(2);

pub(crate) enum SnapshotRequest {
    Store(Snapshot),
    ReadBack(ShardId, SnapshotMark),
    Remove(Vec<SnapshotMark>),
    /// Nobody needs the snapshots of a shard of a fleet before this epoch.
    Tidy(ShardId, u64),
    Stop,
}

/// Starts the thread; it ends with [`SnapshotRequest::Stop`]. Of the snapshots that are there, only
/// those that are `kept` stay; all of them, if that is not known because other workers have some.
pub(crate) fn start(
    mut place: Box<dyn Snapshots>,
    kept: Option<BTreeSet<String>>,
    switchboard: Arc<Switchboard>,
) -> Result<(Sender<SnapshotRequest>, JoinHandle<()>), RunError> {
    let (sender, requests) = unbounded();
    let thread = spawn("snapshots", move || {
        if let Some(kept) = kept {
            remove_unmarked(&mut *place, &kept);
        }
        failpoint("start/unmarked-snapshots-removed");
        run(&mut *place, &switchboard, &requests);
    })?;
    Ok((sender, thread))
}

/// The names of the snapshots that shards need.
pub(super) fn kept(shards: &[Shard]) -> BTreeSet<String> {
    shards.iter().flat_map(Shard::snapshots).map(|mark| mark.name.clone()).collect()
}

/// Removes snapshots without a mark: a crash came between the snapshot and its mark, or between
/// the trim and the removal.
pub(super) fn remove_unmarked(place: &mut dyn Snapshots, kept: &BTreeSet<String>) {
    let removed = place
        .list()
        .and_then(|names| names.iter().filter(|name| !kept.contains(*name)).try_for_each(|name| place.remove(name)));
    if let Err(error) = removed {
        tracing::warn!("snapshots that are not needed stay: {error}");
    }
}

/// By shard that was taken over a moment ago, the epoch of the oldest snapshot that is needed.
type Untidied = BTreeMap<ShardId, u64>;

fn run(place: &mut dyn Snapshots, switchboard: &Switchboard, requests: &Receiver<SnapshotRequest>) {
    let mut untidied = Untidied::new();
    loop {
        let request = match requests.recv_timeout(QUIET) {
            Ok(request) => request,
            Err(RecvTimeoutError::Timeout) => {
                tidy(place, &std::mem::take(&mut untidied));
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        match request {
            SnapshotRequest::Tidy(shard, before) => _ = untidied.insert(shard, before),
            SnapshotRequest::Store(snapshot) => store(place, switchboard, snapshot),
            SnapshotRequest::ReadBack(shard, mark) => read_back(place, switchboard, shard, mark),
            SnapshotRequest::Remove(marks) => {
                for mark in marks {
                    failpoint("snapshot/remove");
                    if let Err(error) = place.remove(&mark.name) {
                        tracing::warn!("a snapshot that is no longer needed stays: {error}");
                    }
                    failpoint("snapshot/removed");
                }
            }
            SnapshotRequest::Stop => return,
        }
    }
}

/// Removes what owners of before have left behind.
///
/// Only what is older than the older of two snapshots with marks: another worker may own the shard by
/// now, and what it has stored since, or an owner of before is about to mark, is newer than that.
fn tidy(place: &mut dyn Snapshots, untidied: &Untidied) {
    if untidied.is_empty() {
        return;
    }
    let is_needed = |name: &str| {
        let parts = name.strip_prefix("shard-").and_then(|name| name.split_once('/'));
        let parts = parts.and_then(|(shard, rest)| Some((shard.parse().ok()?, rest.split_once('-')?.0.parse().ok()?)));
        let Some((shard, epoch)): Option<(ShardId, u64)> = parts else { return true };
        untidied.get(&shard).is_none_or(|before| epoch >= *before)
    };
    let removed = place
        .list()
        .and_then(|names| names.iter().filter(|name| !is_needed(name)).try_for_each(|name| place.remove(name)));
    if let Err(error) = removed {
        tracing::warn!("snapshots that are not needed stay: {error}");
    }
}

fn store(place: &mut dyn Snapshots, switchboard: &Switchboard, snapshot: Snapshot) {
    failpoint("snapshot/wanted");
    let stored = match place.put(&snapshot.mark.name, &snapshot.bytes) {
        Ok(()) => {
            switchboard.status.snapshots.fetch_add(1, Ordering::Relaxed);
            Some(snapshot.mark)
        }
        Err(error) => {
            tracing::warn!("a snapshot could not be stored and will be tried again: {error}");
            None
        }
    };
    failpoint("snapshot/stored");
    let host = switchboard.host_of(snapshot.shard);
    switchboard.post(host, vec![Event::SnapshotStored(snapshot.shard, stored)]);
    failpoint("snapshot/told");
}

/// Looks whether a snapshot is whole before the journal is trimmed to its end.
fn read_back(place: &mut dyn Snapshots, switchboard: &Switchboard, id: ShardId, mark: SnapshotMark) {
    let read = shard::read_back(place, &mark);
    if let Err(error) = &read {
        tracing::warn!("the journal of shard {id} is kept, for a snapshot that can no longer be used: {error}");
    }
    failpoint("snapshot/read-back");
    let host = switchboard.host_of(id);
    switchboard.post(host, vec![Event::SnapshotReadBack(id, mark, read.is_ok())]);
}

#[cfg(test)]
mod tests {
    use statefn_core::ports::snapshots::MemorySnapshots;

    use super::*;

    #[test]
    fn what_another_owner_may_need_stays() {
        let mut place = MemorySnapshots::default();
        let names = ["shard-1/4-aa", "shard-1/5-bb", "shard-1/9-cc", "shard-11/4-aa", "shard-2/1-aa", "else/1-a"];
        names.iter().for_each(|name| place.put(name, b"state").expect("memory takes it"));
        tidy(&mut place, &[(1, 5), (2, 1)].into());
        let left = place.list().expect("memory is readable");
        assert_eq!(left, ["else/1-a", "shard-1/5-bb", "shard-1/9-cc", "shard-11/4-aa", "shard-2/1-aa"]);
    }
}
