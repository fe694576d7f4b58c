//! The flights example as a process: how it is built, started and looked into.
//!
//! Invariant: every process started here runs in its own empty directory, so no settings file of
//! the developer has a say, and is over when its handle is dropped.

use std::{
    env,
    fs::{self, File},
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use serde_json::Value;

use crate::Outcome;

/// How many flights the file of the example has.
pub(crate) const RECORDS: u64 = 336_776;

/// A build of the example.
#[derive(Debug, Clone)]
pub(crate) struct Flights {
    pub(crate) binary: PathBuf,
}

/// A process of the example; dropping it kills it.
pub(crate) struct Process(Child);

impl Flights {
    /// Builds the example and finds the program.
    pub(crate) fn build() -> Outcome<Self> {
        Self::build_with(&["--release"])
    }

    /// Builds it with other options of cargo, for those who do not measure anything.
    pub(crate) fn build_with(options: &[&str]) -> Outcome<Self> {
        Ok(Self { binary: build_example("flights", options)? })
    }

    /// A command on a data directory, which is made if it is missing.
    fn command(&self, data: &Path) -> Outcome<Command> {
        fs::create_dir_all(data)?;
        let mut command = Command::new(&self.binary);
        command.current_dir(data).arg("--data").arg(data).env_remove("RUST_LOG");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Ok(command)
    }

    /// Starts a run; what it logs is added to `log`.
    pub(crate) fn start(&self, data: &Path, arguments: &[String], log: &Path) -> Outcome<Process> {
        self.start_in(&[], data, arguments, log)
    }

    /// Starts a run whose environment has some more variables.
    pub(crate) fn start_in(
        &self,
        environment: &[(&str, String)],
        data: &Path,
        arguments: &[String],
        log: &Path,
    ) -> Outcome<Process> {
        let log = File::options().create(true).append(true).open(log)?;
        let mut command = self.command(data)?;
        command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value))).stderr(log);
        Ok(Process(command.spawn()?))
    }

    /// Runs a subcommand to its end and returns what it prints.
    pub(crate) fn ask(&self, data: &Path, shards: u32, subcommand: &str) -> Outcome<String> {
        let mut command = self.command(data)?;
        command.args(["--shards", &shards.to_string(), subcommand]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = command.output()?;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        if !output.status.success() {
            return Err(format!("`flights {subcommand}` failed: {}", text(&output.stderr)).into());
        }
        Ok(text(&output.stdout))
    }
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        command.spawn().map(Self)
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.0.try_wait()
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> io::Result<ExitStatus> {
        self.0.wait()
    }

    /// Sends SIGKILL and waits until it is gone.
    pub(crate) fn kill(&mut self) -> io::Result<ExitStatus> {
        self.0.kill()?;
        self.0.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, and need not be.
        let _ = self.kill();
    }
}

/// Builds an example and finds its program.
pub(crate) fn build_example(name: &str, options: &[&str]) -> Outcome<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--package", name, "--bin", name]).args(options);
    build.args(["--message-format", "json-render-diagnostics"]).current_dir(workspace());
    let output = build.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("the example {name} cannot be built").into());
    }
    let artifacts = BufReader::new(&output.stdout[..]).lines().map_while(Result::ok);
    let mut messages = artifacts.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
    let binary = messages.find_map(|message| message["executable"].as_str().map(PathBuf::from));
    Ok(binary.ok_or_else(|| format!("cargo does not say where it put the example {name}"))?)
}

/// The directory of the workspace.
pub(crate) fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}
