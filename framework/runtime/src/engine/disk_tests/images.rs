//! Every crash of a short run: at each boundary between two operations the disk may hold all of it,
//! a torn last write, nothing that was not synced, or any part of that.

use super::{
    app::plan,
    cases,
    disk::{Loss, TestDisk},
    life::{End, History, Life, end_of, ends, open_log},
    random,
};
use crate::engine::Plan;

const RECORDS: u64 = 160;
/// After so many steps the first process is killed, and a second one goes on on the same disk.
const STEPS_OF_THE_FIRST: usize = 15;

/// A run of two processes, all of it written down.
struct Recorded {
    plan: Plan,
    disk: TestDisk,
    history: History,
    end: End,
}

fn record(disk: TestDisk) -> Recorded {
    let plan = plan(RECORDS);
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

    /// What can have become of the disk before the operation at a position.
    fn losses(&self, position: usize, seeds: u64) -> Vec<Loss> {
        let torn = (0..self.disk.sectors_at(position)).map(Loss::Torn);
        let some = (0..seeds).map(|seed| Loss::Some(seed * 1_000_003 + position as u64));
        [Loss::Nothing, Loss::Everything].into_iter().chain(torn).chain(some).collect()
    }
}

#[test]
fn every_image_of_a_crash_opens_to_a_prefix_and_comes_to_the_same_end() {
    let recorded = record(TestDisk::new());
    let positions = recorded.disk.position();
    let wanted = cases("STATEFN_DISK_IMAGES", 500);
    let seeds = 1 + (wanted / positions) as u64;
    let all = (0..=positions).flat_map(|at| recorded.losses(at, seeds).into_iter().map(move |loss| (at, loss)));
    let mut all: Vec<(usize, Loss)> = all.collect();
    let of = all.len();
    let mut seed = 1;
    for place in (1..of).rev() {
        all.swap(place, random(&mut seed) as usize % (place + 1));
    }
    all.truncate(wanted);
    let mut counts = [0; 4];
    for (at, loss) in &all {
        counts[kind(*loss)] += 1;
        if let Err(error) = recorded.check(*at, *loss) {
            panic!("the image before operation {at} of {positions} with {loss:?}: {error}");
        }
    }
    let [whole, torn, dropped, some] = counts;
    println!(
        "{} of {of} images of {positions} operations: {whole} whole, {torn} torn, {dropped} without what was not synced, {some} with a part of it",
        all.len()
    );
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
    let recorded = record(TestDisk::lying());
    let end = recorded.disk.position();
    let caught = (0..=end).step_by(10).filter(|at| recorded.check(*at, Loss::Everything).is_err()).count();
    assert!(caught > end / 20, "only {caught} of {} images are caught", end / 10);
}
