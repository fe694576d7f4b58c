//! Pins threads to cores, so that a run does not depend on where the system puts them.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use rustix::thread::{CpuSet, Pid, sched_setaffinity};

/// How threads that run shards are called.
const HOST: &str = "actix-rt";
/// How threads of generators begin; the system cuts their names off.
const GENERATOR: &str = "statefn-gen";
/// How long to wait for an app to start its threads.
const PATIENCE: Duration = Duration::from_secs(2);

/// Pins this thread to the first core.
pub(crate) fn this_thread() {
    // A machine that does not allow it gives figures that vary more, no wrong ones.
    let _ = sched_setaffinity(None, &core(0));
}

/// Waits until the app has started its threads; pins the one of `hosts` threads that run shards
/// each to a core, and generators to the next. What writes stays free: it waits for disks.
pub(crate) fn threads_of_app(hosts: usize) {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let started_at = Instant::now();
    while started_at.elapsed() < PATIENCE {
        let found = named(HOST);
        if found.len() >= hosts {
            for (place, thread) in found.into_iter().chain(named(GENERATOR)).enumerate() {
                let _ = sched_setaffinity(Some(thread), &core(place % cores));
            }
            return;
        }
        thread::sleep(Duration::from_micros(200));
    }
}

fn core(number: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(number);
    set
}

/// The threads of this process with such a name, in the order of their start.
fn named(prefix: &str) -> Vec<Pid> {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    let numbers = tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse::<i32>().ok());
    let is_named = |number: &i32| {
        fs::read_to_string(format!("/proc/self/task/{number}/comm")).is_ok_and(|name| name.starts_with(prefix))
    };
    let mut numbers: Vec<i32> = numbers.filter(is_named).collect();
    numbers.sort_unstable();
    numbers.into_iter().filter_map(Pid::from_raw).collect()
}
