//! What a message brings along beside itself: who waits for its answer, and the trace it is part of.
//!
//! Most messages bring nothing along, and pay nothing. One that does goes to a second handler of the
//! same message, whose name on disk is that of the message with a `+` behind it; its payload is the
//! envelope. So frames, mail, carry queues and parked queues hold envelopes without knowing them.
//!
//! ```text
//! flags u8 | asker: function, reply, key, token | trace: id, span, parent | message
//! ```
//! Bit 0 of the flags says that there is an asker, bit 1 that there is a trace. Replies and the
//! results of activities begin with flags and trace as well.
//!
//! Invariant: everything here follows from what a call was given, spans included, so a call that runs
//! again after a crash has the same ones.
//!
//! Deliberately absent: baggage and trace state of W3C; nothing here would read them.

use serde::{Deserialize, Serialize};

use crate::codec::{Reader, Truncated, put_bytes, put_varint};

const HAS_ASKER: u8 = 1;
const HAS_TRACE: u8 = 2;

/// The name on disk of the handler that takes a message or timer in an envelope.
pub(crate) fn enveloped(message: &str) -> String {
    format!("{message}+")
}

/// The name on disk of the handler of a reply: of a message asked of a target, or of an activity.
pub(crate) fn reply_to(asked: &str) -> String {
    format!("{asked}=")
}

/// The name on disk of what takes answers that a handler gives later than its call.
pub(crate) const ANSWER: &str = "=";

/// Whether a name on disk is none that a user has given.
pub(crate) fn is_made(name: &str) -> bool {
    name.ends_with(['+', '='])
}

/// A place in a trace: the span of one call, by the terms of W3C Trace Context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Trace {
    /// The trace.
    pub id: [u8; 16],
    /// The span of the call itself; never 0.
    pub span: u64,
    /// The span that it is a part of; 0 if it is the first.
    pub parent: u64,
}

impl Trace {
    /// The span of the `number`th thing that this call has asked for.
    #[must_use]
    pub fn child(&self, number: u32) -> Self {
        // The finalizer of SplitMix64, which spreads close numbers over all others.
        let mut span = self.span.wrapping_add(u64::from(number).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        span = (span ^ span >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        span = (span ^ span >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        span ^= span >> 31;
        Self { id: self.id, span: span.max(1), parent: self.span }
    }

    /// The header of W3C Trace Context for what is a part of this span.
    #[must_use]
    pub fn traceparent(&self) -> String {
        format!("00-{:032x}-{:016x}-01", u128::from_be_bytes(self.id), self.span)
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id);
        out.extend_from_slice(&self.span.to_le_bytes());
        out.extend_from_slice(&self.parent.to_le_bytes());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Truncated> {
        let id = reader.take(16)?.try_into().map_err(|_| Truncated)?;
        let mut number = || Ok(u64::from_le_bytes(reader.take(8)?.try_into().map_err(|_| Truncated)?));
        Ok(Self { id, span: number()?, parent: number()? })
    }
}

/// The instance that has asked, and what it wants to be told with the reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asker {
    pub(crate) function: String,
    /// The name of its handler of the reply.
    pub(crate) reply: String,
    pub(crate) key: Vec<u8>,
    pub(crate) token: u64,
}

/// What a request from outside is found by when its answer comes later than its call.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Ticket {
    /// The idempotency key, and the hash of the request.
    Once(Vec<u8>, u64),
    /// The owner that took it, and its number there: it is gone with that owner.
    Number(u64, u64),
}

impl Ticket {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Once(once, hash) => {
                out.push(0);
                put_bytes(out, once);
                put_varint(out, *hash);
            }
            Self::Number(nonce, number) => {
                out.push(1);
                put_varint(out, *nonce);
                put_varint(out, *number);
            }
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Truncated> {
        match reader.byte()? {
            0 => Ok(Self::Once(reader.bytes()?.to_vec(), reader.varint()?)),
            1 => Ok(Self::Number(reader.varint()?, reader.varint()?)),
            _ => Err(Truncated),
        }
    }
}

/// Who waits for what a call answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Caller {
    /// Nobody.
    #[default]
    Nobody,
    /// An instance that has asked.
    Asker(Asker),
    /// A request from outside.
    Outside(Ticket),
}

/// Appends an envelope; its message is to be appended behind it.
pub(crate) fn put(asker: Option<&Asker>, trace: Option<&Trace>, out: &mut Vec<u8>) {
    out.push(if asker.is_some() { HAS_ASKER } else { 0 } | if trace.is_some() { HAS_TRACE } else { 0 });
    if let Some(Asker { function, reply, key, token }) = asker {
        [function.as_bytes(), reply.as_bytes(), key].into_iter().for_each(|part| put_bytes(out, part));
        put_varint(out, *token);
    }
    trace.inspect(|trace| trace.put(out));
}

/// Reads an envelope; what stands behind it is the message.
pub(crate) fn read(reader: &mut Reader<'_>) -> Result<(Option<Asker>, Option<Trace>), Truncated> {
    let flags = reader.byte()?;
    if flags & !(HAS_ASKER | HAS_TRACE) != 0 {
        return Err(Truncated);
    }
    let mut asker = None;
    if flags & HAS_ASKER != 0 {
        let (function, reply) = (reader.text()?.to_owned(), reader.text()?.to_owned());
        asker = Some(Asker { function, reply, key: reader.bytes()?.to_vec(), token: reader.varint()? });
    }
    let trace = if flags & HAS_TRACE == 0 { None } else { Some(Trace::read(reader)?) };
    Ok((asker, trace))
}

/// A message, by its name on disk and its payload, without the envelope that it may come in.
#[must_use]
pub fn opened<'a>(name: &'a str, payload: &'a [u8]) -> (&'a str, &'a [u8]) {
    let mut reader = Reader::new(payload);
    match name.strip_suffix('+') {
        Some(plain) if read(&mut reader).is_ok() => (plain, &payload[reader.at()..]),
        _ => (name, payload),
    }
}

/// What a call came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// A request from outside that waits for its answer.
    Request,
    /// A message.
    Message,
    /// A timer.
    Timer,
    /// A reply, or the result of an activity.
    Reply,
}

/// What a call did in a trace; told once its epoch is committed.
///
/// A call that is made again because its key was parked is told again, under the same id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanRecord {
    /// Its place in the trace.
    pub trace: Trace,
    /// What it came from.
    pub kind: SpanKind,
    /// The function.
    pub function: String,
    /// The message, the timer's payload, or what was asked, as it is called on disk.
    pub name: String,
    /// The key's bytes.
    pub key: Vec<u8>,
    /// The event time, in milliseconds.
    pub event_time: i64,
    /// The clock of its epoch, in milliseconds.
    pub now: i64,
    /// What went wrong, if the call was rejected or is broken.
    pub error: Option<String>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asker() -> impl Strategy<Value = Asker> {
        ("[a-z/]{0,9}", "[a-z=]{0,9}", any::<Vec<u8>>(), any::<u64>()).prop_map(|(function, reply, key, token)| Asker {
            function,
            reply,
            key,
            token,
        })
    }

    fn trace() -> impl Strategy<Value = Trace> {
        any::<([u8; 16], u64, u64)>().prop_map(|(id, span, parent)| Trace { id, span, parent })
    }

    proptest! {
        #[test]
        fn an_envelope_reads_back(asker in prop::option::of(asker()), trace in prop::option::of(trace()), message: Vec<u8>) {
            let mut bytes = Vec::new();
            put(asker.as_ref(), trace.as_ref(), &mut bytes);
            bytes.extend_from_slice(&message);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(read(&mut reader), Ok((asker, trace)));
            prop_assert_eq!(&bytes[reader.at()..], &message[..]);
        }

        #[test]
        fn outside_bytes_never_panic(bytes: Vec<u8>) {
            let _ = read(&mut Reader::new(&bytes));
            let _ = Ticket::read(&mut Reader::new(&bytes));
        }

        #[test]
        fn children_differ_from_each_other_and_from_their_parent(trace in trace(), number in 0..u32::MAX - 1) {
            let (one, other) = (trace.child(number), trace.child(number + 1));
            prop_assert!(one.span != other.span && one.span != 0);
            prop_assert_eq!((one.parent, one.id), (trace.span, trace.id));
        }
    }
}
