//! How far the owner of a shard has read its mailbox, and how far it may be trimmed.
//!
//! ```text
//! mailbox:  [trimmed ..)[confirmed ..)[in a frame on its way ..)[in the open epoch ..)[unread ..
//!                                     ^ confirmed               ^ sealed              ^ next
//! ```
//! Invariant: before `confirmed` stands only mail that confirmed frames have, or that means nothing:
//! doubled, behind a gap, or unreadable.
//!
//! Deliberately absent: where an owner before has been. Its frames say what the shard has seen.

use crate::{limits::MAILBOX_TRIM_INTERVAL_MS, ports::log::Offset, time::ProcessingTime};

#[derive(Debug, Default)]
pub(super) struct Mailbox {
    /// The first record that was not read.
    next: Offset,
    /// What the last sealed frame has.
    sealed: Offset,
    /// What confirmed frames have.
    confirmed: Offset,
    trimmed: Offset,
    trimmed_at: Option<ProcessingTime>,
}

impl Mailbox {
    pub(super) fn next(&self) -> Offset {
        self.next
    }

    /// Notes that the record at `offset` was read; some before it may have been trimmed.
    pub(super) fn read(&mut self, offset: Offset) {
        assert!(offset >= self.next, "a mailbox is read record by record");
        self.next = offset + 1;
    }

    /// Notes that a frame with everything that was read is on its way.
    pub(super) fn seal(&mut self) {
        self.sealed = self.next;
    }

    /// Notes that the frame that was sealed last is confirmed.
    pub(super) fn confirm(&mut self) {
        self.confirmed = self.sealed;
    }

    /// Where the mailbox may be trimmed now, if that is worth it.
    pub(super) fn trim(&mut self, now: ProcessingTime) -> Option<Offset> {
        let is_due = self.trimmed_at.is_none_or(|at| now.0.saturating_sub(at.0) >= MAILBOX_TRIM_INTERVAL_MS);
        if !is_due || self.confirmed == self.trimmed {
            return None;
        }
        assert!(self.confirmed > self.trimmed, "what is confirmed never goes back");
        (self.trimmed, self.trimmed_at) = (self.confirmed, Some(now));
        Some(self.confirmed)
    }
}
