//! A disk that is full at any moment of a run, for a while.

use super::{
    app::plan,
    disk::TestDisk,
    life::{Life, end_of},
};

const RECORDS: u64 = 60;
/// How many operations in a row find no space.
const LENGTHS: [u64; 3] = [1, 4, 11];

/// Runs on a disk of which `count` operations from `from` on fail, and returns it; the process is
/// killed so many steps after its start, if that is wanted.
fn run(from: u64, count: u64, killed_after: Option<usize>) -> Result<TestDisk, String> {
    let plan = plan(RECORDS);
    let disk = TestDisk::new();
    disk.fill_up(from, count);
    let (mut life, disk) = Life::start_at_last(&plan, &disk);
    let Some(steps) = killed_after else {
        life.run_to_the_end()?;
        return Ok(disk);
    };
    life.begin_history();
    for _ in 0..steps {
        if life.step()? {
            break;
        }
    }
    let (history, next) = (life.history.take().unwrap_or_default(), disk.kill());
    drop(life);
    let (mut life, disk) = Life::start_at_last(&plan, &next);
    history.check(&mut life.log, history.ends.last().map_or(&[], |(_, ends)| ends))?;
    life.run_to_the_end()?;
    Ok(disk)
}

#[test]
fn a_run_goes_on_when_a_full_disk_has_space_again_whenever_it_was_full() {
    let plan = plan(RECORDS);
    let whole = run(u64::MAX, 0, None).expect("the app ends");
    let expected = end_of(&plan, &whole.copy()).expect("the run is whole");
    let operations = whole.tried();
    for from in 0..operations {
        let count = LENGTHS[from as usize % LENGTHS.len()];
        // Every fifth is killed as well, at different moments.
        let killed_after = from.is_multiple_of(5).then_some(1 + from as usize % 13);
        let found = run(from, count, killed_after).and_then(|disk| end_of(&plan, &disk.copy()));
        let found = found.unwrap_or_else(|error| panic!("full from {from} on, {count} times: {error}"));
        assert_eq!(found, expected, "full from {from} on, {count} times");
    }
    println!("a full disk at each of {operations} operations: {} lines and all states equal", expected.lines());
}
