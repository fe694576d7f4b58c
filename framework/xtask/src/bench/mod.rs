//! `cargo xtask bench`: how much work one core does, beside a loop that is written by hand.
//!
//! Each row of the table in `docs/PERFORMANCE.md` is a file here. A row has an app and the limit: a
//! loop by hand with the same input, the same bytes and the same syncs, without a framework. The
//! two take turns, each run in a process of its own, so that what else the machine does falls on
//! both. Figures are medians, and the ratio is what counts.
//!
//! Invariant: a run gives figures only if its audit is that of the loop: as many calls, the same
//! digest of what they saw, the same output ([`audit`]).
//!
//! Deliberately absent: any assertion on a time. Figures are for people.

mod allocations;
mod audit;
pub(crate) mod counted;
mod disk;
mod figures;
mod files;
mod gate;
mod http;
mod kafka;
mod keyed_sum;
mod latency;
mod meter;
mod numbers;
mod pin;
mod poison;
mod recovery;
mod row;
mod run_of_app;
mod sends;
mod start;
mod timers;
mod transfers;

use std::{
    env,
    io::{self, Write},
    process::{Command, ExitCode},
};

use clap::Subcommand;

use self::row::{Measuring, Row};

/// What is measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Workload {
    /// A count and a sum for each key, and a record out for each record in.
    KeyedSum(keyed_sum::Options),
    /// From read to committed output, at a steady rate.
    Latency(latency::Options),
    /// Requests over HTTP, each answered once it is durable.
    Http(http::Options),
    /// Messages from function to function, within a shard and to others.
    Sends(sends::Options),
    /// Pending timers, each of which fires and is set again.
    Timers(timers::Options),
    /// Money between accounts, durable and audited.
    Transfers(transfers::Options),
    /// Keys whose handlers break, beside the same app without them.
    Poison(poison::Options),
    /// The start of a process behind one that was killed.
    Recovery(recovery::Options),
    /// The start of an app, and the memory it takes.
    Start(start::Options),
    /// A worker of a fleet on a real broker: how much it does, and how soon.
    Kafka(kafka::Kafka),
    /// How long shards pause that move between workers which are started and stopped.
    Move(kafka::Moves),
    /// How long shards pause whose worker is killed.
    TakeOver(kafka::TakeOver),
    /// The start of a worker with many shards, and what it takes while nothing comes.
    IdleFleet(kafka::Idle),
    /// A worker of these rows.
    #[command(hide = true)]
    FleetWorker(kafka::Worker),
    /// The loop by hand beside such a worker.
    #[command(hide = true)]
    FleetByHand(kafka::ByHand),
}

type Failure = Box<dyn std::error::Error>;

/// Runs a workload and prints its figures.
pub(crate) fn main(workload: Workload) -> ExitCode {
    let done = match workload {
        Workload::KeyedSum(options) => run(&options),
        Workload::Latency(options) => run(&options),
        Workload::Http(options) => run(&options),
        Workload::Sends(options) => run(&options),
        Workload::Timers(options) => run(&options),
        Workload::Transfers(options) => run(&options),
        Workload::Poison(options) => run(&options),
        Workload::Recovery(options) => run(&options),
        Workload::Start(options) => run(&options),
        Workload::Kafka(options) => run_fleet(&options),
        Workload::Move(options) => run_fleet(&options),
        Workload::TakeOver(options) => run_fleet(&options),
        Workload::IdleFleet(options) => run_fleet(&options),
        Workload::FleetWorker(options) => options.run(),
        Workload::FleetByHand(options) => options.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "xtask bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run<R: Row>(row: &R) -> Result<(), Failure> {
    let measuring = row.measuring();
    if !is_built_for(measuring) {
        return build_and_run_again(measuring);
    }
    match measuring.side {
        Some(side) => row::run_here(row, side),
        None if measuring.count_allocations => allocations::compare(row),
        None => row::compare(row),
    }
}

fn run_fleet<R: kafka::FleetRow>(row: &R) -> Result<(), Failure> {
    let measuring = Measuring { unoptimized: row.common().unoptimized, ..Measuring::default() };
    if is_built_for(&measuring) { kafka::run(row) } else { build_and_run_again(&measuring) }
}

/// `cargo xtask` is a debug build, which says nothing about speed, and counts no allocations.
fn is_built_for(measuring: &Measuring) -> bool {
    let is_fast = !cfg!(debug_assertions) || measuring.unoptimized;
    is_fast && measuring.count_allocations == allocations::ARE_COUNTED
}

fn build_and_run_again(measuring: &Measuring) -> Result<(), Failure> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["run", "--quiet", "--package", "xtask"]);
    if !measuring.unoptimized {
        cargo.arg("--release");
    }
    if measuring.count_allocations {
        cargo.args(["--features", "count-allocations"]);
    }
    let status = cargo.arg("--").args(env::args_os().skip(1)).status()?;
    if status.success() { Ok(()) } else { Err("the run of the other build failed".into()) }
}
