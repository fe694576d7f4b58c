//! Kills the bank with SIGKILL while clients pay over HTTP, and counts every cent.
//!
//! Each client pays from accounts of its own to any account, each payment with an idempotency key,
//! and repeats it, also over kills, until it is answered. So in the end it is known of every payment
//! whether it was made, and each account must have exactly what its payments come to. Now and then a
//! client repeats a payment that was answered long ago, and all are repeated in the end: each must
//! get the answer that it had.
//!
//! A kill *counts* if payments were answered since the start before it, and others were on their way.
//!
//! Deliberately absent: loss of power.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use fastrand::Rng;
use serde_json::Value;

use crate::{
    Outcome,
    flights::{Process, build_example},
    http_client::{Client, Response},
    say,
};

/// The shortest and the longest time that a process is paid to before it is killed.
const LIFE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(1_500));
/// How long a process may take to listen and to take its shards over.
const START_TIME_MAX: Duration = Duration::from_secs(60);
/// How many accounts each client has.
const ACCOUNTS: u64 = 8;
/// What the vault pays to each account at first.
const FIRST_CENTS: i64 = 10_000;
/// One of so many requests repeats a payment that was answered.
const REPEATS: u64 = 5;
/// Small enough that shards take snapshots often.
const SNAPSHOT_TAIL_BYTES: u64 = 8 << 10;
const SIGKILL: i32 = 9;

/// What `cargo xtask http-kill` is told.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// How many kills must count
    #[arg(long, default_value_t = 10)]
    pub(crate) kills: u64,
    /// The seed of payments and lives; what a kill hits is up to the machine
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// How many clients pay at a time
    #[arg(long, default_value_t = 4)]
    pub(crate) clients: u64,
}

/// A payment and its idempotency key.
#[derive(Debug, Clone)]
struct Payment {
    once: String,
    from: String,
    to: String,
    cents: i64,
}

/// What clients and the killer have in common.
struct Shared {
    address: Mutex<Option<SocketAddr>>,
    is_over: AtomicBool,
    answered: AtomicU64,
    /// Requests that are on their way.
    pending: AtomicU64,
    /// Requests that a kill left without an answer, and that were repeated.
    broken_off: AtomicU64,
    repeated: AtomicU64,
}

/// Runs the task and prints a fact a line.
pub(crate) fn run(options: &Options) -> Outcome {
    let directory = tempfile::tempdir()?;
    let bank = Bank {
        binary: build_example("bank", &["--release"])?,
        data: directory.path().join("data"),
        orders: directory.path().join("orders.jsonl"),
        log: directory.path().join("bank.log"),
    };
    fs::create_dir_all(&bank.data)?;
    fs::write(&bank.orders, "")?;
    let shared = Arc::new(Shared {
        address: Mutex::new(None),
        is_over: AtomicBool::new(false),
        answered: AtomicU64::new(0),
        pending: AtomicU64::new(0),
        broken_off: AtomicU64::new(0),
        repeated: AtomicU64::new(0),
    });
    let clients: Vec<_> = (0..options.clients)
        .map(|number| {
            let (shared, options) = (Arc::clone(&shared), options.clone());
            thread::spawn(move || pay(number, &options, &shared).map_err(|error| error.to_string()))
        })
        .collect();
    let killed = kill_and_start(&bank, options, &shared);
    shared.is_over.store(true, Ordering::Release);
    let mut last = killed?;
    let mut payments = Vec::new();
    for client in clients {
        payments.extend(client.join().map_err(|_| "a client panicked")??);
    }
    check_answers(&payments, &shared)?;
    stop(&mut last)?;
    check_money(&bank, &payments, options)?;
    say(&format!(
        "{} kills while clients paid: {} payments were answered, {} broken off and repeated, {} repeated long after their answer, all {} once more in the end; each got the answer that it had, and every cent is there",
        options.kills,
        payments.len(),
        shared.broken_off.load(Ordering::Relaxed),
        shared.repeated.load(Ordering::Relaxed),
        payments.len(),
    ))
}

/// The example as a process.
struct Bank {
    binary: PathBuf,
    data: PathBuf,
    /// An ingress that has nothing to say.
    orders: PathBuf,
    log: PathBuf,
}

impl Bank {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.current_dir(&self.data).arg("--data").arg(&self.data).env_remove("RUST_LOG");
        command.arg(format!("--set=ingress.orders.path={}", self.orders.display()));
        command.stdin(Stdio::null());
        command
    }

    /// Starts it and waits until it takes requests.
    fn start(&self) -> Outcome<(Process, SocketAddr)> {
        let mut command = self.command();
        command.arg("--set=http.listen=127.0.0.1:0").arg(format!("--set=snapshot_tail_bytes={SNAPSHOT_TAIL_BYTES}B"));
        let mut process = Process::start(command.stdout(Stdio::null()).stderr(File::create(&self.log)?))?;
        let started_at = Instant::now();
        loop {
            if let Some(address) = address_in(&self.log)
                && Client::connect(address)
                    .and_then(|mut client| client.get("/ready"))
                    .is_ok_and(|ready| ready.status == 200)
            {
                return Ok((process, address));
            }
            if process.ended()?.is_some() || started_at.elapsed() > START_TIME_MAX {
                return Err(format!("the bank does not start: {}", fs::read_to_string(&self.log)?).into());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// What is committed: the balance of every account.
    fn balances(&self) -> Outcome<BTreeMap<String, i64>> {
        let output = self.command().args(["state", "--function", "bank/account"]).stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            return Err("`bank state` failed".into());
        }
        let mut balances = BTreeMap::new();
        for line in String::from_utf8(output.stdout)?.lines() {
            let line: Value = serde_json::from_str(line)?;
            let key = line["key"].as_str().ok_or("a state has a key")?;
            let cents = |field: &str| line["state"][field].as_i64().ok_or("an account has cents");
            balances.insert(key.to_owned(), cents("balance_cents")? + cents("held_cents")?);
        }
        Ok(balances)
    }
}

/// Where a process says in its log that it listens.
fn address_in(log: &Path) -> Option<SocketAddr> {
    let text = fs::read_to_string(log).ok()?;
    let line = text.lines().find(|line| line.contains("listening at http://"))?;
    line.rsplit("http://").next()?.trim().parse().ok()
}

/// Kills until enough kills count; returns the process that runs then.
fn kill_and_start(bank: &Bank, options: &Options, shared: &Shared) -> Outcome<Process> {
    let mut random = Rng::with_seed(options.seed);
    let mut counted = 0;
    loop {
        let (mut process, address) = bank.start()?;
        let before = shared.answered.load(Ordering::Acquire);
        *lock(&shared.address) = Some(address);
        if counted == options.kills {
            return Ok(process);
        }
        thread::sleep(random_between(&mut random, LIFE));
        let is_counted = shared.answered.load(Ordering::Acquire) > before && shared.pending.load(Ordering::Acquire) > 0;
        let status = process.kill()?;
        if status.signal() != Some(SIGKILL) {
            return Err(format!("the bank ended by itself: {status}: {}", fs::read_to_string(&bank.log)?).into());
        }
        *lock(&shared.address) = None;
        counted += u64::from(is_counted);
    }
}

fn stop(process: &mut Process) -> Outcome {
    let id = i32::try_from(process.id())?;
    let id = rustix::process::Pid::from_raw(id).ok_or("a process has a number")?;
    rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
    let status = process.wait()?;
    if status.success() { Ok(()) } else { Err(format!("the bank did not stop well: {status}").into()) }
}

fn random_between(random: &mut Rng, (shortest, longest): (Duration, Duration)) -> Duration {
    shortest + (longest - shortest).mul_f64(random.f64())
}

/// A lock that a client's panic leaves behind guards nothing that is half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Pays until it is over; returns every payment with its answer.
fn pay(number: u64, options: &Options, shared: &Shared) -> Outcome<Vec<(Payment, Response)>> {
    let mut random = Rng::with_seed(options.seed ^ (number << 32));
    let mut connection = None;
    let mut done: Vec<(Payment, Response)> = Vec::new();
    let account = |client: u64, account: u64| format!("account-{client}-{account}");
    let first = (0..ACCOUNTS).map(|to| ("vault".to_owned(), account(number, to), FIRST_CENTS));
    let mut first: Vec<_> = first.collect();
    while !shared.is_over.load(Ordering::Acquire) || !first.is_empty() {
        if !done.is_empty() && random.u64(0..REPEATS) == 0 {
            let (payment, answer) = done[random.usize(0..done.len())].clone();
            check_same(&payment, &answer, &make(&payment, &mut connection, shared)?)?;
            shared.repeated.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let (from, to, cents) = first.pop().unwrap_or_else(|| {
            let (client, to) = (random.u64(0..options.clients), random.u64(0..ACCOUNTS));
            (account(number, random.u64(0..ACCOUNTS)), account(client, to), random.i64(1..FIRST_CENTS / 2))
        });
        let payment = Payment { once: format!("{number}-{}", done.len()), from, to, cents };
        let answer = make(&payment, &mut connection, shared)?;
        if !matches!(answer.status, 200 | 409) {
            return Err(format!("{payment:?} was answered by {answer:?}").into());
        }
        shared.answered.fetch_add(1, Ordering::AcqRel);
        done.push((payment, answer));
    }
    Ok(done)
}

/// Sends a payment until it is answered.
fn make(payment: &Payment, connection: &mut Option<(SocketAddr, Client)>, shared: &Shared) -> Outcome<Response> {
    let Payment { once, from, to, cents } = payment;
    let path = format!("/functions/bank/account/{from}/pay");
    let body = format!("{{\"to\":\"{to}\",\"cents\":{cents}}}");
    loop {
        let Some(address) = *lock(&shared.address) else {
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        if connection.as_ref().is_none_or(|(known, _)| *known != address) {
            *connection = Client::connect(address).ok().map(|client| (address, client));
        }
        let Some((_, client)) = connection else {
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        shared.pending.fetch_add(1, Ordering::AcqRel);
        let answer = client.post(&path, Some(once), &body);
        shared.pending.fetch_sub(1, Ordering::AcqRel);
        match answer {
            // Nothing was done, or nobody knows: in both cases it is sent again.
            Ok(answer) if matches!(answer.status, 503 | 504) => thread::sleep(Duration::from_millis(1)),
            Ok(answer) => return Ok(answer),
            Err(_) => {
                shared.broken_off.fetch_add(1, Ordering::Relaxed);
                *connection = None;
            }
        }
    }
}

fn check_same(payment: &Payment, before: &Response, after: &Response) -> Outcome {
    if before == after {
        return Ok(());
    }
    Err(format!("{payment:?} was answered by {before:?} and, when it came again, by {after:?}").into())
}

/// Repeats every payment: each gets the answer that it had.
fn check_answers(payments: &[(Payment, Response)], shared: &Shared) -> Outcome {
    let mut connection = None;
    for (payment, answer) in payments {
        check_same(payment, answer, &make(payment, &mut connection, shared)?)?;
    }
    Ok(())
}

/// Each account has what its payments come to, and all together have nothing.
fn check_money(bank: &Bank, payments: &[(Payment, Response)], options: &Options) -> Outcome {
    let mut expected: BTreeMap<String, i64> = BTreeMap::new();
    for (payment, _) in payments.iter().filter(|(_, answer)| answer.status == 200) {
        *expected.entry(payment.from.clone()).or_default() -= payment.cents;
        *expected.entry(payment.to.clone()).or_default() += payment.cents;
    }
    let accounts = options.clients * ACCOUNTS;
    if expected.len() as u64 != accounts + 1 {
        return Err(format!("{} accounts were paid to, of {accounts} and the vault", expected.len()).into());
    }
    let balances = bank.balances()?;
    if balances != expected {
        return Err(format!("the accounts have {balances:?}, and the payments come to {expected:?}").into());
    }
    match balances.values().sum::<i64>() {
        0 => Ok(()),
        cents => Err(format!("there are {cents} cents too many").into()),
    }
}
