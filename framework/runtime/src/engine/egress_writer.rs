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
/// How often an egress that cannot be written is reported.
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
    let mut writer = Writer {
        egress,
        places,
        switchboard,
        halt,
        taken,
        backlog: 0,
        is_far_behind: false,
        has_lines: true,
        synced_at: Instant::now(),
        trouble: None,
    };
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
    /// Whether the backlog was told to be more than half of what it may be.
    is_far_behind: bool,
    has_lines: bool,
    synced_at: Instant,
    /// Since an egress could not be written.
    trouble: Option<Trouble>,
}

/// What is known of an egress that cannot be written.
struct Trouble {
    told_at: Instant,
    tried_at: Instant,
}

impl Writer {
    /// Returns whether everything was written.
    ///
    /// An egress that cannot be written is tried again between the epochs that go on to come, so that
    /// the others get theirs.
    fn run(&mut self, requests: &Receiver<EgressRequest>) -> bool {
        loop {
            let patience = if self.trouble.is_some() { RETRY_INTERVAL } else { MARK_INTERVAL };
            let first = match requests.recv_timeout(patience) {
                Ok(request) => Some(request),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return self.finish(),
            };
            let is_stopping = first.into_iter().chain(requests.try_iter()).any(|request| self.take(request));
            if is_stopping {
                return self.finish();
            }
            let is_due = self.has_lines || self.synced_at.elapsed() >= MARK_INTERVAL;
            let is_late = self.trouble.as_ref().is_none_or(|trouble| trouble.tried_at.elapsed() >= RETRY_INTERVAL);
            if self.egress.is_behind() && (is_due && self.trouble.is_none() || is_late && self.trouble.is_some()) {
                self.sync();
            }
            self.watch_backlog();
        }
    }

    /// Writes what is left; tries again for as long as the run is not stopped. Returns whether that was
    /// everything: what webhooks were not given yet is left to the next start.
    fn finish(&mut self) -> bool {
        self.egress.stop_deliveries();
        while !self.sync() {
            if self.halt.is_stopped() {
                return false;
            }
            std::thread::sleep(RETRY_INTERVAL);
        }
        !self.egress.is_delivering()
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

    /// Makes everything durable that can be; returns whether that was all.
    fn sync(&mut self) -> bool {
        let synced = self.egress.sync();
        let status = &self.switchboard.status;
        let delivering = self.egress.delivering_bytes();
        let left = match &synced {
            Ok(()) => delivering,
            // What the others have written is behind them.
            Err(_) => delivering + self.egress.buffered_bytes(),
        };
        let left = left.min(self.backlog);
        status.egress_backlog_bytes.fetch_sub(self.backlog - left, Ordering::Relaxed);
        self.backlog = left;
        status.is_egress_down.store(synced.is_err(), Ordering::Relaxed);
        if let Err(error) = synced {
            status.egress_failures.fetch_add(1, Ordering::Relaxed);
            let told_at = self.trouble.as_ref().map(|trouble| trouble.told_at);
            let is_told = told_at.filter(|at| at.elapsed() < TROUBLE_INTERVAL);
            if is_told.is_none() {
                tracing::error!("an egress waits until its file can be written: {error}");
            }
            let now = Instant::now();
            self.trouble = Some(Trouble { told_at: is_told.unwrap_or(now), tried_at: now });
            return false;
        }
        if self.trouble.take().is_some() {
            tracing::info!("the egresses are written again");
        }
        self.synced_at = Instant::now();
        self.has_lines = false;
        failpoint("egress/taken");
        self.tell_taken();
        failpoint("egress/taken-told");
        true
    }

    /// Says that egresses have come to be far behind, once until they are not any more.
    fn watch_backlog(&mut self) {
        let (bytes, bytes_max) = (self.backlog, self.switchboard.egress_backlog_bytes_max);
        let is_far_behind = bytes > bytes_max / 2;
        if is_far_behind && !self.is_far_behind {
            self.switchboard.status.egress_alarms.fetch_add(1, Ordering::Relaxed);
            tracing::error!(bytes, bytes_max, "egresses are far behind: at the limit all input waits for them");
        }
        self.is_far_behind = is_far_behind;
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

#[cfg(test)]
mod tests {
    use std::{
        io,
        path::Path,
        sync::{
            OnceLock,
            atomic::{AtomicBool, AtomicU64},
        },
    };

    use statefn_core::{
        Encoding,
        effect::{Emitted, Span},
    };

    use super::*;
    use crate::{
        egress::{
            Place, SinkSpec,
            disk::{Disk, DiskFile, RealDisk},
        },
        engine::{Status, shard_host::HostState},
    };

    /// How often a test looks before it gives up, ten milliseconds apart.
    const LOOKS_MAX: u32 = 3_000;

    /// A disk on which files called `down` cannot be written while it is down.
    struct HalfDisk(Arc<AtomicBool>);

    struct HalfFile(Box<dyn DiskFile>, Arc<AtomicBool>);

    impl Disk for HalfDisk {
        fn open(&self, path: &Path) -> io::Result<Option<Box<dyn DiskFile>>> {
            let file = RealDisk.open(path)?;
            let is_half = path.file_stem().is_some_and(|name| name == "down");
            let half = |file| -> Box<dyn DiskFile> { Box::new(HalfFile(file, Arc::clone(&self.0))) };
            Ok(if is_half { file.map(half) } else { file })
        }
    }

    impl DiskFile for HalfFile {
        fn length(&self) -> io::Result<u64> {
            self.0.length()
        }
        fn identity(&self) -> io::Result<(u64, u64)> {
            self.0.identity()
        }
        fn read(&self) -> io::Result<Vec<u8>> {
            self.0.read()
        }
        fn cut(&self, length: u64) -> io::Result<()> {
            self.0.cut(length)
        }
        fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
            if self.1.load(Ordering::Acquire) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.write_at(bytes, offset)
        }
        fn sync(&self) -> io::Result<()> {
            self.0.sync()
        }
    }

    fn emission(epoch: u64) -> (Emission, usize) {
        let frame = Arc::new(b"{\"cents\":3}".to_vec());
        let record = Span { start: 0, length: frame.len() as u32 };
        let records = vec![Emitted { egress: 0, record }, Emitted { egress: 1, record }];
        let bytes = frame.len();
        (Emission { shard: 0, epoch, frame, records }, bytes)
    }

    fn until(what: &str, is_so: impl Fn() -> bool) {
        for _ in 0..LOOKS_MAX {
            if is_so() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it never came to {what}");
    }

    #[test]
    fn an_egress_that_is_down_stops_no_other() {
        let directory = tempfile::tempdir().expect("temporary");
        let is_down = Arc::new(AtomicBool::new(false));
        let path = |name: &str| directory.path().join(format!("{name}.jsonl"));
        let sink =
            |name: &str| SinkSpec { name: name.into(), encoding: Encoding::Json, place: Place::File(path(name)) };
        let sinks = vec![sink("down"), sink("up")];
        let disk = HalfDisk(Arc::clone(&is_down));
        let egress = FileEgress::open_on(&disk, &directory.path().join("marks"), sinks, 1).expect("opens");
        let status = Arc::new(Status::new());
        let (notices, _receiver) = tokio::sync::mpsc::unbounded_channel();
        let switchboard = Arc::new(Switchboard {
            hosts: OnceLock::new(),
            states: vec![HostState::default()],
            here: vec![AtomicBool::new(true)],
            status: Arc::clone(&status),
            egress_backlog_bytes_max: 40,
            notices,
            sent: AtomicU64::new(0),
            handled: AtomicU64::new(0),
        });
        let (sender, thread) = start(egress, vec![Some(0), Some(1)], switchboard, Stop::default()).expect("starts");
        let lines = |name: &str| std::fs::read_to_string(path(name)).expect("is there").lines().count();
        is_down.store(true, Ordering::Release);
        for epoch in 1..=5 {
            let (emission, bytes) = emission(epoch);
            status.egress_backlog_bytes.fetch_add(bytes, Ordering::Relaxed);
            sender.send(EgressRequest::Emit(vec![emission], bytes)).expect("it runs");
            until("its line in the other file", || lines("up") as u64 == epoch);
        }
        until("that one is down", || status.is_egress_down());
        until("an alarm", || status.totals().egress_alarms == 1);
        assert_eq!(lines("down"), 0);
        assert!(status.totals().egress_failures > 0 && status.egress_backlog_bytes() > 20);
        is_down.store(false, Ordering::Release);
        until("all lines", || lines("down") == 5 && status.egress_backlog_bytes() == 0);
        assert!(!status.is_egress_down());
        sender.send(EgressRequest::Stop).expect("it runs");
        assert!(thread.join().expect("ends"), "everything was written");
        assert_eq!((lines("up"), lines("down")), (5, 5));
    }
}
