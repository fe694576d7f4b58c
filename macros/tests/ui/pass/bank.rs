// The bank, as the design shows it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use statefn::prelude::*;

/// One account. The fields are the state of one key.
#[derive(Default, Clone, Serialize, Deserialize, State)]
pub struct Account {
    balance_cents: u64,
    held_cents: u64,
}

#[derive(Clone, Serialize, Deserialize, Message)]
#[message(name = "deposit")]
pub struct Deposit {
    pub cents: u64,
}

#[derive(Clone, Serialize, Deserialize, Message)]
#[message(name = "transfer")]
pub struct Transfer {
    pub to: String,
    pub cents: u64,
}

#[derive(Clone, Serialize, Deserialize, Message)]
#[message(name = "hold")]
pub struct Hold {
    pub cents: u64,
}

#[derive(Clone, Serialize, Deserialize, Message)]
#[message(name = "hold-expired")]
pub struct HoldExpired {
    pub cents: u64,
}

#[derive(Clone, Serialize, Deserialize, Message)]
#[message(name = "get-balance")]
pub struct GetBalance;

#[derive(Clone, Serialize, Deserialize, Message)]
#[message(name = "entry")]
pub struct Entry {
    pub account: String,
    pub balance_cents: u64,
}

#[derive(Debug, Serialize, Deserialize, Reject)]
#[reject(code = "overdrawn", status = 409)]
pub struct Overdrawn {
    pub missing_cents: u64,
}

static STATEMENTS: Egress<Entry> = Egress::new("statements");

#[function(name = "bank/account", key = String, sends(Self), emits(STATEMENTS))]
impl Account {
    #[on]
    fn deposit(&mut self, msg: &Deposit, ctx: &mut Context<Self>) {
        self.balance_cents += msg.cents;
        ctx.emit(&STATEMENTS, &Entry { account: ctx.key().clone(), balance_cents: self.balance_cents });
    }

    /// Takes the money here and sends it there.
    #[on]
    pub fn transfer(&mut self, msg: &Transfer, ctx: &mut Context<Self>) -> Result<(), Overdrawn> {
        self.take(msg.cents)?;
        ctx.send(Account::at(&msg.to), Deposit { cents: msg.cents });
        Ok(())
    }

    #[on]
    fn hold(&mut self, msg: &Hold, ctx: &mut Context<Self>) -> Result<(), Overdrawn> {
        self.take(msg.cents)?;
        self.held_cents += msg.cents;
        ctx.set_timer(ctx.event_time() + Duration::from_secs(60), HoldExpired { cents: msg.cents });
        ctx.set_timer_as("name", ctx.event_time() + Duration::from_secs(60), HoldExpired { cents: 0 });
        Ok(())
    }

    #[on_timer]
    fn hold_expired(&mut self, timer: &HoldExpired) {
        self.held_cents -= timer.cents;
        self.balance_cents += timer.cents;
    }

    #[on]
    fn balance(&self, _: &GetBalance, _ctx: &Context<Self>) -> u64 {
        self.balance_cents
    }

    fn take(&mut self, cents: u64) -> Result<(), Overdrawn> {
        match self.balance_cents.checked_sub(cents) {
            Some(rest) => {
                self.balance_cents = rest;
                Ok(())
            }
            None => Err(Overdrawn { missing_cents: cents - self.balance_cents }),
        }
    }
}

fn main() {
    let deposits: Ingress<Transfer, (Account, ())> =
        Ingress::new("transfers").lateness(Duration::from_secs(5)).to::<Account>();
    let route = |transfer: Transfer, out: &mut Router<'_, (Account, ())>| {
        out.send(Account::at(&transfer.to), Deposit { cents: transfer.cents });
    };
    let _ = (deposits, route);
    assert_eq!(format!("{:?}", Account::at("alice")), "bank/account/\"alice\"");
}
