//! Making a failing world smaller for as long as it fails in the same way.
//!
//! Greedy: fewer kinds of faults, workers and shards first, then fewer records and requests, and at
//! last fewer of the single faults, as [`leave_out`] does it. What is dropped changes what else happens,
//! so a smaller world gets a few tries, each with chance of its own.
//!
//! Invariant: what comes out was run and fails; the same seed shrinks to the same world.

use statefn_sim::{
    plan::{Fault, Faults},
    shrink::leave_out,
};

use super::{
    simulate::Shrunk,
    trial::{Broken, Trial},
};

/// How many worlds are run at most.
const RUNS_MAX: u32 = 1_200;
/// How many tries a smaller world gets.
const TRIES: u64 = 3;
/// More faults than a world has.
const FAULTS_MAX: u64 = 1 << 14;

/// Shrinks a trial that is broken in this way.
pub(super) fn shrink(trial: Trial<'_>, broken: &Broken) -> Shrunk {
    let mut search = Search { best: trial, broken: broken.clone(), runs: 0 };
    search.drop_kinds_of_faults();
    search.fewer_workers_and_shards();
    search.drop_records_and_requests();
    search.spare_faults();
    let Search { best, broken, .. } = search;
    let steps = best.story();
    let Trial { plan, inputs, clients, .. } = best.kept();
    let records = inputs.into_iter().flat_map(|input| {
        let (ingress, is_generated) = (input.ingress, input.is_generated);
        let shown = move |record: Vec<u8>| match record[..].try_into() {
            Ok(number) if is_generated => format!("record {}", u64::from_le_bytes(number)).into_bytes(),
            _ => record,
        };
        input.records.into_iter().map(move |record| (ingress.clone(), shown(record)))
    });
    let requests = clients.into_iter().flatten().map(|asked| {
        let key = String::from_utf8_lossy(&asked.key).into_owned();
        (format!("{} {key}, {}", asked.function, asked.message), asked.payload)
    });
    Shrunk {
        error: broken.text,
        records: records.collect(),
        requests: requests.collect(),
        workers: plan.workers,
        shards: plan.shards,
        faults: Fault::ALL.iter().copied().filter(|fault| plan.faults.of(*fault) > 0).collect(),
        steps,
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

    fn drop_kinds_of_faults(&mut self) {
        if self.keeps(|trial| trial.plan.faults = Faults::default()) {
            return;
        }
        for fault in Fault::ALL {
            if self.best.plan.faults.of(*fault) > 0 {
                self.keeps(|trial| *trial.plan.faults.of_mut(*fault) = 0);
            }
        }
    }

    /// And records that are read one by one, so that they need no others between them.
    fn fewer_workers_and_shards(&mut self) {
        self.keeps(|trial| trial.plan.stretch_max = 1);
        while self.best.plan.workers > 1 && self.keeps(|trial| trial.plan.workers -= 1) {}
        while self.best.plan.shards > 1 && self.keeps(|trial| trial.plan.shards -= 1) {}
    }

    fn drop_records_and_requests(&mut self) {
        let count = self.best.records() + self.best.requests();
        leave_out(count as u64, |range| self.keeps(|trial| trial.plan.dropped = trial.plan.dropped.and(range)));
    }

    fn spare_faults(&mut self) {
        if self.best.plan.faults == Faults::default() {
            return;
        }
        let mut count = FAULTS_MAX;
        while count > 0 && self.keeps(|trial| trial.plan.spared = trial.plan.spared.and(count / 2..u64::MAX)) {
            count /= 2;
        }
        leave_out(count, |range| self.keeps(|trial| trial.plan.spared = trial.plan.spared.and(range)));
    }
}
