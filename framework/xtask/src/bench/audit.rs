//! What a run has done, in a form in which an app and a loop by hand can be compared.
//!
//! Each call notes a number that depends on what it saw and left. The numbers are added up by
//! thread, which costs next to nothing, and over all threads when these end; so neither the order
//! of calls nor the number of threads matters.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, Ordering},
};

use serde::{Deserialize, Serialize};

use super::Failure;

static CALLS: AtomicU64 = AtomicU64::new(0);
static DIGEST: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static TALLY: Tally = const { Tally { calls: Cell::new(0), digest: Cell::new(0) } };
}

struct Tally {
    calls: Cell<u64>,
    digest: Cell<u64>,
}

impl Tally {
    fn hand_in(&self) {
        CALLS.fetch_add(self.calls.take(), Ordering::Relaxed);
        DIGEST.fetch_add(self.digest.take(), Ordering::Relaxed);
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.hand_in();
    }
}

/// Notes a call that saw or left these numbers.
#[inline]
pub(crate) fn note(one: u64, other: u64) {
    TALLY.with(|tally| {
        tally.calls.set(tally.calls.get() + 1);
        tally.digest.set(tally.digest.get().wrapping_add(number(one, other)));
    });
}

/// One number that depends on both.
#[inline]
fn number(one: u64, other: u64) -> u64 {
    (one.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ other).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// What a run came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Audit {
    pub(crate) calls: u64,
    pub(crate) digest: u64,
    /// Records that went out.
    pub(crate) emitted: u64,
    /// Of all records in the output file, in any order.
    pub(crate) output_digest: u64,
    /// Of the states that are left.
    pub(crate) states_digest: u64,
}

impl Audit {
    /// Of all threads that have ended, and this one.
    pub(crate) fn taken() -> Self {
        TALLY.with(Tally::hand_in);
        let (calls, digest) = (CALLS.load(Ordering::Relaxed), DIGEST.load(Ordering::Relaxed));
        Self { calls, digest, ..Self::default() }
    }

    /// With the records of an output, which are as many as were emitted.
    pub(crate) fn with_output<'a>(mut self, output: impl Iterator<Item = &'a [u8]>) -> Result<Self, Failure> {
        let mut records = 0;
        for record in output {
            records += 1;
            self.output_digest = self.output_digest.wrapping_add(digest_of(record));
        }
        if records != self.emitted {
            return Err(format!("{} records were emitted, but {records} stand in the output", self.emitted).into());
        }
        Ok(self)
    }

    /// With the states that are left, in any order; each is a key and what it has.
    pub(crate) fn with_states(mut self, states: impl Iterator<Item = (u64, u64)>) -> Self {
        for (key, state) in states {
            self.states_digest = self.states_digest.wrapping_add(number(key, state));
        }
        self
    }
}

/// FNV-1a.
fn digest_of(record: &[u8]) -> u64 {
    let step = |digest: u64, byte: &u8| (digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    record.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_all_threads_count_in_any_order() {
        let before = Audit::taken();
        note(1, 2);
        let of_one = Audit::taken();
        std::thread::spawn(|| note(3, 4)).join().expect("it ends");
        let of_both = Audit::taken();
        assert_eq!(of_both.calls - before.calls, 2);
        assert_ne!(of_both.digest.wrapping_sub(of_one.digest), of_one.digest.wrapping_sub(before.digest));
    }

    #[test]
    fn another_record_in_the_output_is_noticed() {
        let audit = |records: &[&[u8]], emitted| {
            let audit = Audit { emitted, ..Audit::default() }.with_output(records.iter().copied());
            audit.map_err(|error| error.to_string())
        };
        let expected = audit(&[b"a", b"bc"], 2).expect("is whole");
        assert_eq!(audit(&[b"bc", b"a"], 2), Ok(expected));
        assert_ne!(audit(&[b"bd", b"a"], 2), Ok(expected));
        assert!(audit(&[b"a"], 2).expect_err("one is missing").contains("but 1 stand"));
    }
}
