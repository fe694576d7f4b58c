//! The snapshot port: named, whole, immutable byte strings.
//!
//! Invariants an implementation MUST keep: a `put` that returned `Ok` is durable and whole; a
//! `get` yields exactly the bytes of that `put` or an error, never a part; a name is never reused
//! with other bytes. What a snapshot means is decided by the mark in the journal, so listing is
//! needed only to find garbage.

use std::collections::BTreeMap;

/// A place for snapshots; names are made of `a-z`, `0-9`, `-`, `.` and `/`.
pub trait Snapshots: Send {
    /// Stores `bytes` under `name`.
    ///
    /// # Errors
    /// A text that names the place and the cause; the name may then be used again.
    fn put(&mut self, name: &str, bytes: &[u8]) -> Result<(), String>;

    /// Returns the bytes of `name`, or `None` if there is no such snapshot.
    ///
    /// # Errors
    /// A text that names the place and the cause if it is there but cannot be read whole.
    fn get(&mut self, name: &str) -> Result<Option<Vec<u8>>, String>;

    /// Removes `name`; removing what is not there is no error.
    ///
    /// # Errors
    /// A text that names the place and the cause.
    fn remove(&mut self, name: &str) -> Result<(), String>;

    /// Returns every name that is there, in order.
    ///
    /// # Errors
    /// A text that names the place and the cause.
    fn list(&mut self) -> Result<Vec<String>, String>;
}

/// Snapshots in memory.
///
/// ```
/// use statefn_core::ports::snapshots::{MemorySnapshots, Snapshots};
/// let mut snapshots = MemorySnapshots::default();
/// snapshots.put("shard-1/2", b"state").unwrap();
/// assert_eq!(snapshots.get("shard-1/2").unwrap().as_deref(), Some(&b"state"[..]));
/// ```
#[derive(Debug, Clone, Default)]
pub struct MemorySnapshots {
    by_name: BTreeMap<String, Vec<u8>>,
}

impl Snapshots for MemorySnapshots {
    fn put(&mut self, name: &str, bytes: &[u8]) -> Result<(), String> {
        self.by_name.insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn get(&mut self, name: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(self.by_name.get(name).cloned())
    }

    fn remove(&mut self, name: &str) -> Result<(), String> {
        self.by_name.remove(name);
        Ok(())
    }

    fn list(&mut self) -> Result<Vec<String>, String> {
        Ok(self.by_name.keys().cloned().collect())
    }
}

/// The suite that every [`Snapshots`] passes; `open` makes an empty place.
///
/// # Panics
/// If the place breaks its contract.
pub fn conformance(mut open: impl FnMut() -> Box<dyn Snapshots>) {
    let mut place = open();
    assert_eq!(place.get("shard-1/9").expect("readable"), None, "nothing is there at first");
    let bytes: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    place.put("shard-1/9", &bytes).expect("stored");
    place.put("shard-1/10", b"").expect("an empty one is stored");
    assert_eq!(place.get("shard-1/9").expect("readable"), Some(bytes), "what was stored comes back whole");
    assert_eq!(place.get("shard-1/10").expect("readable"), Some(vec![]));
    assert_eq!(place.list().expect("listed"), vec!["shard-1/10".to_owned(), "shard-1/9".to_owned()]);
    place.remove("shard-1/9").expect("removed");
    place.remove("shard-1/9").expect("removing twice is no error");
    assert_eq!(place.get("shard-1/9").expect("readable"), None);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_conforms() {
        conformance(|| Box::new(MemorySnapshots::default()));
    }
}
