//! What version 1 wrote is still read: `fixtures/log-v1` holds a log and a snapshot.
//!
//! The fixture is never written again once version 1 is released. Until then, and for the fixture
//! of a next version (copy this file), write it with
//! `STATEFN_WRITE_FIXTURES=1 cargo test -p statefn-runtime --test log_v1`.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use statefn_core::ports::{
    log::{Log, Record},
    snapshots::Snapshots,
};
use statefn_runtime::embedded::{EmbeddedLog, FileSnapshots, Options};

const PARTITIONS: u32 = 3;
const RECORDS: u64 = 30;
/// The fixture's log was trimmed, so that it begins with the second of its segments.
const TRIMMED_BEFORE: u64 = 18;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/log-v1")
}

fn options() -> Options {
    Options::new("fixture", PARTITIONS).segment_bytes(8192)
}

fn record(partition: u32, offset: u64) -> Vec<u8> {
    format!("record {offset} of partition {partition};").repeat(offset as usize % 5 + 1).into_bytes()
}

fn write(directory: &Path) {
    let (mut log, report) = EmbeddedLog::open(directory.join("log"), &options()).expect("opens");
    assert!(report.created);
    for offset in 0..RECORDS {
        let bytes: Vec<Vec<u8>> = (0..PARTITIONS).map(|partition| record(partition, offset)).collect();
        let group: Vec<Record<'_>> = (0..).zip(&bytes).map(|(partition, bytes)| Record { partition, bytes }).collect();
        log.append(&group).expect("appends");
    }
    for partition in 0..PARTITIONS {
        log.trim(partition, TRIMMED_BEFORE).expect("trims");
    }
    let mut snapshots = FileSnapshots::open(directory.join("snapshots")).expect("opens");
    snapshots.put("shard-1/12", b"the state of a shard").expect("puts");
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &to)?,
            false => _ = fs::copy(entry.path(), to)?,
        }
    }
    Ok(())
}

#[test]
fn version_1_is_read() {
    if env::var_os("STATEFN_WRITE_FIXTURES").is_some() {
        _ = fs::remove_dir_all(fixture());
        write(&fixture());
        fs::remove_file(fixture().join("log/statefn.lock")).expect("a lock is no part of a fixture");
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    copy(&fixture(), directory.path()).expect("the fixture is there");

    let (mut log, report) = EmbeddedLog::open(directory.path().join("log"), &options()).expect("version 1 opens");
    assert_eq!((report.created, report.cut), (false, None));
    for partition in 0..PARTITIONS {
        let start = log.start(partition);
        assert!((1..=TRIMMED_BEFORE).contains(&start), "the fixture was trimmed, it begins at {start}");
        let mut next = start;
        log.read(partition, start, &mut |offset, bytes| {
            assert_eq!((offset, bytes), (next, record(partition, next).as_slice()));
            next += 1;
        })
        .expect("version 1 is readable");
        assert_eq!((next, log.end(partition)), (RECORDS, RECORDS));
    }
    assert_eq!(log.append(&[Record { partition: 0, bytes: b"goes on" }]).expect("appends"), [RECORDS]);

    let mut snapshots = FileSnapshots::open(directory.path().join("snapshots")).expect("opens");
    assert_eq!(snapshots.list().expect("lists"), ["shard-1/12"]);
    assert_eq!(snapshots.get("shard-1/12").expect("is whole").as_deref(), Some(&b"the state of a shard"[..]));
}
