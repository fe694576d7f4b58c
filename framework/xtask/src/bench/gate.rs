//! A gate that records of a generator wait behind until it is opened.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use statefn::run::Running;

use super::Failure;

/// How often those who wait look again.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);
/// How long an app must seal nothing to have sealed all, at least: longer than an append takes, for
/// which the next epoch waits.
const QUIET: Duration = Duration::from_millis(300);

/// A gate; it is closed in the beginning.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate(Arc<AtomicBool>);

impl Gate {
    /// Lets everything through from now on.
    pub(crate) fn open(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Waits until the gate is open.
    pub(crate) fn pass(&self) {
        while !self.0.load(Ordering::Relaxed) {
            thread::sleep(LOOK_INTERVAL);
        }
    }
}

/// Waits until an app has made so many calls and sealed what they caused.
pub(crate) fn until_called(running: &Running, calls: u64) -> Result<(), Failure> {
    until_quiet(running, calls, QUIET)
}

/// As [`until_called`], and until it has sealed nothing for so long.
pub(crate) fn until_quiet(running: &Running, calls: u64, for_so_long: Duration) -> Result<(), Failure> {
    let (mut epochs, mut quiet) = (u64::MAX, Duration::ZERO);
    while quiet < for_so_long {
        if running.is_finished() {
            return Err(format!("the app ended before it made {calls} calls").into());
        }
        thread::sleep(LOOK_INTERVAL);
        let shards = running.status().totals().shards;
        let is_quiet = shards.calls >= calls && shards.epochs == epochs;
        quiet = if is_quiet { quiet + LOOK_INTERVAL } else { Duration::ZERO };
        epochs = shards.epochs;
    }
    Ok(())
}
