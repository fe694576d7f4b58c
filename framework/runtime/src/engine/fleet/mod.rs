//! A worker of a fleet: one of many processes that share the shards of an app over a log.
//!
//! ```text
//! membership ──► coordinator ──► take-over threads ──(shard)──► hosts ──► appender ──► log
//!                    ▲                                           │ ▲                    │
//!                    └───────── lost, fenced ◄───────────────────┘ └── mailboxes ◄──────┘
//! ```
//! Hosts, snapshots, activities and requests are those of the embedded engine. What differs: shards
//! come and go one by one; frames are appended without waiting for others, and each host is told by
//! the log itself; messages for shards of other processes go through mailboxes.
//!
//! Invariants: a shard is claimed only while the membership names this worker for it, and worked on
//! until its journal says that somebody else has it; every fault of a shard (an append of unknown
//! outcome, a lost ownership, a fenced egress) leads to the same: it is dropped, and taken over again
//! if this worker is still named.
//!
//! Deliberately absent: what the log, the membership and the object store are. They come as a
//! [`Backend`].

mod clerk;
mod coordinator;
mod directory;
mod egress;
mod feed;
#[cfg(test)]
mod memory;
mod post;
mod take_over;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use statefn_core::{
    address::ShardId,
    ingress::{Batches, ErasedIngress},
    ports::{
        ingress::{ReadLimit, Stretch},
        inspect,
        membership::Membership,
        shared::{Appender, Follower, SharedLog},
        snapshots::Snapshots,
    },
    program::Program,
    shard::{Emission, frame::Position},
};

pub use self::directory::Directory;
pub(super) use self::feed::FeedRequest;
use self::post::PostRequest;
pub(super) use self::{clerk::ClerkRequest, coordinator::run, post::SharedJournal, take_over::TookOver};

/// The most shard groups an app has: what moves between workers, and is fenced, as one.
pub const GROUPS_MAX: u32 = 32;

/// How many shard groups an app of `shards` shards has; a shard belongs to group `shard mod groups`.
#[must_use]
pub fn groups(shards: u32) -> u32 {
    shards.min(GROUPS_MAX)
}

/// What a worker needs of the fleet, made anew for each thread that uses it.
pub trait Backend: Send + Sync {
    /// A reader and trimmer of the log.
    ///
    /// # Errors
    /// A text that names the log and the cause.
    fn log(&self) -> Result<Box<dyn SharedLog>, String>;

    /// What begins appends; one for the process.
    ///
    /// # Errors
    /// A text that names the log and the cause.
    fn appender(&self) -> Result<Arc<dyn Appender>, String>;

    /// What follows mailboxes and progress.
    ///
    /// # Errors
    /// A text that names the log and the cause.
    fn follower(&self) -> Result<Box<dyn Follower>, String>;

    /// The place of snapshots.
    ///
    /// # Errors
    /// A text that names the place and the cause.
    fn snapshots(&self) -> Result<Box<dyn Snapshots>, String>;

    /// The membership of this worker; `news` is called when there is some.
    ///
    /// # Errors
    /// A text that names the log and the cause.
    fn membership(&self, news: Box<dyn Fn() + Send + Sync>) -> Result<Box<dyn Member>, String>;

    /// Up to which epochs egresses have the records of the shards of a group, at least; it fences nobody.
    ///
    /// # Errors
    /// A text that names the place and the cause.
    fn egress_taken(&self, group: u32, shards: &[ShardId]) -> Result<BTreeMap<ShardId, u64>, String>;

    /// The egresses of a group, from now on of this worker alone.
    ///
    /// # Errors
    /// A text that names the place and the cause.
    fn egress(&self, group: u32, shards: &[ShardId]) -> Result<Box<dyn GroupEgress>, String>;

    /// What reads the input, if the app has any that the fleet reads.
    ///
    /// # Errors
    /// A text that names the input and the cause.
    fn feed(&self) -> Result<Option<Box<dyn Feed>>, String>;

    /// The largest record that the log takes, in bytes.
    fn record_bytes_max(&self) -> usize;
}

/// The partitions of all ingresses, read together.
///
/// Of one partition it keeps the contract of a [`Source`](statefn_core::ports::ingress::Source), but
/// that a partition that is followed may have no end, and gives no empty stretches.
pub trait Feed: Send {
    /// How many partitions each ingress has, in the order of the program's ingresses; never fewer than before.
    ///
    /// # Errors
    /// A text that names the input and the cause.
    fn partitions(&mut self) -> Result<Vec<u32>, String>;

    /// Reads a partition of an ingress from a position on, also one that is read already. The default
    /// position is where settings say that a partition begins. Returns where it really reads on.
    ///
    /// # Errors
    /// A text that names topic, partition and cause; it is not read then.
    fn follow(&mut self, ingress: usize, partition: u32, from: Position) -> Result<Position, String>;

    /// Reads a partition no more.
    fn leave(&mut self, ingress: usize, partition: u32);

    /// By ingress, where its partitions are and end; those who watch from outside are told how far each is read.
    ///
    /// # Errors
    /// A text that names the input and the cause.
    fn ends(&mut self) -> Result<Vec<Vec<inspect::Partition>>, String>;

    /// Lets a partition rest, or go on.
    fn rest(&mut self, ingress: usize, partition: u32, is_resting: bool);

    /// Waits for records, as long as `patience` at most, and routes a stretch of one partition.
    ///
    /// # Errors
    /// A text that names topic, partition and cause; the next call tries again.
    fn next(
        &mut self,
        patience: Duration,
        limit: ReadLimit,
        ingresses: &[Arc<dyn ErasedIngress>],
        batches: &mut Batches,
    ) -> Result<Option<(usize, u32, Stretch)>, String>;
}

/// A membership that can be given up.
pub trait Member: Membership {
    /// Says that this worker ends, so that others are named at once.
    fn leave(&mut self);
}

/// The egresses of the shards of a group; the contract is that of
/// [`Egresses`](statefn_core::ports::egress::Egresses).
pub trait GroupEgress: Send {
    /// Takes in the records of a committed epoch.
    fn write_epoch(&mut self, emission: &Emission);

    /// Makes everything durable that was given.
    ///
    /// # Errors
    /// See [`EgressTrouble`].
    fn sync(&mut self) -> Result<(), EgressTrouble>;

    /// The epoch up to which the records of a shard are durable.
    fn taken(&self, shard: ShardId) -> u64;

    /// Whether anything was given that is not durable.
    fn is_behind(&self) -> bool;
}

/// Why egresses could not be written.
#[derive(Debug, thiserror::Error)]
pub enum EgressTrouble {
    /// Another worker has them; this one never will again.
    #[error("another worker has the egresses of the group: {0}")]
    Fenced(String),
    /// Not now; nothing is lost.
    #[error("{0}")]
    Later(String),
}

/// A worker, and the fleet it belongs to.
#[derive(Clone)]
pub struct Fleet {
    /// The name of the worker, for people.
    pub worker: String,
    /// What it needs.
    pub backend: Arc<dyn Backend>,
    /// Where the shards are.
    pub directory: Arc<Directory>,
}

impl Fleet {
    /// A worker of this name that runs this program.
    #[must_use]
    pub fn new(worker: &str, program: &Program, backend: Arc<dyn Backend>) -> Self {
        let directory = Arc::new(Directory::new(worker, program.fingerprint()));
        Self { worker: worker.to_owned(), backend, directory }
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fleet({})", self.worker)
    }
}
