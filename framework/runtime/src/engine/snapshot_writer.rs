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
    /// Of the snapshots of a shard of a fleet, only these are needed, and those of its owner with this nonce.
    Tidy(ShardId, u64, BTreeSet<String>),
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

/// What is needed of the snapshots of shards that were taken over a moment ago.
type Untidied = BTreeMap<ShardId, (u64, BTreeSet<String>)>;

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
            SnapshotRequest::Tidy(shard, nonce, kept) => _ = untidied.insert(shard, (nonce, kept)),
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

/// Removes what owners of before have stored and not marked. One of them may still bring the mark of
/// such a snapshot: it is found missing when it is read back, so nothing is trimmed to it.
fn tidy(place: &mut dyn Snapshots, untidied: &Untidied) {
    if untidied.is_empty() {
        return;
    }
    let is_needed = |name: &str| {
        let shard = name.strip_prefix("shard-").and_then(|name| name.split_once('/')?.0.parse().ok());
        let Some((nonce, kept)) = shard.and_then(|shard: ShardId| untidied.get(&shard)) else { return true };
        kept.contains(name) || name.ends_with(&format!("-{nonce:016x}"))
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
