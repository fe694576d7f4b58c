//! Dead letters: what could not be handled, with the reason and everything needed to look into it.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::{limits::DEAD_LETTER_BYTES_MAX, time::EventTime};

/// Why something became a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A record of an ingress could not be read.
    Undecodable,
    /// A handler rejected a message that nobody waits for.
    Rejected,
    /// A message reached a function that could not read it.
    UnreadableMessage,
    /// A record of an egress was refused by who should take it.
    Refused,
    /// Somebody skipped a call that had parked its key.
    Skipped,
    /// The key was parked, and as many calls as may wait for it, or for its shard, did.
    ParkedQueueFull,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Undecodable,
        Self::Rejected,
        Self::UnreadableMessage,
        Self::Refused,
        Self::Skipped,
        Self::ParkedQueueFull,
    ];

    /// As letters have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Undecodable => "undecodable",
            Self::Rejected => "rejected",
            Self::UnreadableMessage => "unreadable_message",
            Self::Refused => "refused",
            Self::Skipped => "skipped",
            Self::ParkedQueueFull => "parked_queue_full",
        }
    }
}

/// One line of the `dead-letters` egress.
///
/// ```
/// use statefn_core::dead_letter::{DeadLetter, Reason};
/// let letter = DeadLetter::of_record("flights", "line 7", "no such column", b"a,b");
/// assert_eq!(letter.reason, Reason::Undecodable);
/// assert_eq!(letter.bytes(), b"a,b");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// What no other letter of its app has: shard, epoch, and place in the epoch. Letters of older
    /// versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Why it is here.
    pub reason: Reason,
    /// The error in words; for a rejection its code.
    pub error: String,
    /// The ingress it came by, if it never reached a function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<String>,
    /// The egress that it left by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<String>,
    /// Where it stands in that ingress, or which record of that egress it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    /// The function it was for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// The key it was for; bytes that are no text as base64 behind `base64:`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The name of the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Its event time in milliseconds, if it is a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<i64>,
    /// Whether it is not a message but a timer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_timer: bool,
    /// The bytes, if they are text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The bytes in base64, if they are no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// How many bytes the record has, if only its first ones are here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<u64>,
}

impl DeadLetter {
    /// A record that could not be read.
    ///
    /// Only its first [`DEAD_LETTER_BYTES_MAX`] bytes are kept, so that a letter is never too long
    /// for its egress.
    #[must_use]
    pub fn of_record(ingress: &str, position: &str, error: &str, bytes: &[u8]) -> Self {
        Self::of_start(ingress, position, error, bytes, bytes.len() as u64)
    }

    /// A record of `bytes_total` bytes that could not be read, of which the reader has the first ones.
    #[must_use]
    pub fn of_start(ingress: &str, position: &str, error: &str, start: &[u8], bytes_total: u64) -> Self {
        let start = cut(start);
        Self {
            ingress: Some(ingress.to_owned()),
            position: Some(position.to_owned()),
            bytes_total: (bytes_total > start.len() as u64).then_some(bytes_total),
            ..Self::new(Reason::Undecodable, error, start)
        }
    }

    /// A message that a function refused or could not read.
    #[must_use]
    pub fn of_message(reason: Reason, error: &str, function: &str, key: &[u8], message: &str, bytes: &[u8]) -> Self {
        Self {
            function: Some(function.to_owned()),
            key: Some(printable_key(key)),
            message: Some(message.to_owned()),
            ..Self::new(reason, error, bytes)
        }
    }

    /// A record of an egress that its receiver refused; `id` is what it was sent with.
    #[must_use]
    pub fn of_emission(egress: &str, id: &str, error: &str, bytes: &[u8]) -> Self {
        let start = cut(bytes);
        Self {
            egress: Some(egress.to_owned()),
            position: Some(id.to_owned()),
            bytes_total: (bytes.len() > start.len()).then_some(bytes.len() as u64),
            ..Self::new(Reason::Refused, error, start)
        }
    }

    /// The same letter of a message with this event time, or of a timer.
    #[must_use]
    pub fn at(self, time: EventTime, is_timer: bool) -> Self {
        Self { time: Some(time.0), is_timer, ..self }
    }

    fn new(reason: Reason, error: &str, bytes: &[u8]) -> Self {
        let text = std::str::from_utf8(bytes).ok().map(str::to_owned);
        let base64 = text.is_none().then(|| STANDARD.encode(bytes));
        Self {
            id: None,
            reason,
            error: error.to_owned(),
            ingress: None,
            egress: None,
            position: None,
            function: None,
            key: None,
            message: None,
            time: None,
            is_timer: false,
            text,
            base64,
            bytes_total: None,
        }
    }

    /// The bytes of the key; none if there is no key, or it cannot be read.
    #[must_use]
    pub fn key_bytes(&self) -> Option<Vec<u8>> {
        key_bytes(self.key.as_deref()?)
    }

    /// The bytes themselves.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        match (&self.text, &self.base64) {
            (Some(text), _) => text.as_bytes().to_vec(),
            (None, Some(base64)) => STANDARD.decode(base64).unwrap_or_default(),
            (None, None) => Vec::new(),
        }
    }

    /// Appends the letter as JSON.
    pub fn write(&self, out: &mut Vec<u8>) {
        crate::message::encode_json(self, out);
    }
}

/// The first bytes of a long record, without a half character at the end.
fn cut(bytes: &[u8]) -> &[u8] {
    let Some(start) = bytes.get(..DEAD_LETTER_BYTES_MAX) else { return bytes };
    match std::str::from_utf8(start) {
        Err(error) if error.error_len().is_none() => &start[..error.valid_up_to()],
        _ => start,
    }
}

/// A key as a person can read it: text as it is, other bytes as base64.
#[must_use]
pub fn printable_key(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => format!("base64:{}", STANDARD.encode(key)),
    }
}

/// The bytes that [`printable_key`] has made readable; none if they are not.
#[must_use]
pub fn key_bytes(text: &str) -> Option<Vec<u8>> {
    match text.strip_prefix("base64:") {
        Some(bytes) => STANDARD.decode(bytes).ok(),
        None => Some(text.as_bytes().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_record_is_cut_between_two_characters() {
        let record = format!("a{}", "ä".repeat(DEAD_LETTER_BYTES_MAX));
        let letter = DeadLetter::of_record("sales", "line 1", "too long", record.as_bytes());
        assert_eq!(letter.bytes().len(), DEAD_LETTER_BYTES_MAX - 1);
        assert_eq!(letter.bytes_total, Some(record.len() as u64));
        assert_eq!(DeadLetter::of_record("sales", "line 1", "no", b"short").bytes_total, None);
    }
}
