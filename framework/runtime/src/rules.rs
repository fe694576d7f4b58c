//! The rules of writing that tests can switch off, to prove that the tests of disks notice.
//!
//! Invariants: each rule is asked for at one place; without the feature `mutants`, which only tests
//! use, every rule always holds and costs nothing. A rule is off for one thread, as the tests of
//! disks drive everything on one.
//!
//! Deliberately absent, because no disk that is cut at a crash can notice:
//! - the sync of the superblock's copies: an older copy is always right, and each fits in one sector,
//!   so that none is ever torn;
//! - what an open writes again because a sync of the process before may have failed (the last group,
//!   the superblock's newer copy, the egress mark): it is there already unless a sync has failed;
//! - the cut of an egress file at its mark: what stands behind it is written over in the end;
//! - the sync behind the removal of a snapshot: one that comes back is removed at the next start.
//!
//! What is decided in the core (trimming before the mark of a snapshot stands, or further than
//! egresses are) is switched off there and hunted by the simulator.

use std::path::Path;

/// A rule that a mutant lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A group is synced before it is acknowledged.
    GroupsAreSynced,
    /// A file is synced before it gets its name.
    FilesAreSyncedBeforeTheirName,
    /// A directory is synced before the file that got a name in it counts.
    NamesAreSynced,
    /// The removal of a segment is durable before the next one is removed.
    RemovalsAreSynced,
    /// Every egress file that got lines is synced, not all but one.
    AllEgressFilesAreSynced,
    /// The mark is written behind the sync of the lines it covers.
    MarkIsBehindTheLines,
    /// The mark is synced before its epochs count as taken.
    MarksAreSynced,
}

/// Whether a rule holds.
#[inline]
pub(crate) fn holds(rule: Rule) -> bool {
    holds_at(rule, Path::new(""))
}

/// Whether a rule holds for a file.
#[inline]
#[cfg_attr(not(feature = "mutants"), allow(unused_variables, reason = "all rules hold"))]
pub(crate) fn holds_at(rule: Rule, path: &Path) -> bool {
    #[cfg(feature = "mutants")]
    return switch::holds_at(rule, path);
    #[cfg(not(feature = "mutants"))]
    true
}

#[cfg(feature = "mutants")]
pub(crate) mod switch {
    use std::{cell::Cell, path::Path};

    use super::Rule;

    thread_local! {
        /// The rule that does not hold, and the part of the path of the files for which it does not.
        static OFF: Cell<Option<(Rule, &'static str)>> = const { Cell::new(None) };
    }

    pub(super) fn holds_at(rule: Rule, path: &Path) -> bool {
        OFF.get().is_none_or(|(off, part)| off != rule || !path.to_string_lossy().contains(part))
    }

    /// Does something without a rule, for the files whose path has `part` in it.
    #[cfg(test)]
    pub(crate) fn without<T>(rule: Rule, part: &'static str, act: impl FnOnce() -> T) -> T {
        OFF.set(Some((rule, part)));
        let outcome = act();
        OFF.set(None);
        outcome
    }
}
