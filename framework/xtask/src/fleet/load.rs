//! Those who pay: payments over HTTP, each with an idempotency key, to any worker.
//!
//! A payment that is not answered (nobody there, status 503 or 504) is sent again with its key to another
//! worker until it is, so it is known of every payment what became of it, and of every account what it must
//! have. Payments begin at a fixed rate, whether those before are answered or not, as long as not too many
//! are under way; their time counts from the moment when they were due.
//!
//! Deliberately absent: any knowledge of which worker has which account.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use fastrand::Rng;
use hdrhistogram::Histogram;

use crate::{
    Outcome,
    http_client::{Client, Response},
};

/// How many accounts pay each other.
pub(super) const ACCOUNTS: usize = 100;
/// What the vault pays to each of them at first.
pub(super) const FIRST_CENTS: i64 = 10_000;
/// How many payments may be under way at a time.
const CLIENTS: u64 = 64;
/// How far behind its rate the load may be; what was due before is not made up for.
const DELAY_MAX: Duration = Duration::from_secs(1);
/// How long a client waits after no worker has answered a request.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// How long one worker may take to answer; then another one is asked.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a connection may be idle; the worker closes it some time later.
const IDLE_TIME_MAX: Duration = Duration::from_secs(10);
/// Of how long ago the payments are whose times are shown.
const RECENT: Duration = Duration::from_secs(10);
/// How many of the last payments are kept with their answers.
const KEPT_MAX: usize = 2_000;
/// The longest time that is told apart from longer ones, in milliseconds.
const TIME_MS_MAX: u64 = 600_000;

/// A payment and its idempotency key.
#[derive(Debug, Clone)]
pub(super) struct Payment {
    once: String,
    from: String,
    to: String,
    cents: i64,
}

/// What was paid, as far as it is known.
#[derive(Debug)]
pub(super) struct Books {
    /// What each account must have.
    pub(super) expected: BTreeMap<String, i64>,
    /// The last payments with their answers.
    pub(super) last: VecDeque<(Payment, Response)>,
    /// Payments that were made, and that were refused because there was too little money.
    pub(super) made: u64,
    pub(super) overdrawn: u64,
    /// What was answered otherwise.
    pub(super) failures: Vec<String>,
    /// Payments that the load gave up, so nobody knows of them.
    pub(super) given_up: u64,
    /// Requests that a worker did not take (503, 504), and that lost their connection; all were repeated.
    pub(super) untaken: u64,
    pub(super) broken_off: u64,
    /// When the recent payments were answered, and after how long.
    recent: VecDeque<(Instant, Duration)>,
    times_ms: Histogram<u64>,
}

/// How fast payments are answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) each_second: f64,
    pub(super) p50_ms: u64,
    pub(super) p99_ms: u64,
}

impl Books {
    fn new() -> Outcome<Self> {
        Ok(Self {
            expected: BTreeMap::new(),
            last: VecDeque::new(),
            made: 0,
            overdrawn: 0,
            failures: Vec::new(),
            given_up: 0,
            untaken: 0,
            broken_off: 0,
            recent: VecDeque::new(),
            times_ms: Histogram::new_with_bounds(1, TIME_MS_MAX, 3)?,
        })
    }

    fn enter(&mut self, payment: Payment, answer: Response, took: Duration) {
        match answer.status {
            200 => {
                self.made += 1;
                *self.expected.entry(payment.from.clone()).or_default() -= payment.cents;
                *self.expected.entry(payment.to.clone()).or_default() += payment.cents;
            }
            409 => self.overdrawn += 1,
            _ => self.failures.push(format!("{payment:?} was answered by {answer:?}")),
        }
        self.last.push_back((payment, answer));
        if self.last.len() > KEPT_MAX {
            self.last.pop_front();
        }
        self.recent.push_back((Instant::now(), took));
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(TIME_MS_MAX);
        self.times_ms.saturating_record(took_ms);
    }

    /// How fast the payments of the last while were answered.
    pub(super) fn pace(&mut self, begun: Instant) -> Pace {
        while self.recent.front().is_some_and(|(at, _)| at.elapsed() > RECENT) {
            self.recent.pop_front();
        }
        let mut times: Vec<Duration> = self.recent.iter().map(|(_, took)| *took).collect();
        times.sort_unstable();
        let at = |share: f64| times.get(((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1)));
        let ms = |share| at(share).map_or(0, |took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        let seconds = begun.elapsed().min(RECENT).as_secs_f64().max(0.001);
        Pace { each_second: times.len() as f64 / seconds, p50_ms: ms(0.5), p99_ms: ms(0.99) }
    }

    /// The same of all payments.
    pub(super) fn pace_of_all(&self, seconds: f64) -> Pace {
        let ms = |share| self.times_ms.value_at_quantile(share);
        Pace { each_second: self.times_ms.len() as f64 / seconds.max(0.001), p50_ms: ms(0.5), p99_ms: ms(0.99) }
    }
}

/// What all clients share.
struct Shared {
    workers: Vec<SocketAddr>,
    books: Mutex<Books>,
    /// Payments that open the accounts.
    first: Mutex<Vec<Payment>>,
    pause: Duration,
    next_due: Mutex<Instant>,
    is_over: AtomicBool,
    is_given_up: AtomicBool,
}

/// The clients that pay; dropping them ends them.
pub(super) struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
    begun: Instant,
}

impl Load {
    /// Begins to pay so many times a second.
    pub(super) fn start(workers: Vec<SocketAddr>, rate: u32, seed: u64) -> Outcome<Self> {
        let open = |account| Payment {
            once: format!("open-{account}"),
            from: "vault".into(),
            to: name_of(account),
            cents: FIRST_CENTS,
        };
        let shared = Arc::new(Shared {
            workers,
            books: Mutex::new(Books::new()?),
            first: Mutex::new((0..ACCOUNTS).map(open).collect()),
            pause: Duration::from_secs(1) / rate,
            next_due: Mutex::new(Instant::now()),
            is_over: AtomicBool::new(false),
            is_given_up: AtomicBool::new(false),
        });
        let clients = (0..CLIENTS).map(|number| {
            let (shared, random) = (Arc::clone(&shared), Rng::with_seed(seed ^ (number << 32)));
            thread::spawn(move || shared.pay(number, random))
        });
        Ok(Self { clients: clients.collect(), shared, begun: Instant::now() })
    }

    pub(super) fn books(&self) -> MutexGuard<'_, Books> {
        lock(&self.shared.books)
    }

    pub(super) fn begun(&self) -> Instant {
        self.begun
    }

    /// Begins no payment any more.
    pub(super) fn end(&self) {
        self.shared.is_over.store(true, Ordering::Release);
    }

    /// Whether all payments that were begun are answered, or given up.
    pub(super) fn is_over(&self) -> bool {
        self.clients.iter().all(JoinHandle::is_finished)
    }

    /// Repeats no request any more: what is not answered by now stays unknown.
    pub(super) fn give_up(&self) {
        self.end();
        self.shared.is_given_up.store(true, Ordering::Release);
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.give_up();
        // A client that panicked has said so.
        self.clients.drain(..).for_each(|client| _ = client.join());
    }
}

impl Shared {
    /// Pays until it is over.
    fn pay(&self, client: u64, mut random: Rng) {
        let mut caller = Caller::new(self.workers.clone(), random.fork());
        let mut made = 0_u64;
        while let Some(due) = self.wait_until_due() {
            let payment = lock(&self.first).pop().unwrap_or_else(|| {
                made += 1;
                let (from, to) = (name_of(random.usize(0..ACCOUNTS)), name_of(random.usize(0..ACCOUNTS)));
                Payment { once: format!("{client}-{made}"), from, to, cents: random.i64(1..=FIRST_CENTS / 10) }
            });
            let answer = payment.make(&mut caller, || !self.is_given_up.load(Ordering::Acquire));
            let mut books = lock(&self.books);
            books.untaken += std::mem::take(&mut caller.untaken);
            books.broken_off += std::mem::take(&mut caller.broken_off);
            match answer {
                Some(answer) => books.enter(payment, answer, due.elapsed()),
                None => books.given_up += 1,
            }
        }
    }

    /// Waits for the moment of the next payment; none if it is over.
    fn wait_until_due(&self) -> Option<Instant> {
        let due = {
            let mut next = lock(&self.next_due);
            let earliest = Instant::now().checked_sub(DELAY_MAX).unwrap_or(*next);
            let due = (*next).max(earliest);
            *next = due + self.pause;
            due
        };
        loop {
            if self.is_over.load(Ordering::Acquire) {
                return None;
            }
            match due.saturating_duration_since(Instant::now()) {
                Duration::ZERO => return Some(due),
                left => thread::sleep(left.min(Duration::from_millis(50))),
            }
        }
    }
}

impl Payment {
    /// Sends it until it is answered; none if it is not to go on before that.
    pub(super) fn make(&self, caller: &mut Caller, is_on: impl Fn() -> bool) -> Option<Response> {
        let Self { once, from, to, cents } = self;
        let path = format!("/functions/bank/account/{from}/pay");
        let body = format!("{{\"to\":\"{to}\",\"cents\":{cents}}}");
        caller.call(|client| client.post(&path, Some(once), &body), is_on)
    }
}

/// A client of the whole fleet: it asks any worker, and another one if that does not answer.
pub(super) struct Caller {
    workers: Vec<SocketAddr>,
    /// By worker, the connection and when it was last used.
    connections: Vec<Option<(Client, Instant)>>,
    random: Rng,
    pub(super) untaken: u64,
    pub(super) broken_off: u64,
}

impl Caller {
    pub(super) fn new(workers: Vec<SocketAddr>, random: Rng) -> Self {
        let connections = workers.iter().map(|_| None).collect();
        Self { workers, connections, random, untaken: 0, broken_off: 0 }
    }

    /// Sends a request until a worker answers it; none if it is not to go on before that.
    pub(super) fn call(
        &mut self,
        send: impl Fn(&mut Client) -> io::Result<Response>,
        is_on: impl Fn() -> bool,
    ) -> Option<Response> {
        let mut order: Vec<usize> = (0..self.workers.len()).collect();
        loop {
            self.random.shuffle(&mut order);
            for worker in &order {
                if !is_on() {
                    return None;
                }
                match self.ask(*worker, &send) {
                    // Nothing was done, or nobody knows: in both cases it is sent again.
                    Ok(answer) if matches!(answer.status, 503 | 504) => self.untaken += 1,
                    Ok(answer) => return Some(answer),
                    Err(_) => self.broken_off += 1,
                }
            }
            thread::sleep(RETRY_PAUSE);
        }
    }

    fn ask(&mut self, worker: usize, send: impl Fn(&mut Client) -> io::Result<Response>) -> io::Result<Response> {
        let known = self.connections[worker].take().filter(|(_, used_at)| used_at.elapsed() < IDLE_TIME_MAX);
        let mut client = match known {
            Some((client, _)) => client,
            None => Client::connect_with(self.workers[worker], ANSWER_TIME_MAX)?,
        };
        let answer = send(&mut client)?;
        self.connections[worker] = Some((client, Instant::now()));
        Ok(answer)
    }
}

/// The name of an account.
pub(super) fn name_of(account: usize) -> String {
    format!("account-{account}")
}

/// A lock that a client's panic leaves behind guards nothing that is half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
