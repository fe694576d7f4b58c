//! Days in UTC.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use statefn::prelude::*;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// A day in UTC, counted from 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Day(i64);

impl Day {
    pub(crate) fn of(time: EventTime) -> Self {
        Self(time.0.div_euclid(DAY_MS))
    }

    /// Its last millisecond.
    pub(crate) fn end(self) -> EventTime {
        EventTime((self.0 + 1) * DAY_MS - 1)
    }
}

impl std::fmt::Display for Day {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let start = Timestamp::from_millisecond(self.0 * DAY_MS).map_err(|_| std::fmt::Error)?;
        write!(f, "{}", start.strftime("%Y-%m-%d"))
    }
}

/// The timer at the end of a day.
#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "day-end")]
pub(crate) struct DayEnd {
    pub(crate) day: Day,
}

/// An event time as people write it.
pub(crate) fn text(time: EventTime) -> String {
    Timestamp::from_millisecond(time.0).map_or_else(|_| time.to_string(), |time| time.to_string())
}
