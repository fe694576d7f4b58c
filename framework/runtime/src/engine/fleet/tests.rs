//! Workers of a fleet in memory, on the threads they have in earnest.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

use statefn_core::shard::wire::{mailbox_partition, progress_partition};

use super::{
    super::{
        End, Plan, RunError, Status, Stop, Storage,
        disk_tests::app::{self, expected, read_line},
        run,
    },
    Fleet,
    memory::{MemoryBackend, World},
};

const SHARDS: u32 = 8;
/// How often a test looks before it gives up, some milliseconds apart.
const LOOKS_MAX: u32 = 6_000;

/// A worker on a thread of its own.
struct Worker {
    backend: MemoryBackend,
    stop: Stop,
    thread: JoinHandle<Result<End, RunError>>,
}

impl Worker {
    fn start(world: &Arc<World>, number: usize, records: u64) -> Self {
        let backend = MemoryBackend::new(world, number);
        let stop = Stop::default();
        let fleet = Fleet::new(&format!("worker-{number}"), &app::plan(records).program, Arc::new(backend.clone()));
        let plan =
            Plan { storage: Storage::Fleet(fleet), shards: SHARDS, snapshot_tail_bytes: 4 << 10, ..app::plan(records) };
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || run(&plan, None, &Arc::new(Status::new()), &stopped));
        Self { backend, stop, thread }
    }

    fn end(self) -> End {
        self.thread.join().expect("no thread panics").expect("no worker fails")
    }
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..LOOKS_MAX {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("it never came to {what}");
}

/// The lines that egresses have.
fn lines(world: &World) -> BTreeMap<String, Vec<u64>> {
    let mut lines = BTreeMap::<String, Vec<u64>>::new();
    for record in world.emitted() {
        let (line, amount) = read_line(&record);
        lines.entry(line).or_default().push(amount);
    }
    lines
}

#[test]
fn a_worker_alone_does_all() {
    const RECORDS: u64 = 2_000;
    let world = World::new(SHARDS, RECORDS);
    world.let_in(RECORDS);
    world.name(&[0]);
    assert_eq!(Worker::start(&world, 0, RECORDS).end(), End::Finished);
    assert_eq!(lines(&world), expected(RECORDS));
}

#[test]
fn workers_share_the_shards_and_send_each_other_messages() {
    const RECORDS: u64 = 2_000;
    let world = World::new(SHARDS, RECORDS);
    world.let_in(RECORDS);
    world.name(&[0, 1, 2]);
    let workers: Vec<Worker> = (0..3).map(|number| Worker::start(&world, number, RECORDS)).collect();
    for worker in workers {
        assert_eq!(worker.end(), End::Finished);
    }
    assert_eq!(lines(&world), expected(RECORDS));
    assert!((0..SHARDS).any(|shard| world.end(mailbox_partition(SHARDS, shard)) > 0), "mail went by the log");
    assert!(world.end(progress_partition(SHARDS)) > 0, "progress went by the log");
}

/// Lets more records in and waits until they have led to some output.
fn go_on(world: &World) {
    let before = world.emitted().len();
    world.let_in(400);
    until("some output", || world.emitted().len() >= before + 300);
}

#[test]
fn shards_move_while_they_work_and_a_worker_that_stops_hands_on() {
    const RECORDS: u64 = 6_000;
    let world = World::new(SHARDS, RECORDS);
    world.name(&[0]);
    let workers: Vec<Worker> = (0..3).map(|number| Worker::start(&world, number, RECORDS)).collect();
    for named in [&[0, 1][..], &[1, 2], &[2, 0, 1], &[1], &[0, 2]] {
        go_on(&world);
        world.name(named);
    }
    go_on(&world);
    workers[0].stop.stop();
    world.let_in(RECORDS);
    let ends: Vec<End> = workers.into_iter().map(Worker::end).collect();
    assert_eq!(ends, [End::Stopped, End::Finished, End::Finished]);
    assert_eq!(lines(&world), expected(RECORDS));
}

#[test]
fn a_worker_that_is_cut_off_does_no_harm_when_it_comes_back() {
    const RECORDS: u64 = 6_000;
    let world = World::new(SHARDS, RECORDS);
    world.name(&[0, 1]);
    let workers: Vec<Worker> = (0..2).map(|number| Worker::start(&world, number, RECORDS)).collect();
    for _ in 0..4 {
        go_on(&world);
        workers[0].backend.is_cut.store(true, Ordering::Release);
        world.name(&[1]);
        go_on(&world);
        workers[0].backend.let_late_appends_stand();
        workers[0].backend.is_cut.store(false, Ordering::Release);
        world.name(&[0, 1]);
    }
    world.let_in(RECORDS);
    for worker in workers {
        assert_eq!(worker.end(), End::Finished);
    }
    assert_eq!(lines(&world), expected(RECORDS));
}
