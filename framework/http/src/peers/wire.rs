//! What workers of a fleet write to each other: MessagePack with named fields.
//!
//! A demand names its function and handler, so that workers may run different programs; a question and
//! what was found have the numbers of a program, and go only between workers whose programs have the
//! same fingerprint.
//!
//! Deliberately absent: a version. A field that is new has a default, and one that is unknown is passed over.

use std::time::Duration;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use statefn_core::{
    EventTime,
    address::ShardId,
    envelope::Trace,
    ports::{inspect::Question, requests::Demand},
    program::{FunctionId, Program},
    shard::Wants,
};

/// Where demands go.
pub(crate) const DEMAND: &str = "/internal/v1/demand";
/// Where questions go.
pub(crate) const QUESTION: &str = "/internal/v1/question";

/// A demand on its way to another worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Forwarded {
    function: String,
    /// The name of the message, or of the payload of the timer; empty where no handler is meant.
    handler: String,
    is_timer: bool,
    wants: Wants,
    #[serde(with = "serde_bytes")]
    once: Option<Vec<u8>>,
    #[serde(with = "serde_bytes")]
    key: Vec<u8>,
    #[serde(with = "serde_bytes")]
    payload: Vec<u8>,
    time: EventTime,
    patience: Duration,
    deferral_max: Duration,
    delay: Duration,
    trace: Option<Trace>,
}

/// A question on its way to another worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// The fingerprint of the program whose numbers the question has.
    pub(crate) program: u32,
    pub(crate) shard: ShardId,
    pub(crate) question: Question,
}

impl Forwarded {
    pub(crate) fn of(program: &Program, demand: Demand) -> Self {
        let function = &program.functions[usize::from(demand.function)].spec;
        let handler = usize::from(demand.handler);
        let handler = match demand.is_timer {
            true => function.timers.get(handler).copied(),
            false => function.messages.get(handler).map(|handler| handler.message),
        };
        Self {
            function: function.name.to_owned(),
            handler: handler.filter(|_| calls(demand.wants)).unwrap_or_default().to_owned(),
            is_timer: demand.is_timer,
            wants: demand.wants,
            once: demand.once,
            key: demand.key,
            payload: demand.payload,
            time: demand.time,
            patience: demand.patience,
            deferral_max: demand.deferral_max,
            delay: demand.delay,
            trace: demand.trace,
        }
    }

    /// The demand in the numbers of this program; none if it lacks the function or the handler.
    pub(crate) fn demand(self, program: &Program) -> Option<Demand> {
        let function: FunctionId = program.function(&self.function)?;
        let spec = &program.functions[usize::from(function)].spec;
        let handler = match (calls(self.wants), self.is_timer) {
            (false, _) => 0,
            (true, true) => spec.timers.iter().position(|timer| *timer == self.handler)?,
            (true, false) => spec.messages.iter().position(|handler| handler.message == self.handler)?,
        };
        Some(Demand {
            function,
            handler: u16::try_from(handler).ok()?,
            wants: self.wants,
            once: self.once,
            key: self.key,
            payload: self.payload,
            time: self.time,
            is_timer: self.is_timer,
            patience: self.patience,
            deferral_max: self.deferral_max,
            delay: self.delay,
            trace: self.trace,
        })
    }
}

/// Whether a handler is called for what is wanted.
fn calls(wants: Wants) -> bool {
    matches!(wants, Wants::Answer | Wants::Commit | Wants::Replay)
}

/// # Panics
/// Never; what workers write to each other can always be written down.
#[must_use]
pub(crate) fn written<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("structs of numbers, texts and bytes can be written down")
}

pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    rmp_serde::from_slice(bytes).ok()
}
