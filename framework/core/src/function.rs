//! What `#[function]` prints: the traits of a function, its handlers, and what they return.
//!
//! Two families stand here. `Target`, `Accepts`, `Function`, `Handles` and `HandlesTimer` are
//! implemented by functions (by the macro, or by hand). `MessageTo`, `TargetOf`, `TimerOf` and
//! `HandledBy` say the same from the side of the message, so that the compiler infers the type
//! that the user wrote and a mistake is reported with its real name.
//!
//! The first family does not ask for `M: Message`: whoever registers or sends `M` does, and a type
//! that is no message is not reported once more for each impl that names it.

use crate::{
    ask::Deferred,
    context::Context,
    egress::EgressDeclaration,
    error::{Failed, Fault, Never, Reject},
    host::Handlers,
    key::Key,
    message::{Message, Wire},
    state::State,
};

/// Something that has addresses: a function, or the contract of one.
pub trait Target: Sized + 'static {
    /// The stable name, `namespace/name`.
    const NAME: &'static str;
    /// The names of the messages it takes, in the order of [`Accepts::INDEX`].
    const MESSAGES: &'static [&'static str];
    /// The identity of one instance.
    type Key: Key;
}

/// A target that takes messages of type `M`.
pub trait Accepts<M>: Target {
    /// What the handler returns.
    type Return: HandlerReturn;
    /// The place of `M` in [`Target::MESSAGES`].
    const INDEX: u16;
}

/// A target as `sends(..)` names it.
#[derive(Debug, Clone, Copy)]
pub struct TargetDeclaration {
    /// Its stable name.
    pub name: &'static str,
    /// The names of the messages it takes.
    pub messages: &'static [&'static str],
}

impl TargetDeclaration {
    /// The declaration of `T`.
    #[must_use]
    pub const fn of<T: Target>() -> Self {
        Self { name: T::NAME, messages: T::MESSAGES }
    }
}

/// A stateful function: the struct is the state of one key.
pub trait Function: Target + State + Default + Clone {
    /// What `sends(..)` lists, in the order of [`SendsTo::SLOT`].
    const SENDS: &'static [TargetDeclaration];

    /// What `emits(..)` lists.
    fn emits() -> Vec<EgressDeclaration>;

    /// Registers each handler, messages and timers each in the order of their `INDEX`.
    fn handlers(handlers: &mut Handlers<Self>);
}

/// Whether a handler can change anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// `&self`: it reads.
    Read,
    /// `&mut self`: it may change the state and have effects.
    Write,
}

/// A function's handler of `M`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not handle `{M}`",
    label = "`{Self}` has no handler for `{M}`",
    note = "add to its `#[function]` impl: `#[on] fn name(&mut self, msg: &{M})`"
)]
pub trait Handles<M>: Function + Accepts<M> {
    /// Whether it can change anything.
    const ACCESS: Access;
    /// Whether messages wait for the watermark and come in the order of their event time.
    const IN_EVENT_TIME_ORDER: bool;

    /// Runs the handler.
    fn handle(&mut self, msg: &mut Incoming<M>, ctx: &mut Context<'_, Self>) -> <Self as Accepts<M>>::Return;
}

/// A function's handler of timers with payload `T`.
pub trait HandlesTimer<T>: Function {
    /// The place of `T` among the function's timers.
    const INDEX: u16;

    /// Runs the handler.
    ///
    /// # Errors
    /// A fault parks the key.
    fn fire(&mut self, timer: &mut Incoming<T>, ctx: &mut Context<'_, Self>) -> Result<(), Fault>;
}

/// A function that declares `sends(T)`.
pub trait SendsTo<T: Target>: Function {
    /// The place of `T` in [`Function::SENDS`].
    const SLOT: u16;
}

/// A message that `T` takes; the other side of [`Accepts`].
#[diagnostic::on_unimplemented(
    message = "`{T}` does not handle `{Self}`",
    label = "`{T}` has no handler for this message",
    note = "add to its `#[function]` impl: `#[on] fn name(&mut self, msg: &{Self})`"
)]
#[doc(hidden)]
pub trait MessageTo<T: Target>: Message {
    const INDEX: u16;
    type Return: HandlerReturn;
}

#[diagnostic::do_not_recommend]
impl<M: Message, T: Accepts<M>> MessageTo<T> for M {
    const INDEX: u16 = <T as Accepts<M>>::INDEX;
    type Return = <T as Accepts<M>>::Return;
}

/// A target that `F` declares; the other side of [`SendsTo`].
#[diagnostic::on_unimplemented(
    message = "`{F}` does not declare that it sends to `{Self}`",
    label = "undeclared target",
    note = "add it to the attribute: `#[function(name = \"..\", sends({Self}))]`; `sends(Self)` for messages to its own kind"
)]
#[doc(hidden)]
pub trait TargetOf<F>: Target {
    const SLOT: u16;
}

#[diagnostic::do_not_recommend]
impl<T: Target, F: SendsTo<T>> TargetOf<F> for T {
    const SLOT: u16 = <F as SendsTo<T>>::SLOT;
}

/// A timer payload that `F` handles; the other side of [`HandlesTimer`].
#[diagnostic::on_unimplemented(
    message = "`{F}` has no timer handler for `{Self}`",
    label = "no handler for this timer",
    note = "add to its `#[function]` impl: `#[on_timer] fn name(&mut self, timer: &{Self})`"
)]
#[doc(hidden)]
pub trait TimerOf<F>: Message {
    const INDEX: u16;
}

#[diagnostic::do_not_recommend]
impl<T: Message, F: HandlesTimer<T>> TimerOf<F> for T {
    const INDEX: u16 = <F as HandlesTimer<T>>::INDEX;
}

/// A message with a handler in `F` itself, not only in its contract; the other side of [`Handles`].
#[diagnostic::on_unimplemented(
    message = "`{F}` does not handle `{Self}`",
    note = "add to its `#[function]` impl: `#[on] fn name(&mut self, msg: &{Self})`"
)]
#[doc(hidden)]
pub trait HandledBy<F: Function>: MessageTo<F> {
    const ORDERED: bool;
}

#[diagnostic::do_not_recommend]
impl<M: Message, F: Handles<M>> HandledBy<F> for M {
    const ORDERED: bool = <F as Handles<M>>::IN_EVENT_TIME_ORDER;
}

/// Printed by `contract!`: `F` covers the contract `Self`.
#[diagnostic::on_unimplemented(
    message = "`{F}` does not cover the contract `{Self}`",
    note = "each message of the contract needs a handler with the same answer and rejection, and the keys must be equal"
)]
pub trait Covers<F: Function>: Target {}

/// Fails to compile where `F` does not cover the contract `C`.
#[doc(hidden)]
pub const fn assert_covers<C: Covers<F>, F: Function>() {}

/// Fails to compile where two messages (or timers) of a function have one name.
///
/// # Panics
/// At compile time, if two of the names are equal.
#[doc(hidden)]
#[track_caller]
pub const fn assert_distinct(names: &[&str]) {
    let mut i = 0;
    while i < names.len() {
        let mut j = i + 1;
        while j < names.len() {
            assert!(
                !equal(names[i].as_bytes(), names[j].as_bytes()),
                "two messages of this function have one name: give one of them another `#[message(name = \"..\")]`"
            );
            j += 1;
        }
        i += 1;
    }
}

const fn equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// A message on its way into a handler; one is reused for many calls.
#[derive(Debug)]
pub struct Incoming<M>(Option<M>);

impl<M: Message> Incoming<M> {
    pub(crate) fn empty() -> Self {
        Self(None)
    }

    pub(crate) fn decode(&mut self, bytes: &[u8]) -> Result<(), crate::DecodeError> {
        match &mut self.0 {
            Some(msg) => msg.decode_into(bytes),
            None => {
                self.0 = Some(M::decode(bytes)?);
                Ok(())
            }
        }
    }
}

// Without the bound `M: Message`, so that a type that is no message is not reported here again.
impl<M> Incoming<M> {
    /// A message that is already decoded.
    pub fn new(msg: M) -> Self {
        Self(Some(msg))
    }

    /// Puts another message in its place.
    pub(crate) fn replace(&mut self, msg: M) -> Option<M> {
        self.0.replace(msg)
    }

    /// Whether it is there: it was not taken.
    pub(crate) fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// The message.
    ///
    /// # Panics
    /// If it was taken before in this call.
    pub fn get(&self) -> &M {
        self.0.as_ref().expect("a message is taken at most once for each call")
    }

    /// Takes the message out.
    ///
    /// # Panics
    /// If it was taken before in this call.
    pub fn take(&mut self) -> M {
        self.0.take().expect("a message is taken at most once for each call")
    }
}

/// What came of a call.
#[derive(Debug)]
pub enum Outcome<A, E> {
    /// The handler answered.
    Answer(A),
    /// The handler answers later.
    Deferred,
    /// The handler said no.
    Rejected(E),
    /// The handler is broken.
    Fault(Fault),
}

/// What a handler may return: an answer, or `Result<answer, error>`.
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}`",
    label = "return nothing, an answer, or `Result<answer, error>`",
    note = "an answer is `()`, a plain type, or a `#[derive(Serialize, Deserialize, Message)]` type; an error is a `#[derive(Debug, Serialize, Deserialize, Reject)]` type, `Fault` or `Failed<..>`"
)]
pub trait HandlerReturn {
    /// The answer.
    type Answer: Wire;
    /// The rejection; [`Never`] if there is none.
    type Rejection: Reject;

    /// What came of the call.
    fn into_outcome(self) -> Outcome<Self::Answer, Self::Rejection>;
}

#[diagnostic::do_not_recommend]
impl<A: Answering> HandlerReturn for A {
    type Answer = A::Answer;
    type Rejection = Never;

    fn into_outcome(self) -> Outcome<A::Answer, Never> {
        self.into_answer().map_or(Outcome::Deferred, Outcome::Answer)
    }
}

impl<A: Answering, E: Failure> HandlerReturn for Result<A, E> {
    type Answer = A::Answer;
    type Rejection = E::Rejection;

    fn into_outcome(self) -> Outcome<A::Answer, E::Rejection> {
        match self.map_err(Failure::split) {
            Ok(answer) => answer.into_answer().map_or(Outcome::Deferred, Outcome::Answer),
            Err(Failed::Rejected(rejection)) => Outcome::Rejected(rejection),
            Err(Failed::Fault(fault)) => Outcome::Fault(fault),
        }
    }
}

/// An answer, or [`Deferred`] for one that comes later.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no encoding",
    note = "add `#[derive(Serialize, Deserialize, Message)]` and `#[message(name = \"..\")]` to `{Self}`"
)]
pub trait Answering {
    /// The answer.
    type Answer: Wire;

    /// The answer, if it is given now.
    fn into_answer(self) -> Option<Self::Answer>;
}

#[diagnostic::do_not_recommend]
impl<A: Wire> Answering for A {
    type Answer = A;

    fn into_answer(self) -> Option<A> {
        Some(self)
    }
}

impl<A: Wire> Answering for Deferred<A> {
    type Answer = A;

    fn into_answer(self) -> Option<A> {
        None
    }
}

/// An error of a handler: a rejection, [`Fault`], or [`Failed`] for both.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error of a handler",
    note = "add `#[derive(Debug, Serialize, Deserialize, Reject)]` to `{Self}`, or return `Fault` or `Failed<..>`"
)]
pub trait Failure {
    /// The rejection; [`Never`] if there is none.
    type Rejection: Reject;

    /// Which of the two it is.
    fn split(self) -> Failed<Self::Rejection>;
}

impl<E: Reject> Failure for E {
    type Rejection = E;

    fn split(self) -> Failed<E> {
        Failed::Rejected(self)
    }
}

impl Failure for Fault {
    type Rejection = Never;

    fn split(self) -> Failed<Never> {
        Failed::Fault(self)
    }
}

impl<E: Reject> Failure for Failed<E> {
    type Rejection = E;

    fn split(self) -> Self {
        self
    }
}

/// What a handler of timers or replies may return: nothing, or `Result<(), Fault>`.
#[diagnostic::on_unimplemented(
    message = "a handler of timers or replies cannot return `{Self}`",
    label = "return nothing or `Result<(), Fault>`",
    note = "nobody waits for its answer, so it cannot reject: send or emit what is to be said"
)]
pub trait TimerReturn {
    /// What came of the call.
    ///
    /// # Errors
    /// A fault parks the key.
    fn into_result(self) -> Result<(), Fault>;
}

impl TimerReturn for () {
    fn into_result(self) -> Result<(), Fault> {
        Ok(())
    }
}

impl TimerReturn for Result<(), Fault> {
    fn into_result(self) -> Self {
        self
    }
}
