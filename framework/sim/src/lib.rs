//! A seeded world that drives the core through crashes, zombies, lost and unknown appends.
//!
//! A seed decides a [`plan::Plan`] (how many workers and shards, which limits, which faults and
//! how often) and everything that happens in the [`world::World`]; a [`workload`] brings a program,
//! its input, and the answers it must give. So a seed reproduces a failure:
//! `STATEFN_SEED=17 STATEFN_WORKLOAD=bank cargo test -p statefn-sim one_seed`.
//! A failure is printed with the smallest plan that still fails, as `STATEFN_PLAN=crash=0,workers=2`.
//!
//! Invariants: one thread, no clock, no source of chance but the seed; the same seed gives the
//! same trace.
//!
//! Deliberately absent: the runtime. What drives the pipeline here is the world itself.

#![forbid(unsafe_code)]
#![allow(missing_debug_implementations, reason = "a world is looked into by its trace")]

pub mod check;
mod clock;
pub mod linear;
pub mod log;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod plan;
pub mod random;
pub mod report;
pub mod shrink;
pub mod workload;
pub mod world;

use std::{
    fmt,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicUsize, Ordering},
};

use self::{plan::Plan, report::Report, workload::Kind, world::World};

/// A world in which something went wrong.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The workload.
    pub workload: Kind,
    /// The plan, with its seed.
    pub plan: Box<Plan>,
    /// What went wrong.
    pub error: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { workload, plan, error } = self;
        let seed = plan.seed;
        let changes = shrink::changes(plan);
        write!(
            f,
            "seed {seed} of the workload {workload}: {error}\nin this world: {plan:?}\nrun it by: STATEFN_SEED={seed} STATEFN_WORKLOAD={workload} STATEFN_PLAN={changes} cargo test -p statefn-sim one_seed"
        )
    }
}

impl std::error::Error for Failure {}

/// Runs the worlds of `seeds` and adds up their counts.
///
/// # Errors
/// The first world in which something went wrong, made as small as it still goes wrong.
pub fn run_seeds(workload: Kind, seeds: Range<u64>) -> Result<Report, Failure> {
    let mut report = Report::default();
    for seed in seeds {
        report.add(&run_plan(workload, Plan::of(seed)).map_err(shrink::shrink)?.0);
    }
    Ok(report)
}

/// Runs the worlds of `seeds` for every workload, on two threads.
///
/// # Errors
/// As [`run_seeds`].
///
/// # Panics
/// If a thread panics.
pub fn run_all(seeds: Range<u64>) -> Result<Report, Failure> {
    /// How many worlds a thread takes at a time.
    const SLICE: u64 = 10;
    let mut slices = Vec::new();
    for start in seeds.clone().step_by(SLICE as usize) {
        slices.extend(Kind::ALL.map(|kind| (kind, start..seeds.end.min(start + SLICE))));
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut report = Report::default();
        while let Some((kind, seeds)) = slices.get(next.fetch_add(1, Ordering::Relaxed)) {
            report.add(&run_seeds(*kind, seeds.clone())?);
        }
        Ok(report)
    };
    let reports = std::thread::scope(|scope| {
        let threads = [scope.spawn(work), scope.spawn(work)];
        threads.map(|thread| thread.join().expect("a run of seeds does not panic"))
    });
    let mut all = Report::default();
    for report in reports {
        all.add(&report?);
    }
    Ok(all)
}

/// Runs one world; returns its counts and a number that sums up all that happened in it.
///
/// # Errors
/// What went wrong; a panic of the core is one of these things.
pub fn run_plan(workload: Kind, plan: Plan) -> Result<(Report, u64), Failure> {
    let run = AssertUnwindSafe(|| {
        let mut workload = workload.build(plan.seed);
        let mut records = 0..;
        workload.keep_records(&mut || records.next().is_some_and(|number| !plan.dropped.contains(number)));
        World::new(plan.clone(), &*workload)?.run()
    });
    let outcome = catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panicked: {}", text.unwrap_or_default()))
    });
    outcome.map_err(|error| Failure { workload, plan: Box::new(plan), error })
}
