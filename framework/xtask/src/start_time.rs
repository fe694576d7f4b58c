//! Measures how long an app takes from its start to its first processed event, and its memory.
//!
//! The app is the release build of the flights example on a file of one row. The event counts as
//! processed when its output stands in the file, behind two commits and their syncs, so the figure
//! is an upper bound. Memory is the highest resident size that the system has seen (`VmHWM`).

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::{
    Outcome,
    flights::{Flights, Process},
    say,
};

/// How many starts are measured; the median is told.
const STARTS: usize = 5;
const START_MS_TARGET: f64 = 100.0;
const MEMORY_MB_TARGET: f64 = 40.0;
const LOOK_INTERVAL: Duration = Duration::from_micros(200);
const ROW: &str = "dep_time,dep_delay,arr_delay,carrier,tailnum,dest,minute,time_hour
517,2,11,UA,N14228,IAH,15,2013-01-01T10:00:00Z
";

/// Runs the task and prints a figure a line.
pub(crate) fn run() -> Outcome {
    let flights = Flights::build()?;
    let (mut starts_ms, mut memories_mb) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let (start_ms, memory_mb) = measure(&flights)?;
        starts_ms.push(start_ms);
        memories_mb.push(memory_mb);
    }
    let (start_ms, memory_mb) = (median(starts_ms), median(memories_mb));
    say(&format!(
        "start to first processed event: {start_ms:.1} ms (median of {STARTS}, target {START_MS_TARGET} ms)"
    ))?;
    say(&format!("resident memory: {memory_mb:.1} MB (median of {STARTS}, target {MEMORY_MB_TARGET} MB)"))
}

fn measure(flights: &Flights) -> Outcome<(f64, f64)> {
    let directory = tempfile::tempdir()?;
    let (data, file) = (directory.path().join("data"), directory.path().join("one.csv"));
    fs::write(&file, ROW)?;
    let input = format!("--set=ingress.flights.path={}", file.display());
    let started_at = Instant::now();
    let mut process = flights.start(&data, &[input], &directory.path().join("flights.log"))?;
    let (mut start_ms, mut memory_mb) = (None, 0.0_f64);
    while process.ended()?.is_none() {
        memory_mb = memory_mb.max(memory_of(&process).unwrap_or_default());
        if start_ms.is_none() && has_output(&data) {
            start_ms = Some(started_at.elapsed().as_secs_f64() * 1_000.0);
        }
        thread::sleep(LOOK_INTERVAL);
    }
    let status = process.wait()?;
    match start_ms {
        Some(start_ms) if status.success() => Ok((start_ms, memory_mb)),
        // It has ended between two looks.
        None if status.success() && has_output(&data) => Ok((started_at.elapsed().as_secs_f64() * 1_000.0, memory_mb)),
        _ => Err(format!("the app ended with {status} and no output").into()),
    }
}

fn has_output(data: &Path) -> bool {
    fs::metadata(data.join("carriers.jsonl")).is_ok_and(|file| file.len() > 0)
}

/// The highest resident size in MB; none of a process that is gone.
fn memory_of(process: &Process) -> Option<f64> {
    let status = fs::File::open(format!("/proc/{}/status", process.id())).ok()?;
    let lines = BufReader::new(status.take(1 << 16)).lines().map_while(Result::ok);
    let kilobytes = lines.filter_map(|line| line.strip_prefix("VmHWM:").map(str::to_owned)).next()?;
    let kilobytes: f64 = kilobytes.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes / 1024.0)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
