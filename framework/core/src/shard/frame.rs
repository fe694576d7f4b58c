//! The frame: the encoding of an epoch, a claim or a snapshot mark in the journal. Version 1.
//!
//! ```text
//! magic u16 | version u8 | kind u8 | shard u32 | term u64 | nonce u64 | epoch u64 | prev_crc u32
//! | now i64 | body: a sequence of ops, each a tag byte and its fields | crc32c u32 over all before
//! ```
//! Numbers of the header are little-endian, those of the body are varints. Names within a body
//! are places in the table of names of the claim that opened the term.
//!
//! Deliberately absent: compression, which belongs to the log.

use serde::{Deserialize, Serialize};

use super::remembered;
use crate::{
    address::ShardId,
    codec::{Reader, Truncated, put_bytes, put_signed, put_varint},
    effect::Call,
    error::Corrupt,
    program::{NameId, Program},
    time::{EventTime, ProcessingTime},
};

/// The length of a header, in bytes.
pub const HEADER_BYTES: usize = 48;
const TRAILER_BYTES: usize = 4;
/// The longest frame of a snapshot mark, in bytes: its name is that of a shard, an epoch and a
/// nonce, its numbers are varints.
pub const MARK_BYTES_MAX: usize = 256;
const MAGIC: u16 = 0x5F53;
const VERSION: u8 = 1;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// An epoch: a batch of inputs and all it caused.
    Epoch = 1,
    /// A claim of ownership; its body is the table of names.
    Claim = 2,
    /// A mark that a snapshot stands; it counts whoever wrote it and is not in the chain.
    Snapshot = 3,
    /// A part of a frame that is larger than a record may be; `now` is its place, `prev_crc` the count.
    Part = 4,
}

/// The fields of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub kind: Kind,
    /// The shard it belongs to.
    pub shard: ShardId,
    /// The term of its writer.
    pub term: u64,
    /// The nonce of the claim of its writer.
    pub nonce: u64,
    /// The epoch; in a claim or mark the last one before it.
    pub epoch: u64,
    /// The checksum of the epoch frame before it.
    pub prev_crc: u32,
    /// The clock of the epoch.
    pub now: i64,
}

/// The tags of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// A record for an egress.
    Emit = 1,
    /// A message to another shard; its sequence number is the next one for that shard.
    Send = 2,
    /// A timer was set, or a message waits for the watermark.
    PendingAdd = 3,
    /// A timer fired or was cancelled, or a waiting message was delivered.
    PendingRemove = 4,
    /// The states of a function that changed.
    States = 5,
    /// The position of an ingress partition.
    Position = 6,
    /// Up to where messages of a shard were accepted.
    Seen = 7,
    /// Up to where a shard has seen messages of this one.
    Acknowledged = 8,
    /// The watermarks of a function.
    Watermark = 9,
    /// The messages that the next epoch begins with.
    Carry = 10,
    /// A call that a parked key waits with.
    Park = 11,
    /// An answer that is remembered.
    Answer = 12,
    /// Remembered answers that have ended are forgotten.
    ForgetAnswers = 13,
    /// A parked key goes on: its queue is gone, and what stops again stands behind this.
    Unpark = 20,
}

/// Waiting for the watermark: a message.
pub const PENDING_MESSAGE: u8 = 0;
/// Waiting for the watermark: a timer.
pub const PENDING_EVENT_TIMER: u8 = 1;
/// Waiting for the clock: a timer.
pub const PENDING_PROCESSING_TIMER: u8 = 2;
/// Waiting for the clock: a message, which is then sent.
pub const PENDING_DELAYED: u8 = 3;
/// Waiting for the result of an activity: the call of the handler that takes it. It is due when it is
/// given up; its payload is an envelope, the token, and what the activity is given.
pub const PENDING_ACTIVITY: u8 = 4;
/// Set by a timer handler for itself: at the end of a bounded input it does not fire behind the
/// last event, so that a periodic timer cannot keep the app alive.
pub const PENDING_REARMED: u8 = 0x80;

/// Makes room for a header at the front of an empty buffer.
pub(crate) fn begin(body: &mut Vec<u8>) {
    debug_assert!(body.is_empty());
    body.resize(HEADER_BYTES, 0);
}

/// Fills in the header, appends the checksum and returns it.
pub(crate) fn finish(frame: &mut Vec<u8>, header: &Header) -> u32 {
    assert!(frame.len() >= HEADER_BYTES, "a frame begins with room for its header");
    frame[0..2].copy_from_slice(&MAGIC.to_le_bytes());
    frame[2] = VERSION;
    frame[3] = header.kind as u8;
    frame[4..8].copy_from_slice(&header.shard.to_le_bytes());
    frame[8..16].copy_from_slice(&header.term.to_le_bytes());
    frame[16..24].copy_from_slice(&header.nonce.to_le_bytes());
    frame[24..32].copy_from_slice(&header.epoch.to_le_bytes());
    frame[32..36].copy_from_slice(&header.prev_crc.to_le_bytes());
    frame[36..40].copy_from_slice(&[0; 4]);
    frame[40..48].copy_from_slice(&header.now.to_le_bytes());
    let crc = crc32c::crc32c(frame);
    frame.extend_from_slice(&crc.to_le_bytes());
    crc
}

/// A frame whose checksum was verified.
#[derive(Debug, Clone, Copy)]
pub struct FrameRef<'a> {
    /// Its header.
    pub header: Header,
    /// Its ops.
    pub body: &'a [u8],
    /// Its checksum.
    pub crc: u32,
}

/// Reads a frame.
///
/// # Errors
/// If the bytes are no frame of this version, or damaged.
pub fn parse(bytes: &[u8]) -> Result<FrameRef<'_>, Corrupt> {
    if bytes.len() < HEADER_BYTES + TRAILER_BYTES {
        return Err(Corrupt(format!(
            "a frame has at least {} bytes, not {}",
            HEADER_BYTES + TRAILER_BYTES,
            bytes.len()
        )));
    }
    let (content, trailer) = bytes.split_at(bytes.len() - TRAILER_BYTES);
    let crc = u32::from_le_bytes([trailer[0], trailer[1], trailer[2], trailer[3]]);
    if u16::from_le_bytes([content[0], content[1]]) != MAGIC {
        return Err(Corrupt("the record is no frame of a journal".into()));
    }
    if crc32c::crc32c(content) != crc {
        return Err(Corrupt("the checksum of a frame is wrong: its bytes were changed".into()));
    }
    if content[2] != VERSION {
        return Err(Corrupt(format!(
            "the frame has format version {}, this program reads version {VERSION}",
            content[2]
        )));
    }
    Ok(FrameRef { header: header(content)?, body: &content[HEADER_BYTES..], crc })
}

/// The bytes as a frame whose magic, version, kind and checksum are right.
#[cfg(feature = "fuzzing")]
pub(crate) fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut frame = bytes.to_vec();
    frame.resize(bytes.len().max(HEADER_BYTES), 0);
    frame[0..2].copy_from_slice(&MAGIC.to_le_bytes());
    (frame[2], frame[3]) = (VERSION, frame[3] % 4 + 1);
    let crc = crc32c::crc32c(&frame);
    frame.extend_from_slice(&crc.to_le_bytes());
    frame
}

fn header(content: &[u8]) -> Result<Header, Corrupt> {
    let u32_at = |at: usize| u32::from_le_bytes([content[at], content[at + 1], content[at + 2], content[at + 3]]);
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    let kind = match content[3] {
        1 => Kind::Epoch,
        2 => Kind::Claim,
        3 => Kind::Snapshot,
        4 => Kind::Part,
        other => return Err(Corrupt(format!("the frame has the unknown kind {other}"))),
    };
    Ok(Header {
        kind,
        shard: u32_at(4),
        term: u64_at(8),
        nonce: u64_at(16),
        epoch: u64_at(24),
        prev_crc: u32_at(32),
        now: u64_at(40) as i64,
    })
}

/// Cuts a frame into parts of at most `limit` bytes; none if it fits.
pub(crate) fn split(frame: &[u8], header: &Header, limit: usize) -> Vec<Vec<u8>> {
    if frame.len() <= limit {
        return Vec::new();
    }
    let room = limit.saturating_sub(HEADER_BYTES + TRAILER_BYTES).max(1);
    let count = frame.len().div_ceil(room) as u32;
    let part = |(place, chunk): (usize, &[u8])| {
        let mut part = Vec::with_capacity(HEADER_BYTES + chunk.len() + TRAILER_BYTES);
        begin(&mut part);
        part.extend_from_slice(chunk);
        finish(&mut part, &Header { kind: Kind::Part, prev_crc: count, now: place as i64, ..*header });
        part
    };
    frame.chunks(room).enumerate().map(part).collect()
}

/// The table of names of a claim.
pub(crate) fn put_names(names: &[String], out: &mut Vec<u8>) {
    put_varint(out, names.len() as u64);
    names.iter().for_each(|name| put_bytes(out, name.as_bytes()));
}

pub(crate) fn read_names(reader: &mut Reader<'_>) -> Result<Vec<String>, Truncated> {
    let count: usize = reader.number()?;
    let mut names = Vec::new();
    for _ in 0..count {
        names.push(reader.text()?.to_owned());
    }
    Ok(names)
}

/// A snapshot that a mark names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotMark {
    /// Its name in the place for snapshots.
    pub name: String,
    /// Its length in bytes.
    pub length: u64,
    /// The crc32c of its bytes, but for the last four, which hold it too.
    pub crc: u32,
    /// The epoch whose state it holds.
    pub epoch: u64,
    /// The offset of the first record that it does not hold.
    pub next_offset: u64,
}

impl SnapshotMark {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.name.as_bytes());
        put_varint(out, self.length);
        put_varint(out, u64::from(self.crc));
        put_varint(out, self.epoch);
        put_varint(out, self.next_offset);
    }

    pub(crate) fn read(body: &[u8]) -> Result<Self, Truncated> {
        let mut reader = Reader::new(body);
        Ok(Self {
            name: reader.text()?.to_owned(),
            length: reader.varint()?,
            crc: reader.number()?,
            epoch: reader.varint()?,
            next_offset: reader.varint()?,
        })
    }
}

/// A position of an ingress partition, as a shard has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Position {
    /// Where the next record begins; its meaning is the ingress's own, it only grows.
    pub offset: u64,
    /// How many records come before it.
    pub records: u64,
    /// The highest event time before it; `None` before the first record.
    pub event_time_max: Option<EventTime>,
    /// Whether the partition has ended.
    pub is_ended: bool,
}

impl Position {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.offset);
        put_varint(out, self.records);
        out.push(u8::from(self.is_ended) | u8::from(self.event_time_max.is_some()) << 1);
        if let Some(time) = self.event_time_max {
            put_signed(out, time.0);
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Truncated> {
        let (offset, records, flags) = (reader.varint()?, reader.varint()?, reader.byte()?);
        let event_time_max = if flags & 2 == 0 { None } else { Some(EventTime(reader.signed()?)) };
        Ok(Self { offset, records, event_time_max, is_ended: flags & 1 == 1 })
    }

    /// No event at or before this time is still to come, but late ones.
    #[must_use]
    pub fn watermark(&self, lateness_ms: i64) -> EventTime {
        match self.event_time_max {
            _ if self.is_ended => EventTime::MAX,
            None => EventTime::MIN,
            Some(time) => EventTime(time.0.saturating_sub(lateness_ms).saturating_sub(1)),
        }
    }
}

/// A message as it stands in outboxes, mailboxes, carry queues and parked queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageRef<'a> {
    /// The function.
    pub function: NameId,
    /// The message, or the payload of a timer.
    pub message: NameId,
    /// The event time.
    pub time: EventTime,
    /// The key.
    pub key: &'a [u8],
    /// The encoded message.
    pub payload: &'a [u8],
}

impl<'a> MessageRef<'a> {
    /// What a call of a handler says, its bytes in `bytes`.
    pub(crate) fn of_call(program: &Program, call: &Call, bytes: &'a [u8]) -> Self {
        let (function, message) = program.names_of(call);
        Self { function, message, time: call.time, key: call.key.of(bytes), payload: call.payload.of(bytes) }
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(self.function));
        put_varint(out, u64::from(self.message));
        put_signed(out, self.time.0);
        put_bytes(out, self.key);
        put_bytes(out, self.payload);
    }

    /// Reads one message.
    ///
    /// # Errors
    /// If the bytes end too early.
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, Truncated> {
        Ok(Self {
            function: reader.number()?,
            message: reader.number()?,
            time: EventTime(reader.signed()?),
            key: reader.bytes()?,
            payload: reader.bytes()?,
        })
    }
}

/// A pending timer or message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingRef<'a> {
    /// Its number, unique in the shard and rising.
    pub id: u64,
    /// One of the `PENDING_` kinds, with or without [`PENDING_REARMED`].
    pub kind: u8,
    /// When it is due, in milliseconds.
    pub due: i64,
    /// The name it replaces others by; empty if it has none.
    pub name: &'a [u8],
    /// What is to be delivered.
    pub message: MessageRef<'a>,
}

impl<'a> PendingRef<'a> {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.id);
        out.push(self.kind);
        put_varint(out, u64::from(self.message.function));
        put_varint(out, u64::from(self.message.message));
        put_signed(out, self.due);
        put_signed(out, self.message.time.0);
        put_bytes(out, self.name);
        put_bytes(out, self.message.key);
        put_bytes(out, self.message.payload);
    }

    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, Truncated> {
        let (id, kind) = (reader.varint()?, reader.byte()?);
        let (function, message) = (reader.number()?, reader.number()?);
        let (due, time) = (reader.signed()?, EventTime(reader.signed()?));
        let (name, key, payload) = (reader.bytes()?, reader.bytes()?, reader.bytes()?);
        Ok(Self { id, kind, due, name, message: MessageRef { function, message, time, key, payload } })
    }
}

/// An answer that is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerRef<'a> {
    /// When it ends, in milliseconds.
    pub until: i64,
    /// The function that was called.
    pub function: NameId,
    /// The key that was called.
    pub key: &'a [u8],
    /// The idempotency key.
    pub once: &'a [u8],
    /// The hash of the request.
    pub hash: u64,
    /// The encoded reply.
    pub reply: &'a [u8],
}

impl<'a> AnswerRef<'a> {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        put_signed(out, self.until);
        put_varint(out, u64::from(self.function));
        put_bytes(out, self.key);
        put_bytes(out, self.once);
        put_varint(out, self.hash);
        put_bytes(out, self.reply);
    }

    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, Truncated> {
        let (until, function) = (reader.signed()?, reader.number()?);
        let (key, once, hash) = (reader.bytes()?, reader.bytes()?, reader.varint()?);
        let reply = reader.bytes()?;
        // It will be given some day: it is read once before.
        remembered::decode(reply)?;
        Ok(Self { until, function, key, once, hash, reply })
    }
}

/// One op of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpRef<'a> {
    /// See [`Op::Emit`].
    Emit(NameId, &'a [u8]),
    /// See [`Op::Send`]; the message, and its bytes.
    Send(ShardId, MessageRef<'a>, &'a [u8]),
    /// See [`Op::PendingAdd`].
    PendingAdd(PendingRef<'a>),
    /// See [`Op::PendingRemove`].
    PendingRemove(u64),
    /// See [`Op::States`]: one state; no bytes mean that it is gone.
    State(NameId, &'a [u8], &'a [u8]),
    /// See [`Op::Position`].
    Position(NameId, u32, Position),
    /// See [`Op::Seen`].
    Seen(ShardId, u64),
    /// See [`Op::Acknowledged`].
    Acknowledged(ShardId, u64),
    /// See [`Op::Watermark`]: of the function, what it has reached and what it lets out.
    Watermark(NameId, EventTime, EventTime),
    /// See [`Op::Carry`].
    Carry(MessageRef<'a>),
    /// See [`Op::Park`]: whether it is a timer, the call, and the reason if it is the first.
    Park(bool, MessageRef<'a>, &'a str),
    /// See [`Op::Answer`].
    Answer(AnswerRef<'a>),
    /// See [`Op::ForgetAnswers`]: those that end at this time or before it, in milliseconds.
    ForgetAnswers(i64),
    /// See [`Op::Unpark`]: the function and the key.
    Unpark(NameId, &'a [u8]),
}

/// Calls `each` with every op of a body.
///
/// # Errors
/// If the body cannot be read to its end.
pub fn ops<'a>(body: &'a [u8], mut each: impl FnMut(OpRef<'a>)) -> Result<(), Corrupt> {
    let mut reader = Reader::new(body);
    while !reader.is_empty() {
        match reader.byte()? {
            1 => each(OpRef::Emit(reader.number()?, reader.bytes()?)),
            2 => {
                let target = reader.number()?;
                let start = reader.at();
                let message = MessageRef::read(&mut reader)?;
                each(OpRef::Send(target, message, &body[start..reader.at()]));
            }
            3 => each(OpRef::PendingAdd(PendingRef::read(&mut reader)?)),
            4 => each(OpRef::PendingRemove(reader.varint()?)),
            5 => {
                let (function, count) = (reader.number()?, reader.varint()?);
                for _ in 0..count {
                    each(OpRef::State(function, reader.bytes()?, reader.bytes()?));
                }
            }
            6 => each(OpRef::Position(reader.number()?, reader.number()?, Position::read(&mut reader)?)),
            7 => each(OpRef::Seen(reader.number()?, reader.varint()?)),
            8 => each(OpRef::Acknowledged(reader.number()?, reader.varint()?)),
            9 => each(OpRef::Watermark(reader.number()?, EventTime(reader.signed()?), EventTime(reader.signed()?))),
            10 => each(OpRef::Carry(MessageRef::read(&mut reader)?)),
            11 => {
                let is_timer = reader.byte()? == 1;
                let message = MessageRef::read(&mut reader)?;
                each(OpRef::Park(is_timer, message, reader.text()?));
            }
            12 => each(OpRef::Answer(AnswerRef::read(&mut reader)?)),
            13 => each(OpRef::ForgetAnswers(reader.signed()?)),
            20 => each(OpRef::Unpark(reader.number()?, reader.bytes()?)),
            other => {
                return Err(Corrupt(format!(
                    "the body of a frame has the unknown op {other} at byte {}",
                    reader.at() - 1
                )));
            }
        }
    }
    Ok(())
}

/// The clock of a header.
impl Header {
    /// The clock of the epoch.
    #[must_use]
    pub fn now(&self) -> ProcessingTime {
        ProcessingTime(self.now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> (Vec<u8>, Header) {
        let mut frame = Vec::new();
        begin(&mut frame);
        frame.push(Op::PendingRemove as u8);
        put_varint(&mut frame, 700);
        let header = Header { kind: Kind::Epoch, shard: 3, term: 4, nonce: 5, epoch: 6, prev_crc: 7, now: -8 };
        finish(&mut frame, &header);
        (frame, header)
    }

    #[test]
    fn a_frame_reads_back() {
        let (frame, header) = sample();
        let parsed = parse(&frame).expect("is whole");
        assert_eq!(parsed.header, header);
        let mut seen = Vec::new();
        ops(parsed.body, |op| seen.push(format!("{op:?}"))).expect("readable");
        assert_eq!(seen, ["PendingRemove(700)"]);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let (frame, _) = sample();
        for bit in 0..frame.len() * 8 {
            let mut damaged = frame.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn parts_hold_the_whole_frame() {
        let (frame, header) = sample();
        let parts = split(&frame, &header, HEADER_BYTES + 4 + 2);
        let joined: Vec<u8> = parts.iter().flat_map(|part| parse(part).expect("whole").body.to_vec()).collect();
        assert_eq!(joined, frame);
        assert!(split(&frame, &header, frame.len()).is_empty());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_whole_and_in_parts(
            (shard, term, nonce, epoch, prev_crc, now) in any::<(ShardId, u64, u64, u64, u32, i64)>(),
            body in prop::collection::vec(any::<u8>(), 0..400),
            limit in HEADER_BYTES + TRAILER_BYTES + 1..300,
        ) {
            let header = Header { kind: Kind::Epoch, shard, term, nonce, epoch, prev_crc, now };
            let mut frame = Vec::new();
            begin(&mut frame);
            frame.extend_from_slice(&body);
            finish(&mut frame, &header);
            let parsed = parse(&frame).expect("is whole");
            prop_assert_eq!((parsed.header, parsed.body), (header, &body[..]));
            let parts = split(&frame, &header, limit);
            prop_assert!(parts.iter().all(|part| part.len() <= limit));
            let mut joined = Vec::new();
            for part in &parts {
                joined.extend_from_slice(parse(part).expect("is whole").body);
            }
            let expected: &[u8] = if frame.len() <= limit { &[] } else { &frame };
            prop_assert_eq!(joined, expected);
        }

        #[test]
        fn outside_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
            let _ = ops(&bytes, |_| {});
            let _ = SnapshotMark::read(&bytes);
        }
    }
}
