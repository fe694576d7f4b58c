//! The audit: what accounts have must be what the payments come to that were acknowledged.
//!
//! Of every payment it is known whether it was made. So an account that has another amount has one that was
//! lost or made twice. Then the last payments are sent again, with their keys: each must get the answer that
//! it had, and nothing may have changed. All accounts that there are, the vault and those that a user has paid to
//! included, come to zero, as every cent of one was another's.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    load::{Books, Caller},
    workers::Workers,
};
use crate::{Outcome, http_client::Client, service::check_same};

/// How long the last messages may be under way, a worker that died right before included.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long accounts that are not right yet are left alone.
const PAUSE: Duration = Duration::from_millis(200);
/// How many keys a page has at most.
const PAGE: usize = 1_000;

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
    let accounts = accounts(workers)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let cents = accounts.iter().map(|account| balance(&mut caller, account, is_on)).sum::<Outcome<i64>>()?;
        match cents {
            0 => break,
            cents if Instant::now() > deadline => {
                return Err(
                    format!("money is not conserved: {} accounts have {cents} cents together", accounts.len()).into()
                );
            }
            _ => thread::sleep(PAUSE),
        }
    }
    let cents: i64 = expected.values().sum();
    Ok(format!(
        "money is conserved: {} accounts have the {cents} cents that were paid in, and with the vault all {} come to zero; each of {} payments was made once, {} were refused, and the last {} got the same answers again",
        expected.len(),
        accounts.len(),
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

/// What an account has, what is held included.
fn balance(caller: &mut Caller, account: &str, is_on: impl Fn() -> bool) -> Outcome<i64> {
    let deadline = Instant::now() + PATIENCE;
    let path = format!("/functions/bank/account/{account}/state");
    let answer = caller.call(|client| client.get(&path), || is_on() && Instant::now() < deadline);
    let answer = answer.ok_or_else(|| format!("no worker tells what {account} has"))?;
    let state: Value = serde_json::from_str(&answer.body)?;
    let cents = |field: &str| state[field].as_i64().ok_or_else(|| format!("{account} has no `{field}`: {answer:?}"));
    Ok(cents("balance_cents")? + cents("held_cents")?)
}

/// All accounts that any worker has, each as it stands in a path.
fn accounts(workers: &Workers) -> Outcome<BTreeSet<String>> {
    let mut accounts = BTreeSet::new();
    for worker in workers.all.iter().filter(|worker| worker.id().is_some()) {
        let mut client = Client::connect_with(worker.admin(), PATIENCE)?;
        let mut after = String::new();
        loop {
            let path = format!("/admin/v1/keys/bank/account?limit={PAGE}{after}");
            let answer = client.get(&path)?;
            let page: Value = serde_json::from_str(&answer.body)?;
            let keys = page["keys"].as_array().ok_or_else(|| format!("{} lists no keys: {answer:?}", worker.name))?;
            accounts.extend(keys.iter().filter_map(|key| key["path"].as_str().map(str::to_owned)));
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={next}");
        }
    }
    Ok(accounts)
}
