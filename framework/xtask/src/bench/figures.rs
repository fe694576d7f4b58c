//! The figures of a run, how they are taken, and how they are printed.

use std::{
    fmt, fs,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{Failure, Side};

/// What one run took.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) events: u64,
    pub(crate) emitted: u64,
    pub(crate) elapsed_s: f64,
    /// User and system time of the process.
    pub(crate) cpu_s: f64,
    /// Journal and output.
    pub(crate) bytes: u64,
    pub(crate) commit_p50_us: u64,
    pub(crate) commit_p99_us: u64,
    /// The most memory the process ever had.
    pub(crate) rss_bytes: u64,
}

/// Measures the process from here on.
pub(crate) struct Meter {
    started_at: Instant,
    cpu: Duration,
}

impl Meter {
    pub(crate) fn start() -> Result<Self, Failure> {
        Ok(Self { started_at: Instant::now(), cpu: cpu()? })
    }

    pub(crate) fn stop(self) -> Result<Figures, Failure> {
        Ok(Figures {
            elapsed_s: self.started_at.elapsed().as_secs_f64(),
            cpu_s: (cpu()? - self.cpu).as_secs_f64(),
            rss_bytes: rss_bytes()?,
            ..Figures::default()
        })
    }
}

/// User and system time of the process so far, threads that have ended included; in steps of 10 ms.
///
/// It is read from a file, as a profiler that emulates the processor has no clock for it.
fn cpu() -> Result<Duration, Failure> {
    /// How many ticks a second has in every file of Linux.
    const TICKS_PER_S: u64 = 100;
    let stat = fs::read_to_string("/proc/self/stat")?;
    // Behind the name, which stands in parentheses, come fields 3, 4, ..; the times are 14 and 15.
    let (_, fields) = stat.rsplit_once(')').ok_or("the system says no times of this process")?;
    let ticks: Vec<u64> = fields.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(Duration::from_millis(ticks.iter().sum::<u64>() * 1000 / TICKS_PER_S))
}

fn rss_bytes() -> Result<u64, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("the system does not say VmHWM")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

/// The figures of all runs that count.
#[derive(Debug, Default)]
pub(crate) struct Report {
    app: Vec<Figures>,
    by_hand: Vec<Figures>,
}

/// Medians.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    app: Medians,
    by_hand: Medians,
    /// Events per CPU-second of the app, as a part of those of the loop by hand.
    ratio: f64,
}

#[derive(Debug, Serialize)]
struct Medians {
    events_per_s: f64,
    events_per_cpu_s: f64,
    cpu_ns_per_event: f64,
    bytes_per_event: f64,
    commit_p50_ms: f64,
    commit_p99_ms: f64,
    rss_mib: f64,
}

impl Report {
    pub(crate) fn add(&mut self, side: Side, figures: Figures) {
        match side {
            Side::App => self.app.push(figures),
            Side::ByHand => self.by_hand.push(figures),
        }
    }

    pub(crate) fn summary(&self) -> Summary {
        let (app, by_hand) = (Medians::of(&self.app), Medians::of(&self.by_hand));
        Summary { ratio: app.events_per_cpu_s / by_hand.events_per_cpu_s, app, by_hand }
    }
}

impl Medians {
    fn of(runs: &[Figures]) -> Self {
        let of = |figure: fn(&Figures) -> f64| median(runs.iter().map(figure).collect());
        Self {
            events_per_s: of(|run| run.events as f64 / run.elapsed_s),
            events_per_cpu_s: of(|run| run.events as f64 / run.cpu_s),
            cpu_ns_per_event: of(|run| run.cpu_s * 1e9 / run.events as f64),
            bytes_per_event: of(|run| run.bytes as f64 / run.events as f64),
            commit_p50_ms: of(|run| run.commit_p50_us as f64 / 1e3),
            commit_p99_ms: of(|run| run.commit_p99_us as f64 / 1e3),
            rss_mib: of(|run| run.rss_bytes as f64 / f64::from(1 << 20)),
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        length if length.is_multiple_of(2) => (values[middle - 1] + values[middle]) / 2.0,
        _ => values[middle],
    }
}

/// A line of the report: its name, the figure, and its digits behind the point.
type Line = (&'static str, fn(&Medians) -> f64, usize);

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { app, by_hand, ratio } = self.summary();
        writeln!(f, "{:<28}{:>14}{:>14}", "", "app", "by hand")?;
        let lines: [Line; 7] = [
            ("events/s", |of| of.events_per_s, 0),
            ("events/CPU-second", |of| of.events_per_cpu_s, 0),
            ("CPU ns/event", |of| of.cpu_ns_per_event, 1),
            ("bytes written/event", |of| of.bytes_per_event, 1),
            ("commit p50 ms", |of| of.commit_p50_ms, 1),
            ("commit p99 ms", |of| of.commit_p99_ms, 1),
            ("RSS MiB", |of| of.rss_mib, 1),
        ];
        for (name, of, digits) in lines {
            writeln!(f, "{name:<28}{:>14.digits$}{:>14.digits$}", of(&app), of(&by_hand))?;
        }
        writeln!(f, "{:<28}{ratio:>14.2}", "ratio, CPU")
    }
}
