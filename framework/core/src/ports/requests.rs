//! The requests port: how an edge, such as an HTTP server, asks a running app for something.
//!
//! Invariants an implementation MUST keep: a demand never makes its caller wait; how many may be
//! pending is bounded in number and bytes, and one too many is refused at once; what is told is told
//! exactly once, a reply only after its epoch is committed; a demand that was [`Unanswered`] with
//! anything but [`Unanswered::Unknown`] has done nothing and will do nothing. If nobody is left to
//! know what became of it, `tell` is dropped: the outcome is unknown then too.
//!
//! Deliberately absent: retries, and futures. An edge knows how to wait.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    envelope::Trace,
    program::FunctionId,
    shard::{Reply, Wants},
    time::EventTime,
};

/// What an edge wants of a key.
#[derive(Debug, Clone)]
pub struct Demand {
    /// The function.
    pub function: FunctionId,
    /// The handler of the message, by its place among those of the function.
    pub handler: u16,
    /// What is to be told.
    pub wants: Wants,
    /// The idempotency key, if there is one.
    pub once: Option<Vec<u8>>,
    /// The key's bytes.
    pub key: Vec<u8>,
    /// The message's bytes.
    pub payload: Vec<u8>,
    /// Its event time; `EventTime::MIN` if it happens now.
    pub time: EventTime,
    /// Whether the handler is one of timers; only a dead letter that is replayed may be that.
    pub is_timer: bool,
    /// How long it may wait until it is begun.
    pub patience: Duration,
    /// How long its answer may take if the handler gives it later than its call; then it is unknown.
    pub deferral_max: Duration,
    /// How long a message that is to be committed waits before it is handled.
    pub delay: Duration,
    /// Its place in a trace, if it is part of one.
    pub trace: Option<Trace>,
}

impl Demand {
    /// A demand that is begun within `patience`, or not at all: of the function's first handler, with an
    /// empty message, no idempotency key, no delay and no trace.
    #[must_use]
    pub fn new(function: FunctionId, wants: Wants, key: Vec<u8>, patience: Duration) -> Self {
        Self {
            function,
            handler: 0,
            wants,
            once: None,
            key,
            payload: Vec::new(),
            time: EventTime::MIN,
            is_timer: false,
            patience,
            deferral_max: 2 * patience,
            delay: Duration::ZERO,
            trace: None,
        }
    }
}

/// Takes the outcome of a demand, on any thread; it must not wait.
pub type Tell = Box<dyn FnOnce(Result<Reply, Unanswered>) + Send>;

/// Why there is no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum Unanswered {
    /// Too much is pending; nothing was done.
    #[error("too many requests are pending: try again later")]
    Overloaded,
    /// It waited for longer than it may; nothing was done.
    #[error("the request waited for too long and was not begun: try again later")]
    Expired,
    /// The app starts or stops; nothing was done.
    #[error("the app does not run at the moment: try again later")]
    NotRunning,
    /// The shard of the key is another worker's, or nobody's; nothing was done.
    #[error("no worker has the shard of the key at the moment: try again later")]
    Elsewhere,
    /// Somebody has paused the function, or one that it leads to; nothing was done.
    #[error("the function is paused, or one that it leads to: `resume` lets it go on")]
    Paused,
    /// It may have been done, or not.
    #[error("nobody knows whether the request was done")]
    Unknown,
}

/// What an app can do at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It takes its shards over.
    Starting,
    /// It takes requests.
    Ready,
    /// Its disk takes nothing, so requests wait.
    Blocked,
    /// It takes no more requests.
    Stopping,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Blocked => "blocked",
            Self::Stopping => "stopping",
        })
    }
}

/// How many demands the suite makes at a time.
const DEMANDS: usize = 100;

/// The suite that every implementation of [`Requests`] passes; `ask` makes demands, in their order and
/// without waiting between them, and waits until each was told, once; `good` is a demand for an answer.
///
/// # Panics
/// If an implementation breaks its contract.
pub fn conformance(good: &Demand, mut ask: impl FnMut(Vec<Demand>) -> Vec<Result<Reply, Unanswered>>) {
    let told = ask(vec![good.clone(); DEMANDS]);
    assert_eq!(told.len(), DEMANDS, "each demand is told once");
    for told in told {
        assert!(matches!(told, Ok(Reply::Answered(_)) | Err(Unanswered::Overloaded)), "a demand was told {told:?}");
    }
    let told = ask(vec![Demand { patience: Duration::ZERO, ..good.clone() }]);
    assert_eq!(told, [Err(Unanswered::Expired)], "a demand that may not wait is not begun late");
    let told =
        ask(vec![Demand { wants: Wants::Commit, ..good.clone() }, Demand { wants: Wants::State, ..good.clone() }]);
    assert_eq!(told.first(), Some(&Ok(Reply::Taken)), "a message that is committed is taken");
    assert!(matches!(told.last(), Some(Ok(Reply::State(Some(_))))), "a key that was called has a state: {told:?}");
    let once = Demand { once: Some(b"once".to_vec()), ..good.clone() };
    let told = ask(vec![once.clone(), once]);
    assert!(matches!(told.first(), Some(Ok(Reply::Answered(_)))), "a demand was told {told:?}");
    assert_eq!(told.first(), told.last(), "a demand that is made again is told the same");
}

/// Where demands go; see the module for the contract.
pub trait Requests: Send + Sync {
    /// Makes a demand.
    fn demand(&self, demand: Demand, tell: Tell);

    /// What the app can do at the moment.
    fn condition(&self) -> Condition;
}
