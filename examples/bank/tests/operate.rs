//! What `docs/OPERATING.md` says one does with an app: its very lines, against a process of the bank.

#![allow(clippy::unwrap_used, reason = "a test fails loudly where it stands")]

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long something may take to come.
const DEADLINE: Duration = Duration::from_secs(60);

/// A process of the bank; dropping it kills it.
struct Bank(Child);

impl Drop for Bank {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the bank and returns the URL of its admin interface.
fn start(directory: &Path) -> (Bank, String) {
    let log = directory.join("log");
    let mut command = Command::new(env!("CARGO_BIN_EXE_bank"));
    command.current_dir(directory).env_remove("RUST_LOG").args(["--data", "data"]);
    command.args(["--set", "http.listen=127.0.0.1:0", "--set", "admin.listen=127.0.0.1:0"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
    let mut bank = Bank(command.spawn().unwrap());
    let begun = Instant::now();
    loop {
        let text = fs::read_to_string(&log).unwrap();
        let line = text.lines().find(|line| line.contains("admin interface at http://"));
        if let Some(address) = line.and_then(|line| line.rsplit("http://").next()) {
            return (bank, format!("http://{}", address.trim()));
        }
        assert!(bank.0.try_wait().unwrap().is_none() && begun.elapsed() < DEADLINE, "it does not start: {text}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The commands of the page's consoles, each with what it prints; nothing where that may be anything.
fn commands(page: &str) -> Vec<(&str, Vec<&str>)> {
    let consoles = page.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut commands: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in consoles.flat_map(str::lines) {
        match line.strip_prefix("$ ") {
            Some(command) => commands.push((command, Vec::new())),
            None => commands.last_mut().unwrap().1.push(line),
        }
    }
    commands
}

/// Runs a line of the page.
fn run(line: &str, directory: &Path, url: &str) -> String {
    let words = line.split(' ').map(|word| if word == "$ADMIN" { url } else { word });
    let mut command = Command::new(env!("CARGO_BIN_EXE_bank"));
    let output = command.args(words.skip(1)).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_line_of_the_page_does_what_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let (mut bank, url) = start(directory);
    let is_read = || {
        let status: Value =
            serde_json::from_str(&run("bank status --url $ADMIN --output json", directory, &url)).unwrap();
        status["ingresses"][0]["partitions"][0]["is_ended"] == true
    };
    let begun = Instant::now();
    while !is_read() {
        assert!(begun.elapsed() < DEADLINE, "it does not read its orders");
    }
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../framework/docs/OPERATING.md"));
    let page = page.unwrap();
    let all = commands(&page);
    let (running, stopped): (Vec<_>, Vec<_>) = all.into_iter().partition(|(line, _)| line.contains("$ADMIN"));
    assert!(running.len() >= 15 && stopped.len() >= 4, "the page has its lines");
    for (line, expected) in &running {
        let printed = run(line, directory, &url);
        assert!(expected.is_empty() || printed.lines().eq(expected.iter().copied()), "{line}: {printed}");
    }
    let audit = fs::read_to_string(directory.join("data/audit.jsonl")).unwrap();
    assert_eq!(audit.lines().count(), 8, "two pauses and their ends, each asked and done: {audit}");

    kill_process(Pid::from_child(&bank.0), Signal::TERM).unwrap();
    assert!(bank.0.wait().unwrap().success());
    for (line, expected) in &stopped {
        let printed = run(line, directory, &url);
        assert!(expected.is_empty() || printed.lines().eq(expected.iter().copied()), "{line}: {printed}");
    }
    assert!(run("bank check --data data", directory, &url).ends_with("shards are whole\n"));
}
