//! Event time and processing time, and the wheel that holds what is due in the future.
//!
//! Event time is what an event says about itself; processing time is the reading of a clock that
//! the runtime hands to the core as an argument. The two are different types, so that one cannot
//! be passed where the other is meant.
//!
//! Deliberately absent: any way to read a clock.

pub mod wheel;

use std::{
    fmt,
    ops::{Add, Sub},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// The time of an event, in milliseconds since 1970-01-01T00:00:00Z; may be negative.
///
/// ```
/// use statefn_core::EventTime;
/// use std::time::Duration;
/// assert_eq!(EventTime(1_000) + Duration::from_secs(60), EventTime(61_000));
/// ```
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventTime(pub i64);

/// A reading of the clock, in milliseconds since 1970-01-01T00:00:00Z.
///
/// ```
/// use statefn_core::ProcessingTime;
/// use std::time::Duration;
/// assert_eq!(ProcessingTime(5) + Duration::from_millis(2), ProcessingTime(7));
/// ```
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProcessingTime(pub i64);

impl EventTime {
    /// Before every event: the watermark of a shard that knows nothing yet.
    pub const MIN: Self = Self(i64::MIN);
    /// After every event: the watermark at the end of a bounded input.
    pub const MAX: Self = Self(i64::MAX);

    /// The millisecond before this one; `MIN` and `MAX` stay what they are.
    #[must_use]
    pub fn just_before(self) -> Self {
        if self == Self::MAX { self } else { Self(self.0.saturating_sub(1)) }
    }
}

impl ProcessingTime {
    /// Before every reading of a clock.
    pub const MIN: Self = Self(i64::MIN);
}

macro_rules! arithmetic {
    ($($time:ident),*) => {$(
        impl Add<Duration> for $time {
            type Output = Self;
            fn add(self, by: Duration) -> Self {
                Self(self.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
            }
        }
        impl Sub<Duration> for $time {
            type Output = Self;
            fn sub(self, by: Duration) -> Self {
                Self(self.0.saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
            }
        }
        impl fmt::Display for $time {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    i64::MIN => f.write_str("-∞"),
                    i64::MAX => f.write_str("+∞"),
                    ms => write!(f, "{ms} ms"),
                }
            }
        }
    )*};
}
arithmetic!(EventTime, ProcessingTime);

/// When a timer fires: at an event time or at a processing time.
///
/// ```
/// use statefn_core::{Due, EventTime};
/// assert_eq!(Due::from(EventTime(3)), Due::Event(EventTime(3)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Due {
    /// Once the watermark has reached this event time.
    Event(EventTime),
    /// Once the clock has reached this processing time.
    Processing(ProcessingTime),
}

impl From<EventTime> for Due {
    fn from(time: EventTime) -> Self {
        Self::Event(time)
    }
}

impl From<ProcessingTime> for Due {
    fn from(time: ProcessingTime) -> Self {
        Self::Processing(time)
    }
}
