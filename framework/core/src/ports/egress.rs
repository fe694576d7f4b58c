//! The egress port: where the records of committed epochs leave the app.
//!
//! ```text
//! epochs of a shard:  | taken: they stand       | ended: given, not durable | to be given
//!                     1                      taken(shard)              ended(shard)
//! ```
//!
//! Invariants an implementation MUST keep:
//! - After a `sync` that returned `Ok` each record of every epoch that was given stands exactly
//!   once; the records of a shard stand in the order of its epochs, those of an epoch in their own.
//! - `taken` moves only when what it says is durable: opened again at any moment, an egress has
//!   the records up to `taken` and no others, and `taken` has not gone back. So the journal may
//!   be trimmed up to it.
//! - An epoch at or before `ended` that is given again changes nothing.
//! - Opened again, `ended` is `taken`: what is behind it has to be given again.
//! - After a `sync` that failed nothing is lost, and the next one goes on.
//!
//! Who gives the epochs keeps them in order, each shard's without gaps, and gives committed ones only.
//!
//! Deliberately absent: an order between shards.

use crate::address::ShardId;

/// The writer of all egresses of an app; see the module for the contract.
pub trait Egresses: Send {
    /// Why records cannot be made durable.
    type Error: std::fmt::Debug;

    /// Takes in the records of a committed epoch; each is the place of its egress and its bytes.
    fn write_epoch<'a>(&mut self, shard: ShardId, epoch: u64, records: impl Iterator<Item = (usize, &'a [u8])>);

    /// Makes everything durable that was given.
    ///
    /// # Errors
    /// If it cannot; nothing is lost, and another call goes on.
    fn sync(&mut self) -> Result<(), Self::Error>;

    /// The epoch up to which the records of a shard are durable.
    fn taken(&self, shard: ShardId) -> u64;

    /// The epoch up to which the records of a shard need not be given again in this process.
    fn ended(&self, shard: ShardId) -> u64;
}

/// A record that an egress has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmittedRecord {
    /// The shard that emitted it.
    pub shard: ShardId,
    /// The epoch that emitted it.
    pub epoch: u64,
    /// The place of its egress.
    pub egress: usize,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Egresses in memory: durable as long as the value lives, but for [`MemoryEgresses::crash`].
///
/// ```
/// use statefn_core::ports::egress::{Egresses, MemoryEgresses};
/// let mut egresses = MemoryEgresses::new(2);
/// egresses.write_epoch(1, 1, [(0, &b"record"[..])].into_iter());
/// assert_eq!((egresses.ended(1), egresses.taken(1)), (1, 0));
/// egresses.sync().unwrap();
/// assert_eq!((egresses.taken(1), egresses.records().len()), (1, 1));
/// ```
#[derive(Debug, Clone, Default)]
pub struct MemoryEgresses {
    records: Vec<EmittedRecord>,
    /// How many of them are durable.
    durable: usize,
    /// By shard.
    taken: Vec<u64>,
    ended: Vec<u64>,
}

impl MemoryEgresses {
    /// Empty egresses of an app of `shards` shards.
    #[must_use]
    pub fn new(shards: u32) -> Self {
        let none = vec![0; shards as usize];
        Self { taken: none.clone(), ended: none, ..Self::default() }
    }

    /// What is durable, in the order in which it was given.
    #[must_use]
    pub fn records(&self) -> &[EmittedRecord] {
        &self.records[..self.durable]
    }

    /// Forgets what is not durable, as the end of a process does.
    pub fn crash(&mut self) {
        self.records.truncate(self.durable);
        self.ended.clone_from(&self.taken);
    }
}

impl Egresses for MemoryEgresses {
    type Error = std::convert::Infallible;

    fn write_epoch<'a>(&mut self, shard: ShardId, epoch: u64, records: impl Iterator<Item = (usize, &'a [u8])>) {
        let ended = &mut self.ended[shard as usize];
        if epoch <= *ended {
            return;
        }
        *ended = epoch;
        let record = |(egress, bytes): (usize, &[u8])| EmittedRecord { shard, epoch, egress, bytes: bytes.to_vec() };
        self.records.extend(records.map(record));
    }

    fn sync(&mut self) -> Result<(), Self::Error> {
        self.durable = self.records.len();
        self.taken.clone_from(&self.ended);
        Ok(())
    }

    fn taken(&self, shard: ShardId) -> u64 {
        self.taken[shard as usize]
    }

    fn ended(&self, shard: ShardId) -> u64 {
        self.ended[shard as usize]
    }
}

/// The suite that every [`Egresses`] passes: new ones with two egresses, of an app of two shards.
///
/// `reopen` ends the process that has them, at once, and opens them again; `standing` tells the
/// records that stand in an egress.
///
/// # Panics
/// If they break their contract.
pub fn conformance<E: Egresses>(new: E, mut reopen: impl FnMut(E) -> E, standing: impl Fn(&E, usize) -> Vec<Vec<u8>>) {
    let mut egresses = new;
    let write = |egresses: &mut E, shard: ShardId, epoch: u64, records: &[(usize, &str)]| {
        egresses.write_epoch(shard, epoch, records.iter().map(|(egress, record)| (*egress, record.as_bytes())));
    };
    let expect = |egresses: &E, egress: usize, records: &[&str], why: &str| {
        let found = standing(egresses, egress);
        let found: Vec<_> = found.iter().map(|record| String::from_utf8_lossy(record).into_owned()).collect();
        assert_eq!(found, records, "egress {egress}: {why}");
    };
    let numbers = |egresses: &E| [0, 1].map(|shard| (egresses.taken(shard), egresses.ended(shard)));
    assert_eq!(numbers(&egresses), [(0, 0); 2], "new egresses have nothing");

    write(&mut egresses, 0, 1, &[(0, "a1"), (1, "b1"), (0, "a2")]);
    assert_eq!(numbers(&egresses), [(0, 1), (0, 0)], "an epoch that is not durable has ended and is not taken");
    egresses.sync().expect("they can be written");
    assert_eq!(numbers(&egresses), [(1, 1), (0, 0)], "after a sync what was given is taken");
    expect(&egresses, 0, &["a1", "a2"], "the records of an epoch stand in their order");
    expect(&egresses, 1, &["b1"], "a record stands in its own egress");

    write(&mut egresses, 0, 1, &[(0, "again")]);
    write(&mut egresses, 1, 1, &[]);
    write(&mut egresses, 0, 2, &[(0, "a3")]);
    write(&mut egresses, 0, 2, &[(0, "again")]);
    egresses.sync().expect("they can be written");
    assert_eq!(numbers(&egresses), [(2, 2), (1, 1)], "an epoch without records counts");
    expect(&egresses, 0, &["a1", "a2", "a3"], "an epoch that is given again changes nothing");

    write(&mut egresses, 0, 3, &[(0, "lost"), (1, "lost")]);
    let mut egresses = reopen(egresses);
    assert_eq!(numbers(&egresses), [(2, 2), (1, 1)], "opened again, egresses have what is taken and no more");
    expect(&egresses, 0, &["a1", "a2", "a3"], "what was not taken does not stand");

    write(&mut egresses, 0, 2, &[(0, "again")]);
    write(&mut egresses, 0, 3, &[(1, "b2")]);
    write(&mut egresses, 1, 2, &[(1, "b3")]);
    egresses.sync().expect("they can be written");
    egresses.sync().expect("a sync without news is no error");
    let egresses = reopen(egresses);
    assert_eq!(numbers(&egresses), [(3, 3), (2, 2)], "`taken` does not go back");
    expect(&egresses, 0, &["a1", "a2", "a3"], "a taken epoch that is given again changes nothing");
    let both = standing(&egresses, 1);
    let [first, rest @ ..] = &both[..] else { panic!("egress 1: what stood does not stand") };
    let mut rest: Vec<_> = rest.to_vec();
    // Between shards there is no order.
    rest.sort();
    assert_eq!((first.as_slice(), rest), (&b"b1"[..], vec![b"b2".to_vec(), b"b3".to_vec()]), "each record stands once");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Egresses that lack one rule.
    struct Wrong(MemoryEgresses, Fault);

    enum Fault {
        TakesTwice,
        SaysTooMuch,
    }

    impl Egresses for Wrong {
        type Error = std::convert::Infallible;

        fn write_epoch<'a>(&mut self, shard: ShardId, epoch: u64, records: impl Iterator<Item = (usize, &'a [u8])>) {
            if matches!(self.1, Fault::TakesTwice) {
                self.0.ended[shard as usize] = epoch.min(self.0.ended[shard as usize]).saturating_sub(1);
            }
            self.0.write_epoch(shard, epoch, records);
        }

        fn sync(&mut self) -> Result<(), Self::Error> {
            self.0.sync()
        }

        fn taken(&self, shard: ShardId) -> u64 {
            if matches!(self.1, Fault::SaysTooMuch) { self.0.ended(shard) } else { self.0.taken(shard) }
        }

        fn ended(&self, shard: ShardId) -> u64 {
            self.0.ended(shard)
        }
    }

    fn standing(egresses: &MemoryEgresses, egress: usize) -> Vec<Vec<u8>> {
        let records = egresses.records().iter().filter(|record| record.egress == egress);
        records.map(|record| record.bytes.clone()).collect()
    }

    fn check_wrong(fault: Fault) {
        let new = Wrong(MemoryEgresses::new(2), fault);
        let reopen = |mut egresses: Wrong| {
            egresses.0.crash();
            egresses
        };
        conformance(new, reopen, |egresses, egress| standing(&egresses.0, egress));
    }

    #[test]
    fn memory_conforms() {
        let reopen = |mut egresses: MemoryEgresses| {
            egresses.crash();
            egresses
        };
        conformance(MemoryEgresses::new(2), reopen, standing);
    }

    #[test]
    #[should_panic(expected = "given again changes nothing")]
    fn egresses_that_take_an_epoch_twice_are_found() {
        check_wrong(Fault::TakesTwice);
    }

    #[test]
    #[should_panic(expected = "has ended and is not taken")]
    fn egresses_that_say_too_much_are_found() {
        check_wrong(Fault::SaysTooMuch);
    }
}
