//! Several threads read one file: what they have decoded side by side arrives in the order of the file.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};
use statefn::{Error, prelude::*};

const RECORDS: u64 = 30_000;
const KEYS: u64 = 7;
const THREADS: usize = 4;

#[derive(Clone, Serialize, Deserialize, Message)]
#[message(name = "step")]
struct Step {
    key: u64,
    number: u64,
    /// What makes a message longer than its record.
    #[serde(default)]
    padding: String,
}

#[derive(Clone, Serialize, Deserialize, Message)]
#[message(name = "seen")]
struct Seen {
    number: u64,
    steps: u64,
}

static SEEN: Egress<Seen> = Egress::new("seen");

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Walker {
    steps: u64,
    last: u64,
}

#[function(name = "order/walker", key = u64, emits(SEEN))]
impl Walker {
    #[on]
    fn step(&mut self, msg: &Step, ctx: &mut Context<Self>) {
        assert!(self.steps == 0 || msg.number > self.last, "{} came behind {}", msg.number, self.last);
        (self.steps, self.last) = (self.steps + 1, msg.number);
        if msg.number + KEYS >= RECORDS {
            ctx.emit(&SEEN, &Seen { number: msg.number, steps: self.steps });
        }
    }
}

/// An app whose router pads every message to so many bytes.
fn app(path: &Path, data: &Path, padding: usize) -> App {
    let settings = Settings::new().data(data).input("steps", path).with("threads=4").expect("is a setting");
    let router = move |step: Step, out: &mut Router<'_, _>| {
        let padding = "x".repeat(padding);
        out.send(Walker::at(step.key), Step { padding, ..step });
    };
    assert_eq!(settings.threads(), THREADS);
    App::new("order")
        .function::<Walker>()
        .ingress(Ingress::<Step>::new("steps").to::<Walker>(), router)
        .egress(&SEEN)
        .settings(settings)
}

/// Every key has had all its steps, each behind the one before, or its key would be parked.
fn check(rows: impl Fn(u64) -> String, header: &str, name: &str, padding: usize) {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let (path, data) = (directory.path().join(name), directory.path().join("data"));
    let content: String = (0..RECORDS).map(rows).collect();
    fs::write(&path, format!("{header}{content}")).expect("can be written");
    let summary = app(&path, &data, padding).run().expect("runs to its end");
    assert_eq!((summary.totals.records, summary.totals.parked_keys), (RECORDS, 0));
    let seen = fs::read_to_string(data.join("seen.jsonl")).expect("is written");
    let seen: Vec<Seen> = seen.lines().map(|line| serde_json::from_str(line).expect("is a record")).collect();
    assert_eq!(seen.iter().map(|seen| seen.steps).sum::<u64>(), RECORDS);
    assert_eq!(seen.len() as u64, KEYS);
}

fn line(number: u64) -> String {
    format!("{{\"key\":{},\"number\":{number}}}\n", number % KEYS)
}

#[test]
fn lines_arrive_in_their_order() {
    check(line, "", "steps.jsonl", 0);
}

#[test]
fn rows_arrive_in_their_order() {
    check(|number| format!("{},{number}\n", number % KEYS), "key,number\n", "steps.csv", 0);
}

#[test]
fn messages_far_longer_than_their_records_arrive_in_their_order() {
    // A stretch of lines makes some three megabytes of messages, so it is routed in several parts.
    check(line, "", "steps.jsonl", 3_000);
}

#[test]
fn what_stands_before_a_place_that_cannot_be_read_is_committed() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let (path, data) = (directory.path().join("steps.jsonl.gz"), directory.path().join("data"));
    let content: String = (0..RECORDS).map(line).collect();
    let mut archive = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut archive, content.as_bytes()).expect("can be packed");
    let packed = archive.finish().expect("can be packed");
    fs::write(&path, &packed[..packed.len() * 2 / 3]).expect("can be written");
    let error = app(&path, &data, 0).run().expect_err("the archive is cut off").to_string();
    assert!(error.contains("steps.jsonl.gz"), "{error}");
    // Once it is whole again, the next run goes on where the first one stopped.
    fs::write(&path, &packed).expect("can be written");
    let summary = app(&path, &data, 0).run().expect("runs to its end");
    let read = summary.totals.records;
    assert!(0 < read && read < RECORDS / 2, "{read} records were left");
    let seen = fs::read_to_string(data.join("seen.jsonl")).expect("is written");
    let steps = seen.lines().map(|line| serde_json::from_str::<Seen>(line).expect("is a record").steps);
    assert_eq!(steps.sum::<u64>(), RECORDS);
}

#[test]
fn a_column_that_is_missing_ends_the_run() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let (path, data) = (directory.path().join("steps.csv"), directory.path().join("data"));
    let rows: String = (0..RECORDS).map(|number| format!("{},{number}\n", number % KEYS)).collect();
    fs::write(&path, format!("key,count\n{rows}")).expect("can be written");
    let error = app(&path, &data, 0).run().expect_err("a column is missing");
    assert!(matches!(&error, Error::Input(_)) && error.to_string().contains("`number`"), "{error}");
}
