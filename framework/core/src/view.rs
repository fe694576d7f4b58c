//! What people and programs are told of an app, as JSON: one form, whoever tells it.
//!
//! The admin interface of a running app and the commands that read a data directory both answer with these.
//! A key has two forms: `key`, as a person reads it, and `path`, as it stands in a URL, which is the
//! same for every key.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    dead_letter::printable_key,
    function::Access,
    key::KeyKind,
    message::Encoding,
    ports::inspect::{ParkedFound, Start, TimerFound},
    program::{LinkedFunction, MessageHandler, Program},
    time::EventTime,
};

/// The content type of an encoding.
#[must_use]
pub fn content(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Json => "application/json",
        Encoding::Protobuf => "application/x-protobuf",
    }
}

/// An event time in milliseconds; null before every event, and after all of them.
#[must_use]
pub fn time(time: EventTime) -> Value {
    match time {
        EventTime::MIN | EventTime::MAX => Value::Null,
        EventTime(time) => time.into(),
    }
}

/// Bytes as a part of a path: everything but letters, digits and `-_.~` behind a percent sign.
///
/// ```
/// assert_eq!(statefn_core::view::escape("a/b ä".as_bytes()), "a%2Fb%20%C3%A4");
/// ```
#[must_use]
pub fn escape(part: &[u8]) -> String {
    let mut escaped = String::with_capacity(part.len());
    for byte in part {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(char::from(*byte)),
            _ => escaped += &format!("%{byte:02X}"),
        }
    }
    escaped
}

/// A key in its two forms; `kind` is none where nobody knows it.
#[must_use]
pub fn key(kind: Option<KeyKind>, bytes: &[u8]) -> Value {
    let text = kind.map_or_else(|| bytes.to_vec(), |kind| kind.text(bytes));
    json!({ "key": printable_key(&text), "path": escape(&text) })
}

/// The bytes of a message: as JSON if they are that and whole, else as text, else in base64.
#[must_use]
pub fn payload(payload: &Start) -> Value {
    let value = payload.is_whole().then(|| serde_json::from_slice(&payload.bytes).ok()).flatten();
    let value = value.map(|value: Value| json!({ "json": value }));
    let text = || std::str::from_utf8(&payload.bytes).ok().map(|text| json!({ "text": text }));
    let mut told = value.or_else(text).unwrap_or_else(|| json!({ "base64": STANDARD.encode(&payload.bytes) }));
    told["bytes"] = payload.total.into();
    told
}

/// What waits for its time.
#[must_use]
pub fn timer(timer: &TimerFound) -> Value {
    json!({
        "id": timer.id,
        "kind": timer.kind.to_string(),
        "due_ms": timer.due,
        "name": timer.name,
        "message": timer.message,
        "payload": payload(&timer.payload),
    })
}

/// A key that is parked, of the function of this name.
#[must_use]
pub fn parked(function: &str, kind: Option<KeyKind>, parked: &ParkedFound) -> Value {
    let mut told = key(kind, &parked.key);
    told["function"] = function.into();
    told["reason"] = parked.reason.clone().into();
    told["message"] = parked.message.clone().into();
    told["is_timer"] = parked.is_timer.into();
    told["event_time_ms"] = time(parked.time);
    told["payload"] = payload(&parked.payload);
    told["queue"] = parked.queue.into();
    told
}

/// A handler of a message.
#[must_use]
pub fn handler(handler: &MessageHandler) -> Value {
    let access = match handler.access {
        Access::Read => "read",
        Access::Write => "write",
    };
    let mut told = json!({
        "message": handler.message,
        "access": access,
        "content": content(handler.encoding),
        "answer": content(handler.answer_encoding),
        "waits_for_event_time": handler.in_event_time_order,
    });
    let [message, answer, rejection] = (handler.schemas)();
    // What is no JSON has no schema, and neither has a handler that never rejects a rejection.
    let schemas = [
        ("schema", message, handler.encoding == Encoding::Json),
        ("answer_schema", answer, handler.answer_encoding == Encoding::Json),
        ("rejection_schema", rejection.clone(), rejection != Value::Bool(false)),
    ];
    for (name, schema, _) in schemas.into_iter().filter(|(.., is_told)| *is_told) {
        told[name] = schema;
    }
    told
}

/// A function: what it takes, and what it does with it.
#[must_use]
pub fn function(function: &LinkedFunction) -> Value {
    let spec = &function.spec;
    json!({
        "function": spec.name,
        "key": spec.key.to_string(),
        "stage": function.stage,
        "messages": spec.messages.iter().map(handler).collect::<Vec<_>>(),
        "timers": spec.timers,
        "sends": spec.sends.iter().map(|target| target.name).collect::<Vec<_>>(),
        "emits": spec.emits.iter().map(|egress| egress.name).collect::<Vec<_>>(),
    })
}

/// The functions and ingresses of a program.
#[must_use]
pub fn program(program: &Program) -> Value {
    let ingress = |ingress: &crate::program::IngressSpec| {
        let targets: Vec<_> = ingress.targets.iter().map(|target| target.name).collect();
        json!({ "ingress": ingress.name, "targets": targets, "lateness_ms": ingress.lateness_ms })
    };
    json!({
        "app": program.app,
        "functions": program.functions.iter().map(function).collect::<Vec<_>>(),
        "ingresses": program.ingresses.iter().map(ingress).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_told_in_two_forms() {
        let number = KeyKind::Integer { bytes: 4, is_signed: true };
        assert_eq!(key(Some(number), &[0xff; 4]), json!({ "key": "-1", "path": "-1" }));
        assert_eq!(key(None, &[0xff; 4]), json!({ "key": "base64://///w==", "path": "%FF%FF%FF%FF" }));
        assert_eq!(key(Some(KeyKind::Text), b"a/b"), json!({ "key": "a/b", "path": "a%2Fb" }));
    }

    #[test]
    fn a_payload_is_told_as_what_it_is() {
        let told = |bytes: &[u8], bytes_max| payload(&Start::of(bytes, bytes_max));
        assert_eq!(told(b"{\"a\":1}", 100), json!({ "json": { "a": 1 }, "bytes": 7 }));
        assert_eq!(told(b"{\"a\":1}", 3), json!({ "text": "{\"a", "bytes": 7 }));
        assert_eq!(told(b"12", 1), json!({ "text": "1", "bytes": 2 }), "half a number is none");
        assert_eq!(told(&[0xff], 100), json!({ "base64": "/w==", "bytes": 1 }));
    }
}
