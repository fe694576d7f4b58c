//! One order, as a saga: each step waits for the answer of the one before, and when one says no, or takes
//! too long, what was done is undone.
//!
//! ```text
//! place ──► reserve stock ──► charge the card ──► ship ──► answer
//!                │ no               │ no
//!                └───────► answer   └──► release the stock ──► answer
//! too late: answer; what comes later is released and paid back
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};
use statefn::prelude::*;

use crate::{
    api::{NotPlaced, Place, Placed, Release, Reserve, Ship, SoldOut, TakesTooLong},
    payments::{Charge, Refund, charge, refund},
    stock::Stock,
};

/// How long an order may take, in event time, which follows the clock.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How far an order is.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// Nobody has placed it.
    #[default]
    New,
    /// It waits for the stock.
    Reserving,
    /// It waits for the payment.
    Charging,
    /// It is paid and on its way.
    Shipped,
    /// It is not done, and nothing of it remains.
    Refused(NotPlaced),
}

/// One order; the key is its number.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize, State)]
pub struct Order {
    /// How far it is.
    pub status: Status,
    /// What was ordered.
    pub placed: Option<Place>,
    /// What it costs, in cents; 0 as long as the stock has not said it.
    pub cents: u64,
    /// What was paid back, in cents.
    pub refunded_cents: u64,
    /// Who waits for the end.
    caller: Option<ReplyTo<Placed, NotPlaced>>,
}

#[function(name = "shop/order", sends(Stock))]
impl Order {
    #[on]
    fn place(&mut self, msg: &Place, ctx: &mut Context<Self>) -> Result<Deferred<Placed>, NotPlaced> {
        if self.status != Status::New {
            return Err(NotPlaced::Known);
        }
        let (later, caller) = ctx.defer_reply();
        self.caller = Some(caller);
        self.placed = Some(msg.clone());
        self.status = Status::Reserving;
        ctx.ask(Stock::at(&msg.item), Reserve { order: ctx.key().clone(), count: msg.count }, 0);
        ctx.set_timer_as("patience", ctx.event_time() + PATIENCE, TakesTooLong {});
        Ok(later)
    }

    #[on_reply]
    fn reserved(&mut self, reply: Reply<Stock, Reserve>, ctx: &mut Context<Self>) -> Result<(), Fault> {
        let placed = self.placed.clone().ok_or_else(|| Fault::new("nobody has placed this order"))?;
        match (&self.status, reply.outcome) {
            (Status::Reserving, Ok(price_cents)) => {
                self.cents = price_cents * u64::from(placed.count);
                self.status = Status::Charging;
                let charged = Charge { order: ctx.key().clone(), card: placed.card, cents: self.cents };
                ctx.call::<charge>(charged, 0);
            }
            (Status::Reserving, Err(Failed::Rejected(SoldOut { left }))) => {
                self.finish(Err(NotPlaced::SoldOut { left }), ctx);
            }
            // It came too late.
            (_, Ok(_)) => ctx.send(Stock::at(&placed.item), Release { order: ctx.key().clone() }),
            (_, Err(_)) => {}
        }
        Ok(())
    }

    #[on_reply]
    fn charged(&mut self, done: Done<charge>, ctx: &mut Context<Self>) -> Result<(), Fault> {
        let placed = self.placed.clone().ok_or_else(|| Fault::new("nobody has placed this order"))?;
        let (stock, order) = (Stock::at(&placed.item), ctx.key().clone());
        match (&self.status, done.outcome) {
            (Status::Charging, Ok(receipt)) => {
                ctx.send(stock, Ship { order });
                self.finish(Ok(Placed { receipt, cents: self.cents }), ctx);
            }
            (Status::Charging, Err(Failed::Rejected(_))) => {
                ctx.send(stock, Release { order });
                self.finish(Err(NotPlaced::Declined), ctx);
            }
            (_, Ok(receipt)) => {
                // It came too late.
                ctx.send(stock, Release { order });
                ctx.call::<refund>(Refund { receipt, cents: self.cents }, 0);
            }
            (_, Err(Failed::Rejected(_))) => ctx.send(stock, Release { order }),
            // Nobody knows whether it was paid: a person has to look.
            (_, Err(Failed::Fault(fault))) => return Err(fault),
        }
        Ok(())
    }

    #[on_reply]
    fn refunded(&mut self, done: &Done<refund>) -> Result<(), Fault> {
        match &done.outcome {
            Ok(cents) => {
                self.refunded_cents += cents;
                Ok(())
            }
            Err(_) => Err(Fault::new("the money was not paid back: a person has to look")),
        }
    }

    #[on_timer]
    fn takes_too_long(&mut self, _: &TakesTooLong, ctx: &mut Context<Self>) {
        self.finish(Err(NotPlaced::TooLate), ctx);
    }

    fn finish(&mut self, outcome: Result<Placed, NotPlaced>, ctx: &mut Context<Self>) {
        ctx.cancel_timer("patience");
        self.status = match &outcome {
            Ok(_) => Status::Shipped,
            Err(refused) => Status::Refused(refused.clone()),
        };
        if let Some(caller) = self.caller.take() {
            ctx.answer(caller, outcome);
        }
    }
}
