//! The clock of the machine.

use std::time::{SystemTime, UNIX_EPOCH};

use statefn_core::{ProcessingTime, ports::clock::Clock};

/// The clock of the machine; before 1970 it shows 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MachineClock;

impl Clock for MachineClock {
    fn now(&self) -> ProcessingTime {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        ProcessingTime(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_conforms() {
        statefn_core::ports::clock::conformance(&mut MachineClock, |_, time| std::thread::sleep(time));
    }
}
