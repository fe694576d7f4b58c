//! The thread that asks the log where journals end, and lets it forget what nobody needs.
//!
//! Questions that wait at a time become one request; they go before trims, as answers wait for them.

use std::{
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, unbounded};
use statefn_core::{
    address::ShardId,
    ports::{
        log::{Offset, Partition},
        shared::SharedLog,
    },
};

use super::super::{
    RunError,
    coordinator::spawn,
    shard_host::{Event, Switchboard},
};

/// How long to wait before a log that did not answer is asked again.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// How often a log that does not answer is reported.
const TROUBLE_INTERVAL: Duration = Duration::from_secs(10);

pub(crate) enum ClerkRequest {
    /// A host asks for the end of the journal of a shard; the number is its own.
    AskEnd(usize, ShardId, u64),
    /// A partition is needed only from this offset on.
    Trim(Partition, Offset),
    Stop,
}

/// Starts the thread; it ends with [`ClerkRequest::Stop`].
pub(super) fn start(
    log: Box<dyn SharedLog>,
    switchboard: Arc<Switchboard>,
) -> Result<(Sender<ClerkRequest>, JoinHandle<()>), RunError> {
    let (sender, requests) = unbounded();
    let mut clerk = Clerk { log, switchboard, questions: Vec::new(), trims: Vec::new(), told_at: None };
    let thread = spawn("clerk", move || clerk.run(&requests))?;
    Ok((sender, thread))
}

struct Clerk {
    log: Box<dyn SharedLog>,
    switchboard: Arc<Switchboard>,
    questions: Vec<(usize, ShardId, u64)>,
    trims: Vec<(Partition, Offset)>,
    told_at: Option<Instant>,
}

impl Clerk {
    fn run(&mut self, requests: &Receiver<ClerkRequest>) {
        loop {
            let first = match (self.questions.is_empty(), self.trims.is_empty()) {
                (true, true) => requests.recv().ok(),
                (true, false) => None,
                // The log did not answer.
                (false, _) => requests.recv_timeout(RETRY_INTERVAL).ok(),
            };
            if first.into_iter().chain(requests.try_iter()).any(|request| self.take(request)) {
                return;
            }
            self.answer();
            self.trim();
        }
    }

    /// Takes a request in; returns whether it is the last.
    fn take(&mut self, request: ClerkRequest) -> bool {
        match request {
            ClerkRequest::AskEnd(host, shard, question) => self.questions.push((host, shard, question)),
            ClerkRequest::Trim(partition, before) => {
                self.trims.retain(|(known, _)| *known != partition);
                self.trims.push((partition, before));
            }
            ClerkRequest::Stop => return true,
        }
        false
    }

    /// Asks for all ends at once. What gets no answer is asked again: an answer that waits for it is told
    /// by the edge that nobody knows, when its time is over.
    fn answer(&mut self) {
        if self.questions.is_empty() {
            return;
        }
        let mut journals: Vec<Partition> = self.questions.iter().map(|(_, shard, _)| *shard).collect();
        journals.sort_unstable();
        journals.dedup();
        match self.log.ends(&journals) {
            Ok(ends) => {
                for (host, shard, question) in self.questions.drain(..) {
                    let Ok(place) = journals.binary_search(&shard) else { continue };
                    self.switchboard.post(host, vec![Event::JournalEnd(shard, question, ends[place])]);
                }
            }
            Err(error) => self.complain(&error),
        }
    }

    /// Trims one partition, if there is one to be trimmed.
    fn trim(&mut self) {
        let Some((partition, before)) = self.trims.pop() else { return };
        match self.log.trim(partition, before) {
            Ok(()) => _ = self.switchboard.status.trims.fetch_add(1, Ordering::Relaxed),
            // A later trim takes it along.
            Err(error) => self.complain(&error),
        }
    }

    fn complain(&mut self, error: &str) {
        if self.told_at.is_none_or(|at| at.elapsed() >= TROUBLE_INTERVAL) {
            self.told_at = Some(Instant::now());
            tracing::warn!("the log does not answer: {error}");
        }
    }
}
