//! A service of the examples as a process that is killed and started again while clients call it.
//!
//! A kill *counts* if requests were answered since the start before it, and others were on their way.
//! Clients repeat each request, with its idempotency key, until it is answered.
//!
//! Deliberately absent: what the service does; the tasks that kill know.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    Outcome,
    flights::{Process, build_example},
    http_client::{Client, Response},
};

/// The shortest and the longest time that a process is called before it is killed.
const LIFE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(1_500));
/// How long a process may take to listen and to take its shards over.
const START_TIME_MAX: Duration = Duration::from_secs(60);
/// Small enough that shards take snapshots often.
const SNAPSHOT_TAIL_BYTES: u64 = 8 << 10;
const SIGKILL: i32 = 9;

/// A program of the examples and its data.
pub(crate) struct Service {
    binary: PathBuf,
    data: PathBuf,
    log: PathBuf,
    settings: Vec<String>,
    environment: Vec<(&'static str, String)>,
}

impl Service {
    /// Builds an example; its data are below `directory`.
    pub(crate) fn build(example: &str, directory: &Path) -> Outcome<Self> {
        let binary = build_example(example, &["--release"])?;
        let (data, log) = (directory.join("data"), directory.join("service.log"));
        fs::create_dir_all(&data)?;
        Ok(Self { binary, data, log, settings: Vec::new(), environment: Vec::new() })
    }

    /// The same with a setting, such as `ingress.orders.path=..`.
    pub(crate) fn set(mut self, setting: String) -> Self {
        self.settings.push(format!("--set={setting}"));
        self
    }

    /// The same with a variable of the environment.
    pub(crate) fn env(mut self, name: &'static str, value: String) -> Self {
        self.environment.push((name, value));
        self
    }

    pub(crate) fn binary(&self) -> &Path {
        &self.binary
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.current_dir(&self.data).arg("--data").arg(&self.data).env_remove("RUST_LOG");
        command.args(&self.settings).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }

    /// Starts it and waits until it takes requests.
    fn start(&self) -> Outcome<(Process, SocketAddr)> {
        let mut command = self.command();
        command.arg("--set=http.listen=127.0.0.1:0").arg(format!("--set=snapshot_tail_bytes={SNAPSHOT_TAIL_BYTES}B"));
        let mut process = Process::start(command.stdout(Stdio::null()).stderr(File::create(&self.log)?))?;
        let started_at = Instant::now();
        loop {
            if let Some(address) = self.address()
                && Client::connect(address)
                    .and_then(|mut client| client.get("/ready"))
                    .is_ok_and(|ready| ready.status == 200)
            {
                return Ok((process, address));
            }
            if process.ended()?.is_some() || started_at.elapsed() > START_TIME_MAX {
                return Err(format!("the service does not start: {}", self.logged()?).into());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Where it says in its log that it listens.
    fn address(&self) -> Option<SocketAddr> {
        let text = fs::read_to_string(&self.log).ok()?;
        let line = text.lines().find(|line| line.contains("listening at http://"))?;
        line.rsplit("http://").next()?.trim().parse().ok()
    }

    fn logged(&self) -> Outcome<String> {
        Ok(fs::read_to_string(&self.log)?)
    }

    /// What is committed of a function: the state of every key. The service must not run.
    pub(crate) fn states(&self, function: &str) -> Outcome<BTreeMap<String, Value>> {
        let output = self.command().args(["state", "--function", function]).stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            return Err(format!("`state --function {function}` failed").into());
        }
        let mut states = BTreeMap::new();
        for line in String::from_utf8(output.stdout)?.lines() {
            let mut line: Value = serde_json::from_str(line)?;
            let key = line["key"].as_str().ok_or("a state has a key")?.to_owned();
            states.insert(key, line["state"].take());
        }
        Ok(states)
    }

    /// Kills it at random moments until enough kills count; returns the process that runs then.
    pub(crate) fn kill_under(&self, load: &Load, kills: u64, seed: u64) -> Outcome<Process> {
        let mut random = Rng::with_seed(seed);
        let mut counted = 0;
        loop {
            let (mut process, address) = self.start()?;
            let before = load.answered.load(Ordering::Acquire);
            *lock(&load.address) = Some(address);
            if counted == kills {
                return Ok(process);
            }
            let (shortest, longest) = LIFE;
            thread::sleep(shortest + (longest - shortest).mul_f64(random.f64()));
            let is_counted = load.answered.load(Ordering::Acquire) > before && load.pending.load(Ordering::Acquire) > 0;
            let status = process.kill()?;
            if status.signal() != Some(SIGKILL) {
                return Err(format!("the service ended by itself: {status}: {}", self.logged()?).into());
            }
            *lock(&load.address) = None;
            counted += u64::from(is_counted);
        }
    }

    /// Stops a process as one who looks after it would.
    pub(crate) fn stop(&self, process: &mut Process) -> Outcome {
        let id = Pid::from_raw(i32::try_from(process.id())?).ok_or("a process has a number")?;
        kill_process(id, Signal::TERM)?;
        let status = process.wait()?;
        let logged = self.logged()?;
        status
            .success()
            .then_some(())
            .ok_or_else(|| format!("the service did not stop well: {status}: {logged}").into())
    }
}

/// What clients and the killer have in common.
#[derive(Default)]
pub(crate) struct Load {
    /// Where the service is; none while it is down.
    address: Mutex<Option<SocketAddr>>,
    pub(crate) is_over: AtomicBool,
    pub(crate) answered: AtomicU64,
    /// Requests that are on their way.
    pending: AtomicU64,
    /// Requests that a kill left without an answer, and that were repeated.
    pub(crate) broken_off: AtomicU64,
    /// Requests that were repeated long after their answer.
    pub(crate) repeated: AtomicU64,
}

/// A lock that a client's panic leaves behind guards nothing that is half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A client that calls until it is answered.
#[derive(Default)]
pub(crate) struct Caller {
    connection: Option<(SocketAddr, Client)>,
}

impl Caller {
    /// Sends a request until it is answered, over all kills.
    pub(crate) fn call(&mut self, path: &str, once: &str, body: &str, load: &Load) -> Response {
        loop {
            let Some(client) = self.client(load) else {
                thread::sleep(Duration::from_millis(1));
                continue;
            };
            load.pending.fetch_add(1, Ordering::AcqRel);
            let answer = client.post(path, Some(once), body);
            load.pending.fetch_sub(1, Ordering::AcqRel);
            match answer {
                // Nothing was done, or nobody knows: in both cases it is sent again.
                Ok(answer) if matches!(answer.status, 503 | 504) => thread::sleep(Duration::from_millis(1)),
                Ok(answer) => return answer,
                Err(_) => {
                    load.broken_off.fetch_add(1, Ordering::Relaxed);
                    self.connection = None;
                }
            }
        }
    }

    fn client(&mut self, load: &Load) -> Option<&mut Client> {
        let address = (*lock(&load.address))?;
        if self.connection.as_ref().is_none_or(|(known, _)| *known != address) {
            self.connection = Client::connect(address).ok().map(|client| (address, client));
        }
        self.connection.as_mut().map(|(_, client)| client)
    }
}

/// A request that is repeated gets the answer that it had.
pub(crate) fn check_same(what: &dyn std::fmt::Debug, before: &Response, after: &Response) -> Outcome {
    if before == after {
        return Ok(());
    }
    Err(format!("{what:?} was answered by {before:?} and, when it came again, by {after:?}").into())
}
