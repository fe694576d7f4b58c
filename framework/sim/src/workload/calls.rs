//! A service that clients alone use: registers that are added to, swapped and read.
//!
//! What must hold: the answers of each register are linearizable, those of requests that were asked
//! again included; each addition that was done has left one note, in the order of event time, and one
//! timer, which fires by the clock and not before it is due.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use statefn_core::{
    Address, Context, EventTime, Message, Reject, Wire,
    function::Target,
    program::{FunctionSpec, Program, ProgramSpec},
    shard::Reply,
};

use super::{Asked, End, Setup, Workload, same, states_of};
use crate::{
    check::Audit,
    linear::{self, Model, Operation},
    random::Random,
};

/// How far ahead timers are set at most.
const TIMER_MS_MAX: u64 = 2_000;
/// How long time goes on for timers and notes that wait for it: clocks that jumped ahead have to be caught
/// up with, and event time follows the clock once a second without traffic.
const LINGER_MS: i64 = 12_000;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Add {
    by: i64,
    timer_ms: u64,
    notes: String,
}
message!(Add, "add");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Swap {
    from: i64,
    to: i64,
}
message!(Swap, "swap");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Get {}
message!(Get, "get");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Due {
    at: i64,
}
message!(Due, "due");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Note {}
message!(Note, "note");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Differs {
    value: i64,
}

impl Wire for Differs {
    fn encode(&self, out: &mut Vec<u8>) {
        statefn_core::message::encode_json(self, out);
    }
    fn decode(bytes: &[u8]) -> Result<Self, statefn_core::DecodeError> {
        statefn_core::message::decode_json(bytes)
    }
}

impl Reject for Differs {
    fn code(&self) -> &'static str {
        "differs"
    }
    fn status(&self) -> u16 {
        409
    }
}

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Register {
    value: i64,
    additions: u64,
    fired: u64,
    fired_early: u64,
}

function! {
    Register, "sim/register",
    on {
        0 plain Add -> i64: add,
        1 plain Swap -> Result<(), Differs>: swap,
        2 read Get -> i64: value,
    }
    timers { 0 Due: due }
    sends { 0 Notes }
    emits {}
}

impl Register {
    fn add(&mut self, msg: &Add, ctx: &mut Context<'_, Self>) -> i64 {
        self.value += msg.by;
        self.additions += 1;
        let at = ctx.event_time() + Duration::from_millis(msg.timer_ms);
        ctx.set_timer(at, Due { at: at.0 });
        ctx.send(Address::<Notes>::new(&*msg.notes), Note {});
        self.value
    }

    fn swap(&mut self, msg: &Swap, _: &mut Context<'_, Self>) -> Result<(), Differs> {
        let value = std::mem::replace(&mut self.value, msg.to);
        if value == msg.from { Ok(()) } else { Err(Differs { value }) }
    }

    fn value(&self, _: &Get, _: &Context<'_, Self>) -> i64 {
        self.value
    }

    fn due(&mut self, timer: &Due, ctx: &mut Context<'_, Self>) {
        self.fired += 1;
        self.fired_early += u64::from(ctx.event_time() < EventTime(timer.at));
    }
}

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Notes {
    count: u64,
    last_at: i64,
    behind: u64,
}

function! {
    Notes, "sim/notes",
    on { 0 ordered Note -> (): note }
    timers {}
    sends {}
    emits {}
}

impl Notes {
    fn note(&mut self, _: &Note, ctx: &mut Context<'_, Self>) {
        self.count += 1;
        let at = ctx.event_time().0;
        self.behind += u64::from(at < self.last_at);
        self.last_at = at;
    }
}

/// What a register was asked.
#[derive(Debug, Clone, Copy)]
enum Call {
    Add(i64),
    Swap(i64, i64),
    Get,
}

/// What it said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Holds(i64),
    Swapped,
    Differs(i64),
    /// A mutant says that nothing was done.
    Nothing,
}

/// What a register says if its calls come one after the other.
struct Sequential;

impl Model for Sequential {
    type State = i64;
    type Call = Call;
    type Answer = Said;

    fn begin(&self) -> i64 {
        0
    }

    fn step(&self, value: &i64, call: &Call, answer: Option<&Said>) -> Option<i64> {
        if answer == Some(&Said::Nothing) {
            return Some(*value);
        }
        let (next, says) = match *call {
            Call::Add(by) => (value + by, Said::Holds(value + by)),
            Call::Swap(from, to) if from == *value => (to, Said::Swapped),
            Call::Swap(..) => (*value, Said::Differs(*value)),
            Call::Get => (*value, Said::Holds(*value)),
        };
        answer.is_none_or(|answer| *answer == says).then_some(next)
    }
}

/// A request as an operation of its register.
fn operation(of: &Operation<Asked, Reply>) -> Operation<Call, Said> {
    let call = match of.call.message {
        Add::NAME => Call::Add(read::<Add>(&of.call.payload).by),
        Swap::NAME => {
            let Swap { from, to } = read(&of.call.payload);
            Call::Swap(from, to)
        }
        _ => Call::Get,
    };
    let said = |reply: &Reply| match reply {
        Reply::Answered(_) if matches!(call, Call::Swap(..)) => Said::Swapped,
        Reply::Answered(bytes) => Said::Holds(read(bytes)),
        Reply::Rejected(rejection) => Said::Differs(read::<Differs>(&rejection.value).value),
        Reply::Failed(_) | Reply::Taken | Reply::State(_) | Reply::Resumed { .. } | Reply::Deferred => Said::Nothing,
    };
    Operation { call, begun: of.begun, ended: of.ended.as_ref().map(|(at, reply)| (*at, said(reply))) }
}

fn read<T: Wire>(bytes: &[u8]) -> T {
    T::decode(bytes).unwrap_or_else(|error| panic!("what the workload has written: {error}"))
}

/// See the module.
pub(super) struct Calls {
    registers: u64,
    reads_per_mille: u32,
    swaps_per_mille: u32,
}

impl Calls {
    pub(super) fn new(random: &mut Random) -> Self {
        Self {
            registers: random.between(1, 8) as u64,
            reads_per_mille: random.between(100, 600) as u32,
            swaps_per_mille: random.between(0, 300) as u32,
        }
    }
}

impl Workload for Calls {
    fn setup(&self) -> Setup {
        let program = ProgramSpec {
            app: "calls".into(),
            functions: vec![FunctionSpec::of::<Register>(), FunctionSpec::of::<Notes>()],
            ..ProgramSpec::default()
        };
        Setup { program, ingresses: Vec::new(), inputs: Vec::new() }
    }

    fn is_live(&self) -> bool {
        true
    }

    fn lingers_ms(&self) -> i64 {
        LINGER_MS
    }

    fn request(&self, random: &mut Random, _: u64) -> Option<Asked> {
        let key = format!("register-{}", random.below(self.registers)).into_bytes();
        let (message, payload) = if random.chance(self.reads_per_mille) {
            (Get::NAME, encoded(&Get {}))
        } else if random.chance(self.swaps_per_mille) {
            // Only at first, and behind another swap, are these what the register holds.
            (Swap::NAME, encoded(&Swap { from: random.between(0, 3), to: random.between(0, 3) }))
        } else {
            let (timer_ms, notes) = (random.below(TIMER_MS_MAX), format!("notes-{}", random.below(5)));
            (Add::NAME, encoded(&Add { by: 10 + random.below(1_000_000) as i64, timer_ms, notes }))
        };
        Some(Asked { function: Register::NAME, message, key, payload })
    }

    fn check_running(&self, _: &Program, audit: &Audit) -> Result<(), String> {
        let (registers, notes) = (states_of::<Register>(audit, Register::NAME)?, notes(audit)?);
        let additions: u64 = registers.iter().map(|(_, register)| register.additions).sum();
        let fired: u64 = registers.iter().map(|(_, register)| register.fired).sum();
        if fired > additions || notes > additions {
            return Err(format!("{additions} additions have led to {fired} timers and {notes} notes"));
        }
        Ok(())
    }

    fn check_end(&self, end: &End<'_>) -> Result<(), String> {
        let mut histories = BTreeMap::<&[u8], Vec<Operation<Call, Said>>>::new();
        for request in end.history {
            histories.entry(&request.call.key).or_default().push(operation(request));
        }
        for (key, history) in histories {
            linear::check(&Sequential, &history)
                .map_err(|error| format!("{}: {error}", String::from_utf8_lossy(key)))?;
        }
        let registers = states_of::<Register>(end.audit, Register::NAME)?;
        let additions: u64 = registers.iter().map(|(_, register)| register.additions).sum();
        same("timers that have fired", &registers.iter().map(|(_, register)| register.fired).sum(), &additions)?;
        same("timers too early", &registers.iter().map(|(_, register)| register.fired_early).sum(), &0)?;
        same("notes", &notes(end.audit)?, &additions)
    }
}

/// How many notes there are; those of each key must have come in the order of event time.
fn notes(audit: &Audit) -> Result<u64, String> {
    let all = states_of::<Notes>(audit, Notes::NAME)?;
    same("notes behind later ones", &all.iter().map(|(_, notes)| notes.behind).sum(), &0_u64)?;
    Ok(all.iter().map(|(_, notes)| notes.count).sum())
}

fn encoded(value: &impl Wire) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.encode(&mut bytes);
    bytes
}
