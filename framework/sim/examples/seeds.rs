//! Runs seeds of workloads and prints what failed: `seeds [workload|all] [from] [to] [calm]`.

use std::{collections::BTreeMap, process::ExitCode, time::Instant};

use statefn_sim::{plan::Plan, report::Report, run_plan, workload::Kind};

#[allow(clippy::print_stdout, reason = "a developer's tool tells what it found")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |place: usize, default: &str| arguments.get(place).cloned().unwrap_or_else(|| default.into());
    let (Ok(from), Ok(to)) = (argument(1, "0").parse(), argument(2, "100").parse()) else { return ExitCode::FAILURE };
    let is_calm = argument(3, "") == "calm";
    let mut is_good = true;
    for kind in Kind::ALL.into_iter().filter(|kind| ["all", &kind.to_string()].contains(&&*argument(0, "all"))) {
        let begun = Instant::now();
        let mut report = Report::default();
        let mut failures: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for seed in from..to {
            let plan = if is_calm { Plan::without_faults(seed) } else { Plan::of(seed) };
            match run_plan(kind, plan) {
                Ok((counts, _)) => report.add(&counts),
                Err(failure) => {
                    let line =
                        failure.error.split(": found").next().unwrap_or_default().lines().next().unwrap_or_default();
                    let line: String = line.chars().take(160).collect();
                    if to - from == 1 {
                        println!("{failure}");
                    }
                    let line: String = line.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).collect();
                    failures.entry(line).or_insert((seed, 0)).1 += 1;
                }
            }
        }
        let rate = (to - from) as f64 / begun.elapsed().as_secs_f64();
        println!("== {kind}: {rate:.1} seeds/s; {report}");
        for (line, (seed, count)) in failures {
            is_good = false;
            println!("   {count} worlds, first seed {seed}: {line}");
        }
    }
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
