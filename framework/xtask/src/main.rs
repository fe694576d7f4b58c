//! Developer tasks: `cargo xtask help`.

mod bench;
mod ci;
mod failpoints;
mod fleet;
mod flights;
mod http_client;
mod http_kill;
mod instructions;
mod kill;
mod orders_kill;
mod outputs;
mod service;
mod start_time;

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

/// What a task returns; the text of the error is all that a developer needs.
type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Developer tasks of statefn.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Measures how much work one core does.
    #[command(subcommand)]
    Bench(bench::Workload),
    /// Counts the instructions of an event and compares them with a committed baseline.
    Instructions(instructions::Options),
    /// Kills the flights example again and again and compares it with a run that nobody killed.
    Kill(kill::Options),
    /// Kills the bank while clients pay over HTTP, and counts every cent.
    HttpKill(http_kill::Options),
    /// Kills the shop while clients order over HTTP, and looks after every piece, cent and receipt.
    OrdersKill(http_kill::Options),
    /// Runs a fleet of the bank on this machine, with a Kafka broker, an S3 server and a load.
    Fleet(fleet::Options),
    /// Kills the flights example at every failpoint and compares it with a run that nobody killed.
    Failpoints(failpoints::Options),
    /// Runs the bounded share of the long tests.
    Ci,
    /// Runs the long tests in full; stopped and started again it goes on with the next part.
    Nightly,
    /// Measures the start of an app and the memory it takes.
    StartTime,
    /// Installs the real servers that tests use, or names what is missing.
    Setup,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Bench(workload) => return bench::main(workload),
        Task::Instructions(options) => instructions::run(&options),
        Task::Kill(options) => kill::run(&options),
        Task::HttpKill(options) => http_kill::run(&options),
        Task::OrdersKill(options) => orders_kill::run(&options),
        Task::Fleet(options) => fleet::run(&options),
        Task::Failpoints(options) => failpoints::run(&options).map(drop),
        Task::Ci => ci::run_bounded(),
        Task::Nightly => ci::run_in_full(),
        Task::StartTime => start_time::run(),
        Task::Setup => setup(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The reader of standard error may be gone; there is nobody else to tell.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Installs the servers of tests; the steps are told by the installer as they begin.
fn setup() -> Outcome {
    if services::install()?.is_empty() {
        return say("all servers are there");
    }
    say("all servers are installed")
}

/// Prints one fact on a line of its own.
fn say(fact: &str) -> Outcome {
    Ok(writeln!(io::stdout().lock(), "{fact}")?)
}
