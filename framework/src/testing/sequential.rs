//! What a function answers if its calls come one after the other, to compare a world with.
//!
//! Invariant: a call that is rejected changes nothing, as in the framework.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use statefn_core::{
    Address, Key, Wire,
    function::{HandlerReturn, MessageTo, Outcome, Target},
    shard::Reply,
};
use statefn_sim::{
    linear::{self, Model, Operation},
    workload::Asked,
};

use super::decode;

/// What one kind of call does to a state, and says.
type Step<S> = Box<dyn Fn(&mut S, &Call) -> Said>;
/// The message that one kind of call sends on: key, name and bytes.
type Sent = Box<dyn Fn(&[u8]) -> (Vec<u8>, &'static str, Vec<u8>)>;

/// What the keys of a function answer if calls come one after the other, each on a state that begins
/// with its default; for [`Simulation::linearizable`](super::Simulation::linearizable).
///
/// It is a second, simpler program that says what the first one should. Answers are compared as they
/// are encoded.
///
/// # Examples
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use statefn::{prelude::*, testing::{Sequential, simulate}};
///
/// #[derive(Default, Clone, Serialize, Deserialize, State)]
/// struct Account { cents: u64 }
///
/// #[derive(Clone, Serialize, Deserialize, Message)] #[message(name = "pay-in")]
/// struct PayIn { cents: u64 }
///
/// #[derive(Clone, Serialize, Deserialize, Message)] #[message(name = "pay")]
/// struct Pay { to: String, cents: u64 }
///
/// #[derive(Debug, Serialize, Deserialize, Reject)] #[reject(code = "poor")]
/// struct Poor {}
///
/// #[function(name = "bank/account", sends(Self))]
/// impl Account {
///     #[on]
///     fn pay_in(&mut self, msg: &PayIn) -> u64 {
///         self.cents += msg.cents;
///         self.cents
///     }
///     #[on]
///     fn pay(&mut self, msg: &Pay, ctx: &mut Context<Self>) -> Result<u64, Poor> {
///         self.cents = self.cents.checked_sub(msg.cents).ok_or(Poor {})?;
///         ctx.send(Account::at(&msg.to), PayIn { cents: msg.cents });
///         Ok(self.cents)
///     }
/// }
///
/// let account = Sequential::<Account, u64>::new()
///     .on(|held, msg: &PayIn, _| { *held += msg.cents; *held })
///     .on(|held, msg: &Pay, _| { *held = held.checked_sub(msg.cents).ok_or(Poor {})?; Ok(*held) })
///     .sends(|msg: &Pay| (Account::at(&msg.to), PayIn { cents: msg.cents }));
/// let report = simulate(|| App::new("bank").function::<Account>())
///     .seeds(10)
///     .requests(|random| (0..15).map(|_| (Account::at("ada"), PayIn { cents: random.below(100) })).collect())
///     .requests(|random| {
///         let mut pay = || Pay { to: random.one_of(&["bob", "ada"]).into(), cents: random.below(90) };
///         (0..15).map(|_| (Account::at("ada"), pay())).collect()
///     })
///     .linearizable(account)
///     .run();
/// assert!(report.answers > 50);
/// ```
pub struct Sequential<T: Target, S> {
    steps: BTreeMap<&'static str, Step<S>>,
    sends: BTreeMap<&'static str, Sent>,
    target: PhantomData<fn() -> T>,
}

impl<T: Target, S: Default + Clone + Ord + fmt::Debug> Sequential<T, S> {
    /// Nothing is known of any call.
    #[must_use]
    pub fn new() -> Self {
        Self { steps: BTreeMap::new(), sends: BTreeMap::new(), target: PhantomData }
    }

    /// Says what a call does to the state of a key, and answers; what a call that it rejects does is forgotten.
    #[must_use]
    pub fn on<M: MessageTo<T>>(mut self, answers: impl Fn(&mut S, &M, &T::Key) -> M::Return + 'static) -> Self {
        let step = move |state: &mut S, call: &Call| {
            let key = T::Key::read(&call.key);
            let key = key.unwrap_or_else(|error| panic!("a key does not survive its own encoding: {error}"));
            match answers(state, &decode(&call.payload), &key).into_outcome() {
                Outcome::Answer(answer) => Said::Answered(encoded(&answer)),
                Outcome::Deferred => panic!("a sequential function answers at once"),
                Outcome::Rejected(rejection) => Said::Rejected(encoded(&rejection)),
                Outcome::Fault(fault) => panic!("a sequential function is never broken: {fault}"),
            }
        };
        self.steps.insert(M::NAME, Box::new(step));
        self
    }

    /// Says that a call that is not rejected sends a message to a key of the same function, which comes
    /// at any time behind the begin of that call.
    #[must_use]
    pub fn sends<M: MessageTo<T>, N: MessageTo<T>>(mut self, sends: impl Fn(&M) -> (Address<T>, N) + 'static) -> Self {
        let sent = move |payload: &[u8]| {
            let (to, msg) = sends(&decode(payload));
            (to.key().to_vec(), N::NAME, encoded(&msg))
        };
        self.sends.insert(M::NAME, Box::new(sent));
        self
    }

    /// Compares what clients saw with it, key by key.
    pub(super) fn check(&self, history: &[Operation<Asked, Reply>]) -> Result<(), String> {
        let mut keys = BTreeMap::<Vec<u8>, Vec<Operation<Call, Reply>>>::new();
        for request in history.iter().filter(|request| request.call.function == T::NAME) {
            let Asked { key, message, payload, .. } = &request.call;
            let has_no_effect = matches!(request.ended, Some((_, Reply::Rejected(_) | Reply::Failed(_))));
            if let Some(sends) = self.sends.get(message).filter(|_| !has_no_effect) {
                let (to, message, payload) = sends(payload);
                let call = Call { key: to.clone(), message, payload };
                keys.entry(to).or_default().push(Operation { call, begun: request.begun, ended: None });
            }
            let call = Call { key: key.clone(), message, payload: payload.clone() };
            let operation = Operation { call, begun: request.begun, ended: request.ended.clone() };
            keys.entry(key.clone()).or_default().push(operation);
        }
        let check = |(key, history): (&Vec<u8>, &Vec<_>)| {
            linear::check(&Sequentially(self), history)
                .map_err(|error| format!("`{}` {}: {error}", T::NAME, String::from_utf8_lossy(key)))
        };
        keys.iter().try_for_each(check)
    }
}

impl<T: Target, S: Default + Clone + Ord + fmt::Debug> Default for Sequential<T, S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Target, S> fmt::Debug for Sequential<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sequential({}, {:?})", T::NAME, self.steps.keys())
    }
}

/// What a model says to a call.
enum Said {
    Answered(Vec<u8>),
    Rejected(Vec<u8>),
}

/// A call of one key.
struct Call {
    key: Vec<u8>,
    message: &'static str,
    payload: Vec<u8>,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.message, String::from_utf8_lossy(&self.payload))
    }
}

/// One key of a function, as the checker of histories wants it.
struct Sequentially<'a, T: Target, S>(&'a Sequential<T, S>);

impl<T: Target, S: Default + Clone + Ord + fmt::Debug> Model for Sequentially<'_, T, S> {
    type State = S;
    type Call = Call;
    type Answer = Reply;

    fn begin(&self) -> S {
        S::default()
    }

    fn step(&self, state: &S, call: &Call, answer: Option<&Reply>) -> Option<S> {
        let step = self.0.steps.get(call.message);
        let step =
            step.unwrap_or_else(|| panic!("`Sequential` does not know `{}`: add `.on(..)` for it", call.message));
        let mut next = state.clone();
        let said = step(&mut next, call);
        let is_so = match (&said, answer) {
            (_, None) => true,
            (Said::Answered(says), Some(Reply::Answered(answer))) => says == answer,
            (Said::Rejected(says), Some(Reply::Rejected(rejection))) => *says == rejection.value,
            // A key that is parked, or that a fault parks now: nothing was done.
            (_, Some(Reply::Failed(_))) => return Some(state.clone()),
            _ => false,
        };
        let leaves = || if matches!(said, Said::Answered(_)) { next } else { state.clone() };
        is_so.then(leaves)
    }
}

fn encoded(value: &impl Wire) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.encode(&mut bytes);
    bytes
}
