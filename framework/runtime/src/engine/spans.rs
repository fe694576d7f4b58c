//! What a run tells of traces: what committed calls did, and the attempts of activities.
//!
//! Invariants: calls are told after their commit, attempts when they have ended; what is told may be lost, and
//! nobody waits for the one who takes it. What follows from a frame has the same id however often it is told;
//! each attempt has an id of its own, also those of a call that a crash has interrupted.
//!
//! Deliberately absent: who takes them to where they are looked at.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use statefn_core::{
    envelope::{SpanRecord, Trace},
    shard::ActivityCall,
};

/// Takes what was done in traces; it must not wait.
pub type SpanSink = Arc<dyn Fn(Spans) + Send + Sync>;

/// Something that was done in traces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spans {
    /// Calls of one epoch.
    Calls {
        /// What they did.
        records: Vec<SpanRecord>,
        /// When it was known that they are committed.
        committed_at: SystemTime,
    },
    /// An attempt of a call of an activity.
    Attempt(AttemptRecord),
}

/// An attempt that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRecord {
    /// Its place in the trace.
    pub trace: Trace,
    /// The activity.
    pub activity: String,
    /// What the outside knows the call by.
    pub id: String,
    /// How many attempts this process has made, this one included.
    pub attempt: u32,
    /// When it began.
    pub began_at: SystemTime,
    /// How long it took.
    pub took: Duration,
    /// Why it has to be repeated, if it has.
    pub error: Option<String>,
}

/// The place in a trace of the next attempt of a call.
pub(super) fn next_attempt(call: &ActivityCall) -> Option<Trace> {
    // The process does not know which numbers one before it has used.
    call.attempt(fastrand::u32(1..))
}

/// Tells what there is to tell, if somebody listens.
pub(super) fn tell(sink: Option<&SpanSink>, spans: impl FnOnce() -> Spans) {
    if let Some(sink) = sink {
        sink(spans());
    }
}

/// An attempt that goes on.
pub(super) struct Begun {
    pub(super) began_at: SystemTime,
    pub(super) began: Instant,
}

impl Begun {
    pub(super) fn begin() -> Self {
        Self { began_at: SystemTime::now(), began: Instant::now() }
    }

    pub(super) fn end(
        &self,
        trace: Trace,
        activity: &str,
        id: &str,
        attempt: u32,
        error: Option<impl fmt::Display>,
    ) -> Spans {
        Spans::Attempt(AttemptRecord {
            trace,
            activity: activity.to_owned(),
            id: id.to_owned(),
            attempt,
            began_at: self.began_at,
            took: self.began.elapsed(),
            error: error.map(|error| error.to_string()),
        })
    }
}
