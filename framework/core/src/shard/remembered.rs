//! Answers that are remembered, so that a request that is repeated gets the same answer and is not
//! done twice.
//!
//! They are part of the state of a shard: each stands in the frame of the epoch that did what it
//! tells of, in the fold and in snapshots. An answer is found by the address that was called and the
//! idempotency key, and it is only given for the same request. Answers that end at the same time
//! make a bucket, and a bucket is forgotten as a whole.
//!
//! Invariant: what has ended is forgotten before anything is looked up, so the same clock gives the
//! same answer, whoever owns the shard.
//!
//! An answer that a handler gives later than its call is remembered twice: at first that it is to come,
//! then what it is, as an answer of that later moment.
//!
//! Deliberately absent: answers of reads, which make no frame.

use std::{borrow::Cow, collections::BTreeMap};

use super::{Reply, Trouble, Wants, frame::AnswerRef};
use crate::{
    codec::{Reader, Truncated, put_bytes, put_varint},
    host::Rejection,
    program::NameId,
    time::ProcessingTime,
};

/// In how many buckets the answers of the time that they are kept for stand.
const BUCKETS: i64 = 12;
/// What an answer costs beside its bytes, about.
const ANSWER_BYTES: usize = 128;

/// What an answer is found by: the function, the key, and the idempotency key.
type Id = (NameId, Vec<u8>, Vec<u8>);

/// An answer, encoded, and the hash of the request that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) hash: u64,
    pub(crate) reply: Vec<u8>,
}

/// The answers of a shard; see the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Remembered {
    /// By the time at which they end.
    buckets: BTreeMap<i64, BTreeMap<Id, Kept>>,
    bytes: usize,
}

impl Remembered {
    pub(crate) fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// About how much memory they take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there are answers that have ended.
    pub(crate) fn has_ended(&self, now: ProcessingTime) -> bool {
        self.buckets.first_key_value().is_some_and(|(until, _)| *until <= now.0)
    }

    /// Forgets the answers that have ended.
    pub(crate) fn forget(&mut self, now: i64) {
        while let Some(bucket) = self.buckets.first_entry().filter(|bucket| *bucket.key() <= now) {
            self.bytes -= bucket.remove().iter().map(|(id, kept)| bytes_of(id, kept)).sum::<usize>();
        }
    }

    /// The answer of a request, if it is remembered.
    pub(crate) fn find(&self, function: NameId, key: &[u8], once: &[u8]) -> Option<&Kept> {
        let id = (function, key.to_vec(), once.to_vec());
        self.buckets.values().rev().find_map(|bucket| bucket.get(&id))
    }

    pub(crate) fn keep(&mut self, answer: &AnswerRef<'_>) {
        let id = (answer.function, answer.key.to_vec(), answer.once.to_vec());
        let kept = Kept { hash: answer.hash, reply: answer.reply.to_vec() };
        self.bytes += bytes_of(&id, &kept);
        let before = self.buckets.entry(answer.until).or_default().insert(id.clone(), kept);
        self.bytes -= before.map_or(0, |before| bytes_of(&id, &before));
    }

    /// Every answer, in the order of their ends and then of what they are found by.
    pub(crate) fn iter(&self) -> impl Iterator<Item = AnswerRef<'_>> {
        self.buckets.iter().flat_map(|(until, bucket)| {
            bucket.iter().map(|((function, key, once), Kept { hash, reply })| AnswerRef {
                until: *until,
                function: *function,
                key,
                once,
                hash: *hash,
                reply,
            })
        })
    }
}

fn bytes_of((_, key, once): &Id, kept: &Kept) -> usize {
    ANSWER_BYTES + key.len() + once.len() + kept.reply.len()
}

/// When an answer of this moment ends, if answers are kept for so long at least.
pub(crate) fn until(now: ProcessingTime, kept_ms: i64) -> i64 {
    let step = (kept_ms / BUCKETS).max(1);
    now.0.div_euclid(step).saturating_add(1).saturating_mul(step).saturating_add(kept_ms)
}

/// A number that two requests with one idempotency key have in common only if they are the same:
/// FNV-1a, 64 bits. It stands on disk, so what goes into it stays as it is.
pub(crate) fn hash_of(wants: Wants, message: &str, payload: &[u8]) -> u64 {
    let wants = [match wants {
        Wants::Answer => 0,
        Wants::Commit => 1,
        Wants::State => 2,
        Wants::Replay => 3,
        Wants::Retry => 4,
        Wants::Skip => 5,
        Wants::EditMessage => 6,
        Wants::EditState => 7,
    }];
    let length = (message.len() as u64).to_le_bytes();
    let bytes = wants.iter().chain(&length).chain(message.as_bytes()).chain(payload);
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The encoding of a reply that is remembered; none for one that is not, as nothing was done.
pub(crate) fn encode(reply: &Reply) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match reply {
        Reply::Answered(answer) => {
            out.push(1);
            out.extend_from_slice(answer);
        }
        Reply::Rejected(Rejection { code, status, value }) => {
            out.push(2);
            put_bytes(&mut out, code.as_bytes());
            put_varint(&mut out, u64::from(*status));
            out.extend_from_slice(value);
        }
        Reply::Taken => out.push(3),
        Reply::Failed(Trouble::Faulted(reason)) => {
            out.push(4);
            out.extend_from_slice(reason.as_bytes());
        }
        Reply::Deferred => out.push(6),
        Reply::Resumed { waiting, reason } => {
            out.push(5);
            put_varint(&mut out, *waiting);
            out.extend_from_slice(reason.as_bytes());
        }
        Reply::Failed(_) | Reply::State(_) => return None,
    }
    Some(out)
}

/// Reads a reply that is remembered.
pub(crate) fn decode(bytes: &[u8]) -> Result<Reply, Truncated> {
    let mut reader = Reader::new(bytes);
    Ok(match reader.byte()? {
        1 => Reply::Answered(bytes[1..].to_vec()),
        2 => {
            let (code, status) = (Cow::Owned(reader.text()?.to_owned()), reader.number()?);
            Reply::Rejected(Rejection { code, status, value: bytes[reader.at()..].to_vec() })
        }
        3 if bytes.len() == 1 => Reply::Taken,
        4 => Reply::Failed(Trouble::Faulted(std::str::from_utf8(&bytes[1..]).map_err(|_| Truncated)?.to_owned())),
        6 if bytes.len() == 1 => Reply::Deferred,
        5 => {
            let waiting = reader.varint()?;
            let reason = std::str::from_utf8(&bytes[reader.at()..]).map_err(|_| Truncated)?.to_owned();
            Reply::Resumed { waiting, reason }
        }
        _ => return Err(Truncated),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_that_did_something_survive_their_encoding() {
        let rejection = Rejection { code: "no".into(), status: 409, value: b"{}".to_vec() };
        for reply in [
            Reply::Answered(b"7".to_vec()),
            Reply::Answered(Vec::new()),
            Reply::Rejected(rejection),
            Reply::Taken,
            Reply::Deferred,
            Reply::Failed(Trouble::Faulted("broken".into())),
            Reply::Resumed { waiting: 300, reason: "broken".into() },
            Reply::Resumed { waiting: 0, reason: String::new() },
        ] {
            let bytes = encode(&reply).expect("is remembered");
            assert_eq!(decode(&bytes), Ok(reply));
        }
        for reply in [Trouble::Parked, Trouble::Unreadable(String::new()), Trouble::Waits("x".into())] {
            assert_eq!(encode(&Reply::Failed(reply)), None);
        }
        for bytes in
            [&b""[..], b"\x00", b"\x05", b"\x05\x01\xff", b"\x06x", b"\x07", b"\x02\x05", b"\x03x", b"\x04\xff"]
        {
            assert!(decode(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn answers_are_forgotten_by_the_bucket() {
        let mut remembered = Remembered::default();
        let answer = |now, once| AnswerRef {
            until: until(ProcessingTime(now), 1_200),
            function: 1,
            key: b"a",
            once,
            hash: 2,
            reply: b"\x03",
        };
        remembered.keep(&answer(0, b"first"));
        remembered.keep(&answer(99, b"second"));
        remembered.keep(&answer(100, b"third"));
        assert!(!remembered.has_ended(ProcessingTime(1_299)));
        remembered.forget(1_300);
        assert!(remembered.find(1, b"a", b"first").is_none());
        assert!(remembered.find(1, b"a", b"second").is_none());
        assert!(remembered.find(1, b"a", b"third").is_some());
        assert!(remembered.find(2, b"a", b"third").is_none());
        remembered.forget(1_400);
        assert_eq!((remembered.is_empty(), remembered.bytes()), (true, 0));
    }

    #[test]
    fn requests_differ_in_each_of_their_parts() {
        let hash = hash_of(Wants::Answer, "add", b"1");
        for other in [
            hash_of(Wants::Commit, "add", b"1"),
            hash_of(Wants::Answer, "ad", b"d1"),
            hash_of(Wants::Answer, "add", b"2"),
            hash_of(Wants::Answer, "add1", b""),
        ] {
            assert_ne!(hash, other);
        }
    }
}
