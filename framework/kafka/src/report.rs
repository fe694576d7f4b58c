//! What the client library says, as `tracing` events that do not flood.
//!
//! Invariant: while a broker is down, one warning each [`QUIET_INTERVAL`] at most for each kind of
//! line, whatever the number of clients; the next one says how many were left out.
//!
//! Deliberately absent: decisions. A context that must act on an error looks at it itself and passes
//! it on to a [`Reporter`].

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Statistics,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::ProducerContext,
};

/// How long a kind of warning is left out after it was told.
const QUIET_INTERVAL: Duration = Duration::from_secs(10);

/// Tells what one client says, and keeps what may be asked for later; clones are of the same client.
#[derive(Debug, Clone)]
pub(crate) struct Reporter {
    client: String,
    shared: Arc<Shared>,
}

/// What the clients of a connection have in common.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    kinds: Mutex<BTreeMap<String, Kind>>,
    last: Mutex<Option<String>>,
}

#[derive(Debug)]
struct Kind {
    told_at: Instant,
    left_out: u64,
}

impl Reporter {
    pub(crate) fn new(client: String, shared: Arc<Shared>) -> Self {
        Self { client, shared }
    }

    /// The last warning or error of any client of the connection.
    pub(crate) fn last(&self) -> Option<String> {
        lock(&self.shared.last).clone()
    }

    /// Tells a warning, unless one of its kind was told a moment ago.
    pub(crate) fn warn(&self, kind: &str, text: &str) {
        self.tell(kind, text, true);
    }

    fn tell(&self, kind: &str, text: &str, says_why: bool) {
        let mut last = lock(&self.shared.last);
        if says_why || last.is_none() {
            *last = Some(text.to_owned());
        }
        drop(last);
        let Some(left_out) = self.shared.is_due(kind, Instant::now()) else { return };
        tracing::warn!(target: "statefn::kafka", client = self.client, kind, left_out, "{text}");
    }
}

impl Shared {
    /// Whether a kind may be told now, and how many of it were left out since the last time.
    fn is_due(&self, kind: &str, now: Instant) -> Option<u64> {
        let mut kinds = lock(&self.kinds);
        let Some(known) = kinds.get_mut(kind) else {
            kinds.insert(kind.to_owned(), Kind { told_at: now, left_out: 0 });
            return Some(0);
        };
        if now.duration_since(known.told_at) < QUIET_INTERVAL {
            known.left_out += 1;
            return None;
        }
        known.told_at = now;
        Some(std::mem::take(&mut known.left_out))
    }
}

impl ClientContext for Reporter {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        let client = self.client.as_str();
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                *lock(&self.shared.last) = Some(text.to_owned());
                tracing::error!(target: "statefn::kafka", client, kind = facility, "{text}");
            }
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => self.warn(facility, text),
            RDKafkaLogLevel::Notice => tracing::info!(target: "statefn::kafka", client, kind = facility, "{text}"),
            RDKafkaLogLevel::Info => tracing::debug!(target: "statefn::kafka", client, kind = facility, "{text}"),
            RDKafkaLogLevel::Debug => tracing::trace!(target: "statefn::kafka", client, kind = facility, "{text}"),
        }
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            // Who reads learns these from its own call.
            Some(RDKafkaErrorCode::PartitionEOF | RDKafkaErrorCode::AutoOffsetReset) => {}
            Some(RDKafkaErrorCode::Fatal) => {
                *lock(&self.shared.last) = Some(reason.to_owned());
                tracing::error!(target: "statefn::kafka", client = self.client, "{reason}");
            }
            // What a line of the log said of each broker says more.
            Some(code @ RDKafkaErrorCode::AllBrokersDown) => self.tell(&format!("{code:?}"), reason, false),
            Some(code) => self.warn(&format!("{code:?}"), reason),
            None => self.warn("error", reason),
        }
    }
}

impl ConsumerContext for Reporter {}

impl ProducerContext for Reporter {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// Locks what stays good even where a thread has panicked with it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_told_once_in_an_interval_and_says_what_it_left_out() {
        let shared = Shared::default();
        let start = Instant::now();
        let told = [(0, "FAIL"), (1, "FAIL"), (2, "FAIL"), (3, "ERROR"), (10, "FAIL"), (19, "FAIL"), (20, "FAIL")];
        let told = told.map(|(seconds, kind)| shared.is_due(kind, start + Duration::from_secs(seconds)));
        assert_eq!(told, [Some(0), None, None, Some(0), Some(2), None, Some(1)]);
    }

    #[test]
    fn the_last_word_is_kept_and_what_a_reader_expects_is_none() {
        let reporter = Reporter::new("test".into(), Arc::default());
        reporter.error(KafkaError::Global(RDKafkaErrorCode::PartitionEOF), "the end");
        reporter.error(KafkaError::Global(RDKafkaErrorCode::AutoOffsetReset), "trimmed");
        assert_eq!(reporter.last(), None);
        reporter.error(KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "all down");
        assert_eq!(reporter.last().as_deref(), Some("all down"));
        reporter.error(KafkaError::Global(RDKafkaErrorCode::Fatal), "out of order");
        assert_eq!(reporter.last().as_deref(), Some("out of order"));
    }
}
