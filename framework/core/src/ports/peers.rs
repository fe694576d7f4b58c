//! The peers port: which worker of a fleet has a shard, and how the others reach it.
//!
//! What it says is a hint that may be late: a worker that is asked for a shard it no longer has says
//! so, and nothing was done ([`Unanswered::Elsewhere`](super::requests::Unanswered::Elsewhere)).
//!
//! Invariants an implementation MUST keep: it never waits; a worker that has not been heard of for a
//! while is not named.
//!
//! Deliberately absent: who should own a shard ([`membership`](super::membership)), who does own it
//! (its journal), and a suite: there is one implementation, which has its own tests.

use std::sync::Arc;

use crate::address::ShardId;

/// A worker, as others reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name, for people.
    pub worker: String,
    /// Where it takes forwarded requests; none if it listens nowhere.
    pub url: Option<String>,
    /// What a forwarded request shows it.
    pub token: String,
    /// The fingerprint of its program ([`Program::fingerprint`](crate::program::Program::fingerprint)).
    pub program: u32,
}

/// Where a shard is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In this process.
    Here,
    /// With another worker.
    At(Arc<Peer>),
    /// Nobody is known to have it.
    Nowhere,
}

/// A worker of the fleet and what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// How it is reached.
    pub peer: Arc<Peer>,
    /// Whether it is this process.
    pub is_here: bool,
    /// The shards it has, in their order.
    pub shards: Vec<ShardId>,
}

/// The workers of a fleet; see the module for the contract.
pub trait Peers: Send + Sync {
    /// Where a shard is.
    fn place(&self, shard: ShardId) -> Place;

    /// All workers, this one included, in the order of their names.
    fn workers(&self) -> Vec<Worker>;
}
