//! One run of an app in one world.
//!
//! Invariant: nothing but the plan, the records and the app decides how it goes. Panics of handlers
//! and checks are caught and are not printed: thousands of worlds would hide the one that counts.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    fmt,
    panic::{self, AssertUnwindSafe, catch_unwind},
    sync::Once,
};

use statefn_core::{
    activity::{CallOutcome, TryAgain},
    program::{Program, ProgramSpec},
    shard::{ActivityCall, Answer, Reply},
};
use statefn_sim::{
    check::Audit,
    linear::Operation,
    plan::Plan,
    random::Random,
    report::Report,
    workload::{Asked, Bind, End, Setup, Workload},
    world::World,
};

use super::{committed::Committed, outside::Outside};
use crate::App;

/// A check of the user.
pub(super) type Check = Box<dyn Fn(&Committed<'_>)>;

/// A check of what clients saw.
pub(super) type HistoryCheck = Box<dyn Fn(&[Operation<Asked, Reply>]) -> Result<(), String>>;

/// What is checked in each world.
pub(super) struct Checks {
    pub(super) running: Vec<Check>,
    pub(super) at_end: Vec<Check>,
    pub(super) histories: Vec<HistoryCheck>,
}

/// The records of one partition of an ingress.
#[derive(Clone)]
pub(super) struct Input {
    pub(super) ingress: String,
    /// Numbers, if the ingress makes the records itself.
    pub(super) records: Vec<Vec<u8>>,
    pub(super) is_generated: bool,
}

/// A request of a client that was made, and what came of it, if anything did.
#[derive(Clone)]
pub(super) struct Made {
    pub(super) asked: Asked,
    pub(super) reply: Option<Reply>,
}

/// A world to be run; running it twice gives the same twice.
///
/// The plan drops records and requests by their numbers: those of the inputs come first.
#[derive(Clone)]
pub(super) struct Trial<'a> {
    pub(super) app: &'a dyn Fn() -> App,
    pub(super) plan: Plan,
    pub(super) inputs: Vec<Input>,
    /// By client, what it calls, one after the other.
    pub(super) clients: Vec<Vec<Asked>>,
    pub(super) checks: &'a Checks,
    pub(super) linger_ms: i64,
    pub(super) is_live: bool,
    pub(super) outside: &'a Outside,
}

/// Who found that something is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// A check of the user while the world ran.
    Check,
    /// A check of the user at the end.
    AtEnd,
    /// A check of the world, or a panic of the framework.
    Framework,
}

/// What went wrong in a trial.
#[derive(Debug, Clone)]
pub(super) struct Broken {
    pub(super) by: By,
    pub(super) text: String,
}

impl Trial<'_> {
    /// How many records all inputs have, the dropped ones included.
    pub(super) fn records(&self) -> usize {
        self.inputs.iter().map(|input| input.records.len()).sum()
    }

    /// How many requests all clients have, the dropped ones included.
    pub(super) fn requests(&self) -> usize {
        self.clients.iter().map(Vec::len).sum()
    }

    /// Runs the world to its end.
    pub(super) fn run(&self) -> Result<Report, Broken> {
        self.run_told(None)
    }

    /// Runs the world again and returns what happened in it.
    pub(super) fn story(&self) -> Vec<String> {
        let story = RefCell::new(Vec::new());
        // How it ends is known.
        let _ = self.run_told(Some(&story));
        story.into_inner()
    }

    fn run_told(&self, story: Option<&RefCell<Vec<String>>>) -> Result<Report, Broken> {
        let Self { inputs, clients, .. } = self.kept();
        let by = Cell::new(By::Framework);
        let waiting = clients.into_iter().map(|calls| calls.into_iter().rev().collect()).collect();
        let (made, waiting) = (RefCell::default(), RefCell::new(waiting));
        let outside = RefCell::new(self.outside.make());
        let workload = Running { trial: self, inputs, waiting, made, by, outside, story };
        let run = || World::new(self.plan.clone(), &workload)?.run();
        // A panic before the first event, as of an app that does not link, is for the caller's eyes.
        let outcome = quietly(run).unwrap_or_else(|panic| Err(format!("the framework panicked{panic}")));
        let by = workload.by.get();
        outcome.map(|(report, _)| report).map_err(|text| Broken { by, text })
    }

    /// The same without the records and requests that the plan drops.
    pub(super) fn kept(&self) -> Self {
        let mut kept = self.clone();
        let mut numbers = 0..;
        let mut is_kept = || numbers.next().is_some_and(|number| !self.plan.dropped.contains(number));
        kept.inputs.iter_mut().for_each(|input| input.records.retain(|_| is_kept()));
        kept.clients.iter_mut().for_each(|calls| calls.retain(|_| is_kept()));
        kept
    }
}

/// The app as a workload of the simulator.
struct Running<'a> {
    trial: &'a Trial<'a>,
    inputs: Vec<Input>,
    /// By client, what it has not called yet, the next one last.
    waiting: RefCell<Vec<Vec<Asked>>>,
    made: RefCell<Vec<Made>>,
    by: Cell<By>,
    outside: RefCell<Box<dyn Any>>,
    story: Option<&'a RefCell<Vec<String>>>,
}

impl Running<'_> {
    fn check(&self, by: By, checks: &[Check], program: &Program, audit: &Audit) -> Result<(), String> {
        let made = self.made.borrow();
        let outside = self.outside.borrow();
        let committed = Committed::new(program, audit, &made, &**outside);
        let found = quietly(|| checks.iter().for_each(|check| check(&committed)));
        found.map_err(|panic| {
            self.by.set(by);
            format!("after {} epochs a check panicked{panic}", committed.epochs())
        })
    }

    /// The records of an ingress, by partition; at least one, so that the ingress can end.
    fn partitions(&self, ingress: &str) -> Vec<Vec<Vec<u8>>> {
        let given = self.inputs.iter().filter(|input| input.ingress == ingress);
        let given: Vec<_> = given.map(|input| input.records.clone()).collect();
        if given.is_empty() { vec![Vec::new()] } else { given }
    }
}

impl Workload for Running<'_> {
    fn setup(&self) -> Setup {
        let (program, bindings) = (self.trial.app)().into_program();
        let inputs = program.ingresses.iter().map(|ingress| self.partitions(ingress.name)).collect();
        let ingresses = bindings.into_iter().map(|bind| bind as _).collect();
        Setup { program, ingresses, inputs }
    }

    /// A process that starts has an app of its own, with its resources.
    fn process(&self) -> Option<(ProgramSpec, Vec<Bind>)> {
        let (program, bindings) = (self.trial.app)().into_program();
        Some((program, bindings.into_iter().map(|bind| bind as _).collect()))
    }

    fn attempt(&self, call: &ActivityCall, attempt: u32) -> Result<CallOutcome, TryAgain> {
        self.trial.outside.attempt(&mut **self.outside.borrow_mut(), call, attempt)
    }

    fn generates(&self, ingress: &str) -> bool {
        self.inputs.iter().any(|input| input.ingress == ingress && input.is_generated)
    }

    fn request(&self, random: &mut Random, id: u64) -> Option<Asked> {
        let mut made = self.made.borrow_mut();
        // Nobody could take the one before.
        if let Some(again) = made.get(id as usize) {
            return Some(again.asked.clone());
        }
        let mut waiting = self.waiting.borrow_mut();
        waiting.retain(|calls| !calls.is_empty());
        if waiting.is_empty() {
            return None;
        }
        let client = random.place(waiting.len());
        let asked = waiting[client].pop()?;
        made.push(Made { asked: asked.clone(), reply: None });
        Some(asked)
    }

    fn check_answer(&self, _: &Program, _: &Audit, answer: &Answer) -> Result<(), String> {
        self.made.borrow_mut()[answer.request as usize].reply = Some(answer.reply.clone());
        Ok(())
    }

    fn is_live(&self) -> bool {
        self.trial.is_live
    }

    fn lingers_ms(&self) -> i64 {
        self.trial.linger_ms
    }

    fn frames_between_checks(&self) -> u64 {
        // Often in some worlds, seldom in others, where bugs may hide that mend themselves.
        1 + self.trial.plan.seed % 7
    }

    fn check_running(&self, program: &Program, audit: &Audit) -> Result<(), String> {
        self.check(By::Check, &self.trial.checks.running, program, audit)
    }

    fn check_end(&self, end: &End<'_>) -> Result<(), String> {
        self.check(By::AtEnd, &self.trial.checks.at_end, end.program, end.audit)?;
        self.trial.checks.histories.iter().try_for_each(|check| {
            let found = quietly(|| check(end.history)).unwrap_or_else(|panic| Err(format!("a check panicked{panic}")));
            found.inspect_err(|_| self.by.set(By::AtEnd))
        })
    }

    fn tell(&self, step: u64, ms: i64, what: fmt::Arguments<'_>) {
        if let Some(story) = self.story {
            story.borrow_mut().push(format!("step {step}, {ms} ms: {what}"));
        }
    }
}

thread_local! {
    /// How deep this thread is in code whose panics are not printed.
    static QUIET: Cell<u32> = const { Cell::new(0) };
    /// Where the last of them was.
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs code whose panics are not printed; a panic is returned as its place and text.
fn quietly<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if QUIET.get() == 0 {
                return before(info);
            }
            let place = info.location().map(|place| format!(" at {}:{}", place.file(), place.line()));
            PLACE.set(place.unwrap_or_default());
        }));
    });
    QUIET.set(QUIET.get() + 1);
    let outcome = catch_unwind(AssertUnwindSafe(run));
    QUIET.set(QUIET.get() - 1);
    outcome.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
        format!("{}: {text}", PLACE.take())
    })
}
