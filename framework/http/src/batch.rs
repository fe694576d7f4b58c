//! Many messages in one request: JSON lines, each with its key and message.
//!
//! Invariant: every line is read before anything is done; if one of them is wrong, nothing is.
//!
//! Deliberately absent: answers of handlers. Messages of a batch are sent, each for itself.

use serde::Deserialize;
use serde_json::value::RawValue;
use statefn_core::{Encoding, EventTime, program::LinkedFunction};

use crate::{
    edge::{check_once, handler_of, key_of},
    event_time,
    problem::Problem,
};

/// How many lines a batch has at most.
const LINES_MAX: usize = 10_000;

/// A line of a batch.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    /// The key, as a path writes it, without percent signs.
    key: String,
    /// The name of the message.
    message: String,
    /// The message.
    #[serde(borrow)]
    body: &'a RawValue,
    /// The idempotency key.
    #[serde(default)]
    idempotency_key: Option<String>,
    /// When it happens, if not now.
    #[serde(borrow, default)]
    event_time: Option<&'a RawValue>,
}

/// A message that can be sent.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) handler: u16,
    pub(crate) key: Vec<u8>,
    pub(crate) once: Option<Vec<u8>>,
    pub(crate) payload: Vec<u8>,
    pub(crate) time: Option<EventTime>,
}

/// Reads a batch; the lines that are empty do not count.
pub(crate) fn read(function: &LinkedFunction, body: &[u8], field: Option<&str>) -> Result<Vec<Item>, Problem> {
    let lines = body.split(|byte| *byte == b'\n').zip(1..).filter(|(line, _)| !line.trim_ascii().is_empty());
    let mut items = Vec::new();
    for (line, number) in lines {
        if items.len() == LINES_MAX {
            return Err(Problem::new("bad-batch", format!("a batch has at most {LINES_MAX} lines")));
        }
        let item = item(function, line, field);
        items.push(item.map_err(|problem| Problem::new("bad-batch", format!("line {number}: {}", problem.detail())))?);
    }
    if items.is_empty() { Err(Problem::new("bad-batch", "the batch has no line")) } else { Ok(items) }
}

fn item(function: &LinkedFunction, line: &[u8], field: Option<&str>) -> Result<Item, Problem> {
    let wrong = |error: &dyn std::fmt::Display| Problem::new("bad-batch", error.to_string());
    let read: Line<'_> = serde_json::from_slice(line).map_err(|error| wrong(&error))?;
    let Line { key, message, body, idempotency_key, event_time } = read;
    let (handler, known) = handler_of(function, &message)?;
    if known.encoding != Encoding::Json {
        return Err(wrong(&format_args!("the message `{message}` is protobuf, which a line of JSON cannot hold")));
    }
    let payload = body.get().as_bytes().to_vec();
    (known.check)(&payload).map_err(|error| wrong(&error))?;
    let once = idempotency_key.map(String::into_bytes);
    once.as_deref().map_or(Ok(()), check_once)?;
    let key = if key.is_empty() { Err(wrong(&"the key is empty")) } else { key_of(function, key.as_bytes()) };
    let time = match event_time {
        Some(time) => event_time::of_json(time).map(Some)?,
        None => field.map_or(Ok(None), |field| event_time::of_field(field, &payload))?,
    };
    Ok(Item { handler, key: key?, once, payload, time })
}
