//! The event time of a request: what its header says, or a field of its body if the settings name one;
//! else it happens now.
//!
//! Invariant: a time that cannot be read is refused. It is never taken for now, as the client meant another one.

use std::{borrow::Cow, collections::HashMap, ops::RangeInclusive};

use actix_web::http::header::HeaderMap;
use jiff::Timestamp;
use serde_json::value::RawValue;
use statefn_core::EventTime;

use crate::problem::Problem;

/// The header with the event time of a request.
const HEADER: &str = "event-time";
/// The years 1 to 9999, in milliseconds since 1970.
const MILLISECONDS: RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_999;

/// The event time that a request states, if it states one; that of its header counts.
pub(crate) fn of_request(
    headers: &HeaderMap,
    field: Option<&str>,
    is_json: bool,
    body: &[u8],
) -> Result<Option<EventTime>, Problem> {
    let mut given = headers.get_all(HEADER);
    let Some(header) = given.next() else {
        return field.filter(|_| is_json).map_or(Ok(None), |field| of_field(field, body));
    };
    if given.next().is_some() {
        return Err(wrong("the request has two headers `Event-Time`"));
    }
    let text = header.to_str().map_err(|_| wrong("the header `Event-Time` is no text"))?;
    of_text(text).map(Some)
}

/// The event time that a field of a body states, if there is such a field; a body that is no object has none.
pub(crate) fn of_field(field: &str, body: &[u8]) -> Result<Option<EventTime>, Problem> {
    let fields: Option<HashMap<Cow<'_, str>, &RawValue>> = serde_json::from_slice(body).ok();
    let value = fields.and_then(|fields| fields.get(field).copied());
    value.filter(|value| value.get() != "null").map(of_json).transpose()
}

/// The event time that a JSON value states: a text, or a number of milliseconds.
pub(crate) fn of_json(value: &RawValue) -> Result<EventTime, Problem> {
    match serde_json::from_str::<Cow<'_, str>>(value.get()) {
        Ok(text) => of_text(&text),
        Err(_) => of_text(value.get()),
    }
}

fn of_text(text: &str) -> Result<EventTime, Problem> {
    let milliseconds = match text.parse() {
        Ok(milliseconds) => Some(milliseconds),
        Err(_) => text.parse().ok().map(Timestamp::as_millisecond),
    };
    let milliseconds = milliseconds.filter(|milliseconds| MILLISECONDS.contains(milliseconds));
    milliseconds.map(EventTime).ok_or_else(|| {
        let shown: String = text.chars().take(40).collect();
        wrong(&format!("{shown:?} is no event time: write it as `2026-01-31T12:00:00Z`, or as milliseconds since 1970"))
    })
}

fn wrong(detail: &str) -> Problem {
    Problem::new("bad-event-time", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(text: &str) -> Option<i64> {
        of_text(text).ok().map(|time| time.0)
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, expected) in [
            ("0", 0),
            ("-1", -1),
            ("1767225600000", 1_767_225_600_000),
            ("2026-01-01T00:00:00Z", 1_767_225_600_000),
            ("2026-01-01T01:00:00.250+01:00", 1_767_225_600_250),
            ("1969-12-31T23:59:59.999Z", -1),
        ] {
            assert_eq!(milliseconds(text), Some(expected), "{text}");
        }
        let longest = "9".repeat(1_000);
        for text in ["", " ", "now", "2026-01-01", "2026-01-01T00:00:00", "1e3", "1.5", "9223372036854775807", &longest]
        {
            let problem = of_text(text).expect_err(text);
            assert_eq!(problem.code(), "bad-event-time");
            assert!(problem.detail().len() < 200, "{}", problem.detail());
        }
    }

    #[test]
    fn a_field_states_the_time_if_it_is_there() {
        let of = |body: &str| of_field("at", body.as_bytes()).map(|time| time.map(|time| time.0));
        for (body, expected) in [
            (r#"{"at":5,"x":{"at":"no"}}"#, Some(5)),
            (r#"{"at":"1970-01-01T00:00:00.005Z"}"#, Some(5)),
            (r#"{"at":null}"#, None),
            (r#"{"x":5}"#, None),
            ("7", None),
            ("{", None),
        ] {
            assert_eq!(of(body), Ok(expected), "{body}");
        }
        for body in [r#"{"at":true}"#, r#"{"at":[5]}"#, r#"{"at":"soon"}"#, r#"{"at":5.5}"#] {
            assert!(of(body).is_err(), "{body}");
        }
    }
}
