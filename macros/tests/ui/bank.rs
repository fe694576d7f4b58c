//! What the ui tests share: some messages, a rejection and an egress.

#![allow(dead_code, unused_imports, reason = "each test uses a part")]

pub use serde::{Deserialize, Serialize};
pub use statefn::prelude::*;

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
#[message(name = "get-balance")]
pub struct GetBalance;

#[derive(Clone, Serialize, Deserialize, Message)]
#[message(name = "hold-expired")]
pub struct HoldExpired {
    pub cents: u64,
}

#[derive(Debug, Serialize, Deserialize, Reject)]
#[reject(code = "overdrawn", status = 409)]
pub struct Overdrawn {
    pub missing_cents: u64,
}

pub static STATEMENTS: Egress<Deposit> = Egress::new("statements");
