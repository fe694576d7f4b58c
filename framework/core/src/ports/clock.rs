//! The clock port: what time it is, as far as a machine knows.
//!
//! Invariants an implementation MUST keep: a reading is in milliseconds since 1970 and never before
//! it, and comes at once; when time has passed, a later reading shows it, but for [`SLACK_MS`]. A
//! clock MAY go back or jump, because people set clocks: the core, which is given the readings, lets
//! those that are behind an earlier one not count (I6).
//!
//! Deliberately absent: waiting, and a promise that the clocks of two machines agree.

use std::time::Duration;

use crate::time::ProcessingTime;

/// How much less than the time between them two readings may differ by, in milliseconds.
pub const SLACK_MS: i64 = 10;

/// A clock; see the module for the contract.
pub trait Clock: Send {
    /// Reads it.
    fn now(&self) -> ProcessingTime;
}

/// A clock that shows 1970 until somebody moves it on.
///
/// ```
/// use std::time::Duration;
/// use statefn_core::{ProcessingTime, ports::clock::{Clock, ManualClock}};
/// let mut clock = ManualClock::default();
/// clock.advance(Duration::from_secs(1));
/// assert_eq!(clock.now(), ProcessingTime(1_000));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct ManualClock(ProcessingTime);

impl ManualClock {
    /// Moves it on.
    pub fn advance(&mut self, by: Duration) {
        self.0 = self.0 + by;
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self(ProcessingTime(0))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> ProcessingTime {
        self.0
    }
}

/// The suite that every [`Clock`] passes, while nobody sets it; `pass` lets at least so much time
/// pass for it.
///
/// # Panics
/// If the clock breaks its contract.
pub fn conformance<C: Clock>(clock: &mut C, mut pass: impl FnMut(&mut C, Duration)) {
    let mut before = clock.now();
    assert!(before.0 >= 0, "a reading is never before 1970");
    for ms in [0, 20, 35, 50] {
        pass(clock, Duration::from_millis(ms));
        let now = clock.now();
        let shown = now.0 - before.0;
        assert!(shown >= ms as i64 - SLACK_MS, "{ms} milliseconds have passed, the clock shows {shown}");
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows a part of the milliseconds that have passed.
    struct Slow(ManualClock, i64);

    impl Clock for Slow {
        fn now(&self) -> ProcessingTime {
            ProcessingTime(self.0.now().0 / self.1)
        }
    }

    #[test]
    fn the_manual_clock_conforms() {
        conformance(&mut ManualClock::default(), ManualClock::advance);
    }

    #[test]
    #[should_panic(expected = "20 milliseconds have passed, the clock shows 0")]
    fn a_clock_that_shows_seconds_is_found() {
        conformance(&mut Slow(ManualClock::default(), 1_000), |clock, by| clock.0.advance(by));
    }

    #[test]
    #[should_panic(expected = "never before 1970")]
    fn a_clock_before_1970_is_found() {
        let mut clock = Slow(ManualClock::default(), -1);
        clock.0.advance(Duration::from_secs(1));
        conformance(&mut clock, |clock, by| clock.0.advance(by));
    }
}
