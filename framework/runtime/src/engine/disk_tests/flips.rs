//! Bits that rot and files that lose their end: each is noticed, repaired, or without effect.
//!
//! One directory that was closed is tried, and some whose process was killed, where the superblock
//! is behind the log.

use std::path::{Path, PathBuf};

use super::{
    app::{HOME, SHARDS, plan},
    cases,
    disk::TestDisk,
    life::{End, Life, end_of},
    random,
};
use crate::engine::Plan;

const RECORDS: u64 = 160;
/// After how many steps a process is killed; not at all, or at moments when the superblock, the
/// marks or neither are older than the log.
const KILLED_AFTER: [Option<usize>; 4] = [None, Some(9), Some(15), Some(20)];
/// The parts of the data directory that are not outputs.
const PARTS: [&str; 3] = ["log", "snapshots", "egress"];
/// Of so many cases one is a file that lost its end.
const TRUNCATIONS: u64 = 10;

/// What came of a damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The start failed and named the file and the place.
    DetectedWithPlace,
    /// The start failed and named a file or directory.
    Detected,
    /// The end is the same, and the damage is gone.
    Repaired,
    /// The end is the same, and the damage is still there.
    WithoutEffect,
}

struct Subject {
    plan: Plan,
    disk: TestDisk,
    files: Vec<PathBuf>,
    end: End,
}

impl Subject {
    /// After the end, or as a process leaves it that is killed after so many steps.
    fn new(killed_after: Option<usize>) -> Self {
        let plan = plan(RECORDS);
        let disk = TestDisk::new();
        let mut life = Life::start(&plan, &disk, None).expect("the app starts");
        for _ in 0..killed_after.unwrap_or_default() {
            assert_eq!(life.step(), Ok(false), "the process is killed before the end");
        }
        let killed = disk.copy();
        life.run_to_the_end().expect("the app ends");
        drop(life);
        let end = end_of(&plan, &disk.copy()).expect("the run is whole");
        let disk = if killed_after.is_some() { killed } else { disk.copy() };
        let files = PARTS.iter().flat_map(|part| disk.files_below(&format!("{HOME}/{part}")));
        let files = files.filter(|file| disk.bytes(file).is_some_and(|bytes| !bytes.is_empty())).collect();
        Self { plan, disk, files, end }
    }

    /// Damages a copy as `seed` says and lets the app go on; an error is silent damage.
    fn try_one(&self, mut seed: u64) -> Result<Outcome, String> {
        let file = &self.files[random(&mut seed) as usize % self.files.len()];
        let mut damaged = self.disk.bytes(file).unwrap_or_default();
        let at = random(&mut seed) as usize % damaged.len();
        let what = if random(&mut seed).is_multiple_of(TRUNCATIONS) {
            damaged.truncate(at);
            "loses its end from"
        } else {
            damaged[at] ^= 1 << (random(&mut seed) % 8);
            "has a flipped bit in"
        };
        let disk = self.disk.copy();
        disk.tamper(file, |bytes| bytes.clone_from(&damaged));
        self.judge(&disk, file, &damaged).map_err(|error| format!("`{}` {what} byte {at}: {error}", file.display()))
    }

    fn judge(&self, disk: &TestDisk, file: &Path, damaged: &[u8]) -> Result<Outcome, String> {
        let found = Life::start(&self.plan, disk, None).and_then(|mut life| {
            life.stretch_records = 3;
            life.run_to_the_end()
        });
        if let Err(error) = found.and_then(|()| end_of(&self.plan, &disk.copy()).map(drop)) {
            return match (error.contains(HOME), error.contains(" at byte ") || error.contains(" at offset ")) {
                (true, true) => Ok(Outcome::DetectedWithPlace),
                (true, false) => Ok(Outcome::Detected),
                (false, _) => Err(format!("the error names no file: {error}")),
            };
        }
        let found = end_of(&self.plan, &disk.copy())?;
        if found != self.end {
            return Err(format!("it was not noticed, and the end differs: {found:?}, expected {:?}", self.end));
        }
        let is_still_there = disk.bytes(file).is_some_and(|bytes| bytes == damaged);
        Ok(if is_still_there { Outcome::WithoutEffect } else { Outcome::Repaired })
    }
}

#[test]
fn no_damage_is_silent() {
    let wanted = cases("STATEFN_DISK_FLIPS", 1_000);
    let subjects = KILLED_AFTER.map(Subject::new);
    let mut outcomes = Vec::with_capacity(wanted);
    let mut silent = Vec::new();
    for case in 0..wanted {
        match subjects[case % subjects.len()].try_one(case as u64) {
            Ok(outcome) => outcomes.push(outcome),
            Err(error) => silent.push(format!("case {case}: {error}")),
        }
    }
    let count = |of: Outcome| outcomes.iter().filter(|outcome| **outcome == of).count();
    println!(
        "{wanted} damages: {} detected with file and place, {} detected with the file, {} repaired, {} without effect, {} silent",
        count(Outcome::DetectedWithPlace),
        count(Outcome::Detected),
        count(Outcome::Repaired),
        count(Outcome::WithoutEffect),
        silent.len()
    );
    println!("figures: flips={wanted} silent={}", silent.len());
    assert!(silent.is_empty(), "{} are silent, the first: {:#?}", silent.len(), &silent[..silent.len().min(5)]);
}

/// A bad group at the end of the log looks like a write that a crash cut short. If the superblock is
/// behind it, only the mark of the egresses knows that it was acknowledged.
#[test]
fn a_damaged_last_group_that_egresses_have_taken_is_noticed() {
    for steps in (3..30).step_by(3) {
        damage_the_end_of_the_log(&Subject::new(Some(steps)));
    }
}

fn damage_the_end_of_the_log(subject: &Subject) {
    let segment = subject.files.iter().rfind(|file| file.extension().is_some_and(|suffix| suffix == "log"));
    let segment = segment.expect("the log has a segment");
    let whole = subject.disk.bytes(segment).unwrap_or_default();
    let end = whole.iter().rposition(|byte| *byte != 0).expect("the log has a group");
    for at in (end - 256..=end).step_by(16) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        let disk = subject.disk.copy();
        disk.tamper(segment, |bytes| bytes.clone_from(&damaged));
        if let Err(error) = subject.judge(&disk, segment, &damaged) {
            panic!("byte {at} of {end}: {error}");
        }
    }
}

/// Of the snapshots of a shard, the newest; the names begin with their epochs.
fn newest_snapshot(disk: &TestDisk, shard: u32) -> Option<(u64, PathBuf)> {
    let epoch = |path: &PathBuf| path.file_name()?.to_str()?.split_once('-')?.0.parse().ok();
    let files = disk.files_below(&format!("{HOME}/snapshots/shard-{shard}"));
    files.into_iter().filter_map(|path| Some((epoch(&path)?, path))).max()
}

/// The newest snapshot rots while its owner lives and takes the next one, and then that one rots: the
/// owner has noticed the first, and kept what was before it.
#[test]
fn two_snapshots_that_rot_one_after_the_other_are_survived() {
    let rot = |disk: &TestDisk, path: &Path| disk.tamper(path, |bytes| bytes[30] ^= 1);
    let (plan, mut cases) = (plan(RECORDS), 0);
    let expected = Subject::new(None).end;
    for (shard, steps) in (0..SHARDS).flat_map(|shard| (4..24).step_by(2).map(move |steps| (shard, steps))) {
        let disk = TestDisk::new();
        let mut life = Life::start(&plan, &disk, None).expect("the app starts");
        (0..steps).for_each(|_| _ = life.step().expect("goes on"));
        let Some((first, path)) = newest_snapshot(&disk, shard) else { continue };
        rot(&disk, &path);
        let is_newer = |disk: &TestDisk| newest_snapshot(disk, shard).is_some_and(|(epoch, _)| epoch > first);
        while !is_newer(&disk) && !life.step().expect("goes on") {}
        // Time enough to look at the first one, and to let go of what is no longer needed.
        (0..6).for_each(|_| _ = life.step().expect("goes on"));
        let left = disk.copy();
        let Some((_, path)) = newest_snapshot(&left, shard).filter(|(epoch, _)| *epoch > first) else { continue };
        rot(&left, &path);
        let found = Life::start(&plan, &left, None).and_then(|mut life| life.run_to_the_end());
        let found = found.and_then(|()| end_of(&plan, &left.copy()));
        assert_eq!(found.as_ref(), Ok(&expected), "shard {shard}, after {steps} steps");
        cases += 1;
    }
    assert!(cases >= 10, "only {cases} cases have two snapshots");
}
