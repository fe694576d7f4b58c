//! Which snapshots and which part of the journal a shard keeps.
//!
//! ```text
//!   journal  ....|------------------|------------------|---------- tail
//!                older              newer              (those that egresses have not reached)
//!   trimmed up to here, once the older one was read back
//! ```
//!
//! Invariants: the journal is trimmed only to the end of a snapshot that was read back, whole, for
//! that purpose, and behind which another stands; egresses have what both of them hold, so that a
//! recovery may begin with either. So after a trim the shard is recovered as long as one of the two
//! is whole. A snapshot that cannot be read back does not count; the one before it is kept on.
//!
//! Deliberately absent: how a snapshot is read; a driver does that, once for each snapshot.

use super::{Shard, frame::SnapshotMark, image::snapshot_crc, rules::Rule};
use crate::{
    error::Corrupt,
    ports::{log::Offset, snapshots::Snapshots},
};

/// Whether the snapshot that the journal is to be trimmed to was read back.
#[derive(Debug, Default)]
pub(crate) enum ReadBack {
    /// Nobody was asked to read one.
    #[default]
    Nothing,
    /// The driver was asked to read this one.
    Asked(SnapshotMark),
    /// This one is whole.
    Whole(SnapshotMark),
}

/// What a shard lets go of, or what has to be read back before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trim {
    /// A snapshot to be read back; its outcome goes to [`Shard::snapshot_read_back`].
    pub read_back: Option<SnapshotMark>,
    /// Snapshots that are no longer needed.
    pub removed: Vec<SnapshotMark>,
    /// The first offset of the journal that is still needed.
    pub before: Option<Offset>,
}

impl Shard {
    /// Decides what may be forgotten once egresses have everything up to `egress_taken`.
    pub fn trim(&mut self, egress_taken: u64) -> Trim {
        let rules = self.options.rules;
        let egress_taken = if rules.holds(Rule::TrimBehindEgress) { egress_taken } else { u64::MAX };
        let reached = self.snapshots.partition_point(|mark| mark.epoch <= egress_taken);
        let Some(place) = reached.checked_sub(2) else { return Trim::default() };
        let older = &self.snapshots[place];
        if rules.holds(Rule::TrimAfterReadBack) {
            match &self.read_back {
                ReadBack::Whole(mark) if mark == older => {}
                ReadBack::Asked(mark) if mark == older => return Trim::default(),
                _ => {
                    let read_back = Some(older.clone());
                    self.read_back = ReadBack::Asked(older.clone());
                    return Trim { read_back, ..Trim::default() };
                }
            }
        }
        let before = match rules.holds(Rule::TrimBehindSnapshot) {
            true => older.next_offset,
            false => self.next_offset,
        };
        let removed = self.snapshots.drain(..place).collect();
        Trim { read_back: None, removed, before: Some(before) }
    }

    /// Notes whether a snapshot was read back whole; one that was not does not count from now on.
    pub fn snapshot_read_back(&mut self, mark: &SnapshotMark, is_whole: bool) {
        if !matches!(&self.read_back, ReadBack::Asked(asked) if asked == mark) {
            return;
        }
        if is_whole {
            self.read_back = ReadBack::Whole(mark.clone());
        } else {
            self.read_back = ReadBack::Nothing;
            self.snapshots.retain(|kept| kept != mark);
        }
    }
}

/// Reads back the snapshot that a mark names; what comes is what was stored, byte for byte.
///
/// # Errors
/// If it is gone, damaged, or cannot be read.
pub fn read_back(place: &mut dyn Snapshots, mark: &SnapshotMark) -> Result<Vec<u8>, Corrupt> {
    let name = &mark.name;
    let bytes = place.get(name).map_err(|error| Corrupt(format!("snapshot {name}: {error}")))?;
    let bytes = bytes.ok_or_else(|| Corrupt(format!("snapshot {name} is gone")))?;
    if bytes.len() as u64 != mark.length || snapshot_crc(&bytes) != Some(mark.crc) {
        return Err(Corrupt(format!("snapshot {name} is not what its mark says")));
    }
    Ok(bytes)
}
