//! What must come out, and whether it did.

use super::app::{Add, Sum};
use crate::bench::Failure;

/// Of each key, by its number, how often it came and what it adds up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tally {
    keys: Vec<(u64, u64)>,
    records: u64,
}

impl Tally {
    /// Of so many keys, of which nothing came.
    pub(super) fn new(keys: u64) -> Self {
        Self { keys: vec![(0, 0); keys as usize], records: 0 }
    }

    pub(super) fn records(&self) -> u64 {
        self.records
    }

    /// Notes a record in; returns what its record out must say.
    pub(super) fn add(&mut self, key: u64, add: &Add) -> (u64, u64) {
        let (count, sum) = &mut self.keys[key as usize];
        *count += 1;
        *sum += add.amount();
        self.records += 1;
        (*count, *sum)
    }

    /// Notes a record out, which must be the next one of its key.
    pub(super) fn take(&mut self, found: &Sum) -> Result<(), Failure> {
        let key = found.key()?;
        let known = self.keys.get_mut(key as usize).ok_or_else(|| format!("the output has the key {key}"))?;
        let last = known.0;
        if found.count != last + 1 {
            let count = found.count;
            return Err(format!("record {count} of the key {key} follows record {last} in the output").into());
        }
        *known = (found.count, found.sum);
        self.records += 1;
        Ok(())
    }

    /// Fails unless what came out is what these records lead to.
    pub(super) fn check(&self, output: &Self) -> Result<(), Failure> {
        if self.records != output.records {
            return Err(format!("{} records went in, but {} came out", self.records, output.records).into());
        }
        let mut pairs = self.keys.iter().zip(&output.keys).enumerate();
        match pairs.find(|(_, (expected, found))| expected != found) {
            Some((key, (expected, found))) => {
                Err(format!("of the key {key} count and sum are {found:?} instead of {expected:?}").into())
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_doubled_or_wrong_is_noticed() {
        let mut tally = Tally::new(3);
        let adds: Vec<(u64, Add)> = [2, 1, 2].map(|key| (key, Add::of(key, 5))).into();
        let outs: Vec<Sum> = adds
            .iter()
            .map(|(key, add)| {
                let (count, sum) = tally.add(*key, add);
                Sum::of(add.user(), count, sum)
            })
            .collect();
        let found = |outs: &[&Sum]| {
            let mut found = Tally::new(3);
            outs.iter().try_for_each(|out| found.take(out)).map(|()| found)
        };
        let whole = found(&[&outs[0], &outs[1], &outs[2]]).expect("each is the next one");
        assert!(tally.check(&whole).is_ok());
        let short = found(&[&outs[0], &outs[1]]).expect("each is the next one");
        assert!(tally.check(&short).expect_err("one is lost").to_string().contains("but 2 came out"));
        assert!(found(&[&outs[0], &outs[0]]).expect_err("it stands twice").to_string().contains("follows record 1"));
        assert!(found(&[&outs[2]]).is_err());
        let wrong = Sum { sum: 6, ..outs[2].clone() };
        let wrong = found(&[&outs[0], &outs[1], &wrong]).expect("each is the next one");
        assert!(tally.check(&wrong).expect_err("a sum is wrong").to_string().contains("instead of (2, 10)"));
    }
}
