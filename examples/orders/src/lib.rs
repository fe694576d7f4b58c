//! A shop: orders that reserve stock, charge a card outside, and ship, or undo what they did.
//!
//! - [`api`]: what the functions are told and answer.
//! - [`stock`]: the stock of one item.
//! - [`order`]: one order, as a saga.
//! - [`payments`]: the activities that charge and pay back, and the small unreliable server that they
//!   call.
//!
//! A client places an order over HTTP and is answered when it has shipped, or when it is clear that it
//! does not. With an idempotency key it may ask again at any time, also after a crash, and gets the same
//! answer.

pub mod api;
pub mod order;
pub mod payments;
pub mod stock;

use statefn::prelude::*;

/// The shop, which pays at `payments`; its data are in `data/orders` if nobody says otherwise.
#[must_use]
pub fn app(payments: payments::Client) -> App {
    App::new("shop")
        .function::<order::Order>()
        .function::<stock::Stock>()
        .activity::<payments::charge>()
        .activity::<payments::refund>()
        .resource(payments)
        .egress(&api::SHIPMENTS)
        .settings(Settings::new().data("data/orders"))
}
