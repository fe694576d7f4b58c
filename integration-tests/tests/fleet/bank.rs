//! Those who pay with the bank over HTTP, and what must have come of it.
//!
//! A client asks any worker that is there, and another one with the same idempotency key if that does not
//! answer, until one does. So it is known of every payment whether it was made and what was left then, and a
//! payment that is lost, made twice or answered by what is not committed shows in the statements.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde::Deserialize;
use serde_json::{Value, json};
use ureq::Agent;

use crate::{
    client::{self, Topics},
    faults::Load,
    worker::Addresses,
};

/// One payment for each of these.
const PAUSE: Duration = Duration::from_millis(8);
/// How many payments may be under way at a time.
const CLIENTS: usize = 32;
/// What the vault pays to each account at first.
const FIRST_CENTS: i64 = 10_000;
/// How long one worker may take to answer; a frozen one does not.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(3);
/// How long a client rests after a worker that does not answer.
const RETRY_PAUSE: Duration = Duration::from_millis(5);
/// How long nothing may be answered, or stated, before something is wrong: longer than any fault lasts.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// How long it is waited for statements that should not come.
const LINGER: Duration = Duration::from_secs(2);

/// A payment; its number is its idempotency key.
#[derive(Debug, Clone)]
struct Payment {
    number: usize,
    from: String,
    to: String,
    cents: i64,
}

/// What a payment came to.
#[derive(Debug, Clone, Copy)]
enum Answer {
    /// It was made, and the payer had so much left.
    Made(i64),
    /// The payer had too little.
    Overdrawn,
}

#[derive(Debug, Deserialize)]
struct Statement {
    account: String,
    balance_cents: i64,
}

/// What a check has seen.
#[derive(Debug, Clone, Copy)]
#[expect(dead_code, reason = "it is printed")]
pub(crate) struct Checked {
    pub(crate) payments: usize,
    pub(crate) overdrawn: usize,
    pub(crate) statements: usize,
    pub(crate) accounts: usize,
}

/// What the clients share.
struct Shared {
    workers: Addresses,
    /// Payments that nobody has begun.
    due: Mutex<VecDeque<Payment>>,
    answered: Mutex<Vec<(Payment, Answer)>>,
    is_over: AtomicBool,
}

/// The clients of the bank, and what they paid.
pub(crate) struct Bank {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
    accounts: usize,
    begun: usize,
}

impl Bank {
    /// Opens so many accounts.
    pub(crate) fn open(workers: Addresses, accounts: usize) -> Self {
        let shared = Shared { workers, due: Mutex::default(), answered: Mutex::default(), is_over: false.into() };
        let shared = Arc::new(shared);
        let client = |number| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.serve(number))
        };
        let clients = (0..CLIENTS).map(client).collect();
        let mut bank = Self { shared, clients, accounts, begun: 0 };
        (0..accounts).for_each(|account| bank.begin("vault".into(), name_of(account), FIRST_CENTS));
        bank
    }

    fn begin(&mut self, from: String, to: String, cents: i64) {
        self.shared.due.lock().unwrap().push_back(Payment { number: self.begun, from, to, cents });
        self.begun += 1;
    }

    fn pay(&mut self) {
        let number = self.begun;
        let from = name_of(number.wrapping_mul(7_919) % self.accounts);
        let to = name_of(number.wrapping_mul(104_729) / 3 % self.accounts);
        self.begin(from, to, 1 + (number.wrapping_mul(31) % 997) as i64);
    }

    /// Waits until every payment is answered, and sends each again: it must get the answer that it had.
    pub(crate) fn settle(&mut self) {
        self.wait_until_seen(self.begun);
        self.shared.is_over.store(true, Ordering::Release);
        self.clients.drain(..).for_each(|client| client.join().unwrap());
        let answered = self.shared.answered.lock().unwrap();
        let agent = agent();
        for (payment, answer) in answered.iter() {
            let again = self.shared.make(&agent, payment, payment.number);
            assert_eq!(format!("{again:?}"), format!("{answer:?}"), "{payment:?} has another answer now");
        }
    }

    /// Reads all statements, and compares them with what was answered.
    pub(crate) fn check(&self, topics: &Topics) -> Checked {
        let answered = self.shared.answered.lock().unwrap();
        let mut moves = BTreeMap::<&str, Vec<Move>>::new();
        for (Payment { from, to, cents, .. }, answer) in answered.iter() {
            if let Answer::Made(balance_cents) = *answer {
                moves.entry(from).or_default().push(Move { cents: -cents, balance_cents: Some(balance_cents) });
                moves.entry(to).or_default().push(Move { cents: *cents, balance_cents: None });
            }
        }
        let expected: usize = moves.values().map(Vec::len).sum();
        let statements = read(topics, expected);
        let (mut all_cents, mut found) = (0, BTreeMap::<&str, Vec<i64>>::new());
        for Statement { account, balance_cents } in &statements {
            found.entry(account).or_default().push(*balance_cents);
        }
        for (account, moves) in &moves {
            let balances = found.remove(account).unwrap_or_default();
            all_cents += check_account(account, moves, &balances);
        }
        assert!(found.is_empty(), "nobody has paid to {:?}", found.keys());
        assert_eq!(all_cents, 0, "money is conserved");
        let overdrawn = answered.iter().filter(|(_, answer)| matches!(answer, Answer::Overdrawn)).count();
        let payments = answered.len() - overdrawn;
        Checked { payments, overdrawn, statements: statements.len(), accounts: moves.len() }
    }
}

impl Load for Bank {
    const PROOF: usize = 200;

    fn pay_for(&mut self, time: Duration) {
        let begun = Instant::now();
        for number in 0..time.div_duration_f64(PAUSE) as u32 {
            self.pay();
            thread::sleep((begun + PAUSE * number).saturating_duration_since(Instant::now()));
        }
    }

    fn seen(&self) -> usize {
        self.shared.answered.lock().unwrap().len()
    }

    fn wait_until_seen(&mut self, count: usize) {
        let (mut seen, mut since) = (self.seen(), Instant::now());
        while seen < count {
            // They have all their answers if nobody pays meanwhile.
            if self.begun < count {
                self.pay();
            }
            thread::sleep(PAUSE);
            let now = self.seen();
            if now > seen {
                (seen, since) = (now, Instant::now());
            }
            assert!(since.elapsed() < SILENCE_LIMIT, "only {seen} of {count} payments are answered");
        }
    }
}

impl Drop for Bank {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        // A client that panicked has said so.
        self.clients.drain(..).for_each(|client| _ = client.join());
    }
}

impl Shared {
    /// Makes payments that are due until it is over.
    fn serve(&self, client: usize) {
        let agent = agent();
        while !self.is_over.load(Ordering::Acquire) {
            let due = self.due.lock().unwrap().pop_front();
            let Some(payment) = due else {
                thread::sleep(PAUSE);
                continue;
            };
            let answer = self.make(&agent, &payment, client);
            self.answered.lock().unwrap().push((payment, answer));
        }
    }

    /// Sends a payment until it is answered; `first` says which worker is asked at first.
    fn make(&self, agent: &Agent, payment: &Payment, first: usize) -> Answer {
        let (begun, mut attempt) = (Instant::now(), first);
        loop {
            let worker = {
                let workers = self.workers.lock().unwrap();
                workers[attempt % workers.len()]
            };
            let url = format!("http://{worker}/functions/bank/account/{}/pay", payment.from);
            match send(agent, &url, payment) {
                Some((200, body)) => return Answer::Made(body.parse().unwrap()),
                Some((409, body)) => {
                    let problem: Value = serde_json::from_str(&body).unwrap();
                    assert_eq!(problem["code"], "overdrawn", "{payment:?}");
                    return Answer::Overdrawn;
                }
                // Nothing was done, or nobody knows, or nobody is there: it is sent again. A worker that was frozen
                // says 408 when it wakes up: the request did not come in time.
                Some((408 | 503 | 504, _)) | None => {}
                Some(answer) => panic!("{payment:?} was answered by {answer:?}"),
            }
            assert!(begun.elapsed() < SILENCE_LIMIT * 5, "nobody answers {payment:?}");
            attempt += 1;
            thread::sleep(RETRY_PAUSE);
        }
    }
}

fn agent() -> Agent {
    let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(ANSWER_TIME_MAX));
    config.build().into()
}

/// Sends a payment once; nothing if nobody answers.
fn send(agent: &Agent, url: &str, payment: &Payment) -> Option<(u16, String)> {
    let body = json!({"to": payment.to, "cents": payment.cents}).to_string();
    let request = agent.post(url).header("Content-Type", "application/json");
    let mut response = request.header("Idempotency-Key", payment.number.to_string()).send(body.as_str()).ok()?;
    Some((response.status().as_u16(), response.body_mut().read_to_string().ok()?))
}

fn name_of(account: usize) -> String {
    format!("account-{account}")
}

/// Reads so many statements, and a while longer.
fn read(topics: &Topics, count: usize) -> Vec<Statement> {
    let consumer = topics.statements();
    let mut statements: Vec<Statement> = Vec::new();
    let mut since = Instant::now();
    loop {
        let patience = if statements.len() < count { SILENCE_LIMIT } else { LINGER };
        match client::read(&consumer, Duration::from_millis(100)) {
            Some(statement) => {
                statements.push(serde_json::from_slice(&statement).unwrap());
                since = Instant::now();
            }
            None if since.elapsed() > patience => return statements,
            None => {}
        }
    }
}

/// What must be stated of an account: so much more, and what it must have then, if that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Move {
    cents: i64,
    balance_cents: Option<i64>,
}

/// The balances of an account, in their order, must be those of its moves in some order; returns the last.
fn check_account(account: &str, moves: &[Move], balances: &[i64]) -> i64 {
    let before = [0].iter().chain(balances);
    let stated = before.zip(balances).map(|(before, after)| {
        let cents = after - before;
        Move { cents, balance_cents: (cents < 0).then_some(*after) }
    });
    let (mut stated, mut moves): (Vec<Move>, Vec<Move>) = (stated.collect(), moves.to_vec());
    stated.sort_unstable();
    moves.sort_unstable();
    if stated != moves {
        let lost: Vec<_> = moves.iter().filter(|one| stated.binary_search(one).is_err()).take(5).collect();
        let strange: Vec<_> = stated.iter().filter(|one| moves.binary_search(one).is_err()).take(5).collect();
        panic!(
            "{account} has {} statements of {} moves; without a statement are {lost:?}, without a move {strange:?}",
            stated.len(),
            moves.len()
        );
    }
    balances.last().copied().unwrap_or_default()
}
