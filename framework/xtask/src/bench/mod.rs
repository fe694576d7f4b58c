//! `cargo xtask bench`: how much work one core does, beside a loop that is written by hand.
//!
//! Each run is a process of its own, whose CPU time counts; an app and the loop take turns, so that
//! what else the machine does falls on both. Figures are medians.
//!
//! Invariants: both read the same file, which is made before and lies in the page cache; a run
//! whose outcome is not complete (records, calls, what was emitted) fails and gives no figure.
//!
//! Deliberately absent: any assertion on a time. Figures are for people; see `docs/PERFORMANCE.md`.

mod by_hand;
mod case;
mod engine;
mod figures;
mod input;
mod options;

use std::{
    env, fs,
    io::{self, Write},
    path::PathBuf,
    process::{Command, ExitCode},
};

use clap::Subcommand;

use self::{
    case::Case,
    figures::{Figures, Report},
    options::{KeyKind, Messages, Options, Output, Side},
};

/// What is measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Workload {
    /// A count and a sum for each key, and a record out for each record in.
    KeyedSum(Options),
}

type Failure = Box<dyn std::error::Error>;

/// Runs a workload and prints its figures.
pub(crate) fn main(Workload::KeyedSum(options): Workload) -> ExitCode {
    let done = match options.side {
        _ if cfg!(debug_assertions) => return again_in_release(),
        Some(side) => measure(&options, side),
        None => compare(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "xtask bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `cargo xtask` is a debug build, which says nothing about speed.
fn again_in_release() -> ExitCode {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["run", "--quiet", "--release", "--package", "xtask", "--"]).args(env::args_os().skip(1));
    match cargo.status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Runs both sides in turn, each in a process of its own.
fn compare(options: &Options) -> Result<(), Failure> {
    let input = input::prepare(options, &directory()?)?;
    let mut report = Report::default();
    for run in 0..=options.runs {
        for side in [Side::App, Side::ByHand] {
            let figures = child(options, side, &input)?;
            // The first run of each only warms up what is cached.
            if run > 0 {
                report.add(side, figures);
            }
        }
    }
    let text = if options.json { serde_json::to_string_pretty(&report.summary())? + "\n" } else { report.to_string() };
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn child(options: &Options, side: Side, input: &PathBuf) -> Result<Figures, Failure> {
    let mut command = Command::new(env::current_exe()?);
    command.args(["bench", "keyed-sum"]).args(options.arguments(side));
    command.arg("--input").arg(input);
    let output = command.stderr(std::process::Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("the run of {side:?} failed: {}", output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Makes one run in this process and prints its figures for the parent.
fn measure(options: &Options, side: Side) -> Result<(), Failure> {
    let figures = match (options.key_kind, options.messages) {
        (KeyKind::Text, Messages::Protobuf) => measure_case::<case::text_protobuf::Here>(options, side),
        (KeyKind::Text, Messages::Json) => measure_case::<case::text_json::Here>(options, side),
        (KeyKind::U64, Messages::Protobuf) => measure_case::<case::number_protobuf::Here>(options, side),
        (KeyKind::U64, Messages::Json) => measure_case::<case::number_json::Here>(options, side),
    }?;
    serde_json::to_writer(io::stdout(), &figures)?;
    Ok(())
}

fn measure_case<C: Case>(options: &Options, side: Side) -> Result<Figures, Failure> {
    let input = options.input.clone().ok_or("the parent gives --input")?;
    let data = tempfile::tempdir_in(directory()?)?;
    let figures = match side {
        Side::App => engine::run::<C>(options, &input, data.path()),
        Side::ByHand => by_hand::run::<C>(options, &input, data.path()),
    }?;
    let expected = if options.output == Output::None { 0 } else { options.events() };
    if (figures.events, figures.emitted) != (options.events(), expected) {
        return Err(format!("{side:?} took {} and gave {} records", figures.events, figures.emitted).into());
    }
    Ok(figures)
}

/// Where inputs and data lie: beside what was built, so that `cargo clean` removes them.
fn directory() -> Result<PathBuf, Failure> {
    let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target")));
    let directory = target.join("bench");
    fs::create_dir_all(&directory)?;
    Ok(directory)
}
