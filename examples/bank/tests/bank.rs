//! The bank function by function, and as an app through a crash.

use bank::{
    AUDITS, Account, Action, Audit, Order, STATEMENTS,
    api::{self, Close, Hold, Overdrawn, Receive, Refund, Transfer, VAULT},
};
use statefn::{
    prelude::*,
    testing::{Harness, TestApp},
};

fn account_with(cents: i64) -> Harness<Account> {
    Harness::with_state("alice", Account { balance_cents: cents, ..Account::default() })
}

#[test]
fn a_transfer_is_refused_or_sends_what_it_takes() {
    let mut alice = account_with(100);
    alice.deliver(Transfer { to: "bob".into(), cents: 70 }).unwrap();
    let sent = alice.sent::<api::Account, Receive>();
    assert_eq!((sent.len(), sent[0].0.as_str(), sent[0].1.cents), (1, "bob", 70));
    let refused = alice.deliver(Transfer { to: "bob".into(), cents: 70 });
    assert_eq!(refused, Err(Failed::Rejected(Overdrawn { missing_cents: 40 })));
    assert_eq!(alice.state().balance_cents, 30);
}

#[test]
fn the_vault_may_be_overdrawn() {
    let mut vault = Harness::<Account>::at(VAULT);
    vault.deliver(Transfer { to: "bob".into(), cents: 70 }).unwrap();
    assert_eq!(vault.state().balance_cents, -70);
}

#[test]
fn a_closed_account_gives_back_what_comes() {
    let mut alice = account_with(100);
    alice.deliver(Close {}).unwrap();
    alice.deliver(Receive { from: "bob".into(), cents: 5 }).unwrap();
    let back = alice.sent::<api::Account, Refund>();
    assert_eq!((back.len(), back[0].0.as_str(), back[0].1.cents), (1, "bob", 5));
    assert_eq!(alice.state().balance_cents, 100);
}

#[test]
fn a_hold_comes_back_when_its_time_has_passed() {
    let mut alice = account_with(100);
    alice.deliver(Hold { cents: 80, seconds: 60 }).unwrap();
    assert_eq!((alice.state().balance_cents, alice.state().held_cents), (20, 80));
    alice.advance_to(EventTime(59_999)).unwrap();
    assert_eq!(alice.state().held_cents, 80);
    alice.advance_to(EventTime(60_000)).unwrap();
    assert_eq!((alice.state().balance_cents, alice.state().held_cents), (100, 0));
}

#[test]
fn the_bank_goes_on_after_a_crash() {
    let order = |at_ms, action| Order { at_ms, account: "alice".into(), action };
    let mut app = TestApp::new(bank::app());
    app.ingest("orders", &order(0, Action::PayIn { cents: 100 }));
    app.ingest("orders", &order(1, Action::Hold { cents: 30, seconds: 60 }));
    app.run();
    app.crash();
    app.ingest("orders", &order(2, Action::Transfer { to: "bob".into(), cents: 50 }));
    app.run();
    // The hold has waited for the money, which came by another shard.
    let alice = app.state(Account::at("alice")).unwrap();
    assert_eq!((alice.balance_cents, alice.held_cents), (20, 30));

    app.crash();
    app.end_input();
    app.run();
    assert_eq!(app.state(Account::at("alice")).unwrap().balance_cents, 50);
    assert_eq!(app.emitted(&AUDITS), [Audit { day: 0, bookings: 4, cents_off: 0 }]);
    let last = app.emitted(&STATEMENTS).into_iter().rfind(|statement| statement.account == "alice").unwrap();
    assert_eq!((last.balance_cents, last.held_cents), (50, 0));
}
