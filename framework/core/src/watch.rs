//! What a thread that watches sees of the calls of another one.
//!
//! Invariant: a call costs its writer two stores and waits for nobody. What is seen decides nothing
//! in this crate.
//!
//! Deliberately absent: the key, as copying it would be the dearest part of many calls; its hash
//! has to do. A clock: who watches has one.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::program::FunctionId;

/// What stands for no handler.
const NOBODY: u64 = u64::MAX;
/// The bit of a handler that is one of timers.
const TIMER: u64 = 1 << 32;

/// The call that a thread makes at the moment; it has one writer.
#[derive(Debug)]
pub struct Watch {
    handler: AtomicU64,
    call: AtomicU64,
}

/// A call as those who watch see it; two that are equal are the same call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The function.
    pub function: FunctionId,
    /// The handler among the function's message handlers, or among its timer handlers.
    pub handler: u16,
    /// Whether it is a timer.
    pub is_timer: bool,
    /// The murmur2 hash of the key.
    pub hash: u32,
    /// How many calls there were.
    number: u32,
}

impl Watch {
    /// Notes that calls of a handler begin.
    pub(crate) fn enter(&self, function: FunctionId, handler: u16, is_timer: bool) {
        let timer = if is_timer { TIMER } else { 0 };
        self.handler.store(u64::from(function) << 16 | u64::from(handler) | timer, Ordering::Relaxed);
    }

    /// Notes that one call begins.
    #[inline]
    pub(crate) fn call(&self, hash: u32, number: u32) {
        self.call.store(u64::from(hash) << 32 | u64::from(number), Ordering::Relaxed);
    }

    /// Notes that no handler is called any more.
    pub(crate) fn leave(&self) {
        self.handler.store(NOBODY, Ordering::Relaxed);
    }

    /// The call that is made at the moment, if there is one.
    #[must_use]
    pub fn seen(&self) -> Option<Seen> {
        let (handler, call) = (self.handler.load(Ordering::Relaxed), self.call.load(Ordering::Relaxed));
        (handler != NOBODY).then_some(Seen {
            function: (handler >> 16) as u16,
            handler: handler as u16,
            is_timer: handler & TIMER != 0,
            hash: (call >> 32) as u32,
            number: call as u32,
        })
    }
}

impl Default for Watch {
    fn default() -> Self {
        Self { handler: AtomicU64::new(NOBODY), call: AtomicU64::new(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_seen_until_it_is_over() {
        let watch = Watch::default();
        assert_eq!(watch.seen(), None);
        watch.enter(65_535, 3, true);
        watch.call(u32::MAX, 7);
        let seen = watch.seen().expect("a call is made");
        assert_eq!((seen.function, seen.handler, seen.is_timer, seen.hash), (65_535, 3, true, u32::MAX));
        watch.call(u32::MAX, 8);
        assert_ne!(watch.seen(), Some(seen), "another call of the same key is another one");
        watch.leave();
        assert_eq!(watch.seen(), None);
    }
}
