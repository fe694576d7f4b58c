//! A server as a process that ends with the one that started it.
//!
//! A shell stands between: it starts the server, says its process id, and watches its own standard
//! input, whose other end is here. When that closes, because this process has ended in whatever
//! way, the shell kills the server and removes its directory. The shell ends with the server. Both are
//! a process group of their own, so that ctrl-C at a terminal reaches only the one who started them.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Error, error::last_lines};

/// How long a server may take until it takes connections.
const START_TIME_MAX: Duration = Duration::from_secs(120);
/// How long a server may take to end after SIGTERM.
const STOP_TIME_MAX: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Its arguments are the directory to remove and the server's command. A line on standard input
/// means "kill it and keep the directory", the end of standard input "kill it and remove all". The
/// watcher does not listen to SIGTERM once it kills, so that its status tells what it was told.
const SCRIPT: &str = r#"
directory=$1; shift
exec 3<&0
"$@" 3<&- >>"$directory/server.log" 2>&1 </dev/null &
server=$!
echo $server
( read -r word <&3; trap "" TERM; kill -9 $server; if [ "$word" ]; then exit 0; else exit 3; fi ) >/dev/null 2>&1 &
watcher=$!
wait $server
kill $watcher 2>/dev/null
wait $watcher 2>/dev/null
if [ $? -eq 3 ]; then rm -rf "$directory"; fi
"#;

/// A server that runs; dropping it kills it and keeps its directory.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    shell: Child,
    input: Option<ChildStdin>,
    server: Pid,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, whose files are in `directory`, and waits until it listens at `address`.
    pub(crate) fn start(
        name: &'static str,
        command: &Command,
        directory: &Path,
        address: SocketAddr,
    ) -> Result<Self, Error> {
        let mut process = Self::spawn(name, command, directory)?;
        let started_at = Instant::now();
        while TcpStream::connect(address).is_err() {
            if process.has_ended()? {
                return Err(process.error("ended by itself".to_owned()));
            }
            if started_at.elapsed() > START_TIME_MAX {
                return Err(process.error(Error::late(START_TIME_MAX)));
            }
            thread::sleep(LOOK_INTERVAL);
        }
        Ok(process)
    }

    fn spawn(name: &'static str, command: &Command, directory: &Path) -> Result<Self, Error> {
        let log = directory.join("server.log");
        let refused = || format!("start {name} through `sh`");
        let file = File::options().create(true).append(true).open(&log).map_err(Error::system(refused()))?;
        let mut shell = Command::new("sh");
        shell.args(["-c", SCRIPT, "sh"]).arg(directory).arg(command.get_program()).args(command.get_args());
        let variables = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
        shell.envs(variables).current_dir(directory);
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file).process_group(0);
        let mut shell = shell.spawn().map_err(Error::system(refused()))?;
        let input = shell.stdin.take();
        let server = server_of(&mut shell).map_err(Error::system(refused()))?;
        Ok(Self { name, shell, input, server, log })
    }

    pub(crate) fn id(&self) -> u32 {
        self.server.as_raw_nonzero().get().unsigned_abs()
    }

    /// Sends SIGSTOP and waits until every thread has stopped, which takes a moment.
    pub(crate) fn pause(&self) -> Result<(), Error> {
        self.signal(Signal::STOP)?;
        let paused_at = Instant::now();
        while !self.is_frozen() {
            if paused_at.elapsed() > STOP_TIME_MAX {
                return Err(self.error(format!("did not stop within {} s of SIGSTOP", STOP_TIME_MAX.as_secs())));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Sends SIGCONT.
    pub(crate) fn resume(&self) -> Result<(), Error> {
        self.signal(Signal::CONT)
    }

    /// Whether all its threads are stopped; where the system does not tell, that is assumed.
    fn is_frozen(&self) -> bool {
        let Ok(threads) = fs::read_dir(format!("/proc/{}/task", self.id())) else { return true };
        let stats = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
        // The state comes behind the name, which may hold anything: `7 (name) T ..`.
        stats.into_iter().all(|stat| stat.rsplit(") ").next().is_some_and(|state| state.starts_with('T')))
    }

    fn signal(&self, signal: Signal) -> Result<(), Error> {
        kill_process(self.server, signal).map_err(Error::system(format!("send {signal:?} to {}", self.name)))
    }

    /// Sends SIGKILL and waits until it is gone.
    pub(crate) fn kill(&mut self) -> Result<(), Error> {
        if let Some(mut input) = self.input.take() {
            // The shell does not read if the server has ended already.
            let _ = input.write_all(b"keep\n");
        }
        self.shell.wait().map(drop).map_err(Error::system(format!("wait for the end of {}", self.name)))
    }

    /// Sends SIGTERM and waits until it is gone; kills one that takes too long.
    pub(crate) fn stop(mut self) -> Result<(), Error> {
        self.signal(Signal::TERM)?;
        let stopped_at = Instant::now();
        while !self.has_ended()? {
            if stopped_at.elapsed() > STOP_TIME_MAX {
                return Err(self.error(format!("did not end within {} s of SIGTERM", STOP_TIME_MAX.as_secs())));
            }
            thread::sleep(LOOK_INTERVAL);
        }
        Ok(())
    }

    fn has_ended(&mut self) -> Result<bool, Error> {
        let status = self.shell.try_wait().map_err(Error::system(format!("look after {}", self.name)))?;
        Ok(status.is_some())
    }

    fn error(&self, how: String) -> Error {
        let text = fs::read(&self.log).unwrap_or_default();
        let lines = last_lines(&String::from_utf8_lossy(&text));
        Error::Server { server: self.name, how, log: self.log.clone(), lines }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nobody is there to be told, and the shell kills it in any case.
        let _ = self.kill();
    }
}

/// Reads the process id that the shell says first.
fn server_of(shell: &mut Child) -> io::Result<Pid> {
    let mut line = String::new();
    if let Some(output) = shell.stdout.take() {
        BufReader::new(output).read_line(&mut line)?;
    }
    let id = line.trim().parse().ok().and_then(Pid::from_raw);
    id.ok_or_else(|| io::Error::other(format!("the shell says `{}` for a process id", line.trim())))
}
