//! The bank in simulated worlds: money is conserved whatever happens, and accounts with a mistake
//! are found out.

mod wrong;

use std::{collections::BTreeMap, time::Duration};

use bank::{
    AUDITS, Account, Action, Auditor, GetBalance, HoldExpired, Order, Pay,
    api::{self, Overdrawn, Receive, Refund, VAULT},
};
use statefn::{
    Address, Module,
    testing::{Committed, Failure, Random, Sequential, simulate},
};

use self::wrong::{Cache, Cached, Forgetful, Hasty};

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

/// Clients who pay and ask for balances; the vault, which may be overdrawn, pays most of it in.
fn pays(random: &mut Random) -> Vec<(Address<Account>, Pay)> {
    let number = random.between(5, 30);
    let mut pay = || {
        let from = if random.chance(400) { VAULT } else { random.one_of(&ACCOUNTS[..3]) };
        (Address::new(from), Pay { to: random.one_of(&ACCOUNTS[..3]).into(), cents: random.between(1, 900) })
    };
    (0..number).map(|_| pay()).collect()
}

fn balances(random: &mut Random) -> Vec<(Address<Account>, GetBalance)> {
    let number = random.between(5, 30);
    (0..number).map(|_| (Address::new(random.one_of(&[VAULT, ACCOUNTS[0], ACCOUNTS[1]])), GetBalance {})).collect()
}

/// What an account answers if its calls come one after the other.
fn account() -> Sequential<Account, i64> {
    Sequential::new()
        .on(|balance: &mut i64, pay: &Pay, account| {
            if account != VAULT && pay.cents > *balance {
                return Err(Overdrawn { missing_cents: pay.cents - *balance });
            }
            *balance -= pay.cents;
            Ok(*balance)
        })
        .on(|balance, receive: &Receive, _| *balance += receive.cents)
        .on(|balance, _: &GetBalance, _| *balance)
        .sends(|pay: &Pay| (Address::new(&*pay.to), Receive { from: String::new(), cents: pay.cents }))
}

/// What was answered is booked once, however often it was asked: the vault tells.
fn each_payment_is_made_once(world: &Committed<'_>) {
    let (mut paid, mut open) = (0, 0);
    for (account, pay, answer) in world.requests::<Account, Pay>() {
        match answer {
            Some(Ok(_)) if account == VAULT => paid += pay.cents,
            None if account == VAULT => open += pay.cents,
            _ => {}
        }
    }
    let vault = world.state(&Address::<Account>::new(VAULT)).unwrap_or_default();
    assert!((paid..=paid + open).contains(&-vault.balance_cents), "{paid} were paid, and {open} may be: {vault:?}");
}

/// As over HTTP: clients who are not answered ask again, and the time goes on without traffic.
#[test]
fn a_bank_that_clients_call_answers_as_if_they_called_one_after_the_other() {
    let report = simulate(bank::app)
        .live()
        .seeds(150)
        .requests(pays)
        .requests(pays)
        .requests(balances)
        .requests(balances)
        .linearizable(account())
        .check(money_is_conserved)
        .check(each_payment_is_made_once)
        .linger(Duration::from_secs(30))
        .run();
    println!("{report}");
    assert!(report.answers_lost > 0 && report.answers_again > 0 && report.crashes > 0, "{report}");
}

#[test]
fn an_account_that_answers_from_memory_is_found() {
    let app = || bank::app_with(Module::new().function::<Hasty>()).resource(Cache::default());
    let hasty = Sequential::<Hasty, i64>::new().on(|balance: &mut i64, pay: &Pay, _| {
        *balance -= pay.cents;
        *balance
    });
    let pays = |random: &mut Random| {
        let mut pay = || Pay { to: ACCOUNTS[0].into(), cents: random.between(1, 900) };
        (0..10).map(|_| (Address::<Hasty>::new(VAULT), pay())).collect()
    };
    let failure = simulate(app).live().requests(pays).linearizable(hasty).try_run().unwrap_err();
    println!("{failure}");
    assert!(failure.error.contains("`bank/account` vault: not linearizable"), "{failure}");
    assert!(failure.shrunk.requests.len() < 10 && !failure.shrunk.faults.is_empty(), "{failure}");
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
