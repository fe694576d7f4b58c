//! The clock of a worker: it differs from that of the world, and may jump and go back.

use statefn_core::{ProcessingTime, ports::clock::Clock};

/// What a worker's clock shows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WorkerClock {
    /// The time of the world.
    pub(crate) world_ms: i64,
    /// How far it is ahead.
    pub(crate) skew_ms: i64,
    /// By how much this reading is off.
    pub(crate) jitter_ms: i64,
}

impl Clock for WorkerClock {
    fn now(&self) -> ProcessingTime {
        ProcessingTime(self.world_ms + self.skew_ms + self.jitter_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn a_clock_that_does_not_jump_conforms() {
        for seed in 0..100 {
            let mut random = Random::new(seed);
            let skew_ms = random.between(-30, 30);
            let mut clock = WorkerClock { world_ms: 1_000_000, skew_ms, jitter_ms: 0 };
            statefn_core::ports::clock::conformance(&mut clock, |clock, time| {
                clock.world_ms += time.as_millis() as i64;
                clock.jitter_ms = random.between(-2, 2);
            });
        }
    }
}
