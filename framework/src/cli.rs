//! The command line that every app has through [`App::main`].
//!
//! What asks something of an app is shared with the command `statefn` (`statefn-cli`): with `--url` a
//! running app answers, else its data do, and here the program says what they mean.

use std::{
    ffi::OsString,
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Arg, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, builder::OsStringValueParser};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use statefn_cli::{Client, Command as Ask, Connection, Data, Letters, LettersCommand, OneKey, Output, ParkedCommand};

use crate::{
    App, Error,
    app::Parts,
    inspect::Inspection,
    repair::{self, DeadLetter, Letter, Remedy, Repair},
    run::{End, Running, Stop, Summary},
    settings::{self, Layers},
};

/// How often the progress of a run is shown.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// How often a run without a terminal says how far it is.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// The settings file that is read if it is there.
const SETTINGS_FILE: &str = "statefn.toml";

#[derive(Parser)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    given: Given,
}

#[derive(Subcommand)]
enum Command {
    /// Run the app until its input ends (this is the default)
    Run,
    /// Print as JSON lines how far each input is committed; the app must not be running
    Positions,
    /// Print every setting that holds, and where it came from
    Settings,
    #[command(flatten)]
    Ask(Ask),
}

#[derive(Args)]
struct Given {
    /// The settings file [default: statefn.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Any setting by its name, such as ingress.sales.path=sales.csv
    #[arg(long = "set", global = true, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Print every setting that there is: its name, value, default, variable and option
    #[arg(long, global = true)]
    help_settings: bool,
    #[command(flatten)]
    connection: Connection,
    /// As tables, or as JSON
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl App {
    /// Runs the app as its command line says; `--help` tells what that can be.
    ///
    /// It shows a progress bar on a terminal and log lines otherwise (`RUST_LOG` says how many),
    /// and stops cleanly on ctrl-C and SIGTERM.
    #[must_use]
    pub fn main(self) -> ExitCode {
        let command = CommandLine::command().name(self.name().to_owned()).about("a statefn app").args(options());
        let matches = command.get_matches();
        let command_line = match CommandLine::from_arg_matches(&matches) {
            Ok(command_line) => command_line,
            Err(error) => error.exit(),
        };
        start_logs();
        match execute(self, command_line, &matches) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                // The reader of standard error may be gone; there is nobody else to tell.
                let _ = writeln!(std::io::stderr(), "error: {error}");
                ExitCode::FAILURE
            }
        }
    }
}

/// The options that are called like their settings: one for each setting with a name of one part.
fn options() -> Vec<Arg> {
    let rows = settings::rows().into_iter().filter(|row| row.name.len() == 1);
    let option = |row: settings::Row| {
        let kind = row.kind.split(',').next().unwrap_or_default();
        Arg::new(row.name[0])
            .long(row.name[0].replace('_', "-"))
            .help(format!("{} [default: {}]", row.meaning.trim_end_matches('.'), row.default.replace('`', "")))
            .value_name(kind.to_uppercase().replace(' ', "_"))
            .value_parser(OsStringValueParser::new())
            .global(true)
    };
    rows.map(option).collect()
}

fn execute(app: App, command_line: CommandLine, matches: &ArgMatches) -> Result<(), Error> {
    if command_line.given.help_settings {
        return print(settings::help(&app.names()));
    }
    let app = with_layers(app, &command_line.given, matches)?;
    match command_line.command.unwrap_or(Command::Run) {
        Command::Run => run(app),
        Command::Positions => print(Inspection::open(app)?.positions()?),
        Command::Settings => show_settings(app, command_line.given.output),
        Command::Ask(ask) => answer(app, ask, &command_line.given),
    }
}

/// Puts file, environment and command line over what the app itself says.
fn with_layers(mut app: App, given: &Given, matches: &ArgMatches) -> Result<App, Error> {
    let mut layers = Layers::new(app.take_settings(), app.names());
    match &given.settings {
        Some(path) => layers.file(path),
        None if Path::new(SETTINGS_FILE).exists() => layers.file(SETTINGS_FILE.as_ref()),
        None => {}
    }
    layers.environment(std::env::vars_os());
    for assignment in &given.set {
        layers.assignment(assignment);
    }
    for row in settings::rows().iter().filter(|row| row.name.len() == 1) {
        if let Some(value) = matches.get_one::<OsString>(row.name[0]) {
            layers.option(row.name[0], value.clone());
        }
    }
    let (mut settings, origins) = layers.finish()?;
    settings.give_way(&origins);
    Ok(app.settings_from(settings, origins))
}

/// Answers what is asked of an app: one that runs at a URL, or the data of this one.
fn answer(app: App, ask: Ask, given: &Given) -> Result<(), Error> {
    if let Some(url) = &given.connection.url {
        let of_settings = || app.peek_settings().admin.token.as_ref().map(|token| token.reveal().to_owned());
        let token = std::env::var("STATEFN_ADMIN_TOKEN").ok().or_else(of_settings);
        let mut client = Client::new(&given.connection, url, token)?;
        return print(statefn_cli::execute(&ask, &mut client, given.output)?);
    }
    match ask {
        Ask::State { function, key: None } => print(Inspection::open(app)?.states(function.as_deref())?),
        Ask::Parked { then: None } => print(Inspection::open(app)?.parked()?),
        Ask::Parked { then: Some(ParkedCommand::List) } => read_data(app, &ask, given.output),
        Ask::Parked { then: Some(command) } => mend(app, command),
        Ask::DeadLetters { then } => dead_letters(app, then),
        Ask::Functions if given.output == Output::Table => print(crate::inspect::functions(app)?),
        Ask::Check => print(Inspection::open(app)?.check()?),
        ask => read_data(app, &ask, given.output),
    }
}

/// Answers from the data, with what the program knows of them.
fn read_data(app: App, ask: &Ask, output: Output) -> Result<(), Error> {
    let Parts { linked, settings, .. } = app.take_parts();
    let program = linked?.program;
    if let Some(lines) = statefn_cli::declared(ask, &program, output) {
        return print(lines);
    }
    let data = settings.data.as_deref().ok_or_else(|| {
        let text = "`data` is not set: say which data directory to look into, such as by `--data data/bank`, or which running app to ask, by `--url`";
        Error::Settings(text.into())
    })?;
    print(statefn_cli::execute(ask, &mut Data::open(data, Some(program))?, output)?)
}

/// Lets parked keys go on, and says what became of each.
fn mend(app: App, command: ParkedCommand) -> Result<(), Error> {
    let mut repair = Repair::open(app)?;
    let one = |repair: &Repair, key: &OneKey| match (&key.function, &key.key) {
        (Some(function), Some(key)) => Ok(vec![repair.key(function, key)?]),
        _ => Err(Error::Settings("name the key by `--function` and `--key`".into())),
    };
    let (keys, remedy) = match &command {
        ParkedCommand::List => (Vec::new(), Remedy::Retry),
        ParkedCommand::Retry { all: true, .. } => (repair.parked(), Remedy::Retry),
        ParkedCommand::Retry { key, .. } => (one(&repair, key)?, Remedy::Retry),
        ParkedCommand::Skip { key } => (one(&repair, key)?, Remedy::Skip),
        ParkedCommand::Edit { key, message, message_file, state } => {
            (one(&repair, key)?, edit(message.as_deref(), message_file.as_deref(), state.as_deref())?)
        }
    };
    print(repair.mend(&keys, &remedy)?)
}

fn edit(message: Option<&str>, file: Option<&Path>, state: Option<&str>) -> Result<Remedy, Error> {
    match (message, file, state) {
        (Some(message), ..) => Ok(Remedy::EditMessage(message.as_bytes().to_vec())),
        (_, Some(file), _) => {
            let bytes = std::fs::read(file);
            bytes.map(Remedy::EditMessage).map_err(|error| Error::Settings(format!("`{}`: {error}", file.display())))
        }
        (.., Some(state)) => {
            let state = serde_json::from_str(state);
            state.map(Remedy::EditState).map_err(|error| Error::Settings(format!("`--state` is no JSON: {error}")))
        }
        _ => Err(Error::Settings("say what to put in place: `--message`, `--message-file` or `--state`".into())),
    }
}

fn dead_letters(app: App, command: LettersCommand) -> Result<(), Error> {
    match command {
        LettersCommand::List(Letters { only, file }) => {
            let letters = repair::letters(&app, file.as_deref(), only)?;
            print(letters.into_iter().map(|Letter { id, letter }| {
                let mut line = Vec::new();
                DeadLetter { id: Some(id), ..letter }.write(&mut line);
                String::from_utf8_lossy(&line).into_owned()
            }))
        }
        LettersCommand::Replay(Letters { only, file }) => {
            let letters = repair::letters(&app, file.as_deref(), only)?;
            print(Repair::open(app)?.replay(&letters)?)
        }
    }
}

/// Shows the settings, also those that are not right, and then says what is not.
fn show_settings(app: App, output: Output) -> Result<(), Error> {
    let Parts { linked, names, settings, origins, .. } = app.take_parts();
    let shown = settings::effective(&settings, &origins, &names);
    print(match output {
        Output::Table => settings::lines(&shown),
        Output::Json => vec![format!("{:#}", settings::document(&shown))],
    })?;
    crate::run::plan(linked?, &names, &settings, &origins).map(drop)
}

fn start_logs() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A program that has set up its own logs keeps them.
    let _ = logs.with_ansi(std::io::stderr().is_terminal()).try_init();
}

fn run(app: App) -> Result<(), Error> {
    let running = app.start()?;
    stop_on_signals(running.stopper())?;
    watch(&running);
    let summary = running.wait()?;
    tell(&summary);
    Ok(())
}

/// Stops the run at the first ctrl-C or SIGTERM.
fn stop_on_signals(stop: Stop) -> Result<(), Error> {
    let broken = |error: std::io::Error| Error::Broken(format!("cannot watch for signals: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(broken)?;
    let watch = move || {
        runtime.block_on(async {
            wait_for_signal().await;
            tracing::info!("stopping: what was read is being committed");
            stop.stop();
        });
    };
    std::thread::Builder::new().name("statefn-signals".into()).spawn(watch).map_err(broken)?;
    Ok(())
}

#[cfg(unix)]
async fn wait_for_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        },
        Err(_) => _ = tokio::signal::ctrl_c().await,
    }
}

#[cfg(not(unix))]
async fn wait_for_signal() {
    let _ = tokio::signal::ctrl_c().await;
}

/// Shows how far a run is until it ends.
fn watch(running: &Running) {
    // Nobody knows how far a service is.
    let has_end = running.http_address().is_none();
    if has_end && std::io::stderr().is_terminal() { watch_bar(running) } else { watch_lines(running) }
}

fn watch_bar(running: &Running) {
    let bar = ProgressBar::new(1_000);
    let style = ProgressStyle::with_template("{bar:32} {percent:>3} %  {msg}  {elapsed} elapsed, {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    while !running.is_finished() {
        let status = running.status();
        bar.set_position(status.read_permille());
        let records = status.totals().records;
        let rate = records as f64 / bar.elapsed().as_secs_f64().max(0.001);
        let lag_ms = status.commit_latency().p50_us as f64 / 1_000.0;
        let (records, rate) = (HumanCount(records), HumanCount(rate as u64));
        bar.set_message(format!("{records} records, {rate}/s, committed after {lag_ms:.1} ms"));
        std::thread::park_timeout(PROGRESS_INTERVAL);
    }
    bar.finish_and_clear();
}

fn watch_lines(running: &Running) {
    let mut told_at = std::time::Instant::now();
    while !running.is_finished() {
        std::thread::park_timeout(PROGRESS_INTERVAL);
        if told_at.elapsed() >= LINE_INTERVAL {
            told_at = std::time::Instant::now();
            let totals = running.status().totals();
            let percent = running.status().read_permille() / 10;
            tracing::info!(percent, records = totals.records, epochs = totals.shards.epochs, "running");
        }
    }
}

fn tell(summary: &Summary) {
    let totals = summary.totals;
    let (records, calls) = (totals.records, totals.shards.calls);
    let seconds = summary.elapsed.as_secs_f64();
    match summary.end {
        End::Finished => tracing::info!(records, calls, seconds, "the input has ended, everything is committed"),
        End::Stopped => tracing::info!(records, calls, seconds, "stopped; the next start goes on from here"),
    }
    if totals.unreadable + totals.shards.rejections > 0 {
        let (unreadable, rejected) = (totals.unreadable, totals.shards.rejections);
        tracing::warn!(unreadable, rejected, "some records became dead letters; the egress `dead-letters` has them");
    }
    if totals.parked_keys > 0 {
        tracing::warn!(keys = totals.parked_keys, "some keys are parked after a fault; `parked` lists them");
    }
}

fn print(lines: impl IntoIterator<Item = String>) -> Result<(), Error> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let written = lines.into_iter().try_for_each(|line| writeln!(out, "{line}")).and_then(|()| out.flush());
    match written {
        // The one who reads has read enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| Error::Broken(format!("cannot write to standard output: {error}"))),
    }
}
