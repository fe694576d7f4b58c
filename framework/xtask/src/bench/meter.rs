//! What a process takes: time, CPU time, memory, allocations.

use std::{
    fmt::Display,
    fs,
    time::{Duration, Instant},
};

use super::{Failure, allocations, audit::Audit, figures::Figures};

/// The step in which the system counts CPU time, in every file of Linux.
const CPU_STEP: Duration = Duration::from_millis(10);

/// Measures the process from here on.
pub(crate) struct Meter {
    started_at: Instant,
    cpu: Duration,
    allocations: u64,
}

impl Meter {
    pub(crate) fn start() -> Result<Self, Failure> {
        Ok(Self { allocations: allocations::count(), cpu: cpu()?, started_at: Instant::now() })
    }

    /// The figures of so many of what `one` names.
    pub(crate) fn stop(self, audit: Audit, count: u64, one: &str) -> Result<Figures, Failure> {
        let elapsed_s = self.started_at.elapsed().as_secs_f64();
        // A run that is shorter than a step took at most one.
        let cpu_s = (cpu()? - self.cpu).max(CPU_STEP).as_secs_f64();
        let allocations = allocations::count() - self.allocations;
        let count = count as f64;
        let figures = Figures::new(audit)
            .with(format!("{one}s/CPU-second"), count / cpu_s)
            .with(format!("{one}s/s"), count / elapsed_s)
            .with(format!("CPU ns/{one}"), cpu_s * 1e9 / count)
            .with("RSS MiB", mebibytes(memory("VmHWM")?));
        Ok(if allocations::ARE_COUNTED { figures.with(allocations::NAME, allocations as f64) } else { figures })
    }
}

pub(crate) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// User and system time of this process so far, threads that have ended included; in steps of [`CPU_STEP`].
pub(crate) fn cpu() -> Result<Duration, Failure> {
    cpu_of("self")
}

/// The same of any process, by its number.
///
/// It is read from a file, as a profiler that emulates the processor has no clock for it.
pub(crate) fn cpu_of(process: impl Display) -> Result<Duration, Failure> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // Behind the name, which stands in parentheses, come fields 3, 4, ..; the times are 14 and 15.
    let (_, fields) = stat.rsplit_once(')').ok_or_else(|| format!("the system says no times of process {process}"))?;
    let steps: Vec<u32> = fields.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(CPU_STEP * steps.iter().sum::<u32>())
}

/// A size in bytes: `VmRSS` is what the process has in memory, `VmHWM` the most it ever had.
pub(crate) fn memory(name: &str) -> Result<u64, Failure> {
    memory_of("self", name)
}

/// The same of any process, by its number.
pub(crate) fn memory_of(process: impl Display, name: &str) -> Result<u64, Failure> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let line = line.ok_or_else(|| format!("the system does not say {name}"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}
