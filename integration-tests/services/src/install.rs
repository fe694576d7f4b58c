//! Installs what the servers need, from package registries.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    process::{Command, Output},
};

use tempfile::TempDir;

use crate::{Error, cache, kafka, s3};

const POM: &str = include_str!("../pom.xml");
/// The packages of Debian with a Java and Maven.
const PACKAGES: [&str; 2] = ["default-jre-headless", "maven"];
/// What the module of the S3 server asks for.
const GO_VERSION_MIN: (u32, u32) = (1, 25);

/// Installs what is missing of the servers, and says each step on standard error when it begins.
///
/// Returns the steps; none if all was there. On Debian it installs Java and Maven too, if it may.
///
/// # Errors
/// [`Error::Missing`] that names what to install by hand, or [`Error::Command`] with the end of the
/// output of the command that failed. The broker does not wait for what the S3 server lacks: the
/// first error is returned after both were tried.
pub fn install() -> Result<Vec<String>, Error> {
    let mut steps = Steps::default();
    let broker = install_broker(&mut steps);
    let s3 = install_s3(&mut steps);
    broker.and(s3).map(|()| steps.0)
}

/// What was done.
#[derive(Debug, Default)]
struct Steps(Vec<String>);

impl Steps {
    fn begin(&mut self, step: String) {
        // The reader of standard error may be gone; the steps are returned as well.
        let _ = writeln!(io::stderr(), "{step}");
        self.0.push(step);
    }
}

fn install_broker(steps: &mut Steps) -> Result<(), Error> {
    let java = kafka::java();
    if (java.is_err() || !is_there("mvn")) && is_debian_with_root() {
        steps.begin(format!("installing {} as packages of Debian", PACKAGES.join(" and ")));
        run(apt_get().arg("update"))?;
        run(apt_get().args(["install", "-y", "--no-install-recommends"]).args(PACKAGES))?;
    }
    java.or_else(|_| kafka::java())?;
    let name = kafka::JARS;
    cache::make(name, |directory| {
        steps.begin(format!("fetching the jars of {name} by Maven"));
        fetch_jars(directory)
    })?;
    Ok(())
}

fn fetch_jars(directory: &Path) -> Result<(), Error> {
    if !is_there("mvn") {
        let fix = "install Maven, such as the package `maven` of Debian, and let `PATH` lead to `mvn`".to_owned();
        return Err(Error::Missing { what: "Maven".to_owned(), fix });
    }
    let project = TempDir::new().map_err(Error::system("make a directory for Maven"))?;
    fs::write(project.path().join("pom.xml"), POM).map_err(Error::system("write a file for Maven"))?;
    let mut maven = Command::new("mvn");
    maven.args(["-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime"]).current_dir(project.path());
    run(maven.arg(format!("-DoutputDirectory={}", directory.display()))).map(drop)
}

fn install_s3(steps: &mut Steps) -> Result<(), Error> {
    let name = s3::DIRECTORY;
    cache::make(name, |directory| {
        check_go()?;
        steps.begin(format!("building {name} by Go; this takes minutes"));
        let mut go = Command::new("go");
        go.args(["install", s3::PACKAGE]).env("GOBIN", directory);
        run(go.envs([("CGO_ENABLED", "0"), ("GOTOOLCHAIN", "local"), ("GOFLAGS", "")])).map(drop)
    })?;
    Ok(())
}

fn check_go() -> Result<(), Error> {
    let output = Command::new("go").arg("version").env("GOTOOLCHAIN", "local").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    if go_version(&text).is_some_and(|version| version >= GO_VERSION_MIN) {
        return Ok(());
    }
    let (major, minor) = GO_VERSION_MIN;
    let found = if text.is_empty() { String::new() } else { format!(" (`go version` says: {})", text.trim()) };
    Err(Error::Missing {
        what: format!("Go {major}.{minor} or newer, to build an S3 server{found}"),
        fix: "install it and let `PATH` lead to `go`".to_owned(),
    })
}

/// The numbers in a line such as `go version go1.26.8 linux/amd64`.
fn go_version(text: &str) -> Option<(u32, u32)> {
    let version = text.split(" go").nth(1)?;
    let mut numbers = version.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Whether the shell would find a program.
fn is_there(program: &str) -> bool {
    let mut command = Command::new("sh");
    let output = command.args(["-c", "command -v \"$1\"", "sh", program]).output();
    output.is_ok_and(|output| output.status.success())
}

fn is_debian_with_root() -> bool {
    Path::new("/etc/debian_version").exists() && rustix::process::geteuid().is_root()
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Runs a command to its end; what it writes is part of the error if it fails.
pub(crate) fn run(command: &mut Command) -> Result<Output, Error> {
    let shown = shown(command);
    let output = command.output().map_err(Error::system(format!("run `{shown}`")))?;
    if output.status.success() { Ok(output) } else { Err(Error::failed(shown, &output)) }
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_go_are_read() {
        for (text, version) in [
            ("go version go1.26.8 linux/amd64\n", Some((1, 26))),
            ("go version go1.25rc1 linux/arm64", Some((1, 25))),
            ("no such thing", None),
        ] {
            assert_eq!(go_version(text), version, "{text}");
        }
    }

    #[test]
    fn a_command_that_fails_is_named_with_its_last_lines() {
        let error = run(Command::new("sh").args(["-c", "seq 1 30; echo why >&2; exit 7"])).unwrap_err().to_string();
        assert!(error.starts_with("`sh -c seq 1 30; echo why >&2; exit 7` failed (exit status: 7):\n12\n"), "{error}");
        assert!(error.ends_with("\n30\nwhy"), "{error}");
        let error = run(&mut Command::new("/nowhere/program")).unwrap_err().to_string();
        assert!(error.starts_with("cannot run `/nowhere/program`: "), "{error}");
    }

    #[test]
    fn the_jars_have_the_version_of_their_directory() {
        let version = kafka::JARS.trim_start_matches("kafka-").trim_end_matches("-with-tools");
        assert!(POM.contains(&format!("<version>{version}</version>")), "{version}");
        assert!(s3::PACKAGE.ends_with(s3::DIRECTORY.trim_start_matches("versitygw-")));
    }
}
