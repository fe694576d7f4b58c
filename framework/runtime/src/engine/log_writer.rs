//! The thread that writes the log: what waits at a time becomes one group, one write, one sync.

use std::{
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use statefn_core::{
    address::ShardId,
    pipeline::Append,
    ports::log::{AppendError, Log, Record},
};

use super::{
    RunError, Stop,
    coordinator::{Notice, spawn},
    shard_host::{Event, Switchboard},
};
use crate::{embedded::EmbeddedLog, failpoint::failpoint};

/// How often the superblock says how far the log is durable.
const SUPERBLOCK_INTERVAL: Duration = Duration::from_secs(1);
/// How long to wait before a refused group is given again.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// How often a disk that takes nothing is reported.
const TROUBLE_INTERVAL: Duration = Duration::from_secs(10);
/// From how many segments on shards that hold back the oldest one are asked for a snapshot.
const SEGMENTS_UNTIL_SNAPSHOT: u64 = 4;

pub(crate) enum LogRequest {
    /// Records of a host's shards.
    Append(usize, Vec<Append>),
    /// A shard needs its journal only from this offset on.
    Trim(ShardId, u64),
    Stop,
}

/// Starts the thread; it ends with [`LogRequest::Stop`].
pub(crate) fn start(
    log: EmbeddedLog,
    segment_bytes: u64,
    switchboard: Arc<Switchboard>,
    halt: Stop,
) -> Result<(Sender<LogRequest>, JoinHandle<()>), RunError> {
    let (sender, requests) = unbounded();
    let mut writer = Writer {
        log,
        segment_bytes,
        switchboard,
        halt,
        asked_at: 0,
        superblock_at: Instant::now(),
        appends: Vec::new(),
    };
    let thread = spawn("log", move || writer.run(&requests))?;
    Ok((sender, thread))
}

struct Writer {
    log: EmbeddedLog,
    segment_bytes: u64,
    switchboard: Arc<Switchboard>,
    halt: Stop,
    /// How large the log was when shards were last asked for snapshots.
    asked_at: u64,
    superblock_at: Instant,
    appends: Vec<(usize, Append)>,
}

impl Writer {
    fn run(&mut self, requests: &Receiver<LogRequest>) {
        loop {
            let first = match requests.recv_timeout(SUPERBLOCK_INTERVAL) {
                Ok(request) => Some(request),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let is_stopping = first.into_iter().chain(requests.try_iter()).any(|request| self.take(request));
            if !self.append() || is_stopping {
                break;
            }
            self.ask_for_snapshots();
            if self.superblock_at.elapsed() >= SUPERBLOCK_INTERVAL {
                self.sync_superblock();
            }
        }
        self.sync_superblock();
    }

    /// Takes a request in; returns whether it is the last.
    fn take(&mut self, request: LogRequest) -> bool {
        match request {
            LogRequest::Append(host, appends) => self.appends.extend(appends.into_iter().map(|append| (host, append))),
            LogRequest::Trim(shard, before) => match self.log.trim(shard, before) {
                Ok(()) => _ = self.switchboard.status.trims.fetch_add(1, Ordering::Relaxed),
                Err(error) => tracing::warn!("{error}"),
            },
            LogRequest::Stop => return true,
        }
        false
    }

    /// Makes what was taken in durable and says so; returns whether the log can be used on.
    fn append(&mut self) -> bool {
        if self.appends.is_empty() {
            return true;
        }
        let appends = std::mem::take(&mut self.appends);
        let records = appends
            .iter()
            .flat_map(|(_, append)| append.records.iter().map(|bytes| Record { partition: append.shard, bytes }));
        let group: Vec<Record<'_>> = records.collect();
        failpoint("log/append");
        let Some(offsets) = self.append_group(&group) else { return false };
        failpoint("log/appended");
        let mut appended: Vec<Vec<(ShardId, u64)>> = self.switchboard.states.iter().map(|_| Vec::new()).collect();
        let mut place = 0;
        for (host, append) in &appends {
            appended[*host].push((append.shard, offsets[place]));
            place += append.records.len();
        }
        for (host, offsets) in appended.into_iter().enumerate().filter(|(_, offsets)| !offsets.is_empty()) {
            self.switchboard.post(host, vec![Event::Appended(offsets)]);
        }
        failpoint("log/told");
        true
    }

    /// Appends until the log takes the group; nothing is lost while a disk is full.
    fn append_group(&mut self, group: &[Record<'_>]) -> Option<Vec<u64>> {
        let mut told_at: Option<Instant> = None;
        loop {
            match self.log.append(group) {
                Ok(offsets) => {
                    if told_at.is_some() {
                        self.switchboard.status.is_blocked.store(false, Ordering::Relaxed);
                        tracing::info!("the log takes appends again");
                    }
                    return Some(offsets);
                }
                Err(AppendError::Refused(error)) => {
                    self.switchboard.status.is_blocked.store(true, Ordering::Relaxed);
                    if told_at.is_none_or(|at| at.elapsed() >= TROUBLE_INTERVAL) {
                        tracing::error!("no input is taken until the log can be written: {error}");
                        told_at = Some(Instant::now());
                    }
                    if self.halt.is_stopped() {
                        // What is not acknowledged is read again at the next start.
                        return None;
                    }
                    std::thread::sleep(RETRY_INTERVAL);
                }
                Err(AppendError::Unknown(error)) => {
                    self.switchboard.notify(Notice::Lost(error));
                    return None;
                }
            }
        }
    }

    /// Asks shards with few records, which hold back segments full of others', for a snapshot.
    fn ask_for_snapshots(&mut self) {
        let bytes = self.log.bytes();
        if bytes < self.asked_at.max(SEGMENTS_UNTIL_SNAPSHOT * self.segment_bytes) {
            self.asked_at = self.asked_at.min(bytes + self.segment_bytes);
            return;
        }
        self.asked_at = bytes + self.segment_bytes;
        for shard in self.log.held_by() {
            let host = self.switchboard.host_of(shard);
            self.switchboard.post(host, vec![Event::SnapshotWanted(shard)]);
        }
    }

    fn sync_superblock(&mut self) {
        self.superblock_at = Instant::now();
        if let Err(error) = self.log.sync_superblock() {
            tracing::warn!("{error}");
        }
    }
}
