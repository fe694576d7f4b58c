//! Records at a steady rate, and those that come out: a thread for each.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rdkafka::consumer::BaseConsumer;

use super::{
    app::Add,
    audit::Tally,
    processes::Process,
    servers::{self, Producer, Seen},
};
use crate::bench::Failure;

/// How long a reader waits before it looks whether it is to end.
const PATIENCE: Duration = Duration::from_millis(50);
/// How long nothing may come out before something is wrong: longer than a session lasts.
pub(super) const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// How long it is waited for records that should not come.
const LINGER: Duration = Duration::from_secs(1);

/// Writes a record to each of its keys in turn, until it is stopped.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Tally, String>>,
}

impl Load {
    /// Begins; `written` has what was written before.
    pub(super) fn start(producer: Producer, mut written: Tally, keys: Vec<u64>, rate: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let write = move || -> Result<Tally, Failure> {
            let begun = Instant::now();
            for (number, key) in (0_u32..).zip(keys.into_iter().cycle()) {
                if stopped.load(Ordering::Acquire) {
                    break;
                }
                let due = begun + Duration::from_secs(1) * number / rate as u32;
                thread::sleep(due.saturating_duration_since(Instant::now()));
                let add = Add::of(key, 1);
                written.add(key, &add);
                producer.add(&add)?;
            }
            producer.flush()?;
            Ok(written)
        };
        let thread = thread::spawn(move || write().map_err(|error| error.to_string()));
        Self { stop, thread }
    }

    /// Ends; returns what was written.
    pub(super) fn stop(self) -> Result<Tally, Failure> {
        self.stop.store(true, Ordering::Release);
        Ok(self.thread.join().map_err(|_| "the thread that writes panicked")??)
    }
}

/// What a thread reads, until this is dropped.
pub(super) struct Output {
    stop: Arc<AtomicBool>,
    seen: Receiver<Result<Seen, String>>,
    log: Vec<Seen>,
    tally: Tally,
    /// By shard that anything came of, the worker that made the last record out.
    owners: BTreeMap<u32, u32>,
}

impl Output {
    pub(super) fn start(consumer: BaseConsumer, keys: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (sender, seen) = mpsc::channel();
        thread::spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                let read = servers::read(&consumer, PATIENCE).map_err(|error| error.to_string()).transpose();
                // Who does not listen any more has ended.
                if read.is_some_and(|read| sender.send(read).is_err()) {
                    return;
                }
            }
        });
        Self { stop, seen, log: Vec::new(), tally: Tally::new(keys), owners: BTreeMap::new() }
    }

    /// All that was read so far.
    pub(super) fn log(&self) -> &[Seen] {
        &self.log
    }

    /// By shard, the worker that made its last record out.
    pub(super) fn owners(&self) -> &BTreeMap<u32, u32> {
        &self.owners
    }

    /// How many records came.
    pub(super) fn records(&self) -> u64 {
        self.tally.records()
    }

    /// Reads until a moment.
    pub(super) fn read_until(&mut self, due: Instant) -> Result<(), Failure> {
        while let Ok(seen) = self.seen.recv_timeout(due.saturating_duration_since(Instant::now())) {
            let seen = seen?;
            self.tally.take(&seen.sum)?;
            let shard = seen.shard.ok_or("a record of the app does not say its shard")?;
            self.owners.insert(shard, seen.sum.worker);
            self.log.push(seen);
        }
        Ok(())
    }

    /// Reads until something holds of what was read; fails if nothing comes any more before, or a worker ends.
    pub(super) fn read_while(
        &mut self,
        workers: &mut [&mut Process],
        is_waiting: impl Fn(&Self) -> bool,
    ) -> Result<(), Failure> {
        let (mut records, mut since) = (self.records(), Instant::now());
        while is_waiting(self) {
            workers.iter_mut().try_for_each(|worker| worker.check())?;
            self.read_until(Instant::now() + PATIENCE)?;
            if self.records() > records {
                (records, since) = (self.records(), Instant::now());
            }
            if since.elapsed() > SILENCE_LIMIT {
                let why = format!("{records} records came out, and no more in {} s", SILENCE_LIMIT.as_secs());
                return Err(workers.first().map_or_else(|| why.clone().into(), |worker| worker.broken(&why)));
            }
        }
        Ok(())
    }

    /// Reads the rest, and fails unless all came out that these records lead to.
    pub(super) fn check(&mut self, written: &Tally, workers: &mut [&mut Process]) -> Result<(), Failure> {
        self.read_while(workers, |output| output.records() < written.records())?;
        self.read_until(Instant::now() + LINGER)?;
        written.check(&self.tally)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}
