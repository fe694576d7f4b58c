//! The options of the keyed sum.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::bench::{Failure, row::Measuring};

/// What to run.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
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
    /// How many threads run shards; each number in turn.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
    pub(crate) threads: Vec<usize>,
    /// How many shards there are.
    #[arg(long, default_value_t = 64)]
    pub(crate) shards: u32,
    /// The shortest time between two commits; each in turn.
    #[arg(long, value_delimiter = ',', default_value = "1s", value_parser = humantime::parse_duration)]
    pub(crate) commit_interval: Vec<Duration>,
    /// How messages of 100 bytes are encoded.
    #[arg(long, value_enum, default_value_t = Messages::Protobuf)]
    pub(crate) messages: Messages,
    /// Where the record of each event goes.
    #[arg(long, value_enum, default_value_t = Output::Count)]
    pub(crate) output: Output,
    /// Where the journal is: nowhere (frames are sealed and forgotten), or in files.
    #[arg(long, value_enum, default_value_t = Log::Memory)]
    pub(crate) log: Log,
    #[command(flatten)]
    #[serde(skip)]
    pub(crate) measuring: Measuring,
}

/// What a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum KeyKind {
    Text,
    U64,
}

/// How messages are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Messages {
    Protobuf,
    Json,
}

/// Where output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Output {
    Count,
    File,
    None,
}

/// Where the journal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Log {
    Memory,
    Disk,
}

impl Options {
    /// How many records are read.
    pub(crate) fn events(&self) -> u64 {
        self.events.unwrap_or(match self.log {
            Log::Memory => 10_000_000,
            Log::Disk => 4_000_000,
        })
    }

    /// The threads of a point.
    pub(crate) fn threads(&self) -> Result<usize, Failure> {
        self.threads.first().copied().ok_or_else(|| "`--threads` names no number".into())
    }

    /// The commit interval of a point.
    pub(crate) fn commit_interval(&self) -> Result<Duration, Failure> {
        self.commit_interval.first().copied().ok_or_else(|| "`--commit-interval` names no time".into())
    }
}

/// The name that a value has on the command line.
pub(crate) fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
