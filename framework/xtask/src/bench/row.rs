//! What every row has, and how its two sides take turns.

use std::{
    env, io,
    path::Path,
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use clap::{Args, ValueEnum};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Failure,
    figures::{Figures, Report},
    files,
};

/// The variable that tells a run when its process was about to be made, in microseconds of Unix time.
pub(crate) const BEGUN_US: &str = "STATEFN_BENCH_BEGUN_US";

/// One row: an app and a loop by hand that do the same.
pub(crate) trait Row: Args + Serialize + DeserializeOwned {
    /// The name of the row on the command line.
    const NAME: &'static str;
    /// The figure whose ratio counts.
    const MERIT: &'static str;

    /// How it is measured.
    fn measuring(&self) -> &Measuring;

    /// The places of the parameter space that the options name, one by one, with what sets each apart.
    fn points(&self) -> Vec<(String, Self)>;

    /// The same with `factor` times as many events.
    fn times(&self, factor: u64) -> Self;

    /// How many events a point has.
    fn events(&self) -> u64;

    /// Makes what both sides read.
    fn prepare(&self) -> Result<(), Failure> {
        Ok(())
    }

    /// Makes one run of a point, in this process; `data` is an empty directory.
    fn run(&self, side: Side, data: &Path) -> Result<Figures, Failure>;

    /// What follows from the reports of several points.
    fn conclusions(&self, reports: &[Report]) -> Result<Vec<(String, f64)>, Failure> {
        let _ = reports;
        Ok(Vec::new())
    }
}

/// How a row is measured.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Measuring {
    /// How many runs count, after one to warm up.
    #[arg(long, default_value_t = 5)]
    pub(crate) runs: u32,
    /// Prints the figures as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Counts allocations instead: the difference between two sizes of input, so that the start cancels.
    #[arg(long)]
    pub(crate) count_allocations: bool,
    /// Makes one run of one side in this process, for a profiler, and prints its figures as JSON.
    #[arg(long, value_enum)]
    pub(crate) side: Option<Side>,
    /// Measures a build that is not optimised, for tests of the benchmarks.
    #[arg(long, hide = true)]
    pub(crate) unoptimized: bool,
    /// The point of the one run, instead of the first that the other options name.
    #[arg(long, hide = true)]
    pub(crate) point: Option<String>,
}

/// Who does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Side {
    App,
    ByHand,
}

/// Runs all points, both sides in turn, and prints the figures.
pub(crate) fn compare<R: Row>(row: &R) -> Result<(), Failure> {
    let mut reports = Vec::new();
    for (name, point) in row.points() {
        let report = compare_point(name, &point, row.measuring())?;
        if !row.measuring().json {
            super::figures::print(&report.to_string())?;
        }
        reports.push(report);
    }
    let conclusions = row.conclusions(&reports)?;
    match row.measuring().json {
        true => super::figures::print_json(R::NAME, &reports, &conclusions),
        false => conclusions.iter().try_for_each(|(name, value)| super::figures::print_one(name, *value)),
    }
}

fn compare_point<R: Row>(name: String, point: &R, measuring: &Measuring) -> Result<Report, Failure> {
    point.prepare()?;
    let mut report = Report::new(R::NAME, name, R::MERIT);
    for run in 0..=measuring.runs {
        let app = child(point, Side::App, measuring)?;
        let by_hand = child(point, Side::ByHand, measuring)?;
        app.check(&by_hand)?;
        // The first run of each only warms up what is cached.
        if run > 0 || measuring.runs == 0 {
            report.add(app, by_hand);
        }
    }
    Ok(report)
}

/// Makes one run in a process of its own.
pub(crate) fn child<R: Row>(point: &R, side: Side, measuring: &Measuring) -> Result<Figures, Failure> {
    let mut command = Command::new(env::current_exe()?);
    command.args(arguments(point, side, measuring)?).stdin(Stdio::null()).stderr(Stdio::inherit());
    let begun_us = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
    let output = command.env(BEGUN_US, begun_us.to_string()).output()?;
    if !output.status.success() {
        return Err(format!("the run of {side:?} failed: {}", output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The arguments that make another process of this program run one side of a point.
pub(crate) fn arguments<R: Row>(point: &R, side: Side, measuring: &Measuring) -> Result<Vec<String>, Failure> {
    let side = side.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let mut arguments = vec!["bench".into(), R::NAME.into(), "--side".into(), side];
    arguments.extend(["--point".into(), serde_json::to_string(point)?]);
    if measuring.count_allocations {
        arguments.push("--count-allocations".into());
    }
    if cfg!(debug_assertions) {
        arguments.push("--unoptimized".into());
    }
    Ok(arguments)
}

/// Makes one run in this process and prints its figures for the parent.
pub(crate) fn run_here<R: Row>(row: &R, side: Side) -> Result<(), Failure> {
    let point = match &row.measuring().point {
        Some(point) => serde_json::from_str(point)?,
        None => row.points().into_iter().next().ok_or("the options name no point")?.1,
    };
    point.prepare()?;
    let data = tempfile::tempdir_in(files::directory()?)?;
    serde_json::to_writer(io::stdout(), &point.run(side, data.path())?)?;
    Ok(())
}
