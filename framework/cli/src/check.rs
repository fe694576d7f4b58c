//! The invariants of a whole data directory, as far as they can be seen without the app's program.
//!
//! For each shard: the chain of its journal is whole (I1), and folding it from the older of the
//! two snapshots that are kept gives, byte for byte, what the newest one and the rest of it give (I4); every key, timer and message is in
//! the shard that its hash names. Between shards: whatever one has accepted another has sent, and what
//! is not accepted is still there, without a gap (I3). For egresses: none has an epoch that the journal
//! has not.
//!
//! Deliberately absent: whether the program can read all of it, which only the app's own binary knows.

use std::path::{Path, PathBuf};

use statefn_core::{
    address::{murmur2, shard_of},
    ports::{log::Log, snapshots::Snapshots},
    shard::{Replica, image::Image},
};
use statefn_runtime::egress::{Marked, marked};

use crate::Error;

/// Verifies a log and its snapshots, and the egresses of a data directory if there is one; returns a
/// line for each shard.
///
/// # Errors
/// [`Error::Data`] with everything that is wrong, a line each.
pub fn check(
    directory: Option<&Path>,
    shards: u32,
    log: &mut dyn Log,
    snapshots: &mut dyn Snapshots,
) -> Result<Vec<String>, Error> {
    let (mut lines, mut problems, mut images) = (Vec::new(), Vec::new(), Vec::new());
    for shard in 0..shards {
        let mut fold = |taken| Replica::recover(shard, log, snapshots, taken, &mut |_, _| {});
        let Replica { image: newest, snapshots: marks, .. } =
            fold(u64::MAX).map_err(|error| Error::Data(error.to_string()))?;
        // Those before the last two may be gone, and so may be what stood in the journal before them.
        if let Some(older) = marks.iter().rev().nth(1) {
            match fold(older.epoch) {
                Ok(older) if older.image.encode() == newest.encode() => {}
                Ok(_) => problems.push(format!(
                    "shard {shard}: its older snapshot and the journal give another state than its newest (I4)"
                )),
                Err(error) => problems.push(format!("shard {shard}: its older snapshot is of no use: {error}")),
            }
        }
        problems.extend(strays(shard, shards, &newest));
        lines.push(format!(
            "shard {shard}: epoch {}, {} keys, {} pending, {} parked, {} unacknowledged, journal {}..{}",
            newest.epoch(),
            newest.states().count(),
            newest.pending().count(),
            newest.parked().count(),
            newest.outbox().count(),
            log.start(shard),
            log.end(shard),
        ));
        images.push(newest);
    }
    problems.extend(between(&images));
    if let Some(directory) = directory {
        problems.extend(egresses(directory, &images)?);
    }
    if problems.is_empty() { Ok(lines) } else { Err(Error::Data(problems.join("\n"))) }
}

/// Keys, timers and messages that are not in the shard that their hash names.
fn strays(shard: u32, shards: u32, image: &Image) -> Vec<String> {
    let is_elsewhere = |key: &[u8], shard: u32| shard_of(murmur2(key), shards) != shard;
    let states = image.states().filter(|(_, key, _)| is_elsewhere(key, shard)).count();
    let pending = image.pending().filter(|entry| is_elsewhere(entry.message.key, shard)).count();
    let parked = image.parked().filter(|(_, key, _)| is_elsewhere(key, shard)).count();
    let carried = image.carried().filter(|message| is_elsewhere(message.key, shard)).count();
    let outbox = image.outbox().filter(|(target, _, message)| is_elsewhere(message.key, *target)).count();
    let found = [("states", states), ("timers", pending), ("parked keys", parked), ("messages", carried + outbox)];
    let found = found.into_iter().filter(|(_, count)| *count > 0);
    found.map(|(what, count)| format!("shard {shard}: {count} {what} belong to another shard")).collect()
}

/// What pairs of shards do not agree on.
fn between(images: &[Image]) -> Vec<String> {
    let mut problems = Vec::new();
    for (source, from) in (0..).zip(images) {
        for (target, to) in (0..).zip(images) {
            let (sent, seen, acknowledged) = (from.sent(target), to.seen(source), from.acknowledged(target));
            let pair = format!("messages of shard {source} to shard {target}");
            if seen > sent {
                problems.push(format!("{pair}: {seen} were accepted and {sent} were sent (I3)"));
            }
            if acknowledged > seen {
                problems.push(format!("{pair}: {acknowledged} are taken for accepted and {seen} were (I3)"));
            }
            let left: Vec<u64> = from.outbox().filter(|(to, ..)| *to == target).map(|(_, number, _)| number).collect();
            if !left.iter().copied().eq(acknowledged + 1..=sent) {
                problems
                    .push(format!("{pair}: those behind number {acknowledged} are not all there up to {sent} (I3)"));
            }
        }
    }
    problems
}

/// Shards of which egresses have more than the journal, and files that are shorter than they were.
fn egresses(directory: &Path, images: &[Image]) -> Result<Vec<String>, Error> {
    let marked = marked(&directory.join("egress"), images.len() as u32);
    let Marked { taken, files } = marked.map_err(|error| Error::Data(error.to_string()))?;
    let is_short = |(path, length): &(PathBuf, u64)| {
        let found = path.metadata().map(|file| file.len()).ok();
        let found = found.filter(|found| found < length)?;
        Some(format!("`{}` has {found} bytes, and {length} were written and synced (I3)", path.display()))
    };
    let ahead = |(shard, (taken, image)): (usize, (&u64, &Image))| {
        let epoch = image.epoch();
        let text = || {
            format!(
                "shard {shard}: egresses have its records up to epoch {taken}, and its journal ends with epoch {epoch} (I3)"
            )
        };
        (*taken > epoch).then(text)
    };
    let ahead = taken.iter().zip(images).enumerate().filter_map(ahead);
    Ok(ahead.chain(files.iter().filter_map(is_short)).collect())
}
