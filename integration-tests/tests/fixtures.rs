//! Data that version 1 has written are opened, checked and gone on with.
//!
//! `fixtures/data-v1` was written by a run whose input broke off in the middle: it has snapshots and
//! a journal behind them, pending timers, messages that wait for their time, and a parked key. To
//! write it again, which is right only before a release: `STATEFN_WRITE_FIXTURES=1 cargo test -p
//! integration-tests --test fixtures`.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use statefn::{inspect::Inspection, prelude::*};

/// How many records the input has, and after how many it broke off when the fixture was written.
const RECORDS: u64 = 4_000;
const RECORDS_IN_FIXTURE: u64 = 3_000;
const SHARDS: u32 = 2;

#[derive(Debug, Default, Clone, Serialize, Deserialize, State)]
struct Account {
    balance_cents: i64,
    days: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "payment")]
struct Payment {
    account: u64,
    cents: i64,
    at_ms: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "interest")]
struct Interest {}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Message)]
#[message(name = "entry")]
struct Entry {
    account: u64,
    balance_cents: i64,
}

static ENTRIES: Egress<Entry> = Egress::new("entries");

#[function(name = "fixture/account", key = u64, sends(Self), emits(ENTRIES))]
impl Account {
    #[on(in_event_time_order)]
    fn pay(&mut self, payment: &Payment, ctx: &mut Context<Self>) -> Result<(), Fault> {
        if payment.cents == 666 {
            return Err(Fault::new("the number of the beast"));
        }
        self.balance_cents += payment.cents;
        if payment.cents > 0 {
            let back = Payment { account: payment.account + 1, cents: -payment.cents, at_ms: payment.at_ms };
            ctx.send(Account::at((payment.account + 1) % 10), back);
        }
        ctx.set_timer_as("interest", ctx.event_time() + Duration::from_millis(500), Interest {});
        ctx.emit(&ENTRIES, &Entry { account: *ctx.key(), balance_cents: self.balance_cents });
        Ok(())
    }

    #[on_timer]
    fn interest(&mut self, _: &Interest) {
        self.days += 1;
    }
}

fn app(directory: &Path) -> App {
    App::new("fixture")
        .function::<Account>()
        .ingress(
            Ingress::<Payment>::new("payments")
                .event_time(|payment| EventTime(payment.at_ms))
                .lateness(Duration::from_millis(50))
                .to::<Account>(),
            |payment, out| out.send(Account::at(payment.account), payment),
        )
        .egress(&ENTRIES)
        .settings(Settings {
            shards: Some(SHARDS),
            threads: Some(2),
            snapshot_tail_bytes: Some(16 * 1024),
            segment_bytes: Some(256 * 1024),
            ..Settings::new().data(directory.join("data")).input("payments", directory.join("payments.jsonl.gz"))
        })
}

/// The first `count` payments; their times go back by up to 49 ms.
fn input(count: u64) -> Vec<u8> {
    let payment = |n: u64| Payment {
        account: n * 7 % 10,
        cents: if n == 2_000 { 666 } else { (n % 100) as i64 },
        at_ms: (n * 10 - n * 31 % 5 * 10) as i64,
    };
    let line = |n| serde_json::to_string(&payment(n)).expect("is JSON") + "\n";
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    (0..count).for_each(|n| gzip.write_all(line(n).as_bytes()).expect("writes to memory"));
    gzip.finish().expect("writes to memory")
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data-v1")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("creates");
    for entry in fs::read_dir(from).expect("is a directory") {
        let entry = entry.expect("readable");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::write(&target, fs::read(entry.path()).expect("readable")).expect("writes");
        }
    }
}

/// Writes the fixture: the input breaks off, so nothing ends and what waits goes on waiting.
fn write_fixture() {
    let directory = tempfile::tempdir().expect("a directory");
    let whole = input(RECORDS_IN_FIXTURE);
    fs::write(directory.path().join("payments.jsonl.gz"), &whole[..whole.len() - 8]).expect("writes");
    let error = app(directory.path()).run().expect_err("the input breaks off");
    assert!(error.to_string().contains("is truncated"), "{error}");
    let _ = fs::remove_dir_all(fixture());
    copy(&directory.path().join("data"), &fixture());
    for segment in fs::read_dir(fixture().join("log")).expect("is a directory") {
        trim_zeros(&segment.expect("readable").path());
    }
}

/// A segment is preallocated; the fixture need not hold the zeros.
fn trim_zeros(segment: &Path) {
    if segment.extension().is_some_and(|extension| extension == "log") {
        let mut bytes = fs::read(segment).expect("readable");
        let length = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| (last + 1).next_multiple_of(8));
        bytes.resize(length.max(8192), 0);
        fs::write(segment, bytes).expect("writes");
    }
}

fn entries(data: &Path) -> Vec<Entry> {
    let text = fs::read_to_string(data.join("entries.jsonl")).expect("readable");
    let mut entries: Vec<Entry> = text.lines().map(|line| serde_json::from_str(line).expect("an entry")).collect();
    entries.sort();
    entries
}

#[test]
fn data_of_version_1_are_checked_and_gone_on_with() {
    if std::env::var_os("STATEFN_WRITE_FIXTURES").is_some() {
        write_fixture();
    }
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    copy(&fixture(), &data);
    fs::write(directory.path().join("payments.jsonl.gz"), input(RECORDS)).expect("writes");

    let mut inspection = Inspection::open(app(directory.path())).expect("opens");
    let checked = inspection.check().expect("is whole");
    assert!(checked.iter().any(|line| line.contains(" pending") && !line.contains(" 0 pending")), "{checked:?}");
    let parked = inspection.parked().expect("readable");
    assert_eq!(parked.len(), 1, "{parked:?}");
    assert!(parked[0].contains("the number of the beast"), "{parked:?}");
    drop(inspection);

    let summary = app(directory.path()).run().expect("goes on");
    assert!(summary.totals.records <= RECORDS - RECORDS_IN_FIXTURE + 200, "most of the input was read before");

    let fresh = tempfile::tempdir().expect("a directory");
    fs::write(fresh.path().join("payments.jsonl.gz"), input(RECORDS)).expect("writes");
    app(fresh.path()).run().expect("runs");
    assert_eq!(entries(&data), entries(&fresh.path().join("data")));
    let states =
        |directory: &Path| Inspection::open(app(directory)).and_then(|mut data| data.states(None)).expect("readable");
    assert_eq!(states(directory.path()), states(fresh.path()));
}
