//! Answers that come as messages: replies of functions, results of activities, and answers that a
//! handler gives later than its call.
//!
//! [`Context::ask`](crate::Context::ask) and [`Context::call`](crate::Context::call) bring back a
//! [`Reply`] or a [`Done`], which a handler marked `#[on_reply]` takes.
//! [`Context::defer_reply`](crate::Context::defer_reply) lets a handler answer its own caller later.
//!
//! Invariant: a reply is a message like any other: it is delivered exactly once, in order with what
//! else one key sends to another, and it is part of the same epoch as what caused it.
//!
//! Deliberately absent: time-outs. One who does not want to wait for ever sets a timer.

use std::{fmt, marker::PhantomData};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    activity::{self, Activity},
    codec::{Reader, put_bytes, put_varint},
    context::Context,
    envelope::Caller,
    error::{DecodeError, Failed, Fault, Reject},
    function::{Function, HandlerReturn, MessageTo, Target},
    key::{Key, KeyBytes},
    message::Wire,
};

const ANSWERED: u8 = 0;
const REJECTED: u8 = 1;
const FAILED: u8 = 2;

type AnswerOf<T, M> = <<M as MessageTo<T>>::Return as HandlerReturn>::Answer;
type RejectionOf<T, M> = <<M as MessageTo<T>>::Return as HandlerReturn>::Rejection;

/// What came of a message `M` that was asked of `T`.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// # mod statefn { pub use statefn_core::*; }
/// use statefn_core::{Failed, ask::Reply, function::{MessageTo, Target}};
///
/// fn is_in_stock<T: Target, M: MessageTo<T>>(reply: &Reply<T, M>) -> bool {
///     match &reply.outcome {
///         Ok(_) => true,
///         Err(Failed::Rejected(_)) => false,
///         Err(Failed::Fault(_)) => false,
///     }
/// }
/// ```
pub struct Reply<T: Target, M: MessageTo<T>> {
    /// The key that was asked.
    pub key: T::Key,
    /// The token that the asker chose.
    pub token: u64,
    /// The answer, or why there is none.
    ///
    /// A fault means that the message was never handled: an operator has skipped it. While the key
    /// that was asked is parked there is no reply.
    pub outcome: Result<AnswerOf<T, M>, Failed<RejectionOf<T, M>>>,
    message: PhantomData<fn() -> M>,
}

impl<T: Target, M: MessageTo<T>> Reply<T, M> {
    /// A reply, for tests of the one who takes it.
    #[must_use]
    pub fn new(key: T::Key, token: u64, outcome: Result<AnswerOf<T, M>, Failed<RejectionOf<T, M>>>) -> Self {
        Self { key, token, outcome, message: PhantomData }
    }
}

impl<T: Target, M: MessageTo<T>> fmt::Debug for Reply<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = if self.outcome.is_ok() { "answered" } else { "refused" };
        write!(f, "Reply({}/{:?} {outcome}, token {})", T::NAME, self.key, self.token)
    }
}

/// What came of a call of the activity `A`.
pub struct Done<A: Activity> {
    /// The token that the caller chose.
    pub token: u64,
    /// The answer, or why there is none.
    ///
    /// A fault means that nobody knows: the activity was tried as often and as long as it may be.
    pub outcome: Result<activity::AnswerOf<A>, Failed<activity::RejectionOf<A>>>,
}

impl<A: Activity> fmt::Debug for Done<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = if self.outcome.is_ok() { "answered" } else { "refused" };
        write!(f, "Done({} {outcome}, token {})", A::NAME, self.token)
    }
}

/// Where a reply comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// A function, and the message that was asked of it.
    Function(&'static str, &'static str),
    /// An activity.
    Activity(&'static str),
}

impl Asked {
    /// The name on disk of the handler that takes the reply.
    pub(crate) fn reply_name(self) -> String {
        match self {
            Self::Function(target, message) => crate::envelope::reply_to(&format!("{target}/{message}")),
            Self::Activity(activity) => crate::envelope::reply_to(activity),
        }
    }
}

/// What a handler marked `#[on_reply]` takes: a [`Reply`] or a [`Done`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no reply",
    label = "not a reply",
    note = "a handler marked `#[on_reply]` takes `Reply<Target, Message>` or `Done<activity>`"
)]
pub trait AnyReply: Sized + Send + 'static {
    /// Where it comes from.
    const ASKED: Asked;

    /// Reads one from bytes as [`write`](Self::write) writes them.
    ///
    /// # Errors
    /// If the bytes are no such reply.
    #[doc(hidden)]
    fn read(bytes: &[u8]) -> Result<Self, DecodeError>;

    /// Appends one as [`read`](Self::read) reads it.
    #[doc(hidden)]
    fn write(&self, out: &mut Vec<u8>);
}

impl<T: Target, M: MessageTo<T>> AnyReply for Reply<T, M> {
    const ASKED: Asked = Asked::Function(T::NAME, M::NAME);

    fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (key, token, outcome) = read(bytes)?;
        Ok(Self::new(T::Key::read(key)?, token, outcome))
    }

    fn write(&self, out: &mut Vec<u8>) {
        put_head(KeyBytes::of(&self.key).get(), self.token, out);
        put_outcome(&self.outcome, out);
    }
}

impl<A: Activity> AnyReply for Done<A> {
    const ASKED: Asked = Asked::Activity(A::NAME);

    fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (_, token, outcome) = read(bytes)?;
        Ok(Self { token, outcome })
    }

    fn write(&self, out: &mut Vec<u8>) {
        put_head(&[], self.token, out);
        put_outcome(&self.outcome, out);
    }
}

/// A function's handler of replies `R`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no handler for `{R}`",
    label = "nobody would take what comes back",
    note = "add to its `#[function]` impl: `#[on_reply] fn name(&mut self, reply: {R})`"
)]
pub trait HandlesReply<R>: Function {
    /// The place of `R` among the function's replies.
    const INDEX: u16;

    /// Runs the handler.
    ///
    /// # Errors
    /// A fault parks the key.
    fn on_reply(&mut self, reply: R, ctx: &mut Context<'_, Self>) -> Result<(), Fault>;
}

/// Appends what stands before the outcome in a reply.
pub(crate) fn put_head(key: &[u8], token: u64, out: &mut Vec<u8>) {
    put_bytes(out, key);
    put_varint(out, token);
}

/// Appends an answer as the outcome of a reply.
pub(crate) fn put_answer(answer: &impl Wire, out: &mut Vec<u8>) {
    out.push(ANSWERED);
    answer.encode(out);
}

/// Appends a rejection as the outcome of a reply.
pub(crate) fn put_rejection(value: &[u8], out: &mut Vec<u8>) {
    out.push(REJECTED);
    out.extend_from_slice(value);
}

/// Appends a failure as the outcome of a reply.
pub(crate) fn put_failure(text: &str, out: &mut Vec<u8>) {
    out.push(FAILED);
    out.extend_from_slice(text.as_bytes());
}

/// Appends what came of something as the outcome of a reply.
pub(crate) fn put_outcome<A: Wire, E: Reject>(outcome: &Result<A, Failed<E>>, out: &mut Vec<u8>) {
    match outcome {
        Ok(answer) => put_answer(answer, out),
        Err(Failed::Rejected(rejection)) => {
            let mut value = Vec::new();
            rejection.encode(&mut value);
            put_rejection(&value, out);
        }
        Err(Failed::Fault(fault)) => put_failure(&fault.to_string(), out),
    }
}

fn read_outcome<A: Wire, E: Reject>(bytes: &[u8]) -> Result<Result<A, Failed<E>>, DecodeError> {
    let (tag, value) = bytes.split_first().ok_or_else(|| DecodeError::new("a reply has no outcome"))?;
    Ok(match *tag {
        ANSWERED => Ok(A::decode(value)?),
        REJECTED => Err(Failed::Rejected(E::decode(value)?)),
        FAILED => Err(Failed::Fault(Fault::new(String::from_utf8_lossy(value)))),
        other => return Err(DecodeError::new(format!("a reply has the unknown outcome {other}"))),
    })
}

type Read<'a, A, E> = (&'a [u8], u64, Result<A, Failed<E>>);

fn read<A: Wire, E: Reject>(bytes: &[u8]) -> Result<Read<'_, A, E>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let head = reader.bytes().and_then(|key| Ok((key, reader.varint()?)));
    let (key, token) = head.map_err(|error| DecodeError::new(error.to_string()))?;
    Ok((key, token, read_outcome(&bytes[reader.at()..])?))
}

/// What a handler returns that answers later: by whom [`Context::defer_reply`] was called.
#[derive(Debug)]
#[must_use = "return it from the handler: it says that the answer comes later"]
pub struct Deferred<A>(PhantomData<fn() -> A>);

impl<A> Deferred<A> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

/// One who waits for an answer `A` or a rejection `E`; it can be kept in state and sent in messages.
///
/// It is answered by [`Context::answer`], once.
pub struct ReplyTo<A, E> {
    pub(crate) to: Waiting,
    answer: PhantomData<fn() -> (A, E)>,
}

/// Who waits, and for whose answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Waiting {
    pub(crate) caller: Caller,
    /// The function that was called.
    pub(crate) function: String,
    /// The key that was called.
    pub(crate) key: Vec<u8>,
}

impl<A, E> ReplyTo<A, E> {
    pub(crate) fn new(to: Waiting) -> Self {
        Self { to, answer: PhantomData }
    }

    /// Whether nobody waits: the message was sent, not asked or called from outside.
    #[must_use]
    pub fn is_nobody(&self) -> bool {
        self.to.caller == Caller::Nobody
    }
}

impl<A, E> Clone for ReplyTo<A, E> {
    fn clone(&self) -> Self {
        Self::new(self.to.clone())
    }
}

impl<A, E> PartialEq for ReplyTo<A, E> {
    fn eq(&self, other: &Self) -> bool {
        self.to == other.to
    }
}

impl<A, E> fmt::Debug for ReplyTo<A, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = match &self.to.caller {
            Caller::Nobody => "nobody".to_owned(),
            Caller::Asker(asker) => format!("`{}`", asker.function),
            Caller::Outside(_) => "a request".to_owned(),
        };
        write!(f, "ReplyTo({who} waits for `{}`)", self.to.function)
    }
}

impl<A, E> Serialize for ReplyTo<A, E> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to.serialize(serializer)
    }
}

impl<'de, A, E> Deserialize<'de> for ReplyTo<A, E> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Waiting::deserialize(deserializer).map(Self::new)
    }
}
