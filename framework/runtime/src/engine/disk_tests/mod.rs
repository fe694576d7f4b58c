//! The embedded product on disks that lose, tear, rot and fill up: a small app on the log, the
//! snapshots and the egress of this crate, driven by the core's pipeline on one thread.
//!
//! `disk.rs` is a disk that writes down every operation, `app.rs` the app, `life.rs` the life of a
//! process; `images.rs`, `flips.rs` and `full.rs` are the tests. How much they do is bounded, and
//! `STATEFN_DISK_IMAGES`, `STATEFN_DISK_FLIPS` raise it.
//!
//! Invariants: the driver executes the pipeline's actions in their order and retries as the threads
//! of the engine do; the number of operations of a run does not vary.
//!
//! Deliberately absent: threads (`cargo xtask failpoints` and `kill` have them) and bytes of the
//! outputs that rot, which are the user's once a mark covers them.

pub(super) mod app;
mod disk;
mod flips;
mod full;
mod images;
mod life;

use std::env;

/// How many cases a test tries: as many as the environment says, or `bounded`.
fn cases(variable: &str, bounded: usize) -> usize {
    env::var(variable).map_or(bounded, |text| text.parse().expect("a number of cases"))
}

/// A number that follows from a seed, which moves on.
fn random(seed: &mut u64) -> u64 {
    // splitmix64
    *seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *seed;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
