//! A seeded world that drives the core through crashes, zombies, lost and unknown appends.
//!
//! A seed decides a [`plan::Plan`] (how many workers and shards, which limits, which faults and
//! how often) and everything that happens in the [`world::World`]; a [`workload`] brings a program,
//! its input, and the answers it must give. So a seed reproduces a failure:
//! `STATEFN_SEED=17 STATEFN_WORKLOAD=bank cargo test -p statefn-sim one_seed`.
//!
//! Invariants: one thread, no clock, no source of chance but the seed; the same seed gives the
//! same trace.
//!
//! Deliberately absent: the runtime. What drives the pipeline here is the world itself.

#![forbid(unsafe_code)]
#![allow(missing_debug_implementations, reason = "a world is looked into by its trace")]

pub mod check;
pub mod log;
pub mod plan;
pub mod random;
pub mod report;
pub mod workload;
pub mod world;

use std::{
    fmt,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
};

use statefn_core::shard::rules::{Rule, Rules};

use self::{plan::Plan, report::Report, workload::Kind, world::World};

/// A world in which something went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The workload.
    pub workload: Kind,
    /// The seed.
    pub seed: u64,
    /// What went wrong.
    pub error: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { workload, seed, error } = self;
        write!(
            f,
            "seed {seed} of the workload {workload}: {error}\nrun it by: STATEFN_SEED={seed} STATEFN_WORKLOAD={workload} cargo test -p statefn-sim one_seed"
        )
    }
}

impl std::error::Error for Failure {}

/// Runs the worlds of `seeds` and adds up their counts.
///
/// # Errors
/// The first world in which something went wrong.
pub fn run_seeds(workload: Kind, seeds: Range<u64>) -> Result<Report, Failure> {
    let mut report = Report::default();
    for seed in seeds {
        report.add(&run_plan(workload, Plan::of(seed))?.0);
    }
    Ok(report)
}

/// Runs one world; returns its counts and a number that sums up all that happened in it.
///
/// # Errors
/// What went wrong; a panic of the core is one of these things.
pub fn run_plan(workload: Kind, plan: Plan) -> Result<(Report, u64), Failure> {
    let seed = plan.seed;
    let run = AssertUnwindSafe(|| {
        let workload = workload.build(seed);
        World::new(plan, &*workload)?.run()
    });
    let outcome = catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panicked: {}", text.unwrap_or_default()))
    });
    outcome.map_err(|error| Failure { workload, seed, error })
}

/// Runs worlds whose core lacks a rule until one of them breaks; returns how many that took.
///
/// The worlds judge by what comes out in the end alone, so this says whether the workload's checks
/// are worth anything. None means that the mutant survived all `seeds`.
#[must_use]
pub fn run_mutant(rule: Rule, workload: Kind, seeds: Range<u64>) -> Option<(u64, Failure)> {
    for seed in seeds.clone() {
        let plan = Plan { rules: Rules::without(rule), looks_inside: false, ..Plan::of(seed) };
        if let Err(failure) = run_plan(workload, plan) {
            return Some((seed - seeds.start + 1, failure));
        }
    }
    None
}

/// The rules that can be switched off, each with the workload whose checks have to notice.
pub const MUTANTS: [(Rule, Kind); 4] = [
    (Rule::SeenDropsDuplicates, Kind::Sends),
    (Rule::PublishAfterConfirm, Kind::Sends),
    (Rule::AnswerAfterConfirm, Kind::Bank),
    (Rule::WatermarkAfterMessages, Kind::Timers),
];
