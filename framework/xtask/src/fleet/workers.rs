//! Worker processes of the bank: started, looked after, killed, stopped.
//!
//! Each has its own two ports as long as this process lives, so that one that is started again is where the
//! one before was. A worker is a process group of its own: ctrl-C at a terminal reaches only this process,
//! which stops the workers when the load is over.
//!
//! Invariant: no worker outlives this process: dropping one kills it, and its guard does when nobody is left
//! to drop it.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write},
    net::SocketAddr,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use services::{Reserved, kafka::Broker, s3::Server};

use crate::{Outcome, flights::Process};

/// How many shards the workers share.
pub(super) const SHARDS: usize = 16;
/// How long a worker that died stays away.
pub(super) const RESTART_PAUSE: Duration = Duration::from_secs(3);
/// How long a worker may take to end when it is asked to.
const STOP_TIME_MAX: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How many lines of its log an error shows.
const LINES_SHOWN: usize = 20;

/// How every worker is started.
struct Recipe {
    binary: PathBuf,
    directory: PathBuf,
    settings: Vec<String>,
    variables: Vec<(&'static str, String)>,
}

impl Recipe {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.current_dir(&self.directory).env_remove("RUST_LOG").envs(self.variables.iter().cloned());
        command.args(self.settings.iter().map(|setting| format!("--set={setting}"))).stdin(Stdio::null());
        command
    }
}

/// The workers of a fleet.
pub(super) struct Workers {
    recipe: Recipe,
    pub(super) all: Vec<Worker>,
    is_restarted: bool,
    /// How often one has died, whoever killed it.
    pub(super) deaths: u32,
    /// Workers that ended as none should: by themselves, with an error.
    pub(super) broken: Vec<String>,
}

/// One worker, alive or dead.
pub(super) struct Worker {
    pub(super) name: String,
    http: Reserved,
    admin: Reserved,
    log: PathBuf,
    running: Option<Running>,
    ended_at: Option<Instant>,
}

struct Running {
    // Dropped in this order: the guard is told when the process is gone.
    process: Process,
    _guard: Guard,
}

impl Workers {
    /// So many workers, none of which is started; `binary` is a bank of the feature `fleet`, `directory`
    /// an empty one for their logs.
    pub(super) fn new(
        count: usize,
        is_restarted: bool,
        binary: &Path,
        directory: &Path,
        (broker, server): (&Broker, &Server),
    ) -> Outcome<Self> {
        let settings = [
            format!("log=kafka://{}", broker.bootstrap()),
            format!("snapshots=s3://{}/bank", server.bucket()),
            format!("shards={SHARDS}"),
            "threads=1".into(),
            "commit_interval=10ms".into(),
            "kafka.replication=1".into(),
            "kafka.min_insync_replicas=1".into(),
            "kafka.message_timeout=3s".into(),
            // A worker that is killed is replaced soon.
            "kafka.session_timeout=3s".into(),
            "kafka.heartbeat_interval=500ms".into(),
            "ingress.orders.topic=orders".into(),
            // Nobody writes there, so it does not hold event time back.
            "ingress.orders.until=now".into(),
        ];
        let variables = vec![
            ("AWS_ACCESS_KEY_ID", server.access_key().to_owned()),
            ("AWS_SECRET_ACCESS_KEY", server.secret_key().to_owned()),
            ("AWS_ENDPOINT_URL", server.endpoint().to_owned()),
        ];
        let (binary, directory) = (binary.to_owned(), directory.to_owned());
        let all = (1..=count).map(|number| Worker::new(format!("worker-{number}"), &directory));
        let all = all.collect::<Outcome<_>>()?;
        let recipe = Recipe { binary, directory, settings: settings.into(), variables };
        Ok(Self { recipe, all, is_restarted, deaths: 0, broken: Vec::new() })
    }

    /// Starts all that do not run.
    pub(super) fn start(&mut self) -> Outcome {
        self.all.iter_mut().filter(|worker| worker.running.is_none()).try_for_each(|worker| worker.start(&self.recipe))
    }

    /// Whether one that died is started again.
    pub(super) fn is_restarted(&self) -> bool {
        self.is_restarted
    }

    /// Where they take requests.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.all.iter().map(Worker::http).collect()
    }

    /// Notes who has died, and starts those again whose pause is over; tells what happened.
    pub(super) fn look_after(&mut self) -> Outcome<Vec<String>> {
        let mut told = Vec::new();
        for worker in &mut self.all {
            if let Some(status) = worker.ended()? {
                self.deaths += 1;
                told.push(format!("{} has ended: {status}", worker.name));
                if status.code().is_some_and(|code| code != 0) {
                    self.broken.push(format!("{} ended by itself: {status}: {}", worker.name, worker.logged()));
                }
            }
            if self.is_restarted && worker.ended_at.is_some_and(|at| at.elapsed() >= RESTART_PAUSE) {
                worker.start(&self.recipe)?;
                told.push(format!("{} is started again, as process {}", worker.name, worker.id().unwrap_or_default()));
            }
        }
        Ok(told)
    }

    /// Kills a worker as `kill -9` does, and tells which; none if none lives.
    pub(super) fn kill(&mut self, random: &mut fastrand::Rng) -> Outcome<Option<String>> {
        let alive: Vec<&mut Worker> = self.all.iter_mut().filter(|worker| worker.running.is_some()).collect();
        let Some(worker) = random.choice(alive) else { return Ok(None) };
        let id = worker.id().unwrap_or_default();
        worker.kill()?;
        self.deaths += 1;
        Ok(Some(format!("{}, process {id}, was killed", worker.name)))
    }

    /// Asks all that run to end, and waits until they have.
    pub(super) fn stop(&mut self) -> Outcome {
        self.all.iter().try_for_each(|worker| worker.signal(Signal::TERM))?;
        let begun = Instant::now();
        for worker in self.all.iter_mut().filter(|worker| worker.running.is_some()) {
            let status = loop {
                if let Some(status) = worker.ended()? {
                    break status;
                }
                if begun.elapsed() > STOP_TIME_MAX {
                    return Err(format!("{} does not end: {}", worker.name, worker.logged()).into());
                }
                thread::sleep(LOOK_INTERVAL);
            };
            // One may be killed while it ends; that is what the user came for.
            if !status.success() && status.signal().is_none() {
                return Err(format!("{} ended with {status}: {}", worker.name, worker.logged()).into());
            }
        }
        Ok(())
    }

    /// Checks journals and snapshots; no worker may run. Returns the last line of what is told.
    pub(super) fn check_stored(&self) -> Outcome<String> {
        let output = self.recipe.command().arg("check").output()?;
        let told = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(format!("`bank check` failed: {told}\n{why}").into());
        }
        Ok(told.lines().last().unwrap_or_default().to_owned())
    }

    /// What the workers have logged last.
    pub(super) fn logged(&self) -> String {
        let logged = self.all.iter().map(|worker| format!("{}:\n{}", worker.name, worker.logged()));
        logged.collect::<Vec<_>>().join("\n")
    }
}

impl Worker {
    fn new(name: String, directory: &Path) -> Outcome<Self> {
        let log = directory.join(format!("{name}.log"));
        Ok(Self { name, http: Reserved::new()?, admin: Reserved::new()?, log, running: None, ended_at: None })
    }

    fn start(&mut self, recipe: &Recipe) -> Outcome {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = recipe.command();
        command.arg(format!("--set=worker={}", self.name));
        command.arg(format!("--set=http.listen={}", self.http()));
        command.arg(format!("--set=admin.listen={}", self.admin()));
        let process = Process::start(command.stdout(Stdio::null()).stderr(log).process_group(0))?;
        let guard = Guard::of(process.id())?;
        (self.running, self.ended_at) = (Some(Running { process, _guard: guard }), None);
        Ok(())
    }

    /// Where it takes requests.
    pub(super) fn http(&self) -> SocketAddr {
        self.http.address()
    }

    /// Where its admin interface is.
    pub(super) fn admin(&self) -> SocketAddr {
        self.admin.address()
    }

    /// The id of its process; none while it is dead.
    pub(super) fn id(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.process.id())
    }

    /// How long it has been dead.
    pub(super) fn dead_for(&self) -> Option<Duration> {
        self.ended_at.map(|at| at.elapsed())
    }

    /// How it ended, told once.
    fn ended(&mut self) -> Outcome<Option<ExitStatus>> {
        let Some(running) = &mut self.running else { return Ok(None) };
        let ended = running.process.ended()?;
        if ended.is_some() {
            (self.running, self.ended_at) = (None, Some(Instant::now()));
        }
        Ok(ended)
    }

    fn kill(&mut self) -> Outcome {
        if let Some(mut running) = self.running.take() {
            running.process.kill()?;
            self.ended_at = Some(Instant::now());
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Outcome {
        let Some(id) = self.id() else { return Ok(()) };
        let id = Pid::from_raw(i32::try_from(id)?).ok_or("a process has a number")?;
        Ok(kill_process(id, signal)?)
    }

    fn logged(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n")
    }
}

/// Kills a process if this one ends, in whatever way, before the guard is dropped.
struct Guard(Child);

impl Guard {
    /// Standard input of the shell ends with this process; a line there means that nothing is to be done.
    const SCRIPT: &str = "read -r word; [ \"$word\" ] || kill -9 \"$1\"";

    fn of(process: u32) -> io::Result<Self> {
        let arguments = ["-c", Self::SCRIPT, "sh"].map(OsString::from);
        let mut shell = Command::new("sh");
        shell.args(arguments).arg(process.to_string()).process_group(0);
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map(Self)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // A shell that somebody has ended reads nothing, and does nothing.
        let _ = self.0.stdin.take().map(|mut input| input.write_all(b"ended\n"));
        let _ = self.0.wait();
    }
}
