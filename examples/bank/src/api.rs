//! What accounts take: the contract that others send to, and its messages.

use serde::{Deserialize, Serialize};
use statefn::prelude::*;

/// The account that money comes from when it is paid in; it alone may be overdrawn.
pub const VAULT: &str = "vault";

/// Moves money from this account to another one.
#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "transfer")]
pub struct Transfer {
    /// The other account.
    pub to: String,
    /// How much.
    pub cents: i64,
}

/// Money that comes from another account.
#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "receive")]
pub struct Receive {
    /// The other account.
    pub from: String,
    /// How much.
    pub cents: i64,
}

/// Money that this account has sent and that the other one did not take.
#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "refund")]
pub struct Refund {
    /// How much.
    pub cents: i64,
}

/// Sets money aside for a while.
#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "hold")]
pub struct Hold {
    /// How much.
    pub cents: i64,
    /// How long, in seconds of event time.
    pub seconds: u64,
}

/// Closes this account: it takes no more money, but from those who give it back.
#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "close")]
pub struct Close {}

/// There is too little money.
#[derive(Debug, PartialEq, Serialize, Deserialize, Reject)]
#[reject(code = "overdrawn")]
pub struct Overdrawn {
    /// How much is missing.
    pub missing_cents: i64,
}

statefn::contract! {
    /// One account.
    pub Account = "bank/account", key = String;
    Transfer -> Result<(), Overdrawn>;
    Receive;
    Refund;
    Hold -> Result<(), Overdrawn>;
    Close
}
