//! The orders: lines of `orders.jsonl`, and where each goes.

use serde::{Deserialize, Serialize};
use statefn::prelude::*;

use crate::api::{Account, Close, Hold, Transfer, VAULT};

/// One line of `orders.jsonl`.
#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "order")]
pub struct Order {
    /// When, in milliseconds of event time.
    pub at_ms: i64,
    /// Whose order it is.
    pub account: String,
    /// What is to be done.
    pub action: Action,
}

/// What is to be done.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Money comes from outside.
    PayIn {
        /// How much.
        cents: i64,
    },
    /// Money goes to another account.
    Transfer {
        /// The other account.
        to: String,
        /// How much.
        cents: i64,
    },
    /// Money is set aside.
    Hold {
        /// How much.
        cents: i64,
        /// How long, in seconds.
        seconds: u64,
    },
    /// The account is closed.
    Close,
}

impl Order {
    /// Sends the message that the order asks for.
    pub(crate) fn route(self, out: &mut Router<'_, (Account, ())>) {
        let account = Account::at(&self.account);
        match self.action {
            Action::PayIn { cents } => out.send(Account::at(VAULT), Transfer { to: self.account, cents }),
            Action::Transfer { to, cents } => out.send(account, Transfer { to, cents }),
            Action::Hold { cents, seconds } => out.send(account, Hold { cents, seconds }),
            Action::Close => out.send(account, Close {}),
        }
    }
}
