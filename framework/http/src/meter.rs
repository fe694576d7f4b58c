//! What the edge counts of its requests, for the metrics.
//!
//! Invariant: counting a request is a few additions to numbers of its own, without a lock.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use statefn_core::ports::inspect::Distribution;

/// The lowest and the highest status that there is.
const STATUSES: std::ops::RangeInclusive<u16> = 100..=599;
/// Up to how many microseconds requests are told apart.
const UPTO_US: [u64; 13] =
    [500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000, 30_000_000];

/// Counts requests by their status, and how long they took.
#[derive(Debug)]
pub struct Meter {
    statuses: Vec<AtomicU64>,
    /// By place in [`UPTO_US`], and one for what took longer.
    times: [AtomicU64; UPTO_US.len() + 1],
    sum_us: AtomicU64,
}

impl Meter {
    /// All zero.
    #[must_use]
    pub fn new() -> Self {
        Self {
            statuses: STATUSES.map(|_| AtomicU64::new(0)).collect(),
            times: std::array::from_fn(|_| AtomicU64::new(0)),
            sum_us: AtomicU64::new(0),
        }
    }

    pub(crate) fn count(&self, status: u16, took: Duration) {
        if let Some(count) = self.statuses.get(usize::from(status.wrapping_sub(*STATUSES.start()))) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.times[UPTO_US.partition_point(|upto| *upto < us)].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// How many requests were answered with each status that was given at all.
    pub(crate) fn statuses(&self) -> Vec<(u16, u64)> {
        let counts = self.statuses.iter().map(|count| count.load(Ordering::Relaxed));
        STATUSES.zip(counts).filter(|(_, count)| *count > 0).collect()
    }

    pub(crate) fn times(&self) -> Distribution {
        let mut count = 0;
        let mut add = |time: &AtomicU64| {
            count += time.load(Ordering::Relaxed);
            count
        };
        let upto = UPTO_US.iter().zip(&self.times).map(|(us, time)| (*us as f64 / 1e6, add(time))).collect();
        let count = add(&self.times[UPTO_US.len()]);
        Distribution { upto, count, sum_seconds: self.sum_us.load(Ordering::Relaxed) as f64 / 1e6 }
    }
}

impl Default for Meter {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_up_to_each_bound() {
        let meter = Meter::new();
        for us in [1, 500, 501, 40_000_000] {
            meter.count(if us == 1 { 404 } else { 200 }, Duration::from_micros(us));
        }
        assert_eq!(meter.statuses(), [(200, 3), (404, 1)]);
        let times = meter.times();
        assert_eq!(times.upto[..2], [(0.000_5, 2), (0.001, 3)]);
        assert_eq!((times.upto.last().map(|last| last.1), times.count), (Some(3), 4));
    }
}
