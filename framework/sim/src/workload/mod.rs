//! Workloads: a program, its input, and the answers it must give.
//!
//! The answers are computed from the whole input by other code than the core's. Functions are
//! written by hand against the traits of `core::function`; the macros here only save the repeats.
//!
//! Invariant: a workload is decided by its seed and does not change while its world runs.

#[macro_use]
mod function;

mod bank;
mod calls;
mod faults;
mod orders;
mod ring;
mod sends;
mod timers;
mod trees;

use std::{fmt, str::FromStr, sync::Arc};

use statefn_core::{
    activity::{CallOutcome, TryAgain},
    ingress::ErasedIngress,
    program::{Program, ProgramSpec},
    shard::{ActivityCall, Answer, Reply},
    state::State,
};

use crate::{check::Audit, linear::Operation, random::Random};

/// Links an ingress to a program.
pub type Bind = Box<dyn FnOnce(&Program) -> Arc<dyn ErasedIngress>>;

/// What a world runs.
pub struct Setup {
    /// The program.
    pub program: ProgramSpec,
    /// Its ingresses, in the order of the program.
    pub ingresses: Vec<Bind>,
    /// By ingress and partition, the records; of a generator, their numbers as [`number_record`] has them.
    pub inputs: Vec<Vec<Vec<Vec<u8>>>>,
}

/// What stands for record `number` of an ingress that makes its records itself.
#[must_use]
pub fn number_record(number: u64) -> Vec<u8> {
    number.to_le_bytes().to_vec()
}

/// A call from outside whose answer is wanted.
#[derive(Clone)]
pub struct Asked {
    /// The function's name.
    pub function: &'static str,
    /// The message's name.
    pub message: &'static str,
    /// The key's bytes.
    pub key: Vec<u8>,
    /// The encoded message.
    pub payload: Vec<u8>,
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { function, message, key, payload } = self;
        let (key, payload) = (String::from_utf8_lossy(key), String::from_utf8_lossy(payload));
        write!(f, "{function} {key}, {message} {payload}")
    }
}

/// How a world ended.
pub struct End<'a> {
    /// The program.
    pub program: &'a Program,
    /// What was committed; every egress has exactly that.
    pub audit: &'a Audit,
    /// The answers that were given.
    pub answers: &'a [Told],
    /// By request: when clients have asked, and what they were answered first.
    pub history: &'a [Operation<Asked, Reply>],
}

/// An answer that a client was given.
#[derive(Debug, Clone)]
pub struct Told {
    /// The answer.
    pub answer: Answer,
    /// How many answers had been given to anybody before this was asked.
    pub known: usize,
}

/// A program, its input, and the answers it must give.
pub trait Workload {
    /// The program and its input.
    fn setup(&self) -> Setup;

    /// The call that a client makes now; its message bears `id`.
    fn request(&self, random: &mut Random, id: u64) -> Option<Asked> {
        let _ = (random, id);
        None
    }

    /// Makes an attempt of an activity, which the outside may have done before.
    ///
    /// # Errors
    /// Why it is to be tried again.
    fn attempt(&self, call: &ActivityCall, attempt: u32) -> Result<CallOutcome, TryAgain> {
        let _ = attempt;
        panic!("this workload has no activity `{}`", call.activity)
    }

    /// Whether it is a service: event time follows the clock, and its input never ends.
    fn is_live(&self) -> bool {
        false
    }

    /// Whether parked keys are made to go on.
    fn unparks(&self) -> Unparks {
        Unparks::Never
    }

    /// How long time goes on after everything is done, in milliseconds: for timers that wait for
    /// the clock, which nothing else waits for.
    fn lingers_ms(&self) -> i64 {
        0
    }

    /// After how many committed frames [`Self::check_running`] looks again.
    fn frames_between_checks(&self) -> u64 {
        25
    }

    /// Looks at what is committed while the world runs.
    ///
    /// # Errors
    /// What is wrong.
    fn check_running(&self, program: &Program, audit: &Audit) -> Result<(), String> {
        let _ = (program, audit);
        Ok(())
    }

    /// Looks at an answer when it is given, beside what is committed then.
    ///
    /// # Errors
    /// What is wrong.
    fn check_answer(&self, program: &Program, audit: &Audit, answer: &Answer) -> Result<(), String> {
        let _ = (program, audit, answer);
        Ok(())
    }

    /// Asks once for each record of the input, in order, whether it is kept, and drops the others as if
    /// they had never been there; a workload that cannot do without one keeps it.
    fn keep_records(&mut self, keeps: &mut dyn FnMut() -> bool) {
        let _ = keeps;
    }

    /// What a worker that starts runs, made anew with everything that it holds in memory beside
    /// states; `None` if all workers may share what [`Self::setup`] has made.
    fn process(&self) -> Option<(ProgramSpec, Vec<Bind>)> {
        None
    }

    /// Whether the records of an ingress are numbers for its generator; see [`number_record`].
    fn generates(&self, ingress: &str) -> bool {
        let _ = ingress;
        false
    }

    /// Is told what happens: at which step, how many milliseconds after the beginning, and what.
    fn tell(&self, step: u64, ms: i64, what: fmt::Arguments<'_>) {
        let _ = (step, ms, what);
    }

    /// Looks at what is committed in the end.
    ///
    /// # Errors
    /// What is wrong.
    fn check_end(&self, end: &End<'_>) -> Result<(), String>;
}

/// Whether parked keys of a world are made to go on, retried or skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unparks {
    /// They stay parked.
    Never,
    /// They are as long as there are faults.
    InTrouble,
    /// They are, and in the end until none is parked.
    UntilNone,
}

/// The workloads by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Transfers between accounts; money is conserved.
    Bank,
    /// Numbered messages between keys; none is lost, doubled or reordered.
    Sends,
    /// Timers and event-time order in two stages; everything comes in the order of time.
    Timers,
    /// The same within a cycle and behind it.
    Ring,
    /// Rejections, faults and panics; other keys do not notice.
    Faults,
    /// Sagas that ask, call the outside and answer later; nothing is done twice or half.
    Orders,
    /// Random trees of commands; a model adds up what each key must hold.
    Trees,
    /// Clients of a service alone: what they are answered is linearizable, for each key.
    Calls,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Bank, Self::Sends, Self::Timers, Self::Ring, Self::Faults, Self::Orders, Self::Trees, Self::Calls];

    /// The workload of a seed.
    #[must_use]
    pub fn build(self, seed: u64) -> Box<dyn Workload> {
        let mut random = Random::new(seed ^ 0x776f_726b);
        match self {
            Self::Bank => Box::new(bank::Bank::new(&mut random)),
            Self::Sends => Box::new(sends::Sends::new(&mut random)),
            Self::Timers => Box::new(timers::Timers::new(&mut random)),
            Self::Ring => Box::new(ring::Chains::new(&mut random)),
            Self::Faults => Box::new(faults::Faults::new(&mut random)),
            Self::Orders => Box::new(orders::Orders::new(&mut random)),
            Self::Trees => Box::new(trees::Trees::new(&mut random)),
            Self::Calls => Box::new(calls::Calls::new(&mut random)),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Bank => "bank",
            Self::Sends => "sends",
            Self::Timers => "timers",
            Self::Ring => "ring",
            Self::Faults => "faults",
            Self::Orders => "orders",
            Self::Trees => "trees",
            Self::Calls => "calls",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| {
            format!("unknown workload `{text}`; supported workloads are: {}", Self::ALL.map(Self::name).join(", "))
        })
    }
}

/// The committed states of one function, by key.
fn states_of<F: State>(audit: &Audit, name: &str) -> Result<Vec<(String, F)>, String> {
    let of_function = audit.states().filter(|(function, ..)| *function == name);
    let decoded = of_function.map(|(_, key, state)| {
        let state = F::decode_state(state).map_err(|error| error.to_string())?;
        Ok((String::from_utf8_lossy(key).into_owned(), state))
    });
    decoded.collect()
}

/// Compares what was found with what a model says.
fn same<T: PartialEq + fmt::Debug>(what: impl fmt::Display, found: &T, expected: &T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: found {found:?}, expected {expected:?}")) }
}
