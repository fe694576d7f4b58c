//! Worker processes: started, stopped, killed, and what they take.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{
    Common,
    app::{ADDS, SUMS},
    servers::Servers,
};
use crate::bench::Failure;

/// How long a worker may take to end when it is asked to.
const STOP_LIMIT: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// How many lines of the log of a worker are told when something went wrong.
const LINES_TOLD: usize = 15;

/// Starts processes of this program, and has what they say.
pub(super) struct Office {
    settings: Vec<String>,
    sends: bool,
    variables: Vec<(&'static str, String)>,
    logs: TempDir,
    started: usize,
}

/// A process that is killed when this is dropped.
pub(super) struct Process {
    child: Child,
    log: PathBuf,
}

impl Office {
    /// Workers with these settings, besides those that they need for the servers.
    pub(super) fn new(servers: &Servers, common: &Common, settings: &[String]) -> Result<Self, Failure> {
        let Servers { broker, server } = servers;
        let mut all = vec![
            format!("log=kafka://{}", broker.bootstrap()),
            format!("snapshots=s3://{}/fleet", server.bucket()),
            "kafka.replication=1".into(),
            "kafka.min_insync_replicas=1".into(),
            format!("ingress.{ADDS}.topic={ADDS}"),
            format!("egress.{SUMS}.topic={SUMS}"),
        ];
        all.extend(settings.iter().chain(&common.settings).cloned());
        let variables = vec![
            ("AWS_ACCESS_KEY_ID", server.access_key().to_owned()),
            ("AWS_SECRET_ACCESS_KEY", server.secret_key().to_owned()),
            ("AWS_ENDPOINT_URL", server.endpoint().to_owned()),
        ];
        Ok(Self { settings: all, sends: common.sends, variables, logs: tempfile::tempdir()?, started: 0 })
    }

    /// Starts a worker.
    pub(super) fn worker(&mut self) -> Result<Process, Failure> {
        let name = format!("worker=worker-{}", self.started + 1);
        let settings = self.settings.iter().chain([&name]).map(|setting| format!("--set={setting}"));
        let mut arguments: Vec<String> =
            ["bench", "fleet-worker"].map(str::to_owned).into_iter().chain(settings).collect();
        arguments.extend(self.sends.then(|| "--sends".to_owned()));
        self.process(&arguments)
    }

    /// Starts a process of this program.
    pub(super) fn process(&mut self, arguments: &[String]) -> Result<Process, Failure> {
        self.started += 1;
        let log = self.logs.path().join(format!("{}.log", self.started));
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).envs(self.variables.iter().cloned());
        let output = File::create(&log)?;
        command.stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(output);
        Ok(Process { child: command.spawn()?, log })
    }
}

impl Process {
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Fails if it has ended by itself.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        match self.child.try_wait()? {
            Some(status) => Err(self.broken(&format!("ended by itself: {status}"))),
            None => Ok(()),
        }
    }

    /// Asks it to end, and waits until it has.
    pub(super) fn stop(mut self) -> Result<(), Failure> {
        drop(self.child.stdin.take());
        let begun = Instant::now();
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.broken(&format!("ended badly: {status}"))),
                None if begun.elapsed() > STOP_LIMIT => return Err(self.broken("does not end")),
                None => thread::sleep(LOOK_INTERVAL),
            }
        }
    }

    /// Ends it by `kill -9`.
    pub(super) fn kill(mut self) -> Result<(), Failure> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// An error with what it has said last.
    pub(super) fn broken(&self, what: &str) -> Failure {
        format!("process {} {what}; {}", self.id(), self.told()).into()
    }

    /// What it has said last.
    pub(super) fn told(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(LINES_TOLD)..].join("\n");
        format!("the last lines of its log:\n{last}")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended is waited for all the same.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
