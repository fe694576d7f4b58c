//! The thread that writes egresses: what waits at a time becomes durable together.

use std::{
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use statefn_core::{address::ShardId, ports::egress::Egresses, shard::Emission};

use super::{
    RunError, Stop,
    coordinator::spawn,
    shard_host::{Event, Switchboard},
};
use crate::{egress::FileEgress, failpoint::failpoint};

/// How long a mark without new lines may wait; it only lets journals be trimmed.
const MARK_INTERVAL: Duration = Duration::from_millis(500);
/// How long to wait before a failed write is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// How often a disk that takes nothing is reported.
const TROUBLE_INTERVAL: Duration = Duration::from_secs(10);

pub(crate) enum EgressRequest {
    /// The records of committed epochs, and by how many bytes the backlog has grown.
    Emit(Vec<Emission>, usize),
    /// Write everything that came before, and end.
    Stop,
}

/// By the name's number, the place of an egress in [`FileEgress`].
pub(crate) type Places = Vec<Option<usize>>;

/// Starts the thread; it ends with [`EgressRequest::Stop`] and returns the egresses.
pub(crate) fn start(
    egress: FileEgress,
    places: Places,
    switchboard: Arc<Switchboard>,
    halt: Stop,
) -> Result<(Sender<EgressRequest>, JoinHandle<bool>), RunError> {
    let (sender, requests) = unbounded();
    let shards = egress.shards();
    let taken = (0..shards).map(|shard| egress.taken(shard)).collect();
    let mut writer =
        Writer { egress, places, switchboard, halt, taken, backlog: 0, has_lines: true, synced_at: Instant::now() };
    let thread = spawn("egress", move || writer.run(&requests))?;
    Ok((sender, thread))
}

/// Hands the records of a committed epoch to the egresses.
pub(crate) fn write(egress: &mut FileEgress, places: &Places, emission: &Emission) {
    let records = emission.records.iter();
    let placed = records.filter_map(|emitted| {
        let place = places[usize::from(emitted.egress)]?;
        Some((place, emitted.record.of(&emission.frame)))
    });
    egress.write_epoch(emission.shard, emission.epoch, placed);
}

struct Writer {
    egress: FileEgress,
    places: Places,
    switchboard: Arc<Switchboard>,
    halt: Stop,
    /// By shard, what the hosts know.
    taken: Vec<u64>,
    backlog: usize,
    has_lines: bool,
    synced_at: Instant,
}

impl Writer {
    /// Returns whether everything was written.
    fn run(&mut self, requests: &Receiver<EgressRequest>) -> bool {
        loop {
            let first = match requests.recv_timeout(MARK_INTERVAL) {
                Ok(request) => Some(request),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return self.end(),
            };
            let is_stopping = first.into_iter().chain(requests.try_iter()).any(|request| self.take(request));
            if is_stopping {
                return self.end();
            }
            let is_due = self.has_lines || self.synced_at.elapsed() >= MARK_INTERVAL;
            if is_due && self.egress.is_behind() && !self.sync() {
                return false;
            }
        }
    }

    /// Writes all it can; returns whether that was everything.
    fn end(&mut self) -> bool {
        self.egress.stop_deliveries();
        self.sync() && !self.egress.is_delivering()
    }

    /// Takes a request in; returns whether it is the last.
    fn take(&mut self, request: EgressRequest) -> bool {
        match request {
            EgressRequest::Emit(emissions, bytes) => {
                self.backlog += bytes;
                for emission in emissions {
                    self.has_lines |= !emission.records.is_empty();
                    write(&mut self.egress, &self.places, &emission);
                }
                false
            }
            EgressRequest::Stop => true,
        }
    }

    /// Makes everything durable; tries again for as long as the run is not stopped.
    fn sync(&mut self) -> bool {
        let mut told_at: Option<Instant> = None;
        while let Err(error) = self.egress.sync() {
            if told_at.is_none_or(|at| at.elapsed() >= TROUBLE_INTERVAL) {
                tracing::error!("an egress waits until its file can be written: {error}");
                told_at = Some(Instant::now());
            }
            if self.halt.is_stopped() {
                return false;
            }
            std::thread::sleep(RETRY_INTERVAL);
        }
        if told_at.is_some() {
            tracing::info!("the egresses are written again");
        }
        self.synced_at = Instant::now();
        self.has_lines = false;
        let left = self.egress.delivering_bytes().min(self.backlog);
        let written = std::mem::replace(&mut self.backlog, left) - left;
        self.switchboard.status.egress_backlog_bytes.fetch_sub(written, Ordering::Relaxed);
        failpoint("egress/taken");
        self.tell_taken();
        failpoint("egress/taken-told");
        true
    }

    fn tell_taken(&mut self) {
        let mut news: Vec<Vec<(ShardId, u64)>> = self.switchboard.states.iter().map(|_| Vec::new()).collect();
        for (shard, known) in (0..).zip(&mut self.taken) {
            let taken = self.egress.taken(shard);
            if taken > *known {
                *known = taken;
                news[self.switchboard.host_of(shard)].push((shard, taken));
            }
        }
        for (host, taken) in news.into_iter().enumerate().filter(|(_, taken)| !taken.is_empty()) {
            self.switchboard.post(host, vec![Event::EgressTaken(taken)]);
        }
    }
}
