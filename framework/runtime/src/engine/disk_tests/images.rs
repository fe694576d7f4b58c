//! Every crash of a short run: at each boundary between two operations the disk may hold all of it,
//! a torn last write, nothing that was not synced, or any part of that.

use super::{
    app::plan,
    cases,
    disk::{Loss, TestDisk},
    life::{End, History, Life, end_of, ends, open_log},
    random,
};
use crate::{
    engine::Plan,
    rules::{Rule, switch::without},
};

const RECORDS: u64 = 160;
/// After so many steps the first process is killed, and a second one goes on on the same disk.
const STEPS_OF_THE_FIRST: usize = 15;

/// After how many images a mutant counts as having survived.
const IMAGES_OF_A_MUTANT: usize = 2_000;
/// How many images the whole app survives beside them.
const IMAGES_OF_THE_WHOLE: usize = 100;
/// How long the segments of their logs are.
const SEGMENT_BYTES_OF_A_MUTANT: u64 = 6 << 10;
/// Of so many images one is recovered by a process that dies on the way.
const IMAGES_OF_A_NESTED: usize = 4;
/// How many steps that process takes at most.
const STEPS_OF_A_RECOVERY: usize = 4;

/// A run of two processes, all of it written down.
struct Recorded {
    plan: Plan,
    disk: TestDisk,
    history: History,
    end: End,
}

fn record(plan: Plan, disk: TestDisk) -> Recorded {
    let mut first = Life::start(&plan, &disk, Some(History::default())).expect("the app starts");
    for _ in 0..STEPS_OF_THE_FIRST {
        assert_eq!(first.step(), Ok(false), "the first process has to be killed before the end");
    }
    let second_disk = disk.kill();
    let history = first.history.clone();
    drop(first);
    let mut second = Life::start(&plan, &second_disk, history).expect("the app starts again");
    second.run_to_the_end().expect("the app ends");
    let history = second.history.clone().expect("it is noted");
    drop(second);
    let end = end_of(&plan, &second_disk.copy()).expect("the run is whole");
    assert!(end.lines() as u64 > 2 * RECORDS, "counters, totals and timers have written lines");
    Recorded { plan, disk, history, end }
}

impl Recorded {
    /// Opens an image and checks that a prefix of the acknowledged commits explains it, that no
    /// commit acknowledged before the crash is missing, and that the app comes to the same end.
    fn check(&self, position: usize, loss: Loss) -> Result<(), String> {
        let image = self.disk.image(position, loss);
        self.check_log(position, &image)?;
        let mut life = Life::start(&self.plan, &image, None)?;
        life.stretch_records = 3;
        life.run_to_the_end()?;
        drop(life);
        let found = end_of(&self.plan, &image)?;
        if found == self.end { Ok(()) } else { Err(format!("the end differs: {found:?}")) }
    }

    fn check_log(&self, position: usize, image: &TestDisk) -> Result<(), String> {
        let mut log = open_log(&self.plan, &image.copy())?;
        let acknowledged = self.history.ends.iter().take_while(|(at, _)| *at <= position).last();
        self.history.check(&mut log, acknowledged.map_or(&[], |(_, ends)| ends))?;
        let ends = ends(&log);
        let is_known = ends.iter().all(|end| *end == 0) || self.history.ends.iter().any(|(_, known)| *known == ends);
        if is_known { Ok(()) } else { Err(format!("no prefix of the groups ends at {ends:?}")) }
    }

    /// Lets the app start on an image and go on for a little while, all of it written down.
    fn recover(&self, image: &TestDisk) -> Result<Self, String> {
        let disk = image.recording();
        let mut history = History::default();
        history.note(&disk, &mut open_log(&self.plan, &image.copy())?);
        let mut life = Life::start(&self.plan, &disk, Some(history))?;
        for _ in 0..STEPS_OF_A_RECOVERY {
            if life.step()? {
                break;
            }
        }
        let history = life.history.take().unwrap_or_default();
        Ok(Self { plan: plan(RECORDS), disk, history, end: self.end.clone() })
    }

    /// Crashes once more while an image is being recovered, and checks what is left then.
    fn crash_again(&self, position: usize, loss: Loss, seed: &mut u64) -> Result<(), String> {
        let recovery = self.recover(&self.disk.image(position, loss))?;
        let at = random(seed) as usize % (recovery.disk.position() + 1);
        let losses = recovery.losses(at, 2);
        let loss = losses[random(seed) as usize % losses.len()];
        let checked = recovery.check(at, loss);
        checked.map_err(|error| format!("a crash before operation {at} of the recovery with {loss:?}: {error}"))
    }

    /// What can have become of the disk before the operation at a position.
    fn losses(&self, position: usize, seeds: u64) -> Vec<Loss> {
        let torn = (0..self.disk.sectors_at(position)).map(Loss::Torn);
        let some = (0..seeds).map(|seed| Loss::Some(seed * 1_000_003 + position as u64));
        [Loss::Nothing, Loss::Everything].into_iter().chain(torn).chain(some).collect()
    }

    /// So many of all images, in any order; then how many there are, and a seed.
    fn sample(&self, wanted: usize) -> (Vec<(usize, Loss)>, usize, u64) {
        let positions = self.disk.position();
        let seeds = 1 + (wanted / positions) as u64;
        let all = (0..=positions).flat_map(|at| self.losses(at, seeds).into_iter().map(move |loss| (at, loss)));
        let mut all: Vec<(usize, Loss)> = all.collect();
        let of = all.len();
        let mut seed = 1;
        for place in (1..of).rev() {
            all.swap(place, random(&mut seed) as usize % (place + 1));
        }
        all.truncate(wanted);
        (all, of, seed)
    }
}

#[test]
fn every_image_of_a_crash_opens_to_a_prefix_and_comes_to_the_same_end() {
    let recorded = record(plan(RECORDS), TestDisk::new());
    let positions = recorded.disk.position();
    let (all, of, mut seed) = recorded.sample(cases("STATEFN_DISK_IMAGES", 500));
    let (mut counts, mut nested) = ([0; 4], 0);
    for (number, (at, loss)) in all.iter().enumerate() {
        counts[kind(*loss)] += 1;
        if let Err(error) = recorded.check(*at, *loss) {
            panic!("the image before operation {at} of {positions} with {loss:?}: {error}");
        }
        if number.is_multiple_of(IMAGES_OF_A_NESTED) {
            nested += 1;
            if let Err(error) = recorded.crash_again(*at, *loss, &mut seed) {
                panic!("the image before operation {at} of {positions} with {loss:?}, then {error}");
            }
        }
    }
    let [whole, torn, dropped, some] = counts;
    println!(
        "{} of {of} images of {positions} operations: {whole} whole, {torn} torn, {dropped} without what was not synced, {some} with a part of it",
        all.len()
    );
    println!("{nested} crashes more while an image was being recovered");
    println!("figures: images={} nested={nested}", all.len());
    assert!(counts.iter().all(|count| *count > 0), "each kind of loss has to be tried");
}

fn kind(loss: Loss) -> usize {
    match loss {
        Loss::Nothing => 0,
        Loss::Torn(_) => 1,
        Loss::Everything => 2,
        Loss::Some(_) => 3,
    }
}

/// If this passes silently, so would a log that forgets a sync.
#[test]
fn a_disk_that_lies_about_syncs_is_caught() {
    let recorded = record(plan(RECORDS), TestDisk::lying());
    let end = recorded.disk.position();
    let caught = (0..=end).step_by(10).filter(|at| recorded.check(*at, Loss::Everything).is_err()).count();
    assert!(caught > end / 20, "only {caught} of {} images are caught", end / 10);
}

/// Apps that leave out one sync or one order, each for the files whose path has a text in it.
const MUTANTS: [(Rule, &str); 9] = [
    (Rule::GroupsAreSynced, ""),
    (Rule::FilesAreSyncedBeforeTheirName, "/snapshots/"),
    (Rule::FilesAreSyncedBeforeTheirName, "/log/0"),
    (Rule::NamesAreSynced, "/snapshots/"),
    (Rule::NamesAreSynced, "/log/0"),
    (Rule::RemovalsAreSynced, ""),
    (Rule::AllEgressFilesAreSynced, ""),
    (Rule::MarkIsBehindTheLines, ""),
    (Rule::MarksAreSynced, ""),
];

/// Each is caught by such images as the whole app survives, or they are worthless.
#[test]
fn every_mutant_is_caught() {
    // So small that a trim removes several segments.
    let small = || Plan { segment_bytes: SEGMENT_BYTES_OF_A_MUTANT, ..plan(RECORDS) };
    let whole = record(small(), TestDisk::new());
    for (at, loss) in whole.sample(IMAGES_OF_THE_WHOLE).0 {
        whole.check(at, loss).unwrap_or_else(|error| panic!("the whole app fails at {at} with {loss:?}: {error}"));
    }
    let mut survivors = Vec::new();
    for (rule, part) in MUTANTS {
        let caught = without(rule, part, || {
            let recorded = record(small(), TestDisk::new());
            let (all, ..) = recorded.sample(IMAGES_OF_A_MUTANT);
            let found = all.iter().map(|(at, loss)| recorded.check(*at, *loss)).enumerate();
            found.filter_map(|(number, checked)| Some((number + 1, checked.err()?))).next()
        });
        match caught {
            Some((images, error)) => println!("{rule:?} {part}: caught by image {images}: {error:.120}"),
            None => survivors.push((rule, part)),
        }
    }
    println!("figures: disk_mutants={}", MUTANTS.len() - survivors.len());
    assert!(survivors.is_empty(), "{IMAGES_OF_A_MUTANT} images do not notice that these do not hold: {survivors:?}");
}
