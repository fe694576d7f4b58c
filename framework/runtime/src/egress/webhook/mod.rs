//! Records to a webhook: each is posted to a URL until it is taken, at least once, in the order of its shard.
//!
//! ```text
//! writer --push--> lanes, one a shard --[threads]--> POST url, `Idempotency-Key: INCARNATION/SHARD/EPOCH/INDEX`
//!   ^                                                  | 2xx: taken      4xx: refused, a dead letter
//!   +------------ done, refused: with the next mark ---+ else: again, later and later
//! ```
//! Records of one key are of one shard, so they come in order; shards do not wait for each other, and
//! nothing else waits for a receiver. The key of a record is equal at each repeat: the incarnation is drawn
//! when the egress is begun and stands in the mark, the index counts the records of this egress in the epoch.
//!
//! Invariants: an epoch counts as taken once the receiver has said of each of its records that it takes
//! or refuses it; the dead letter of one that is refused stands in the same mark. So a restart repeats what no
//! mark covers, and loses nothing.
//!
//! Deliberately absent: an order between shards, redirects, proxies, and a limit of time after which a record
//! is given up.

mod client;
mod lanes;

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use statefn_core::{Encoding, address::ShardId, dead_letter::DeadLetter};

use self::{
    client::Client,
    lanes::{BackOff, Delivery, Lanes, Next, Outcome},
};
use super::{Written, error::EgressError};

/// How often a receiver that takes nothing is reported.
const TROUBLE_INTERVAL: Duration = Duration::from_secs(10);

/// A webhook, and how it is called.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSpec {
    /// Where records are posted to.
    pub url: String,
    /// The header `Authorization`, if the receiver wants one.
    pub authorization: Option<String>,
    /// How many records may be under way at a time, each of another shard.
    pub parallel: usize,
    /// How long one attempt may take.
    pub time_max: Duration,
    /// How long the first repeat waits; each after it twice as long.
    pub retry_first: Duration,
    /// How long a repeat waits at most.
    pub retry_longest: Duration,
}

impl WebhookSpec {
    /// A webhook with the limits that hold where nobody says anything.
    ///
    /// # Examples
    /// ```
    /// let spec = statefn_runtime::egress::WebhookSpec::new("http://127.0.0.1:8080/hook");
    /// assert_eq!((spec.parallel, spec.time_max.as_secs()), (16, 10));
    /// ```
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            authorization: None,
            parallel: 16,
            time_max: Duration::from_secs(10),
            retry_first: Duration::from_millis(100),
            retry_longest: Duration::from_secs(30),
        }
    }
}

/// Without what is secret.
impl std::fmt::Debug for WebhookSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookSpec").field("url", &self.url).finish_non_exhaustive()
    }
}

/// What the threads of a webhook have in common.
struct Shared {
    lanes: Mutex<Lanes>,
    news: Condvar,
    is_stopped: AtomicBool,
    name: String,
    /// What the keys of its records begin with.
    incarnation: String,
    client: Client,
    troubled_at: Mutex<Option<Instant>>,
}

impl Shared {
    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        // Nothing that holds the lock leaves the lanes half-changed.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A webhook that delivers; dropped, it ends with the attempts that are under way.
pub(super) struct Webhook {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// The epoch and the number of the last record of each shard.
    last: Vec<(u64, u64)>,
}

impl Webhook {
    /// Begins to deliver to a webhook, for an egress whose mark has this incarnation.
    pub(super) fn open(
        name: &str,
        spec: &WebhookSpec,
        encoding: Encoding,
        incarnation: &str,
        shards: usize,
    ) -> Result<Self, EgressError> {
        let broken = |reason: String| EgressError::Webhook { egress: name.to_owned(), url: spec.url.clone(), reason };
        let back_off = BackOff { first: spec.retry_first, longest: spec.retry_longest };
        let shared = Arc::new(Shared {
            lanes: Mutex::new(Lanes::new(shards, back_off)),
            news: Condvar::new(),
            is_stopped: AtomicBool::new(false),
            name: name.to_owned(),
            incarnation: incarnation.to_owned(),
            client: Client::new(spec, encoding).map_err(broken)?,
            troubled_at: Mutex::new(None),
        });
        let mut webhook = Self { shared, threads: Vec::new(), last: vec![(0, 0); shards] };
        for number in 0..spec.parallel.clamp(1, shards) {
            let shared = Arc::clone(&webhook.shared);
            let thread = thread::Builder::new().name(format!("webhook-{number}"));
            let thread = thread.spawn(move || shared.work());
            webhook.threads.push(thread.map_err(|error| broken(format!("cannot start a thread: {error}")))?);
        }
        Ok(webhook)
    }

    /// Takes in a record; those of an epoch come one behind the other.
    pub(super) fn push(&mut self, shard: ShardId, epoch: u64, record: &[u8]) {
        let last = &mut self.last[shard as usize];
        let index = if last.0 == epoch { last.1 + 1 } else { 0 };
        *last = (epoch, index);
        self.shared.lanes().push(Delivery { shard, epoch, index, record: Arc::new(record.to_vec()) });
        self.shared.news.notify_one();
    }

    /// Up to which epoch each shard is done with, and the dead letters of what was refused since.
    pub(super) fn collect(&self, ended: &[u64]) -> (Vec<u64>, Vec<Vec<u8>>) {
        let (done, refused) = self.shared.lanes().collect(ended);
        let letter = |refused: &lanes::Refused| {
            let id = self.shared.id(&refused.delivery);
            let mut bytes = Vec::new();
            DeadLetter::of_emission(&self.shared.name, &id, &refused.reason, &refused.delivery.record)
                .write(&mut bytes);
            bytes
        };
        (done, refused.iter().map(letter).collect())
    }

    pub(super) fn incarnation(&self) -> &str {
        &self.shared.incarnation
    }

    pub(super) fn waiting_bytes(&self) -> usize {
        self.shared.lanes().bytes()
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.shared.lanes().is_empty()
    }

    pub(super) fn written(&self) -> Written {
        self.shared.lanes().written()
    }

    /// Ends with the attempts that are under way, and waits for them.
    pub(super) fn stop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::Release);
        // Under the lock: nobody is between looking at the flag and waiting for news.
        drop(self.shared.lanes());
        self.shared.news.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the egress `{}` broke; what it had is sent again", self.shared.name);
            }
        }
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn id(&self, delivery: &Delivery) -> String {
        let Delivery { shard, epoch, index, .. } = delivery;
        format!("{}/{shard}/{epoch}/{index}", self.incarnation)
    }

    /// Delivers until the webhook is stopped.
    fn work(&self) {
        while let Some(delivery) = self.next() {
            let outcome = self.client.post(&self.id(&delivery), &delivery.record);
            let (outcome, trouble) = match outcome {
                Ok(()) => (Outcome::Taken, None),
                Err(client::Trouble::Refused(reason)) => (Outcome::Refused(reason.clone()), Some(reason)),
                Err(client::Trouble::Later(reason, asked_for)) => (Outcome::Later(asked_for), Some(reason)),
            };
            let is_later = matches!(outcome, Outcome::Later(_));
            let wait = self.lanes().tell(delivery.shard, outcome, Instant::now(), fastrand::f64());
            self.news.notify_one();
            self.report(trouble.filter(|_| is_later), wait);
        }
    }

    /// The next record to be sent; waits for it, and ends if the webhook is stopped.
    fn next(&self) -> Option<Delivery> {
        let mut lanes = self.lanes();
        loop {
            if self.is_stopped.load(Ordering::Acquire) {
                return None;
            }
            let due = match lanes.next(Instant::now()) {
                Next::Send(delivery) => return Some(delivery),
                Next::Wait(due) => due,
            };
            lanes = match due {
                None => self.news.wait(lanes).unwrap_or_else(PoisonError::into_inner),
                Some(due) => {
                    let wait = due.saturating_duration_since(Instant::now());
                    self.news.wait_timeout(lanes, wait).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Reports trouble now and then, and its end.
    fn report(&self, trouble: Option<String>, wait: Duration) {
        let mut troubled_at = self.troubled_at.lock().unwrap_or_else(PoisonError::into_inner);
        match trouble {
            Some(reason) if troubled_at.is_none_or(|at| at.elapsed() >= TROUBLE_INTERVAL) => {
                *troubled_at = Some(Instant::now());
                tracing::error!("the egress `{}` waits for its receiver: {reason}; again in {wait:.1?}", self.name);
            }
            None if troubled_at.take().is_some() => tracing::info!("the egress `{}` delivers again", self.name),
            Some(_) | None => {}
        }
    }
}
