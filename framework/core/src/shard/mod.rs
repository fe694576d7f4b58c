//! A shard: the unit of ownership, parallelism and commit.

pub mod frame;
pub mod image;
pub mod progress;
pub mod recovery;
pub mod rules;
