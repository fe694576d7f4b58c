//! The example as a process: what it says about bad input and settings, how it stops, and that it
//! loses nothing on the way.
//!
//! Deliberately absent: SIGKILL at random moments, which `cargo xtask kill` does.

#![allow(clippy::unwrap_used, reason = "a test fails loudly where it stands")]

mod plain;

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use serde_json::Value;
use statefn::{App, Settings};
use tempfile::TempDir;

use crate::plain::{Outputs, assert_same, flights_file};

/// How long a process may take to get where it has to.
const DEADLINE: Duration = Duration::from_secs(60);
/// Some days of flights.
const ROWS: usize = 5_000;

/// A directory with an input and the data of a run.
struct Place {
    directory: TempDir,
}

/// How a process has ended.
struct Ended {
    is_success: bool,
    errors: String,
}

impl Ended {
    /// What it says last, without the log lines before.
    #[track_caller]
    fn error(&self) -> &str {
        assert!(!self.is_success, "it has not failed: {}", self.errors);
        self.errors.split_once("error: ").expect(&self.errors).1.trim_end()
    }
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn data(&self) -> PathBuf {
        self.path("data")
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn command(&self, input: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flights"));
        command.current_dir(self.directory.path()).env_remove("RUST_LOG").arg("--data").arg(self.data());
        command.arg(format!("--set=ingress.flights.path={}", input.display())).args(arguments);
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, input: &Path, arguments: &[&str]) -> Ended {
        let output = self.command(input, arguments).output().unwrap();
        Ended { is_success: output.status.success(), errors: String::from_utf8(output.stderr).unwrap() }
    }

    #[track_caller]
    fn must_run(&self, input: &Path) -> Ended {
        let ended = self.run(input, &[]);
        assert!(ended.is_success, "{}", ended.errors);
        ended
    }

    /// Starts a run that takes about this many records a second; its log is the file `errors`.
    fn start(&self, input: &Path, records_per_second: u32) -> Running {
        let rate = format!("--set=ingress.flights.records_per_second={records_per_second}.0");
        let mut command = self.command(input, &[&rate]);
        command.stdout(Stdio::null()).stderr(File::create(self.path("errors")).unwrap());
        Running(command.spawn().unwrap())
    }

    fn errors(&self) -> String {
        fs::read_to_string(self.path("errors")).unwrap()
    }

    /// How many records every shard has committed.
    fn committed(&self, input: &Path) -> u64 {
        let output = self.command(input, &["positions"]).output().unwrap();
        let position: Value = serde_json::from_slice(&output.stdout).unwrap();
        position["records_min"].as_u64().unwrap()
    }

    fn dead_letters(&self) -> Vec<Value> {
        let file = BufReader::new(File::open(self.path("data/dead-letters.jsonl")).unwrap());
        file.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
    }

    /// Asserts that the outputs are those of the file, each line once.
    #[track_caller]
    fn assert_outputs_of(&self, file: &Path) {
        let found = Outputs::read(&self.data());
        found.assert_order_of_keys();
        assert_same(found, Outputs::counted(file));
    }
}

/// A process that is over when the test is.
struct Running(Child);

impl Running {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Polls for a state of the process or of its files.
    #[track_caller]
    fn until(&mut self, what: &str, mut is_so: impl FnMut() -> bool) {
        let started_at = Instant::now();
        while !is_so() {
            assert!(started_at.elapsed() < DEADLINE, "not {what} within {DEADLINE:?}");
            assert!(self.0.try_wait().unwrap().is_none(), "it ended before it was {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for its end; returns its exit code.
    #[track_caller]
    fn ended(&mut self) -> Option<i32> {
        let started_at = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            assert!(started_at.elapsed() < DEADLINE, "not ended within {DEADLINE:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The header and the first rows of the file of the example.
fn first_rows(rows: usize) -> Vec<String> {
    let file = BufReader::new(MultiGzDecoder::new(File::open(flights_file()).unwrap()));
    file.lines().take(rows + 1).map(Result::unwrap).collect()
}

fn text(lines: &[String]) -> String {
    lines.join("\n") + "\n"
}

/// A row with some values set.
fn row_with(header: &str, row: &str, values: &[(&str, &str)]) -> String {
    let mut fields: Vec<&str> = row.split(',').collect();
    for (column, value) in values {
        let place = header.split(',').position(|name| name == *column).unwrap();
        fields[place] = value;
    }
    fields.join(",")
}

#[test]
fn a_missing_file_is_named_and_nothing_is_taken_for_it() {
    let place = Place::new();
    let input = place.path("flights.csv");
    let ended = place.run(&input, &[]);
    assert_eq!(
        ended.error(),
        format!(
            "cannot open `{}`: No such file or directory (os error 2); correct the path of the ingress in the settings, or make the file readable",
            input.display()
        )
    );
    let input = place.write("flights.csv", text(&first_rows(ROWS)));
    place.must_run(&input);
    place.assert_outputs_of(&input);
}

#[test]
fn a_missing_column_is_named_and_the_corrected_file_is_read_from_its_start() {
    let place = Place::new();
    let mut lines = first_rows(ROWS);
    let header = std::mem::take(&mut lines[0]);
    lines[0] = header.replace("tailnum", "tail");
    let input = place.write("flights.csv", text(&lines));
    let ended = place.run(&input, &[]);
    assert_eq!(
        ended.error(),
        format!(
            "the header of `{}` lacks the column `tailnum`, which the messages of the ingress `flights` need; its columns are: {}; correct the header, or rename the field with `#[serde(rename = \"..\")]`",
            input.display(),
            lines[0].replace(',', ", ")
        )
    );
    lines[0] = header;
    let input = place.write("flights.csv", text(&lines));
    place.must_run(&input);
    place.assert_outputs_of(&input);
}

#[test]
fn bad_rows_become_dead_letters_and_the_others_are_counted() {
    let place = Place::new();
    let mut lines = first_rows(ROWS);
    let good = place.write("good.csv", text(&lines));
    let (header, first) = (lines[0].clone(), lines[1].clone());
    let (long_key, long_text) = ("N".repeat(1_100), "x".repeat(5 << 20));
    // The later one first, so that the line numbers are those that stand here.
    lines.insert(300, row_with(&header, &first, &[("tailnum", &long_text)]));
    lines.insert(200, row_with(&header, &first, &[("tailnum", &long_key)]));
    lines.insert(100, row_with(&header, &first, &[("dep_delay", "soon")]));
    lines.insert(60, row_with(&header, &first, &[("minute", "half past")]));
    lines.insert(50, "1,2,3".into());
    let length = lines[304].len() + 1;
    let input = place.write("flights.csv", text(&lines));
    let ended = place.must_run(&input);
    assert!(
        ended
            .errors
            .contains("some records became dead letters; the egress `dead-letters` has them unreadable=5 rejected=0"),
        "{}",
        ended.errors
    );
    let mut found: Vec<(String, String)> = place
        .dead_letters()
        .iter()
        .map(|letter| (letter["position"].as_str().unwrap().to_owned(), letter["error"].as_str().unwrap().to_owned()))
        .collect();
    found.sort();
    let expected = [
        (103, "`soon`: invalid digit found in string".to_owned()),
        (204, "a key for `flights/aircraft` has 1100 bytes; the limit is 1024".to_owned()),
        (305, format!("the row has {length} bytes; the limit is 4194304")),
        (51, "the row has 3 fields, the header has 19; quote a value that holds a comma".to_owned()),
        (62, "column `minute` holds \"half past\": invalid digit found in string".to_owned()),
    ];
    let expected = expected.map(|(line, error)| (format!("{}:line {line}", input.display()), error));
    assert_eq!(found, expected);
    place.assert_outputs_of(&good);
}

#[test]
fn a_truncated_archive_is_read_up_to_its_end_and_the_whole_one_from_there() {
    let place = Place::new();
    let rows = text(&first_rows(4 * ROWS));
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(rows.as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    let input = place.write("flights.csv.gz", &packed[..packed.len() * 2 / 3]);
    let ended = place.run(&input, &[]);
    let start =
        format!("`{}` is truncated: it ends in the middle of its compressed data behind byte ", input.display());
    let rest = ended.error().strip_prefix(&start).unwrap_or_else(|| panic!("{}", ended.error()));
    let (byte, rest) = rest.split_once(' ').unwrap();
    assert_eq!(
        rest,
        "(uncompressed); get the whole file and start again, the records before that place are not read twice"
    );
    let byte: usize = byte.parse().unwrap();
    let whole_rows = rows[..byte].lines().count() as u64 - 2;
    let committed = place.committed(&input);
    assert!((whole_rows..=whole_rows + 1).contains(&committed), "{committed} of {whole_rows} whole rows are committed");
    place.write("flights.csv.gz", &packed);
    place.must_run(&input);
    place.assert_outputs_of(&input);
}

#[test]
fn the_data_of_another_app_are_refused_and_stay() {
    let place = Place::new();
    App::new("other").settings(Settings::new().data(place.data())).run().unwrap();
    let identity = fs::read(place.path("data/log/statefn.json")).unwrap();
    let input = place.write("flights.csv", text(&first_rows(10)));
    let ended = place.run(&input, &[]);
    assert_eq!(
        ended.error(),
        format!(
            "`{}` belongs to the app `other`, this is the app `flights`: choose another directory for `flights`, or name the app `other` again",
            place.path("data/log").display()
        )
    );
    assert_eq!(fs::read(place.path("data/log/statefn.json")).unwrap(), identity);
}

#[test]
fn another_number_of_shards_is_refused_and_the_old_one_goes_on() {
    let place = Place::new();
    let lines = first_rows(ROWS);
    let input = place.write("flights.csv", text(&lines));
    place.must_run(&input);
    let ended = place.run(&input, &["--shards", "8"]);
    assert_eq!(
        ended.error(),
        format!(
            "the log in `{}` was created with 64 shards, the settings say 8: set the number of shards back to 64 (it cannot change), or choose another directory for a new app",
            place.path("data/log").display()
        )
    );
    place.must_run(&input);
    place.assert_outputs_of(&input);
}

#[test]
fn settings_that_there_are_not_are_named() {
    let place = Place::new();
    let input = place.write("flights.csv", text(&first_rows(10)));
    let of_app = "expected one of `data`, `shards`, `threads`, `commit_interval`, `snapshot_tail_bytes`, `segment_bytes`, `ingress`, `egress`";
    for (assignment, expected) in [
        ("shard=3", format!("unknown field `shard`, {of_app}")),
        (
            "ingress.flights.file=x",
            "unknown field `file`, expected one of `path`, `paths`, `format`, `records_per_second`".into(),
        ),
    ] {
        let ended = place.run(&input, &["--set", assignment]);
        let expected = format!("`--set {assignment}`: {expected}");
        assert_eq!(ended.error().lines().next(), Some(&*expected));
    }
    let file = place.write("statefn.toml", "shard = 3\n");
    let ended = place.run(&input, &[]);
    let error = ended.error();
    // With `--set` on the command line the file is still the first to be read.
    assert!(error.starts_with("in `statefn.toml`: TOML parse error at line 1, column 1"), "{error}");
    assert!(error.ends_with(&format!("unknown field `shard`, {of_app}")), "{error}");
    fs::remove_file(file).unwrap();
    for (assignment, expected) in [
        (
            "ingress.planes.path=x.csv",
            "the settings name the ingress `planes`, which the app does not have; it has `flights`",
        ),
        (
            "egress.planes.path=x.jsonl",
            "the settings name the egress `planes`, which the app does not have; it has `airports`, `carriers`, `dead-letters`, `knock_on`, `unseen`",
        ),
        ("shards=0", "`shards` is 0: it must be 1 to 4096"),
    ] {
        assert_eq!(place.run(&input, &["--set", assignment]).error(), expected);
    }
    assert!(!place.data().exists(), "a run with wrong settings makes no data");
}

#[test]
fn a_second_process_on_the_same_data_is_refused_and_the_first_goes_on() {
    let place = Place::new();
    let input = place.write("flights.csv", text(&first_rows(ROWS)));
    let mut first = place.start(&input, 2_000);
    first.until("at work", || place.path("data/carriers.jsonl").exists());
    let directory = place.path("data/log");
    let expected = format!(
        "`{}` is in use by another process (or opened twice by this one): stop that one, or choose another directory",
        directory.display()
    );
    assert_eq!(place.run(&input, &[]).error(), expected);
    assert_eq!(place.run(&input, &["state"]).error(), expected);
    assert_eq!(first.ended(), Some(0), "{}", place.errors());
    place.assert_outputs_of(&input);
}

#[test]
fn signals_stop_a_run_cleanly_and_the_next_one_finishes_it() {
    for signal in [Signal::TERM, Signal::INT] {
        let place = Place::new();
        let input = place.write("flights.csv", text(&first_rows(ROWS)));
        let mut running = place.start(&input, 2_000);
        let output = place.path("data/carriers.jsonl");
        running.until("writing", || fs::metadata(&output).is_ok_and(|file| file.len() > 0));
        running.signal(signal);
        assert_eq!(running.ended(), Some(0), "{}", place.errors());
        assert!(place.errors().contains("stopped; the next start goes on from here"), "{}", place.errors());
        let committed = place.committed(&input);
        assert!((1..ROWS as u64).contains(&committed), "{committed} records are committed");
        place.must_run(&input);
        place.assert_outputs_of(&input);
    }
}

/// A limit on the size of files stands for a full disk: the system refuses to write, and takes
/// writes again once the limit is gone.
#[test]
fn a_run_waits_while_its_disk_takes_nothing() {
    let place = Place::new();
    let input = place.write("flights.csv", text(&first_rows(ROWS)));
    let flights = place.command(&input, &["--set=ingress.flights.records_per_second=2500.0"]);
    // A limit that is passed sends a signal, which would end the process.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(flights.get_program()).args(flights.get_args());
    command.current_dir(place.directory.path()).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(File::create(place.path("errors")).unwrap());
    let mut running = Running(command.spawn().unwrap());
    let output = place.path("data/carriers.jsonl");
    running.until("writing", || fs::metadata(&output).is_ok_and(|file| file.len() > 0));
    let unlimited = prlimit(Some(running.pid()), Resource::Fsize, limit(64 << 10)).unwrap();
    running.until("waiting for its disk", || place.errors().contains("no input is taken until the log can be written"));
    prlimit(Some(running.pid()), Resource::Fsize, unlimited).unwrap();
    assert_eq!(running.ended(), Some(0), "{}", place.errors());
    assert!(place.errors().contains("the log takes appends again"), "{}", place.errors());
    place.assert_outputs_of(&input);
}

fn limit(bytes: u64) -> Rlimit {
    Rlimit { current: Some(bytes), maximum: None }
}
