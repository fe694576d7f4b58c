//! Worlds of many seeds, and what must be true of the simulator itself.

use std::time::Instant;

use statefn_core::shard::rules::Rule;
use statefn_sim::{
    mutants::{self, Caught, Mutant},
    plan::{Numbers, Plan},
    report::Report,
    run_all, run_plan, shrink,
    workload::Kind,
};

/// How many worlds of each workload a run of the tests has; `cargo xtask` runs more, and so does
/// `STATEFN_SEEDS=1000 cargo test -p statefn-sim no_world_breaks`.
const SEEDS: u64 = 60;

#[test]
fn no_world_breaks() {
    let seeds = match std::env::var("STATEFN_SEEDS") {
        Ok(seeds) => seeds.parse().expect("STATEFN_SEEDS is a number"),
        Err(_) => SEEDS,
    };
    let started_at = Instant::now();
    let report = run_all(0..seeds).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{:.0} worlds a second", report.seeds as f64 / started_at.elapsed().as_secs_f64());
    println!("{report}");
    for (fault, happened, mattered) in report.faults() {
        println!("{fault}: {happened} times, changed something {mattered} times");
    }
    check_faults_happened(&report);
}

/// A simulator that injects nothing passes every check.
fn check_faults_happened(report: &Report) {
    let blind_spots = report.blind_spots();
    assert!(
        blind_spots.is_empty(),
        "in {} worlds these did not happen, or did not matter: {blind_spots:?}",
        report.seeds
    );
    let expected = [
        ("carried epochs", report.epochs_carried),
        ("trims", report.trims),
        ("recoveries from a snapshot", report.recovered_from_snapshot),
        ("answers", report.answers),
        ("parked keys", report.parked),
        ("parked keys that went on", report.unparked),
        ("parked keys that failed again", report.parked_again),
    ];
    for (what, count) in expected {
        assert!(count > 0, "no {what} in {} worlds", report.seeds);
    }
}

/// A failure that a mutant causes becomes smaller, and its text leads back to the same failure.
#[test]
fn failures_are_made_smaller() {
    let mutant = mutants::MUTANTS.iter().find(|mutant| mutant.rule == Rule::SeenDropsDuplicates).expect("a mutant");
    let failure = run_plan(mutant.workload, mutant.plan(0)).expect_err("caught by its first world");
    let smallest = shrink::shrink(failure.clone());
    let records = |plan: &Plan| {
        let mut count = 0;
        let mut workload = mutant.workload.build(plan.seed);
        let mut numbers = 0..;
        workload.keep_records(&mut || {
            let is_kept = numbers.next().is_some_and(|number| !plan.dropped.contains(number));
            count += usize::from(is_kept);
            is_kept
        });
        count
    };
    let (few, all) = (records(&smallest.plan), records(&failure.plan));
    assert!(few <= 6 && all >= 10, "{few} of {all} records are left: {:?}", smallest.plan);
    assert!(smallest.plan.workers <= failure.plan.workers);
    let mut again = Plan { rules: smallest.plan.rules, looks_inside: false, ..Plan::of(0) };
    shrink::change(&mut again, &shrink::changes(&smallest.plan)).expect("readable");
    assert_eq!(shrink::changes(&again), shrink::changes(&smallest.plan));
}

/// Else a failing world would be made smaller to one that fails for another reason.
#[test]
fn no_world_breaks_without_some_records_and_faults() {
    for kind in Kind::ALL {
        for seed in 0..6 {
            let dropped =
                (0..60).fold(Numbers::default(), |all, number| all.and(number * 3..number * 3 + 1 + seed % 2));
            let spared = Numbers::default().and(2..4).and(10..200);
            let plan = Plan { dropped, spared, ..Plan::of(seed) };
            run_plan(kind, plan).unwrap_or_else(|failure| panic!("{failure}"));
        }
    }
}

#[test]
fn no_world_breaks_without_faults() {
    for kind in Kind::ALL {
        for seed in 0..8 {
            run_plan(kind, Plan::without_faults(seed)).unwrap_or_else(|failure| panic!("{failure}"));
        }
    }
}

#[test]
fn the_same_seed_is_the_same_world() {
    for kind in Kind::ALL {
        for seed in 1_000..1_004 {
            let run = || run_plan(kind, Plan::of(seed)).unwrap_or_else(|failure| panic!("{failure}"));
            assert_eq!(run(), run(), "seed {seed} of {kind}");
        }
    }
}

/// Worlds like those that found a bug of the core, which is mended; the core has its own test of each.
#[test]
fn worlds_that_broke_do_so_no_more() {
    // An epoch of reads alone makes no frame, and yet its calls filled the shard for ever.
    let reads = Plan { epoch_calls_max: 1, shards: 2, ..Plan::without_faults(0) };
    // A journal was trimmed while one who wanted to take its shard over began to read it.
    let trims =
        Plan { snapshot_tail_bytes: 300, egress_ms_max: 0, shards: 2, workers: 3, is_embedded: false, ..Plan::of(7) };
    // Progress that was confirmed and repeated at once stood twice in a record, which nobody then read.
    let progress = Plan::of(48);
    // What a group of timers had put back counted as due when the group was: a watermark went past it.
    let put_back = Plan::of(390);
    for (kind, plan) in [(Kind::Trees, reads), (Kind::Bank, trims), (Kind::Faults, progress), (Kind::Timers, put_back)]
    {
        run_plan(kind, plan).unwrap_or_else(|failure| panic!("{failure}"));
    }
}

#[test]
fn every_mutant_is_caught() {
    let mut survivors = Vec::new();
    for (Mutant { rule, workload, .. }, caught) in mutants::hunt_all() {
        match caught {
            Some(Caught { whole: Some(failure), .. }) => panic!("{failure}"),
            Some(Caught { seeds, failure, .. }) => {
                let first_line = failure.error.lines().next().unwrap_or_default();
                println!("{rule:?}: caught by world {seeds} of {workload}: {first_line:.160}");
            }
            None => survivors.push(rule),
        }
    }
    println!("figures: mutants={}", mutants::MUTANTS.len() - survivors.len());
    assert!(survivors.is_empty(), "no world notices that these do not hold: {survivors:?}");
}

/// Runs the world that a failure names: `STATEFN_SEED=17 STATEFN_WORKLOAD=bank`.
#[test]
fn one_seed() {
    let Ok(seed) = std::env::var("STATEFN_SEED") else { return };
    let seed = seed.parse().expect("STATEFN_SEED is a number");
    let changes = std::env::var("STATEFN_PLAN").unwrap_or_default();
    let kinds = match std::env::var("STATEFN_WORKLOAD") {
        Ok(kind) => vec![kind.parse().expect("STATEFN_WORKLOAD is a workload")],
        Err(_) => Kind::ALL.to_vec(),
    };
    for kind in kinds {
        let mut plan = Plan::of(seed);
        shrink::change(&mut plan, &changes).expect("STATEFN_PLAN is a list of `name=value`");
        let (report, trace) = run_plan(kind, plan).unwrap_or_else(|failure| panic!("{failure}"));
        println!("{kind}, trace {trace:016x}: {report}");
    }
}
