//! Kills the flights example at every failpoint and compares what comes of it with a run that
//! nobody killed.
//!
//! An uninterrupted run says how often each point is passed; each is then died at when it is passed
//! for the first time, the second, and half-way or as near to it as a run comes: how often a point
//! is passed is up to timing. The points of the start are died at by a second start as well, and
//! those that only a second start passes only there. A point at which no process died fails the
//! task.
//!
//! Invariants asserted of each death: it was SIGKILL; the next start goes on to the end by itself;
//! outputs, states and `check` are then what they are without a death.
//!
//! Deliberately absent: loss of power, which the tests of disk images are for.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
};

use clap::Args;
use flate2::read::GzDecoder;
use statefn::failpoint::NAMES;

use crate::{
    Outcome,
    flights::{Flights, Process, workspace},
    outputs, say,
};

/// The profile of tests: it is built soon, and how fast it is does not matter here.
const BUILD: [&str; 2] = ["--features", "statefn/failpoints"];
const SHARDS: u32 = 4;
/// How many flights the input has if it is not said.
const RECORDS: usize = 6_000;
/// So small and slow that there are many stretches, epochs, segments and snapshots in a second.
const ARGUMENTS: [&str; 5] = [
    "--shards=4",
    "--threads=2",
    "--set=ingress.flights.records_per_second=10000",
    "--set=segment_bytes=32KiB",
    "--set=snapshot_tail_bytes=1KiB",
];
/// Where the process before dies if a point needs a second start: with lines that no mark knows, or
/// else with a group that the superblock does not know.
const DEATHS_BEFORE: [(&str, u64); 2] = [("egress/lines-synced", 5), ("log/group-synced", 20)];
const SIGKILL: i32 = 9;

/// What `cargo xtask failpoints` is told.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// How many flights the input has
    #[arg(long, default_value_t = RECORDS)]
    pub(crate) records: usize,
    /// Only points whose name begins so
    #[arg(long, default_value = "")]
    pub(crate) only: String,
    /// Die at the first passage only
    #[arg(long)]
    pub(crate) first: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { records: RECORDS, only: String::new(), first: false }
    }
}

/// Runs the task and prints a fact a line; returns how many processes died, and at how many places.
pub(crate) fn run(options: &Options) -> Outcome<(u64, u64)> {
    let temporary = tempfile::tempdir()?;
    let flights = Flights::build_with(&BUILD)?;
    let input = temporary.path().join("flights.csv");
    write_input(&input, options.records)?;
    let mut task = Dying::new(&flights, temporary.path(), &input)?;
    let counts = task.run_uninterrupted()?;
    for (name, count) in counts.iter().filter(|(name, _)| name.starts_with(&options.only)) {
        task.die_at_point(name, *count, options.first)?;
    }
    say(&format!("{} deaths at {} points; after each the outputs and states were equal", task.deaths, task.points))?;
    Ok((task.deaths, task.points))
}

/// Writes the first records of the example's file.
fn write_input(path: &Path, records: usize) -> Outcome {
    let all = workspace().join("examples/flights/data/flights.csv.gz");
    let all = BufReader::new(GzDecoder::new(fs::File::open(all)?));
    let mut input = Vec::new();
    for line in all.lines().take(records + 1) {
        writeln!(input, "{}", line?)?;
    }
    Ok(fs::write(path, input)?)
}

struct Dying<'a> {
    flights: &'a Flights,
    arguments: Vec<String>,
    reference: PathBuf,
    data: PathBuf,
    log: PathBuf,
    counts: PathBuf,
    /// The states of the uninterrupted run.
    states: String,
    deaths: u64,
    points: u64,
}

impl<'a> Dying<'a> {
    fn new(flights: &'a Flights, directory: &Path, input: &Path) -> Outcome<Self> {
        let path = format!("--set=ingress.flights.path={}", serde_json::to_string(input)?);
        Ok(Self {
            flights,
            arguments: ARGUMENTS.iter().map(|argument| (*argument).to_owned()).chain([path]).collect(),
            reference: directory.join("uninterrupted"),
            data: directory.join("killed"),
            log: directory.join("flights.log"),
            counts: directory.join("counts"),
            states: String::new(),
            deaths: 0,
            points: 0,
        })
    }

    /// Returns how often the run has passed each point.
    fn run_uninterrupted(&mut self) -> Outcome<Vec<(&'static str, u64)>> {
        let counts = ("STATEFN_FAILPOINT_COUNTS", self.counts.display().to_string());
        let mut process = self.flights.start_in(&[counts], &self.reference, &self.arguments, &self.log)?;
        self.must_succeed(&mut process)?;
        self.states = self.flights.ask(&self.reference, SHARDS, "state")?;
        let counts = fs::read_to_string(&self.counts)?;
        let lines = NAMES.iter().zip(counts.lines());
        let count = |(name, line): (&&'static str, &str)| Ok((*name, line.rsplit(' ').next().unwrap_or("").parse()?));
        lines.map(count).collect()
    }

    fn die_at_point(&mut self, name: &'static str, passed: u64, is_first_only: bool) -> Outcome {
        let is_start = name.starts_with("start/");
        let mut deaths = Vec::new();
        for count in [1, 2].into_iter().take(if is_first_only { 1 } else { 2 }).filter(|count| *count <= passed) {
            if self.die_at(name, count, None)? {
                deaths.push(count.to_string());
            }
        }
        // How often the next run passes a point is up to timing.
        let mut middle = if is_first_only { 0 } else { passed / 2 };
        while middle > 2 {
            if self.die_at(name, middle, None)? {
                deaths.push(middle.to_string());
                break;
            }
            middle /= 2;
        }
        for before in DEATHS_BEFORE.into_iter().filter(|_| is_start || passed == 0) {
            if self.die_at(name, 1, Some(before))? {
                deaths.push("1 of a second start".to_owned());
                break;
            }
        }
        if deaths.is_empty() {
            return Err(format!("no process died at `{name}`: it is never passed, or no longer needed").into());
        }
        self.deaths += deaths.len() as u64;
        self.points += 1;
        say(&format!("{name}: passed {passed} times; died at passage {}", deaths.join(", ")))
    }

    /// Lets a process die, another one go on, and compares; returns whether the first one died.
    fn die_at(&self, name: &str, count: u64, before: Option<(&str, u64)>) -> Outcome<bool> {
        if self.data.exists() {
            fs::remove_dir_all(&self.data)?;
        }
        if let Some((name, count)) = before
            && !self.live(name, count)?
        {
            return Err(format!("no process died at `{name}` when it was passed for the {count}th time").into());
        }
        if !self.live(name, count)? {
            return Ok(false);
        }
        let mut process = self.flights.start(&self.data, &self.arguments, &self.log)?;
        let compared = self.must_succeed(&mut process).and_then(|()| self.compare());
        compared.map_err(|error| format!("after a death at `{name}:{count}`: {error}"))?;
        Ok(true)
    }

    /// Runs until the death at a point or to the end; returns whether it died.
    fn live(&self, name: &str, count: u64) -> Outcome<bool> {
        let point = ("STATEFN_FAILPOINT", format!("{name}:{count}"));
        let mut process = self.flights.start_in(&[point], &self.data, &self.arguments, &self.log)?;
        let status = process.wait()?;
        match status.signal() {
            Some(SIGKILL) => Ok(true),
            None if status.success() => Ok(false),
            _ => Err(self.broken(&format!("`{name}:{count}` ended with {status}"))),
        }
    }

    fn must_succeed(&self, process: &mut Process) -> Outcome {
        let status = process.wait()?;
        if status.success() { Ok(()) } else { Err(self.broken(&format!("a run ended with {status}"))) }
    }

    fn compare(&self) -> Outcome {
        outputs::compare(&self.data, &self.reference)?;
        let states = self.flights.ask(&self.data, SHARDS, "state")?;
        if let Some((found, expected)) = states.lines().zip(self.states.lines()).find(|(found, wanted)| found != wanted)
        {
            return Err(format!("the states differ: found {found}, expected {expected}").into());
        }
        if states != self.states {
            return Err("the states differ: one run has keys that the other lacks".into());
        }
        self.flights.ask(&self.data, SHARDS, "check").map(drop)
    }

    /// An error with the end of what the processes have logged.
    fn broken(&self, what: &str) -> Box<dyn std::error::Error> {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!("{what}; the last log lines:\n{}", lines[lines.len().saturating_sub(10)..].join("\n")).into()
    }
}
