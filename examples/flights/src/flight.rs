//! A flight: as a row of the file, and as the message that functions get.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, de::Error};
use statefn::prelude::*;

/// One row of the file; the columns that the app does not need are left out.
#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "flight-row")]
pub struct FlightRow {
    /// The actual departure, HHMM local time; none if the flight was cancelled.
    #[serde(deserialize_with = "known")]
    pub dep_time: Option<i64>,
    /// Minutes.
    #[serde(deserialize_with = "known")]
    pub dep_delay: Option<i64>,
    /// Minutes.
    #[serde(deserialize_with = "known")]
    pub arr_delay: Option<i64>,
    /// The carrier's code.
    pub carrier: String,
    /// The aircraft.
    #[serde(deserialize_with = "known")]
    pub tailnum: Option<String>,
    /// The destination's code.
    pub dest: String,
    /// The minute of the scheduled departure.
    pub minute: i64,
    /// The hour of the scheduled departure, UTC.
    pub time_hour: Timestamp,
}

impl FlightRow {
    /// The scheduled departure.
    #[must_use]
    pub fn scheduled(&self) -> EventTime {
        EventTime(self.time_hour.as_millisecond() + self.minute * 60_000)
    }
}

/// What carriers, aircraft and airports are told of a flight; its event time is the departure.
#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "flight")]
pub struct Flight {
    /// The destination's code.
    pub destination: String,
    /// Whether it never left.
    pub is_cancelled: bool,
    /// Minutes, if known.
    pub departure_delay: Option<i64>,
    /// Minutes, if known.
    pub arrival_delay: Option<i64>,
}

impl From<&FlightRow> for Flight {
    fn from(row: &FlightRow) -> Self {
        Self {
            destination: row.dest.clone(),
            is_cancelled: row.dep_time.is_none(),
            departure_delay: row.dep_delay,
            arrival_delay: row.arr_delay,
        }
    }
}

/// Reads a value that may be missing, which the file writes as nothing or as `NA`.
fn known<'de, D: Deserializer<'de>, T: std::str::FromStr<Err: std::fmt::Display>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.as_str() {
        "" | "NA" => Ok(None),
        text => text.parse().map(Some).map_err(|error| D::Error::custom(format!("`{text}`: {error}"))),
    }
}
