//! From a plan whose world fails to a smaller one that still does.
//!
//! One knob after the other is turned down as far as the world still fails: faults are switched
//! off, the time of faults, the input, workers and shards become less. Any failure counts, not
//! only the first one's text, since a smaller world fails at another place.
//!
//! Deliberately absent: dropping single events. A plan decides the whole world, so that a plan is
//! all that has to be printed.

use crate::{Failure, plan::Plan, run_plan};

/// How many worlds are run to make one smaller.
const RUNS_MAX: usize = 150;
/// What stands for an input that is not cut.
const RECORDS_MAX: i64 = 1_000;

/// One thing that a smaller world has less of.
struct Knob {
    name: &'static str,
    least: i64,
    get: fn(&Plan) -> i64,
    set: fn(&mut Plan, i64),
}

macro_rules! faults {
    ($($name:ident),*) => {
        [$(Knob {
            name: stringify!($name),
            least: 0,
            get: |plan| i64::from(plan.faults.$name),
            set: |plan, value| plan.faults.$name = value as u32,
        }),*]
    };
}

const FAULTS: [Knob; 14] =
    faults![crash, refused, unknown, pause, moved, slow_news, loss, doubled, late, garbage, snapshot, rot, jump, stall];

const SIZES: [Knob; 4] = [
    Knob {
        name: "records",
        least: 1,
        get: |plan| RECORDS_MAX.min(plan.records_max.try_into().unwrap_or(RECORDS_MAX)),
        set: |plan, value| plan.records_max = value as usize,
    },
    Knob { name: "calm_at", least: 0, get: |plan| plan.calm_at, set: |plan, value| plan.calm_at = value },
    Knob {
        name: "workers",
        least: 1,
        get: |plan| plan.workers as i64,
        set: |plan, value| plan.workers = value as usize,
    },
    Knob {
        name: "shards",
        least: 1,
        get: |plan| i64::from(plan.shards),
        set: |plan, value| plan.shards = value as u32,
    },
];

/// The smallest failure that is found near `failure`.
#[must_use]
pub fn shrink(failure: Failure) -> Failure {
    let mut smallest = failure;
    let mut runs = 0;
    let mut fails = |smallest: &mut Failure, knob: &Knob, value: i64| {
        let mut plan = Plan::clone(&smallest.plan);
        (knob.set)(&mut plan, value);
        runs += 1;
        let failure = (runs <= RUNS_MAX).then(|| run_plan(smallest.workload, plan).err()).flatten();
        let is_smaller = failure.is_some();
        if let Some(failure) = failure {
            *smallest = failure;
        }
        is_smaller
    };
    for knob in FAULTS.iter().chain(&SIZES) {
        let mut value = (knob.get)(&smallest.plan);
        if value <= knob.least || fails(&mut smallest, knob, knob.least) {
            continue;
        }
        // Half as much, then a quarter less, and so on.
        let mut step = (value - knob.least) / 2;
        while step > 0 {
            if fails(&mut smallest, knob, value - step) {
                value -= step;
            }
            step /= 2;
        }
    }
    smallest
}

/// What a plan has less of than the plan of its seed, as `STATEFN_PLAN` has it.
#[must_use]
pub fn changes(plan: &Plan) -> String {
    let full = Plan::of(plan.seed);
    let changed = FAULTS.iter().chain(&SIZES).filter(|knob| (knob.get)(plan) != (knob.get)(&full));
    changed.map(|knob| format!("{}={}", knob.name, (knob.get)(plan))).collect::<Vec<String>>().join(",")
}

/// Changes a plan by a text such as `crash=0,workers=2`.
///
/// # Errors
/// What cannot be read.
pub fn change(plan: &mut Plan, changes: &str) -> Result<(), String> {
    for change in changes.split(',').filter(|change| !change.is_empty()) {
        let (name, value) = change.split_once('=').ok_or_else(|| format!("`{change}` is no `name=value`"))?;
        let knob = FAULTS.iter().chain(&SIZES).find(|knob| knob.name == name);
        let knob = knob.ok_or_else(|| format!("unknown part of a plan `{name}`"))?;
        let value = value.parse().map_err(|_| format!("`{value}` of `{name}` is no number"))?;
        (knob.set)(plan, value);
    }
    Ok(())
}
