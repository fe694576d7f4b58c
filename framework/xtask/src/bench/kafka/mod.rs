//! A fleet on a real broker: rows that start servers and worker processes, and end them again.
//!
//! They have no loop by hand that takes turns with an app, so they are no [`Row`](super::row::Row)s: each
//! prints one figure a line, and beside it what it should be. Broker, S3 server, workers and clients share
//! the machine, so each row also says how much else it had to do when it began.
//!
//! Invariants: nothing is measured of a run whose output is not whole: each record out stands once, in the
//! order of its key, and the last one of a key has the count that was written. Servers and workers
//! listen on the loopback interface, and end with the process that started them.
//!
//! Deliberately absent: several machines, and replicas of the broker.

mod app;
mod audit;
mod by_hand;
mod idle;
mod latency;
mod load;
mod moves;
mod processes;
mod rate;
mod results;
mod servers;
mod take_over;

use std::time::Duration;

use clap::Args;

use self::results::Results;
pub(crate) use self::{app::Worker, by_hand::ByHand, idle::Idle, moves::Moves, take_over::TakeOver};
use super::Failure;

/// A row with a fleet.
pub(crate) trait FleetRow {
    /// The name of the row on the command line.
    const NAME: &'static str;

    fn common(&self) -> &Common;

    /// Starts all that is needed, measures, and ends it.
    fn measure(&self, results: &mut Results) -> Result<(), Failure>;
}

/// What all these rows are told.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// Prints the figures as JSON.
    #[arg(long)]
    json: bool,
    /// Measures a build that is not optimised, for tests of the benchmarks.
    #[arg(long, hide = true)]
    pub(crate) unoptimized: bool,
    /// A setting of the workers besides those of the row, `name=value`.
    #[arg(long = "set")]
    settings: Vec<String>,
    /// The app has a function that sends, though it never does, so workers follow mailboxes and progress.
    #[arg(long)]
    sends: bool,
}

/// Runs a row and prints its figures.
pub(crate) fn run<R: FleetRow>(row: &R) -> Result<(), Failure> {
    let mut results = Results::new(R::NAME, row.common().json);
    results.tell_load("load before")?;
    row.measure(&mut results)?;
    results.tell_load("load behind")?;
    results.end()
}

/// What is measured of a worker beside a real broker: how much it does, and how soon.
#[derive(Debug, Clone, Args)]
pub(crate) struct Kafka {
    /// How many records are written before, and read.
    #[arg(long, default_value_t = 2_000_000)]
    records: u64,
    /// How many keys there are.
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// How many partitions the topics have; as many as there are shards if not given.
    #[arg(long)]
    partitions: Option<u32>,
    /// How many shards there are.
    #[arg(long, default_value_t = 64)]
    shards: u32,
    /// How many threads run shards.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// The shortest time between two commits while as much as possible is read.
    #[arg(long, default_value = "100ms", value_parser = humantime::parse_duration)]
    commit_interval: Duration,
    /// How many records a second come where latency is measured.
    #[arg(long, default_value_t = 200)]
    rate: u64,
    /// For how long.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    time: Duration,
    /// Measures the one, the other, or both.
    #[arg(long, value_enum, default_value_t = Part::Both)]
    part: Part,
    #[command(flatten)]
    common: Common,
}

impl Kafka {
    fn partitions(&self) -> u32 {
        self.partitions.unwrap_or(self.shards)
    }
}

/// What is measured of [`Kafka`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Rate,
    Latency,
    Both,
}

impl FleetRow for Kafka {
    const NAME: &'static str = "kafka";

    fn common(&self) -> &Common {
        &self.common
    }

    fn measure(&self, results: &mut Results) -> Result<(), Failure> {
        if self.part != Part::Latency {
            rate::measure(self, results)?;
        }
        if self.part != Part::Rate {
            latency::measure(self, results)?;
        }
        Ok(())
    }
}
