//! The inspection port: how somebody beside a running app asks what it holds and how far it is.
//!
//! A question goes to one shard; the one who asks puts the findings of several together. Findings of
//! keys, timers and parked calls are told once everything they saw is committed; a status is told at
//! once, as the shard stands.
//!
//! Invariants an implementation MUST keep: asking never makes the caller wait; a question takes a
//! shard's thread no longer than a bounded slice at a time, however much there is to look through; how
//! many questions may wait is bounded, and one too many is refused at once; each is told at most
//! once, and `tell` is dropped if nobody is left to answer; asking changes nothing.
//!
//! Deliberately absent: changes, which are demands of [`requests`](super::requests), but for pauses.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::requests::Unanswered;
use crate::{
    address::ShardId,
    ports::log::Offset,
    program::{FunctionId, StageId},
    shard::{Counters, frame::Position},
    time::EventTime,
};

/// How many keys, timers or parked keys a shard tells at most: a page of 1,000, and one that says there are more.
pub const FOUND_MAX: usize = 1_001;
/// How many bytes of each message it tells in a list.
pub const PAYLOAD_BYTES_MAX: usize = 4 * 1024;

/// What one wants to know of a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// How far it is.
    Status,
    /// The keys of a function that have a state, in the order of their bytes.
    Keys(KeysWanted),
    /// What waits for its time for one key, in the order in which it is due.
    Timers {
        /// The function.
        function: FunctionId,
        /// The key's bytes.
        key: Vec<u8>,
        /// How many at most.
        limit: usize,
    },
    /// The keys that are parked, in the order of functions and keys.
    Parked {
        /// Only those behind this one.
        after: Option<(FunctionId, Vec<u8>)>,
        /// How many at most.
        limit: usize,
    },
    /// One key that is parked.
    ParkedKey {
        /// The function.
        function: FunctionId,
        /// The key's bytes.
        key: Vec<u8>,
    },
}

/// Which keys one wants to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysWanted {
    /// The function.
    pub function: FunctionId,
    /// What their bytes begin with.
    pub prefix: Vec<u8>,
    /// Only those behind this one.
    pub after: Option<Vec<u8>>,
    /// How many at most.
    pub limit: usize,
}

/// What a shard found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Finding {
    /// How far it is.
    Status(Box<ShardStatus>),
    /// Keys.
    Keys(Vec<Vec<u8>>),
    /// What waits for its time.
    Timers(Vec<TimerFound>),
    /// Keys that are parked.
    Parked(Vec<ParkedFound>),
}

/// How far a shard is, and what it holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardStatus {
    /// The shard.
    pub shard: ShardId,
    /// The term of its owner.
    pub term: u64,
    /// The last sealed epoch.
    pub epoch: u64,
    /// The offset that the next record of its journal gets.
    pub journal_offset: Offset,
    /// By function: its keys that have a state.
    pub functions: Vec<Keys>,
    /// Timers and messages that wait for their time.
    pub pending: usize,
    /// What these take of memory, in bytes.
    pub pending_bytes: usize,
    /// Keys that are parked.
    pub parked_keys: usize,
    /// About how much memory the calls take that they wait with, in bytes.
    pub parked_bytes: usize,
    /// Whether they keep the shard from taking input.
    pub is_stopped_by_parked: bool,
    /// Bytes of messages to other shards that these have not committed yet.
    pub unacknowledged_bytes: usize,
    /// What it has done since it was taken over.
    pub counters: Counters,
    /// By ingress, by partition: the first record that it has not taken; none of a partition that another
    /// shard takes in.
    pub positions: Vec<Vec<Option<Position>>>,
    /// By stage: how far event time has come.
    pub stages: Vec<StageStatus>,
}

/// The keys of a function in one shard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// How many have a state.
    pub count: usize,
    /// What they take of memory, in bytes: estimated from the encoded states that were seen.
    pub bytes: usize,
}

/// How far event time has come in a stage of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageStatus {
    /// No message at or before this time is still to come.
    pub watermark: EventTime,
    /// No message that the stage sends from here on has this time or an earlier one.
    pub out: EventTime,
    /// What holds the watermark.
    pub held_by: Hold,
    /// What holds `out` behind the watermark, if anything does.
    pub out_held_by: Option<Hold>,
}

/// What holds event time back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hold {
    /// Nothing does: every input has ended.
    Ended,
    /// Nothing that has a time leads to the stage.
    NoSource,
    /// How far an ingress partition was read.
    Ingress {
        /// The ingress, by its place in the program.
        ingress: usize,
        /// The partition.
        partition: u32,
    },
    /// How far another shard has taken in its partitions of an ingress.
    IngressOf {
        /// The ingress, by its place in the program.
        ingress: usize,
        /// The shard.
        shard: ShardId,
    },
    /// The clock, which event time follows where requests may come at any time.
    Clock,
    /// What a stage before it lets out on a shard.
    Sender {
        /// The stage.
        stage: StageId,
        /// The shard.
        shard: ShardId,
    },
    /// A message within the cycle, or what leads to it, that a shard does not let go of yet.
    Cycle {
        /// The shard.
        shard: ShardId,
    },
    /// A timer, or a message that waited for its time, which is due at this time and did not fire yet.
    Timer(EventTime),
    /// A message of this time that was carried over to the next epoch.
    Carried(EventTime),
}

/// What waits for its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerFound {
    /// Its number, unique in the shard and rising.
    pub id: u64,
    /// What it is.
    pub kind: TimerKind,
    /// When it is due, in milliseconds since 1970.
    pub due: i64,
    /// The name that it is replaced and cancelled by, if it has one.
    pub name: Option<String>,
    /// The name of its payload.
    pub message: String,
    /// Its payload.
    pub payload: Start,
}

/// Bytes, of which only the first ones are told where there may be many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The first bytes.
    pub bytes: Vec<u8>,
    /// How many there are.
    pub total: usize,
}

impl Start {
    /// The first `bytes_max` of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8], bytes_max: usize) -> Self {
        Self { bytes: bytes[..bytes.len().min(bytes_max)].to_vec(), total: bytes.len() }
    }

    /// Whether nothing is missing.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.bytes.len() == self.total
    }
}

/// What waits for its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimerKind {
    /// A timer of event time.
    EventTime,
    /// A timer of processing time.
    ProcessingTime,
    /// A message whose handler wants the order of event time.
    Message,
}

impl fmt::Display for TimerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EventTime => "event-time",
            Self::ProcessingTime => "processing-time",
            Self::Message => "message",
        })
    }
}

/// A key that is parked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParkedFound {
    /// The function.
    pub function: FunctionId,
    /// The key's bytes.
    pub key: Vec<u8>,
    /// Why it stopped.
    pub reason: String,
    /// The name of the message, or of the timer's payload, that it stopped at.
    pub message: String,
    /// Whether it stopped at a timer.
    pub is_timer: bool,
    /// That message.
    pub payload: Start,
    /// The message's event time.
    pub time: EventTime,
    /// How many calls wait, that one included.
    pub queue: usize,
}

/// Takes a finding, on any thread; it must not wait.
pub type Tell = Box<dyn FnOnce(Result<Finding, Unanswered>) + Send>;

/// What a process counts beside its shards.
#[derive(Debug, Clone, Default)]
pub struct Numbers {
    /// Records that were read, dead letters included.
    pub records: u64,
    /// Records that could not be read.
    pub unreadable: u64,
    /// Bytes that egresses have not written yet.
    pub egress_backlog_bytes: u64,
    /// How often an egress could not be written.
    pub egress_failures: u64,
    /// How often egresses came to be far behind.
    pub egress_alarms: u64,
    /// Attempts of activities that were begun.
    pub activity_attempts: u64,
    /// Those of them that failed, and are repeated or given up.
    pub activity_failures: u64,
    /// Requests whose answer is not told yet.
    pub requests_pending: u64,
    /// Their bytes.
    pub requests_bytes: u64,
    /// Snapshots that were stored.
    pub snapshots: u64,
    /// How often a journal was trimmed.
    pub trims: u64,
    /// How long commits took.
    pub commits: Distribution,
}

/// How long something took.
#[derive(Debug, Clone, Default)]
pub struct Distribution {
    /// Up to how many seconds, and how many took no longer; rising in both.
    pub upto: Vec<(f64, u64)>,
    /// How many there were.
    pub count: u64,
    /// How long they took together, in seconds.
    pub sum_seconds: f64,
}

/// Where a partition of an ingress reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Partition {
    /// The file, if it is one.
    pub path: Option<PathBuf>,
    /// The partition of a topic, by the topic's name and its number there, if it is one.
    pub topic: Option<(String, u32)>,
    /// How many bytes it has, if offsets of positions are bytes of it.
    pub bytes: Option<u64>,
    /// The offset behind its last record a moment ago, if offsets of positions are those of a log.
    pub end: Option<u64>,
}

/// What can be paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pausable {
    /// An ingress, by its place in the program: it is not read.
    Ingress(usize),
    /// A function: no ingress that leads to it is read, and requests that lead to it are refused.
    Function(FunctionId),
}

/// Whether something goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pause {
    /// Somebody has paused it.
    pub is_paused: bool,
    /// It is held because of its own pause or that of something else.
    pub is_held: bool,
}

/// Why a pause could not be set.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the pauses cannot be stored: {0}")]
pub struct PauseError(pub String);

/// The suite that every implementation of [`Inspect`] passes, for an app whose function 0 has keys that are
/// not parked and no timers; `ask` asks, and waits until it was told.
///
/// # Panics
/// If an implementation breaks its contract.
pub fn conformance(inspect: &dyn Inspect, ask: impl Fn(ShardId, Question) -> Result<Finding, Unanswered>) {
    let mut keys = 0;
    for shard in 0..inspect.shards() {
        let Ok(Finding::Status(status)) = ask(shard, Question::Status) else { panic!("a shard says how far it is") };
        assert_eq!(status.shard, shard, "the shard that was asked answers");
        let wanted = KeysWanted { function: 0, prefix: Vec::new(), after: None, limit: FOUND_MAX };
        let Ok(Finding::Keys(all)) = ask(shard, Question::Keys(wanted.clone())) else { panic!("keys are found") };
        assert_eq!(all.len(), status.functions[0].count.min(FOUND_MAX), "every key that has a state is found");
        assert!(all.is_sorted(), "keys come in their order");
        keys += all.len();
        for pair in all.windows(2) {
            let next = KeysWanted { after: Some(pair[0].clone()), limit: 1, ..wanted.clone() };
            assert_eq!(ask(shard, Question::Keys(next)), Ok(Finding::Keys(vec![pair[1].clone()])), "the next one");
            let one = KeysWanted { prefix: pair[1].clone(), limit: 1, ..wanted.clone() };
            assert_eq!(ask(shard, Question::Keys(one)), Ok(Finding::Keys(vec![pair[1].clone()])), "by its beginning");
            let timers = Question::Timers { function: 0, key: pair[0].clone(), limit: FOUND_MAX };
            assert_eq!(ask(shard, timers), Ok(Finding::Timers(Vec::new())), "nothing waits");
            let parked = Question::ParkedKey { function: 0, key: pair[0].clone() };
            assert_eq!(ask(shard, parked), Ok(Finding::Parked(Vec::new())), "nothing is parked");
        }
        let parked = Question::Parked { after: None, limit: FOUND_MAX };
        assert_eq!(ask(shard, parked), Ok(Finding::Parked(Vec::new())), "nothing is parked");
    }
    assert!(keys > 0, "the app has keys");
    let function = Pausable::Function(0);
    for is_paused in [true, true, false, false] {
        assert_eq!(inspect.set_pause(function, is_paused), Ok(()));
        assert_eq!(inspect.pause(function), Pause { is_paused, is_held: is_paused }, "a pause is told");
    }
}

/// Answers what is asked of a running app; see the module for the contract.
pub trait Inspect: Send + Sync {
    /// Asks a shard.
    fn ask(&self, shard: ShardId, question: Question, tell: Tell);

    /// How many shards it has.
    fn shards(&self) -> u32;

    /// The number of the host that has a shard.
    fn host_of(&self, shard: ShardId) -> usize;

    /// What the process has counted.
    fn numbers(&self) -> Numbers;

    /// By ingress: its partitions.
    fn inputs(&self) -> Vec<Vec<Partition>>;

    /// Whether something goes on.
    fn pause(&self, what: Pausable) -> Pause;

    /// Pauses something or lets it go on; once this returns it is so also after a restart. It may wait for a
    /// disk.
    ///
    /// # Errors
    /// If that cannot be stored; nothing has changed then.
    fn set_pause(&self, what: Pausable, is_paused: bool) -> Result<(), PauseError>;
}
