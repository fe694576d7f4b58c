//! Making a failing world smaller for as long as it fails in the same way.
//!
//! Greedy: fewer faults, workers and shards first, then fewer records, in halves, quarters, and so
//! on down to single ones (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing
//! Input", 2002). What is dropped changes what else happens, so a smaller world gets a few tries,
//! each with chance of its own.
//!
//! Invariant: what comes out was run and fails; the same seed shrinks to the same world.

use statefn_sim::plan::Faults;

use super::{
    simulate::Shrunk,
    trial::{Broken, Trial},
};

/// How many worlds are run at most.
const RUNS_MAX: u32 = 600;
/// How many tries a smaller world gets.
const TRIES: u64 = 3;

type Fault = (&'static str, fn(&mut Faults) -> &mut u32);

const FAULTS: [Fault; 12] = [
    ("crashes", |faults| &mut faults.crash),
    ("refused appends", |faults| &mut faults.refused),
    ("unknown appends", |faults| &mut faults.unknown),
    ("pauses", |faults| &mut faults.pause),
    ("moved shards", |faults| &mut faults.moved),
    ("slow news", |faults| &mut faults.slow_news),
    ("lost mail", |faults| &mut faults.loss),
    ("doubled mail", |faults| &mut faults.doubled),
    ("late mail", |faults| &mut faults.late),
    ("garbage in mailboxes", |faults| &mut faults.garbage),
    ("failed snapshots", |faults| &mut faults.snapshot),
    ("rotten snapshots", |faults| &mut faults.rot),
];

/// Shrinks a trial that is broken in this way.
pub(super) fn shrink(trial: Trial<'_>, broken: &Broken) -> Shrunk {
    let mut search = Search { best: trial, broken: broken.clone(), runs: 0 };
    search.drop_faults();
    search.fewer_workers_and_shards();
    search.drop_records();
    let Search { mut best, broken, .. } = search;
    let faults = FAULTS.iter().filter(|(_, of)| *of(&mut best.plan.faults) > 0).map(|(name, _)| *name).collect();
    let records = best.inputs.into_iter().flat_map(|input| {
        let ingress = input.ingress;
        input.records.into_iter().map(move |record| (ingress.clone(), record))
    });
    Shrunk {
        error: broken.text,
        records: records.collect(),
        workers: best.plan.workers,
        shards: best.plan.shards,
        faults,
    }
}

struct Search<'a> {
    best: Trial<'a>,
    broken: Broken,
    runs: u32,
}

impl<'a> Search<'a> {
    /// Keeps a smaller trial if it fails in the same way.
    fn keeps(&mut self, change: impl FnOnce(&mut Trial<'a>)) -> bool {
        let mut smaller = self.best.clone();
        change(&mut smaller);
        let seed = smaller.plan.seed;
        for try_number in 0..TRIES {
            if self.runs >= RUNS_MAX {
                return false;
            }
            self.runs += 1;
            smaller.plan.seed = seed.wrapping_add(try_number << 32);
            match smaller.run() {
                Err(broken) if broken.by == self.broken.by => {
                    (self.best, self.broken) = (smaller, broken);
                    return true;
                }
                _ => {}
            }
        }
        false
    }

    fn drop_faults(&mut self) {
        if self.keeps(|trial| trial.plan.faults = Faults::default()) {
            return;
        }
        for (_, of) in FAULTS {
            if *of(&mut self.best.plan.faults) > 0 {
                self.keeps(|trial| *of(&mut trial.plan.faults) = 0);
            }
        }
    }

    fn fewer_workers_and_shards(&mut self) {
        while self.best.plan.workers > 1 && self.keeps(|trial| trial.plan.workers -= 1) {}
        while self.best.plan.shards > 1 && self.keeps(|trial| trial.plan.shards -= 1) {}
    }

    fn drop_records(&mut self) {
        for input in 0..self.best.inputs.len() {
            let mut size = self.best.inputs[input].records.len();
            while size > 0 {
                self.drop_stretches(input, size);
                size /= 2;
            }
        }
    }

    /// Drops every stretch of `size` records that is not needed, the last ones first.
    fn drop_stretches(&mut self, input: usize, size: usize) {
        let mut end = self.best.inputs[input].records.len();
        while end > 0 {
            let start = end.saturating_sub(size);
            self.keeps(|trial| _ = trial.inputs[input].records.drain(start..end));
            end = start;
        }
    }
}
