//! From an open epoch to a frame, and from a confirmed frame to what may leave the shard.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::{
    Answer, Shard,
    frame::{self, Header, Kind, MessageRef, Op, Position, SnapshotMark},
    image::{SnapshotHead, SnapshotWriter, put_pair, put_parked, put_state, put_watermark, snapshot_crc},
    outbox::Mail,
    progress::{InputProgress, Progress, StageProgress, Traffic},
    rules::Rule,
    settle::carried,
};
use crate::{
    address::ShardId,
    codec::{put_bytes, put_varint},
    effect::Emitted,
    envelope::{SpanRecord, Trace},
    limits::QUIET_INTERVAL_MS,
    ports::log::Offset,
    program::NameId,
    time::{EventTime, ProcessingTime},
};

/// How large a frame is, at most, whose memory is kept for the next but one.
const SPARE_FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What has been given to the journal and is not confirmed yet.
#[derive(Debug)]
pub(crate) struct Sealed {
    records: u64,
    bytes: u64,
    mark: Option<SnapshotMark>,
    epoch: Option<SealedEpoch>,
}

impl Sealed {
    /// Whether it holds an epoch, and not only a mark.
    pub(super) fn has_epoch(&self) -> bool {
        self.epoch.is_some()
    }
}

#[derive(Debug)]
struct SealedEpoch {
    emission: Emission,
    answers: Vec<Answer>,
    activities: Vec<ActivityCall>,
    spans: Vec<SpanRecord>,
    /// None of a shard that neither sends nor receives: nobody waits for it.
    progress: Option<Arc<Progress>>,
    snapshot: Option<Snapshot>,
}

/// What a confirmed append allows.
#[derive(Debug, Default)]
pub struct Confirmed {
    /// The records of the epoch for egresses; none if only a mark was appended.
    pub emission: Option<Emission>,
    /// The answers of the epoch.
    pub answers: Vec<Answer>,
    /// The calls of activities that it asks for.
    pub activities: Vec<ActivityCall>,
    /// What its calls did in traces.
    pub spans: Vec<SpanRecord>,
    /// What the other shards may know.
    pub progress: Option<Arc<Progress>>,
    /// A snapshot of the epoch, to be stored.
    pub snapshot: Option<Snapshot>,
}

/// The records of one committed epoch for egresses.
#[derive(Debug, Clone)]
pub struct Emission {
    /// The shard.
    pub shard: ShardId,
    /// The epoch.
    pub epoch: u64,
    /// The bytes that the records stand in.
    pub frame: Arc<Vec<u8>>,
    /// The records, in order; each has the identity `shard/epoch/index`.
    pub records: Vec<Emitted>,
}

/// A committed call of an activity, which has no result yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivityCall {
    /// The shard that waits for the result.
    pub shard: ShardId,
    /// Its number in the shard; of no other call, ever.
    pub id: u64,
    /// The name of the activity.
    pub activity: String,
    /// What it is given.
    pub call: Vec<u8>,
    /// When it is given up.
    pub give_up_at: ProcessingTime,
    /// Its place in a trace, if it is part of one.
    pub trace: Option<Trace>,
}

impl ActivityCall {
    /// The place in its trace of one of its attempts, beside its result; each number is another attempt.
    #[must_use]
    pub fn attempt(&self, number: u32) -> Option<Trace> {
        self.trace.map(|trace| Trace { parent: trace.parent, ..trace.child(number) })
    }
}

/// The whole state of a shard at an epoch.
#[derive(Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The shard.
    pub shard: ShardId,
    /// What its mark will say.
    pub mark: SnapshotMark,
    /// The encoded state.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot({}, {} bytes)", self.mark.name, self.bytes.len())
    }
}

/// Somebody else wrote to the journal: the shard has to be dropped and taken over again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deposed {
    /// The offset that the append should have had.
    pub expected: Offset,
    /// The offset it has.
    pub found: Offset,
}

impl Shard {
    /// Whether a frame is on its way.
    #[must_use]
    pub fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Whether there is anything to append.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        self.mark_to_append.is_some() || self.has_epoch()
    }

    /// Whether the open epoch has changes, which a frame would hold.
    #[must_use]
    pub fn has_epoch(&self) -> bool {
        self.effects.body.len() > frame::HEADER_BYTES
            || !self.is_drained()
            || self.carries
            || self.is_snapshot_due() && self.snapshot_is_wanted
            || self.hosts.iter().any(|host| host.is_dirty())
            || self.positions.iter().flatten().any(|partition| partition.is_dirty)
            || self.has_traffic && self.seen != self.seen_sealed
            || self.has_time_news()
            || self.has_urgent_acknowledgements()
    }

    /// Whether event time has gone on. Where all shards read a part of the input, each of them hears of every
    /// other one, and frames of nothing else would be many; but the end is told at once.
    fn has_time_news(&self) -> bool {
        let since = self.now.0.saturating_sub(self.now_sealed.0);
        let may_wait = self.options.is_log_shared && since < QUIET_INTERVAL_MS;
        let is_news = |now: EventTime, sealed: EventTime| now != sealed && (!may_wait || now == EventTime::MAX);
        self.stages.iter().zip(&self.program.stages).any(|(time, stage)| {
            // What a cycle is let through by the stages before it may be all that its other shards wait for,
            // and only a frame brings it to them.
            let is_outer_news = stage.is_cycle && is_news(time.outer, time.outer_sealed);
            is_news(time.reached, time.sealed.0) || is_news(time.out, time.sealed.1) || is_outer_news
        })
    }

    /// An acknowledgement waits for the next frame, unless it releases a hold or ends the app.
    fn has_urgent_acknowledgements(&self) -> bool {
        let is_urgent = self.program.has_cycles() || self.stages.iter().all(|stage| stage.reached == EventTime::MAX);
        is_urgent && self.outboxes.has_unsealed()
    }

    /// Whether nothing is left to do: the input has ended, all has fired, and all is acknowledged.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.is_input_ended()
            && self.in_flight.is_none()
            && !self.has_changes()
            && self.answers.is_empty()
            && self.pending_activities() == 0
            && self.stages.iter().all(|stage| stage.reached.min(stage.out) == EventTime::MAX)
            && self.outboxes.is_empty()
    }

    /// Seals the open epoch; returns the records to append, in order, or none if nothing changed.
    ///
    /// # Panics
    /// If a frame is on its way already.
    pub fn seal(&mut self) -> Vec<Arc<Vec<u8>>> {
        assert!(self.in_flight.is_none(), "one frame is in flight at a time");
        let mut records = Vec::new();
        let mark = self.mark_to_append.take();
        records.extend(mark.as_ref().map(|mark| Arc::new(self.mark_frame(mark))));
        let epoch = self.has_epoch().then(|| self.seal_epoch(&mut records));
        if epoch.is_none() {
            // Reads and refused requests change nothing: an epoch of them alone is over without a frame.
            self.calls = 0;
        }
        if records.is_empty() {
            return records;
        }
        let bytes = records.iter().map(|record| record.len() as u64).sum();
        self.in_flight = Some(Sealed { records: records.len() as u64, bytes, mark, epoch });
        records
    }

    fn mark_frame(&self, mark: &SnapshotMark) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame::begin(&mut bytes);
        mark.put(&mut bytes);
        frame::finish(&mut bytes, &self.header(Kind::Snapshot, self.epoch, self.crc));
        bytes
    }

    fn header(&self, kind: Kind, epoch: u64, prev_crc: u32) -> Header {
        let (shard, term, nonce) = (self.id, self.term, self.nonce);
        Header { kind, shard, term, nonce, epoch, prev_crc, now: self.now.0 }
    }

    fn seal_epoch(&mut self, records: &mut Vec<Arc<Vec<u8>>>) -> SealedEpoch {
        self.forget_answers();
        self.put_changes();
        let mut body = std::mem::take(&mut self.effects.body);
        let header = self.header(Kind::Epoch, self.epoch + 1, self.crc);
        self.crc = frame::finish(&mut body, &header);
        self.epoch += 1;
        self.counters.epochs += 1;
        self.counters.bytes += body.len() as u64;
        self.counters.emitted += self.effects.emitted.len() as u64;
        self.counters.messages += self.effects.sent.len() as u64;
        self.now_sealed = self.now;
        let frame = Arc::new(body);
        self.effects.body = self.empty_body();
        self.last_frame = (frame.capacity() <= SPARE_FRAME_BYTES_MAX).then(|| Arc::clone(&frame));
        frame::begin(&mut self.effects.body);
        match frame::split(&frame, &header, self.options.record_bytes_max) {
            parts if parts.is_empty() => records.push(Arc::clone(&frame)),
            parts => records.extend(parts.into_iter().map(Arc::new)),
        }
        self.outboxes.post(self.id, &mut self.effects.sent, &frame);
        self.calls = 0;
        let next_offset = self.next_offset + records.len() as u64;
        let rules = self.options.rules;
        if !rules.holds(Rule::PublishAfterConfirm) {
            self.outboxes.confirm();
        }
        for id in std::mem::take(&mut self.removed_late) {
            self.put_removed(id);
        }
        let answers = if self.do_answers_wait() { std::mem::take(&mut self.answers) } else { Vec::new() };
        let emitted = std::mem::take(&mut self.effects.emitted);
        let activities = std::mem::take(&mut self.asked_for).into_iter().filter_map(|id| self.activity_call(id));
        let activities = activities.collect();
        SealedEpoch {
            activities,
            spans: std::mem::take(&mut self.effects.spans),
            emission: Emission { shard: self.id, epoch: self.epoch, frame, records: emitted },
            answers,
            progress: self.has_traffic.then(|| Arc::new(self.progress())),
            snapshot: self.is_snapshot_due().then(|| self.take_snapshot(next_offset)),
        }
    }

    /// The memory of the frame before, if everyone is done with it: it is there already, and near.
    fn empty_body(&mut self) -> Vec<u8> {
        let mut body = self.last_frame.take().and_then(|frame| Arc::try_unwrap(frame).ok()).unwrap_or_default();
        body.clear();
        body
    }

    /// Puts everything into the body that handlers did not write there themselves.
    fn put_changes(&mut self) {
        let body = &mut self.effects.body;
        for (host, function) in self.hosts.iter_mut().zip(&self.program.functions) {
            host.seal(function.name, body);
        }
        for (ingress, partitions) in self.positions.iter_mut().enumerate() {
            for (partition, state) in partitions.iter_mut().enumerate().filter(|(_, state)| state.is_dirty) {
                state.is_dirty = false;
                body.push(Op::Position as u8);
                put_varint(body, u64::from(self.program.ingress_name(ingress)));
                put_varint(body, partition as u64);
                state.position.unwrap_or_default().put(body);
            }
        }
        if self.has_traffic {
            for (source, (seen, sealed)) in self.seen.iter().zip(&mut self.seen_sealed).enumerate() {
                put_number(Op::Seen, source, *seen, sealed, body);
            }
            for (target, (outbox, sealed)) in self.outboxes.iter().zip(&mut self.acknowledged_sealed).enumerate() {
                put_number(Op::Acknowledged, target, outbox.acknowledged, sealed, body);
            }
        }
        self.outboxes.seal();
        for (time, stage) in self.stages.iter_mut().zip(&self.program.stages) {
            let (reached, out) = (time.reached, time.out);
            time.outer_sealed = time.outer;
            assert!(reached >= time.sealed.0, "watermarks never go back (I6)");
            assert!(out >= time.sealed.1, "out-watermarks never go back (I6)");
            if time.sealed == (reached, out) {
                continue;
            }
            time.sealed = (reached, out);
            for function in &stage.functions {
                body.push(Op::Watermark as u8);
                put_watermark(self.program.functions[usize::from(*function)].name, reached, out, body);
            }
        }
        self.put_carry();
    }

    fn put_carry(&mut self) {
        let mut body = std::mem::take(&mut self.effects.body);
        self.carries = self.each_carried(|message| {
            body.push(Op::Carry as u8);
            message.put(&mut body);
        });
        self.effects.body = body;
    }

    /// Calls `each` with every message that the next epoch begins with; returns whether there is one.
    fn each_carried(&self, mut each: impl FnMut(&MessageRef<'_>)) -> bool {
        let queued = carried(&self.queue, self.queue_at).map(|call| (call, &self.queue.bytes));
        let local = self.effects.local.calls.iter().map(|call| (call, &self.effects.local.bytes));
        for (call, bytes) in queued.chain(local) {
            each(&MessageRef::of_call(&self.program, call, bytes));
        }
        !self.is_drained()
    }

    /// What the other shards will know once the last sealed epoch is confirmed.
    pub(crate) fn progress(&self) -> Progress {
        let stages = self.stages.iter().enumerate().map(|(stage, time)| StageProgress {
            out: time.sealed.1,
            outer: time.outer_sealed,
            hold: if self.holds_itself(stage) { self.hold(stage) } else { EventTime::MAX },
        });
        let numbers = self.outboxes.iter().zip(&self.seen_sealed).zip(&self.acknowledged_sealed);
        let traffic = numbers.map(|((outbox, seen), acknowledged)| Traffic {
            sent: outbox.sent,
            seen: *seen,
            acknowledged: *acknowledged,
        });
        Progress {
            shard: self.id,
            epoch: self.epoch,
            inputs: self.told_inputs(),
            stages: stages.collect(),
            waiting: self.told_waiting(),
            traffic: traffic.collect(),
        }
    }

    /// What others have to know of the input here: nothing where they read it themselves.
    fn told_inputs(&self) -> Vec<InputProgress> {
        let ingresses = if self.options.is_log_shared { 0..self.positions.len() } else { 0..0 };
        ingresses.map(|ingress| self.own_input(ingress)).collect()
    }

    /// What others have to know of what waits here: it is of no use where time does not follow a clock.
    fn told_waiting(&self) -> Option<EventTime> {
        self.options.is_live.then(|| self.earliest_waiting()).filter(|earliest| *earliest < EventTime::MAX)
    }

    /// Whether messages within a stage hold its watermark.
    fn holds_itself(&self, stage: usize) -> bool {
        self.program.stages[stage].is_cycle && self.options.rules.holds(Rule::CyclesHold)
    }

    /// Notes that the journal holds what was sealed last, its first record at `offset`.
    ///
    /// # Errors
    /// [`Deposed`] if somebody else has written in between; the shard must then be dropped.
    ///
    /// # Panics
    /// If nothing was sealed.
    pub fn confirm(&mut self, offset: Offset) -> Result<Confirmed, Deposed> {
        let sealed = self.in_flight.take().expect("only what was sealed is confirmed");
        if offset != self.next_offset && self.options.rules.holds(Rule::ConfirmByOffset) {
            return Err(Deposed { expected: self.next_offset, found: offset });
        }
        self.next_offset = offset + sealed.records;
        self.tail_bytes += sealed.bytes;
        if let Some(mark) = sealed.mark {
            self.snapshots.push(mark);
            self.snapshot_is_on_its_way = false;
        }
        let Some(epoch) = sealed.epoch else { return Ok(Confirmed::default()) };
        self.outboxes.confirm();
        Ok(Confirmed {
            emission: Some(epoch.emission),
            answers: epoch.answers,
            activities: epoch.activities,
            spans: epoch.spans,
            progress: epoch.progress,
            snapshot: epoch.snapshot,
        })
    }

    /// Hands out the mail that may be published now.
    pub fn publish(&mut self, each: impl FnMut(&Mail)) {
        let (now, rules) = (self.now, self.options.rules);
        self.outboxes.publish(rules, now, each);
    }

    /// Whether answers wait to be handed out.
    #[must_use]
    pub fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Hands out the answers that wait for nothing: all that they saw is confirmed.
    pub fn take_answers(&mut self) -> Vec<Answer> {
        if self.answers.is_empty() {
            return Vec::new();
        }
        let may_answer = self.in_flight.is_none() && !self.has_epoch();
        if may_answer || !self.do_answers_wait() {
            return std::mem::take(&mut self.answers);
        }
        Vec::new()
    }

    /// Hands out what calls did in traces that make no frame: reads.
    pub(crate) fn take_spans(&mut self) -> Vec<SpanRecord> {
        let are_reads = !self.effects.spans.is_empty() && self.in_flight.is_none() && !self.has_epoch();
        if are_reads { std::mem::take(&mut self.effects.spans) } else { Vec::new() }
    }

    fn do_answers_wait(&self) -> bool {
        self.options.rules.holds(Rule::AnswerAfterConfirm)
    }

    /// What a mutant lets egresses and stores have before it is confirmed.
    pub(crate) fn emission_ahead(&self) -> Option<Emission> {
        let sealed = self.in_flight.as_ref().filter(|_| !self.options.rules.holds(Rule::EmitAfterConfirm))?;
        sealed.epoch.as_ref().map(|epoch| epoch.emission.clone())
    }

    /// The calls that a mutant lets begin before they are confirmed.
    pub(crate) fn calls_ahead(&self) -> Vec<ActivityCall> {
        let sealed = self.in_flight.as_ref().filter(|_| !self.options.rules.holds(Rule::CallAfterCommit));
        sealed.and_then(|sealed| Some(sealed.epoch.as_ref()?.activities.clone())).unwrap_or_default()
    }

    /// What a mutant tells the other shards before it is confirmed.
    pub(crate) fn progress_ahead(&self) -> Option<Arc<Progress>> {
        let sealed = self.in_flight.as_ref().filter(|_| !self.options.rules.holds(Rule::ProgressAfterConfirm))?;
        sealed.epoch.as_ref()?.progress.clone()
    }

    fn is_snapshot_due(&self) -> bool {
        let due_at = self.snapshot_bytes.max(self.options.snapshot_tail_bytes);
        (self.tail_bytes >= due_at || self.snapshot_is_wanted) && !self.snapshot_is_on_its_way
    }

    /// Asks for a snapshot with the next epoch, also if nothing else happens: the log cannot give
    /// space back as long as this shard's journal is not trimmed.
    pub fn want_snapshot(&mut self) {
        self.snapshot_is_wanted = true;
    }

    fn take_snapshot(&mut self, next_offset: Offset) -> Snapshot {
        let bytes = self.encode(next_offset);
        let mark = SnapshotMark {
            name: format!("shard-{}/{}-{:016x}", self.id, self.epoch, self.nonce),
            length: bytes.len() as u64,
            crc: snapshot_crc(&bytes).expect("a snapshot ends with its checksum"),
            epoch: self.epoch,
            next_offset,
        };
        self.snapshot_is_on_its_way = true;
        self.snapshot_is_wanted = false;
        self.snapshot_bytes = mark.length;
        self.tail_bytes = 0;
        Snapshot { shard: self.id, mark, bytes }
    }

    /// Notes that a snapshot of this ownership is stored: its mark goes into the journal.
    pub fn snapshot_stored(&mut self, mark: SnapshotMark) {
        self.mark_to_append = Some(mark);
    }

    /// Notes that a snapshot could not be stored: the next one is due at once.
    pub fn snapshot_failed(&mut self) {
        self.snapshot_is_on_its_way = false;
        self.tail_bytes = self.snapshot_bytes.max(self.options.snapshot_tail_bytes);
    }

    /// The whole state as of the last sealed epoch; equal to the encoding of the folded image.
    ///
    /// # Panics
    /// If the open epoch has changes that are not sealed.
    #[must_use]
    pub fn encode(&self, next_offset: Offset) -> Vec<u8> {
        let functions = self.hosts.iter().zip(&self.program.functions);
        let states =
            functions.flat_map(|(host, function)| host.states().into_iter().map(|state| (function.name, state)));
        let mut writer = self.encode_before_states(next_offset);
        writer.list(states, |(function, (key, state)), out| put_state(function, key, &state, out));
        writer.finish()
    }

    /// As [`Self::encode`], as if no key had a state.
    pub(crate) fn encode_without_states(&self, next_offset: Offset) -> Vec<u8> {
        let mut writer = self.encode_before_states(next_offset);
        writer.list(std::iter::empty::<()>(), |(), _| {});
        writer.finish()
    }

    fn encode_before_states(&self, next_offset: Offset) -> SnapshotWriter {
        let has_answers = !self.remembered.is_empty() && self.options.rules.holds(Rule::SnapshotHasAnswers);
        let mut writer = SnapshotWriter::new(&SnapshotHead {
            shard: self.id,
            term: self.term,
            nonce: self.nonce,
            epoch: self.epoch,
            crc: self.crc,
            now: self.now_sealed.0,
            next_offset,
            pending_next: self.effects.pending_next,
            names: &self.names,
            has_answers,
        });
        writer.list(self.sealed_positions().iter(), |((ingress, partition), position), out| {
            put_varint(out, u64::from(*ingress));
            put_varint(out, u64::from(*partition));
            position.put(out);
        });
        let sent: Vec<u64> = self.outboxes.iter().map(|outbox| outbox.sent).collect();
        for numbers in [&self.seen_sealed, &sent, &self.acknowledged_sealed] {
            let numbers = (0_u32..).zip(numbers).filter(|(_, upto)| **upto > 0);
            writer.list(numbers, |(shard, upto), out| put_pair(shard, *upto, out));
        }
        let rules = self.options.rules;
        let outboxes = (0_u32..).zip(self.outboxes.iter()).filter(|_| rules.holds(Rule::SnapshotHasOutbox));
        let messages = outboxes
            .flat_map(|(target, outbox)| outbox.unacknowledged(&self.program).map(move |message| (target, message)));
        let mut bytes = Vec::new();
        writer.list(messages, |(target, (sequence, message)), out| {
            put_pair(target, sequence, out);
            bytes.clear();
            message.put(&mut bytes);
            put_bytes(out, &bytes);
        });
        writer.list(self.sealed_watermarks().iter(), |(function, (reached, lets_out)), out| {
            put_watermark(*function, *reached, *lets_out, out);
        });
        let mut carried = Vec::new();
        self.each_carried(|message| {
            let mut bytes = Vec::new();
            message.put(&mut bytes);
            carried.push(bytes);
        });
        carried.retain(|_| rules.holds(Rule::SnapshotHasCarry));
        writer.list(carried.iter(), |message, out| put_bytes(out, message));
        let pending = self.pending.sorted().filter(|_| rules.holds(Rule::SnapshotHasPending));
        writer.list(pending, |pending, out| put_bytes(out, pending));
        let parked = self.parked.iter().filter(|_| rules.holds(Rule::SnapshotHasParked));
        writer.list(parked, |((function, key), parked), out| put_parked(*function, key, parked, out));
        if has_answers {
            writer.answers(&self.remembered);
        }
        writer
    }

    fn sealed_positions(&self) -> BTreeMap<(NameId, u32), Position> {
        let mut positions = self.leftover.positions.clone();
        for (ingress, partitions) in self.positions.iter().enumerate() {
            let name = self.program.ingress_name(ingress);
            for (partition, state) in (0_u32..).zip(partitions) {
                positions.extend(state.position.map(|position| ((name, partition), position)));
            }
        }
        positions
    }

    fn sealed_watermarks(&self) -> BTreeMap<NameId, (EventTime, EventTime)> {
        let mut watermarks = self.leftover.watermarks.clone();
        for (time, stage) in self.stages.iter().zip(&self.program.stages) {
            if time.sealed == (EventTime::MIN, EventTime::MIN) {
                continue;
            }
            let functions = stage.functions.iter().map(|function| self.program.functions[usize::from(*function)].name);
            watermarks.extend(functions.map(|name| (name, time.sealed)));
        }
        watermarks
    }
}

fn put_number(op: Op, shard: usize, number: u64, sealed: &mut u64, body: &mut Vec<u8>) {
    assert!(number >= *sealed, "sequence numbers never go back");
    if number == *sealed {
        return;
    }
    *sealed = number;
    body.push(op as u8);
    put_varint(body, shard as u64);
    put_varint(body, number);
}
