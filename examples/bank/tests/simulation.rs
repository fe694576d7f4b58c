//! The bank in simulated worlds: money is conserved whatever happens, and accounts with a mistake
//! are found out.

mod wrong;

use std::collections::BTreeMap;

use bank::{
    AUDITS, Account, Action, Auditor, HoldExpired, Order,
    api::{self, Receive, Refund},
};
use statefn::{
    Module,
    testing::{Committed, Failure, Random, simulate},
};

use self::wrong::{Cache, Cached, Forgetful};

const ACCOUNTS: [&str; 6] = ["alice", "bob", "carol", "dave", "erin", "frank"];

/// Orders of two days; money is paid in first.
fn orders(random: &mut Random) -> Vec<Order> {
    let paid_in = ACCOUNTS.map(|account| (account, Action::PayIn { cents: 1_000 }));
    let number = random.between(10, 60);
    let others = (0..number).map(|_| (random.one_of(&ACCOUNTS), action(random)));
    let all: Vec<_> = paid_in.into_iter().chain(others).collect();
    let step_ms = 2 * 24 * 60 * 60 * 1_000 / all.len() as i64;
    let order = |(place, (account, action)): (i64, (&str, Action))| Order {
        at_ms: place * step_ms,
        account: account.into(),
        action,
    };
    (0..).zip(all).map(order).collect()
}

fn action(random: &mut Random) -> Action {
    let cents = random.between(1, 900);
    match random.below(20) {
        0 => Action::Close,
        1..=4 => Action::Hold { cents, seconds: random.below(100_000) },
        5..=6 => Action::PayIn { cents },
        _ => Action::Transfer { to: random.one_of(&ACCOUNTS).into(), cents },
    }
}

fn moving(world: &Committed<'_>) -> i64 {
    let sent = world.on_their_way::<api::Account, Receive>();
    let given_back = world.on_their_way::<api::Account, Refund>();
    sent.iter().map(|(_, sent)| sent.cents).chain(given_back.iter().map(|(_, back)| back.cents)).sum()
}

fn money_is_conserved(world: &Committed<'_>) {
    let accounts = world.states::<Account>();
    let owned: i64 = accounts.iter().map(|(_, account)| account.balance_cents + account.held_cents).sum();
    assert_eq!(owned + moving(world), 0, "accounts and what moves between them sum to zero");
}

fn holds_have_their_timers(world: &Committed<'_>) {
    let mut expected = BTreeMap::<String, i64>::new();
    for (account, hold) in world.timers::<Account, HoldExpired>() {
        *expected.entry(account).or_default() += hold.cents;
    }
    for (name, account) in world.states::<Account>() {
        let held = expected.remove(&name).unwrap_or_default();
        assert_eq!(account.held_cents, held, "what is held of {name} comes back");
    }
}

fn the_auditor_agrees(world: &Committed<'_>) {
    assert!(world.states::<Auditor>().iter().all(|(_, auditor)| auditor.cents == 0));
    let audits = world.emitted(&AUDITS);
    assert!(!audits.is_empty() && audits.len() == world.states::<Auditor>().len(), "one for each day: {audits:?}");
    assert!(audits.iter().all(|audit| audit.cents_off == 0), "{audits:?}");
}

#[test]
fn money_is_conserved_whatever_happens() {
    let report = simulate(bank::app)
        .seeds(150)
        .random_input("orders", orders)
        .check(money_is_conserved)
        .check(holds_have_their_timers)
        .at_end(the_auditor_agrees)
        .at_end(|world| {
            assert!(world.states::<Account>().iter().all(|(_, account)| account.held_cents == 0));
            assert!(world.parked().is_empty());
        })
        .run();
    println!("{report}");
}

/// The text of a failure has all that is needed to look into it.
fn tells_what_to_do(failure: &Failure) {
    let text = failure.to_string();
    assert!(text.contains(&format!("fails with seed {}", failure.seed)), "{text}");
    assert!(text.contains(&format!("STATEFN_SEED={} cargo test", failure.seed)), "{text}");
    assert!(failure.is_repeatable, "{text}");
    assert!(failure.shrunk.records.len() < failure.records, "{text}");
}

#[test]
fn an_account_that_forgets_to_give_money_back_is_found() {
    let conserved = |world: &Committed<'_>| {
        let owned: i64 = world.states::<Forgetful>().iter().map(|(_, account)| account.balance_cents).sum();
        assert_eq!(owned + moving(world), 0);
    };
    let app = || bank::app_with(Module::new().function::<Forgetful>());
    let failure = simulate(app).random_input("orders", orders).check(conserved).try_run().unwrap_err();
    println!("{failure}");
    tells_what_to_do(&failure);
    let needed = failure.shrunk.records.len();
    // A close and a payment would be enough; leaving records out also moves the commits at which the check looks.
    assert!(needed * 4 <= failure.records, "a few records are enough, not {needed} of {}", failure.records);
    assert!(failure.shrunk.faults.is_empty(), "it is wrong without any fault");
}

#[test]
fn an_account_that_keeps_its_money_in_memory_is_found() {
    let conserved = |world: &Committed<'_>| {
        let owned: i64 = world.states::<Cached>().iter().map(|(_, account)| account.balance_cents).sum();
        assert_eq!(owned + moving(world), 0);
    };
    let app = || bank::app_with(Module::new().function::<Cached>()).resource(Cache::default());
    let failure = simulate(app).random_input("orders", orders).check(conserved).try_run().unwrap_err();
    println!("{failure}");
    tells_what_to_do(&failure);
    assert!(!failure.shrunk.faults.is_empty(), "it is right without faults");
}
