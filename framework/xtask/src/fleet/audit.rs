//! The audit: what accounts have must be what the payments come to that were acknowledged.
//!
//! Of every payment it is known whether it was made. So an account that has another amount has one that was
//! lost or made twice. Then the last payments are sent again, with their keys: each must get the answer that
//! it had, and nothing may have changed. All accounts come to zero, the vault and the user's included, as every
//! cent of one was another's.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    load::{Books, Caller},
    workers::Workers,
};
use crate::{Outcome, service::check_same};

/// How long the last messages may be under way, a worker that died right before included.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long accounts that are not right yet are left alone.
const PAUSE: Duration = Duration::from_millis(200);
/// An account that a user may pay to; no client does.
pub(super) const YOURS: &str = "you";

/// Checks the books against the fleet; returns what was found. It ends early when `is_on` says so.
pub(super) fn audit(
    workers: &Workers,
    books: &Books,
    random: fastrand::Rng,
    is_on: impl Fn() -> bool + Copy,
) -> Outcome<String> {
    if let Some(failure) = books.failures.first() {
        return Err(
            format!("{} payments were answered as none should be, such as {failure}", books.failures.len()).into()
        );
    }
    if books.given_up > 0 {
        return Err(format!("of {} payments nobody knows what became: they were given up", books.given_up).into());
    }
    let mut caller = Caller::new(workers.addresses(), random);
    let expected: BTreeMap<&str, i64> = books
        .expected
        .iter()
        .filter(|(name, _)| *name != "vault")
        .map(|(name, cents)| (name.as_str(), *cents))
        .collect();
    wait_until_right(&mut caller, &expected, is_on)?;
    for (payment, answer) in &books.last {
        let again = payment.make(&mut caller, is_on).ok_or("interrupted")?;
        check_same(payment, answer, &again)?;
    }
    wait_until_right(&mut caller, &expected, is_on)?;
    wait_until_conserved(&mut caller, &expected, is_on)?;
    let cents: i64 = expected.values().sum();
    Ok(format!(
        "money is conserved: {} accounts have the {cents} cents that were paid in, and with the vault they come to zero; each of {} payments was made once, {} were refused, and the last {} got the same answers again",
        expected.len(),
        books.made,
        books.overdrawn,
        books.last.len()
    ))
}

/// Waits until every account has what it must: money may be on its way.
fn wait_until_right(caller: &mut Caller, expected: &BTreeMap<&str, i64>, is_on: impl Fn() -> bool + Copy) -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut wrong = Vec::new();
        for (account, cents) in expected {
            let found = balance(caller, account, is_on)?;
            if found != *cents {
                wrong.push(format!("{account} has {found} cents and must have {cents}"));
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            wrong.truncate(5);
            return Err(format!("payments were lost or made twice: {}", wrong.join("; ")).into());
        }
        thread::sleep(PAUSE);
    }
}

/// Waits until all accounts come to zero: those who pay each other, the vault, and the user's.
fn wait_until_conserved(
    caller: &mut Caller,
    expected: &BTreeMap<&str, i64>,
    is_on: impl Fn() -> bool + Copy,
) -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let accounts = expected.keys().copied().chain(["vault", YOURS]);
        match accounts.map(|account| balance(caller, account, is_on)).sum::<Outcome<i64>>()? {
            0 => return Ok(()),
            cents if Instant::now() > deadline => {
                return Err(format!("money is not conserved: all accounts have {cents} cents together").into());
            }
            _ => thread::sleep(PAUSE),
        }
    }
}

/// What an account has, what is held included; one that nobody has paid to has nothing.
fn balance(caller: &mut Caller, account: &str, is_on: impl Fn() -> bool) -> Outcome<i64> {
    let deadline = Instant::now() + PATIENCE;
    let path = format!("/functions/bank/account/{account}/state");
    let answer = caller.call(|client| client.get(&path), || is_on() && Instant::now() < deadline);
    let answer = answer.ok_or_else(|| format!("no worker tells what {account} has"))?;
    if answer.status == 404 {
        return Ok(0);
    }
    let state: Value = serde_json::from_str(&answer.body)?;
    let cents = |field: &str| state[field].as_i64().ok_or_else(|| format!("{account} has no `{field}`: {answer:?}"));
    Ok(cents("balance_cents")? + cents("held_cents")?)
}
