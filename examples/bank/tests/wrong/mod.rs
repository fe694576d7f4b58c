//! Accounts with a mistake each, which the simulation has to find.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use bank::{
    Auditor, Booked, Pay,
    api::{self, Close, Hold, Overdrawn, Receive, Refund, Transfer, VAULT},
    day_of,
};
use serde::{Deserialize, Serialize};
use statefn::prelude::*;

/// Forgets to give back what comes when it is closed.
#[derive(Default, Clone, Serialize, Deserialize, State)]
pub(crate) struct Forgetful {
    pub(crate) balance_cents: i64,
    pub(crate) is_closed: bool,
}

#[function(implements = api::Account, sends(api::Account, Auditor))]
impl Forgetful {
    #[on]
    fn transfer(&mut self, transfer: &Transfer, ctx: &mut Context<Self>) -> Result<(), Overdrawn> {
        if ctx.key() != VAULT && transfer.cents > self.balance_cents {
            return Err(Overdrawn { missing_cents: transfer.cents - self.balance_cents });
        }
        self.balance_cents -= transfer.cents;
        let receive = Receive { from: ctx.key().clone(), cents: transfer.cents };
        ctx.send(api::Account::at(&transfer.to), receive);
        Ok(())
    }
    #[on]
    fn receive(&mut self, receive: &Receive) {
        if !self.is_closed {
            self.balance_cents += receive.cents;
        }
    }
    #[on]
    fn refund(&mut self, refund: &Refund) {
        self.balance_cents += refund.cents;
    }
    #[on]
    fn hold(&mut self, _: &Hold) -> Result<(), Overdrawn> {
        Ok(())
    }
    #[on]
    fn close(&mut self, _: &Close) {
        self.is_closed = true;
    }
}

/// The balances in memory, "because that is faster": right until an epoch runs again.
#[derive(Default)]
pub(crate) struct Cache(Mutex<BTreeMap<String, i64>>);

impl Cache {
    fn add(&self, account: &str, cents: i64) -> i64 {
        let mut balances = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let balance = balances.entry(account.to_owned()).or_default();
        *balance += cents;
        *balance
    }
}

/// Keeps its balance in memory, and in its state a copy of that.
#[derive(Default, Clone, Serialize, Deserialize, State)]
pub(crate) struct Cached {
    pub(crate) balance_cents: i64,
}

#[function(implements = api::Account, sends(api::Account, Auditor))]
impl Cached {
    #[on]
    fn transfer(&mut self, transfer: &Transfer, ctx: &mut Context<Self>) -> Result<(), Overdrawn> {
        self.add(-transfer.cents, ctx);
        let receive = Receive { from: ctx.key().clone(), cents: transfer.cents };
        ctx.send(api::Account::at(&transfer.to), receive);
        Ok(())
    }
    #[on]
    fn receive(&mut self, receive: &Receive, ctx: &mut Context<Self>) {
        self.add(receive.cents, ctx);
    }
    #[on]
    fn refund(&mut self, refund: &Refund, ctx: &mut Context<Self>) {
        self.add(refund.cents, ctx);
    }
    #[on]
    fn hold(&mut self, _: &Hold) -> Result<(), Overdrawn> {
        Ok(())
    }
    #[on]
    fn close(&mut self, _: &Close) {}

    fn add(&mut self, cents: i64, ctx: &mut Context<Self>) {
        self.balance_cents = ctx.resource::<Cache>().add(ctx.key(), cents);
        ctx.send(Auditor::at(day_of(ctx.event_time())), Booked { cents });
    }
}

/// Answers from memory, "because that is faster"; its state is right.
#[derive(Default, Clone, Serialize, Deserialize, State)]
pub(crate) struct Hasty {
    pub(crate) balance_cents: i64,
}

#[function(implements = api::Account, sends(api::Account))]
impl Hasty {
    #[on]
    fn transfer(&mut self, _: &Transfer) -> Result<(), Overdrawn> {
        Ok(())
    }
    #[on]
    fn pay(&mut self, pay: &Pay, ctx: &mut Context<Self>) -> i64 {
        self.balance_cents -= pay.cents;
        ctx.send(api::Account::at(&pay.to), Receive { from: ctx.key().clone(), cents: pay.cents });
        ctx.resource::<Cache>().add(ctx.key(), -pay.cents)
    }
    #[on]
    fn receive(&mut self, receive: &Receive) {
        self.balance_cents += receive.cents;
    }
    #[on]
    fn refund(&mut self, _: &Refund) {}
    #[on]
    fn hold(&mut self, _: &Hold) -> Result<(), Overdrawn> {
        Ok(())
    }
    #[on]
    fn close(&mut self, _: &Close) {}
}
