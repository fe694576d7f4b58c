//! The thread that stores, reads back and removes snapshots.

use std::{
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
};

use crossbeam_channel::{Receiver, Sender, unbounded};
use statefn_core::{
    address::ShardId,
    ports::snapshots::Snapshots,
    shard::{self, Snapshot, frame::SnapshotMark},
};

use super::{
    RunError,
    coordinator::spawn,
    shard_host::{Event, Switchboard},
};
use crate::failpoint::failpoint;

pub(crate) enum SnapshotRequest {
    Store(Snapshot),
    ReadBack(ShardId, SnapshotMark),
    Remove(Vec<SnapshotMark>),
    Stop,
}

/// Starts the thread; it ends with [`SnapshotRequest::Stop`].
pub(crate) fn start(
    mut place: Box<dyn Snapshots>,
    switchboard: Arc<Switchboard>,
) -> Result<(Sender<SnapshotRequest>, JoinHandle<()>), RunError> {
    let (sender, requests) = unbounded();
    let thread = spawn("snapshots", move || run(&mut *place, &switchboard, &requests))?;
    Ok((sender, thread))
}

fn run(place: &mut dyn Snapshots, switchboard: &Switchboard, requests: &Receiver<SnapshotRequest>) {
    for request in requests {
        match request {
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
