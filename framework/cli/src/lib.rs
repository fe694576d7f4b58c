//! The commands of statefn: what a person asks of an app that runs, or of the data of one that does not.
//!
//! ```text
//! the app's own binary ──┐               ┌──► Client: the admin interface of a running app
//!                        ├──► Command ──►│
//! `statefn` ─────────────┘               └──► Data: a data directory
//! ```
//! Both answer with the same documents (`statefn_core::view`), which `table` makes readable and
//! `--output json` prints as they are.
//!
//! Invariants: what only reads changes nothing but a torn tail of the log, which opening it cuts; what
//! changes something needs a running app, or the app's own program.
//!
//! Deliberately absent: TLS. An admin interface that others reach stands behind a proxy or a tunnel.

#![forbid(unsafe_code)]

mod check;
mod client;
mod command;
mod data;
mod table;

use serde_json::Value;
use thiserror::Error;

pub use self::{
    check::check,
    client::{Client, Connection},
    command::{Command, Held, Letters, LettersCommand, Notations, OneKey, Output, ParkedCommand, declared, execute},
    data::Data,
};

/// Why a command did not do what it was asked to.
#[derive(Debug, Error)]
pub enum Error {
    /// The command line cannot be understood.
    #[error("{0}")]
    Usage(String),
    /// Nobody answers at the address.
    #[error("cannot ask {url}: {reason}")]
    Unreachable {
        /// Where it was asked.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// The app has said no.
    #[error("{code}: {detail}")]
    Refused {
        /// The stable code.
        code: String,
        /// What it says.
        detail: String,
    },
    /// The data cannot be opened or are damaged.
    #[error("{0}")]
    Data(String),
}

/// Where commands are answered.
pub trait Source {
    /// How far everything is.
    ///
    /// # Errors
    /// See [`Error`](enum@Error); so for all others.
    fn status(&mut self) -> Result<Value, Error>;

    /// The functions.
    ///
    /// # Errors
    /// See [`Error`](enum@Error).
    fn functions(&mut self) -> Result<Value, Error>;

    /// The graph, in a notation.
    ///
    /// # Errors
    /// See [`Error`](enum@Error).
    fn graph(&mut self, notation: &str) -> Result<String, Error>;

    /// A page of keys.
    ///
    /// # Errors
    /// See [`Error`](enum@Error).
    fn keys(&mut self, function: &str, prefix: &str, after: Option<&str>, limit: usize) -> Result<Value, Error>;

    /// The state of a key.
    ///
    /// # Errors
    /// See [`Error`](enum@Error).
    fn state(&mut self, function: &str, key: &str) -> Result<Value, Error>;

    /// What waits for its time for a key.
    ///
    /// # Errors
    /// See [`Error`](enum@Error).
    fn timers(&mut self, function: &str, key: &str) -> Result<Value, Error>;

    /// A page of parked keys.
    ///
    /// # Errors
    /// See [`Error`](enum@Error).
    fn parked(&mut self, after: Option<&str>) -> Result<Value, Error>;

    /// A page of dead letters.
    ///
    /// # Errors
    /// See [`Error`](enum@Error).
    fn dead_letters(&mut self, after: Option<&str>) -> Result<Value, Error>;

    /// Verifies everything; a line for each thing that was looked at.
    ///
    /// # Errors
    /// See [`Error`](enum@Error); [`Error::Data`] with everything that is wrong.
    fn check(&mut self) -> Result<Vec<String>, Error>;

    /// Changes something: a method, a path below `/admin/v1/`, and a body.
    ///
    /// # Errors
    /// See [`Error`](enum@Error).
    fn change(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Value, Error>;
}
