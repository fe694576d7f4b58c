//! Activities: calls to the outside that a handler asks for, made by async code after the commit.
//!
//! A call stands in the state of the shard from the frame that asked for it until the frame that has
//! its result. So it is begun only when the frame that asked for it is committed, it is begun again
//! after a crash, and its result counts once. Outside it may be done more than once: each attempt
//! has the same [`ActivityContext::id`], which is what a payment service wants as its idempotency key.
//!
//! Invariant: a result without its call in the state is dropped.
//!
//! Deliberately absent here: how attempts are made; that is the runtime's.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use crate::{
    ask::{put_failure, put_outcome},
    context::Resources,
    error::{DecodeError, Failed, Fault, Never, Reject},
    message::Wire,
};

/// How often, how long and how many at a time an activity is tried.
///
/// ```
/// use std::time::Duration;
/// use statefn_core::activity::Policy;
/// const PATIENT: Policy = Policy::new().attempts_max(5).give_up_after(Duration::from_secs(60));
/// assert_eq!(PATIENT.attempts_max, 5);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How many attempts a process makes of a call, at most; 0 for as many as there is time for.
    pub attempts_max: u32,
    /// How long an attempt may take, in milliseconds; one that takes longer has failed.
    pub attempt_time_max_ms: u64,
    /// How long after the first failed attempt the next one begins, in milliseconds; then twice as
    /// long each time.
    pub back_off_ms: u64,
    /// How long it is between two attempts at most, in milliseconds.
    pub back_off_max_ms: u64,
    /// How long after it was asked for a call is given up, in milliseconds; no attempt begins later.
    pub give_up_after_ms: u64,
    /// How many calls a process makes at a time.
    pub concurrency_max: usize,
}

impl Policy {
    /// The policy of an activity that has none of its own: attempts of 30 s at most, a back-off from
    /// 100 ms to a minute, for a day, 64 calls at a time.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            attempts_max: 0,
            attempt_time_max_ms: 30_000,
            back_off_ms: 100,
            back_off_max_ms: 60_000,
            give_up_after_ms: 24 * 60 * 60 * 1_000,
            concurrency_max: 64,
        }
    }

    /// The same with so many attempts at most; 0 for as many as there is time for.
    #[must_use]
    pub const fn attempts_max(self, attempts_max: u32) -> Self {
        Self { attempts_max, ..self }
    }

    /// The same with attempts that may take so long.
    #[must_use]
    pub const fn attempt_time_max(self, time: std::time::Duration) -> Self {
        Self { attempt_time_max_ms: time.as_millis() as u64, ..self }
    }

    /// The same with so long between the first two attempts, and at most so long between others.
    #[must_use]
    pub const fn back_off(self, first: std::time::Duration, max: std::time::Duration) -> Self {
        Self { back_off_ms: first.as_millis() as u64, back_off_max_ms: max.as_millis() as u64, ..self }
    }

    /// The same, given up so long after it was asked for.
    #[must_use]
    pub const fn give_up_after(self, time: std::time::Duration) -> Self {
        Self { give_up_after_ms: time.as_millis() as u64, ..self }
    }

    /// The same with so many calls at a time; at least one is made.
    #[must_use]
    pub const fn concurrency_max(self, concurrency_max: usize) -> Self {
        Self { concurrency_max, ..self }
    }

    /// How long to wait behind the `attempt`th attempt, from 1, in milliseconds, before jitter.
    #[must_use]
    pub const fn back_off_behind(&self, attempt: u32) -> u64 {
        let doublings = if attempt > 20 { 20 } else { attempt.saturating_sub(1) };
        let wait = self.back_off_ms.saturating_mul(1 << doublings);
        if wait < self.back_off_max_ms { wait } else { self.back_off_max_ms }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::new()
    }
}

/// Async code that calls the outside; printed by `#[activity]`.
pub trait Activity: fmt::Debug + Send + Sync + 'static {
    /// The stable name, `namespace/name`.
    const NAME: &'static str;
    /// How often and how long it is tried.
    const POLICY: Policy;
    /// What it is given.
    type Call: Wire;
    /// What an attempt returns: what it answers, and how it says no.
    type Return: ActivityReturn;

    /// Makes one attempt.
    fn attempt(call: Self::Call, ctx: ActivityContext) -> impl Future<Output = Self::Return> + Send;
}

/// What the activity `A` answers.
pub type AnswerOf<A> = <<A as Activity>::Return as ActivityReturn>::Answer;
/// How the activity `A` says no.
pub type RejectionOf<A> = <<A as Activity>::Return as ActivityReturn>::Rejection;

/// What an activity knows of the call that it makes.
#[derive(Debug, Clone)]
pub struct ActivityContext {
    id: String,
    attempt: u32,
    traceparent: Option<String>,
    resources: Resources,
}

impl ActivityContext {
    /// The context of an attempt, from 1, of the call with this identity.
    #[must_use]
    pub fn new(id: String, attempt: u32, traceparent: Option<String>) -> Self {
        Self { id, attempt, traceparent, resources: Resources::default() }
    }

    /// The same with what [`resource`](Self::resource) is to find.
    #[must_use]
    pub fn with_resources(self, resources: Resources) -> Self {
        Self { resources, ..self }
    }

    /// A value that was given to `App::resource`, such as a client of the outside.
    ///
    /// # Panics
    /// If the app has none of this type; the attempt has then failed.
    #[must_use]
    pub fn resource<R: 'static>(&self) -> &R {
        self.resources.get().unwrap_or_else(|| {
            panic!("no resource {0} in this app: add `.resource::<{0}>(..)`", std::any::type_name::<R>())
        })
    }

    /// The identity of the call: the same for each attempt, also after a crash, and of no other call
    /// of this app. Give it to the outside as the idempotency key.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Which attempt of this process it is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The W3C `traceparent` to give to the outside, if the call is part of a trace.
    #[must_use]
    pub fn traceparent(&self) -> Option<&str> {
        self.traceparent.as_deref()
    }
}

/// An attempt that failed in a way that may pass: the next one may succeed.
///
/// Any error converts into it by `?`.
///
/// ```
/// use statefn_core::activity::TryAgain;
/// fn parse(text: &str) -> Result<u64, TryAgain> { Ok(text.parse()?) }
/// assert_eq!(parse("x").unwrap_err().to_string(), "invalid digit found in string");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TryAgain(String);

impl TryAgain {
    /// A failure with this text.
    pub fn new(text: impl fmt::Display) -> Self {
        Self(text.to_string())
    }
}

impl fmt::Display for TryAgain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for TryAgain {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}

/// Why an attempt has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotDone<E> {
    /// The outside said no: that is the result.
    Rejected(E),
    /// The next attempt may succeed.
    TryAgain(TryAgain),
}

impl<E: Reject> From<E> for NotDone<E> {
    fn from(rejection: E) -> Self {
        Self::Rejected(rejection)
    }
}

impl<E> From<TryAgain> for NotDone<E> {
    fn from(again: TryAgain) -> Self {
        Self::TryAgain(again)
    }
}

/// What an activity may return: `Result<answer, error>`, the error a rejection, [`TryAgain`], or
/// [`NotDone`] for both.
#[diagnostic::on_unimplemented(
    message = "an activity cannot return `{Self}`",
    label = "return `Result<answer, error>`",
    note = "an answer is `()`, a plain type, or a `#[derive(Serialize, Deserialize, Message)]` type; an error is a `#[derive(Debug, Serialize, Deserialize, Reject)]` type, `TryAgain` or `NotDone<..>`"
)]
pub trait ActivityReturn {
    /// The answer.
    type Answer: Wire;
    /// The rejection; [`Never`] if there is none.
    type Rejection: Reject;

    /// What came of the attempt.
    ///
    /// # Errors
    /// Why there is no answer.
    fn into_outcome(self) -> Result<Self::Answer, NotDone<Self::Rejection>>;
}

impl<A: Wire, E: AttemptError> ActivityReturn for Result<A, E> {
    type Answer = A;
    type Rejection = E::Rejection;

    fn into_outcome(self) -> Result<A, NotDone<E::Rejection>> {
        self.map_err(AttemptError::split)
    }
}

/// An error of an activity: a rejection, [`TryAgain`], or [`NotDone`] for both.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error of an activity",
    note = "add `#[derive(Debug, Serialize, Deserialize, Reject)]` to `{Self}`, or return `TryAgain` or `NotDone<..>`"
)]
pub trait AttemptError {
    /// The rejection; [`Never`] if there is none.
    type Rejection: Reject;

    /// Which of the two it is.
    fn split(self) -> NotDone<Self::Rejection>;
}

#[diagnostic::do_not_recommend]
impl<E: Reject> AttemptError for E {
    type Rejection = E;

    fn split(self) -> NotDone<E> {
        NotDone::Rejected(self)
    }
}

impl AttemptError for TryAgain {
    type Rejection = Never;

    fn split(self) -> NotDone<Never> {
        NotDone::TryAgain(self)
    }
}

impl<E: Reject> AttemptError for NotDone<E> {
    type Rejection = E;

    fn split(self) -> Self {
        self
    }
}

/// The encoded result of a call of an activity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallOutcome(pub(crate) Vec<u8>);

impl CallOutcome {
    /// The result that this answer or rejection is.
    #[must_use]
    pub fn of<A: Wire, E: Reject>(outcome: &Result<A, Failed<E>>) -> Self {
        let mut bytes = Vec::new();
        put_outcome(outcome, &mut bytes);
        Self(bytes)
    }

    /// The result that an attempt has brought.
    ///
    /// # Errors
    /// If it is to be tried again.
    pub fn of_attempt<A: Wire, E: Reject>(attempted: Result<A, NotDone<E>>) -> Result<Self, TryAgain> {
        match attempted {
            Ok(answer) => Ok(Self::of::<A, E>(&Ok(answer))),
            Err(NotDone::Rejected(rejection)) => Ok(Self::of::<A, E>(&Err(Failed::Rejected(rejection)))),
            Err(NotDone::TryAgain(again)) => Err(again),
        }
    }

    /// The result of a call that was given up.
    #[must_use]
    pub fn given_up(text: &str) -> Self {
        let mut bytes = Vec::new();
        put_failure(text, &mut bytes);
        Self(bytes)
    }
}

/// What came of one attempt, without types.
pub type Attempted = Pin<Box<dyn Future<Output = Result<CallOutcome, TryAgain>> + Send>>;

type Attempt = Arc<dyn Fn(&[u8], ActivityContext) -> Result<Attempted, DecodeError> + Send + Sync>;

/// An activity without its type.
#[derive(Clone)]
pub struct ErasedActivity {
    /// Its stable name.
    pub name: &'static str,
    /// How often and how long it is tried.
    pub policy: Policy,
    attempt: Attempt,
}

impl ErasedActivity {
    /// The activity `A`.
    #[must_use]
    pub fn of<A: Activity>() -> Self {
        let attempt = |call: &[u8], ctx| {
            let attempted = A::attempt(A::Call::decode(call)?, ctx);
            let attempted: Attempted = Box::pin(async { CallOutcome::of_attempt(attempted.await.into_outcome()) });
            Ok(attempted)
        };
        Self { name: A::NAME, policy: A::POLICY, attempt: Arc::new(attempt) }
    }

    /// A stand-in for the activity `A`, for tests.
    #[must_use]
    pub fn stand_in<A: Activity>(
        stand_in: impl Fn(A::Call, ActivityContext) -> Result<AnswerOf<A>, NotDone<RejectionOf<A>>> + Send + Sync + 'static,
    ) -> Self {
        let attempt = move |call: &[u8], ctx| {
            let told = CallOutcome::of_attempt(stand_in(A::Call::decode(call)?, ctx));
            let attempted: Attempted = Box::pin(std::future::ready(told));
            Ok(attempted)
        };
        Self { name: A::NAME, policy: A::POLICY, attempt: Arc::new(attempt) }
    }

    /// Begins an attempt.
    ///
    /// # Errors
    /// If the bytes are not what the activity is given.
    pub fn attempt(&self, call: &[u8], ctx: ActivityContext) -> Result<Attempted, DecodeError> {
        (self.attempt)(call, ctx)
    }
}

impl fmt::Debug for ErasedActivity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ErasedActivity({})", self.name)
    }
}

/// The fault that a call has whose argument cannot be read.
impl From<DecodeError> for CallOutcome {
    fn from(error: DecodeError) -> Self {
        Self::given_up(&Fault::new(error).to_string())
    }
}
