//! The queue of spans, and the thread that empties it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use statefn_runtime::engine::{Plan, SpanSink, Spans};

use super::{
    client::{Client, Trouble},
    otlp::Writer,
};
use crate::{Error, Settings};

/// How many spans may wait; about 16 MB.
const QUEUE_SPANS_MAX: usize = 32 * 1024;
/// How many spans a batch has, at most.
const BATCH_SPANS_MAX: usize = 512;
/// How long the first span of a batch waits for others.
const BATCH_TIME_MAX: Duration = Duration::from_millis(500);
/// How often a batch is posted before it is dropped.
const ATTEMPTS_MAX: u32 = 5;
/// How long the first repeat waits; each after it twice as long.
const RETRY_FIRST: Duration = Duration::from_millis(250);
/// How often it is told that spans are lost.
const TROUBLE_INTERVAL: Duration = Duration::from_secs(10);

/// What takes spans to their receiver.
pub(crate) struct Exporter {
    queue: Arc<Queue>,
    thread: JoinHandle<()>,
}

impl Exporter {
    /// Starts the exporter that settings ask for, if they do.
    pub(crate) fn start(plan: &Plan, settings: &Settings) -> Result<Option<Self>, Error> {
        let Some(endpoint) = &settings.trace.endpoint else { return Ok(None) };
        let client = Client::new(endpoint.as_str(), &settings.trace).map_err(Error::Settings)?;
        let (sender, receiver) = channel();
        let queue = Arc::new(Queue {
            sender,
            waiting: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
            is_stopped: AtomicBool::new(false),
        });
        let worker = Worker {
            queue: Arc::clone(&queue),
            receiver,
            client,
            writer: Writer::new(&plan.program),
            is_over: false,
            trouble: String::new(),
            told: (0, None),
        };
        let builder = thread::Builder::new().name("statefn-trace".into());
        let thread = builder.spawn(move || worker.work());
        let thread = thread.map_err(|error| Error::Broken(format!("cannot start a thread: {error}")))?;
        Ok(Some(Self { queue, thread }))
    }

    /// Where spans go in.
    pub(crate) fn sink(&self) -> SpanSink {
        let queue = Arc::clone(&self.queue);
        Arc::new(move |spans| queue.push(spans))
    }

    /// Posts what waits, as far as the receiver takes it at once, and ends.
    pub(crate) fn stop(self) {
        self.queue.is_stopped.store(true, Ordering::Release);
        // The thread ends only here, unless it broke.
        let _ = self.queue.sender.send(None);
        self.thread.thread().unpark();
        let _ = self.thread.join();
    }
}

struct Queue {
    /// `None` is the end.
    sender: Sender<Option<Spans>>,
    /// Spans that are not posted yet.
    waiting: AtomicUsize,
    lost: AtomicU64,
    is_stopped: AtomicBool,
}

impl Queue {
    /// Takes spans in, or counts them as lost if there is no room.
    fn push(&self, spans: Spans) {
        let count = count(&spans);
        if self.waiting.fetch_add(count, Ordering::Relaxed) + count > QUEUE_SPANS_MAX {
            self.waiting.fetch_sub(count, Ordering::Relaxed);
            self.lost.fetch_add(count as u64, Ordering::Relaxed);
            return;
        }
        // The thread is gone only when nobody asks for more.
        let _ = self.sender.send(Some(spans));
    }
}

fn count(spans: &Spans) -> usize {
    match spans {
        Spans::Calls { records, .. } => records.len(),
        Spans::Attempt(_) => 1,
    }
}

struct Worker {
    queue: Arc<Queue>,
    receiver: Receiver<Option<Spans>>,
    client: Client,
    writer: Writer,
    is_over: bool,
    /// Why spans were lost last; empty if there was no room for them.
    trouble: String,
    /// How many lost spans were told of, and when.
    told: (u64, Option<Instant>),
}

impl Worker {
    fn work(mut self) {
        while !self.is_over {
            let spans = self.take();
            for batch in spans.chunks(BATCH_SPANS_MAX) {
                self.post(batch);
                self.queue.waiting.fetch_sub(batch.len(), Ordering::Relaxed);
            }
            self.tell_lost();
        }
    }

    /// Waits for spans, and a little longer for those behind them.
    fn take(&mut self) -> Vec<Span> {
        let mut spans = Vec::new();
        let mut next = self.receiver.recv().map_err(|_| RecvTimeoutError::Disconnected);
        let until = Instant::now() + BATCH_TIME_MAX;
        loop {
            match next {
                Ok(Some(told)) => self.writer.write(told, &mut spans),
                Ok(None) | Err(RecvTimeoutError::Disconnected) => self.is_over = true,
                Err(RecvTimeoutError::Timeout) => return spans,
            }
            if self.is_over || spans.len() >= BATCH_SPANS_MAX {
                return spans;
            }
            next = self.receiver.recv_timeout(until.saturating_duration_since(Instant::now()));
        }
    }

    /// Posts a batch, again and again if that may help; then it is lost.
    fn post(&mut self, spans: &[Span]) {
        let body = self.writer.request(spans).encode_to_vec();
        let mut wait = RETRY_FIRST;
        for attempt in 1..=ATTEMPTS_MAX {
            let is_last = attempt == ATTEMPTS_MAX || self.queue.is_stopped.load(Ordering::Acquire);
            match self.client.post(&body) {
                Ok(0) => return,
                Ok(rejected) => return self.lose(rejected, format!("it rejects {rejected} of {}", spans.len())),
                Err(Trouble::Later(_)) if !is_last => thread::park_timeout(wait),
                Err(Trouble::Later(reason) | Trouble::Refused(reason)) => {
                    return self.lose(spans.len() as u64, reason);
                }
            }
            wait *= 2;
        }
    }

    fn lose(&mut self, count: u64, trouble: String) {
        self.queue.lost.fetch_add(count, Ordering::Relaxed);
        self.trouble = trouble;
    }

    /// Tells now and then how many spans were lost.
    fn tell_lost(&mut self) {
        let (told, at) = self.told;
        let lost = self.queue.lost.load(Ordering::Relaxed);
        if lost == told || !self.is_over && at.is_some_and(|at| at.elapsed() < TROUBLE_INTERVAL) {
            return;
        }
        self.told = (lost, Some(Instant::now()));
        let trouble = match std::mem::take(&mut self.trouble) {
            none if none.is_empty() => "they come faster than the receiver takes them".to_owned(),
            trouble => format!("the receiver does not take them: {trouble}"),
        };
        tracing::warn!("{} spans of traces were lost, {lost} since the start: {trouble}", lost - told);
    }
}

#[cfg(test)]
mod tests {
    use statefn_core::envelope::{SpanKind, SpanRecord, Trace};

    use super::*;

    fn spans(count: usize) -> Spans {
        let record = SpanRecord {
            trace: Trace { id: [1; 16], span: 1, parent: 0 },
            kind: SpanKind::Message,
            function: "test/one".into(),
            name: "add".into(),
            key: b"a".to_vec(),
            event_time: 0,
            now: 0,
            error: None,
        };
        Spans::Calls { records: vec![record; count], committed_at: std::time::UNIX_EPOCH }
    }

    #[test]
    fn what_does_not_fit_is_counted_and_dropped() {
        let (sender, receiver) = channel();
        let (waiting, lost, is_stopped) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicBool::new(false));
        let queue = Queue { sender, waiting, lost, is_stopped };
        queue.push(spans(QUEUE_SPANS_MAX - 1));
        queue.push(spans(2));
        queue.push(spans(1));
        assert_eq!(queue.lost.load(Ordering::Relaxed), 2);
        let taken: Vec<_> = receiver.try_iter().flatten().map(|spans| count(&spans)).collect();
        assert_eq!(taken, [QUEUE_SPANS_MAX - 1, 1]);
    }
}
