//! What can go wrong, by what the user can do about it.
//!
//! The ladder: a [`Reject`] is a handler's answer "no" and nothing is wrong; a [`Fault`] is a
//! handler that is broken; a [`DecodeError`] is bytes that are not what they should be; a
//! [`LinkError`] is an app that does not fit together.

use std::fmt::{self, Debug, Display};

use thiserror::Error;

use crate::{codec, message::Wire};

/// Bytes that cannot be read as the type they should be; the text says why.
///
/// ```
/// use statefn_core::{DecodeError, Key};
/// let error: DecodeError = u64::read(b"abc").unwrap_err();
/// assert_eq!(error.to_string(), "a u64 key has 8 bytes, not 3");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct DecodeError(pub String);

impl DecodeError {
    /// An error with this text; lower case, naming the value.
    pub fn new(text: impl Display) -> Self {
        Self(text.to_string())
    }
}

/// A handler's answer "no": the effects of that call vanish, the caller gets this value.
///
/// Derived by `#[derive(Reject)]`; the methods let an enum answer differently for each variant.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no rejection",
    label = "the error of a handler is a rejection, `Fault` or `Failed<..>`",
    note = "add `#[derive(Debug, Serialize, Deserialize, Reject)]` and `#[reject(code = \"..\", status = 409)]` to `{Self}`"
)]
pub trait Reject: Wire + Debug {
    /// A stable code for programs, such as `overdrawn`.
    fn code(&self) -> &'static str;
    /// The HTTP status that a caller over HTTP gets; 400 to 499.
    fn status(&self) -> u16;
}

/// The rejection of a handler that never rejects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Never {}

impl Wire for Never {
    fn encode(&self, _: &mut Vec<u8>) {
        match *self {}
    }
    fn decode(_: &[u8]) -> Result<Self, DecodeError> {
        Err(DecodeError::new("there is no value of this type"))
    }
    fn json_schema() -> serde_json::Value {
        serde_json::Value::Bool(false)
    }
}

impl Reject for Never {
    fn code(&self) -> &'static str {
        match *self {}
    }
    fn status(&self) -> u16 {
        match *self {}
    }
}

/// A broken handler: the key is parked, its later messages queue, all other keys go on.
///
/// Any error converts into a fault by `?`. A panic is a fault too.
///
/// ```
/// use statefn_core::Fault;
/// fn parse(text: &str) -> Result<u64, Fault> { Ok(text.parse()?) }
/// assert_eq!(parse("x").unwrap_err().to_string(), "invalid digit found in string");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault(String);

impl Fault {
    /// A fault with this text.
    pub fn new(text: impl Display) -> Self {
        Self(text.to_string())
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}

/// The error of a handler that may reject and may be broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failed<E> {
    /// The handler said no.
    Rejected(E),
    /// The handler is broken.
    Fault(Fault),
}

impl<E: Reject> From<E> for Failed<E> {
    fn from(rejection: E) -> Self {
        Self::Rejected(rejection)
    }
}

impl<E> From<Fault> for Failed<E> {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Parts of an app that do not fit together; found before anything runs.
///
/// Holds every problem found, a line each, with its fix.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", .0.join("\n"))]
pub struct LinkError(pub Vec<String>);

/// A snapshot or journal that cannot be read; the text names the place and the cause.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Corrupt(pub String);

impl From<codec::Truncated> for Corrupt {
    fn from(error: codec::Truncated) -> Self {
        Self(error.to_string())
    }
}
