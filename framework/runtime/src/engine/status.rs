//! What a run is doing, for those who watch it; written by its threads, read by anyone.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use hdrhistogram::Histogram;
use statefn_core::shard::Counters;

/// The longest commit that is told apart from longer ones, in microseconds.
const COMMIT_US_MAX: u64 = 60_000_000;

/// The numbers of a run.
#[derive(Debug)]
pub struct Status {
    /// Records that readers have read, dead letters included.
    pub(crate) records: AtomicU64,
    /// Records that could not be read.
    pub(crate) unreadable: AtomicU64,
    /// How much of the input is read, in thousandths; 1,000 at its end.
    pub(crate) read_permille: AtomicU64,
    /// Bytes that egresses have not written yet.
    pub(crate) egress_backlog_bytes: AtomicUsize,
    /// How often an egress could not be written.
    pub(crate) egress_failures: AtomicU64,
    /// How often egresses came to be far behind.
    pub(crate) egress_alarms: AtomicU64,
    /// Whether an egress cannot be written at the moment.
    pub(crate) is_egress_down: AtomicBool,
    /// How often a journal was trimmed.
    pub(crate) trims: AtomicU64,
    /// Snapshots that were stored.
    pub(crate) snapshots: AtomicU64,
    /// Attempts of activities, and those of them that failed.
    pub(crate) activity_attempts: AtomicU64,
    pub(crate) activity_failures: AtomicU64,
    /// Whether a disk takes nothing at the moment.
    pub(crate) is_blocked: AtomicBool,
    /// By host: what its shards did, and what they have.
    hosts: Mutex<Vec<(Counters, Held)>>,
    /// How long commits took, and together, in microseconds.
    commits: Mutex<(Histogram<u64>, u64)>,
}

impl Status {
    /// All zero.
    ///
    /// # Panics
    /// Never; the bounds of the histogram are fixed.
    #[must_use]
    pub fn new() -> Self {
        Self {
            records: AtomicU64::new(0),
            unreadable: AtomicU64::new(0),
            read_permille: AtomicU64::new(0),
            egress_backlog_bytes: AtomicUsize::new(0),
            egress_failures: AtomicU64::new(0),
            egress_alarms: AtomicU64::new(0),
            is_egress_down: AtomicBool::new(false),
            trims: AtomicU64::new(0),
            snapshots: AtomicU64::new(0),
            activity_attempts: AtomicU64::new(0),
            activity_failures: AtomicU64::new(0),
            is_blocked: AtomicBool::new(false),
            hosts: Mutex::default(),
            commits: Mutex::new((Histogram::new_with_bounds(1, COMMIT_US_MAX, 3).expect("the bounds are valid"), 0)),
        }
    }

    /// How much of the input is read, in thousandths; 1,000 at its end.
    #[must_use]
    pub fn read_permille(&self) -> u64 {
        self.read_permille.load(Ordering::Relaxed)
    }

    /// How many bytes egresses have not written yet.
    #[must_use]
    pub fn egress_backlog_bytes(&self) -> usize {
        self.egress_backlog_bytes.load(Ordering::Relaxed)
    }

    /// Whether an egress cannot be written at the moment; the others are.
    #[must_use]
    pub fn is_egress_down(&self) -> bool {
        self.is_egress_down.load(Ordering::Relaxed)
    }

    /// What the shards have done so far, added up.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut shards = Counters::default();
        let mut all = Held::default();
        for (counters, held) in lock(&self.hosts).iter() {
            shards += *counters;
            all.parked_keys += held.parked_keys;
            all.pending_bytes += held.pending_bytes;
            all.parked_bytes += held.parked_bytes;
            all.stopped_shards += held.stopped_shards;
        }
        Totals {
            shards,
            records: self.records.load(Ordering::Relaxed),
            unreadable: self.unreadable.load(Ordering::Relaxed),
            parked_keys: all.parked_keys,
            parked_bytes: all.parked_bytes,
            stopped_shards: all.stopped_shards,
            pending_bytes: all.pending_bytes,
            egress_failures: self.egress_failures.load(Ordering::Relaxed),
            egress_alarms: self.egress_alarms.load(Ordering::Relaxed),
            snapshots: self.snapshots.load(Ordering::Relaxed),
            trims: self.trims.load(Ordering::Relaxed),
        }
    }

    /// How long commits took: from the first input of an epoch to its confirmation.
    #[must_use]
    pub fn commit_latency(&self) -> Latency {
        let (commits, _) = &*lock(&self.commits);
        Latency {
            p50_us: commits.value_at_quantile(0.5),
            p99_us: commits.value_at_quantile(0.99),
            count: commits.len(),
        }
    }

    pub(crate) fn host(&self, host: usize, counters: Counters, held: Held) {
        let mut hosts = lock(&self.hosts);
        if hosts.len() <= host {
            hosts.resize(host + 1, Default::default());
        }
        hosts[host] = (counters, held);
    }

    pub(crate) fn committed(&self, us: u64) {
        let (commits, sum_us) = &mut *lock(&self.commits);
        commits.saturating_record(us.clamp(1, COMMIT_US_MAX));
        *sum_us += us;
    }

    /// Shows how long commits took, and together, in microseconds.
    pub(super) fn with_commits<T>(&self, show: impl FnOnce(&Histogram<u64>, u64) -> T) -> T {
        let (commits, sum_us) = &*lock(&self.commits);
        show(commits, *sum_us)
    }
}

impl Default for Status {
    fn default() -> Self {
        Self::new()
    }
}

/// What the shards of a host have at the moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Held {
    pub(crate) parked_keys: u64,
    pub(crate) parked_bytes: u64,
    pub(crate) stopped_shards: u64,
    pub(crate) pending_bytes: u64,
}

/// What a run has done, added up.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    /// What the shards did.
    pub shards: Counters,
    /// Records that were read.
    pub records: u64,
    /// Records that could not be read.
    pub unreadable: u64,
    /// Keys that are parked.
    pub parked_keys: u64,
    /// About how many bytes of calls they wait with.
    pub parked_bytes: u64,
    /// Shards that take no input because parked keys wait with as much as they may.
    pub stopped_shards: u64,
    /// What pending timers, and messages that wait for their time, take of memory, in bytes.
    pub pending_bytes: u64,
    /// Snapshots that were stored.
    pub snapshots: u64,
    /// How often a journal was trimmed.
    pub trims: u64,
    /// How often an egress could not be written; it is tried again until it can.
    pub egress_failures: u64,
    /// How often egresses came to be behind by more than half of what they may be.
    pub egress_alarms: u64,
}

/// A distribution of times.
#[derive(Debug, Clone, Copy, Default)]
pub struct Latency {
    /// Half took no longer, in microseconds.
    pub p50_us: u64,
    /// 99 of 100 took no longer, in microseconds.
    pub p99_us: u64,
    /// How many there were.
    pub count: u64,
}

/// Nothing that holds these locks can leave them in a half-changed state.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
