//! A whole app in seeded worlds in which everything that can go wrong does.
//!
//! Each seed is a world: up to four workers share the shards of the app over one log; workers crash
//! and pause, shards move, appends fail, stand unknown to their writer or come late, mail and news
//! are lost, doubled and delayed, snapshots rot, clocks differ. Then the faults stop, everything
//! drains, and the world ends. The world drives the code that a process runs.
//!
//! Invariants: a world is decided by its seed and the app, so a seed reproduces a failure; the
//! checks see committed state only; a failure is reported with its seed, shrunk.
//!
//! Each process has the app made anew, so its resources die with it. What the app keeps in statics does
//! not: all workers of all worlds share that.
//!
//! Deliberately absent: settings, files and disks.

use std::{
    env,
    fmt::{self, Write},
    ops::Range,
    sync::Arc,
    thread,
};

use statefn_core::{
    Address, Message, Wire,
    activity::{self, Activity, ActivityContext, NotDone},
    function::{MessageTo, Target},
    ingress::{Batches, ErasedIngress},
};
use statefn_sim::{
    plan::{Fault as WorldFault, Plan},
    workload::{Asked, number_record},
};
pub use statefn_sim::{random::Random, report::Report};

use super::{
    committed::Committed,
    outside::Outside,
    sequential::Sequential,
    shrink,
    trial::{Broken, Checks, Input, Trial},
};
use crate::App;

/// How many worlds there are if nobody says.
const SEEDS: u64 = 100;
/// Replays one seed.
const SEED: &str = "STATEFN_SEED";
/// Runs another number of seeds, for example many at night.
const SEED_COUNT: &str = "STATEFN_SEEDS";
/// How many records, requests and steps of a shrunk world are printed.
const SHOWN_MAX: usize = 20;

/// How many records a generator makes if nobody says.
const GENERATED: u64 = 100;

type Records = Box<dyn Fn(&mut Random) -> Vec<Vec<u8>>>;
type Calls = Box<dyn Fn(&mut Random) -> Vec<Asked>>;

/// Runs an app in seeded worlds with faults; `app` makes it anew for each process of each.
///
/// # Examples
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use statefn::{prelude::*, testing::simulate};
///
/// #[derive(Default, Clone, Serialize, Deserialize, State)]
/// struct Account { cents: i64 }
///
/// #[derive(Clone, Serialize, Deserialize, Message)] #[message(name = "book")]
/// struct Book { cents: i64 }
///
/// #[derive(Clone, Serialize, Deserialize, Message)] #[message(name = "payment")]
/// struct Payment { from: String, to: String, cents: i64 }
///
/// #[function(name = "bank/account", sends(Self))]
/// impl Account {
///     #[on]
///     fn book(&mut self, msg: &Book) { self.cents += msg.cents; }
///
///     #[on]
///     fn pay(&mut self, msg: &Payment, ctx: &mut Context<Self>) {
///         self.cents -= msg.cents;
///         ctx.send(Account::at(&msg.to), Book { cents: msg.cents });
///     }
/// }
///
/// fn app() -> App {
///     let payments = Ingress::<Payment>::new("payments").to::<Account>();
///     App::new("bank").function::<Account>().ingress(payments, |msg, out| out.send(Account::at(&msg.from), msg))
/// }
///
/// let names = ["alice", "bob", "carol"];
/// let report = simulate(app)
///     .seeds(10)
///     .random_input("payments", move |random| {
///         let mut payment = || Payment {
///             from: random.one_of(&names).into(),
///             to: random.one_of(&names).into(),
///             cents: random.between(1, 100),
///         };
///         (0..30).map(|_| payment()).collect()
///     })
///     .check(|world| {
///         let held: i64 = world.states::<Account>().iter().map(|(_, account)| account.cents).sum();
///         let sent: i64 = world.on_their_way::<Account, Book>().iter().map(|(_, book)| book.cents).sum();
///         assert_eq!(held + sent, 0, "money is conserved");
///     })
///     .run();
/// assert!(report.crashes > 0);
/// ```
#[must_use]
pub fn simulate(app: impl Fn() -> App + 'static) -> Simulation {
    Simulation {
        app: Box::new(app),
        seeds: 0..SEEDS,
        faults: WorldFault::ALL.to_vec(),
        inputs: Vec::new(),
        generated: Vec::new(),
        clients: Vec::new(),
        checks: Checks { running: Vec::new(), at_end: Vec::new(), histories: Vec::new() },
        linger_ms: 0,
        is_live: false,
        outside: Outside::nobody(),
    }
}

/// Worlds to be run; made by [`simulate`].
///
/// # Examples
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # use statefn::{prelude::*, testing::simulate};
/// # #[derive(Default, Clone, Serialize, Deserialize, State)] struct Counter { count: u64 }
/// # #[derive(Clone, Serialize, Deserialize, Message)] #[message(name = "word")] struct Word { text: String }
/// # #[function(name = "words/counter")] impl Counter { #[on] fn word(&mut self, _: &Word) { self.count += 1; } }
/// # fn app() -> App {
/// #     let words = Ingress::<Word>::new("words").to::<Counter>();
/// #     App::new("words").function::<Counter>().ingress(words, |word, out| out.send(Counter::at(&word.text), word))
/// # }
/// let report = simulate(app)
///     .seed(17)
///     .random_input("words", |random| vec![Word { text: random.one_of(&["a", "b"]).into() }])
///     .linger(std::time::Duration::from_secs(60))
///     .at_end(|world| assert_eq!(world.states::<Counter>().len(), 1))
///     .run();
/// assert_eq!(report.seeds, 1);
/// ```
pub struct Simulation {
    app: Box<dyn Fn() -> App>,
    seeds: Range<u64>,
    faults: Vec<WorldFault>,
    inputs: Vec<(String, Records)>,
    /// How many records generators make.
    generated: Vec<(String, u64)>,
    clients: Vec<Calls>,
    checks: Checks,
    linger_ms: i64,
    is_live: bool,
    outside: Outside,
}

impl Simulation {
    /// Runs the seeds from 0 to `count - 1`, 100 if not given.
    ///
    /// The environment goes before: `STATEFN_SEEDS=10000` runs so many, `STATEFN_SEED=17` runs that
    /// seed alone.
    #[must_use]
    pub fn seeds(self, count: u64) -> Self {
        Self { seeds: 0..count, ..self }
    }

    /// Runs one seed alone.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seeds: seed..seed.saturating_add(1), ..self }
    }

    /// Gives an ingress its records, the same in every world.
    ///
    /// They are one partition, which is read in order; another call for the same ingress is another
    /// partition, as another file would be.
    #[must_use]
    pub fn input<M: Message>(self, ingress: &str, records: impl IntoIterator<Item = M>) -> Self {
        self.input_bytes(ingress, records.into_iter().map(|record| encoded(&record)).collect())
    }

    /// Gives an ingress its records as bytes, readable or not; see [`Self::input`].
    #[must_use]
    pub fn input_bytes(self, ingress: &str, records: Vec<Vec<u8>>) -> Self {
        self.with_records(ingress, move |_| records.clone())
    }

    /// Gives an ingress records that each world draws for itself; see [`Self::input`].
    ///
    /// `random` must be the only source of chance, or a seed does not reproduce a failure.
    #[must_use]
    pub fn random_input<M: Message>(self, ingress: &str, records: impl Fn(&mut Random) -> Vec<M> + 'static) -> Self {
        self.with_records(ingress, move |random| records(random).iter().map(encoded).collect())
    }

    fn with_records(mut self, ingress: &str, records: impl Fn(&mut Random) -> Vec<Vec<u8>> + 'static) -> Self {
        self.inputs.push((ingress.to_owned(), Box::new(records)));
        self
    }

    /// Lets the generator of an ingress make so many records, or fewer if it ends before; 100 if not
    /// given. An ingress that is given its records makes none.
    #[must_use]
    pub fn generate(mut self, ingress: &str, records: u64) -> Self {
        self.generated.push((ingress.to_owned(), records));
        self
    }

    /// Adds a client: it calls these handlers, one after the other, at random moments as long as there
    /// are faults; see [`Committed::requests`].
    ///
    /// A call that changes something has an idempotency key: a client that is not answered in time asks again
    /// with the same key, until it is answered or gives up. Another call of this is another client. `random`
    /// must be the only source of chance.
    #[must_use]
    pub fn requests<T: Target, M: MessageTo<T>>(
        mut self,
        calls: impl Fn(&mut Random) -> Vec<(Address<T>, M)> + 'static,
    ) -> Self {
        let asked = |(to, msg): &(Address<T>, M)| Asked {
            function: T::NAME,
            message: M::NAME,
            key: to.key().to_vec(),
            payload: encoded(msg),
        };
        self.clients.push(Box::new(move |random| calls(random).iter().map(asked).collect()));
        self
    }

    /// Checks at the end that the requests to each key of a function are linearizable: that there is an
    /// order of them, within the times from call to answer, in which `function` gives the same answers.
    ///
    /// Nothing but requests, and what [`Sequential::sends`] tells of, may change what the function answers.
    #[must_use]
    pub fn linearizable<T, S>(mut self, function: Sequential<T, S>) -> Self
    where
        T: Target,
        S: Default + Clone + Ord + fmt::Debug + 'static,
    {
        self.checks.histories.push(Box::new(move |history| function.check(history)));
        self
    }

    /// Makes the outside of each world, which stand-ins of activities call; a check finds it by
    /// [`Committed::outside`].
    #[must_use]
    pub fn outside<O: 'static>(mut self, make: impl Fn() -> O + 'static) -> Self {
        self.outside.made_by(make);
        self
    }

    /// Lets `stand_in` make the attempts of an activity, in the outside of the world. Attempts are lost,
    /// doubled and late; each of a call has the same [`ActivityContext::id`].
    #[must_use]
    pub fn stand_in<A: Activity, O: 'static>(
        mut self,
        stand_in: impl Fn(
            &mut O,
            A::Call,
            &ActivityContext,
        ) -> Result<activity::AnswerOf<A>, NotDone<activity::RejectionOf<A>>>
        + 'static,
    ) -> Self {
        self.outside.stand_in::<A, O>(stand_in);
        self
    }

    /// Makes the app a service, as one that listens for requests is: event time follows the clock where
    /// nothing holds it back, a request happens when it comes, and the input never ends. Timers fire as
    /// far as the clock comes, see [`Self::linger`].
    #[must_use]
    pub fn live(self) -> Self {
        Self { is_live: true, ..self }
    }

    /// Lets only these kinds of faults happen; all if not given. A world has some of them.
    #[must_use]
    pub fn only_faults(self, faults: impl IntoIterator<Item = WorldFault>) -> Self {
        Self { faults: faults.into_iter().collect(), ..self }
    }

    /// Lets these kinds of faults not happen.
    #[must_use]
    pub fn without_faults(mut self, faults: impl IntoIterator<Item = WorldFault>) -> Self {
        let faults: Vec<WorldFault> = faults.into_iter().collect();
        self.faults.retain(|fault| !faults.contains(fault));
        self
    }

    /// Looks at what is committed, at random moments of each world and at its end; fails by a panic,
    /// so by the `assert!` of any test.
    #[must_use]
    pub fn check(mut self, check: impl Fn(&Committed<'_>) + 'static) -> Self {
        self.checks.running.push(Box::new(check));
        self
    }

    /// Looks at what is committed once everything has drained; fails by a panic.
    #[must_use]
    pub fn at_end(mut self, check: impl Fn(&Committed<'_>) + 'static) -> Self {
        self.checks.at_end.push(Box::new(check));
        self
    }

    /// Lets the clock of each world go on for this long once all is done, so that timers of the
    /// processing time fire; nothing else waits for them. 0 if not given.
    #[must_use]
    pub fn linger(self, duration: std::time::Duration) -> Self {
        Self { linger_ms: i64::try_from(duration.as_millis()).unwrap_or(i64::MAX), ..self }
    }

    /// Runs the worlds; returns how often each thing happened in them.
    ///
    /// # Panics
    /// If a world fails, with the text of the [`Failure`]; that fails the test.
    #[expect(clippy::must_use_candidate, reason = "a test wants no more than that it returns")]
    pub fn run(self) -> Report {
        self.try_run().unwrap_or_else(|failure| panic!("{failure}"))
    }

    /// Runs the worlds until one fails; returns how often each thing happened in them.
    ///
    /// # Errors
    /// The first world that fails: a check panicked, or a promise of the framework was broken.
    ///
    /// # Panics
    /// If the app does not link, or an ingress is not one of its own.
    pub fn try_run(self) -> Result<Report, Box<Failure>> {
        let generated = self.verify();
        let mut all = Report::default();
        for seed in self.wanted_seeds() {
            let trial = self.trial(seed, &generated);
            match trial.run() {
                Ok(report) => all.add(&report),
                Err(broken) => return Err(Box::new(self.failure(trial, broken))),
            }
        }
        Ok(all)
    }

    /// What no seed can make right is said at once; returns what generators make.
    fn verify(&self) -> Vec<Input> {
        let linked = (self.app)().take_parts().linked.unwrap_or_else(|error| panic!("{error}"));
        for activity in &linked.program.activities {
            let name = activity.name;
            assert!(self.outside.has(name), "the activity `{name}` has no stand-in: add `.stand_in::<..>(..)`");
        }
        let named = self.inputs.iter().map(|(ingress, _)| ingress);
        for ingress in named.chain(self.generated.iter().map(|(ingress, _)| ingress)) {
            let is_known = linked.ingresses.iter().any(|known| known.name() == ingress);
            assert!(is_known, "the app has no ingress `{ingress}`");
        }
        for asked in self.clients.iter().flat_map(|client| client(&mut Random::new(0))) {
            let is_known = linked.program.functions.iter().any(|known| known.spec.name == asked.function);
            assert!(is_known, "the app has no function `{}`", asked.function);
        }
        let is_given = |name: &str| self.inputs.iter().any(|(given, _)| given == name);
        let generators = linked.ingresses.iter().filter(|ingress| ingress.is_generator() && !is_given(ingress.name()));
        let input = |ingress: &Arc<dyn ErasedIngress>| {
            let given = self.generated.iter().rfind(|(name, _)| name == ingress.name());
            let numbers = 0..given.map_or(GENERATED, |(_, count)| *count);
            let made = numbers.take_while(|number| ingress.generate(*number, &mut Batches::new(1)).is_some());
            Input { ingress: ingress.name().to_owned(), records: made.map(number_record).collect(), is_generated: true }
        };
        generators.map(input).collect()
    }

    fn wanted_seeds(&self) -> Range<u64> {
        if let Some(seed) = number(SEED) {
            return seed..seed.saturating_add(1);
        }
        let start = self.seeds.start;
        number(SEED_COUNT).map_or(self.seeds.clone(), |count| start..start.saturating_add(count))
    }

    fn trial(&self, seed: u64, generated: &[Input]) -> Trial<'_> {
        let mut random = Random::new(seed ^ 0x7265_636f_7264);
        let mut plan = Plan::of(seed);
        for fault in WorldFault::ALL.iter().filter(|fault| !self.faults.contains(fault)) {
            *plan.faults.of_mut(*fault) = 0;
        }
        let given = self.inputs.iter().map(|(ingress, records)| Input {
            ingress: ingress.clone(),
            records: records(&mut random.fork()),
            is_generated: false,
        });
        let inputs = given.chain(generated.iter().cloned()).collect();
        let clients = self.clients.iter().map(|client| client(&mut random.fork())).collect();
        Trial {
            app: &*self.app,
            plan,
            inputs,
            clients,
            checks: &self.checks,
            linger_ms: self.linger_ms,
            is_live: self.is_live,
            outside: &self.outside,
        }
    }

    fn failure(&self, trial: Trial<'_>, broken: Broken) -> Failure {
        let (seed, records, requests) = (trial.plan.seed, trial.records(), trial.requests());
        let again = trial.run().err();
        let shrunk = shrink::shrink(trial, again.as_ref().unwrap_or(&broken));
        Failure {
            app: (self.app)().name().to_owned(),
            seed,
            error: broken.text,
            is_repeatable: again.is_some(),
            records,
            requests,
            shrunk,
        }
    }
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Simulation(seeds {:?}, {} inputs)", self.seeds, self.inputs.len())
    }
}

/// A world that failed, and the smallest one like it that was found.
///
/// [`Display`](fmt::Display) tells all of it: the seed, what went wrong, what is left after
/// shrinking, and how to replay it.
///
/// # Examples
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # use statefn::{prelude::*, testing::simulate};
/// # #[derive(Default, Clone, Serialize, Deserialize, State)] struct Counter { count: u64 }
/// # #[derive(Clone, Serialize, Deserialize, Message)] #[message(name = "word")] struct Word { text: String }
/// # #[function(name = "words/counter")] impl Counter { #[on] fn word(&mut self, _: &Word) { self.count += 1; } }
/// # fn app() -> App {
/// #     let words = Ingress::<Word>::new("words").to::<Counter>();
/// #     App::new("words").function::<Counter>().ingress(words, |word, out| out.send(Counter::at(&word.text), word))
/// # }
/// let words = ["hello", "world", "hello"].map(|text| Word { text: text.into() });
/// let wrong = |world: &statefn::testing::Committed<'_>| assert!(world.state(&Counter::at("world")).is_none());
/// let failure = simulate(app).input("words", words).check(wrong).try_run().unwrap_err();
/// assert_eq!((failure.seed, failure.records), (0, 3));
/// // One record is enough, and no fault is needed: an error in the logic.
/// assert_eq!(failure.shrunk.records, [("words".to_owned(), br#"{"text":"world"}"#.to_vec())]);
/// assert!(failure.shrunk.faults.is_empty());
/// assert!(failure.to_string().contains("STATEFN_SEED=0 cargo test"));
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Failure {
    /// The name of the app.
    pub app: String,
    /// The seed of the world.
    pub seed: u64,
    /// What went wrong, and when.
    pub error: String,
    /// Whether the same world failed when it was run again.
    pub is_repeatable: bool,
    /// How many records all inputs had.
    pub records: usize,
    /// How many requests all clients had.
    pub requests: usize,
    /// What is left.
    pub shrunk: Shrunk,
}

/// The smallest world found that fails in the same way; see the example of [`Failure`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Shrunk {
    /// What goes wrong in it.
    pub error: String,
    /// The records that it needs: the ingress and the bytes.
    pub records: Vec<(String, Vec<u8>)>,
    /// The requests that it needs: function, key and message, and the bytes.
    pub requests: Vec<(String, Vec<u8>)>,
    /// How many workers it has.
    pub workers: usize,
    /// How many shards it has.
    pub shards: u32,
    /// The kinds of faults that it needs.
    pub faults: Vec<WorldFault>,
    /// What happens in it, step by step: faults, commits, owners, requests.
    pub steps: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { app, seed, error, is_repeatable, records, requests, shrunk } = self;
        writeln!(f, "the simulation of `{app}` fails with seed {seed}: {error}")?;
        if !is_repeatable {
            writeln!(f, "it does not fail again: something counts that the seed does not decide (a static, a clock)")?;
        }
        write!(f, "{shrunk}, of {records}")?;
        if *requests > 0 {
            write!(f, ", and {}, of {requests}", counted(shrunk.requests.len(), "request"))?;
        }
        f.write_str(":\n")?;
        show(f, &shrunk.records, |(ingress, record)| format!("{ingress}: {}", String::from_utf8_lossy(record)))?;
        show(f, &shrunk.requests, |(to, msg)| format!("request to {to}: {}", String::from_utf8_lossy(msg)))?;
        f.write_str("  there:\n")?;
        let skipped = shrunk.steps.len().saturating_sub(SHOWN_MAX);
        if skipped > 0 {
            writeln!(f, "    {} before", counted(skipped, "step"))?;
        }
        show(f, &shrunk.steps[skipped..], String::clone)?;
        writeln!(f, "    {}", shrunk.error)?;
        write!(f, "replay it by: {}", replay(*seed))
    }
}

impl std::error::Error for Failure {}

impl fmt::Display for Shrunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { records, workers, shards, faults, .. } = self;
        let faults = faults.iter().map(|fault| fault.name()).collect::<Vec<_>>().join(", ");
        let faults = if faults.is_empty() { "no faults".to_owned() } else { faults };
        let (workers, shards) = (counted(*workers, "worker"), counted(*shards as usize, "shard"));
        write!(f, "shrunk to {workers}, {shards}, {faults}, and {}", counted(records.len(), "record"))
    }
}

/// Shows the first of some things, a line each.
fn show<T>(f: &mut fmt::Formatter<'_>, things: &[T], text: impl Fn(&T) -> String) -> fmt::Result {
    things.iter().take(SHOWN_MAX).try_for_each(|thing| writeln!(f, "    {}", text(thing)))?;
    match things.len().checked_sub(SHOWN_MAX) {
        Some(more) if more > 0 => writeln!(f, "    and {more} more"),
        _ => Ok(()),
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The command that runs the failed seed of the test that runs now.
fn replay(seed: u64) -> String {
    let mut command = format!("{SEED}={seed} cargo test");
    // Writing to a string does not fail.
    if let Ok(package) = env::var("CARGO_PKG_NAME") {
        _ = write!(command, " -p {package}");
    }
    // The test harness names the thread of a test after it.
    if let Some(test) = thread::current().name().filter(|name| *name != "main") {
        _ = write!(command, " {test}");
    }
    command
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("`{variable}` is `{text}`: it must be a number")))
}

fn encoded(record: &impl Wire) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    bytes
}
