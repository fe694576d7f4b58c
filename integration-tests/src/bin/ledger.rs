//! An app for the tests of fleets: accounts that send each other money and note every move.
//!
//! Of each transfer there are three statements: one of the payer, one of the payee, and one when the
//! payee's timer fires. Each bears the balance, so what an account has ever done shows in them.

use std::{process::ExitCode, time::Duration};

use serde::{Deserialize, Serialize};
use statefn::prelude::*;

#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "transfer")]
struct Transfer {
    number: u64,
    from: String,
    to: String,
    cents: i64,
    at_ms: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "deposit")]
struct Deposit {
    number: u64,
    cents: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "settled")]
struct Settled {
    number: u64,
}

/// What happened to an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Move {
    Paid,
    Received,
    Settled,
}

#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "statement")]
struct Statement {
    account: String,
    number: u64,
    what: Move,
    balance_cents: i64,
}

static STATEMENTS: Egress<Statement> = Egress::new("statements");

#[derive(Debug, Default, Clone, Serialize, Deserialize, State)]
struct Account {
    balance_cents: i64,
}

#[function(name = "ledger/account", sends(Self), emits(STATEMENTS))]
impl Account {
    #[on]
    fn transfer(&mut self, msg: &Transfer, ctx: &mut Context<Self>) {
        self.balance_cents -= msg.cents;
        self.state(msg.number, Move::Paid, ctx);
        ctx.send(Self::at(&msg.to), Deposit { number: msg.number, cents: msg.cents });
    }

    #[on]
    fn deposit(&mut self, msg: &Deposit, ctx: &mut Context<Self>) {
        self.balance_cents += msg.cents;
        self.state(msg.number, Move::Received, ctx);
        ctx.set_timer(ctx.event_time() + Duration::from_secs(1), Settled { number: msg.number });
    }

    #[on_timer]
    fn settled(&mut self, msg: &Settled, ctx: &mut Context<Self>) {
        self.state(msg.number, Move::Settled, ctx);
    }
}

impl Account {
    fn state(&self, number: u64, what: Move, ctx: &mut Context<Self>) {
        let (account, balance_cents) = (ctx.key().clone(), self.balance_cents);
        ctx.emit(&STATEMENTS, &Statement { account, number, what, balance_cents });
    }
}

fn main() -> ExitCode {
    let transfers = Ingress::<Transfer>::new("transfers")
        .event_time(|transfer| EventTime(transfer.at_ms))
        .lateness(Duration::from_millis(500))
        .to::<Account>();
    App::new("ledger")
        .function::<Account>()
        .ingress(transfers, |transfer, out| out.send(Account::at(&transfer.from), transfer))
        .egress(&STATEMENTS)
        .main()
}
