//! An S3 server: versitygw, whose buckets are directories and whose objects are files.
//!
//! So a test can look at an object, damage or remove it, below [`Server::directory`]. Requests are
//! checked: a wrong secret is refused with status 403, an unknown key with 404.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use tempfile::TempDir;

use crate::{Error, cache, ports::Reserved, process::Process, shared};

/// The directory of the program in the cache.
pub(crate) const DIRECTORY: &str = "versitygw-1.8.0";
pub(crate) const PROGRAM: &str = "versitygw";
pub(crate) const PACKAGE: &str = "github.com/versity/versitygw/cmd/versitygw@v1.8.0";
const NAME: &str = "the S3 server";
const BUCKET: &str = "test";
const ACCESS_KEY: &str = "testaccess";
const SECRET_KEY: &str = "testsecret123";

/// A server of one's own; dropping it kills it and removes its objects.
///
/// ```no_run
/// # fn main() -> Result<(), services::Error> {
/// let server = services::s3::Server::start()?;
/// println!("{} {}", server.endpoint(), server.bucket()); // http://127.0.0.1:.. test
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Server {
    // Dropped in this order: the process before its files, the port last.
    process: Option<Process>,
    command: Command,
    directory: TempDir,
    port: Reserved,
    endpoint: String,
}

impl Server {
    /// The server of this process, which is started by the first call; none where it is not
    /// installed. Nobody can stop it, so tests that must have a server of their own.
    ///
    /// # Panics
    /// If it cannot be started; if it is not installed and the variable `CI` is set.
    #[must_use]
    pub fn shared() -> Option<&'static Self> {
        static SHARED: LazyLock<Option<Server>> =
            LazyLock::new(|| shared::available(Server::start(), "the tests with a real S3 server"));
        SHARED.as_ref()
    }

    /// Starts a server with one empty bucket and waits until it takes connections.
    ///
    /// # Errors
    /// [`Error::Missing`] if its program is not there, [`Error::Server`] with the end of its log if
    /// it does not start within 120 s.
    pub fn start() -> Result<Self, Error> {
        let program = program()?;
        let directory = TempDir::with_prefix("s3-").map_err(Error::system("make a directory for an S3 server"))?;
        let data = directory.path().join("data");
        fs::create_dir_all(data.join(BUCKET)).map_err(Error::system(format!("make `{}`", data.display())))?;
        let port = Reserved::new()?;
        let mut command = Command::new(program);
        command.args(["--port", &port.address().to_string(), "--access", ACCESS_KEY, "--secret", SECRET_KEY]);
        command.args(["--quiet", "--keep-alive", "posix"]).arg(data);
        let endpoint = format!("http://{}", port.address());
        let mut server = Self { process: None, command, directory, port, endpoint };
        server.restart()?;
        Ok(server)
    }

    /// Where clients connect: `http://127.0.0.1:port`. It stays the same over restarts.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The key that may do everything.
    #[must_use]
    pub fn access_key(&self) -> &'static str {
        ACCESS_KEY
    }

    /// The secret of [`access_key`](Self::access_key).
    #[must_use]
    pub fn secret_key(&self) -> &'static str {
        SECRET_KEY
    }

    /// The bucket that is there from the start on.
    #[must_use]
    pub fn bucket(&self) -> &'static str {
        BUCKET
    }

    /// The directory whose directories are the buckets and whose files are the objects.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The file with what the server says.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        Path::join(self.directory.path(), "server.log")
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

    /// Stops it by SIGTERM; returns when it is gone. One that is down stays so.
    ///
    /// # Errors
    /// [`Error::Server`] if it does not end within 60 s; it is killed then.
    pub fn stop(&mut self) -> Result<(), Error> {
        self.process.take().map_or(Ok(()), Process::stop)
    }

    /// Starts it again with the same objects and port, and waits until it takes connections; one
    /// that runs is stopped before.
    ///
    /// # Errors
    /// Those of [`stop`](Self::stop) and [`start`](Self::start).
    pub fn restart(&mut self) -> Result<(), Error> {
        self.stop()?;
        let (directory, address) = (self.directory.path(), self.port.address());
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

fn program() -> Result<PathBuf, Error> {
    let program = cache::path_of(DIRECTORY)?.join(PROGRAM);
    if program.is_file() {
        return Ok(program);
    }
    Err(Error::Missing {
        what: format!("versitygw, an S3 server (`{}`)", program.display()),
        fix: "run `cargo xtask setup`".to_owned(),
    })
}
