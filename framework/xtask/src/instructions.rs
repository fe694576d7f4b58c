//! A guard on how many instructions an event takes, which no other work on the machine disturbs.
//!
//! `valgrind --tool=callgrind` counts the instructions of a row of [`bench::counted`](crate::bench)
//! for two sizes of input, in the epochs alone. Their difference is what the further events took, so
//! that the start cancels; it is compared with a committed file.
//!
//! Deliberately absent: the threads that read and write, whose waits count differently in every
//! run; and figures for people: an instruction is no time, and waits for memory do not show.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use clap::Args;

use crate::{Outcome, bench::counted, flights::workspace, say};

/// By how much a row may take more than the baseline, in percent.
const MORE_PERCENT_MAX: f64 = 5.0;
/// The committed file: a line for each row, its name and its instructions per event.
const BASELINE: &str = "framework/xtask/instructions.txt";
/// How many events there are, and in the larger input.
const EVENTS: [u64; 2] = [65_536, 131_072];

/// What to do with what is counted.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Writes what is counted down as the new baseline.
    #[arg(long)]
    accept: bool,
    /// Runs one row in this process, to be counted.
    #[arg(long, hide = true, requires = "events")]
    row: Option<String>,
    /// How many events the one row has.
    #[arg(long, hide = true)]
    events: Option<u64>,
}

type Counts = BTreeMap<String, f64>;

/// Runs the task and prints a figure a line.
pub(crate) fn run(options: &Options) -> Outcome {
    if let (Some(row), Some(events)) = (&options.row, options.events) {
        return counted::run(row, events);
    }
    let (program, valgrind) = (build()?, Valgrind::find_or_fetch()?);
    let directory = tempfile::tempdir()?;
    let mut counts = Counts::new();
    for row in counted::rows() {
        let [small, large] = EVENTS.map(|events| valgrind.count(&program, row.name, events, directory.path()));
        let further = (EVENTS[1] - EVENTS[0]) as f64;
        let count = (large? - small?) / further;
        if count <= 0.0 {
            return Err(format!("nothing was counted of `{}`", row.name).into());
        }
        counts.insert(row.name.to_owned(), count);
    }
    let path = workspace().join(BASELINE);
    if options.accept {
        let lines = counts.iter().map(|(name, count)| format!("{name} {count:.0}\n"));
        fs::write(&path, lines.collect::<String>())?;
        return say(&format!("`{BASELINE}` is written: commit it and say why"));
    }
    let text = fs::read_to_string(&path).map_err(|error| format!("cannot read `{BASELINE}`: {error}"))?;
    compare(&counts, &parsed(&text)?)
}

fn parsed(baseline: &str) -> Outcome<Counts> {
    let line = |line: &str| {
        let (name, count) = line.split_once(' ')?;
        Some((name.to_owned(), count.parse().ok()?))
    };
    let lines = baseline.lines().map(|text| line(text).ok_or_else(|| format!("`{BASELINE}` has the line `{text}`")));
    Ok(lines.collect::<Result<_, _>>()?)
}

fn compare(counts: &Counts, baseline: &Counts) -> Outcome {
    let mut more = Vec::new();
    for (name, count) in counts {
        let Some(accepted) = baseline.get(name) else {
            more.push(format!("{name} is not in `{BASELINE}`"));
            continue;
        };
        let percent = (count / accepted - 1.0) * 100.0;
        say(&format!("{name}: {count:.0} instructions per event, {percent:+.1} % against the baseline"))?;
        if percent > MORE_PERCENT_MAX {
            more.push(format!("{name} takes {percent:.1} % more"));
        }
    }
    if more.is_empty() {
        return Ok(());
    }
    Err(format!("{}; if that is meant to be so: `cargo xtask instructions --accept`", more.join(", ")).into())
}

/// Builds this program with optimisations; returns where it is.
fn build() -> Outcome<PathBuf> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--release", "--package", "xtask", "--message-format", "json-render-diagnostics"]);
    let output = cargo.current_dir(workspace()).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err("xtask cannot be built".into());
    }
    let messages = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<serde_json::Value>();
    let programs = messages.filter_map(|message| message.ok()?["executable"].as_str().map(PathBuf::from));
    programs.last().ok_or_else(|| "cargo does not say where it put xtask".into())
}

/// Where the counter is, and where its parts are if it is not installed.
struct Valgrind {
    program: PathBuf,
    parts: Option<PathBuf>,
}

impl Valgrind {
    /// The one that is installed, or one that is fetched into the directory of builds.
    fn find_or_fetch() -> Outcome<Self> {
        let paths = env::var_os("PATH").unwrap_or_default();
        if let Some(program) = env::split_paths(&paths).map(|path| path.join("valgrind")).find(|path| path.is_file()) {
            return Ok(Self { program, parts: None });
        }
        let home = workspace().join("target/valgrind");
        let fetched = Self { program: home.join("usr/bin/valgrind"), parts: Some(home.join("usr/libexec/valgrind")) };
        if !fetched.program.is_file() {
            fetch(&home)?;
        }
        Ok(fetched)
    }

    /// How many instructions a run of a row takes.
    fn count(&self, program: &Path, row: &str, events: u64, directory: &Path) -> Outcome<f64> {
        let counts = directory.join("counts");
        let mut command = Command::new(&self.program);
        command.args(["--quiet", "--tool=callgrind"]).arg(format!("--callgrind-out-file={}", counts.display()));
        command.arg(format!("--toggle-collect={}", counted::COUNTED));
        command.arg(program).args(["instructions", "--row", row, "--events", &events.to_string()]);
        if let Some(parts) = &self.parts {
            command.env("VALGRIND_LIB", parts);
        }
        let status = command.stdout(Stdio::null()).status()?;
        if !status.success() {
            return Err(format!("the run of `{row}` failed: {status}").into());
        }
        let text = fs::read_to_string(&counts)?;
        let total = text.lines().find_map(|line| line.strip_prefix("summary: "));
        Ok(total.ok_or("callgrind tells no total")?.trim().parse()?)
    }
}

/// Fetches the package of Debian and unpacks it; nothing is installed, so nobody has to be root.
fn fetch(home: &Path) -> Outcome {
    fs::create_dir_all(home)?;
    let download = || Command::new("apt-get").args(["download", "--quiet", "valgrind"]).current_dir(home).status();
    let is_fetched = download().is_ok_and(|status| status.success()) || {
        // A new machine has no list of packages yet.
        let _ = Command::new("apt-get").args(["update", "--quiet"]).status();
        download().is_ok_and(|status| status.success())
    };
    let package = fs::read_dir(home)?.flatten().map(|entry| entry.path());
    let package = package.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    let (true, Some(package)) = (is_fetched, package) else {
        return Err("valgrind can be neither found nor fetched: install it".into());
    };
    match Command::new("dpkg").arg("-x").arg(package).arg(home).status()?.success() {
        true => Ok(()),
        false => Err("the package of valgrind cannot be unpacked".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares a row `a` with a baseline of 1,000.
    fn check(count: f64) -> Result<(), String> {
        let baseline = parsed("a 1000\n").unwrap();
        compare(&Counts::from([("a".to_owned(), count)]), &baseline).map_err(|error| error.to_string())
    }

    #[test]
    fn more_than_five_percent_more_fails_and_says_how_to_accept_it() {
        assert_eq!(check(1_049.0), Ok(()));
        assert_eq!(check(10.0), Ok(()));
        let error = check(1_051.0).unwrap_err();
        assert!(error.contains("a takes 5.1 % more") && error.contains("--accept"), "{error}");
        let error = compare(&Counts::from([("b".to_owned(), 1.0)]), &Counts::new()).unwrap_err().to_string();
        assert!(error.contains("b is not in"), "{error}");
        assert!(parsed("a\n").is_err());
    }
}
