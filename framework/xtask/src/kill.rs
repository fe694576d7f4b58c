//! Kills the flights example with SIGKILL at random moments and compares what comes of it with a
//! run that nobody killed.
//!
//! A kill *counts* if the journal, read after it, says that some input was committed and not all:
//! a copy of log and snapshots is asked by `flights positions`, so that the next start finds the
//! directory just as the kill has left it. The copy is verified by `flights check` as well.
//!
//! Invariants asserted after each kill: the process died of SIGKILL, no committed position went
//! back, the directory can be read and is whole, and log and snapshots keep within their bounds.
//!
//! Deliberately absent: loss of power, which takes away what was not synced; the simulator's disk
//! does that.

use std::{
    fs, io,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use fastrand::Rng;
use serde_json::Value;

use crate::{
    Outcome,
    flights::{Flights, Process, RECORDS},
    outputs, say,
};

/// The shortest and the longest life of a process that is killed.
const LIFE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(2_500));
/// How often the log directory is looked at while a process lives.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// Commit intervals that lives draw from.
const COMMIT_INTERVALS: [&str; 4] = ["0ms", "0ms", "5ms", "25ms"];
/// Small enough that the log is cut often.
const SEGMENT_BYTES: u64 = 512 << 10;
/// Small enough that shards take snapshots often.
const SNAPSHOT_TAIL_BYTES: u64 = 16 << 10;
/// The most segment files that may ever be there. Shards keep about three snapshots' worth of
/// journal each, here 12 to 24 MiB together, and each kill leaves a segment that is partly filled;
/// a log that is never cut would have 100 to 280, as measured.
const SEGMENTS_MAX: usize = 96;
/// The most snapshot files of a shard that may ever be there: two that are kept, those that egresses
/// have not reached, one whose successor is being read back, one that is being written, and those whose
/// removal a kill has prevented, which the next start or trim removes. One run of 10 kills had 6.
const SNAPSHOTS_OF_SHARD_MAX: usize = 8;
/// How many segments must have been removed at the end.
const SEGMENTS_REMOVED_MIN: u64 = 3;
const SIGKILL: i32 = 9;

/// What `cargo xtask kill` is told.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// How many kills must count
    #[arg(long, default_value_t = 10)]
    pub(crate) kills: u64,
    /// The seed of lives and commit intervals; what a kill hits is up to the machine
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// How many shards the app has
    #[arg(long, default_value_t = 64)]
    pub(crate) shards: u32,
    /// How many threads run the shards
    #[arg(long, default_value_t = 2)]
    pub(crate) threads: usize,
    /// Where the data go and stay; a temporary directory if not given
    #[arg(long)]
    pub(crate) keep: Option<PathBuf>,
}

/// Runs the task and prints a fact a line.
pub(crate) fn run(options: &Options) -> Outcome {
    let temporary = tempfile::tempdir()?;
    let directory = options.keep.clone().unwrap_or_else(|| temporary.path().to_owned());
    fs::create_dir_all(&directory)?;
    let flights = Flights::build()?;
    let mut killing = Killing::new(&flights, options, &directory);
    killing.run_uninterrupted()?;
    while killing.counted < options.kills {
        killing.live_and_die()?;
    }
    killing.run_to_the_end()?;
    killing.tell()?;
    killing.compare()
}

/// How far the input is committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Progress {
    /// What every shard has taken.
    records_min: u64,
    /// What the furthest shard has taken.
    records_max: u64,
    is_ended: bool,
}

struct Killing<'a> {
    flights: &'a Flights,
    options: &'a Options,
    random: Rng,
    data: PathBuf,
    reference: PathBuf,
    copy: PathBuf,
    log: PathBuf,
    progress: Progress,
    counted: u64,
    /// Kills before anything was committed; they do not count.
    early: u64,
    /// Counted kills before the process had committed anything itself.
    while_starting: u64,
    segments_max: usize,
    segments_removed: u64,
    segments_written: u64,
    snapshots_of_shard_max: usize,
}

impl<'a> Killing<'a> {
    fn new(flights: &'a Flights, options: &'a Options, directory: &Path) -> Self {
        Self {
            flights,
            options,
            random: Rng::with_seed(options.seed),
            data: directory.join("killed"),
            reference: directory.join("uninterrupted"),
            copy: directory.join("copy"),
            log: directory.join("flights.log"),
            progress: Progress::default(),
            counted: 0,
            early: 0,
            while_starting: 0,
            segments_max: 0,
            segments_removed: 0,
            segments_written: 0,
            snapshots_of_shard_max: 0,
        }
    }

    fn run_uninterrupted(&self) -> Outcome {
        let mut process = self.flights.start(&self.reference, &self.arguments(None, "0ms"), &self.log)?;
        self.must_succeed(&mut process)
    }

    /// Starts a process, kills it after a random time, and looks at what it has left.
    fn live_and_die(&mut self) -> Outcome {
        let life = LIFE.0 + LIFE.1.saturating_sub(LIFE.0).mul_f64(self.random.f64());
        let mut process = self.start(Some(self.records_per_second()))?;
        let started_at = Instant::now();
        while started_at.elapsed() < life {
            if let Some(status) = process.ended()? {
                return Err(self.broken(&format!("the process ended by itself, {status}, before it was killed")));
            }
            self.look()?;
            thread::sleep(LOOK_INTERVAL);
        }
        let status = process.kill()?;
        if status.signal() != Some(SIGKILL) {
            return Err(self.broken(&format!("the process ended with {status} before the kill reached it")));
        }
        self.look()?;
        self.count()
    }

    /// So few that the input cannot end before the last kill, even if every life is the longest.
    fn records_per_second(&self) -> f64 {
        let left = RECORDS.saturating_sub(self.progress.records_max) as f64;
        let lives = (self.options.kills - self.counted + 1) as f64;
        (left / (lives * LIFE.1.as_secs_f64())).max(1.0)
    }

    fn start(&mut self, records_per_second: Option<f64>) -> Outcome<Process> {
        let commit_interval = COMMIT_INTERVALS[self.random.usize(..COMMIT_INTERVALS.len())];
        self.flights.start(&self.data, &self.arguments(records_per_second, commit_interval), &self.log)
    }

    fn arguments(&self, records_per_second: Option<f64>, commit_interval: &str) -> Vec<String> {
        let rate = records_per_second.map(|rate| format!("--set=ingress.flights.records_per_second={rate:.1}"));
        let fixed = [
            format!("--shards={}", self.options.shards),
            format!("--threads={}", self.options.threads),
            format!("--commit-interval={commit_interval}"),
            format!("--set=segment_bytes={SEGMENT_BYTES}B"),
            format!("--set=snapshot_tail_bytes={SNAPSHOT_TAIL_BYTES}B"),
        ];
        fixed.into_iter().chain(rate).collect()
    }

    /// Decides whether the last kill counts, by what a copy of the data says.
    fn count(&mut self) -> Outcome {
        let before = self.progress;
        let after = self.progress_of_copy()?;
        if after.records_min < before.records_min || after.records_max < before.records_max {
            return Err(self.broken(&format!("committed input was lost: {after:?} after {before:?}")));
        }
        self.progress = after;
        if after.is_ended {
            return Err("the input was committed to its end before the last kill".into());
        }
        if after.records_max == 0 {
            self.early += 1;
            return Ok(());
        }
        self.counted += 1;
        self.while_starting += u64::from(after == before);
        Ok(())
    }

    fn progress_of_copy(&self) -> Outcome<Progress> {
        if !self.data.join("log/statefn.json").exists() {
            return Ok(Progress::default());
        }
        if self.copy.exists() {
            fs::remove_dir_all(&self.copy)?;
        }
        for part in ["log", "snapshots"] {
            copy_all(&self.data.join(part), &self.copy.join(part))?;
        }
        self.flights.ask(&self.copy, self.options.shards, "check")?;
        let positions = self.flights.ask(&self.copy, self.options.shards, "positions")?;
        // Nothing is printed before the first input is committed.
        let Some(position) = positions.lines().next() else { return Ok(Progress::default()) };
        let position: Value = serde_json::from_str(position)?;
        let number = |name: &str| position[name].as_u64().ok_or_else(|| format!("no `{name}` in {position}"));
        let is_ended = position["is_ended"].as_bool().unwrap_or_default();
        Ok(Progress { records_min: number("records_min")?, records_max: number("records_max")?, is_ended })
    }

    fn run_to_the_end(&mut self) -> Outcome {
        let mut process = self.start(None)?;
        while process.ended()?.is_none() {
            self.look()?;
            thread::sleep(LOOK_INTERVAL);
        }
        self.must_succeed(&mut process)?;
        self.look()
    }

    fn must_succeed(&self, process: &mut Process) -> Outcome {
        let status = process.wait()?;
        if status.success() { Ok(()) } else { Err(self.broken(&format!("a run ended with {status}"))) }
    }

    /// Notes how many files there are; the segments are numbered from 1.
    fn look(&mut self) -> Outcome {
        let names = names_in(&self.data.join("log"))?;
        let segments: Vec<u64> = names.iter().filter_map(|name| name.strip_suffix(".log")?.parse().ok()).collect();
        self.segments_max = self.segments_max.max(segments.len());
        let first = segments.iter().min().copied().unwrap_or(1);
        self.segments_removed = self.segments_removed.max(first - 1);
        self.segments_written = self.segments_written.max(segments.iter().max().copied().unwrap_or(0));
        let snapshots = self.data.join("snapshots");
        for shard in names_in(&snapshots)? {
            self.snapshots_of_shard_max = self.snapshots_of_shard_max.max(names_in(&snapshots.join(shard))?.len());
        }
        if self.segments_max > SEGMENTS_MAX || self.snapshots_of_shard_max > SNAPSHOTS_OF_SHARD_MAX {
            let (segments, snapshots) = (self.segments_max, self.snapshots_of_shard_max);
            return Err(self.broken(&format!(
                "the disk use is not bounded: {segments} segments of at most {SEGMENTS_MAX}, {snapshots} snapshots of one shard of at most {SNAPSHOTS_OF_SHARD_MAX}"
            )));
        }
        Ok(())
    }

    fn tell(&self) -> Outcome {
        let Options { kills, seed, shards, threads, .. } = self.options;
        let (early, starting) = (self.early, self.while_starting);
        say(&format!("seed {seed}, {shards} shards, {threads} threads: {kills} counted kills"))?;
        say(&format!(
            "  of which {starting} before the process had committed anything; {early} kills more did not count"
        ))?;
        say("every kill was SIGKILL; no committed input went back; the data were whole after each")?;
        let (segments, removed, written) = (self.segments_max, self.segments_removed, self.segments_written);
        say(&format!(
            "log: {written} segments of {SEGMENT_BYTES} bytes begun, {removed} removed, never more than {segments} there (limit {SEGMENTS_MAX})"
        ))?;
        let snapshots = self.snapshots_of_shard_max;
        say(&format!("snapshots: never more than {snapshots} files of one shard (limit {SNAPSHOTS_OF_SHARD_MAX})"))
    }

    fn compare(&self) -> Outcome {
        if self.segments_removed < SEGMENTS_REMOVED_MIN {
            return Err(
                format!("only {} segments were removed, not {SEGMENTS_REMOVED_MIN}", self.segments_removed).into()
            );
        }
        for fact in outputs::compare(&self.data, &self.reference)? {
            say(&fact)?;
        }
        let shards = self.options.shards;
        let (found, expected) =
            (self.flights.ask(&self.data, shards, "state")?, self.flights.ask(&self.reference, shards, "state")?);
        if let Some((found, expected)) = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected)
        {
            return Err(format!("the states differ: found {found}, expected {expected}").into());
        }
        if found != expected {
            return Err("the states differ: one run has keys that the other lacks".into());
        }
        say(&format!("state: {} keys equal", found.lines().count()))?;
        let checked = self.flights.ask(&self.data, shards, "check")?;
        say(&format!("check: {}", checked.lines().last().unwrap_or_default()))
    }

    /// An error with the end of what the processes have logged.
    fn broken(&self, what: &str) -> Box<dyn std::error::Error> {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(10)..].join("\n");
        format!("seed {}: {what}; the last log lines:\n{last}", self.options.seed).into()
    }
}

/// The names in a directory; none if there is no such directory (yet).
fn names_in(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for name in names_in(from)? {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            copy_all(&from, &to)?;
        } else {
            fs::copy(&from, &to)?;
        }
    }
    Ok(())
}
