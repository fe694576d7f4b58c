//! Kills the bank with SIGKILL while clients pay over HTTP, and counts every cent.
//!
//! Each client pays from accounts of its own to any account, each payment with an idempotency key,
//! and repeats it, also over kills, until it is answered. So in the end it is known of every payment
//! whether it was made, and each account must have exactly what its payments come to. Now and then a
//! client repeats a payment that was answered long ago, and all are repeated in the end: each must
//! get the answer that it had.
//!
//! Deliberately absent: loss of power.

use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, atomic::Ordering},
    thread,
};

use clap::Args;
use fastrand::Rng;

use crate::{
    Outcome,
    http_client::Response,
    say,
    service::{Caller, Load, Service, check_same},
};

/// How many accounts each client has.
const ACCOUNTS: u64 = 8;
/// What the vault pays to each account at first.
const FIRST_CENTS: i64 = 10_000;
/// One of so many requests repeats a payment that was answered.
const REPEATS: u64 = 5;

/// What `cargo xtask http-kill` and `orders-kill` are told.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// How many kills must count
    #[arg(long, default_value_t = 10)]
    pub(crate) kills: u64,
    /// The seed of requests and lives; what a kill hits is up to the machine
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// How many clients call at a time
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

impl Payment {
    /// Sends it until it is answered.
    fn make(&self, caller: &mut Caller, load: &Load) -> Response {
        let Self { once, from, to, cents } = self;
        let body = format!("{{\"to\":\"{to}\",\"cents\":{cents}}}");
        caller.call(&format!("/functions/bank/account/{from}/pay"), once, &body, load)
    }
}

/// Runs the task and prints a fact a line.
pub(crate) fn run(options: &Options) -> Outcome {
    let directory = tempfile::tempdir()?;
    // An ingress that has nothing to say.
    let orders = directory.path().join("orders.jsonl");
    fs::write(&orders, "")?;
    let bank = Service::build("bank", directory.path())?.set(format!("ingress.orders.path={}", orders.display()));
    let load = Arc::new(Load::default());
    let clients: Vec<_> = (0..options.clients)
        .map(|number| {
            let (load, options) = (Arc::clone(&load), options.clone());
            thread::spawn(move || pay(number, &options, &load).map_err(|error| error.to_string()))
        })
        .collect();
    let killed = bank.kill_under(&load, options.kills, options.seed);
    load.is_over.store(true, Ordering::Release);
    let mut last = killed?;
    let mut payments = Vec::new();
    for client in clients {
        payments.extend(client.join().map_err(|_| "a client panicked")??);
    }
    let mut caller = Caller::default();
    for (payment, answer) in &payments {
        check_same(payment, answer, &payment.make(&mut caller, &load))?;
    }
    bank.stop(&mut last)?;
    check_money(&bank, &payments, options)?;
    say(&format!(
        "{} kills while clients paid: {} payments were answered, {} broken off and repeated, {} repeated long after their answer, all {} once more in the end; each got the answer that it had, and every cent is there",
        options.kills,
        payments.len(),
        load.broken_off.load(Ordering::Relaxed),
        load.repeated.load(Ordering::Relaxed),
        payments.len(),
    ))
}

/// Pays until it is over; returns every payment with its answer.
fn pay(number: u64, options: &Options, load: &Load) -> Outcome<Vec<(Payment, Response)>> {
    let mut random = Rng::with_seed(options.seed ^ (number << 32));
    let mut caller = Caller::default();
    let mut done: Vec<(Payment, Response)> = Vec::new();
    let account = |client: u64, account: u64| format!("account-{client}-{account}");
    let first = (0..ACCOUNTS).map(|to| ("vault".to_owned(), account(number, to), FIRST_CENTS));
    let mut first: Vec<_> = first.collect();
    while !load.is_over.load(Ordering::Acquire) || !first.is_empty() {
        if !done.is_empty() && random.u64(0..REPEATS) == 0 {
            let (payment, answer) = done[random.usize(0..done.len())].clone();
            check_same(&payment, &answer, &payment.make(&mut caller, load))?;
            load.repeated.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let (from, to, cents) = first.pop().unwrap_or_else(|| {
            let (client, to) = (random.u64(0..options.clients), random.u64(0..ACCOUNTS));
            (account(number, random.u64(0..ACCOUNTS)), account(client, to), random.i64(1..FIRST_CENTS / 2))
        });
        let payment = Payment { once: format!("{number}-{}", done.len()), from, to, cents };
        let answer = payment.make(&mut caller, load);
        if !matches!(answer.status, 200 | 409) {
            return Err(format!("{payment:?} was answered by {answer:?}").into());
        }
        load.answered.fetch_add(1, Ordering::AcqRel);
        done.push((payment, answer));
    }
    Ok(done)
}

/// Each account has what its payments come to, and all together have nothing.
fn check_money(bank: &Service, payments: &[(Payment, Response)], options: &Options) -> Outcome {
    let mut expected: BTreeMap<String, i64> = BTreeMap::new();
    for (payment, _) in payments.iter().filter(|(_, answer)| answer.status == 200) {
        *expected.entry(payment.from.clone()).or_default() -= payment.cents;
        *expected.entry(payment.to.clone()).or_default() += payment.cents;
    }
    let accounts = options.clients * ACCOUNTS;
    if expected.len() as u64 != accounts + 1 {
        return Err(format!("{} accounts were paid to, of {accounts} and the vault", expected.len()).into());
    }
    let mut balances = BTreeMap::new();
    for (account, state) in bank.states("bank/account")? {
        let cents = |field: &str| state[field].as_i64().ok_or("an account has cents");
        balances.insert(account, cents("balance_cents")? + cents("held_cents")?);
    }
    if balances != expected {
        return Err(format!("the accounts have {balances:?}, and the payments come to {expected:?}").into());
    }
    match balances.values().sum::<i64>() {
        0 => Ok(()),
        cents => Err(format!("there are {cents} cents too many").into()),
    }
}
