//! The commands, and how they are answered.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use statefn_core::{
    dead_letter::Reason,
    graph::{Graph, Notation},
    program::Program,
    view,
};

use crate::{Error, Source, client::key_path, table};

/// How many keys or letters are asked for at a time.
const PAGE: usize = 1_000;

/// What can be asked of an app, whether it runs or not.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print how far everything is, and what holds event time back
    Status,
    /// Print the functions, what they take, and what they send to
    Functions,
    /// Print what flows from ingresses by functions to egresses
    Graph {
        /// How it is written down
        #[arg(long, value_enum, default_value_t = Notations::Text)]
        format: Notations,
    },
    /// Print the keys of a function that have a state
    Keys {
        /// The function
        #[arg(long)]
        function: String,
        /// Only those that begin with this
        #[arg(long, default_value = "")]
        prefix: String,
        /// How many at most
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Print the committed state of a key, or of every key as JSON lines
    State {
        /// Only this function
        #[arg(long)]
        function: Option<String>,
        /// Only this key of it, as text, or as `base64:` and its bytes
        #[arg(long, requires = "function")]
        key: Option<String>,
    },
    /// Print the timers of a key, and the messages that wait for their event time
    Timers {
        /// The function
        #[arg(long)]
        function: String,
        /// The key, as text, or as `base64:` and its bytes
        #[arg(long)]
        key: String,
    },
    /// Print the keys that are parked after a fault, and why, or let them go on
    Parked {
        /// What is done with them
        #[command(subcommand)]
        then: Option<ParkedCommand>,
    },
    /// Print the dead letters, or hand them in once more
    DeadLetters {
        /// What is done with them
        #[command(subcommand)]
        then: LettersCommand,
    },
    /// Read an ingress no more, or take nothing new that leads to a function, until `resume`; needs a running app
    Pause(Held),
    /// Let an ingress or a function go on; needs a running app
    Resume(Held),
    /// Verify everything in a data directory; the app must not be running
    Check,
}

/// What is done with parked keys.
#[derive(Debug, Subcommand)]
pub enum ParkedCommand {
    /// Print them (this is the default)
    List,
    /// Make the calls of parked keys again, in order, until one fails again
    Retry {
        /// All of them
        #[arg(long, conflicts_with_all = ["function", "key"])]
        all: bool,
        /// The one
        #[command(flatten)]
        key: OneKey,
    },
    /// The same without the first call, which becomes a dead letter
    Skip {
        /// The one
        #[command(flatten)]
        key: OneKey,
    },
    /// The same with another first call, or another state of the key
    Edit {
        /// The one
        #[command(flatten)]
        key: OneKey,
        /// The first call, as its message is encoded
        #[arg(long, conflicts_with_all = ["message_file", "state"])]
        message: Option<String>,
        /// The same, out of a file
        #[arg(long, value_name = "FILE", conflicts_with = "state")]
        message_file: Option<PathBuf>,
        /// The state, as JSON
        #[arg(long)]
        state: Option<String>,
    },
}

/// A key, by its function.
#[derive(Debug, Args)]
pub struct OneKey {
    /// The function of the key
    #[arg(long)]
    pub function: Option<String>,
    /// The key, as text, or as `base64:` and its bytes
    #[arg(long)]
    pub key: Option<String>,
}

/// What is done with dead letters.
#[derive(Debug, Subcommand)]
pub enum LettersCommand {
    /// Print them as JSON lines
    List(Letters),
    /// Hand them in once more, each once however often
    Replay(Letters),
}

/// Which dead letters.
#[derive(Debug, Args)]
pub struct Letters {
    /// Only those of this reason, such as `rejected`
    #[arg(long, value_parser = reason)]
    pub only: Option<Reason>,
    /// The file with them, of an app that does not run [default: the one of the egress `dead-letters`]
    #[arg(long)]
    pub file: Option<PathBuf>,
}

fn reason(text: &str) -> Result<Reason, String> {
    let known = Reason::ALL.into_iter().find(|reason| reason.name() == text);
    known.ok_or_else(|| format!("supported reasons are: {}", Reason::ALL.map(Reason::name).join(", ")))
}

/// What is paused, or goes on.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Held {
    /// An ingress
    #[arg(long)]
    pub ingress: Option<String>,
    /// A function
    #[arg(long)]
    pub function: Option<String>,
}

/// How a graph is written down.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Notations {
    /// A line for each edge
    Text,
    /// For Graphviz
    Dot,
    /// For Mermaid
    Mermaid,
}

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}

/// Does a command; returns what is to be printed, line by line.
///
/// # Errors
/// See [`Error`](enum@Error).
pub fn execute(command: &Command, source: &mut dyn Source, output: Output) -> Result<Vec<String>, Error> {
    let shown = |document: Value, table: fn(&Value) -> Vec<String>| match output {
        Output::Table => table(&document),
        Output::Json => vec![document.to_string()],
    };
    match command {
        Command::Status => Ok(shown(source.status()?, table::status)),
        Command::Functions => Ok(shown(source.functions()?, table::functions)),
        Command::Graph { format } => {
            let name = format.to_possible_value();
            let graph = source.graph(name.as_ref().map_or("text", |name| name.get_name()))?;
            Ok(graph.lines().map(str::to_owned).collect())
        }
        Command::Keys { function, prefix, limit } => Ok(shown(keys(source, function, prefix, *limit)?, table::keys)),
        Command::State { function: Some(function), key: Some(key) } => {
            Ok(shown(source.state(function, key)?, table::state))
        }
        Command::State { function, .. } => states(source, function.as_deref()),
        Command::Timers { function, key } => Ok(shown(source.timers(function, key)?, table::timers)),
        Command::Parked { then: None | Some(ParkedCommand::List) } => Ok(shown(parked(source)?, table::parked)),
        Command::Parked { then: Some(then) } => mend(source, then),
        Command::DeadLetters { then: LettersCommand::List(letters) } => {
            Ok(self::letters(source, letters)?.iter().map(|letter| letter["letter"].to_string()).collect())
        }
        Command::DeadLetters { then: LettersCommand::Replay(letters) } => replay(source, letters),
        Command::Pause(held) => pause(source, held, "pause").map(|told| shown(told, table::pause)),
        Command::Resume(held) => pause(source, held, "resume").map(|told| shown(told, table::pause)),
        Command::Check => source.check(),
    }
}

/// What a program says by itself, without any data: its functions and its graph.
#[must_use]
pub fn declared(command: &Command, program: &Program, output: Output) -> Option<Vec<String>> {
    match command {
        Command::Functions if output == Output::Json => Some(vec![view::program(program).to_string()]),
        Command::Functions => Some(table::functions(&view::program(program))),
        Command::Graph { format } => {
            let notation = match format {
                Notations::Text => Notation::Text,
                Notations::Dot => Notation::Dot,
                Notations::Mermaid => Notation::Mermaid,
            };
            Some(Graph::of(program).written(notation).lines().map(str::to_owned).collect())
        }
        _ => None,
    }
}

fn keys(source: &mut dyn Source, function: &str, prefix: &str, limit: usize) -> Result<Value, Error> {
    let (mut keys, mut after) = (Vec::new(), None);
    while keys.len() < limit {
        let page = source.keys(function, prefix, after.as_deref(), PAGE.min(limit - keys.len()))?;
        keys.extend(page["keys"].as_array().cloned().unwrap_or_default());
        after = page["next"].as_str().map(str::to_owned);
        if after.is_none() {
            break;
        }
    }
    Ok(json!({ "function": function, "keys": keys, "next": after }))
}

/// The states of all keys, a line each.
fn states(source: &mut dyn Source, wanted: Option<&str>) -> Result<Vec<String>, Error> {
    let functions = source.functions()?;
    let functions = functions["functions"].as_array().cloned().unwrap_or_default();
    let names = functions.iter().filter_map(|function| function["function"].as_str());
    let mut lines = Vec::new();
    for function in names.filter(|name| wanted.is_none_or(|wanted| wanted == *name)) {
        for key in keys(source, function, "", usize::MAX)?["keys"].as_array().into_iter().flatten() {
            let Some(text) = key["key"].as_str() else { continue };
            match source.state(function, text) {
                Ok(state) => {
                    lines.push(json!({ "function": function, "key": text, "state": state["state"] }).to_string());
                }
                // It was cleared meanwhile.
                Err(Error::Refused { code, .. }) if code == "no-state" => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(lines)
}

fn parked(source: &mut dyn Source) -> Result<Value, Error> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = source.parked(after.as_deref())?;
        all.extend(page["parked"].as_array().cloned().unwrap_or_default());
        after = page["next"].as_str().map(str::to_owned);
        if after.is_none() {
            return Ok(json!({ "parked": all }));
        }
    }
}

/// Lets parked keys go on; a line of JSON for each.
fn mend(source: &mut dyn Source, then: &ParkedCommand) -> Result<Vec<String>, Error> {
    let mut one = |key: &OneKey, verb: &str, body: &[u8]| {
        let (Some(function), Some(key)) = (&key.function, &key.key) else {
            return Err(Error::Usage("name the key by `--function` and `--key`".into()));
        };
        let method = if matches!(verb, "message" | "state") { "PUT" } else { "POST" };
        let told = source.change(method, &format!("parked/{function}/{}/{verb}", key_path(key)?), body)?;
        Ok(vec![told.to_string()])
    };
    match then {
        ParkedCommand::List => Ok(Vec::new()),
        ParkedCommand::Retry { all: true, .. } => retry_all(source),
        ParkedCommand::Retry { key, .. } => one(key, "retry", b""),
        ParkedCommand::Skip { key } => one(key, "skip", b""),
        ParkedCommand::Edit { key, message: Some(message), .. } => one(key, "message", message.as_bytes()),
        ParkedCommand::Edit { key, message_file: Some(path), .. } => one(key, "message", &read(path)?),
        ParkedCommand::Edit { key, state: Some(state), .. } => one(key, "state", state.as_bytes()),
        ParkedCommand::Edit { .. } => {
            Err(Error::Usage("say what to put in place: `--message`, `--message-file` or `--state`".into()))
        }
    }
}

fn retry_all(source: &mut dyn Source) -> Result<Vec<String>, Error> {
    let all = parked(source)?;
    let mut lines = Vec::new();
    for parked in all["parked"].as_array().into_iter().flatten() {
        let text = |name: &str| parked[name].as_str().unwrap_or_default();
        let path = format!("parked/{}/{}/retry", text("function"), text("path"));
        lines.push(match source.change("POST", &path, b"") {
            Ok(told) => told.to_string(),
            // Somebody else was first, or it cannot be retried; the others can.
            Err(Error::Refused { code, .. }) => {
                json!({ "function": text("function"), "key": text("key"), "error": code }).to_string()
            }
            Err(error) => return Err(error),
        });
    }
    Ok(lines)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| Error::Usage(format!("`{}`: {error}", path.display())))
}

fn letters(source: &mut dyn Source, wanted: &Letters) -> Result<Vec<Value>, Error> {
    if wanted.file.is_some() {
        return Err(Error::Usage("`--file` is for an app that does not run".into()));
    }
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = source.dead_letters(after.as_deref())?;
        let letters = page["dead_letters"].as_array().cloned().unwrap_or_default().into_iter();
        all.extend(
            letters.filter(|letter| {
                wanted.only.is_none_or(|only| letter["letter"]["reason"].as_str() == Some(only.name()))
            }),
        );
        after = page["next"].as_u64().map(|next| next.to_string());
        if after.is_none() {
            return Ok(all);
        }
    }
}

fn replay(source: &mut dyn Source, wanted: &Letters) -> Result<Vec<String>, Error> {
    let mut lines = Vec::new();
    for letter in letters(source, wanted)? {
        lines.push(match source.change("POST", &format!("dead-letters/{}/replay", letter["at"]), b"") {
            Ok(told) => told.to_string(),
            Err(Error::Refused { code, detail }) => {
                let why = format!("{code}: {detail}");
                json!({ "id": letter["letter"]["id"], "outcome": "left", "why": why }).to_string()
            }
            Err(error) => return Err(error),
        });
    }
    Ok(lines)
}

fn pause(source: &mut dyn Source, held: &Held, verb: &str) -> Result<Value, Error> {
    let (kind, name) = match held {
        Held { ingress: Some(ingress), .. } => ("ingresses", ingress),
        Held { function: Some(function), .. } => ("functions", function),
        Held { .. } => return Err(Error::Usage("name an `--ingress` or a `--function`".into())),
    };
    let mut told = source.change("POST", &format!("{kind}/{name}/{verb}"), b"")?;
    told["name"] = name.as_str().into();
    Ok(told)
}

/// The bytes of a key that is written as text, or as `base64:` and its bytes.
pub(crate) fn key_bytes(text: &str) -> Result<Vec<u8>, Error> {
    let letter = statefn_core::dead_letter::key_bytes(text);
    letter.ok_or_else(|| Error::Usage(format!("`{text}` is no base64 behind `base64:`")))
}
