//! The account: what it has, what is held, and everything that moves money.
//!
//! Invariant: a call that takes money away sends it on in the same call, so that all accounts, and
//! what is on its way between them, always sum to zero.
//!
//! Orders come in event-time order: one waits until everything before it has happened, also on other
//! accounts, so it finds the money that an earlier order has sent.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use statefn::prelude::*;

use crate::{
    api::{self, Close, Hold, Overdrawn, Receive, Refund, Transfer, VAULT},
    auditor::{Auditor, Booked, day_of},
};

/// One account; its fields are the state of one key.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize, State)]
pub struct Account {
    /// What can be spent.
    pub balance_cents: i64,
    /// What is set aside.
    pub held_cents: i64,
    /// Whether it takes no more money.
    pub is_closed: bool,
}

/// A hold has come to its end.
#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "hold-expired")]
pub struct HoldExpired {
    /// What was held.
    pub cents: i64,
}

/// Moves money to another account at once, and answers what is left.
#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "pay")]
pub struct Pay {
    /// The other account.
    pub to: String,
    /// How much.
    pub cents: i64,
}

/// Asks for what can be spent.
#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "get-balance")]
pub struct GetBalance {}

/// What an account has after a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Message)]
#[message(name = "statement")]
pub struct Statement {
    /// The account.
    pub account: String,
    /// When, in milliseconds of event time.
    pub at_ms: i64,
    /// What can be spent.
    pub balance_cents: i64,
    /// What is set aside.
    pub held_cents: i64,
}

/// Where statements go.
pub static STATEMENTS: Egress<Statement> = Egress::new("statements");

#[function(implements = api::Account, sends(api::Account, Auditor), emits(STATEMENTS))]
impl Account {
    /// Takes the money here and sends it on: both happen, or neither.
    #[on(in_event_time_order)]
    fn transfer(&mut self, transfer: &Transfer, ctx: &mut Context<Self>) -> Result<(), Overdrawn> {
        self.take(transfer.cents, ctx.key())?;
        self.booked(-transfer.cents, ctx);
        let receive = Receive { from: ctx.key().clone(), cents: transfer.cents };
        ctx.send(api::Account::at(&transfer.to), receive);
        Ok(())
    }

    /// What [`Transfer`] does, at once, for those who wait for an answer: the new balance.
    #[on]
    fn pay(&mut self, pay: &Pay, ctx: &mut Context<Self>) -> Result<i64, Overdrawn> {
        self.take(pay.cents, ctx.key())?;
        self.booked(-pay.cents, ctx);
        ctx.send(api::Account::at(&pay.to), Receive { from: ctx.key().clone(), cents: pay.cents });
        Ok(self.balance_cents)
    }

    #[on]
    fn balance(&self, _: &GetBalance) -> i64 {
        self.balance_cents
    }

    /// A closed account does not reject: a rejection would leave nothing, and the money is already
    /// on its way. It gives the money back.
    #[on]
    fn receive(&mut self, receive: &Receive, ctx: &mut Context<Self>) {
        if self.is_closed {
            ctx.send(api::Account::at(&receive.from), Refund { cents: receive.cents });
            return;
        }
        self.balance_cents += receive.cents;
        self.booked(receive.cents, ctx);
    }

    #[on]
    fn refund(&mut self, refund: &Refund, ctx: &mut Context<Self>) {
        self.balance_cents += refund.cents;
        self.booked(refund.cents, ctx);
    }

    #[on(in_event_time_order)]
    fn hold(&mut self, hold: &Hold, ctx: &mut Context<Self>) -> Result<(), Overdrawn> {
        self.take(hold.cents, ctx.key())?;
        self.held_cents += hold.cents;
        let due = ctx.event_time() + Duration::from_secs(hold.seconds);
        ctx.set_timer(due, HoldExpired { cents: hold.cents });
        self.state(ctx);
        Ok(())
    }

    #[on_timer]
    fn hold_expired(&mut self, timer: &HoldExpired, ctx: &mut Context<Self>) {
        self.held_cents -= timer.cents;
        self.balance_cents += timer.cents;
        self.state(ctx);
    }

    #[on(in_event_time_order)]
    fn close(&mut self, _: &Close) {
        self.is_closed = true;
    }

    fn take(&mut self, cents: i64, account: &str) -> Result<(), Overdrawn> {
        if account != VAULT && cents > self.balance_cents {
            return Err(Overdrawn { missing_cents: cents - self.balance_cents });
        }
        self.balance_cents -= cents;
        Ok(())
    }

    /// Tells the auditor of the day, and the owner.
    fn booked(&self, cents: i64, ctx: &mut Context<Self>) {
        ctx.send(Auditor::at(day_of(ctx.event_time())), Booked { cents });
        self.state(ctx);
    }

    fn state(&self, ctx: &mut Context<Self>) {
        let Self { balance_cents, held_cents, .. } = *self;
        let (account, at_ms) = (ctx.key().clone(), ctx.event_time().0);
        ctx.emit(&STATEMENTS, &Statement { account, at_ms, balance_cents, held_cents });
    }
}
