//! The watchdog: a thread that ends the process if a call of a handler takes too long.
//!
//! A handler that never returns stops its thread and all shards of it, and nothing in the process can
//! take the thread back. So the process is ended, and its successor finds the call (`deaths.rs`).
//!
//! Invariant: a call counts as too long only if it was seen again and again over the whole limit, so
//! a process that was stopped for a while, or a machine that slept, is not ended for that.
//!
//! Deliberately absent: a limit for calls of a process that keeps nothing; it is ended all the same.

use std::{io::Write, sync::Arc, thread::JoinHandle, time::Duration};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use statefn_core::{
    program::Program,
    watch::{Seen, Watch},
};

use super::{RunError, coordinator::spawn, deaths::Note};

/// How often a call must be seen.
const SIGHTINGS: u32 = 8;
/// The shortest time between two looks.
const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(1);

/// The thread; it ends when this is dropped.
pub(super) struct Watchdog {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Watches the calls of all hosts, each of which notes them in one of `watches`.
    pub(super) fn start(
        watches: Vec<Arc<Watch>>,
        program: &Arc<Program>,
        limit: Duration,
        note: Option<Arc<Note>>,
    ) -> Result<Self, RunError> {
        let program = Arc::clone(program);
        let (stop, stopped) = bounded(0);
        let interval = (limit / SIGHTINGS).max(LOOK_INTERVAL_MIN);
        let mut sightings: Vec<Sighting> = watches.into_iter().map(Sighting::new).collect();
        let thread = spawn("watchdog", move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                if let Some(seen) = sightings.iter_mut().find_map(Sighting::look) {
                    let key = note.as_ref().and_then(|note| note.key());
                    end(&describe(&program, seen, key, limit));
                }
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().map(JoinHandle::join);
    }
}

/// What was seen of one host.
struct Sighting {
    watch: Arc<Watch>,
    last: Option<Seen>,
    count: u32,
}

impl Sighting {
    fn new(watch: Arc<Watch>) -> Self {
        Self { watch, last: None, count: 0 }
    }

    /// Looks once more; returns the call if it was seen too often.
    fn look(&mut self) -> Option<Seen> {
        let seen = self.watch.seen();
        self.count = if seen.is_some() && seen == self.last { self.count + 1 } else { 0 };
        self.last = seen;
        seen.filter(|_| self.count >= SIGHTINGS)
    }
}

fn describe(program: &Program, seen: Seen, key: Option<String>, limit: Duration) -> String {
    let spec = program.functions.get(usize::from(seen.function)).map(|function| &function.spec);
    let handler = usize::from(seen.handler);
    let message = spec.and_then(|spec| match seen.is_timer {
        true => spec.timers.get(handler).copied(),
        false => spec.messages.get(handler).map(|handler| handler.message),
    });
    let (function, message) = (spec.map_or("?", |spec| spec.name), message.unwrap_or("?"));
    let what = if seen.is_timer { "timer" } else { "message" };
    let key = key.unwrap_or_else(|| format!("with the murmur2 hash {:#010x}", seen.hash));
    format!(
        "`{function}` has run for more than {limit:?} (`handler_time_limit`) on the {what} `{message}` of the key {key}: \
         the process ends, and when it has died so twice that key is parked"
    )
}

/// Ends the process at once: nothing that a thread still does may keep it.
fn end(why: &str) -> ! {
    tracing::error!("{why}");
    // Whoever has no logs reads it too; if nobody reads standard error there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "error: {why}");
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_is_seen_too_often_is_told() {
        // The core alone can write a watch; one that nobody writes shows no call, however often one looks.
        let mut sighting = Sighting::new(Arc::default());
        assert!((0..SIGHTINGS * 3).all(|_| sighting.look().is_none()));
    }

    #[test]
    fn a_watchdog_ends_with_its_run() {
        let program = Program::link(statefn_core::program::ProgramSpec::default()).expect("links");
        let watchdog = Watchdog::start(vec![Arc::default()], &program, Duration::from_secs(60), None);
        drop(watchdog.expect("starts"));
    }
}
