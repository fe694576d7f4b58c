//! The superblock: how far the log is known to be durable, so that an open notices lost records.
//!
//! Invariants: of the two copies the older one is overwritten, so one is always whole; it never
//! says more than what was acknowledged.

use std::{io, path::Path};

use super::{
    FORMAT_VERSION, OpenError,
    disk::{Disk, DiskFile, read_whole, write_all_at, write_whole},
    u32_at, u64_at,
};
use crate::failpoint::failpoint;

/// The name of the file.
pub(super) const FILE_NAME: &str = "superblock";
const MAGIC: &[u8; 8] = b"statefnS";
pub(super) const COPY_BYTES: usize = 56;
const CHECKED_FROM: usize = 16;
/// Copies stand in blocks of their own, so that a torn write cannot hit both.
const COPY_DISTANCE_BYTES: usize = 4096;

/// A point of the log that is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Durable {
    /// The segment that holds it.
    pub(super) segment: u64,
    /// The sequence number of the last group before it, 0 if there is none.
    pub(super) sequence: u64,
    /// Where in the segment that group ends.
    pub(super) end: u64,
}

/// The open file.
pub(super) struct Superblock {
    file: Box<dyn DiskFile>,
    log_id: u64,
    /// How often it was written; says which copy is the newer one.
    counter: u64,
    durable: Durable,
    /// The newer copy is known to be on the disk. One that was read may be in the page cache only,
    /// if a sync failed in the process before.
    is_settled: bool,
}

impl Superblock {
    /// Writes the first one, whole or not at all.
    pub(super) fn create(disk: &dyn Disk, path: &Path, log_id: u64, durable: Durable) -> io::Result<Self> {
        let mut bytes = vec![0; 2 * COPY_DISTANCE_BYTES];
        bytes[..COPY_BYTES].copy_from_slice(&encode(log_id, 0, durable));
        write_whole(disk, path, &bytes)?;
        Ok(Self { file: disk.open(path)?, log_id, counter: 0, durable, is_settled: true })
    }

    /// Opens the superblock of the log `log_id`; `None` if there is none.
    pub(super) fn open(disk: &dyn Disk, path: &Path, log_id: u64) -> Result<Option<Self>, OpenError> {
        let Some(bytes) = read_whole(disk, path).map_err(OpenError::at(path))? else {
            return Ok(None);
        };
        let copies = [0, COPY_DISTANCE_BYTES].map(|at| bytes.get(at..at + COPY_BYTES).and_then(decode));
        let newest = copies.into_iter().flatten().filter(|copy| copy.0 == log_id).max_by_key(|copy| copy.1);
        let Some((_, counter, durable)) = newest else {
            return Err(OpenError::damaged(path, 0, "neither copy of the superblock of this log is whole"));
        };
        let file = disk.open(path).map_err(OpenError::at(path))?;
        Ok(Some(Self { file, log_id, counter, durable, is_settled: false }))
    }

    /// What is known to be durable.
    pub(super) fn durable(&self) -> Durable {
        self.durable
    }

    /// Notes that the log is durable up to a point, if that is news.
    pub(super) fn write(&mut self, durable: Durable) -> io::Result<()> {
        if durable == self.durable {
            return Ok(());
        }
        failpoint("superblock/write");
        if !self.is_settled {
            // Before the older copy is given up, the newer one must be whole on the disk.
            self.write_copy(self.counter, self.durable)?;
            self.is_settled = true;
        }
        // After a failure the counter stays, so the next attempt writes the same copy again and
        // the other one stays whole.
        let counter = self.counter + 1;
        self.write_copy(counter, durable)?;
        (self.counter, self.durable) = (counter, durable);
        Ok(())
    }

    fn write_copy(&self, counter: u64, durable: Durable) -> io::Result<()> {
        let at = (counter % 2) * COPY_DISTANCE_BYTES as u64;
        write_all_at(&*self.file, &encode(self.log_id, counter, durable), at)?;
        failpoint("superblock/copy-written");
        self.file.sync()?;
        failpoint("superblock/copy-synced");
        Ok(())
    }
}

pub(super) fn encode(log_id: u64, counter: u64, durable: Durable) -> [u8; COPY_BYTES] {
    let mut out = [0; COPY_BYTES];
    out[..8].copy_from_slice(MAGIC);
    out[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    let words = [log_id, counter, durable.segment, durable.sequence, durable.end];
    for (word, at) in words.iter().zip((CHECKED_FROM..).step_by(8)) {
        out[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }
    let crc = crc32c::crc32c(&out[CHECKED_FROM..]);
    out[12..16].copy_from_slice(&crc.to_le_bytes());
    out
}

/// The bytes as a copy whose checksum is right.
#[cfg(feature = "fuzzing")]
pub(super) fn sealed(mut copy: [u8; COPY_BYTES]) -> [u8; COPY_BYTES] {
    copy[..8].copy_from_slice(MAGIC);
    copy[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    let crc = crc32c::crc32c(&copy[CHECKED_FROM..]);
    copy[12..16].copy_from_slice(&crc.to_le_bytes());
    copy
}

/// Returns log id, counter and point of a whole copy.
pub(super) fn decode(copy: &[u8]) -> Option<(u64, u64, Durable)> {
    let is_whole = &copy[..8] == MAGIC
        && u32_at(copy, 8) == FORMAT_VERSION
        && u32_at(copy, 12) == crc32c::crc32c(&copy[CHECKED_FROM..]);
    let durable = Durable { segment: u64_at(copy, 32), sequence: u64_at(copy, 40), end: u64_at(copy, 48) };
    is_whole.then_some((u64_at(copy, 16), u64_at(copy, 24), durable))
}
