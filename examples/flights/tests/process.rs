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
    let lists_all = "`--help-settings` lists all";
    for (assignment, expected) in [
        (
            "shard=3",
            format!("there is no setting `shard`, from the option `--set shard`: the nearest is `shards`, {lists_all}"),
        ),
        (
            "ingress.flights.pat=x",
            format!(
                "there is no setting `ingress.flights.pat`, from the option `--set ingress.flights.pat`: the nearest is `ingress.flights.path`, {lists_all}"
            ),
        ),
        (
            "ingress.planes.path=x.csv",
            "the app has no ingress `planes`, which is named by the option `--set ingress.planes.path`: the nearest that it has is `flights`, all are `flights`".into(),
        ),
        (
            "egress.carrier.path=x.jsonl",
            "the app has no egress `carrier`, which is named by the option `--set egress.carrier.path`: the nearest that it has is `carriers`, all are `airports`, `carriers`, `dead-letters`, `knock_on`, `unseen`".into(),
        ),
        ("shards=0", "`shards` is `0`, from the option `--set shards`: it must be 1 to 4096".into()),
        (
            "segment_bytes=64",
            "`segment_bytes` is `64`, from the option `--set segment_bytes`: a size needs a unit: write such as `64B`, `64KiB` or `64MiB`".into(),
        ),
    ] {
        assert_eq!(place.run(&input, &["--set", assignment]).error(), expected);
    }
    place.write("statefn.toml", "shards = 4\n[ingress.fligths]\n");
    assert_eq!(
        place.run(&input, &[]).error(),
        "the app has no ingress `fligths`, which is named by `statefn.toml`, line 2: the nearest that it has is `flights`, all are `flights`"
    );
    // The mistakes of all layers are told at once.
    place.write("statefn.toml", "data = \"data\"\nshard = 3\n");
    let output = place.command(&input, &["--shards=few"]).env("STATEFN_THREAD", "1").output().unwrap();
    let ended = Ended { is_success: output.status.success(), errors: String::from_utf8(output.stderr).unwrap() };
    assert_eq!(
        ended.error().lines().collect::<Vec<_>>(),
        [
            &*format!("there is no setting `shard`, from `statefn.toml`, line 2: the nearest is `shards`, {lists_all}"),
            &format!(
                "the variable `STATEFN_THREAD` is no setting: the nearest is `STATEFN_THREADS`, {lists_all}; unset it if it is not meant for this app"
            ),
            "`shards` is `few`, from the option `--shards`: it must be a whole number, such as `8`, and at most 4294967295",
        ]
    );
    assert!(!place.data().exists(), "a run with wrong settings makes no data");
}

/// What each layer says reaches the run, and is told with where it came from.
#[test]
fn settings_come_from_the_file_the_environment_and_the_command_line() {
    let place = Place::new();
    let input = place.write("flights.csv", text(&first_rows(ROWS)));
    place.write(
        "statefn.toml",
        "shards = 4\nthreads = 1\ncommit_interval = \"1s\"\n[egress.carriers]\npath = \"from-file.jsonl\"\n",
    );
    let run = |arguments: &[&str]| {
        let mut command = place.command(&input, arguments);
        command.env("STATEFN_SHARDS", "8").env("STATEFN_COMMIT_INTERVAL", "2ms");
        command.env("STATEFN_EGRESS__AIRPORTS__PATH", "from-environment.jsonl");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let shown: Value = serde_json::from_str(&run(&["settings", "--output=json", "--commit-interval=1ms"])).unwrap();
    let of = |name: &str| {
        let setting = shown.as_array().unwrap().iter().find(|setting| setting["name"] == name).expect(name);
        format!("{} {} {}", setting["value"], setting["layer"].as_str().unwrap(), setting["origin"].as_str().unwrap())
    };
    for (name, expected) in [
        ("shards", "8 environment the variable `STATEFN_SHARDS`"),
        ("threads", "1 file `statefn.toml`, line 2"),
        ("commit_interval", "\"1ms\" command line the option `--commit-interval`"),
        ("segment_bytes", "\"64MiB\" default the default"),
        ("ingress.flights.path", &format!("{input:?} command line the option `--set ingress.flights.path`")),
        ("egress.carriers.path", "\"from-file.jsonl\" file `statefn.toml`, line 5"),
        (
            "egress.airports.path",
            "\"from-environment.jsonl\" environment the variable `STATEFN_EGRESS__AIRPORTS__PATH`",
        ),
        ("egress.unseen.to", "\"file\" default the default"),
    ] {
        assert_eq!(of(name), expected, "{name}");
    }
    assert!(!place.data().exists(), "showing settings makes no data");
    let table = run(&["settings"]);
    assert_eq!(table.lines().count(), 1 + shown.as_array().unwrap().len());
    assert!(table.lines().any(|line| line.split_whitespace().eq("shards 8 the variable `STATEFN_SHARDS`".split(' '))));

    run(&[]);
    assert!(run(&["check"]).ends_with("8 shards are whole\n"));
    for (file, other) in [("from-file.jsonl", "data/carriers.jsonl"), ("from-environment.jsonl", "data/airports.jsonl")]
    {
        assert!(fs::metadata(place.path(file)).unwrap().len() > 0, "`{file}` is written");
        assert!(!place.path(other).exists(), "`{other}` is not where it is written");
    }
}

#[test]
fn every_setting_is_listed() {
    let place = Place::new();
    let output = place.command(&place.path("none.csv"), &["--help-settings"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    let shown = place.command(&place.path("none.csv"), &["settings", "--output=json"]).output().unwrap();
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert!(shown.as_array().unwrap().len() >= 6);
    for setting in shown.as_array().unwrap() {
        let mut parts: Vec<&str> = setting["name"].as_str().unwrap().split('.').collect();
        if parts.len() == 3 {
            parts[1] = "NAME";
        }
        assert!(help.lines().any(|line| line == parts.join(".")), "{parts:?} is not in {help}");
    }
    assert!(help.contains("NAME of an ingress of this app: flights\n"), "{help}");
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
