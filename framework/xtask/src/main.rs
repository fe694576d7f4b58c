//! Developer tasks: `cargo xtask help`.

mod bench;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
}

fn main() -> ExitCode {
    match Arguments::parse().task {
        Task::Bench(workload) => bench::main(workload),
    }
}
