//! The long tests: a bounded share for each change, all of them once before a claim is made.
//!
//! Invariant: a part that is noted as done was done by the very program that would do it now: its
//! note bears the checksum of the program under test.
//!
//! Deliberately absent: tests that `cargo test` runs.

use std::{
    collections::hash_map::DefaultHasher,
    env, fs,
    hash::{Hash, Hasher},
    ops::Range,
    path::PathBuf,
    process::Command,
    time::Instant,
};

use crate::{
    Outcome, failpoints,
    flights::{Flights, workspace},
    kill, say,
};

/// A named share of the long tests.
struct Part {
    name: String,
    run: Box<dyn Fn() -> Outcome>,
}

impl Part {
    fn new(name: impl Into<String>, run: impl Fn() -> Outcome + 'static) -> Self {
        Self { name: name.into(), run: Box::new(run) }
    }

    fn kills(kills: u64, seed: u64, shards: u32, threads: usize) -> Self {
        let name = format!("kill-{kills}-seed-{seed}-shards-{shards}-threads-{threads}");
        Self::new(name, move || kill::run(&kill::Options { kills, seed, shards, threads, keep: None }))
    }

    /// Worlds of the simulator, of all workloads.
    fn worlds(seeds: Range<u64>) -> Self {
        let name = format!("worlds-{}-{}", seeds.start, seeds.end);
        Self::new(name, move || worlds(seeds.clone()))
    }

    /// Cores that lack a rule.
    fn mutants() -> Self {
        Self::new("mutants", mutants)
    }

    /// Deaths at failpoints: at the first passage only, or at more.
    fn failpoints(first: bool) -> Self {
        let name = if first { "failpoints-first" } else { "failpoints" };
        Self::new(name, move || failpoints::run(&failpoints::Options { first, ..failpoints::Options::default() }))
    }

    /// The tests of disk images and damages, which `cargo test` runs with fewer cases.
    fn disks(images: u64, flips: u64) -> Self {
        Self::new(format!("disk-images-{images}-flips-{flips}"), move || disks(images, flips))
    }
}

fn worlds(seeds: Range<u64>) -> Outcome {
    let started_at = Instant::now();
    let report = statefn_sim::run_all(seeds)?;
    let seconds = started_at.elapsed().as_secs_f64();
    say(&format!("{} worlds, {:.0} a second: {report}", report.seeds, report.seeds as f64 / seconds))?;
    for (fault, happened, mattered) in report.faults() {
        say(&format!("{fault}: {happened} times, changed something {mattered} times"))?;
    }
    let blind_spots = report.blind_spots();
    match blind_spots.is_empty() {
        true => Ok(()),
        false => Err(format!("these faults did not happen, or did not matter: {}", blind_spots.join(", ")).into()),
    }
}

/// Runs the hunt of the mutants as the tests do it: this program has a core without switches.
fn mutants() -> Outcome {
    let mut test = cargo();
    test.args(["test", "--package", "statefn-sim", "--test", "worlds", "every_mutant_is_caught", "--", "--nocapture"]);
    if test.status()?.success() { Ok(()) } else { Err("a mutant survived".into()) }
}

/// The cargo that runs this program, in the workspace.
fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace());
    cargo
}

fn disks(images: u64, flips: u64) -> Outcome {
    let mut test = cargo();
    test.args(["test", "--package", "statefn-runtime", "--lib", "disk_tests", "--", "--nocapture"]);
    test.env("STATEFN_DISK_IMAGES", images.to_string()).env("STATEFN_DISK_FLIPS", flips.to_string());
    if test.status()?.success() { Ok(()) } else { Err("the tests of disks failed".into()) }
}

fn bounded() -> Vec<Part> {
    vec![Part::kills(10, 1, 64, 2), Part::failpoints(true), Part::worlds(1_000..1_200), Part::mutants()]
}

fn in_full() -> Vec<Part> {
    /// How many seeds a slice of the worlds has, each for every workload.
    const SLICE: u64 = 500;
    let parts = [
        Part::kills(20, 101, 64, 2),
        Part::kills(20, 102, 64, 1),
        Part::kills(20, 103, 7, 2),
        Part::kills(20, 104, 16, 2),
        Part::kills(20, 105, 64, 4),
        Part::failpoints(false),
        Part::disks(10_000, 10_000),
    ];
    let worlds = (0..17_000).step_by(SLICE as usize).map(|start| Part::worlds(start..start + SLICE));
    parts.into_iter().chain(worlds).chain([Part::mutants()]).collect()
}

/// `cargo xtask ci`.
pub(crate) fn run_bounded() -> Outcome {
    bounded().iter().try_for_each(run)
}

/// `cargo xtask nightly`: goes on behind the parts that are done.
pub(crate) fn run_in_full() -> Outcome {
    let notes = notes()?;
    for part in in_full() {
        let note = notes.join(&part.name);
        if note.exists() {
            say(&format!("{}: done before", part.name))?;
            continue;
        }
        run(&part)?;
        fs::write(&note, "")?;
    }
    say(&format!("all parts are done; remove `{}` to do them again", notes.display()))
}

fn run(part: &Part) -> Outcome {
    say(&format!("== {}", part.name))?;
    let started_at = Instant::now();
    (part.run)().map_err(|error| format!("{}: {error}", part.name))?;
    say(&format!("{}: passed in {:.0} s", part.name, started_at.elapsed().as_secs_f64()))
}

/// The directory of notes for the program under test.
fn notes() -> Outcome<PathBuf> {
    let mut checksum = DefaultHasher::new();
    fs::read(Flights::build()?.binary)?.hash(&mut checksum);
    let notes = workspace().join(format!("target/nightly/{:016x}", checksum.finish()));
    fs::create_dir_all(&notes)?;
    Ok(notes)
}
