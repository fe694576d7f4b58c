//! What the log and the snapshots promise, on a disk that fails and crashes and on the real one.

use std::path::Path;

use proptest::prelude::*;
use statefn_core::ports::{
    log::{self, AppendError, Log, Offset, Partition, ReadError, Record},
    snapshots::{self, Snapshots},
};

use super::{
    EmbeddedLog, FileSnapshots, OpenError, Options, Report,
    memory_disk::{Failure, MemoryDisk},
};

const DIRECTORY: &str = "/data/log";
const SEGMENT_1: &str = "/data/log/0000000000000001.log";
const SEGMENT_2: &str = "/data/log/0000000000000002.log";
const SUPERBLOCK: &str = "/data/log/superblock";
const IDENTITY: &str = "/data/log/statefn.json";
/// The length of a segment's header.
const HEADER: usize = 4096;

/// Does something to a disk behind the back of the log.
type Prepare = fn(&MemoryDisk);
/// Does something to the bytes of a file.
type Damage = fn(&mut Vec<u8>);

fn options() -> Options {
    Options::new("test", 3).segment_bytes(8192)
}

fn disk() -> MemoryDisk {
    MemoryDisk::new(1)
}

fn try_open(disk: &MemoryDisk) -> Result<(EmbeddedLog, Report), OpenError> {
    EmbeddedLog::open_on(Box::new(disk.clone()), Path::new(DIRECTORY), &options())
}

fn open(disk: &MemoryDisk) -> (EmbeddedLog, Report) {
    try_open(disk).unwrap_or_else(|error| panic!("the log opens: {error}"))
}

fn append(log: &mut EmbeddedLog, partition: Partition, bytes: &[u8]) -> Result<Offset, AppendError> {
    log.append(&[Record { partition, bytes }]).map(|offsets| offsets[0])
}

fn read(log: &mut EmbeddedLog, partition: Partition) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    let start = log.start(partition);
    log.read(partition, start, &mut |offset, bytes| {
        assert_eq!(offset, start + records.len() as u64, "offsets are dense");
        records.push(bytes.to_vec());
    })
    .unwrap_or_else(|error| panic!("partition {partition} is readable: {error}"));
    assert_eq!(log.end(partition), start + records.len() as u64);
    records
}

fn scan(log: &EmbeddedLog) -> Vec<Vec<Vec<u8>>> {
    let mut records = vec![Vec::new(); 3];
    log.scan(&mut |partition, offset, bytes| {
        let records = &mut records[partition as usize];
        assert_eq!(offset, log.start(partition) + records.len() as u64, "offsets are dense");
        records.push(bytes.to_vec());
    })
    .unwrap();
    records
}

/// A disk with a log of three groups of one record each in partition 0, of 100 bytes; the
/// superblock knows of the first `known`.
fn disk_with_three(known: usize) -> MemoryDisk {
    let mut disk = disk();
    let (mut log, _) = open(&disk);
    for index in 0..3 {
        append(&mut log, 0, &[b'a' + index as u8; 100]).unwrap();
        if index + 1 == known {
            log.sync_superblock().unwrap();
        }
    }
    disk.kill();
    disk
}

/// The bytes of a group of one record of 100 bytes.
const GROUP: usize = (48 + 8 + 100_usize).next_multiple_of(8);

#[test]
fn the_embedded_log_conforms() {
    for segment_bytes in [1, 64 << 10, 64 << 20] {
        let mut directories = Vec::new();
        log::conformance(|| {
            let directory = tempfile::tempdir().unwrap();
            let options = Options::new("test", 3).segment_bytes(segment_bytes);
            let (log, report) = EmbeddedLog::open(directory.path().join("new/log"), &options).unwrap();
            assert!(report.created);
            directories.push(directory);
            Box::new(log)
        });
    }
}

#[test]
fn file_snapshots_conform() {
    let mut directories = Vec::new();
    snapshots::conformance(|| {
        let directory = tempfile::tempdir().unwrap();
        let place = FileSnapshots::open(directory.path().join("new/snapshots")).unwrap();
        directories.push(directory);
        Box::new(place)
    });
}

#[test]
fn a_log_goes_on_where_it_was_left() {
    let disk = disk();
    let (mut log, report) = open(&disk);
    assert!(report.created);
    let large = vec![7; 20_000];
    let records: Vec<Vec<u8>> = (0..200_u8).map(|index| vec![index; 90]).chain([large]).collect();
    for (index, record) in records.iter().enumerate() {
        assert_eq!(append(&mut log, index as u32 % 3, record).unwrap(), index as u64 / 3);
        if index % 17 == 0 {
            drop(log);
            let (reopened, report) = open(&disk);
            assert_eq!((report.created, report.records, &report.cut), (false, index as u64 + 1, &None));
            log = reopened;
        }
    }
    let of = |partition| records.iter().skip(partition).step_by(3).cloned().collect::<Vec<_>>();
    for partition in 0..3 {
        assert_eq!(read(&mut log, partition as u32), of(partition));
        assert_eq!(scan(&log)[partition], of(partition));
    }
    let mut tail = Vec::new();
    log.read(1, 60, &mut |offset, _| tail.push(offset)).unwrap();
    assert_eq!(tail, (60..log.end(1)).collect::<Vec<_>>());
}

#[test]
fn a_log_that_cannot_be_opened_says_what_to_do() {
    let cases: [(&str, Prepare, &[&str]); 13] = [
        ("a good one", |_| {}, &[]),
        ("no identity", |disk| disk.lose_file(IDENTITY), &["/data/log", "no `statefn.json`", "choose an empty"]),
        (
            "another app",
            |disk| disk.tamper(IDENTITY, |bytes| replace(bytes, "test", "shop")),
            &["app `shop`", "app `test`", "choose another directory"],
        ),
        (
            "another number of shards",
            |disk| disk.tamper(IDENTITY, |bytes| replace(bytes, "\"shards\": 3", "\"shards\": 8")),
            &["8 shards", "say 3", "back to 8"],
        ),
        (
            "another format",
            |disk| disk.tamper(IDENTITY, |bytes| replace(bytes, "\"format\": 1", "\"format\": 9")),
            &["statefn.json", "version 9", "reads version 1"],
        ),
        ("half an identity", |disk| disk.tamper(IDENTITY, |bytes| bytes.truncate(9)), &["statefn.json", "damaged"]),
        ("no superblock", |disk| disk.lose_file(SUPERBLOCK), &["superblock", "missing"]),
        ("an empty superblock", |disk| disk.tamper(SUPERBLOCK, Vec::clear), &["superblock", "neither copy"]),
        ("no segment", |disk| disk.lose_file(SEGMENT_1), &["0001.log", "missing"]),
        ("an empty segment", |disk| disk.tamper(SEGMENT_1, Vec::clear), &["0001.log", "byte 0", "cut short"]),
        (
            "the last group is gone",
            |disk| disk.tamper(SEGMENT_1, |bytes| bytes[HEADER + 2 * GROUP..].fill(0)),
            &["lost acknowledged records", "0001.log", "ends at byte 4416 with group 2", "group 3 was known"],
        ),
        (
            "the last group is torn",
            |disk| disk.tamper(SEGMENT_1, |bytes| bytes[HEADER + 2 * GROUP + 60..].fill(0)),
            &["lost acknowledged records", "byte 4416"],
        ),
        (
            "the second group is bad",
            |disk| disk.tamper(SEGMENT_1, |bytes| bytes[HEADER + GROUP + 60] ^= 1),
            &["0001.log", "byte 4256", "wrong checksum", "came later begins at byte 4416"],
        ),
    ];
    for (name, prepare, expected) in cases {
        let disk = disk_with_three(3);
        prepare(&disk);
        let message = try_open(&disk).err().map(|error| error.to_string());
        assert_eq!(message.is_none(), expected.is_empty(), "{name}: {message:?}");
        let message = message.unwrap_or_default();
        for part in expected {
            assert!(message.contains(part), "{name}: `{part}` is missing in: {message}");
        }
        let again = try_open(&disk).err().map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(again, message, "{name}: a refused open changes nothing");
    }
}

fn replace(bytes: &mut Vec<u8>, from: &str, to: &str) {
    *bytes = String::from_utf8(bytes.clone()).unwrap().replace(from, to).into_bytes();
}

#[test]
fn no_changed_byte_goes_unnoticed() {
    let file_end = HEADER + 3 * GROUP;
    for at in (0..file_end + 64).step_by(3) {
        let disk = disk_with_three(3);
        disk.tamper(SEGMENT_1, |bytes| bytes[at] ^= 0x40);
        match try_open(&disk) {
            Err(OpenError::Damaged { .. } | OpenError::LostRecords { .. }) => assert!(at < file_end, "byte {at}"),
            Err(error) => panic!("byte {at}: {error}"),
            Ok((mut log, report)) => {
                assert!(at >= file_end, "byte {at} changed and the log opened");
                assert_eq!(report.cut.unwrap().offset, file_end as u64);
                assert_eq!(read(&mut log, 0).len(), 3);
            }
        }
    }
}

#[test]
fn a_file_that_is_cut_anywhere_is_noticed() {
    let file_end = HEADER + 3 * GROUP;
    for length in (0..file_end).step_by(7) {
        let disk = disk_with_three(3);
        disk.tamper(SEGMENT_1, |bytes| bytes.truncate(length));
        assert!(try_open(&disk).is_err(), "cut to {length}");
    }
}

#[test]
fn a_write_that_a_crash_cut_short_is_left_behind() {
    for kept in 1..GROUP - 4 {
        let mut disk = disk_with_three(2);
        disk.tamper(SEGMENT_1, |bytes| bytes[HEADER + 2 * GROUP + kept..].fill(0));
        for _ in 0..2 {
            // Opening does not repair: a second open finds the same.
            let (mut log, report) = open(&disk);
            let cut = report.cut.unwrap();
            assert_eq!((cut.offset, cut.bytes <= kept as u64), (4416, true));
            assert_eq!(read(&mut log, 0).len(), 2);
            disk.kill();
        }
        let (mut log, _) = open(&disk);
        assert_eq!(append(&mut log, 0, b"after").unwrap(), 2);
        disk.crash();
        let (mut log, report) = open(&disk);
        assert_eq!((report.cut, report.segments), (None, 2));
        assert_eq!(read(&mut log, 0)[2], b"after");
    }
}

#[test]
fn damage_in_a_segment_that_is_not_the_last_is_noticed() {
    let cases: [(&str, Prepare); 4] = [
        ("a bad last group", |disk| disk.tamper(SEGMENT_1, |bytes| *bytes.last_mut().unwrap() ^= 1)),
        ("a cut file", |disk| disk.tamper(SEGMENT_1, |bytes| bytes.truncate(5000))),
        ("a missing file", |disk| disk.lose_file(SEGMENT_2)),
        ("a header of the next", |disk| disk.tamper(SEGMENT_2, |bytes| bytes[40] ^= 8)),
    ];
    for (name, damage) in cases {
        let mut disk = disk();
        let (mut log, _) = open(&disk);
        for _ in 0..100 {
            append(&mut log, 1, &[1; 96]).unwrap();
        }
        disk.kill();
        damage(&disk);
        let error = try_open(&disk).err().unwrap_or_else(|| panic!("{name} is noticed"));
        assert!(matches!(error, OpenError::Damaged { .. }), "{name}: {error}");
    }
}

#[test]
fn bytes_that_go_bad_while_the_log_is_open_are_noticed_by_a_read() {
    let disk = disk_with_three(3);
    let (mut log, _) = open(&disk);
    disk.tamper(SEGMENT_1, |bytes| bytes[HEADER + GROUP + 70] ^= 1);
    let check = |log: &mut EmbeddedLog, place: &str| {
        let mut seen = 0;
        let error = log.read(0, 0, &mut |_, _| seen += 1).unwrap_err();
        assert_eq!(seen, 1);
        let ReadError::Damaged(message) = error else { panic!("{error}") };
        assert!(message.contains("0001.log") && message.contains(place), "{message}");
    };
    // Where the record stands, as the open has found it.
    check(&mut log, "byte 4312");
    append(&mut log, 0, b"the places are forgotten").unwrap();
    // Where its group stands.
    check(&mut log, "byte 4256");
}

#[test]
fn records_that_hold_a_copy_of_the_log_do_not_look_like_a_later_group() {
    // Two more groups are written, copied, and forgotten by the disk.
    let mut disk = disk_with_three(3);
    let begin = HEADER + 3 * GROUP;
    let (mut segment, mut superblock, mut later_groups) = (Vec::new(), Vec::new(), Vec::new());
    disk.tamper(SEGMENT_1, |bytes| segment = bytes.clone());
    disk.tamper(SUPERBLOCK, |bytes| superblock = bytes.clone());
    let (mut log, _) = open(&disk);
    append(&mut log, 0, &[1; 100]).unwrap();
    append(&mut log, 0, &[2; 100]).unwrap();
    disk.kill();
    disk.tamper(SEGMENT_1, |bytes| later_groups = std::mem::replace(bytes, segment)[begin..begin + 2 * GROUP].to_vec());
    disk.tamper(SUPERBLOCK, |bytes| *bytes = superblock);

    let (mut log, _) = open(&disk);
    append(&mut log, 0, &later_groups).unwrap();
    disk.kill();
    disk.tamper(SEGMENT_1, |bytes| bytes[begin + 50] ^= 1);
    let (_, report) = open(&disk);
    assert_eq!(report.cut.unwrap().offset, begin as u64);
}

#[test]
fn a_rotation_notes_how_far_the_log_is_durable() {
    let mut disk = disk();
    let (mut log, _) = open(&disk);
    append(&mut log, 0, &[1; 100]).unwrap();
    append(&mut log, 0, &[2; 5000]).unwrap();
    disk.kill();
    disk.lose_file(SEGMENT_2);
    disk.tamper(SEGMENT_1, |bytes| bytes.truncate(HEADER));
    let error = try_open(&disk).expect_err("the first group is gone");
    assert!(matches!(error, OpenError::LostRecords { found: 0, durable: 1, .. }), "{error}");
}

#[test]
fn a_superblock_that_was_never_on_the_disk_does_not_cost_the_other_copy() {
    for seed in 0..200 {
        let mut disk = MemoryDisk::new(seed);
        let (mut log, _) = open(&disk);
        append(&mut log, 0, b"1").unwrap();
        disk.fail(0, Failure::Sync, 1);
        log.sync_superblock().unwrap_err();
        // The next process reads what the failed sync left in the page cache, and dies as well.
        disk.kill();
        let (mut log, _) = open(&disk);
        append(&mut log, 0, b"2").unwrap();
        disk.fail(0, Failure::Input, 2);
        log.sync_superblock().unwrap_err();
        disk.crash();
        assert_eq!(read(&mut open(&disk).0, 0), [b"1", b"2"]);
    }
}

#[test]
fn a_refused_group_is_cut_at_once_where_the_disk_allows_it() {
    for seed in 0..50 {
        let mut disk = MemoryDisk::new(seed);
        let (mut log, _) = open(&disk);
        append(&mut log, 0, b"acknowledged").unwrap();
        disk.fail(0, Failure::Sync, 1);
        append(&mut log, 0, b"refused").unwrap_err();
        disk.crash();
        assert_eq!(read(&mut open(&disk).0, 0), [b"acknowledged"]);
    }
}

#[test]
fn a_directory_is_open_once() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = EmbeddedLog::open(directory.path(), &options()).unwrap();
    let error = EmbeddedLog::open(directory.path(), &options()).expect_err("it is in use");
    assert!(matches!(&error, OpenError::InUse { directory: named } if named == directory.path()), "{error}");
    drop(log);
    EmbeddedLog::open(directory.path(), &options()).unwrap();
}

#[test]
fn a_directory_of_something_else_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("thesis.txt"), "years of work").unwrap();
    let error = EmbeddedLog::open(directory.path(), &options()).expect_err("it is foreign");
    assert!(matches!(&error, OpenError::Foreign { found, .. } if found == "thesis.txt"), "{error}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing was put there");
}

#[test]
fn a_first_start_can_die_at_any_step() {
    let mut steps = 0;
    for seed in 0..20 {
        for step in 0.. {
            let mut disk = MemoryDisk::new(seed);
            disk.fail(step, Failure::Dead, 1);
            let died = try_open(&disk).is_err();
            match seed % 2 {
                0 => disk.crash(),
                _ => disk.kill(),
            }
            let (mut log, report) = open(&disk);
            assert_eq!(report.records, 0);
            assert_eq!(append(&mut log, 2, b"first").unwrap(), 0);
            disk.crash();
            assert_eq!(read(&mut open(&disk).0, 2), [b"first"]);
            steps += 1;
            if !died {
                break;
            }
        }
    }
    assert!(steps > 20 * 15, "the start has many steps, {steps} were tried");
}

#[test]
fn a_failed_append_leaves_nothing_and_can_be_repeated() {
    let failures = [Failure::Input, Failure::Full, Failure::Sync, Failure::Directory];
    for (failure, count, size) in failures
        .iter()
        .flat_map(|failure| (1..6).flat_map(move |count| [100, 3000, 9000].map(|size| (*failure, count, size))))
    {
        let mut disk = MemoryDisk::new(count);
        let (mut log, _) = open(&disk);
        let first = vec![1; size];
        append(&mut log, 0, &first).unwrap();
        disk.fail(0, failure, count);
        let second = vec![2; size];
        for _ in 0..10 {
            match append(&mut log, 0, &second) {
                Ok(offset) => {
                    assert_eq!(offset, 1);
                    break;
                }
                Err(AppendError::Refused(message)) => {
                    assert!(message.contains(DIRECTORY), "{message}");
                    assert_eq!(read(&mut log, 0), [first.as_slice()], "nothing of the group stands");
                }
                Err(error) => panic!("{failure:?} {count} {size}: {error}"),
            }
        }
        disk.mend();
        assert_eq!(read(&mut log, 0), [first.as_slice(), &second], "{failure:?} {count} {size}");
        disk.crash();
        let (mut log, report) = open(&disk);
        assert_eq!(read(&mut log, 0), [first.as_slice(), &second], "{failure:?} {count} {size}: {report:?}");
    }
}

#[test]
fn a_record_that_no_log_can_hold_is_refused_at_once() {
    let disk = disk();
    let (mut log, _) = open(&disk);
    for (partition, bytes, part) in [(3, &b"x"[..], "no partition 3"), (0, b"", "0 bytes")] {
        let error = append(&mut log, partition, bytes).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    assert!(log.append(&[]).unwrap().is_empty());
    assert_eq!(append(&mut log, 0, b"x").unwrap(), 0);
}

#[test]
fn trimmed_segments_are_removed_and_disk_use_is_bounded() {
    let mut disk = disk();
    let (mut log, _) = open(&disk);
    append(&mut log, 2, b"held").unwrap();
    for _ in 0..500 {
        let end = append(&mut log, 0, &[3; 96]).unwrap();
        append(&mut log, 1, &[4; 96]).unwrap();
        log.trim(0, end).unwrap();
        log.trim(1, end).unwrap();
    }
    assert_eq!(log.held_by(), [2], "one record holds everything back");
    assert!(log.bytes() > 100_000);
    log.trim(2, 1).unwrap();
    assert_eq!(log.held_by(), Vec::<u32>::new());
    assert!(log.bytes() < 3 * 8192, "{} bytes", log.bytes());
    assert_eq!((log.start(2), log.end(2)), (1, 1));
    let start = log.start(0);
    assert!((400..500).contains(&start));
    let error = log.read(0, start - 1, &mut |_, _| {}).unwrap_err();
    assert!(matches!(error, ReadError::Trimmed { partition: 0, .. }), "{error}");
    disk.kill();
    let (mut log, _) = open(&disk);
    assert_eq!((log.start(0), log.start(2), log.end(2)), (start, 1, 1), "starts are right after an open");
    assert_eq!(append(&mut log, 2, b"next").unwrap(), 1);
    let segments = disk.file_names().iter().filter(|name| name.ends_with(".log")).count();
    assert!(segments <= 3, "{:?}", disk.file_names());
}

#[test]
fn the_trim_of_a_partition_beyond_its_end_waits_for_nothing() {
    let disk = disk();
    let (mut log, _) = open(&disk);
    log.trim(0, 1000).unwrap();
    for index in 0..100 {
        assert_eq!(append(&mut log, 0, &[5; 96]).unwrap(), index);
    }
    assert_eq!(log.start(0), 0, "what came after the trim is kept");
}

#[test]
fn leftovers_of_a_crash_are_removed() {
    let mut disk = disk_with_three(3);
    let mut place = FileSnapshots::open_on(Box::new(disk.clone()), Path::new("/snapshots")).unwrap();
    disk.fail(4, Failure::Dead, 1);
    assert!(place.put("shard/1", b"never whole").is_err());
    disk.kill();
    let (mut log, _) = open(&disk);
    disk.fail(3, Failure::Dead, 1);
    assert!(append(&mut log, 0, &[1; 5000]).is_err());
    disk.kill();
    let leftovers = disk.file_names().into_iter().filter(|name| name.contains('~'));
    let expected = ["/data/log/0000000000000002.log~.tmp", "/snapshots/shard/1~.tmp"];
    assert_eq!(leftovers.collect::<Vec<_>>(), expected);
    open(&disk);
    FileSnapshots::open_on(Box::new(disk.clone()), Path::new("/snapshots")).unwrap();
    assert!(!disk.file_names().iter().any(|name| name.contains('~')), "{:?}", disk.file_names());
}

#[test]
fn a_snapshot_is_whole_or_not_there() {
    let bytes = vec![9; 5000];
    for step in 0..30 {
        for seed in 0..10 {
            let mut disk = MemoryDisk::new(seed);
            let open =
                |disk: &MemoryDisk| FileSnapshots::open_on(Box::new(disk.clone()), Path::new("/snapshots")).unwrap();
            let mut place = open(&disk);
            disk.fail(step, Failure::Dead, 1);
            let stored = place.put("shard-1/7", &bytes).is_ok();
            disk.crash();
            let mut place = open(&disk);
            let found = place.get("shard-1/7").unwrap();
            assert!(found.as_ref().is_none_or(|found| *found == bytes), "step {step}, seed {seed}");
            assert!(found.is_some() || !stored, "a stored one is there: step {step}, seed {seed}");
            assert_eq!(place.list().unwrap().len(), usize::from(found.is_some()));
            place.put("shard-1/7", &bytes).unwrap();
            disk.crash();
            assert_eq!(open(&disk).get("shard-1/7").unwrap(), Some(bytes.clone()));
        }
    }
}

#[test]
fn a_damaged_snapshot_is_an_error() {
    let cases: [(&str, Damage); 4] = [
        ("checksum", |bytes| bytes[30] ^= 1),
        ("holds 3 bytes of 8", |bytes| bytes.truncate(27)),
        ("its header alone", |bytes| bytes.truncate(5)),
        ("does not begin", |bytes| bytes[0] = 0),
    ];
    for (expected, damage) in cases {
        let disk = disk();
        let mut place = FileSnapshots::open_on(Box::new(disk.clone()), Path::new("/snapshots")).unwrap();
        place.put("a", b"12345678").unwrap();
        disk.tamper("/snapshots/a", damage);
        let error = place.get("a").unwrap_err();
        assert!(error.contains(expected) && error.contains("/snapshots/a"), "{error}");
    }
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let mut place = FileSnapshots::open_on(Box::new(disk()), Path::new("/snapshots")).unwrap();
    for name in
        ["", "..", "../a", "a/../b", "/a", "a/", "a//b", ".", "A", "a b", "a\0", "ä", "a~.tmp", &"a".repeat(201)]
    {
        assert!(place.put(name, b"x").unwrap_err().contains("is no name of a snapshot"), "{name}");
        assert!(place.get(name).is_err(), "{name}");
        assert!(place.remove(name).is_err(), "{name}");
    }
    for name in ["a", "a.b-1/0/..c", &"a".repeat(200)] {
        place.put(name, b"x").unwrap();
    }
}

/// What a random world does.
#[derive(Debug, Clone)]
enum Step {
    Append(Vec<(Partition, usize)>),
    Fail { after: u64, failure: Failure, count: u64 },
    Mend,
    Trim { partition: Partition, back: u64 },
    Superblock,
    Stop,
    Kill,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let failure = prop_oneof![
        Just(Failure::Input),
        Just(Failure::Full),
        Just(Failure::Sync),
        Just(Failure::Directory),
        Just(Failure::Dead)
    ];
    let size = prop_oneof![4 => 1..200_usize, 1 => 1..3000_usize, 1 => 5000..9000_usize];
    prop_oneof![
        10 => prop::collection::vec((0..3_u32, size), 1..6).prop_map(Step::Append),
        4 => (0..12_u64, failure, 1..8_u64).prop_map(|(after, failure, count)| Step::Fail { after, failure, count }),
        1 => Just(Step::Mend),
        2 => (0..3_u32, 0..20_u64).prop_map(|(partition, back)| Step::Trim { partition, back }),
        1 => Just(Step::Superblock),
        1 => Just(Step::Stop),
        1 => Just(Step::Kill),
        2 => Just(Step::Crash),
    ]
}

/// A log and what it must hold.
struct World {
    disk: MemoryDisk,
    log: Option<EmbeddedLog>,
    acknowledged: Vec<Vec<Vec<u8>>>,
    /// Groups that were refused since the last that was not: one of them may come back.
    refused: Vec<Vec<(Partition, Vec<u8>)>>,
    trimmed: [Offset; 3],
    written: u8,
}

impl World {
    fn new(seed: u64) -> Self {
        let disk = MemoryDisk::new(seed);
        let log = Some(open(&disk).0);
        let acknowledged = vec![Vec::new(); 3];
        Self { disk, log, acknowledged, refused: Vec::new(), trimmed: [0; 3], written: 0 }
    }

    fn run(&mut self, step: Step) {
        let Some(log) = &mut self.log else { unreachable!("a world always has a log") };
        match step {
            Step::Append(sizes) => self.append(&sizes),
            Step::Fail { after, failure, count } => self.disk.fail(after, failure, count),
            Step::Mend => {
                self.disk.mend();
                self.compare();
            }
            Step::Trim { partition, back } => {
                let before = log.end(partition).saturating_sub(back);
                self.trimmed[partition as usize] = self.trimmed[partition as usize].max(before);
                _ = log.trim(partition, before);
            }
            Step::Superblock => _ = log.sync_superblock(),
            Step::Stop => self.reopen(|_| {}),
            Step::Kill => self.reopen(MemoryDisk::kill),
            Step::Crash => self.reopen(MemoryDisk::crash),
        }
    }

    fn append(&mut self, sizes: &[(Partition, usize)]) {
        self.written = self.written.wrapping_add(1).max(1);
        let group: Vec<(Partition, Vec<u8>)> =
            sizes.iter().map(|(partition, size)| (*partition, vec![self.written; *size])).collect();
        let records: Vec<Record<'_>> =
            group.iter().map(|(partition, bytes)| Record { partition: *partition, bytes }).collect();
        match self.log.as_mut().unwrap().append(&records) {
            Ok(offsets) => {
                self.refused.clear();
                for ((partition, bytes), offset) in group.into_iter().zip(offsets) {
                    let acknowledged = &mut self.acknowledged[partition as usize];
                    assert_eq!(offset, acknowledged.len() as u64, "offsets are dense");
                    acknowledged.push(bytes);
                }
            }
            Err(AppendError::Refused(_)) => self.refused.push(group),
            Err(error) => panic!("{error}"),
        }
    }

    /// Ends the process in some way and opens the log again, at times under a failure.
    fn reopen(&mut self, end: impl Fn(&mut MemoryDisk)) {
        // The process dies before the destructor could write, or after.
        if self.written.is_multiple_of(2) {
            end(&mut self.disk);
            self.log = None;
        } else {
            self.log = None;
            end(&mut self.disk);
        }
        if self.written.is_multiple_of(3) {
            self.disk.fail(u64::from(self.written) % 20, Failure::Dead, 1);
        }
        self.log = match try_open(&self.disk) {
            Ok((log, _)) => Some(log),
            Err(OpenError::System { .. }) => {
                self.disk.crash();
                Some(open(&self.disk).0)
            }
            Err(error) => panic!("{error}"),
        };
        self.disk.mend();
        self.adopt();
        self.compare();
    }

    /// One refused group may stand after all, but whole.
    fn adopt(&mut self) {
        let log = self.log.as_ref().unwrap();
        let found: Vec<usize> = (0..3).map(|partition| log.end(partition) as usize).collect();
        let acknowledged: Vec<usize> = self.acknowledged.iter().map(Vec::len).collect();
        if found != acknowledged {
            let records = scan(log);
            let stands = |group: &&Vec<(Partition, Vec<u8>)>| {
                (0..3).all(|partition| {
                    let of_group = group.iter().filter(|(of, _)| *of as usize == partition).map(|(_, bytes)| bytes);
                    let new = found[partition].checked_sub(acknowledged[partition]).expect("no record is lost");
                    let from = records[partition].len().checked_sub(new).expect("new records were not trimmed");
                    records[partition][from..].iter().eq(of_group)
                })
            };
            let group = self.refused.iter().find(stands).expect("new records are one whole group").clone();
            for (partition, bytes) in group {
                self.acknowledged[partition as usize].push(bytes);
            }
        }
        self.refused.clear();
    }

    fn compare(&mut self) {
        let log = self.log.as_mut().unwrap();
        let scanned = scan(log);
        for (partition, all) in self.acknowledged.iter().enumerate() {
            let start = log.start(partition as u32);
            assert!(start <= self.trimmed[partition], "only what was trimmed is gone");
            assert_eq!(read(log, partition as u32), all[start as usize..]);
            assert_eq!(scanned[partition], all[start as usize..]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn acknowledged_records_survive_everything(seed: u64, steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new(seed);
        for step in steps {
            world.run(step);
        }
        world.reopen(MemoryDisk::crash);
    }
}
