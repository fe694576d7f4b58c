//! Runs the session of an example's README against a process of it.
//!
//! Included by the tests of examples that are services; `curl` runs the lines if it is there, or else the
//! little of it that is needed.

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

/// A process; dropping it kills it.
pub(crate) struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a program and returns where it listens.
pub(crate) fn start(program: &str, directory: &Path) -> (Service, String) {
    let log = directory.join("log");
    let mut command = Command::new(program);
    command.current_dir(directory).env_remove("RUST_LOG").args(["--data", "data", "--set", "http.listen=127.0.0.1:0"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
    let mut service = Service(command.spawn().unwrap());
    let begun = Instant::now();
    loop {
        let text = fs::read_to_string(&log).unwrap();
        let line = text.lines().find(|line| line.contains("listening at http://"));
        let address = line.and_then(|line| line.rsplit("http://").next()).map(str::trim);
        if let Some(address) = address.filter(|address| is_ready(address)) {
            return (service, address.to_owned());
        }
        assert!(service.0.try_wait().unwrap().is_none() && begun.elapsed() < DEADLINE, "it does not start: {text}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether it takes requests.
fn is_ready(address: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let request = format!("GET /ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let mut response = String::new();
    stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_string(&mut response)).is_ok()
        && response.starts_with("HTTP/1.1 200")
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
pub(crate) fn run(line: &str, variable: &str, address: &str) -> String {
    let has_curl = Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !has_curl {
        return exchange(line, variable, address);
    }
    let output = Command::new("sh").args(["-c", line]).env(variable, format!("http://{address}")).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// What `curl` does with a line of README.
pub(crate) fn exchange(line: &str, variable: &str, address: &str) -> String {
    let (mut path, mut headers, mut body) = (String::new(), String::new(), None);
    let mut words = words(line).into_iter().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "-s" => {}
            "-H" => headers += &format!("{}\r\n", words.next().unwrap()),
            "-d" => body = words.next(),
            url => path = url.strip_prefix(&format!("${variable}")).unwrap().to_owned(),
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

/// Runs the session of a README against a program; its lines name the address by a variable.
pub(crate) fn session(program: &str, readme: &str, variable: &str, run: impl Fn(&str, &str, &str) -> String) {
    let directory = tempfile::tempdir().unwrap();
    let (mut service, address) = start(program, directory.path());
    let commands = commands(readme);
    assert!(commands.len() >= 7, "README shows a session");
    for (line, expected) in commands.iter().filter(|(line, _)| !line.starts_with(variable)) {
        let begun = Instant::now();
        let mut printed = run(line, variable, &address);
        // What is read may be on its way from another key, or wait for its time. A message is sent once.
        while line.contains("/state") && printed != *expected && begun.elapsed() < DEADLINE {
            std::thread::sleep(Duration::from_millis(20));
            printed = run(line, variable, &address);
        }
        assert_eq!(printed, *expected, "{line}");
    }
    kill_process(Pid::from_child(&service.0), Signal::TERM).unwrap();
    assert!(service.0.wait().unwrap().success());
    let checked =
        Command::new(program).current_dir(directory.path()).args(["--data", "data", "check"]).output().unwrap();
    let why = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "what stays behind is whole, remembered answers included: {why}");
}
