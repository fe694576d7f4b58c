//! What the functions of the shop are told and answer.

use serde::{Deserialize, Serialize};
use statefn::prelude::*;

/// Puts so many pieces of an item into stock, each at this price.
#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "restock")]
pub struct Restock {
    /// How many.
    pub count: u32,
    /// What one costs, in cents.
    pub price_cents: u64,
}

/// Asks for pieces for an order.
#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "reserve")]
pub struct Reserve {
    /// The order.
    pub order: String,
    /// How many.
    pub count: u32,
}

/// Gives back what was reserved for an order, if anything was.
#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "release")]
pub struct Release {
    /// The order.
    pub order: String,
}

/// Ships what was reserved for an order.
#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "ship")]
pub struct Ship {
    /// The order.
    pub order: String,
}

/// There is not enough of an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Reject)]
#[reject(code = "sold-out", status = 409)]
pub struct SoldOut {
    /// How many there are.
    pub left: u32,
}

/// Places an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Message)]
#[message(name = "place")]
pub struct Place {
    /// The item.
    pub item: String,
    /// How many.
    pub count: u32,
    /// The card that pays.
    pub card: String,
}

/// An order is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Message)]
#[message(name = "placed")]
pub struct Placed {
    /// The number of the payment.
    pub receipt: String,
    /// What was paid, in cents.
    pub cents: u64,
}

/// Why an order is not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Reject)]
pub enum NotPlaced {
    /// There is not enough of the item.
    #[reject(code = "sold-out", status = 409)]
    SoldOut {
        /// How many there are.
        left: u32,
    },
    /// The card does not pay.
    #[reject(code = "declined", status = 402)]
    Declined,
    /// It took too long; what was reserved and paid is given back.
    #[reject(code = "too-late", status = 408)]
    TooLate,
    /// There is an order of this number already.
    #[reject(code = "known", status = 409)]
    Known,
}

/// An order has taken too long.
#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "takes-too-long")]
pub struct TakesTooLong {}

/// A parcel on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Message)]
#[message(name = "shipment")]
pub struct Shipment {
    /// The item.
    pub item: String,
    /// How many.
    pub count: u32,
    /// The order.
    pub order: String,
}

/// Where shipments go.
pub static SHIPMENTS: Egress<Shipment> = Egress::new("shipments");
