//! The long tests: a bounded share for each change, all of them once before a claim is made.
//!
//! Each part counts what it has done; the last line of a run adds that up over all parts, also those
//! that an earlier run of the same program has done.
//!
//! Invariant: a part that is noted as done was done by the very program that would do it now: its
//! note bears the checksum of the program under test and of this one.
//!
//! Deliberately absent: tests that `cargo test` runs, but for those of disks and mutants, which are
//! run here with more cases, or to count them.

use std::{
    collections::hash_map::DefaultHasher,
    env, fmt, fs,
    hash::{Hash, Hasher},
    io::{BufRead, BufReader},
    ops::Range,
    path::PathBuf,
    process::{Command, Stdio},
    time::Instant,
};

use clap::Parser;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    Arguments, Outcome, Task, failpoints, fleet,
    flights::{Flights, workspace},
    http_kill, kill, orders_kill, say,
};

/// The command of README that runs a fleet.
const FLEET: &str = "cargo xtask fleet --workers 3";

/// How a line of a test begins that says what it has done, such as `figures: images=500 nested=125`.
const FIGURES: &str = "figures: ";

/// What parts have done.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Figures {
    /// Worlds of the simulator, and what happened in them.
    seeds: u64,
    seeds_in_s: f64,
    faults: u64,
    /// Cores that lack a rule, and disks on which a sync or an order is left out, which were caught.
    mutants: u64,
    disk_mutants: u64,
    /// Processes that were killed while they worked.
    kills: u64,
    /// Workers of a fleet that were killed, and all faults of workers and servers of one.
    fleet_kills: u64,
    fleet_faults: u64,
    /// Places at which processes died, and how many did.
    failpoints: u64,
    deaths: u64,
    /// Disks as a crash may have left them, and those of a crash during their recovery.
    images: u64,
    nested: u64,
    /// Damaged bits and files, and how many nobody noticed.
    flips: u64,
    silent: u64,
    /// Parts that found something wrong.
    violations: u64,
}

impl Figures {
    fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.seeds_in_s += other.seeds_in_s;
        self.faults += other.faults;
        self.mutants += other.mutants;
        self.disk_mutants += other.disk_mutants;
        self.kills += other.kills;
        self.fleet_kills += other.fleet_kills;
        self.fleet_faults += other.fleet_faults;
        self.failpoints = self.failpoints.max(other.failpoints);
        self.deaths += other.deaths;
        self.images += other.images;
        self.nested += other.nested;
        self.flips += other.flips;
        self.silent += other.silent;
        self.violations += other.violations;
    }

    /// Reads what a line of a test says; nothing if it says something else.
    fn of_line(line: &str) -> Outcome<Option<Self>> {
        let Some((_, figures)) = line.split_once(FIGURES) else { return Ok(None) };
        let mut map = Map::new();
        for figure in figures.split_whitespace() {
            let (name, count) = figure.split_once('=').ok_or_else(|| format!("no figure: `{figure}`"))?;
            map.insert(name.to_owned(), count.parse::<u64>()?.into());
        }
        Ok(Some(serde_json::from_value(Value::Object(map))?))
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seeds, seeds_in_s, faults, mutants, disk_mutants, violations, .. } = self;
        let Self { kills, fleet_kills, fleet_faults, failpoints, deaths, images, nested, flips, silent, .. } = self;
        let rate = *seeds as f64 / seeds_in_s.max(f64::EPSILON);
        let faults = *faults as f64 / (*seeds).max(1) as f64;
        write!(
            f,
            "{seeds} seeds at {rate:.0} seeds/s with {faults:.1} faults each, {violations} violations; {kills} kills; {fleet_faults} faults of a fleet, {fleet_kills} of them kills; {deaths} deaths at {failpoints} failpoints; {images} images and {nested} of a crash while one was recovered; {flips} flips, {silent} silent; {mutants} mutants of the core and {disk_mutants} of disks caught"
        )
    }
}

/// A named share of the long tests.
struct Part {
    name: String,
    run: Box<dyn Fn() -> Outcome<Figures>>,
}

impl Part {
    fn new(name: impl Into<String>, run: impl Fn() -> Outcome<Figures> + 'static) -> Self {
        Self { name: name.into(), run: Box::new(run) }
    }

    fn kills(kills: u64, seed: u64, shards: u32, threads: usize) -> Self {
        let name = format!("kill-{kills}-seed-{seed}-shards-{shards}-threads-{threads}");
        Self::new(name, move || {
            kill::run(&kill::Options { kills, seed, shards, threads, keep: None })?;
            Ok(Figures { kills, ..Figures::default() })
        })
    }

    /// Kills of a service under load.
    fn http_kills(kills: u64, seed: u64) -> Self {
        Self::new(format!("http-kill-{kills}-seed-{seed}"), move || {
            http_kill::run(&http_kill::Options { kills, seed, clients: 4 })?;
            Ok(Figures { kills, ..Figures::default() })
        })
    }

    /// Kills of a service whose orders are sagas.
    fn orders_kills(kills: u64, seed: u64) -> Self {
        Self::new(format!("orders-kill-{kills}-seed-{seed}"), move || {
            orders_kill::run(&http_kill::Options { kills, seed, clients: 4 })?;
            Ok(Figures { kills, ..Figures::default() })
        })
    }

    /// Worlds of the simulator, of all workloads.
    fn worlds(seeds: Range<u64>) -> Self {
        let name = format!("worlds-{}-{}", seeds.start, seeds.end);
        Self::new(name, move || worlds(seeds.clone()))
    }

    /// Cores that lack a rule: this program has a core without switches, so the test hunts them.
    fn mutants() -> Self {
        let arguments = ["--test", "worlds", "every_mutant_is_caught"];
        Self::new("mutants", move || tests(&arguments, &[], &[]))
    }

    /// Deaths at failpoints: at the first passage only, or at more.
    fn failpoints(first: bool) -> Self {
        let name = if first { "failpoints-first" } else { "failpoints" };
        Self::new(name, move || {
            let options = failpoints::Options { first, ..failpoints::Options::default() };
            let (deaths, failpoints) = failpoints::run(&options)?;
            Ok(Figures { deaths, failpoints, ..Figures::default() })
        })
    }

    /// The tests of disk images, damages, full disks, and mutants of the writing.
    fn disks(images: u64, flips: u64) -> Self {
        let arguments = ["--lib", "disk_tests"];
        let cases = [("STATEFN_DISK_IMAGES", images), ("STATEFN_DISK_FLIPS", flips)];
        Self::new(format!("disk-images-{images}-flips-{flips}"), move || tests(&arguments, &[], &cases))
    }

    /// What README says of a fleet, for a while, with kills: every cent is counted in the end.
    fn local_fleet(seconds: u64, kills: u64) -> Self {
        Self::new(format!("local-fleet-kills-{kills}"), move || {
            let more = format!(" --seconds {seconds} --kills {kills}");
            let Task::Fleet(options) = Arguments::try_parse_from((FLEET.to_owned() + &more).split(' ').skip(1))?.task
            else {
                return Err(format!("`{FLEET}` is another task").into());
            };
            fleet::run(&options)?;
            Ok(Figures { fleet_kills: kills, fleet_faults: kills, ..Figures::default() })
        })
    }

    /// Faults of a fleet on real servers: a test, with so many kills and others with them.
    fn fleet(test: &'static str, kills: u64) -> Self {
        let arguments = ["--test", "fleet", test];
        let cases = [("STATEFN_FLEET_KILLS", kills)];
        Self::new(format!("fleet-{test}-kills-{kills}"), move || tests(&arguments, &["--ignored"], &cases))
    }
}

fn worlds(seeds: Range<u64>) -> Outcome<Figures> {
    let started_at = Instant::now();
    let report = statefn_sim::run_all(seeds)?;
    let seconds = started_at.elapsed().as_secs_f64();
    say(&format!("{} worlds, {:.0} a second: {report}", report.seeds, report.seeds as f64 / seconds))?;
    for (fault, happened, mattered) in report.faults() {
        say(&format!("{fault}: {happened} times, changed something {mattered} times"))?;
    }
    let blind_spots = report.blind_spots();
    if !blind_spots.is_empty() {
        return Err(format!("these faults did not happen, or did not matter: {}", blind_spots.join(", ")).into());
    }
    let faults = report.injected();
    Ok(Figures { seeds: report.seeds, seeds_in_s: seconds, faults, ..Figures::default() })
}

/// Runs tests, prints what they print, and adds up the figures in that. Those of the whole workspace are
/// chosen from: `cargo test` has built them so, and those of one package would be built anew.
fn tests(arguments: &[&str], options: &[&str], cases: &[(&str, u64)]) -> Outcome<Figures> {
    let mut test = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    test.current_dir(workspace())
        .args(["test", "--workspace"])
        .args(arguments)
        .args(["--", "--nocapture"])
        .args(options);
    test.envs(cases.iter().map(|(name, count)| (name, count.to_string())));
    let mut running = test.stdout(Stdio::piped()).spawn()?;
    let mut figures = Figures::default();
    for line in BufReader::new(running.stdout.take().ok_or("no output of the tests")?).lines() {
        let line = line?;
        say(&line)?;
        if let Some(counted) = Figures::of_line(&line)? {
            figures.add(&counted);
        }
    }
    if running.wait()?.success() { Ok(figures) } else { Err("a test failed".into()) }
}

fn bounded() -> Vec<Part> {
    vec![
        Part::kills(10, 1, 64, 2),
        Part::http_kills(10, 1),
        Part::orders_kills(10, 1),
        Part::failpoints(true),
        Part::disks(500, 1_000),
        Part::worlds(1_000..1_200),
        Part::mutants(),
    ]
}

fn in_full() -> Vec<Part> {
    /// How many seeds a slice of the worlds has, each for every workload.
    const SLICE: u64 = 500;
    /// By part with 20 kills: how many shards and threads.
    const KILLED: [(u32, usize); 10] =
        [(64, 2), (64, 1), (7, 2), (16, 2), (64, 4), (64, 2), (1, 1), (4, 2), (64, 3), (128, 2)];
    let kills = KILLED.into_iter().zip(101..).map(|((shards, threads), seed)| Part::kills(20, seed, shards, threads));
    let worlds = (0..17_000).step_by(SLICE as usize).map(|start| Part::worlds(start..start + SLICE));
    let http_kills = (201..206).map(|seed| Part::http_kills(20, seed));
    let orders_kills = (301..306).map(|seed| Part::orders_kills(20, seed));
    let kills = kills.chain(http_kills).chain(orders_kills);
    let fleets = [
        Part::local_fleet(30, 2),
        Part::fleet("faults_of_all_kinds_lose_nothing_and_double_nothing", 100),
        Part::fleet("faults_of_all_kinds_leave_the_bank_every_cent", 30),
    ];
    kills
        .chain(fleets)
        .chain([Part::failpoints(false), Part::disks(10_000, 10_000)])
        .chain(worlds)
        .chain([Part::mutants()])
        .collect()
}

/// `cargo xtask ci`.
pub(crate) fn run_bounded() -> Outcome {
    let mut all = Figures::default();
    for part in bounded() {
        all.add(&run(&part)?);
    }
    say(&format!("ci: {all}"))
}

/// `cargo xtask nightly`: goes on behind the parts that are done, and behind those that fail.
pub(crate) fn run_in_full() -> Outcome {
    let notes = notes()?;
    let mut all = Figures::default();
    let mut failures = Vec::new();
    for part in in_full() {
        let note = notes.join(&part.name);
        if note.exists() {
            say(&format!("{}: done before", part.name))?;
            all.add(&serde_json::from_slice(&fs::read(&note)?)?);
            continue;
        }
        match run(&part) {
            Ok(figures) => {
                fs::write(&note, serde_json::to_vec(&figures)?)?;
                all.add(&figures);
            }
            Err(error) => {
                say(&error.to_string())?;
                all.violations += 1;
                failures.push(part.name);
            }
        }
    }
    say(&format!("what is done is noted in `{}`; remove that to do it again", notes.display()))?;
    say(&format!("nightly: {all}"))?;
    if failures.is_empty() { Ok(()) } else { Err(format!("these failed: {}", failures.join(", ")).into()) }
}

fn run(part: &Part) -> Outcome<Figures> {
    say(&format!("== {}", part.name))?;
    let started_at = Instant::now();
    let figures = (part.run)().map_err(|error| format!("{}: {error}", part.name))?;
    say(&format!("{}: passed in {:.0} s", part.name, started_at.elapsed().as_secs_f64()))?;
    Ok(figures)
}

/// The directory of notes for the program under test.
fn notes() -> Outcome<PathBuf> {
    let mut checksum = DefaultHasher::new();
    fs::read(Flights::build()?.binary)?.hash(&mut checksum);
    fs::read(env::current_exe()?)?.hash(&mut checksum);
    let notes = workspace().join(format!("target/nightly/{:016x}", checksum.finish()));
    fs::create_dir_all(&notes)?;
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::Figures;

    #[test]
    fn figures_of_tests_are_read_and_added_up() {
        let mut all = Figures { images: 1, ..Figures::default() };
        let line = "test images ... figures: images=500 nested=125";
        all.add(&Figures::of_line(line).expect("readable").expect("figures"));
        assert_eq!((all.images, all.nested), (501, 125));
        assert!(Figures::of_line("test images ... ok").expect("readable").is_none());
        assert!(Figures::of_line("figures: pictures=1").is_err());
        let note = serde_json::to_vec(&all).expect("JSON");
        assert_eq!(serde_json::from_slice::<Figures>(&note).expect("a note").to_string(), all.to_string());
    }
}
