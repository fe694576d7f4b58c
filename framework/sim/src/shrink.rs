//! From a plan whose world fails to a smaller one that still does.
//!
//! One knob after the other is turned down as far as the world still fails: kinds of faults are
//! switched off, the time of faults, workers and shards become less. Then records of the input and
//! single faults are left out, in halves, quarters, and so on down to single ones, until none of
//! them can go (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002).
//! Any failure counts, not only the first one's text, since a smaller world fails at another place.
//!
//! Deliberately absent: dropping events that are no faults. A plan decides the whole world, so that
//! a plan is all that has to be printed.

use std::ops::Range;

use crate::{
    Failure,
    plan::{Fault, Numbers, Plan},
    run_plan,
};

/// How many worlds are run to make one smaller.
const RUNS_MAX: usize = 400;
/// More faults than a world has.
const FAULTS_MAX: u64 = 1 << 14;

/// One size that a smaller world has less of.
struct Knob {
    name: &'static str,
    least: i64,
    get: fn(&Plan) -> i64,
    set: fn(&mut Plan, i64),
}

const SIZES: [Knob; 3] = [
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

/// Goes through `count` things and leaves out what is not needed, the last ones first: first in long
/// stretches, then in shorter ones, and single ones until no one can go.
///
/// `fails_without` leaves a stretch out for good if the rest still fails, and says whether it does.
pub fn leave_out(count: u64, mut fails_without: impl FnMut(Range<u64>) -> bool) {
    let mut kept: Vec<u64> = (0..count).collect();
    let mut length = kept.len();
    while length > 0 {
        let (before, mut end) = (kept.len(), kept.len());
        while end > 0 {
            let start = end.saturating_sub(length);
            // Numbers between two kept ones are left out already.
            if fails_without(kept[start]..kept[end - 1] + 1) {
                kept.drain(start..end);
            }
            end = start;
        }
        let is_news = kept.len() < before && !kept.is_empty();
        if length > 1 || !is_news {
            length /= 2;
        }
    }
}

struct Search {
    smallest: Failure,
    runs: usize,
}

impl Search {
    /// Keeps a smaller plan if its world fails.
    fn keeps(&mut self, change: impl FnOnce(&mut Plan)) -> bool {
        let mut plan = Plan::clone(&self.smallest.plan);
        change(&mut plan);
        self.runs += 1;
        let failure = (self.runs <= RUNS_MAX).then(|| run_plan(self.smallest.workload, plan).err()).flatten();
        failure.map(|failure| self.smallest = failure).is_some()
    }

    /// Brings a number down to as little as still fails: all of it, then half, a quarter less, and so on.
    fn lower(&mut self, least: i64, get: impl Fn(&Plan) -> i64, set: impl Fn(&mut Plan, i64)) {
        let mut value = get(&self.smallest.plan);
        if value <= least || self.keeps(|plan| set(plan, least)) {
            return;
        }
        let mut step = (value - least) / 2;
        while step > 0 {
            if self.keeps(|plan| set(plan, value - step)) {
                value -= step;
            }
            step /= 2;
        }
    }

    fn drop_records(&mut self) {
        let Failure { workload, plan, .. } = &self.smallest;
        let mut count = 0;
        workload.build(plan.seed).keep_records(&mut || {
            count += 1;
            true
        });
        leave_out(count, |range| self.keeps(|plan| plan.dropped = plan.dropped.and(range)));
    }

    fn spare_faults(&mut self) {
        let spare = |plan: &mut Plan, from: i64| plan.spared = plan.spared.and(from as u64..u64::MAX);
        let mut count = FAULTS_MAX as i64;
        while count > 0 && self.keeps(|plan| spare(plan, count / 2)) {
            count /= 2;
        }
        leave_out(count as u64, |range| self.keeps(|plan| plan.spared = plan.spared.and(range)));
    }
}

/// The smallest failure that is found near `failure`.
#[must_use]
pub fn shrink(failure: Failure) -> Failure {
    let mut search = Search { smallest: failure, runs: 0 };
    for fault in Fault::ALL {
        let set = |plan: &mut Plan, value: i64| *plan.faults.of_mut(*fault) = value as u32;
        search.lower(0, |plan| i64::from(plan.faults.of(*fault)), set);
    }
    for knob in &SIZES {
        search.lower(knob.least, knob.get, knob.set);
    }
    search.drop_records();
    if search.smallest.plan.faults != crate::plan::Faults::default() {
        search.spare_faults();
    }
    search.smallest
}

/// What a plan has less of than the plan of its seed, as `STATEFN_PLAN` has it.
#[must_use]
pub fn changes(plan: &Plan) -> String {
    let full = Plan::of(plan.seed);
    let faults = Fault::ALL.iter().filter(|fault| plan.faults.of(**fault) != full.faults.of(**fault));
    let faults = faults.map(|fault| format!("{}={}", fault.field(), plan.faults.of(*fault)));
    let sizes = SIZES.iter().filter(|knob| (knob.get)(plan) != (knob.get)(&full));
    let sizes = sizes.map(|knob| format!("{}={}", knob.name, (knob.get)(plan)));
    let numbers = [("dropped", &plan.dropped), ("spared", &plan.spared)];
    let numbers = numbers.into_iter().filter(|(_, numbers)| **numbers != Numbers::default());
    let numbers = numbers.map(|(name, numbers)| format!("{name}={numbers}"));
    faults.chain(sizes).chain(numbers).collect::<Vec<String>>().join(",")
}

/// Changes a plan by a text such as `crash=0,workers=2,dropped=3:5+9:10`.
///
/// # Errors
/// What cannot be read.
pub fn change(plan: &mut Plan, changes: &str) -> Result<(), String> {
    for change in changes.split(',').filter(|change| !change.is_empty()) {
        let (name, value) = change.split_once('=').ok_or_else(|| format!("`{change}` is no `name=value`"))?;
        let number = || value.parse::<u32>().map_err(|_| format!("`{value}` of `{name}` is no number"));
        match name {
            "dropped" => plan.dropped = value.parse()?,
            "spared" => plan.spared = value.parse()?,
            _ => {
                if let Some(fault) = Fault::ALL.iter().find(|fault| fault.field() == name) {
                    *plan.faults.of_mut(*fault) = number()?;
                } else {
                    let knob = SIZES.iter().find(|knob| knob.name == name);
                    let knob = knob.ok_or_else(|| format!("unknown part of a plan `{name}`"))?;
                    (knob.set)(plan, i64::from(number()?));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Faults;

    #[test]
    fn what_is_left_out_leaves_only_what_is_needed() {
        let needed = [3, 4, 17];
        let mut left_out = Numbers::default();
        leave_out(40, |range| {
            let smaller = left_out.and(range);
            let fails = needed.iter().all(|number| !smaller.contains(*number));
            if fails {
                left_out = smaller;
            }
            fails
        });
        let kept: Vec<u64> = (0..40).filter(|number| !left_out.contains(*number)).collect();
        assert_eq!(kept, needed);
        assert_eq!(left_out.to_string(), "0:3+5:17+18:40");
        assert_eq!(left_out.to_string().parse(), Ok(left_out));
    }

    /// The list of faults is the one that the rates are made of, so the shrinker knows every kind.
    #[test]
    fn every_kind_of_fault_can_be_switched_off_and_is_drawn() {
        let mut plan = Plan::of(0);
        Fault::ALL.iter().for_each(|fault| *plan.faults.of_mut(*fault) = 0);
        assert_eq!(plan.faults, Faults::default());
        for fault in Fault::ALL {
            assert!((0..50).any(|seed| Plan::of(seed).faults.of(*fault) > 0), "{} is never drawn", fault.name());
            let changed = Plan { faults: Faults::default(), ..Plan::of(0) };
            let mut again = changed.clone();
            change(&mut again, &format!("{}=7", fault.field())).expect("a part of a plan");
            assert_eq!(again.faults.of(*fault), 7);
            assert_ne!(changes(&again), changes(&changed));
        }
    }
}
