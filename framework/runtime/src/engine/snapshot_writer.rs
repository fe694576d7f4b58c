//! The thread that stores and removes snapshots.

use std::{
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
};

use crossbeam_channel::{Receiver, Sender, unbounded};
use statefn_core::{
    ports::snapshots::Snapshots,
    shard::{Snapshot, frame::SnapshotMark},
};

use super::{
    RunError,
    coordinator::spawn,
    shard_host::{Event, Switchboard},
};
use crate::failpoint::failpoint;

pub(crate) enum SnapshotRequest {
    Store(Snapshot),
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
