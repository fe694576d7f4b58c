//! A shard: the unit of ownership, parallelism and commit.
//!
//! [`Shard`] is a deterministic state machine. Inputs are applied in memory and gather into an
//! epoch; `seal` encodes the epoch as one frame; once the journal holds that frame, `confirm` says
//! what may now be published, emitted and answered. While a frame is on its way the next epoch is
//! applied already.
//!
//! Invariants, asserted always: epochs follow each other by one and name the checksum of the one
//! before (I1); input positions never go back (I2); watermarks and the clock of frames never go
//! back, and a fired timer is gone from state in the same frame (I6). At most one frame is on its
//! way; nothing of an epoch leaves the shard before its frame is confirmed.
//!
//! Deliberately absent: which shards a thread has and when it seals ([`crate::pipeline`]), and any
//! way to undo an epoch: a shard that is not confirmed is dropped and taken over again.

pub mod frame;
mod guard;
pub mod image;
mod inspect;
mod late;
pub mod outbox;
mod parking;
mod pending;
pub mod progress;
pub mod recovery;
mod remembered;
mod retain;
pub mod rules;
mod seal;
mod settle;
mod slab;
mod states;
pub mod stored;
pub mod wire;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::{
    frame::{AnswerRef, MessageRef, Op, Position, SnapshotMark},
    image::Image,
    late::Awaited,
    outbox::{Mail, Outbox, Outboxes},
    parking::Parking,
    pending::{Pending, Waiting},
    progress::InputProgress,
    remembered::Remembered,
    retain::ReadBack,
    rules::{Rule, Rules},
    seal::Sealed,
    settle::{Called, GROUP_CALLS},
    states::StateRef,
};
pub use self::{
    guard::{Guard, Guarded},
    inspect::{Inquiry, LOOKED_AT_ONCE},
    parking::{Overflow, ParkedLimits},
    recovery::{Accepted, Checked, Replica, TakeOver, TakeOverError},
    retain::{Trim, read_back},
    seal::{ActivityCall, Confirmed, Deposed, Emission, Snapshot},
};
pub(crate) use self::{late::put_late, remembered::decode as read_late};
use crate::{
    activity::CallOutcome,
    address::{ShardId, murmur2},
    ask,
    codec::{Reader, put_signed, put_varint},
    dead_letter::{DeadLetter, Reason},
    decoded::Decoded,
    effect::{Call, Calls, Effects, TimerRequest},
    envelope::{self, Caller, Ticket, Trace},
    error::{Corrupt, DecodeError, LinkError},
    function::Access,
    host::{ErasedHost, Failure, Rejection, Run},
    ingress::{IngressBatch, partition_owner},
    limits::{
        ANSWERS_BYTES_MAX, ANSWERS_KEPT_MS, EPOCH_BYTES_MAX, EPOCH_CALLS_MAX, REPLAYS_KEPT_MS, SNAPSHOT_TAIL_BYTES_MIN,
    },
    ports::log::Offset,
    program::{FunctionId, MessageHandler, NameId, Program, StageId},
    time::{EventTime, ProcessingTime},
};

/// How many states that cannot be loaded are told of a shard.
const PROBLEMS_MAX: usize = 20;

/// What all shards of an app have in common, besides the program.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many shards the app has; 1 to `limits::SHARDS_MAX`.
    pub shards: u32,
    /// How many partitions each ingress has, in the order of the program's ingresses.
    pub partitions: Vec<u32>,
    /// The largest record that the log takes, in bytes; larger frames are split.
    pub record_bytes_max: usize,
    /// Whether other processes write to the same log and may take shards over at any time.
    pub is_log_shared: bool,
    /// Whether requests may come at any time: event time then follows the clock where no ingress
    /// holds it back, and the input never ends.
    pub is_live: bool,
    /// How long answers are remembered for idempotency keys, in milliseconds, at least.
    pub answers_kept_ms: i64,
    /// How many bytes of remembered answers a shard holds.
    pub answers_bytes_max: usize,
    /// How many bytes the journal grows behind a snapshot before the next is due, at least.
    pub snapshot_tail_bytes: u64,
    /// How many calls an epoch has at most.
    pub epoch_calls_max: usize,
    /// How much parked keys may wait with.
    pub parked: ParkedLimits,
    /// The rules in force; all of them, but in tests of the tests.
    pub rules: Rules,
}

impl Options {
    /// The defaults for `shards` shards, each ingress with one partition.
    #[must_use]
    pub fn new(shards: u32, program: &Program) -> Self {
        Self {
            shards,
            partitions: vec![1; program.ingresses.len()],
            record_bytes_max: usize::MAX,
            is_log_shared: false,
            is_live: false,
            answers_kept_ms: ANSWERS_KEPT_MS,
            answers_bytes_max: ANSWERS_BYTES_MAX,
            snapshot_tail_bytes: SNAPSHOT_TAIL_BYTES_MIN,
            epoch_calls_max: EPOCH_CALLS_MAX,
            parked: ParkedLimits::default(),
            rules: Rules::default(),
        }
    }
}

/// Something that happened to a shard.
#[derive(Debug)]
pub enum Input<'a> {
    /// A stretch of an ingress partition was read.
    Ingress(&'a mut IngressBatch),
    /// Messages of another shard arrived.
    Mail(&'a Mail),
    /// Somebody outside calls a handler and waits for the answer.
    Request(&'a Request),
    /// The call of an activity with this number has a result.
    Result(u64, &'a CallOutcome),
}

/// A call from outside whose answer is wanted.
#[derive(Debug, Clone)]
pub struct Request {
    /// The number that the answer will bear.
    pub id: u64,
    /// What is to be told.
    pub wants: Wants,
    /// The idempotency key, if it has one: a request with the same key to the same address is not
    /// done again, but gets the same answer. Reads are always done.
    pub once: Option<Vec<u8>>,
    /// Exactly one call and its bytes. An event time of `EventTime::MIN` means that it happens now.
    /// Of what is about a parked key only the key counts, and the payload of an edit.
    pub calls: Calls,
    /// How long a message that is to be committed waits before it is handled, in milliseconds.
    pub delay_ms: u64,
    /// Its place in a trace, if it is part of one.
    pub trace: Option<Trace>,
}

impl Request {
    /// A request for what the handler answers.
    #[must_use]
    pub fn for_answer(id: u64, calls: Calls) -> Self {
        Self { id, wants: Wants::Answer, once: None, calls, delay_ms: 0, trace: None }
    }
}

/// What a request wants to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wants {
    /// What the handler answers.
    Answer,
    /// That the message is committed, whatever becomes of it.
    Commit,
    /// The state of the key; the handler of the call does not matter.
    State,
    /// That a dead letter is committed as a message, or a timer, once more. Its idempotency key is
    /// remembered for longer than those of others.
    Replay,
    /// What became of a parked key whose calls are made again, in order.
    Retry,
    /// The same without its first call, which becomes a dead letter.
    Skip,
    /// The same with another first call, whose bytes are the payload.
    EditMessage,
    /// The same with another state, whose encoding is the payload.
    EditState,
}

/// What came of a request, once it may be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The number of the request.
    pub request: u64,
    /// What came of it.
    pub reply: Reply,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The encoded answer.
    Answered(#[serde(with = "serde_bytes")] Vec<u8>),
    /// The handler said no.
    Rejected(Rejection),
    /// It could not be handled.
    Failed(Trouble),
    /// The message is committed.
    Taken,
    /// The encoded state of the key; none if it has none.
    State(#[serde(with = "serde_bytes")] Option<Vec<u8>>),
    /// The answer comes later: it is told to the same request again, unless this owner is gone by then.
    Deferred,
    /// The calls of a parked key were made again.
    Resumed {
        /// How many calls wait again; none if the key is not parked any more.
        waiting: u64,
        /// Why the key is parked again; empty if it is not.
        reason: String,
    },
}

/// Why a request could not be handled.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum Trouble {
    /// The key is parked.
    #[error("the key is parked after a fault")]
    Parked,
    /// The key is not parked; nothing was done.
    #[error("the key is not parked")]
    NotParked,
    /// The handler is broken, and its key is parked from now on; the text says why.
    #[error("{0}")]
    Faulted(String),
    /// The key or the message cannot be read, and the text says why; nothing was done.
    #[error("{0}")]
    Unreadable(String),
    /// The message of this name waits for its event time.
    #[error("`{0}` waits for its event time, so it cannot be answered: send it instead")]
    Waits(String),
    /// The idempotency key was used for another request; nothing was done.
    #[error("this idempotency key was used for another request of this address")]
    KeyReused,
    /// No more answers can be remembered; nothing was done.
    #[error("the answers that are remembered for idempotency keys take all the memory that they may take")]
    AnswersFull,
}

/// What a shard has done since it was taken over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Calls of handlers, timers included.
    pub calls: u64,
    /// Timers that fired.
    pub timers: u64,
    /// Messages from function to function.
    pub messages: u64,
    /// Records for egresses, dead letters included.
    pub emitted: u64,
    /// Calls that were rejected and that nobody waited for.
    pub rejections: u64,
    /// Calls that parked their key.
    pub faults: u64,
    /// Calls that found the queue of their parked key full, and became dead letters.
    pub parked_refused: u64,
    /// How often a parked key was made to go on.
    pub retried: u64,
    /// Messages that came behind the watermark of their function.
    pub late: u64,
    /// What could not be handled and was told to the egress of dead letters.
    pub dead_letters: u64,
    /// Sealed epochs.
    pub epochs: u64,
    /// Bytes of sealed frames.
    pub bytes: u64,
}

impl std::ops::AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.timers += other.timers;
        self.messages += other.messages;
        self.emitted += other.emitted;
        self.rejections += other.rejections;
        self.faults += other.faults;
        self.parked_refused += other.parked_refused;
        self.retried += other.retried;
        self.late += other.late;
        self.dead_letters += other.dead_letters;
        self.epochs += other.epochs;
        self.bytes += other.bytes;
    }
}

/// Event time of a stage in this shard.
#[derive(Debug, Clone, Copy)]
struct StageTime {
    /// The watermark: no message at or before it is still to come.
    reached: EventTime,
    /// No message sent from here on has this time or an earlier one.
    out: EventTime,
    /// What the stages before it let through; equal to `reached` but for cycles.
    outer: EventTime,
    /// `reached` and `out` as the last frame has them.
    sealed: (EventTime, EventTime),
    /// `outer` as the progress record of the last frame has it; it stands in no frame.
    outer_sealed: EventTime,
}

const UNKNOWN: StageTime = StageTime {
    reached: EventTime::MIN,
    out: EventTime::MIN,
    outer: EventTime::MIN,
    sealed: (EventTime::MIN, EventTime::MIN),
    outer_sealed: EventTime::MIN,
};

#[derive(Debug, Clone, Copy, Default)]
struct PartitionState {
    position: Option<Position>,
    is_dirty: bool,
}

/// One shard, owned; see the module.
pub struct Shard {
    program: Arc<Program>,
    options: Arc<Options>,
    id: ShardId,
    names: Vec<String>,

    term: u64,
    nonce: u64,
    /// The last sealed epoch.
    epoch: u64,
    crc: u32,
    now: ProcessingTime,
    /// The clock of the last sealed epoch.
    now_sealed: ProcessingTime,
    next_offset: Offset,
    in_flight: Option<Sealed>,
    /// The last sealed frame, whose memory is used again once nobody else has it.
    last_frame: Option<Arc<Vec<u8>>>,

    hosts: Vec<Box<dyn ErasedHost>>,
    effects: Effects,
    pending: Pending,
    parked: Parking,
    /// Who is told of each call before it is made, if anybody is.
    guard: Option<Box<dyn Guard>>,
    /// Answers for requests that are repeated.
    remembered: Remembered,
    /// Requests that wait for answers which handlers give later.
    awaited: Awaited,
    /// Calls of activities that the open epoch asks for.
    asked_for: Vec<u64>,

    /// How far event time has followed the clock, where requests may come at any time.
    live: EventTime,
    /// The clock when `live` moved last without anything else that makes a frame.
    live_at: ProcessingTime,
    stages: Vec<StageTime>,
    /// By shard, by stage, one behind the other: the highest out-watermark that counts.
    heard: Vec<EventTime>,
    /// By stage: the least of `heard` over all other shards.
    heard_least: Vec<EventTime>,
    /// By shard, by ingress, one behind the other: how far it has taken it in; empty where every shard reads
    /// all of it.
    heard_inputs: Vec<InputProgress>,
    /// By ingress: all of `heard_inputs` of other shards together.
    heard_inputs_all: Vec<InputProgress>,
    heard_version: Option<u64>,
    /// Whether event time has come as far as it can by what happened to this shard.
    is_settled: bool,
    /// By shard: the version of the progress record that counts.
    heard_versions: Vec<u64>,
    positions: Vec<Vec<PartitionState>>,
    seen: Vec<u64>,
    seen_sealed: Vec<u64>,
    /// Whether it sends to other shards, or has ever received or kept something of one.
    has_traffic: bool,
    outboxes: Outboxes,
    acknowledged_sealed: Vec<u64>,
    /// Positions and watermarks of ingresses and functions that this program no longer has.
    leftover: Leftover,

    /// Messages to this shard that were not delivered yet; carried over if the epoch is full.
    queue: Calls,
    queue_at: usize,
    /// Whether the last frame carries messages over.
    carries: bool,
    /// Calls made in this epoch.
    calls: usize,
    answers: Vec<Answer>,
    counters: Counters,
    failures: Vec<(usize, Failure)>,
    due: Vec<Waiting>,
    /// How many timers are to fire at once; fewer while those of one key follow each other.
    group_calls: usize,
    called: Called,
    scratch: Calls,

    snapshots: Vec<SnapshotMark>,
    snapshot_bytes: u64,
    snapshot_is_on_its_way: bool,
    snapshot_is_wanted: bool,
    read_back: ReadBack,
    mark_to_append: Option<SnapshotMark>,
    tail_bytes: u64,
    /// Timers that fired whose removal a mutant leaves to the next frame.
    removed_late: Vec<u64>,
}

#[derive(Debug, Default)]
struct Leftover {
    positions: BTreeMap<(NameId, u32), Position>,
    watermarks: BTreeMap<NameId, (EventTime, EventTime)>,
}

impl Shard {
    /// The number of this shard.
    #[must_use]
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// The last sealed epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The offset that the next record of its journal gets.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// The term of its owner.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.term
    }

    /// The nonce of this ownership.
    #[must_use]
    pub fn nonce(&self) -> u64 {
        self.nonce
    }

    /// The position of an ingress partition: the first record that this shard has not taken.
    #[must_use]
    pub fn position(&self, ingress: usize, partition: u32) -> Position {
        let state = self.positions[ingress].get(partition as usize).copied().unwrap_or_default();
        state.position.unwrap_or_default()
    }

    /// By ingress and partition, all positions; none of a partition that another shard takes in.
    #[must_use]
    pub fn positions(&self) -> Vec<Vec<Option<Position>>> {
        let of = |(partition, state): (u32, &PartitionState)| {
            self.takes_in(partition).then(|| state.position.unwrap_or_default())
        };
        self.positions.iter().map(|states| (0..).zip(states).map(of).collect()).collect()
    }

    /// Whether this shard takes the records of a partition in.
    fn takes_in(&self, partition: u32) -> bool {
        !self.options.is_log_shared || partition_owner(partition, self.options.shards) == self.id
    }

    /// The partitions of an ingress that this shard takes in.
    fn partitions(&self, ingress: usize) -> impl Iterator<Item = (u32, Position)> {
        let states = (0..).zip(&self.positions[ingress]).filter(|(partition, _)| self.takes_in(*partition));
        states.map(|(partition, state)| (partition, state.position.unwrap_or_default()))
    }

    /// How many messages of the shard `source` it has accepted.
    #[must_use]
    pub fn seen(&self, source: ShardId) -> u64 {
        self.seen[source as usize]
    }

    /// The watermark of a stage.
    #[must_use]
    pub fn watermark(&self, stage: StageId) -> EventTime {
        self.stages[usize::from(stage)].reached
    }

    /// What it has done since it was taken over.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// How many timers and messages wait for their time.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// What they take of memory, in bytes.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.pending.bytes()
    }

    /// How many calls of activities wait for their results.
    #[must_use]
    pub fn pending_activities(&self) -> usize {
        self.pending.activity_count()
    }

    /// The snapshots that are kept, oldest first; all others of this shard are garbage.
    #[must_use]
    pub fn snapshots(&self) -> &[SnapshotMark] {
        &self.snapshots
    }

    /// How many messages the committed frames of a target have; the next frame will say so.
    #[must_use]
    pub fn acknowledged(&self, target: ShardId) -> u64 {
        self.outboxes.iter().nth(target as usize).map_or(0, |outbox| outbox.acknowledged)
    }

    /// How many bytes of messages to other shards are not acknowledged.
    #[must_use]
    pub fn unacknowledged_bytes(&self) -> usize {
        self.outboxes.bytes()
    }

    /// How many bytes of effects wait to be sealed.
    #[must_use]
    pub fn unsealed_bytes(&self) -> usize {
        self.effects.body.len()
    }

    /// Whether the epoch has to be sealed before more inputs are applied.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.calls >= self.options.epoch_calls_max || self.effects.body.len() >= EPOCH_BYTES_MAX
    }

    /// Applies one input to the epoch that is open; call [`Self::settle`] after a batch of them.
    ///
    /// `now` is the reading of the clock; one that is behind an earlier one does not count.
    pub fn apply(&mut self, input: Input<'_>, now: ProcessingTime) {
        self.now = self.now.max(now);
        match input {
            Input::Ingress(batch) => self.apply_ingress(batch),
            Input::Mail(mail) => self.apply_mail(mail),
            Input::Request(request) => self.apply_request(request),
            Input::Result(id, outcome) => self.apply_result(id, outcome),
        }
        self.is_settled = false;
        self.drain();
    }

    /// Takes mail from the front of a queue until it is empty or the epoch is full.
    ///
    /// Many shards may have sent a few messages each: these are gathered, as a run of calls costs
    /// more than a call.
    pub fn take_mail(&mut self, queue: &mut VecDeque<Mail>, now: ProcessingTime) {
        /// How many messages a mail has at least for a run of its own.
        const LARGE: usize = 64;
        /// How many messages, and bytes of them, are gathered before they are delivered.
        const GATHERED_MAX: usize = 1_024;
        const GATHERED_BYTES_MAX: usize = 256 * 1024;
        self.now = self.now.max(now);
        self.is_settled = false;
        let mut gathered = std::mem::take(&mut self.scratch);
        while !self.is_full() {
            let room = self.options.epoch_calls_max - self.calls;
            let is_enough =
                gathered.calls.len() >= GATHERED_MAX.min(room) || gathered.bytes.len() >= GATHERED_BYTES_MAX;
            let mail = if is_enough { None } else { queue.pop_front() };
            let Some(mail) = mail else {
                if gathered.is_empty() {
                    break;
                }
                self.deliver_gathered(&mut gathered);
                continue;
            };
            let messages = self.take_in(&mail);
            if messages.len() >= LARGE {
                // Those of the same sender that came before it go first.
                self.deliver_gathered(&mut gathered);
                self.deliver(messages, mail.buffer(), &mut Decoded::default());
            } else {
                messages.iter().for_each(|call| gathered.push_message(call, mail.buffer()));
            }
        }
        self.scratch = gathered;
        self.drain();
    }

    fn deliver_gathered(&mut self, gathered: &mut Calls) {
        self.deliver(&gathered.calls, &gathered.bytes, &mut gathered.decoded);
        gathered.clear();
    }

    fn apply_ingress(&mut self, batch: &mut IngressBatch) {
        assert!(self.takes_in(batch.partition), "a partition is taken in by its shard");
        let partition = batch.partition as usize;
        let states = &mut self.positions[batch.ingress];
        if self.options.is_log_shared && states.len() <= partition {
            // The ingress has more partitions than when the shard was taken over.
            states.resize(partition + 1, PartitionState::default());
        }
        let state = &mut states[partition];
        let old = state.position.unwrap_or_default();
        if state.position.is_some() && (batch.to.offset, batch.to.is_ended) <= (old.offset, old.is_ended) {
            return;
        }
        assert!(batch.from <= old.offset, "a stretch of input follows the position of the shard (I2)");
        assert!(batch.to.offset >= old.offset, "input positions never go back (I2)");
        *state = PartitionState { position: Some(batch.to), is_dirty: true };
        for (_, letter) in batch.dead_letters.iter().filter(|(offset, _)| *offset >= old.offset) {
            self.dead_letter(letter.clone());
        }
        let known_before = if self.options.rules.holds(Rule::PositionsSkipKnown) { old.offset } else { 0 };
        self.send_onward(batch, known_before);
        let known = batch.offsets.partition_point(|offset| *offset < known_before);
        let Calls { calls, bytes, decoded } = &mut batch.calls;
        self.deliver(&calls[known..], bytes, decoded);
    }

    /// Sends on what is for other shards, from this offset on.
    fn send_onward(&mut self, batch: &IngressBatch, from: u64) {
        for (call, (shard, offset)) in batch.onward.calls.iter().zip(&batch.onward_to) {
            if *offset >= from {
                let (function, message) = self.program.names_of(call);
                self.effects.send_on(call, &batch.onward.bytes, *shard, [function, message]);
            }
        }
    }

    fn apply_mail(&mut self, mail: &Mail) {
        let messages = self.take_in(mail);
        self.deliver(messages, mail.buffer(), &mut Decoded::default());
    }

    /// Notes that a mail has come; returns those of its messages that are new.
    fn take_in<'a>(&mut self, mail: &'a Mail) -> &'a [Call] {
        let source = mail.source as usize;
        let next = self.seen[source] + 1;
        if mail.first > next && self.options.rules.holds(Rule::SeenRefusesGaps) {
            return &[];
        }
        let mut known = next.saturating_sub(mail.first) as usize;
        if !self.options.rules.holds(Rule::SeenDropsDuplicates) {
            known = 0;
        }
        let messages = mail.calls().get(known..).unwrap_or_default();
        if !messages.is_empty() {
            self.seen[source] = self.seen[source].max(mail.last());
            self.has_traffic = true;
            // Progress that waited for these messages may count now.
            self.heard_version = None;
        }
        messages
    }

    fn apply_request(&mut self, request: &Request) {
        let Calls { calls, bytes, .. } = &request.calls;
        assert_eq!(calls.len(), 1, "a request is one call");
        let mut call = calls[0];
        if call.time == EventTime::MIN {
            call.time = self.time_of_now(call.function);
        }
        let reply = match &request.once {
            Some(once) if self.changes(request.wants, &call) => self.reply_once(request, once, &call, bytes),
            _ => {
                let ticket = Ticket::Number(self.nonce, request.id);
                let reply = self.reply(request, ticket.clone(), &call, bytes);
                self.wait_if_deferred(&reply, request.id, ticket, &call, bytes);
                reply
            }
        };
        self.answers.push(Answer { request: request.id, reply });
    }

    fn reply(&mut self, request: &Request, ticket: Ticket, call: &Call, bytes: &[u8]) -> Reply {
        match request.wants {
            Wants::Answer => {
                self.effects.caller = Caller::Outside(ticket);
                self.effects.begin_trace(request.trace);
                let reply = self.call_for_answer(&[*call], bytes);
                self.effects.close();
                reply
            }
            Wants::Commit if request.delay_ms > 0 || request.trace.is_some() => {
                self.send_in(request, call, bytes);
                Reply::Taken
            }
            Wants::Replay if call.is_timer => {
                self.run_all(&[*call], bytes, &mut Decoded::default());
                Reply::Taken
            }
            Wants::Commit | Wants::Replay => {
                self.deliver(&[*call], bytes, &mut Decoded::default());
                Reply::Taken
            }
            Wants::State => {
                let host = &self.hosts[usize::from(call.function)];
                Reply::State(host.encoded_state(call.hash, call.key.of(bytes)))
            }
            wants @ (Wants::Retry | Wants::Skip | Wants::EditMessage | Wants::EditState) => {
                self.unpark(wants, call, bytes)
            }
        }
    }

    fn changes(&self, wants: Wants, call: &Call) -> bool {
        wants.is_about_parked() || call.is_timer || self.handler(call).access == Access::Write
    }

    fn handler(&self, call: &Call) -> &MessageHandler {
        &self.program.functions[usize::from(call.function)].spec.messages[usize::from(call.handler)]
    }

    /// Replies to a request with an idempotency key; what was done before is not done again.
    fn reply_once(&mut self, request: &Request, once: &[u8], call: &Call, bytes: &[u8]) -> Reply {
        self.forget_answers();
        let function = self.program.functions[usize::from(call.function)].name;
        let (key, payload) = (call.key.of(bytes), call.payload.of(bytes));
        let is_message = !request.wants.is_about_parked() && !call.is_timer;
        let message = if is_message { self.handler(call).message } else { "" };
        let hash = remembered::hash_of(request.wants, message, payload);
        let ticket = Ticket::Once(once.to_vec(), hash);
        let known = self.remembered.find(function, key, once);
        match known.filter(|_| self.options.rules.holds(Rule::AnswersAreRemembered)) {
            Some(known) if known.hash == hash => {
                let reply = read(remembered::decode(&known.reply));
                self.wait_if_deferred(&reply, request.id, ticket, call, bytes);
                return reply;
            }
            Some(_) => return Reply::Failed(Trouble::KeyReused),
            None if self.remembered.bytes() >= self.options.answers_bytes_max => {
                return Reply::Failed(Trouble::AnswersFull);
            }
            None => {}
        }
        let reply = self.reply(request, ticket.clone(), call, bytes);
        self.wait_if_deferred(&reply, request.id, ticket, call, bytes);
        if let Some(encoded) = remembered::encode(&reply) {
            let kept_ms = self.options.answers_kept_ms;
            let kept_ms = if request.wants == Wants::Replay { kept_ms.max(REPLAYS_KEPT_MS) } else { kept_ms };
            self.remember(function, key, once, (hash, kept_ms), &encoded);
        }
        reply
    }

    fn remember(&mut self, function: NameId, key: &[u8], once: &[u8], (hash, kept_ms): (u64, i64), reply: &[u8]) {
        let until = remembered::until(self.now, kept_ms);
        let answer = AnswerRef { until, function, key, once, hash, reply };
        self.effects.body.push(Op::Answer as u8);
        answer.put(&mut self.effects.body);
        self.remembered.keep(&answer);
    }

    /// Forgets the remembered answers that have ended.
    fn forget_answers(&mut self) {
        if self.remembered.has_ended(self.now) {
            self.effects.body.push(Op::ForgetAnswers as u8);
            put_signed(&mut self.effects.body, self.now.0);
            self.remembered.forget(self.now.0);
        }
    }

    /// The event time of what happens now to a function: never one that its watermark has passed.
    fn time_of_now(&self, function: FunctionId) -> EventTime {
        let stage = self.program.functions[usize::from(function)].stage;
        let reached = self.stages[usize::from(stage)].reached;
        EventTime(self.now.0.max(reached.0.saturating_add(1)))
    }

    fn call_for_answer(&mut self, calls: &[Call], bytes: &[u8]) -> Reply {
        let handler = *self.handler(&calls[0]);
        if handler.in_event_time_order {
            return Reply::Failed(Trouble::Waits(handler.message.into()));
        }
        self.effects.wants_answer = true;
        self.call_host(calls, bytes, &mut Decoded::default());
        self.effects.wants_answer = false;
        let reply = match self.failures.pop() {
            None if self.effects.is_deferred => Reply::Deferred,
            None => Reply::Answered(self.effects.answer.take().unwrap_or_default()),
            Some((_, Failure::Rejected(rejection))) => Reply::Rejected(rejection),
            Some((_, Failure::Parked)) => Reply::Failed(Trouble::Parked),
            Some((_, Failure::Unreadable(error))) => Reply::Failed(Trouble::Unreadable(error)),
            Some((place, Failure::Fault(reason))) => {
                self.counters.faults += 1;
                // It stays a part of its trace when it is made again.
                let parked = self.traced(self.effects.trace, &calls[place], bytes);
                self.park(&parked.calls[0], &parked.bytes, &reason);
                Reply::Failed(Trouble::Faulted(reason))
            }
        };
        self.hosts[usize::from(calls[0].function)].forget_last();
        self.take_timers();
        reply
    }

    /// Delivers calls in order; those that come in the order of event time wait for it.
    fn deliver(&mut self, calls: &[Call], bytes: &[u8], decoded: &mut Decoded) {
        if !self.program.has_ordered_handlers() {
            return self.run_all(calls, bytes, decoded);
        }
        let mut due = Vec::with_capacity(calls.len());
        for call in calls {
            if !self.wait(call, bytes) {
                due.push(*call);
            }
        }
        self.run_all(&due, bytes, decoded);
    }

    /// Lets a message wait for its time, if its handler wants that and the time is still to come.
    fn wait(&mut self, call: &Call, bytes: &[u8]) -> bool {
        let function = &self.program.functions[usize::from(call.function)];
        let reached = self.stages[usize::from(function.stage)].reached;
        let is_late = call.time <= reached && reached > EventTime::MIN;
        self.counters.late += u64::from(is_late);
        if !function.is_in_event_time_order(call.handler) {
            return false;
        }
        // What is due before it and did not fire yet comes first.
        let due = self.pending.wheel_time(call.function, frame::PENDING_MESSAGE, call.time.0);
        let earliest = self.pending.earliest(usize::from(function.stage));
        if due <= reached.0 && earliest.is_none_or(|earliest| earliest > due) {
            return false;
        }
        let message = MessageRef {
            function: function.name,
            message: function.message_name(call.handler),
            time: call.time,
            key: call.key.of(bytes),
            payload: call.payload.of(bytes),
        };
        let (id, kind, due) = (self.effects.pending_next, frame::PENDING_MESSAGE, call.time.0);
        self.effects.pending_next += 1;
        let body = &mut self.effects.body;
        body.push(Op::PendingAdd as u8);
        let start = body.len();
        frame::PendingRef { id, kind, due, name: b"", message }.put(body);
        self.pending.add(&body[start..]);
        true
    }

    /// Makes calls in order, those of one function and handler together.
    ///
    /// Order is promised for each pair of sending and receiving key only, so functions may be
    /// taken one after the other.
    fn run_all(&mut self, calls: &[Call], bytes: &[u8], decoded: &mut Decoded) {
        let is_mixed = self.hosts.len() > 1 && calls.windows(2).any(|pair| pair[0].function != pair[1].function);
        let mut sorted = Vec::new();
        let calls = if is_mixed {
            sorted.extend_from_slice(calls);
            sorted.sort_by_key(|call| call.function);
            &sorted[..]
        } else {
            calls
        };
        for run in calls.chunk_by(|a, b| (a.function, a.is_timer, a.handler) == (b.function, b.is_timer, b.handler)) {
            if self.are_late_answers(run) {
                self.take_late_answers(run, bytes);
                continue;
            }
            self.call_host(run, bytes, decoded);
            if !self.failures.is_empty() {
                self.handle_failures(run, bytes);
            }
            if !self.effects.timers.is_empty() {
                self.take_timers();
            }
        }
    }

    fn call_host(&mut self, calls: &[Call], bytes: &[u8], decoded: &mut Decoded) {
        let Some(first) = calls.first() else { return };
        self.calls += calls.len();
        self.counters.calls += calls.len() as u64;
        self.counters.timers += if first.is_timer { calls.len() as u64 } else { 0 };
        self.effects.firing = first.is_timer.then_some((first.function, first.handler));
        if self.guard.is_some() {
            self.call_guarded(calls, bytes, decoded);
            return self.bury_replies();
        }
        self.effects.watch.enter(first.function, first.handler, first.is_timer);
        let run = Run { calls, bytes, decoded, now: self.now };
        self.hosts[usize::from(first.function)].run(run, &mut self.effects, &mut self.failures);
        self.effects.watch.leave();
        self.bury_replies();
    }

    /// Delivers what handlers sent to this shard, in rounds, up to the limit of the epoch.
    fn drain(&mut self) {
        loop {
            if self.queue_at == self.queue.calls.len() {
                self.queue.clear();
                self.queue_at = 0;
                std::mem::swap(&mut self.queue, &mut self.effects.local);
                if self.queue.is_empty() {
                    return;
                }
            }
            let room = self.options.epoch_calls_max.saturating_sub(self.calls);
            if room == 0 || self.is_full() {
                return;
            }
            let mut queue = std::mem::take(&mut self.queue);
            let end = queue.calls.len().min(self.queue_at + room);
            self.counters.messages += (end - self.queue_at) as u64;
            self.deliver(&queue.calls[self.queue_at..end], &queue.bytes, &mut queue.decoded);
            self.queue = queue;
            self.queue_at = end;
        }
    }

    fn handle_failures(&mut self, calls: &[Call], bytes: &[u8]) {
        let mut failures = std::mem::take(&mut self.failures);
        for (place, failure) in failures.drain(..) {
            let call = &calls[place];
            match failure {
                Failure::Parked => self.park(call, bytes, ""),
                Failure::Fault(reason) => {
                    self.counters.faults += 1;
                    self.park(call, bytes, &reason);
                }
                Failure::Unreadable(error) => {
                    self.tell_asker(call, bytes, |out| ask::put_failure(&error, out));
                    self.dead_call(Reason::UnreadableMessage, &error, call, bytes);
                }
                Failure::Rejected(rejection)
                    if self.tell_asker(call, bytes, |out| ask::put_rejection(&rejection.value, out)) => {}
                Failure::Rejected(rejection) => {
                    self.counters.rejections += 1;
                    let error = format!("{}: {}", rejection.code, String::from_utf8_lossy(&rejection.value));
                    self.dead_call(Reason::Rejected, &error, call, bytes);
                }
            }
        }
        self.failures = failures;
    }

    fn dead_call(&mut self, reason: Reason, error: &str, call: &Call, bytes: &[u8]) {
        let (function, message) = self.program.names_of(call);
        let (message, payload) = envelope::opened(self.name(message), call.payload.of(bytes));
        let letter = DeadLetter::of_message(reason, error, self.name(function), call.key.of(bytes), message, payload);
        self.dead_letter(letter.at(call.time, call.is_timer));
    }

    fn dead_letter(&mut self, letter: DeadLetter) {
        self.counters.dead_letters += 1;
        // What the open epoch emits stands in the frame in this order.
        let id = Some(format!("{}/{}/{}", self.id, self.epoch + 1, self.effects.emitted.len()));
        let letter = DeadLetter { id, ..letter };
        self.effects.emit_with(self.program.dead_letters, |body| letter.write(body));
    }

    fn name(&self, id: NameId) -> &str {
        self.names.get(usize::from(id)).map_or("?", String::as_str)
    }

    /// Sets and cancels the timers that a run asked for.
    fn take_timers(&mut self) {
        let mut timers = std::mem::take(&mut self.effects.timers);
        for request in timers.drain(..) {
            let replaced = match request {
                TimerRequest::Cancel { function, key, name } => self.pending.cancel(function, &key, name.as_bytes()),
                TimerRequest::Set(timer) => self.pending.add(timer.entry.of(&self.effects.body)),
                TimerRequest::Add(entry) => {
                    let entry = entry.of(&self.effects.body);
                    let pending = read(frame::PendingRef::read(&mut Reader::new(entry)));
                    if pending.kind == frame::PENDING_ACTIVITY {
                        self.asked_for.push(pending.id);
                    }
                    self.pending.add(entry)
                }
            };
            if let Some(id) = replaced {
                self.put_removed(id);
            }
        }
        self.effects.timers = timers;
    }

    fn put_removed(&mut self, id: u64) {
        self.effects.body.push(Op::PendingRemove as u8);
        put_varint(&mut self.effects.body, id);
    }
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shard({}, term {}, epoch {})", self.id, self.term, self.epoch)
    }
}

/// Restores a shard from what its journal says.
impl Shard {
    /// Loads the state of an image whose names are the program's; the image's states are taken.
    ///
    /// # Errors
    /// Everything in the image that this program cannot handle, a line each.
    pub(crate) fn load(program: Arc<Program>, options: Arc<Options>, image: &mut Image) -> Result<Self, LinkError> {
        let id = image.shard;
        let shards = options.shards as usize;
        let (inputs, others) = (program.ingresses.len(), if options.is_log_shared { shards - 1 } else { 0 });
        let mut shard = Self {
            hosts: program.hosts(),
            effects: Effects::new(id, options.shards),
            pending: Pending::new(&program),
            parked: Parking::of(image.parked.clone(), &options.parked),
            guard: None,
            remembered: std::mem::take(&mut image.remembered),
            awaited: Awaited::default(),
            asked_for: Vec::new(),
            live: EventTime::MIN,
            live_at: ProcessingTime(image.now),
            stages: vec![UNKNOWN; program.stages.len()],
            heard: vec![EventTime::MIN; shards * program.stages.len()],
            heard_least: vec![if shards > 1 { EventTime::MIN } else { EventTime::MAX }; program.stages.len()],
            heard_inputs: vec![InputProgress::UNKNOWN; if options.is_log_shared { shards * inputs } else { 0 }],
            heard_inputs_all: vec![if others > 0 { InputProgress::UNKNOWN } else { InputProgress::NONE }; inputs],
            heard_version: None,
            is_settled: false,
            heard_versions: vec![0; shards],
            positions: options
                .partitions
                .iter()
                .map(|count| vec![PartitionState::default(); *count as usize])
                .collect(),
            seen: vec![0; shards],
            seen_sealed: vec![0; shards],
            has_traffic: program.has_mail(options.is_log_shared),
            outboxes: Outboxes::new(options.shards, &program),
            acknowledged_sealed: vec![0; shards],
            leftover: Leftover::default(),
            queue: Calls::default(),
            queue_at: 0,
            carries: false,
            calls: 0,
            answers: Vec::new(),
            counters: Counters::default(),
            failures: Vec::new(),
            due: Vec::new(),
            called: Called::default(),
            group_calls: GROUP_CALLS,
            scratch: Calls::default(),
            snapshots: Vec::new(),
            snapshot_bytes: 0,
            snapshot_is_on_its_way: false,
            snapshot_is_wanted: false,
            read_back: ReadBack::default(),
            mark_to_append: None,
            tail_bytes: 0,
            removed_late: Vec::new(),
            names: image.names.clone(),
            term: image.term,
            nonce: image.nonce,
            epoch: image.epoch,
            crc: image.crc,
            now: ProcessingTime(image.now),
            now_sealed: ProcessingTime(image.now),
            next_offset: image.next_offset,
            in_flight: None,
            last_frame: None,
            id,
            program,
            options,
        };
        shard.effects.pending_next = image.pending_next;
        shard.effects.rules = shard.options.rules;
        shard.effects.program = Some(Arc::clone(&shard.program));
        frame::begin(&mut shard.effects.body);
        let mut problems = Vec::new();
        shard.load_states(image, &mut problems);
        shard.load_time(image);
        shard.refuse_positions_of_others(image, &mut problems);
        shard.load_messages(image, &mut problems);
        if problems.is_empty() { Ok(shard) } else { Err(LinkError(problems)) }
    }

    fn load_states(&mut self, image: &mut Image, problems: &mut Vec<String>) {
        let states = std::mem::take(&mut image.states);
        let mut keys = vec![0; self.hosts.len()];
        let functions = states.iter().filter_map(|state| self.program.function_named(state.function));
        functions.for_each(|function| keys[usize::from(function)] += 1);
        self.hosts.iter_mut().zip(keys).for_each(|(host, keys)| host.reserve(keys));
        if states.iter().try_for_each(|state| self.load_state(state)).is_err() {
            // Again in order, so that the same problems are told in the same order.
            let failed = states.sorted().filter_map(|state| Some((state, self.load_state(state).err()?)));
            problems.extend(failed.take(PROBLEMS_MAX).map(|(StateRef { function, key, .. }, error)| {
                let key = crate::dead_letter::printable_key(key);
                format!("the state of `{}` for key {key}: {error}", image.name(function))
            }));
        }
        for (name, key) in image.parked.keys() {
            let function = self.program.function_named(*name);
            let parked = function.map(|function| self.hosts[usize::from(function)].set_parked(murmur2(key), key, true));
            if !matches!(parked, Some(Ok(()))) {
                problems.push(format!("a parked key is of `{}`, which the program does not have", image.name(*name)));
            }
        }
    }

    fn load_state(&mut self, state: StateRef<'_>) -> Result<(), DecodeError> {
        let StateRef { function, hash, key, state } = state;
        match self.program.function_named(function) {
            Some(function) => self.hosts[usize::from(function)].load(hash, key, state),
            None => Err(DecodeError::new("the program has no such function: register it, or delete its keys")),
        }
    }

    fn load_time(&mut self, image: &Image) {
        let is_log_shared = self.options.is_log_shared;
        for (&(ingress, partition), &position) in &image.positions {
            let known = self.program.ingresses.iter().position(|spec| spec.name == image.name(ingress));
            let mut states = known.map(|at| &mut self.positions[at]);
            if let Some(states) = states.as_mut().filter(|states| is_log_shared && states.len() <= partition as usize) {
                // Whoever read them has found more partitions than were there when this worker looked.
                states.resize(partition as usize + 1, PartitionState::default());
            }
            match states.and_then(|states| states.get_mut(partition as usize)) {
                Some(slot) => slot.position = Some(position),
                None => _ = self.leftover.positions.insert((ingress, partition), position),
            }
        }
        for (&name, &(reached, out)) in &image.watermarks {
            let Some(function) = self.program.function_named(name) else {
                self.leftover.watermarks.insert(name, (reached, out));
                continue;
            };
            let stage = &mut self.stages[usize::from(self.program.functions[usize::from(function)].stage)];
            stage.reached = stage.reached.max(reached);
            stage.out = stage.out.max(out);
            stage.sealed = (stage.reached, stage.out);
        }
        for (&source, &upto) in &image.seen {
            self.seen[source as usize] = upto;
            self.seen_sealed[source as usize] = upto;
            self.has_traffic = true;
        }
    }

    /// Where processes share the log, a shard that has read what is another one's did so by other rules.
    fn refuse_positions_of_others(&self, image: &Image, problems: &mut Vec<String>) {
        let others = image.positions.keys().filter(|(_, partition)| !self.takes_in(*partition));
        problems.extend(others.map(|(ingress, partition)| {
            let (owner, ingress) = (partition_owner(*partition, self.options.shards), image.name(*ingress));
            format!("it has read partition {partition} of `{ingress}`, which shard {owner} takes in: it was written before shards had partitions of their own, or by a process alone; begin with an app of another name")
        }));
    }

    fn load_messages(&mut self, image: &Image, problems: &mut Vec<String>) {
        let mut missing = |what: &str, message: &MessageRef<'_>| {
            let (function, message) = (image.name(message.function), image.name(message.message));
            let problem =
                format!("{what} `{message}` waits for `{function}`, which no longer handles it: add its handler again");
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        };
        let mut entry = Vec::new();
        for pending in image.pending.values() {
            let pending = read(frame::PendingRef::read(&mut Reader::new(pending)));
            let is_timer = pending::is_timer(pending.kind);
            match self.handler_of(is_timer, &pending.message) {
                Some(_) => {
                    entry.clear();
                    pending.put(&mut entry);
                    self.pending.add(&entry);
                }
                None if is_timer => missing("a timer", &pending.message),
                None => missing("a message", &pending.message),
            }
        }
        let parked = image.parked.values().flat_map(|parked| &parked.queue).map(|(is_timer, bytes)| (*is_timer, bytes));
        let messages = image.carry.iter().chain(image.outbox.values()).map(|bytes| (false, bytes));
        for (is_timer, bytes) in parked.chain(messages) {
            let message = read(MessageRef::read(&mut Reader::new(bytes)));
            if self.handler_of(is_timer, &message).is_none() {
                missing("a message", &message);
            }
        }
        if !problems.is_empty() {
            return;
        }
        self.carries = !image.carry.is_empty();
        for bytes in &image.carry {
            let message = read(MessageRef::read(&mut Reader::new(bytes)));
            let (function, handler) = read(outbox::handler_of(&self.program, &message));
            let call = Call::message(function, handler, murmur2(message.key), message.time);
            self.queue.push(call, message.key, message.payload);
        }
        for target in 0..self.options.shards {
            let upto = |numbers: &BTreeMap<ShardId, u64>| numbers.get(&target).copied().unwrap_or_default();
            let numbers = [upto(&image.sent), upto(&image.acknowledged)];
            let messages: Vec<&Vec<u8>> =
                image.outbox.range((target, 0)..=(target, u64::MAX)).map(|(_, bytes)| bytes).collect();
            let mut outbox = read(Outbox::restore(&self.program, [self.id, target], numbers, &messages));
            if !self.options.rules.holds(Rule::ResendsAtTakeOver) {
                outbox.keep_to_itself();
            }
            self.outboxes.restore(target, outbox);
            self.acknowledged_sealed[target as usize] = numbers[1];
            self.has_traffic |= numbers[0] > 0;
        }
    }

    fn handler_of(&self, is_timer: bool, message: &MessageRef<'_>) -> Option<(u16, u16)> {
        let function = self.program.function_named(message.function)?;
        Some((function, self.program.handler_of(is_timer, function, message.message)?))
    }

    /// Begins an ownership: the fold has accepted the claim with `nonce`.
    pub(crate) fn accept(&mut self, replica: &Replica) {
        let image = &replica.image;
        assert_eq!((self.epoch, self.crc), (image.epoch, image.crc), "an owner begins where the journal ends (I1)");
        (self.term, self.nonce, self.next_offset) = (image.term, image.nonce, image.next_offset);
        self.names.clone_from(&image.names);
        self.snapshots.clone_from(&replica.snapshots);
        self.snapshot_bytes = replica.snapshots.last().map_or(0, |mark| mark.length);
        self.tail_bytes = replica.tail_bytes;
    }
}

/// What was folded from a journal has been read once before.
fn read<T, E: Into<Corrupt>>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("an image holds only what it has read: {}", error.into()))
}
