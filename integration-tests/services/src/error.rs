//! What can go wrong with a server of tests.

use std::{fmt::Display, io, path::PathBuf, process::Output, time::Duration};

/// How many lines of a log or of a command's output an error shows.
const LINES_SHOWN: usize = 20;

/// Why a server cannot be installed, started or controlled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something that the server needs is not on this machine.
    #[error("{what} is missing: {fix}")]
    Missing {
        /// What is missing.
        what: String,
        /// What to do.
        fix: String,
    },
    /// A command failed.
    #[error("`{command}` failed ({how}):\n{lines}")]
    Command {
        /// The command with its arguments.
        command: String,
        /// How it ended.
        how: String,
        /// The last lines that it wrote.
        lines: String,
    },
    /// A server ended, or did not take connections in time.
    #[error("{server} {how}; the last lines of `{}`:\n{lines}", log.display())]
    Server {
        /// Which server.
        server: &'static str,
        /// What it did.
        how: String,
        /// Where its log is.
        log: PathBuf,
        /// The last lines of its log.
        lines: String,
    },
    /// The server does not run, so it cannot be paused or resumed.
    #[error("{server} does not run: call `restart` first")]
    Stopped {
        /// Which server.
        server: &'static str,
    },
    /// The system refused something.
    #[error("cannot {what}: {error}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        error: io::Error,
    },
}

impl Error {
    /// Says what was tried when the system refused, for `map_err`.
    pub(crate) fn system<E: Into<io::Error>>(what: impl Display) -> impl FnOnce(E) -> Self {
        move |error| Self::System { what: what.to_string(), error: error.into() }
    }

    pub(crate) fn failed(command: String, output: &Output) -> Self {
        let written = [&output.stdout[..], &output.stderr[..]].concat();
        Self::Command { command, how: output.status.to_string(), lines: last_lines(&String::from_utf8_lossy(&written)) }
    }

    pub(crate) fn late(limit: Duration) -> String {
        format!("took no connection for {} s", limit.as_secs())
    }
}

pub(crate) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n")
}
