//! Worlds of many seeds, and what must be true of the simulator itself.

use statefn_sim::{MUTANTS, plan::Plan, report::Report, run_mutant, run_plan, run_seeds, workload::Kind};

/// How many worlds of each workload a run of the tests has; `cargo xtask` runs more.
const SEEDS: u64 = 60;
/// After how many worlds a mutant counts as having survived.
const MUTANT_SEEDS_MAX: u64 = 200;

#[test]
fn no_world_breaks() {
    let reports = std::thread::scope(|scope| {
        let runs = Kind::ALL.map(|kind| scope.spawn(move || run_seeds(kind, 0..SEEDS)));
        runs.map(|run| run.join().expect("a run of seeds does not panic"))
    });
    let mut all = Report::default();
    for (kind, report) in Kind::ALL.iter().zip(reports) {
        let report = report.unwrap_or_else(|failure| panic!("{failure}"));
        println!("{kind}: {report}");
        all.add(&report);
    }
    check_faults_happened(&all);
}

/// A simulator that injects nothing passes every check.
fn check_faults_happened(report: &Report) {
    let expected = [
        ("crashes", report.crashes),
        ("pauses", report.pauses),
        ("moves", report.moves),
        ("deposed owners", report.deposed),
        ("refused appends", report.appends_refused),
        ("unknown appends", report.appends_unknown),
        ("late appends", report.appends_late),
        ("torn appends", report.appends_torn),
        ("void frames", report.frames_void),
        ("parts", report.parts),
        ("carried epochs", report.epochs_carried),
        ("snapshots", report.snapshots),
        ("failed snapshots", report.snapshots_failed),
        ("marks", report.marks),
        ("trims", report.trims),
        ("recoveries from a snapshot", report.recovered_from_snapshot),
        ("lost mail", report.mail_lost),
        ("doubled mail", report.mail_doubled),
        ("answers", report.answers),
        ("emitted records", report.emitted),
        ("repeated emissions", report.emitted_again),
        ("parked keys", report.parked),
    ];
    for (what, count) in expected {
        assert!(count > 0, "no {what} in {} worlds: the simulator does not inject them any more", report.seeds);
    }
    assert!(report.takeovers > report.seeds * 2, "take-overs after the first ones");
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

#[test]
fn every_mutant_is_caught() {
    for (rule, kind) in MUTANTS {
        match run_mutant(rule, kind, 0..MUTANT_SEEDS_MAX) {
            Some((seeds, failure)) => println!("{rule:?}: caught by world {seeds} of {kind}: {}", failure.error),
            None => panic!("no world of {kind} notices that {rule:?} does not hold"),
        }
    }
}

/// Runs the world that a failure names: `STATEFN_SEED=17 STATEFN_WORKLOAD=bank`.
#[test]
fn one_seed() {
    let Ok(seed) = std::env::var("STATEFN_SEED") else { return };
    let seed = seed.parse().expect("STATEFN_SEED is a number");
    let kinds = match std::env::var("STATEFN_WORKLOAD") {
        Ok(kind) => vec![kind.parse().expect("STATEFN_WORKLOAD is a workload")],
        Err(_) => Kind::ALL.to_vec(),
    };
    for kind in kinds {
        let (report, trace) = run_plan(kind, Plan::of(seed)).unwrap_or_else(|failure| panic!("{failure}"));
        println!("{kind}, trace {trace:016x}: {report}");
    }
}
