//! The embedded log and its neighbours: everything an app needs on disk when it runs in one
//! process without any server.
//!
//! [`EmbeddedLog`] keeps the journals of all shards in one sequence of segment files, so that one
//! write and one `fdatasync` make the epochs of all shards durable. [`FileSnapshots`] keeps
//! snapshots as files.
//!
//! # Format, version 1
//!
//! ```text
//! directory/
//!   statefn.json             identity: format version, app, shards, log id
//!   statefn.lock             locked while a process has the log open
//!   superblock               how far the log is known to be durable; two copies, 4096 bytes apart
//!   0000000000000001.log     segments, by number, without gaps
//!   *~.tmp                   a file that is being written; removed at the next open
//!
//! segment:  | header | group | group | ... | zeros to the preallocated end |
//!
//! header, padded to a multiple of 4096 bytes        group, padded to a multiple of 8 bytes
//!    0  magic "statefnL"                               0  magic "SFNg"
//!    8  u32 format version                             4  u32 crc32c of all that follows
//!   12  u32 crc32c of all that follows                 8  u64 length of the whole group
//!   16  u64 log id                                    16  u64 log id
//!   24  u64 number of this segment                    24  u64 sequence number, from 1
//!   32  u64 sequence number of its first group        32  u64 position of this group in the file
//!   40  u64 where the segment before ends             40  u32 crc of the group before (0: none)
//!   48  u32 crc of the group before (0: none)         44  u32 number of records
//!   52  u32 number of partitions                      48  records, one behind the other:
//!   56  u64 next offset of each partition                   u32 partition, u32 length, bytes
//!
//! superblock, each copy: 0 magic "statefnS", 8 u32 format version, 12 u32 crc32c of all that
//!   follows, then u64: log id, counter, segment, sequence number of its last group, its end
//!
//! snapshot file: 0 magic "statefnP", 8 u32 format version, 12 u32 crc32c of the bytes,
//!   16 u64 length, 24 the bytes
//! ```
//!
//! All numbers are little-endian.
//!
//! # Invariants
//!
//! - A group is acknowledged only when it is whole and synced. A group whose write or sync failed
//!   is never acknowledged, and nothing is written behind it: the log goes on in a new segment,
//!   whose header says where the one before ends. So a cut needs no write to a file whose sync
//!   failed and whose cached pages cannot be trusted, and it is durable before the next group is.
//! - Groups form a chain (sequence number and checksum of the group before) over all segments.
//!   A break anywhere but at the very end, or an end before the point of the superblock, refuses
//!   to open: the log never drops an acknowledged record silently.
//! - Bad bytes at the very end, with no later group behind them, are a write that a crash cut
//!   short. It was never acknowledged; it is left behind and [`Report::cut`] tells.
//! - Nothing is overwritten but the superblock's older copy and, after an open, the last group and
//!   the superblock's newer copy with their own bytes: a failed sync in the process before may have
//!   left them in the page cache only.
//! - The first start writes the identity, the first segment and the superblock in this order, each
//!   whole or not at all. A directory without a superblock and without a group is started again.
//!
//! Assumed of the disk: a sync that returns success is true, and a 512-byte sector is written
//! whole or not at all.
//!
//! # When an append fails
//!
//! [`append`](statefn_core::ports::log::Log::append) answers `Refused`: the log starts a new
//! segment at once or, if that fails too (disk full), before the next group; the same group may be
//! given again until it succeeds. If the process dies before the new segment is there, a refused
//! group may be found at the next open, whole, as one whose append never returned may. `Unknown`
//! is never answered: the log has one writer, and that one knows where the log ends.
//!
//! # Deliberately absent
//!
//! Reuse of segment files (stale bytes would have to be told from lost ones), trim points on disk
//! (the snapshot marks in the journals are the truth), compression, and any knowledge of what a
//! record means.

pub(crate) mod disk;
mod error;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod identity;
mod log;
#[cfg(test)]
mod memory_disk;
mod recovery;
mod segment;
mod snapshots;
mod superblock;
#[cfg(test)]
mod tests;

pub use self::{
    error::OpenError,
    identity::belongs_to,
    log::{EmbeddedLog, Options},
    recovery::{Cut, Report},
    snapshots::FileSnapshots,
};

/// The version of everything that this module writes.
const FORMAT_VERSION: u32 = 1;

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}
