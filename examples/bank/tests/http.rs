//! The bank as a service: the very lines of README, against a process.

#![allow(clippy::unwrap_used, reason = "a test fails loudly where it stands")]

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

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

/// Starts the bank and returns where it listens.
fn start(directory: &Path) -> (Bank, String) {
    let log = directory.join("log");
    let mut command = Command::new(env!("CARGO_BIN_EXE_bank"));
    command.current_dir(directory).env_remove("RUST_LOG").args(["--data", "data", "--set", "http.listen=127.0.0.1:0"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
    let mut bank = Bank(command.spawn().unwrap());
    let begun = Instant::now();
    loop {
        let text = fs::read_to_string(&log).unwrap();
        let line = text.lines().find(|line| line.contains("listening at http://"));
        if let Some(address) = line.and_then(|line| line.rsplit("http://").next()) {
            return (bank, address.trim().to_owned());
        }
        assert!(bank.0.try_wait().unwrap().is_none() && begun.elapsed() < DEADLINE, "it does not start: {text}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The commands of README's consoles, each with what it prints.
fn commands(readme: &str) -> Vec<(&str, String)> {
    let consoles = readme.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut commands: Vec<(&str, String)> = Vec::new();
    for line in consoles.flat_map(str::lines) {
        match line.strip_prefix("$ ") {
            Some(command) => commands.push((command, String::new())),
            None => commands.last_mut().unwrap().1 += line,
        }
    }
    commands
}

/// Runs a line, by the shell if curl is there, or else by the little that is needed of both.
fn run(line: &str, address: &str) -> String {
    let has_curl = Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !has_curl {
        return exchange(line, address);
    }
    let output = Command::new("sh").args(["-c", line]).env("BANK", format!("http://{address}")).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// What `curl` does with a line of README.
fn exchange(line: &str, address: &str) -> String {
    let (mut path, mut headers, mut body) = (String::new(), String::new(), None);
    let mut words = words(line).into_iter().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "-s" => {}
            "-H" => headers += &format!("{}\r\n", words.next().unwrap()),
            "-d" => body = words.next(),
            url => path = url.strip_prefix("$BANK").unwrap().to_owned(),
        }
    }
    if body.is_some() && !headers.contains("Content-Type") {
        headers += "Content-Type: application/x-www-form-urlencoded\r\n";
    }
    let method = if body.is_some() { "POST" } else { "GET" };
    let body = body.unwrap_or_default();
    let length = body.len();
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n"
    );
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// The words of a line; quotes hold several together.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut is_quoted = false;
    for letter in line.chars() {
        match letter {
            '\'' => is_quoted = !is_quoted,
            ' ' if !is_quoted => words.push(String::new()),
            letter => words.last_mut().unwrap().push(letter),
        }
    }
    words
}

fn session(run: impl Fn(&str, &str) -> String) {
    let directory = tempfile::tempdir().unwrap();
    let (mut bank, address) = start(directory.path());
    let commands = commands(include_str!("../README.md"));
    assert!(commands.len() >= 10, "README shows a session");
    for (line, expected) in commands.iter().filter(|(line, _)| !line.starts_with("BANK=")) {
        let begun = Instant::now();
        let mut printed = run(line, &address);
        // What is read may be on its way from another account, or wait for its time. A message is sent once.
        while line.contains("/state") && printed != *expected && begun.elapsed() < DEADLINE {
            std::thread::sleep(Duration::from_millis(20));
            printed = run(line, &address);
        }
        assert_eq!(printed, *expected, "{line}");
    }
    kill_process(Pid::from_child(&bank.0), Signal::TERM).unwrap();
    assert!(bank.0.wait().unwrap().success());
}

#[test]
fn the_session_of_the_readme_is_what_happens() {
    session(run);
}

#[test]
fn the_client_of_this_test_does_what_curl_does() {
    session(exchange);
}

#[test]
fn the_messages_have_schemas() {
    let directory = tempfile::tempdir().unwrap();
    let (_bank, address) = start(directory.path());
    let functions: serde_json::Value = serde_json::from_str(&exchange("curl -s $BANK/functions", &address)).unwrap();
    let account = functions.as_array().unwrap().iter().find(|function| function["function"] == "bank/account").unwrap();
    let message = |name: &str| {
        account["messages"].as_array().unwrap().iter().find(|known| known["message"] == name).unwrap().clone()
    };
    let pay = message("pay");
    assert_eq!(
        pay["schema"],
        serde_json::json!({
            "type": "object",
            "description": "Moves money to another account at once, and answers what is left.",
            "required": ["to", "cents"],
            "properties": {
                "to": { "type": "string", "description": "The other account." },
                "cents": { "type": "integer", "description": "How much." },
            },
        })
    );
    assert_eq!(pay["answer_schema"], serde_json::json!({ "type": "integer" }));
    assert_eq!(pay["rejection_schema"]["required"], serde_json::json!(["missing_cents"]));
    assert_eq!(message("receive")["rejection_schema"], serde_json::Value::Null, "it never rejects");
}
