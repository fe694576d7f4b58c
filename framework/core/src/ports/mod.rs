//! What a shard and its driver need from outside, as traits; each has a suite that every
//! implementation passes.
//!
//! Deliberately absent: async. A port's call returns when its promise holds; the runtime decides
//! on which thread it waits.

pub mod log;
pub mod snapshots;
pub mod store;

pub mod clock;
pub mod egress;
pub mod ingress;
pub mod inspect;
pub mod membership;
pub mod peers;
pub mod requests;
pub mod shared;
