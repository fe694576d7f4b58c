//! A bank: accounts, transfers between them, holds that expire, statements, and an auditor.
//!
//! ```text
//! orders.jsonl ──► router ──► bank/account (by name) ──► statements.jsonl
//!                              │    ▲ │ transfers, refunds
//!                              │    └─┘
//!                              └────► bank/auditor (by day) ──► audits.jsonl
//! ```
//! It is a service too: `README.md` beside this crate pays over HTTP.
//!
//! Money that is paid in comes from the account `vault`, so all accounts sum to zero, always. The
//! auditor shows that for each day; `tests/simulation.rs` shows it for every moment, whatever
//! crashes.

mod account;
pub mod api;
mod auditor;
mod order;

use std::path::Path;

use statefn::{Module, prelude::*};

pub use self::{
    account::{Account, GetBalance, HoldExpired, Pay, STATEMENTS, Statement},
    auditor::{AUDITS, Audit, Auditor, Booked, day_of},
    order::{Action, Order},
};

/// The app, reading the orders that come with it.
#[must_use]
pub fn app() -> App {
    let orders = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/orders.jsonl");
    app_with(Module::new().function::<Account>()).settings(Settings::new().data("data/bank").input("orders", orders))
}

/// The app with another implementation of accounts, for tests.
#[must_use]
pub fn app_with(accounts: Module) -> App {
    let orders = Ingress::<Order>::new("orders").event_time(|order| EventTime(order.at_ms)).to::<api::Account>();
    App::new("bank")
        .module(accounts)
        .function::<Auditor>()
        .ingress(orders, Order::route)
        .egress(&STATEMENTS)
        .egress(&AUDITS)
}
