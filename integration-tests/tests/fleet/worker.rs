//! Worker processes: started, killed, frozen, stopped.

use std::{
    env,
    fs::File,
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use services::{Reserved, kafka::Broker, s3::Server};
use tempfile::TempDir;

/// How long a worker may take to end when it is asked to.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// What the workers run.
pub(crate) struct Program {
    binary: PathBuf,
    /// Its settings but for those that are the same for all programs.
    settings: Vec<&'static str>,
    /// Whether it takes requests.
    is_service: bool,
}

impl Program {
    /// The ledger, which reads transfers of a topic: `src/bin/ledger.rs`.
    pub(crate) fn ledger() -> Self {
        let settings = vec![
            "commit_interval=20ms",
            "snapshot_tail_bytes=64KiB",
            "ingress.transfers.topic=transfers",
            "egress.statements.topic=statements",
        ];
        Self { binary: env!("CARGO_BIN_EXE_ledger").into(), settings, is_service: false }
    }

    /// The bank of the examples, which is paid with over HTTP.
    pub(crate) fn bank() -> Self {
        let settings = vec![
            "commit_interval=10ms",
            // Small enough that shards take snapshots often.
            "snapshot_tail_bytes=16KiB",
            "ingress.orders.topic=orders",
            // Nobody writes there, so event time follows the clock.
            "ingress.orders.until=now",
        ];
        Self { binary: build_example("bank"), settings, is_service: true }
    }
}

/// Builds an example as a worker of a fleet and finds the program: no package here depends on examples.
fn build_example(name: &str) -> PathBuf {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--package", name, "--bin", name, "--features", "fleet"]);
    build.args(["--message-format", "json-render-diagnostics"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = build.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "the example {name} cannot be built");
    let messages = String::from_utf8(output.stdout).unwrap();
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut binaries = messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from));
    binaries.next_back().unwrap_or_else(|| panic!("cargo does not say where it put the example {name}"))
}

/// Where workers take requests, as they come and go.
pub(crate) type Addresses = Arc<Mutex<Vec<SocketAddr>>>;

/// The workers of one app.
pub(crate) struct Fleet {
    program: Program,
    addresses: Addresses,
    workers: Vec<Worker>,
    started: usize,
    settings: Vec<String>,
    variables: Vec<(&'static str, String)>,
    logs: TempDir,
}

struct Worker {
    process: Child,
    log: PathBuf,
    port: Option<Reserved>,
}

impl Fleet {
    pub(crate) fn new(program: Program, broker: &Broker, server: &Server) -> Self {
        let settings = [
            format!("log=kafka://{}", broker.bootstrap()),
            format!("snapshots=s3://{}/app", server.bucket()),
            "shards=16".into(),
            "threads=1".into(),
            "kafka.replication=1".into(),
            "kafka.min_insync_replicas=1".into(),
            "kafka.message_timeout=3s".into(),
            "kafka.session_timeout=3s".into(),
            "kafka.heartbeat_interval=500ms".into(),
        ];
        let settings = settings.into_iter().chain(program.settings.iter().map(ToString::to_string)).collect();
        let variables = vec![
            ("AWS_ACCESS_KEY_ID", server.access_key().to_owned()),
            ("AWS_SECRET_ACCESS_KEY", server.secret_key().to_owned()),
            ("AWS_ENDPOINT_URL", server.endpoint().to_owned()),
        ];
        let logs = tempfile::tempdir().unwrap();
        let addresses = Addresses::default();
        Self { program, addresses, workers: Vec::new(), started: 0, settings, variables, logs }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program.binary);
        command.current_dir(self.logs.path()).env_remove("RUST_LOG").envs(self.variables.iter().cloned());
        command.args(self.settings.iter().map(|setting| format!("--set={setting}")));
        command
    }

    /// How many workers there are.
    pub(crate) fn len(&self) -> usize {
        self.workers.len()
    }

    /// Where its workers take requests.
    pub(crate) fn addresses(&self) -> Addresses {
        Arc::clone(&self.addresses)
    }

    /// Starts one more worker.
    pub(crate) fn start(&mut self) {
        self.start_with(&[]);
    }

    /// Starts one more worker, which listens for requests and for those who look after it at these ports.
    pub(crate) fn start_listening(&mut self, [http, admin]: [u16; 2]) {
        let listen = |what: &str, port: u16| format!("--set={what}.listen=127.0.0.1:{port}");
        self.start_with(&[listen("http", http), listen("admin", admin)]);
    }

    fn start_with(&mut self, arguments: &[String]) {
        self.started += 1;
        let name = format!("worker-{}", self.started);
        let log = self.logs.path().join(format!("{name}.log"));
        let output = File::create(&log).unwrap();
        let mut command = self.command();
        command.arg(format!("--set=worker={name}")).args(arguments).stdin(Stdio::null());
        command.stdout(output.try_clone().unwrap()).stderr(output);
        let port = self.program.is_service.then(|| Reserved::new().unwrap());
        command.args(port.iter().map(|port| format!("--set=http.listen={}", port.address())));
        self.addresses.lock().unwrap().extend(port.iter().map(Reserved::address));
        self.workers.push(Worker { process: command.spawn().unwrap(), log, port });
    }

    /// Takes a worker out, which nobody is to ask any more.
    fn remove(&mut self, place: usize) -> Worker {
        let worker = self.workers.remove(place);
        let gone = worker.port.as_ref().map(Reserved::address);
        self.addresses.lock().unwrap().retain(|address| Some(*address) != gone);
        worker
    }

    /// Ends a worker by `kill -9`.
    pub(crate) fn kill(&mut self, place: usize) {
        let mut worker = self.remove(place);
        worker.process.kill().unwrap();
        worker.process.wait().unwrap();
    }

    /// Starts workers again that gave up because the broker was away while they started, as whoever runs
    /// workers does.
    pub(crate) fn revive(&mut self) {
        for place in (0..self.workers.len()).rev() {
            let worker = &mut self.workers[place];
            let Some(status) = worker.process.try_wait().unwrap() else { continue };
            let told = worker.tell();
            assert!(
                told.contains("error: cannot ") && told.contains("Timed out"),
                "a worker ended by {status}: {told}"
            );
            self.remove(place);
            self.start();
        }
    }

    /// Freezes a worker, or lets it go on.
    pub(crate) fn freeze(&mut self, place: usize, is_frozen: bool) {
        self.workers[place].signal(if is_frozen { Signal::STOP } else { Signal::CONT });
    }

    /// Asks a worker to end, and waits until it has.
    pub(crate) fn stop(&mut self, place: usize) {
        let mut worker = self.remove(place);
        worker.signal(Signal::TERM);
        let begun = Instant::now();
        loop {
            if let Some(status) = worker.process.try_wait().unwrap() {
                // One that has only just been started does not listen to signals yet.
                let is_early = status.signal() == Some(Signal::TERM.as_raw()) && worker.has_told_nothing();
                assert!(status.success() || is_early, "a worker ends cleanly, not by {status}: {}", worker.tell());
                return;
            }
            assert!(begun.elapsed() < STOP_LIMIT, "a worker does not end: {}", worker.tell());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn stop_all(&mut self) {
        while !self.workers.is_empty() {
            self.stop(0);
        }
    }

    /// What the workers have said last, for a test that fails.
    pub(crate) fn tell(&self) -> String {
        self.workers.iter().map(Worker::tell).collect::<Vec<_>>().join("\n---\n")
    }

    /// Checks journals and snapshots of an app that nobody works on.
    pub(crate) fn check_stored(&self) {
        let output = self.command().arg("check").output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && told.contains("16 shards are whole"), "{told}\n{why}");
    }
}

impl Worker {
    fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.process.id().cast_signed()).unwrap();
        kill_process(id, signal).unwrap();
    }

    fn has_told_nothing(&self) -> bool {
        std::fs::metadata(&self.log).is_ok_and(|log| log.len() == 0)
    }

    fn tell(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines.len().saturating_sub(40);
        format!("{}:\n{}", self.log.display(), lines[last..].join("\n"))
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.tell());
            for command in ["check", "positions"] {
                let told = self.command().arg(command).output().map(|output| output.stdout).unwrap_or_default();
                println!("{command}:\n{}", String::from_utf8_lossy(&told));
            }
        }
        for worker in &mut self.workers {
            // One that has ended is waited for all the same.
            let _ = worker.process.kill();
            let _ = worker.process.wait();
        }
    }
}
