//! A guard that is told of each call before it is made, because the process may not survive it.
//!
//! Where a process has died again and again at the same place, its successor lets a guard note
//! durably what it is about to call; the one after that finds the note, and its guard refuses the
//! call. A call that is refused is a fault: its key is parked with it, and what comes for the key
//! later stands behind it.
//!
//! Invariant: calls are told, made and over one by one, in the order in which they would have been
//! made without a guard.
//!
//! Deliberately absent: how a note survives the process, and when a guard is needed: the runtime's.

use std::sync::Arc;

use super::Shard;
use crate::{
    decoded::Decoded,
    effect::Call,
    host::{Failure, Run},
    program::FunctionId,
    watch::Watch,
};

/// A call that is about to be made.
#[derive(Debug, Clone, Copy)]
pub struct Guarded<'a> {
    /// The function.
    pub function: FunctionId,
    /// The function's name.
    pub function_name: &'a str,
    /// The name of the message, or of the payload of a timer.
    pub message: &'a str,
    /// Whether it is a timer.
    pub is_timer: bool,
    /// The key.
    pub key: &'a [u8],
    /// The encoded message.
    pub payload: &'a [u8],
}

/// Who is told of calls; see the module.
pub trait Guard: Send {
    /// A call is about to be made.
    ///
    /// # Errors
    /// Why it must not be made.
    fn enter(&mut self, call: &Guarded<'_>) -> Result<(), String>;

    /// The call is over; returns whether the guard is still needed.
    fn leave(&mut self) -> bool;
}

impl Shard {
    /// Lets a guard see each call from now on, until it says that it is not needed any more.
    pub fn set_guard(&mut self, guard: Box<dyn Guard>) {
        self.guard = Some(guard);
    }

    /// Lets a thread that watches see which call is made.
    pub fn set_watch(&mut self, watch: Arc<Watch>) {
        self.effects.watch = watch;
    }

    /// Makes calls of one handler, each under the eyes of the guard.
    pub(super) fn call_guarded(&mut self, calls: &[Call], bytes: &[u8], decoded: &mut Decoded) {
        for (place, call) in calls.iter().enumerate() {
            let from = self.failures.len();
            self.call_one_guarded(call, bytes, decoded);
            self.failures[from..].iter_mut().for_each(|(place_in_run, _)| *place_in_run = place);
        }
    }

    fn call_one_guarded(&mut self, call: &Call, bytes: &[u8], decoded: &mut Decoded) {
        let (function, message) = self.program.names_of(call);
        let key = call.key.of(bytes);
        if self.parked.has(function, key) {
            return self.failures.push((0, Failure::Parked));
        }
        if let Some(guard) = &mut self.guard {
            let name = |id| self.names.get(usize::from(id)).map_or("?", String::as_str);
            let guarded = Guarded {
                function: call.function,
                function_name: name(function),
                message: name(message),
                is_timer: call.is_timer,
                key,
                payload: call.payload.of(bytes),
            };
            if let Err(reason) = guard.enter(&guarded) {
                let host = &mut self.hosts[usize::from(call.function)];
                let failure = match host.set_parked(call.hash, key, true) {
                    Ok(()) => Failure::Fault(reason),
                    Err(error) => Failure::Unreadable(error.to_string()),
                };
                return self.failures.push((0, failure));
            }
        }
        self.effects.watch.enter(call.function, call.handler, call.is_timer);
        let run = Run { calls: std::slice::from_ref(call), bytes, decoded, now: self.now };
        self.hosts[usize::from(call.function)].run(run, &mut self.effects, &mut self.failures);
        self.effects.watch.leave();
        if self.guard.as_mut().is_some_and(|guard| !guard.leave()) {
            self.guard = None;
        }
    }
}
