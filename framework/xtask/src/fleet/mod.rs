//! `cargo xtask fleet`: a fleet on this machine, to look at and to kill.
//!
//! It starts a Kafka broker, an S3 server and workers of the bank, lets clients pay over HTTP, and shows who
//! has which shard. At the end every cent is counted.
//!
//! Invariant: what was started here does not outlive this process, however it ends.
//!
//! Deliberately absent: faults other than deaths of workers; `integration-tests --test fleet` has them.

mod audit;
mod load;
mod table;
mod workers;

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use fastrand::Rng;
use services::{kafka::Broker, s3::Server};
use tokio::signal::unix::{SignalKind, signal};

use self::{
    audit::YOURS,
    load::Load,
    table::{Screen, Status},
    workers::{RESTART_PAUSE, SHARDS, Workers},
};
use crate::{Outcome, flights::build_example, say};

/// The topics of the bank's ingress and egresses.
const TOPICS: [&str; 3] = ["orders", "statements", "audits"];
const PARTITIONS: i32 = 4;
/// How long the workers may take to have all shards.
const START_TIME_MAX: Duration = Duration::from_secs(120);
/// How long payments that were begun may take at the end.
const END_TIME_MAX: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Kills happen within this share of the time, so that the load goes on behind the last.
const KILLED_SHARE: f64 = 0.8;

/// What `cargo xtask fleet` is told.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// How many workers there are
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=32))]
    workers: u8,
    /// How many payments are begun each second
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// After how many seconds it ends; without it, at ctrl-C
    #[arg(long)]
    seconds: Option<u64>,
    /// How many times a worker is killed within these seconds
    #[arg(long, default_value_t = 0, requires = "seconds")]
    kills: u32,
    /// Leaves a worker that died dead; else it is started again after some seconds
    #[arg(long)]
    no_restart: bool,
    /// Builds the bank without optimization, which is quicker
    #[arg(long)]
    unoptimized: bool,
    /// The seed of payments and kills; what a kill hits is up to the machine
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs the task.
pub(crate) fn run(options: &Options) -> Outcome {
    if options.no_restart && options.kills >= u32::from(options.workers) {
        return Err("all workers would be dead in the end: use fewer `--kills`, or drop `--no-restart`".into());
    }
    let interrupts = Interrupts::watch()?;
    services::install()?;
    let directory = tempfile::TempDir::with_prefix("fleet-")?;
    let binary = build(options, directory.path().join("bank"))?;
    say("starting a Kafka broker, an S3 server and the workers")?;
    // Dropped in the other order: the workers before the servers.
    let (broker, server) = (Broker::start()?, Server::start()?);
    TOPICS.iter().try_for_each(|topic| broker.create_topic(topic, PARTITIONS))?;
    let count = usize::from(options.workers);
    let mut workers = Workers::new(count, !options.no_restart, &binary, directory.path(), (&broker, &server))?;
    let outcome = run_on(options, &mut workers, &interrupts);
    outcome.map_err(|error| format!("{error}\nwhat the workers have logged last:\n{}", workers.logged()).into())
}

/// Builds the bank and puts it where no other build replaces it.
fn build(options: &Options, binary: PathBuf) -> Outcome<PathBuf> {
    let profile: &[&str] = if options.unoptimized { &[] } else { &["--release"] };
    let built = build_example("bank", &[&["--features", "fleet"], profile].concat())?;
    fs::copy(built, &binary)?;
    Ok(binary)
}

fn run_on(options: &Options, workers: &mut Workers, interrupts: &Interrupts) -> Outcome {
    workers.start()?;
    wait_until_here(workers, interrupts)?;
    tell_how(options, workers)?;
    let mut random = Rng::with_seed(options.seed);
    let load = Load::start(workers.addresses(), options.rate, options.seed)?;
    let mut screen = Screen::new()?;
    watch(options, workers, &load, &mut screen, &mut random, interrupts)?;
    let (seconds, deaths) = (load.begun().elapsed().as_secs_f64(), workers.deaths);
    let known = interrupts.count();
    let is_on = || interrupts.count() == known;
    screen.say("It is over, and every cent is counted; ctrl-C ends it at once")?;
    finish(workers, &load, &screen, is_on)?;
    screen.end();
    let audited = audit::audit(workers, &load.books(), random, is_on)?;
    workers.look_after()?;
    workers.stop()?;
    if let Some(broken) = workers.broken.first() {
        return Err(broken.clone().into());
    }
    let checked = workers.check_stored()?;
    let pace = load.books().pace_of_all(seconds);
    say(&format!(
        "{deaths} deaths of workers in {seconds:.0} s; {:.1} payments a second, half within {} ms, 99 % within {} ms",
        pace.each_second, pace.p50_ms, pace.p99_ms
    ))?;
    say(&audited)?;
    say(&format!("check: {checked}"))
}

/// Waits until every shard has an owner.
fn wait_until_here(workers: &mut Workers, interrupts: &Interrupts) -> Outcome {
    let begun = Instant::now();
    loop {
        workers.look_after()?;
        if let Some(broken) = workers.broken.first() {
            return Err(broken.clone().into());
        }
        let shards: BTreeSet<u64> =
            workers.all.iter().filter_map(Status::of).flat_map(|status| status.shards).collect();
        if shards.len() == SHARDS {
            return Ok(());
        }
        if interrupts.count() > 0 {
            return Err("interrupted".into());
        }
        if begun.elapsed() > START_TIME_MAX {
            return Err(format!("the workers have {} of {SHARDS} shards by now", shards.len()).into());
        }
        thread::sleep(LOOK_INTERVAL);
    }
}

/// Says what one can try.
fn tell_how(options: &Options, workers: &Workers) -> Outcome {
    let Some(worker) = workers.all.first() else { return Ok(()) };
    let (id, account) = (worker.id().unwrap_or_default(), format!("http://{}/functions/bank/account", worker.http()));
    let back = match options.no_restart {
        true => "it stays dead".to_owned(),
        false => format!("it comes back after {} s", RESTART_PAUSE.as_secs()),
    };
    say(&format!("{} workers share the {SHARDS} shards of a bank. Kill one; {back}:", options.workers))?;
    say(&format!("    kill -9 {id}"))?;
    say("Pay, and look; any worker answers for every account:")?;
    say(&format!(
        "    curl -s {account}/vault/pay -H 'Content-Type: application/json' -H 'Idempotency-Key: 1' -d '{{\"to\":\"{YOURS}\",\"cents\":100}}'"
    ))?;
    say(&format!("    curl -s {account}/{YOURS}/state"))?;
    match options.seconds {
        Some(seconds) => say(&format!("It ends after {seconds} s, and counts every cent.")),
        None => say("Ctrl-C ends it, and counts every cent."),
    }
}

/// Looks after the workers until it is over, and kills some if it is to.
fn watch(
    options: &Options,
    workers: &mut Workers,
    load: &Load,
    screen: &mut Screen,
    random: &mut Rng,
    interrupts: &Interrupts,
) -> Outcome {
    let time = options.seconds.map(Duration::from_secs);
    let mut kills = kills(options, random);
    loop {
        let elapsed = load.begun().elapsed();
        if interrupts.count() > 0 || time.is_some_and(|time| elapsed >= time) {
            break;
        }
        for fact in workers.look_after()? {
            screen.say(&fact)?;
        }
        if kills.last().is_some_and(|due| elapsed >= *due)
            && let Some(fact) = workers.kill(random)?
        {
            kills.pop();
            screen.say(&fact)?;
        }
        screen.draw(workers, load)?;
        thread::sleep(LOOK_INTERVAL);
    }
    if interrupts.count() == 0 && !kills.is_empty() {
        let missing = kills.len();
        return Err(format!("{missing} of {} kills could not be made: no worker was alive", options.kills).into());
    }
    Ok(())
}

/// When workers are killed, the last one first: each within a stretch of its own.
fn kills(options: &Options, random: &mut Rng) -> Vec<Duration> {
    let time = Duration::from_secs(options.seconds.unwrap_or_default()).mul_f64(KILLED_SHARE);
    let stretch = time / options.kills.max(1);
    (0..options.kills).rev().map(|kill| stretch * kill + stretch.mul_f64(random.f64())).collect()
}

/// Waits until all payments are answered that were begun.
fn finish(workers: &mut Workers, load: &Load, screen: &Screen, is_on: impl Fn() -> bool) -> Outcome {
    load.end();
    let begun = Instant::now();
    while !load.is_over() {
        for fact in workers.look_after()? {
            screen.say(&fact)?;
        }
        if begun.elapsed() > END_TIME_MAX || !is_on() {
            load.give_up();
        }
        thread::sleep(LOOK_INTERVAL);
    }
    Ok(())
}

/// Counts how often the user wants an end: at first the load ends, then the audit too.
#[derive(Clone)]
struct Interrupts(Arc<AtomicU32>);

impl Interrupts {
    /// Watches for ctrl-C and SIGTERM from now on.
    fn watch() -> Outcome<Self> {
        let interrupts = Self(Arc::default());
        let told = interrupts.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut interrupt, mut terminate) = {
            let _entered = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        thread::Builder::new().name("signals".into()).spawn(move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    told.0.fetch_add(1, Ordering::AcqRel);
                }
            });
        })?;
        Ok(interrupts)
    }

    fn count(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }
}
