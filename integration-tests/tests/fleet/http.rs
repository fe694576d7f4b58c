//! Requests over HTTP to a fleet: any worker answers for every account.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::worker::Fleet;

/// How many clients pay in at a time.
const CLIENTS: u64 = 4;
/// How many accounts they pay into.
const ACCOUNTS: u64 = 40;
/// How long a client waits for one answer: a worker may be frozen.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a client tries to make one deposit.
const DEPOSIT_LIMIT: Duration = Duration::from_secs(90);

/// Ports that are free, one for each worker.
pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false);
    config.build().into()
}

/// What one client has done.
#[derive(Debug, Default)]
pub(crate) struct Paid {
    /// By account, the deposits that were acknowledged.
    pub(crate) deposits: BTreeMap<String, u64>,
    /// How often one was tried again.
    pub(crate) retries: u64,
}

/// Clients that pay in one cent at a time, each with an idempotency key, to a worker they pick at random.
pub(crate) struct Clients {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Paid>>,
}

impl Clients {
    pub(crate) fn start(ports: &[u16]) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let client = |number: u64| {
            let (is_over, ports) = (Arc::clone(&is_over), ports.to_vec());
            std::thread::spawn(move || pay_in(number, &ports, &is_over))
        };
        let threads = (0..CLIENTS).map(client).collect();
        Self { is_over, threads }
    }

    /// Lets each end its last deposit, and says what all have done.
    pub(crate) fn stop(self) -> Paid {
        self.is_over.store(true, Ordering::Release);
        let mut all = Paid::default();
        for thread in self.threads {
            let paid = thread.join().unwrap();
            all.retries += paid.retries;
            paid.deposits.into_iter().for_each(|(account, count)| *all.deposits.entry(account).or_default() += count);
        }
        all
    }
}

fn pay_in(client: u64, ports: &[u16], is_over: &AtomicBool) -> Paid {
    let (agent, mut paid) = (agent(), Paid::default());
    for number in 0.. {
        if is_over.load(Ordering::Acquire) {
            break;
        }
        let account = format!("account-{}", (client * 7 + number * 3) % ACCOUNTS);
        let (once, begun) = (format!("{client}-{number}"), Instant::now());
        // Another worker each time, whatever became of the one before.
        for attempt in 0.. {
            let port = ports[((client + number + attempt) % ports.len() as u64) as usize];
            if deposit(&agent, port, &account, number, &once) {
                paid.retries += attempt;
                break;
            }
            assert!(begun.elapsed() < DEPOSIT_LIMIT, "deposit {once} into {account} is never acknowledged");
            std::thread::sleep(Duration::from_millis(20));
        }
        *paid.deposits.entry(account).or_default() += 1;
    }
    paid
}

/// Whether a deposit was acknowledged; it may be made otherwise.
fn deposit(agent: &ureq::Agent, port: u16, account: &str, number: u64, once: &str) -> bool {
    let url = format!("http://127.0.0.1:{port}/functions/ledger/account/{account}/deposit");
    let body = json!({ "number": number, "cents": 1 }).to_string();
    let request = agent.post(url).header("Content-Type", "application/json").header("Idempotency-Key", once);
    let Ok(response) = request.send(body) else { return false };
    match response.status().as_u16() {
        200 => true,
        503 | 504 => false,
        other => panic!("a deposit is told {other}"),
    }
}

/// The balance of an account, as a worker tells it.
pub(crate) fn balance(port: u16, account: &str) -> Option<i64> {
    let url = format!("http://127.0.0.1:{port}/functions/ledger/account/{account}/state");
    let mut response = agent().get(url).call().ok()?;
    let state: Value = serde_json::from_str(&response.body_mut().read_to_string().ok()?).ok()?;
    state["balance_cents"].as_i64()
}

/// The status that a worker tells of the whole fleet; none while it does not listen yet.
fn status(port: u16) -> Option<Value> {
    let url = format!("http://127.0.0.1:{port}/admin/v1/status");
    let mut response = agent().get(url).call().ok()?;
    serde_json::from_str(&response.body_mut().read_to_string().ok()?).ok()
}

impl Fleet {
    /// Waits until a worker knows an owner of every shard.
    pub(crate) fn wait_until_owned(&self, admin_port: u16, workers: usize) -> Value {
        let begun = Instant::now();
        loop {
            let status = status(admin_port).unwrap_or_default();
            let count = |what: &str| status[what].as_array().map_or(0, Vec::len);
            if (count("shards"), count("workers")) == (16, workers) {
                return status;
            }
            assert!(begun.elapsed() < DEPOSIT_LIMIT, "shards without an owner: {status}\n{}", self.tell());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
