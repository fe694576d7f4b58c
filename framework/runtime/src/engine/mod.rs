//! The engine: runs the shards of an app in this process until its input ends or it is stopped.
//!
//! ```text
//! input ────► shard hosts (one thread each, an actix arbiter with one actor) ──► log writer
//!                ▲   │ ▲                                                            │
//!                └───┘ └──────────────── appended ◄─────────────────────────────────┘
//!               mail, progress ├──► egress writer ──► taken
//!                              └──► snapshot writer ──► stored
//! ```
//! Hosts read files themselves, side by side; a generator has a thread, as it may wait.
//! Threads hand each other batches. The order of things is decided by the core's pipeline; each
//! thread here executes one kind of action. Whatever goes wrong with a log or a host ends in the
//! same place: everything is dropped and taken over again from what is durable.
//!
//! Requests from outside come through an [`Intake`] to the host of their key, and are told what came of
//! them once their epoch is committed.
//!
//! Invariants: the log has one writer; an emission reaches the egress writer only after its frame
//! is durable; input is held back, never dropped, while a disk is full.
//!
//! An app in a fleet shares its shards with other processes; what differs for it is in [`fleet`].
//!
//! Deliberately absent: HTTP itself, and any decision about state.

mod activities;
mod coordinator;
mod deaths;
#[cfg(test)]
mod disk_tests;
mod egress_writer;
pub mod fleet;
mod log_writer;
mod offline;
mod panics;
mod pauses;
mod questions;
mod reader;
mod requests;
mod shard_host;
mod snapshot_writer;
mod spans;
mod status;
mod take_over;
mod watchdog;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use statefn_core::{
    error::Corrupt,
    ingress::ErasedIngress,
    program::Program,
    shard::{ParkedLimits, TakeOverError},
};
use thiserror::Error;

use self::fleet::Fleet;
pub use self::{
    offline::{Asked, Offline},
    requests::Intake,
    spans::{AttemptRecord, SpanSink, Spans},
    status::{Latency, Status, Totals},
};
use crate::{
    egress::{EgressError, SinkSpec},
    embedded::OpenError,
    failpoint::tell_counts,
    ingress::{Format, SourceError},
};

/// What is to run, and where.
pub struct Plan {
    /// The program.
    pub program: Arc<Program>,
    /// Its ingresses, in the program's order.
    pub ingresses: Vec<Arc<dyn ErasedIngress>>,
    /// Where each ingress reads.
    pub inputs: Vec<Input>,
    /// Where each egress writes.
    pub outputs: Vec<SinkSpec>,
    /// Where journal, snapshots and marks are.
    pub storage: Storage,
    /// How many shards the app has.
    pub shards: u32,
    /// How many threads run them, at least 1.
    pub threads: usize,
    /// The shortest time between two epochs of a shard; 0 for as soon as possible.
    pub commit_interval: Duration,
    /// How many bytes a journal grows before the next snapshot, at least.
    pub snapshot_tail_bytes: u64,
    /// How large a segment of the log is, in bytes.
    pub segment_bytes: u64,
    /// How long answers are remembered for idempotency keys, at least.
    pub answers_kept: Duration,
    /// Who is told what was done in traces, if anybody.
    pub spans: Option<SpanSink>,
    /// How long a call of a handler may take before the process is ended.
    pub handler_time_limit: Duration,
    /// How much parked keys may wait with.
    pub parked: ParkedLimits,
    /// How many bytes egresses may be behind before input waits for them.
    pub egress_backlog_bytes_max: usize,
}

impl Plan {
    /// How many hosts share the shards.
    pub(crate) fn hosts(&self) -> usize {
        self.threads.clamp(1, self.shards as usize)
    }
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plan({})", self.program.app)
    }
}

/// Where an ingress reads, and how fast.
#[derive(Debug, Clone)]
pub struct Input {
    /// Its partitions; each is read from its first record to its end.
    pub places: Vec<InputPlace>,
    /// The most records a second, over all partitions; `None` for as many as possible.
    pub records_per_second: Option<f64>,
}

/// Where the records of a partition are.
#[derive(Debug, Clone)]
pub enum InputPlace {
    /// In a file.
    File(PathBuf, Format),
    /// The ingress makes them itself.
    Generator,
}

/// Where an app keeps what must survive.
#[derive(Debug, Clone)]
pub enum Storage {
    /// Nowhere: frames are built and sealed, and forgotten. For tests and measurements.
    Memory,
    /// In a directory.
    Directory(PathBuf),
    /// In a log and an object store, which other workers use as well.
    Fleet(Fleet),
}

/// Why a run has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Every input has ended, and all that it caused has happened.
    Finished,
    /// It was asked to stop; the next start goes on.
    Stopped,
}

/// Why an app could not run on.
#[derive(Debug, Error)]
pub enum RunError {
    /// The data directory cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// What is stored is damaged or does not fit the program.
    #[error(transparent)]
    TakeOver(#[from] TakeOverError),
    /// An input cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// An output cannot be written.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// Snapshots cannot be kept, a thread cannot be started, or a host broke again and again.
    #[error("{0}")]
    Broken(String),
}

impl From<Corrupt> for RunError {
    fn from(error: Corrupt) -> Self {
        Self::TakeOver(error.into())
    }
}

/// Stops a run from outside.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Asks the run to stop: it commits what it has taken in, and ends.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it was asked to.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Runs a plan until its input has ended or `stop` says so; a service, which takes requests by its
/// `intake` (one that is not [`beside`](Intake::beside) the app), runs on until it is stopped, and answers what it has taken in before it ends.
///
/// It blocks the calling thread and may be called from any thread that is not an async one.
///
/// # Errors
/// See [`RunError`]; what was committed stays, and a later run goes on from there.
pub fn run(plan: &Plan, intake: Option<&Intake>, status: &Arc<Status>, stop: &Stop) -> Result<End, RunError> {
    panics::set_hook();
    let system = actix::System::new();
    let outcome = match &plan.storage {
        Storage::Fleet(fleet) => system.block_on(fleet::run(plan, fleet, intake, status, stop)),
        Storage::Memory | Storage::Directory(_) => system.block_on(coordinator::run(plan, intake, status, stop)),
    };
    tell_counts();
    outcome
}
