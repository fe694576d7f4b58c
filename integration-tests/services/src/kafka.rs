//! Apache Kafka: one node that is broker and controller, from the jars of its Maven artifacts.
//!
//! Its settings make tests quick: groups form at once, sessions may be short, a broker that was
//! killed comes back within seconds. What concerns the safety of data, and the limit of a record
//! (`message.max.bytes`), is as shipped, but for the replication factor, which is 1.

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use tempfile::TempDir;

use crate::{Error, cache, install, ports::Reserved, process::Process, shared, topics};

/// The directory of the jars in the cache; `pom.xml` has the same version.
pub(crate) const JARS: &str = "kafka-4.4.0-with-tools";
pub(crate) const JAVA_VERSION_MIN: u32 = 17;
const NAME: &str = "the Kafka broker";
/// Any 22 characters of base64 will do.
const CLUSTER_ID: &str = "AAAAAAAAAAAAAAAAAAAAAQ";
const JVM_OPTIONS: [&str; 4] = [
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    // Else it leaves a file behind when it is killed.
    "-XX:-UsePerfData",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
];
const MEMORY_OPTIONS: [&str; 2] = ["-Xms64m", "-Xmx256m"];
/// What does not depend on ports and directories.
const PROPERTIES: &str = include_str!("kafka.properties");

/// A broker of one's own; dropping it kills it and removes its data.
///
/// ```no_run
/// # fn main() -> Result<(), services::Error> {
/// let mut broker = services::kafka::Broker::start()?;
/// let address = broker.bootstrap().to_owned();
/// broker.kill()?;
/// broker.restart()?;
/// assert_eq!(broker.bootstrap(), address);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Broker {
    // Dropped in this order: the process before its files, the ports last.
    process: Option<Process>,
    command: Command,
    directory: TempDir,
    clients: Reserved,
    _controller: Reserved,
    bootstrap: String,
}

impl Broker {
    /// The broker of this process, which is started by the first call; none where it is not
    /// installed. Nobody can stop it, so tests that must have a broker of their own.
    ///
    /// # Panics
    /// If it cannot be started; if it is not installed and the variable `CI` is set.
    #[must_use]
    pub fn shared() -> Option<&'static Self> {
        static SHARED: LazyLock<Option<Broker>> =
            LazyLock::new(|| shared::available(Broker::start(), "the tests with a real Kafka broker"));
        SHARED.as_ref()
    }

    /// Starts a broker with an empty data directory and waits until it takes connections.
    ///
    /// # Errors
    /// [`Error::Missing`] if the jars or Java are not there, [`Error::Server`] with the end of its
    /// log if it does not start within 120 s.
    pub fn start() -> Result<Self, Error> {
        let (java, jars) = (java()?, jars()?);
        let directory = TempDir::with_prefix("kafka-").map_err(Error::system("make a directory for Kafka"))?;
        let (clients, controller) = (Reserved::new()?, Reserved::new()?);
        let settings = directory.path().join("server.properties");
        let text = properties(clients.address(), controller.address(), &directory.path().join("data"));
        fs::write(&settings, text).map_err(Error::system(format!("write `{}`", settings.display())))?;

        let mut format = java_command(&java, &jars, &["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"]);
        install::run(format.arg(&settings))?;
        let mut command = Command::new(&java);
        command.args(MEMORY_OPTIONS).args(java_command(&java, &jars, &["kafka.Kafka"]).get_args()).arg(&settings);
        let bootstrap = clients.address().to_string();
        let mut broker = Self { process: None, command, directory, clients, _controller: controller, bootstrap };
        broker.restart()?;
        Ok(broker)
    }

    /// Where clients connect: `127.0.0.1:port`. It stays the same over restarts.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Makes a topic whose records are kept for ever, whatever their times.
    ///
    /// # Errors
    /// [`Error::System`] with what the broker says, such as that there is one of that name.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<(), Error> {
        let made = topics::create(self.clients.address(), name, partitions);
        made.map_err(Error::system(format!("make the topic `{name}`")))
    }

    /// Writes records, a key and a value each, by the producer that Kafka comes with: it chooses partitions
    /// as Java programs do that do not say how.
    ///
    /// # Errors
    /// [`Error::System`] if it cannot be run or ends with an error. Keys and values are texts of one line
    /// without tabulators.
    pub fn produce_by_java<'a>(
        &self,
        topic: &str,
        records: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), Error> {
        let arguments = [
            "org.apache.kafka.tools.ConsoleProducer",
            "--bootstrap-server",
            &self.bootstrap,
            "--topic",
            topic,
            "--reader-property",
            "parse.key=true",
        ];
        let mut lines = String::new();
        records.for_each(|(key, value)| lines.extend([key, "\t", value, "\n"]));
        let input = self.directory.path().join("records.txt");
        let written = fs::write(&input, lines).and_then(|()| fs::File::open(&input));
        let written = written.map_err(Error::system(format!("write `{}`", input.display())))?;
        install::run(java_command(&java()?, &jars()?, &arguments).stdin(written)).map(drop)
    }

    /// The directory with its data (`data`), its settings and its log (`server.log`).
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The id of its process; none while it is down.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Kills it as `kill -9` does; returns when it is gone. One that is down stays so.
    ///
    /// # Errors
    /// [`Error::System`] if the system does not tell of its end.
    pub fn kill(&mut self) -> Result<(), Error> {
        self.process.take().map_or(Ok(()), |mut process| process.kill())
    }

    /// Stops it as an operator would, by SIGTERM; returns when it is gone. One that is down stays so.
    ///
    /// # Errors
    /// [`Error::Server`] if it does not end within 60 s; it is killed then.
    pub fn stop(&mut self) -> Result<(), Error> {
        self.process.take().map_or(Ok(()), Process::stop)
    }

    /// Starts it again with the same data and ports, and waits until it takes connections; one that
    /// runs is stopped before.
    ///
    /// # Errors
    /// Those of [`stop`](Self::stop) and [`start`](Self::start).
    pub fn restart(&mut self) -> Result<(), Error> {
        self.stop()?;
        let (directory, address) = (self.directory.path(), self.clients.address());
        self.process = Some(Process::start(NAME, &self.command, directory, address)?);
        Ok(())
    }

    /// Freezes it by SIGSTOP; returns when it is frozen. Connections stay open, nothing is answered.
    ///
    /// # Errors
    /// [`Error::Stopped`] if it is down.
    pub fn pause(&mut self) -> Result<(), Error> {
        self.running()?.pause()
    }

    /// Lets it go on after [`pause`](Self::pause).
    ///
    /// # Errors
    /// [`Error::Stopped`] if it is down.
    pub fn resume(&mut self) -> Result<(), Error> {
        self.running()?.resume()
    }

    fn running(&self) -> Result<&Process, Error> {
        self.process.as_ref().ok_or(Error::Stopped { server: NAME })
    }
}

fn properties(clients: SocketAddr, controller: SocketAddr, data: &Path) -> String {
    format!(
        "listeners=PLAINTEXT://{clients},CONTROLLER://{controller}\n\
         advertised.listeners=PLAINTEXT://{clients}\n\
         controller.quorum.voters=1@{controller}\n\
         log.dirs={}\n\
         {PROPERTIES}",
        data.display()
    )
}

/// A command that runs a class of the jars.
fn java_command(java: &Path, jars: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(java);
    // Java itself expands the star.
    command.args(JVM_OPTIONS).arg("-cp").arg(jars.join("*")).args(arguments);
    command
}

/// The directory of the jars.
fn jars() -> Result<PathBuf, Error> {
    let jars = cache::path_of(JARS)?;
    if jars.is_dir() {
        return Ok(jars);
    }
    Err(Error::Missing {
        what: format!("Apache Kafka (`{}`)", jars.display()),
        fix: "run `cargo xtask setup`".to_owned(),
    })
}

/// The program of a Java that is new enough.
pub(crate) fn java() -> Result<PathBuf, Error> {
    let home = env::var_os("JAVA_HOME").filter(|home| !home.is_empty());
    let java = home.map_or_else(|| PathBuf::from("java"), |home| PathBuf::from(home).join("bin/java"));
    let output = Command::new(&java).arg("-version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stderr).into_owned()).unwrap_or_default();
    if major_version(&text).is_some_and(|version| version >= JAVA_VERSION_MIN) {
        return Ok(java);
    }
    let found = text.lines().next().map_or_else(String::new, |line| format!(" (`{}` says: {line})", java.display()));
    Err(Error::Missing {
        what: format!("Java {JAVA_VERSION_MIN} or newer{found}"),
        fix: "run `cargo xtask setup`, or install one and let `JAVA_HOME` or `PATH` lead to it".to_owned(),
    })
}

/// The number in a line such as `openjdk version "17.0.15" 2025-04-15`.
fn major_version(text: &str) -> Option<u32> {
    let version = text.split(" version \"").nth(1)?;
    version.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_java_are_read() {
        for (text, version) in [
            ("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK ..", Some(17)),
            ("java version \"1.8.0_292\"", Some(1)),
            ("Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version \"25\" 2025-09-16", Some(25)),
            ("no such thing", None),
        ] {
            assert_eq!(major_version(text), version, "{text}");
        }
    }
}
