//! The position of a shard group's egress: up to which epoch the records of each shard stand. Version 1.
//!
//! ```text
//! magic "sfegrpos" | crc32c u32 over all behind it | version u8 | body
//! body: owner, 16 bytes | group | count of shards, each: shard, epoch
//! ```
//! Fixed numbers are little-endian, those of the body are varints. It is the value of a record in
//! the partition of the group in `<app>.egress`, and names every shard of the group, so that only
//! the last one counts.

use std::collections::BTreeMap;

use statefn_core::{
    address::ShardId,
    codec::{Reader, Truncated, put_varint},
};

const MAGIC: &[u8; 8] = b"sfegrpos";
const VERSION: u8 = 1;
const CHECKED_FROM: usize = 12;

/// Who writes: drawn when an egress is opened, so that no two are equal.
pub(super) type Owner = u128;

/// A position record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GroupPosition {
    pub(super) owner: Owner,
    pub(super) group: u32,
    /// Of each shard the epoch up to which its records stand.
    pub(super) epochs: BTreeMap<ShardId, u64>,
}

impl GroupPosition {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut checked = vec![VERSION];
        checked.extend_from_slice(&self.owner.to_le_bytes());
        put_varint(&mut checked, u64::from(self.group));
        put_varint(&mut checked, self.epochs.len() as u64);
        for (shard, epoch) in &self.epochs {
            put_varint(&mut checked, u64::from(*shard));
            put_varint(&mut checked, *epoch);
        }
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&crc32c::crc32c(&checked).to_le_bytes());
        debug_assert_eq!(bytes.len(), CHECKED_FROM);
        bytes.extend_from_slice(&checked);
        bytes
    }

    /// Reads a record; an error says what is wrong with it.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let foreign = || "it is no position of an egress".to_owned();
        let checked = bytes.get(CHECKED_FROM..).filter(|_| bytes.starts_with(MAGIC)).ok_or_else(foreign)?;
        let crc = &bytes[MAGIC.len()..CHECKED_FROM];
        if crc != crc32c::crc32c(checked).to_le_bytes() {
            return Err("its checksum is wrong".to_owned());
        }
        match checked.split_first() {
            Some((&VERSION, body)) => Self::decode_body(body).map_err(|error| error.to_string()),
            Some((version, _)) => {
                Err(format!("it has the format version {version}, this program reads {VERSION}: run the newer program"))
            }
            None => Err(foreign()),
        }
    }

    fn decode_body(body: &[u8]) -> Result<Self, Truncated> {
        let mut reader = Reader::new(body);
        let owner = reader.take(16)?.try_into().map_err(|_| Truncated)?;
        let group = reader.number()?;
        let mut epochs = BTreeMap::new();
        for _ in 0..reader.varint()? {
            let shard = reader.number()?;
            if epochs.insert(shard, reader.varint()?).is_some() {
                return Err(Truncated);
            }
        }
        if !reader.is_empty() {
            return Err(Truncated);
        }
        Ok(Self { owner: Owner::from_le_bytes(owner), group, epochs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position() -> GroupPosition {
        GroupPosition { owner: 7 << 100, group: 3, epochs: [(3, 1), (35, u64::MAX), (67, 0)].into() }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        assert_eq!(GroupPosition::decode(&position().encode()), Ok(position()));
    }

    #[test]
    fn a_damaged_position_is_found() {
        let bytes = position().encode();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            GroupPosition::decode(&flipped).expect_err("a bit is wrong");
            GroupPosition::decode(&bytes[..at]).expect_err("the end is missing");
        }
    }

    #[test]
    fn a_newer_position_names_its_version() {
        let mut checked = position().encode()[CHECKED_FROM..].to_vec();
        checked[0] = 2;
        let bytes = [&MAGIC[..], &crc32c::crc32c(&checked).to_le_bytes(), &checked].concat();
        let error = GroupPosition::decode(&bytes).expect_err("of a newer program");
        assert!(error.contains("format version 2"), "{error}");
    }
}
