//! The fold: what a journal means, as a pure function from its records to the state of the shard.
//!
//! The rules, in one place: a claim counts iff its term is higher than every claim before it; a
//! snapshot mark always counts; an epoch frame counts iff term and nonce are those of the current
//! claim, its epoch is the last + 1 and its `prev_crc` matches. Of the current owner, an epoch at
//! or before the last is a duplicate; anything else of it halts the shard, because a log lost
//! records or this code is wrong. So does a clock, a position or a watermark that goes back (I2,
//! I6). All else is void. A split frame stands, and is judged, where its
//! last part stands.
//!
//! Invariant: the encoding of an image equals, byte for byte, the snapshot that the owner writes
//! of the same epoch.
//!
//! Deliberately absent: anything that a take-over needs in an order, but the snapshot. States are
//! most of an image; they stand in one buffer and are sorted only where their order matters.

use std::collections::BTreeMap;

use super::{
    frame::{self, AnswerRef, FrameRef, Header, Kind, MessageRef, OpRef, PendingRef, Position, SnapshotMark},
    remembered::Remembered,
    rules::{Rule, Rules},
    states::States,
};
use crate::{
    address::ShardId,
    codec::{Reader, put_bytes, put_signed, put_varint},
    error::Corrupt,
    ports::log::Offset,
    program::NameId,
    time::EventTime,
};

const SNAPSHOT_MAGIC: &[u8; 7] = b"statefn";
/// The version of a snapshot without remembered answers.
const VERSION_PLAIN: u8 = 1;
/// The version of one that has a list of them behind the parked keys.
const VERSION_ANSWERS: u8 = 2;
/// The length of the checksum at the end of a snapshot, in bytes.
const TRAILER_BYTES: usize = 4;

/// The highest number that a state may hold where it counts: the shard goes on counting from there.
const NUMBER_MAX: u64 = u64::MAX >> 1;

/// What a record of the journal meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// A claim; the shard has a new owner.
    Claimed,
    /// An epoch was committed.
    Committed,
    /// A snapshot stands.
    Marked,
    /// A part of a frame; the last one decides.
    Part,
    /// It means nothing.
    Void,
}

/// A key that stopped, with the calls it waits with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parked {
    /// Why it stopped.
    pub reason: String,
    /// The calls, encoded, the one that failed first; `true` for a timer.
    pub queue: Vec<(bool, Vec<u8>)>,
    /// How many bytes the calls have.
    pub(crate) bytes: usize,
}

impl Parked {
    /// The calls that wait, the one that failed first; `true` for a timer.
    pub fn calls(&self) -> impl Iterator<Item = (bool, MessageRef<'_>)> {
        self.queue.iter().map(|(is_timer, message)| (*is_timer, own_message(message)))
    }

    /// Lets a call wait; `reason` counts if it is the first.
    pub(crate) fn push(&mut self, is_timer: bool, message: &MessageRef<'_>, reason: &str) {
        if self.queue.is_empty() {
            reason.clone_into(&mut self.reason);
        }
        let call = put(|out| message.put(out));
        self.bytes += call.len();
        self.queue.push((is_timer, call));
    }
}

/// The state of a shard as its journal tells it.
#[derive(Debug, Clone, Default)]
pub struct Image {
    pub(crate) shard: ShardId,
    pub(crate) names: Vec<String>,
    pub(crate) term: u64,
    pub(crate) nonce: u64,
    pub(crate) epoch: u64,
    pub(crate) crc: u32,
    pub(crate) now: i64,
    pub(crate) next_offset: Offset,
    pub(crate) pending_next: u64,
    pub(crate) positions: BTreeMap<(NameId, u32), Position>,
    pub(crate) seen: BTreeMap<ShardId, u64>,
    pub(crate) sent: BTreeMap<ShardId, u64>,
    pub(crate) acknowledged: BTreeMap<ShardId, u64>,
    pub(crate) outbox: BTreeMap<(ShardId, u64), Vec<u8>>,
    pub(crate) watermarks: BTreeMap<NameId, (EventTime, EventTime)>,
    pub(crate) carry: Vec<Vec<u8>>,
    pub(crate) pending: BTreeMap<u64, Vec<u8>>,
    pub(crate) parked: BTreeMap<(NameId, Vec<u8>), Parked>,
    pub(crate) remembered: Remembered,
    pub(crate) states: States,
    /// The snapshots whose marks were read, oldest first.
    pub(crate) marks: Vec<SnapshotMark>,
    parts: BTreeMap<(u64, u64, u64), Vec<u8>>,
    rules: Rules,
}

impl Image {
    /// The state of a shard whose journal is empty.
    #[must_use]
    pub fn new(shard: ShardId) -> Self {
        Self { shard, ..Self::default() }
    }

    /// The same, folded by these rules from here on.
    #[must_use]
    pub fn under(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    /// The last committed epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The number that the next pending timer, message or call of an activity gets.
    #[must_use]
    pub fn pending_next(&self) -> u64 {
        self.pending_next
    }

    /// The offset of the first record that was not folded.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// The term of the current owner.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.term
    }

    /// The nonce of the current owner's claim.
    #[must_use]
    pub fn nonce(&self) -> u64 {
        self.nonce
    }

    /// Every state: function, key, encoded state; in order.
    pub fn states(&self) -> impl Iterator<Item = (&str, &[u8], &[u8])> {
        self.states.sorted().map(|state| (self.name(state.function), state.key, state.state))
    }

    /// Every position: ingress, partition, and the first record that the shard has not taken.
    pub fn positions(&self) -> impl Iterator<Item = (&str, u32, Position)> {
        self.positions.iter().map(|((ingress, partition), position)| (self.name(*ingress), *partition, *position))
    }

    /// Every parked key: function, key, what is parked; in order.
    pub fn parked(&self) -> impl Iterator<Item = (&str, &[u8], &Parked)> {
        self.parked.iter().map(|((function, key), parked)| (self.name(*function), &key[..], parked))
    }

    /// Every message to another shard whose acknowledgement this one does not know yet: target,
    /// number, message; in order. The target may have it in its own frames, see [`Self::seen`].
    pub fn outbox(&self) -> impl Iterator<Item = (ShardId, u64, MessageRef<'_>)> {
        self.outbox.iter().map(|((target, sequence), message)| (*target, *sequence, own_message(message)))
    }

    /// How many messages of the shard `source` its committed frames have accepted.
    #[must_use]
    pub fn seen(&self, source: ShardId) -> u64 {
        self.seen.get(&source).copied().unwrap_or_default()
    }

    /// How many messages its committed frames have for the shard `target`.
    #[must_use]
    pub fn sent(&self, target: ShardId) -> u64 {
        self.sent.get(&target).copied().unwrap_or_default()
    }

    /// How many of these it knows that the target's committed frames have.
    #[must_use]
    pub fn acknowledged(&self, target: ShardId) -> u64 {
        self.acknowledged.get(&target).copied().unwrap_or_default()
    }

    /// The messages that the next epoch begins with.
    pub fn carried(&self) -> impl Iterator<Item = MessageRef<'_>> {
        self.carry.iter().map(|message| own_message(message))
    }

    /// Every timer that is set, and every message that waits for the watermark; in the order in
    /// which they were set.
    ///
    /// # Panics
    /// Never; the image has encoded them itself, or read them once.
    pub fn pending(&self) -> impl Iterator<Item = PendingRef<'_>> {
        let read = |bytes| PendingRef::read(&mut Reader::new(bytes));
        self.pending.values().map(move |bytes| read(bytes).expect("an image can read what it holds"))
    }

    /// The name with this number in the current table.
    #[must_use]
    pub fn name(&self, id: NameId) -> &str {
        self.names.get(usize::from(id)).map_or("?", String::as_str)
    }

    /// Folds one record in; `committed` is called with each committed epoch frame.
    ///
    /// # Errors
    /// A damaged record, or a broken chain of the current owner: the shard must halt.
    pub fn fold(
        &mut self,
        offset: Offset,
        record: &[u8],
        committed: &mut dyn FnMut(&Self, &FrameRef<'_>),
    ) -> Result<Verdict, Corrupt> {
        assert_eq!(offset, self.next_offset, "a journal is folded record by record");
        let place =
            |error: Corrupt| Corrupt(format!("offset {offset} of the journal of shard {}: {error}", self.shard));
        let frame = frame::parse(record).map_err(place)?;
        if frame.header.shard != self.shard {
            return Err(place(Corrupt(format!("the frame belongs to shard {}", frame.header.shard))));
        }
        let verdict = match frame.header.kind {
            Kind::Part => self.part(&frame, committed),
            _ => self.whole(&frame, committed),
        };
        let shard = self.shard;
        self.next_offset = offset + 1;
        verdict.map_err(|error| Corrupt(format!("offset {offset} of the journal of shard {shard}: {error}")))
    }

    fn part(
        &mut self,
        frame: &FrameRef<'_>,
        committed: &mut dyn FnMut(&Self, &FrameRef<'_>),
    ) -> Result<Verdict, Corrupt> {
        let Header { term, nonce, epoch, prev_crc: count, now: place, .. } = frame.header;
        let key = (term, nonce, epoch);
        if !self.are_parts_judged_at_the_last() {
            return self.part_judged_at_the_first(frame, committed);
        }
        if place == 0 {
            self.parts.insert(key, Vec::new());
        }
        let Some(joined) = self.parts.get_mut(&key) else { return Ok(Verdict::Void) };
        joined.extend_from_slice(frame.body);
        if place.saturating_add(1) < i64::from(count) {
            return Ok(Verdict::Part);
        }
        let joined = self.parts.remove(&key).unwrap_or_default();
        // A part of an append that failed may be missing; what cannot be read whole is void.
        match frame::parse(&joined) {
            Ok(whole) => self.whole(&whole, committed),
            Err(_) => Ok(Verdict::Void),
        }
    }

    /// What a mutant does: the parts of a frame whose first part counts stay what they are.
    fn part_judged_at_the_first(
        &mut self,
        frame: &FrameRef<'_>,
        committed: &mut dyn FnMut(&Self, &FrameRef<'_>),
    ) -> Result<Verdict, Corrupt> {
        let Header { term, nonce, epoch, prev_crc: count, now: place, .. } = frame.header;
        let key = (term, nonce, epoch);
        if place == 0 && (term, nonce) == (self.term, self.nonce) {
            self.parts.insert(key, Vec::new());
        }
        let Some(joined) = self.parts.get_mut(&key) else { return Ok(Verdict::Void) };
        joined.extend_from_slice(frame.body);
        if place.saturating_add(1) < i64::from(count) {
            return Ok(Verdict::Part);
        }
        let joined = self.parts.remove(&key).unwrap_or_default();
        match frame::parse(&joined) {
            Ok(whole) if whole.header.epoch == self.epoch + 1 => self.epoch_frame(&whole, committed),
            _ => Ok(Verdict::Void),
        }
    }

    fn are_parts_judged_at_the_last(&self) -> bool {
        self.rules.holds(Rule::PartsAreJudgedAtTheLast)
    }

    /// Whether a claim of this term counts.
    fn is_claim(&self, term: u64) -> bool {
        let is_new = if self.rules.holds(Rule::EqualTermsAreVoid) { term > self.term } else { term >= self.term };
        is_new || !self.rules.holds(Rule::ClaimsRaiseTheTerm)
    }

    fn whole(
        &mut self,
        frame: &FrameRef<'_>,
        committed: &mut dyn FnMut(&Self, &FrameRef<'_>),
    ) -> Result<Verdict, Corrupt> {
        let header = &frame.header;
        match header.kind {
            Kind::Snapshot => {
                self.marks.push(SnapshotMark::read(frame.body)?);
                Ok(Verdict::Marked)
            }
            Kind::Claim if header.term == u64::MAX => Err(Corrupt("no term can follow that of a claim".into())),
            Kind::Claim if self.is_claim(header.term) => {
                let names = frame::read_names(&mut Reader::new(frame.body))?;
                self.rename(names)?;
                (self.term, self.nonce) = (header.term, header.nonce);
                if self.are_parts_judged_at_the_last() {
                    self.parts.clear();
                }
                Ok(Verdict::Claimed)
            }
            Kind::Epoch if (header.term, header.nonce) == (self.term, self.nonce) => self.epoch_frame(frame, committed),
            _ => Ok(Verdict::Void),
        }
    }

    fn epoch_frame(
        &mut self,
        frame: &FrameRef<'_>,
        committed: &mut dyn FnMut(&Self, &FrameRef<'_>),
    ) -> Result<Verdict, Corrupt> {
        let header = &frame.header;
        if header.epoch <= self.epoch {
            return Ok(Verdict::Void);
        }
        let follows = header.epoch - 1 == self.epoch && header.prev_crc == self.crc;
        if !follows && self.rules.holds(Rule::ChainIsUnbroken) {
            return Err(Corrupt(format!(
                "epoch {} of the current owner does not follow epoch {}: the log lost records, stop and restore it",
                header.epoch, self.epoch
            )));
        }
        if header.now < self.now {
            return Err(Corrupt(format!("the clock of epoch {} goes back (I6)", header.epoch)));
        }
        self.carry.clear();
        let mut applied = Ok(());
        frame::ops(frame.body, |op| {
            if applied.is_ok() {
                applied = self.apply(op);
            }
        })?;
        applied?;
        (self.epoch, self.crc) = (header.epoch, frame.crc);
        self.now = header.now;
        committed(self, frame);
        Ok(Verdict::Committed)
    }

    fn apply(&mut self, op: OpRef<'_>) -> Result<(), Corrupt> {
        match op {
            OpRef::Send(target, _, message) => {
                let sent = self.sent.entry(target).or_default();
                *sent = sent.checked_add(1).ok_or_else(no_next_number)?;
                self.outbox.insert((target, *sent), message.to_vec());
            }
            OpRef::PendingAdd(pending) => {
                self.pending_next = self.pending_next.max(pending.id.checked_add(1).ok_or_else(no_next_number)?);
                let mut bytes = Vec::new();
                pending.put(&mut bytes);
                self.pending.insert(pending.id, bytes);
            }
            OpRef::PendingRemove(id) => _ = self.pending.remove(&id),
            OpRef::State(function, key, []) => self.states.remove(function, key)?,
            OpRef::State(function, key, state) => self.states.put(function, key, state)?,
            OpRef::Position(ingress, partition, position) => {
                let old = self.positions.insert((ingress, partition), position);
                if old.is_some_and(|old| old.offset > position.offset) {
                    return Err(Corrupt(format!("the position of partition {partition} of an ingress goes back (I2)")));
                }
            }
            OpRef::Seen(source, upto) => _ = self.seen.insert(source, upto),
            OpRef::Acknowledged(target, upto) => {
                self.acknowledged.insert(target, upto);
                self.forget_sent(target, upto);
            }
            OpRef::Watermark(function, reached, out) => {
                let old = self.watermarks.insert(function, (reached, out));
                if old.is_some_and(|(old_reached, old_out)| old_reached > reached || old_out > out) {
                    return Err(Corrupt("a watermark goes back (I6)".into()));
                }
            }
            OpRef::Carry(message) => self.carry.push(put(|out| message.put(out))),
            OpRef::Park(is_timer, message, reason) => {
                let parked = self.parked.entry((message.function, message.key.to_vec())).or_default();
                parked.push(is_timer, &message, reason);
            }
            OpRef::Answer(answer) if self.rules.holds(Rule::FoldHasAnswers) => self.remembered.keep(&answer),
            OpRef::Emit(..) | OpRef::Answer(_) => {}
            OpRef::ForgetAnswers(now) => self.remembered.forget(now),
            OpRef::Unpark(..) if !self.rules.holds(Rule::UnparkClearsTheQueue) => {}
            OpRef::Unpark(function, key) => {
                let parked = self.parked.remove(&(function, key.to_vec()));
                parked.ok_or_else(|| Corrupt("a key goes on that is not parked".into()))?;
            }
        }
        Ok(())
    }

    /// Forgets the messages to a target that its committed frames have.
    pub fn forget_sent(&mut self, target: ShardId, upto: u64) {
        while let Some((&first, _)) = self.outbox.range((target, 0)..=(target, upto)).next() {
            self.outbox.remove(&first);
        }
    }

    /// Refuses a state that no shard of an app of `shards` shards can have: one that knows shards
    /// that there are not, has counted too far, or whose outbox does not hold just what is not acknowledged.
    pub(crate) fn check(&self, shards: u32) -> Result<(), Corrupt> {
        let known = [&self.seen, &self.sent, &self.acknowledged].into_iter().flat_map(BTreeMap::keys);
        if let Some(unknown) = known.chain(self.outbox.keys().map(|(to, _)| to)).find(|shard| **shard >= shards) {
            return Err(Corrupt(format!(
                "the state of shard {} knows a shard {unknown}, and there are only {shards}",
                self.shard
            )));
        }
        let counted = [&self.seen, &self.sent, &self.acknowledged].into_iter().flat_map(BTreeMap::values);
        let numbers = [self.term, self.epoch, self.next_offset, self.pending_next];
        if let Some(number) = counted.chain(&numbers).find(|number| **number > NUMBER_MAX) {
            return Err(Corrupt(format!(
                "the state of shard {} holds the number {number}, which no app comes to",
                self.shard
            )));
        }
        for target in 0..shards {
            let upto = |numbers: &BTreeMap<ShardId, u64>| numbers.get(&target).copied().unwrap_or_default();
            let (acknowledged, sent) = (upto(&self.acknowledged), upto(&self.sent));
            let mut held = self.outbox.range((target, 0)..=(target, u64::MAX)).map(|((_, number), _)| *number);
            let follow =
                held.try_fold(acknowledged, |before, number| (number.checked_sub(1) == Some(before)).then_some(number));
            if follow != Some(sent) {
                return Err(Corrupt(format!(
                    "the outbox of shard {} does not hold the messages behind {acknowledged} up to {sent} for shard {target}",
                    self.shard
                )));
            }
        }
        Ok(())
    }

    /// Goes over to a new table of names; names that it lacks but are in use are kept at its end.
    pub(crate) fn rename(&mut self, names: Vec<String>) -> Result<(), Corrupt> {
        if names == self.names {
            return Ok(());
        }
        let old = std::mem::replace(&mut self.names, names);
        let new = &mut self.names;
        let mut renamed_ids = vec![None; old.len()];
        let mut rename = |id: NameId| -> Result<NameId, Corrupt> {
            if let Some(Some(known)) = renamed_ids.get(usize::from(id)) {
                return Ok(*known);
            }
            let name = old
                .get(usize::from(id))
                .ok_or_else(|| Corrupt(format!("a name {id} is not in the table of its claim")))?;
            let place = new.iter().position(|known| known == name).unwrap_or_else(|| {
                new.push(name.clone());
                new.len() - 1
            });
            let place = NameId::try_from(place).map_err(|_| Corrupt("there are more than 65,536 names".into()))?;
            renamed_ids[usize::from(id)] = Some(place);
            Ok(place)
        };
        let mut message = |bytes: &[u8]| -> Result<Vec<u8>, Corrupt> {
            let message = MessageRef::read(&mut Reader::new(bytes))?;
            let message =
                MessageRef { function: rename(message.function)?, message: rename(message.message)?, ..message };
            Ok(put(|out| message.put(out)))
        };
        for bytes in self.outbox.values_mut().chain(&mut self.carry) {
            *bytes = message(bytes)?;
        }
        for parked in self.parked.values_mut() {
            for (_, call) in &mut parked.queue {
                *call = message(call)?;
            }
            parked.bytes = parked.queue.iter().map(|(_, call)| call.len()).sum();
        }
        for bytes in self.pending.values_mut() {
            let pending = PendingRef::read(&mut Reader::new(bytes))?;
            let inner = MessageRef {
                function: rename(pending.message.function)?,
                message: rename(pending.message.message)?,
                ..pending.message
            };
            let renamed = put(|out| PendingRef { message: inner, ..pending }.put(out));
            *bytes = renamed;
        }
        self.positions = renamed(&mut self.positions, |(ingress, partition)| Ok((rename(ingress)?, partition)))?;
        self.watermarks = renamed(&mut self.watermarks, &mut rename)?;
        self.parked = renamed(&mut self.parked, |(function, key)| Ok((rename(function)?, key)))?;
        self.states = self.states.renamed(&mut rename)?;
        let remembered = std::mem::take(&mut self.remembered);
        for answer in remembered.iter() {
            self.remembered.keep(&AnswerRef { function: rename(answer.function)?, ..answer });
        }
        Ok(())
    }

    /// The snapshot of this state.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = SnapshotWriter::new(&SnapshotHead {
            shard: self.shard,
            term: self.term,
            nonce: self.nonce,
            epoch: self.epoch,
            crc: self.crc,
            now: self.now,
            next_offset: self.next_offset,
            pending_next: self.pending_next,
            names: &self.names,
            has_answers: !self.remembered.is_empty(),
        });
        writer.list(self.positions.iter(), |((ingress, partition), position), out| {
            put_varint(out, u64::from(*ingress));
            put_varint(out, u64::from(*partition));
            position.put(out);
        });
        for numbers in [&self.seen, &self.sent, &self.acknowledged] {
            writer
                .list(numbers.iter().filter(|(_, upto)| **upto > 0), |(shard, upto), out| put_pair(*shard, *upto, out));
        }
        writer.list(self.outbox.iter(), |((target, sequence), message), out| {
            put_pair(*target, *sequence, out);
            put_bytes(out, message);
        });
        writer.list(self.watermarks.iter(), |(function, (reached, lets_out)), out| {
            put_watermark(*function, *reached, *lets_out, out);
        });
        writer.list(self.carry.iter(), |message, out| put_bytes(out, message));
        writer.list(self.pending.values(), |pending, out| put_bytes(out, pending));
        writer.list(self.parked.iter(), |((function, key), parked), out| put_parked(*function, key, parked, out));
        writer.answers(&self.remembered);
        writer.list(self.states.sorted(), |state, out| put_state(state.function, state.key, state.state, out));
        writer.finish()
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    /// If the bytes are no snapshot of this version, or damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        if snapshot_crc(bytes).is_none() {
            return Err(Corrupt("the snapshot is damaged: its checksum is wrong".into()));
        }
        Self::decode_whole(bytes.to_vec())
    }

    /// Reads a snapshot whose checksum was found right, and keeps its bytes.
    pub(crate) fn decode_whole(mut bytes: Vec<u8>) -> Result<Self, Corrupt> {
        bytes.truncate(bytes.len().saturating_sub(TRAILER_BYTES));
        let unknown = || Corrupt("the bytes are no snapshot of version 1 or 2".into());
        let (version, body) = bytes.strip_prefix(SNAPSHOT_MAGIC).and_then(<[u8]>::split_first).ok_or_else(unknown)?;
        if !matches!(*version, VERSION_PLAIN | VERSION_ANSWERS) {
            return Err(unknown());
        }
        let mut reader = Reader::new(body);
        let mut image = Self::read_before_states(*version, &mut reader)?;
        let states_at = SNAPSHOT_MAGIC.len() + 1 + reader.at();
        image.states = States::read(bytes, states_at)?;
        Ok(image)
    }

    fn read_before_states(version: u8, r: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let mut image = Self::new(r.number()?);
        image.term = r.varint()?;
        image.nonce = r.varint()?;
        image.epoch = r.varint()?;
        image.crc = r.number()?;
        image.now = r.signed()?;
        image.next_offset = r.varint()?;
        image.pending_next = r.varint()?;
        image.names = frame::read_names(r)?;
        image.positions = list(r, |r| Ok(((r.number()?, r.number()?), Position::read(r)?)))?;
        image.seen = list(r, |r| Ok((r.number()?, r.varint()?)))?;
        image.sent = list(r, |r| Ok((r.number()?, r.varint()?)))?;
        image.acknowledged = list(r, |r| Ok((r.number()?, r.varint()?)))?;
        image.outbox = list(r, |r| Ok(((r.number()?, r.varint()?), read_message(r)?)))?;
        image.watermarks = list(r, |r| Ok((r.number()?, (EventTime(r.signed()?), EventTime(r.signed()?)))))?;
        image.carry = list(r, read_message)?;
        image.pending = list(r, |r| {
            let bytes = r.bytes()?;
            Ok((PendingRef::read(&mut Reader::new(bytes))?.id, bytes.to_vec()))
        })?;
        image.parked = list(r, read_parked)?;
        if version == VERSION_ANSWERS {
            let count: u64 = r.varint()?;
            for _ in 0..count {
                image.remembered.keep(&AnswerRef::read(r)?);
            }
            if image.remembered.is_empty() {
                return Err(Corrupt("a snapshot of version 2 has remembered answers, and this one has none".into()));
            }
        }
        Ok(image)
    }
}

#[cfg(feature = "fuzzing")]
impl Image {
    /// The bytes as a snapshot whose magic and checksum are right; behind a byte 255, which no other
    /// begins with, it is one of version 2.
    pub(crate) fn sealed(bytes: &[u8]) -> Vec<u8> {
        let (version, bytes) = match bytes.strip_prefix(&[255]) {
            Some(bytes) => (VERSION_ANSWERS, bytes),
            None => (VERSION_PLAIN, bytes),
        };
        SnapshotWriter([&SNAPSHOT_MAGIC[..], &[version], bytes].concat()).finish()
    }
}

fn put(fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    fill(&mut out);
    out
}

fn renamed<K: Ord, V>(
    map: &mut BTreeMap<K, V>,
    mut rename: impl FnMut(K) -> Result<K, Corrupt>,
) -> Result<BTreeMap<K, V>, Corrupt> {
    std::mem::take(map).into_iter().map(|(key, value)| Ok((rename(key)?, value))).collect()
}

fn list<T, C: FromIterator<T>>(
    reader: &mut Reader<'_>,
    mut one: impl FnMut(&mut Reader<'_>) -> Result<T, crate::codec::Truncated>,
) -> Result<C, Corrupt> {
    let count: u64 = reader.varint()?;
    (0..count).map(|_| one(reader).map_err(Corrupt::from)).collect()
}

fn read_parked(r: &mut Reader<'_>) -> Result<((NameId, Vec<u8>), Parked), crate::codec::Truncated> {
    let key = (r.number()?, r.bytes()?.to_vec());
    let reason = r.text()?.to_owned();
    let count: u64 = r.varint()?;
    let mut queue = Vec::new();
    for _ in 0..count {
        queue.push((r.byte()? == 1, read_message(r)?));
    }
    let bytes = queue.iter().map(|(_, call): &(bool, Vec<u8>)| call.len()).sum();
    Ok((key, Parked { reason, queue, bytes }))
}

/// Reads the bytes of a message, which are one.
fn read_message(reader: &mut Reader<'_>) -> Result<Vec<u8>, crate::codec::Truncated> {
    let bytes = reader.bytes()?;
    MessageRef::read(&mut Reader::new(bytes))?;
    Ok(bytes.to_vec())
}

fn no_next_number() -> Corrupt {
    Corrupt("a number is the last there is".into())
}

/// Reads a message that an image holds, which has encoded or read it before.
fn own_message(bytes: &[u8]) -> MessageRef<'_> {
    MessageRef::read(&mut Reader::new(bytes)).expect("an image can read what it holds")
}

/// What a mark says of the bytes of its snapshot: the checksum at their end. The checksum of all
/// bytes, that one included, would be the same for every snapshot.
pub(crate) fn snapshot_crc(bytes: &[u8]) -> Option<u32> {
    let (content, trailer) = bytes.split_last_chunk()?;
    let crc = crc32c::crc32c(content);
    (crc.to_le_bytes() == *trailer).then_some(crc)
}

/// The first part of a snapshot.
pub(crate) struct SnapshotHead<'a> {
    pub(crate) shard: ShardId,
    pub(crate) term: u64,
    pub(crate) nonce: u64,
    pub(crate) epoch: u64,
    pub(crate) crc: u32,
    pub(crate) now: i64,
    pub(crate) next_offset: Offset,
    pub(crate) pending_next: u64,
    pub(crate) names: &'a [String],
    /// Whether [`SnapshotWriter::answers`] will have any.
    pub(crate) has_answers: bool,
}

/// Writes the parts of a snapshot, which image and owner have in different shapes.
pub(crate) struct SnapshotWriter(Vec<u8>);

impl SnapshotWriter {
    pub(crate) fn new(head: &SnapshotHead<'_>) -> Self {
        let mut out = SNAPSHOT_MAGIC.to_vec();
        out.push(if head.has_answers { VERSION_ANSWERS } else { VERSION_PLAIN });
        put_varint(&mut out, u64::from(head.shard));
        put_varint(&mut out, head.term);
        put_varint(&mut out, head.nonce);
        put_varint(&mut out, head.epoch);
        put_varint(&mut out, u64::from(head.crc));
        put_signed(&mut out, head.now);
        put_varint(&mut out, head.next_offset);
        put_varint(&mut out, head.pending_next);
        frame::put_names(head.names, &mut out);
        Self(out)
    }

    /// Writes a list behind its length; the items come in the order of their keys.
    pub(crate) fn list<T>(&mut self, items: impl Iterator<Item = T>, mut one: impl FnMut(T, &mut Vec<u8>)) {
        let mut count = 0;
        let mut body = Vec::new();
        for item in items {
            count += 1;
            one(item, &mut body);
        }
        put_varint(&mut self.0, count);
        self.0.extend_from_slice(&body);
    }

    /// Writes the remembered answers, if there are any.
    pub(crate) fn answers(&mut self, remembered: &Remembered) {
        if !remembered.is_empty() {
            self.list(remembered.iter(), |answer, out| answer.put(out));
        }
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        let crc = crc32c::crc32c(&self.0);
        self.0.extend_from_slice(&crc.to_le_bytes());
        self.0
    }
}

pub(crate) fn put_pair(shard: ShardId, number: u64, out: &mut Vec<u8>) {
    put_varint(out, u64::from(shard));
    put_varint(out, number);
}

pub(crate) fn put_watermark(function: NameId, reached: EventTime, lets_out: EventTime, out: &mut Vec<u8>) {
    put_varint(out, u64::from(function));
    put_signed(out, reached.0);
    put_signed(out, lets_out.0);
}

pub(crate) fn put_parked(function: NameId, key: &[u8], parked: &Parked, out: &mut Vec<u8>) {
    put_varint(out, u64::from(function));
    put_bytes(out, key);
    put_bytes(out, parked.reason.as_bytes());
    put_varint(out, parked.queue.len() as u64);
    for (is_timer, message) in &parked.queue {
        out.push(u8::from(*is_timer));
        put_bytes(out, message);
    }
}

pub(crate) fn put_state(function: NameId, key: &[u8], state: &[u8], out: &mut Vec<u8>) {
    put_varint(out, u64::from(function));
    put_bytes(out, key);
    put_bytes(out, state);
}
