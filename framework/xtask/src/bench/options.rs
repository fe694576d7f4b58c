//! The options of a workload, and the same for the process of one run.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

/// What to run, and how often.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// How many keys there are.
    #[arg(long, default_value_t = 100_000)]
    pub(crate) keys: u64,
    /// What a key is: `user-%012d`, or a number.
    #[arg(long, value_enum, default_value_t = KeyKind::Text)]
    pub(crate) key_kind: KeyKind,
    /// How many records are read; 10 million for a log in memory, 4 million for one on disk.
    #[arg(long)]
    pub(crate) events: Option<u64>,
    /// How many threads run shards.
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: usize,
    /// How many shards there are.
    #[arg(long, default_value_t = 64)]
    pub(crate) shards: u32,
    /// The shortest time between two commits.
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    pub(crate) commit_interval: Duration,
    /// How messages of 100 bytes are encoded.
    #[arg(long, value_enum, default_value_t = Messages::Protobuf)]
    pub(crate) messages: Messages,
    /// Where the record of each event goes.
    #[arg(long, value_enum, default_value_t = Output::Count)]
    pub(crate) output: Output,
    /// Where the journal is: nowhere (frames are sealed and forgotten), or in files.
    #[arg(long, value_enum, default_value_t = Log::Memory)]
    pub(crate) log: Log,
    /// How many runs count, after one to warm up.
    #[arg(long, default_value_t = 5)]
    pub(crate) runs: u32,
    /// Prints the figures as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Makes one run in this process.
    #[arg(long, hide = true)]
    pub(crate) side: Option<Side>,
    /// The file that this one run reads.
    #[arg(long, hide = true)]
    pub(crate) input: Option<PathBuf>,
}

/// What a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeyKind {
    Text,
    U64,
}

/// How messages are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Messages {
    Protobuf,
    Json,
}

/// Where output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Count,
    File,
    None,
}

/// Where the journal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Log {
    Memory,
    Disk,
}

/// Who does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Side {
    App,
    ByHand,
}

impl Options {
    /// How many records are read.
    pub(crate) fn events(&self) -> u64 {
        self.events.unwrap_or(match self.log {
            Log::Memory => 10_000_000,
            Log::Disk => 4_000_000,
        })
    }

    /// The arguments that make another process run one side of this.
    pub(crate) fn arguments(&self, side: Side) -> Vec<String> {
        vec![
            format!("--keys={}", self.keys),
            format!("--key-kind={}", name(self.key_kind)),
            format!("--events={}", self.events()),
            format!("--threads={}", self.threads),
            format!("--shards={}", self.shards),
            format!("--commit-interval={}", humantime::format_duration(self.commit_interval)),
            format!("--messages={}", name(self.messages)),
            format!("--output={}", name(self.output)),
            format!("--log={}", name(self.log)),
            format!("--side={}", name(side)),
        ]
    }
}

/// The name that a value has on the command line.
pub(crate) fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
