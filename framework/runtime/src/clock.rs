//! The clock of the machine.

use std::time::{SystemTime, UNIX_EPOCH};

use statefn_core::ProcessingTime;

/// The time now; before 1970 it is 0.
pub(crate) fn now() -> ProcessingTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    ProcessingTime(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
