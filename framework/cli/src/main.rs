//! `statefn`: asks a running app by its admin interface, or reads a data directory, without the app's program.

use std::{
    io::{BufWriter, ErrorKind, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Parser;
use statefn_cli::{Client, Command, Connection, Data, Error, Output, execute};

/// Asks an app of statefn that runs (`--url`), or the data of one that does not (`--data`).
#[derive(Parser)]
#[command(name = "statefn", version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    connection: Connection,
    /// Read this data directory of an app that does not run
    #[arg(long, global = true, value_name = "DIRECTORY", conflicts_with = "url")]
    data: Option<PathBuf>,
    /// As tables, or as JSON
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
}

fn main() -> ExitCode {
    let command_line = CommandLine::parse();
    match answer(&command_line).and_then(|lines| print(&lines)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The reader of standard error may be gone; there is nobody else to tell.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn answer(CommandLine { command, connection, data, output }: &CommandLine) -> Result<Vec<String>, Error> {
    match (&connection.url, data) {
        (Some(url), _) => {
            let token = std::env::var("STATEFN_ADMIN_TOKEN").ok();
            execute(command, &mut Client::new(connection, url, token)?, *output)
        }
        (None, Some(data)) => execute(command, &mut Data::open(data, None)?, *output),
        (None, None) => Err(Error::Usage(
            "say what to ask: `--url http://127.0.0.1:PORT` of a running app, or `--data DIRECTORY`".into(),
        )),
    }
}

fn print(lines: &[String]) -> Result<(), Error> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let written = lines.iter().try_for_each(|line| writeln!(out, "{line}")).and_then(|()| out.flush());
    match written {
        // The one who reads has read enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| Error::Usage(format!("cannot write to standard output: {error}"))),
    }
}
