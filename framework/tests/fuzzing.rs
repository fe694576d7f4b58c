//! Every decoder with the corpora of the fuzzers, and with what becomes of them by a few thousand changes.
//!
//! The changes come from a fixed seed, so a failure comes again; it shows the bytes, which belong
//! into the corpus of the target. `STATEFN_FUZZ_CHANGES` says how many changes each target gets.

#![allow(unsafe_code, reason = "an allocator that counts is one")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    env, fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
};

use statefn::{
    fuzzing::{Check, TARGETS},
    testing::Random,
};

/// How many changed inputs each target gets.
const CHANGES: u64 = 2_000;
/// The same of those whose check reads a file, from many places in it.
const CHANGES_OF_FILES: u64 = 500;
/// How much a check may allocate at a time: what buffers have by themselves, and a multiple of the input.
const BYTES_MAX: usize = 8 << 20;
const BYTES_MAX_OF_INPUT: usize = 512;

thread_local! {
    /// The largest allocation of this thread.
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

/// Notes the largest allocation, which shows a length that was believed.
struct Noting;

// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Noting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: as this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: as this function.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: as this function.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as this function.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Noting = Noting;

fn note(size: usize) {
    // A thread that ends has none any more.
    _ = LARGEST.try_with(|largest| largest.set(largest.get().max(size)));
}

#[test]
fn csv() {
    run("csv");
}

#[test]
fn frames() {
    run("frames");
}

#[test]
fn images() {
    run("images");
}

#[test]
fn journals() {
    run("journals");
}

#[test]
fn json_lines() {
    run("json_lines");
}

#[test]
fn marks() {
    run("marks");
}

#[test]
fn messages() {
    run("messages");
}

#[test]
fn protobuf() {
    run("protobuf");
}

#[test]
fn segments() {
    run("segments");
}

#[test]
fn settings() {
    run("settings");
}

#[test]
fn snapshots() {
    run("snapshots");
}

#[test]
fn states() {
    run("states");
}

#[test]
fn superblocks() {
    run("superblocks");
}

#[test]
fn take_overs() {
    run("take_overs");
}

#[test]
fn a_believed_length_is_found() {
    let believes: Check = |bytes| drop(Vec::<u8>::with_capacity(bytes[0] as usize * BYTES_MAX));
    let error = outcome(believes, &[2]).expect_err("is found");
    assert!(error.contains("bytes at a time"), "{error}");
    assert_eq!(outcome(believes, &[0]), Ok(()));
}

/// Checks the corpus of a target, and what becomes of it.
fn run(target: &str) {
    let (_, check) = TARGETS.iter().find(|(name, _)| *name == target).expect("a target");
    let corpus = corpus(target);
    assert!(!corpus.is_empty(), "`framework/fuzz/corpus/{target}` holds nothing");
    for (path, bytes) in &corpus {
        outcome(*check, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    let entries: Vec<Vec<u8>> = corpus.into_iter().map(|(_, bytes)| bytes).collect();
    let changes = if ["csv", "json_lines", "protobuf"].contains(&target) { CHANGES_OF_FILES } else { CHANGES };
    let changes = env::var("STATEFN_FUZZ_CHANGES").map_or(changes, |text| text.parse().expect("a number"));
    let mut random = Random::new(1);
    for number in 0..changes {
        let mut bytes = entries[random.place(entries.len())].clone();
        for _ in 0..random.between(1, 4) {
            change(&mut bytes, &entries, &mut random);
        }
        outcome(*check, &bytes).unwrap_or_else(|error| {
            panic!("{target}, change {number}: {error}\nfor the bytes {}", bytes.escape_ascii());
        });
    }
}

fn outcome(check: Check, bytes: &[u8]) -> Result<(), String> {
    LARGEST.set(0);
    let panicked = catch_unwind(|| check(bytes)).is_err();
    let largest = LARGEST.get();
    if panicked {
        return Err("the check panicked, see above".to_owned());
    }
    match largest > BYTES_MAX + BYTES_MAX_OF_INPUT * bytes.len() {
        true => Err(format!("{} bytes of input made it allocate {largest} bytes at a time", bytes.len())),
        false => Ok(()),
    }
}

/// The files of a corpus, in the order of their names.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("`{}`: {error}", directory.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("can be listed").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).expect("can be read"))).collect()
}

/// Changes bytes in one of the ways in which files break, or in which somebody breaks them.
fn change(bytes: &mut Vec<u8>, entries: &[Vec<u8>], random: &mut Random) {
    /// Numbers that are too large, and those about which a mistake by one matters.
    const NUMBERS: [u64; 8] = [0, 1, 0x7f, 0x80, 0x7fff_ffff, 0xffff_ffff, u64::MAX >> 1, u64::MAX];
    let at = random.place(bytes.len() + 1);
    let place = at.min(bytes.len().saturating_sub(1));
    match random.place(9) {
        0 if !bytes.is_empty() => bytes[place] ^= 1 << random.place(8),
        1 if !bytes.is_empty() => bytes[place] = random.one_of(&[0, 1, 0x7f, 0x80, 0xff, b'"', b'\n', b',']),
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(..at)),
        4 => {
            let other = &entries[random.place(entries.len())];
            bytes.truncate(at);
            bytes.extend_from_slice(&other[random.place(other.len() + 1)..]);
        }
        5 => {
            let end = at + random.place(bytes.len() - at + 1);
            let again = bytes[at..end].to_vec();
            bytes.splice(at..at, again);
        }
        6 => put_number(bytes, at, random.one_of(&NUMBERS), random.one_of(&[4, 8])),
        7 => {
            let mut number = Vec::new();
            let mut rest = random.one_of(&NUMBERS);
            while rest >= 0x80 {
                number.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            number.push(rest as u8);
            bytes.splice(at..(at + random.place(2)).min(bytes.len()), number);
        }
        _ => bytes.insert(at, random.one_of(&[0, 1, 2, 0x7f, 0x80, 0xff])),
    }
}

/// Writes a number of a length over what stands there.
fn put_number(bytes: &mut Vec<u8>, at: usize, number: u64, length: usize) {
    let end = (at + length).min(bytes.len());
    bytes.splice(at..end, number.to_le_bytes()[..length].iter().copied());
}
