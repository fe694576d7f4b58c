//! Worker processes: started, killed, frozen, stopped.

use std::{
    fs::File,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use services::{kafka::Broker, s3::Server};
use tempfile::TempDir;

/// How long a worker may take to end when it is asked to.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// The workers of one app.
pub(crate) struct Fleet {
    workers: Vec<Worker>,
    started: usize,
    settings: Vec<String>,
    variables: Vec<(&'static str, String)>,
    logs: TempDir,
}

struct Worker {
    process: Child,
    log: PathBuf,
}

impl Fleet {
    pub(crate) fn new(broker: &Broker, server: &Server) -> Self {
        let settings = [
            format!("log=kafka://{}", broker.bootstrap()),
            format!("snapshots=s3://{}/ledger", server.bucket()),
            "shards=16".into(),
            "threads=1".into(),
            "commit_interval=20ms".into(),
            "snapshot_tail_bytes=64KiB".into(),
            "kafka.replication=1".into(),
            "kafka.min_insync_replicas=1".into(),
            "kafka.message_timeout=3s".into(),
            "kafka.session_timeout=3s".into(),
            "kafka.heartbeat_interval=500ms".into(),
            "ingress.transfers.topic=transfers".into(),
            "egress.statements.topic=statements".into(),
        ];
        let variables = vec![
            ("AWS_ACCESS_KEY_ID", server.access_key().to_owned()),
            ("AWS_SECRET_ACCESS_KEY", server.secret_key().to_owned()),
            ("AWS_ENDPOINT_URL", server.endpoint().to_owned()),
        ];
        let logs = tempfile::tempdir().unwrap();
        Self { workers: Vec::new(), started: 0, settings: settings.into(), variables, logs }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ledger"));
        command.current_dir(self.logs.path()).env_remove("RUST_LOG").envs(self.variables.iter().cloned());
        command.args(self.settings.iter().map(|setting| format!("--set={setting}")));
        command
    }

    /// How many workers there are.
    pub(crate) fn len(&self) -> usize {
        self.workers.len()
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
        self.workers.push(Worker { process: command.spawn().unwrap(), log });
    }

    /// Ends a worker by `kill -9`.
    pub(crate) fn kill(&mut self, place: usize) {
        let mut worker = self.workers.remove(place);
        worker.process.kill().unwrap();
        worker.process.wait().unwrap();
    }

    /// Freezes a worker, or lets it go on.
    pub(crate) fn freeze(&mut self, place: usize, is_frozen: bool) {
        self.workers[place].signal(if is_frozen { Signal::STOP } else { Signal::CONT });
    }

    /// Asks a worker to end, and waits until it has.
    pub(crate) fn stop(&mut self, place: usize) {
        let mut worker = self.workers.remove(place);
        worker.signal(Signal::TERM);
        let begun = Instant::now();
        loop {
            if let Some(status) = worker.process.try_wait().unwrap() {
                assert!(status.success(), "a worker ends cleanly, not by {status}: {}", worker.tell());
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
