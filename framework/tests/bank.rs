//! The bank of the design page, as a whole app in memory.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use statefn::{
    prelude::*,
    testing::{Harness, TestApp},
};

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize, State)]
struct Account {
    balance_cents: u64,
    held_cents: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "deposit")]
struct Deposit {
    to: String,
    cents: u64,
    at_ms: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "transfer")]
struct Transfer {
    to: String,
    cents: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "hold")]
struct Hold {
    cents: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "hold-expired")]
struct HoldExpired {
    cents: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "get-balance")]
struct GetBalance {}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Message)]
#[message(name = "entry")]
struct Entry {
    account: String,
    balance_cents: u64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize, Reject)]
#[reject(code = "overdrawn", status = 409)]
struct Overdrawn {
    missing_cents: u64,
}

static STATEMENTS: Egress<Entry> = Egress::new("statements");

#[function(name = "bank/account", sends(Self), emits(STATEMENTS))]
impl Account {
    #[on]
    fn deposit(&mut self, msg: &Deposit, ctx: &mut Context<Self>) {
        self.balance_cents += msg.cents;
        ctx.emit(&STATEMENTS, &Entry { account: ctx.key().clone(), balance_cents: self.balance_cents });
    }

    #[on]
    fn transfer(&mut self, msg: &Transfer, ctx: &mut Context<Self>) -> Result<(), Overdrawn> {
        ctx.send(Account::at(&msg.to), Deposit { to: msg.to.clone(), cents: msg.cents, at_ms: 0 });
        self.take(msg.cents)
    }

    #[on]
    fn hold(&mut self, msg: &Hold, ctx: &mut Context<Self>) -> Result<(), Overdrawn> {
        self.take(msg.cents)?;
        self.held_cents += msg.cents;
        ctx.set_timer(ctx.event_time() + Duration::from_secs(60), HoldExpired { cents: msg.cents });
        Ok(())
    }

    #[on_timer]
    fn hold_expired(&mut self, timer: &HoldExpired) {
        assert!(timer.cents != 13, "thirteen breaks the clerk");
        self.held_cents -= timer.cents;
        self.balance_cents += timer.cents;
    }

    #[on]
    fn balance(&self, _: &GetBalance) -> u64 {
        self.balance_cents
    }

    fn take(&mut self, cents: u64) -> Result<(), Overdrawn> {
        let missing_cents = cents.saturating_sub(self.balance_cents);
        if missing_cents > 0 {
            return Err(Overdrawn { missing_cents });
        }
        self.balance_cents -= cents;
        Ok(())
    }
}

fn app() -> App {
    App::new("bank")
        .function::<Account>()
        .ingress(
            Ingress::<Deposit>::new("deposits").event_time(|deposit| EventTime(deposit.at_ms)).to::<Account>(),
            |deposit, out| out.send(Account::at(&deposit.to), deposit),
        )
        .egress(&STATEMENTS)
}

fn deposit(to: &str, cents: u64, at_ms: i64) -> Deposit {
    Deposit { to: to.into(), cents, at_ms }
}

#[test]
fn a_hold_comes_back_when_its_minute_has_passed() {
    let mut alice = Harness::<Account>::at("alice");
    alice.deliver(deposit("alice", 100, 0)).unwrap();
    alice.deliver(Hold { cents: 80 }).unwrap();
    assert_eq!(alice.state().balance_cents, 20);
    assert_eq!(alice.timers().len(), 1);
    alice.advance_to(EventTime(60_000)).unwrap();
    assert_eq!(alice.state().balance_cents, 100);
}

#[test]
fn a_rejection_leaves_nothing_behind() {
    let mut alice = Harness::<Account>::at("alice");
    let rejected = alice.deliver(Transfer { to: "bob".into(), cents: 5 });
    assert_eq!(rejected, Err(Failed::Rejected(Overdrawn { missing_cents: 5 })));
    assert!(alice.sent::<Account, Deposit>().is_empty());
    alice.deliver(deposit("alice", 7, 0)).unwrap();
    alice.deliver(Transfer { to: "bob".into(), cents: 5 }).unwrap();
    let sent = alice.sent::<Account, Deposit>();
    assert_eq!(sent.iter().map(|(key, deposit)| (key.as_str(), deposit.cents)).collect::<Vec<_>>(), [("bob", 5)]);
    assert_eq!(alice.emitted(&STATEMENTS), [Entry { account: "alice".into(), balance_cents: 7 }]);
}

#[test]
fn transfers_between_shards_survive_crashes() {
    let mut app = TestApp::with_shards(app(), 8);
    for name in 0..50 {
        app.ingest("deposits", &deposit(&format!("account-{name}"), 100, name));
    }
    app.crash();
    app.run();
    for round in 0..20 {
        for name in 0..50 {
            let to = format!("account-{}", (name * 7 + round) % 50);
            let from = Account::at(format!("account-{name}"));
            let _ = app.request(from, Transfer { to, cents: 10 });
        }
        app.crash();
    }
    app.run();
    let total: u64 =
        (0..50).map(|name| app.request(Account::at(format!("account-{name}")), GetBalance {}).unwrap()).sum();
    assert_eq!(total, 5_000);
    assert_eq!(app.emitted(&STATEMENTS).len(), 50 + 1_000 - app.dead_letters().len());
}

#[test]
fn a_broken_key_is_parked_and_others_go_on() {
    let mut app = TestApp::new(app());
    for name in ["alice", "bob"] {
        app.ingest("deposits", &deposit(name, 100, 1));
    }
    app.run();
    app.request(Account::at("alice"), Hold { cents: 13 }).unwrap();
    app.request(Account::at("bob"), Hold { cents: 14 }).unwrap();
    app.ingest("deposits", &deposit("carol", 1, 100_000));
    app.end_input();
    app.run();
    app.ingest_bytes("deposits", b"not json");
    let parked = app.parked();
    assert_eq!(parked.len(), 1);
    let (function, key, waits) = &parked[0];
    assert_eq!((function.as_str(), key.as_slice()), ("bank/account", &b"alice"[..]));
    assert_eq!(waits.reason, "panicked: thirteen breaks the clerk");
    assert_eq!(app.state(Account::at("bob")), Some(Account { balance_cents: 100, held_cents: 0 }));
    assert_eq!(app.state(Account::at("alice")), Some(Account { balance_cents: 87, held_cents: 13 }));
    let refused = app.request(Account::at("alice"), GetBalance {});
    assert_eq!(refused, Err(Failed::Fault(Fault::new("the key is parked after a fault"))));
}

#[test]
fn an_unreadable_record_is_a_dead_letter() {
    let mut app = TestApp::new(app());
    app.ingest_bytes("deposits", b"not json");
    app.ingest("deposits", &deposit("alice", 1, 1));
    app.run();
    let letters = app.dead_letters();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].bytes(), b"not json");
    assert_eq!(letters[0].position.as_deref(), Some("record 0"));
    assert_eq!(app.state(Account::at("alice")).map(|account| account.balance_cents), Some(1));
}
