//! Loading the shards of an app, by as many threads as will run them.
//!
//! A thread takes the next shard that none has taken, as long as there is one. What it needs of the
//! disk it reads in turns with the others; it folds and decodes meanwhile.
//!
//! Invariants: log, snapshots and egresses are used by one thread at a time; shards are begun in
//! their order, and of several that cannot be loaded the first is told, as if there were one thread.
//!
//! Deliberately absent: writing. The shards are claimed together, once all are loaded.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use statefn_core::{
    address::ShardId,
    error::Corrupt,
    ports::{
        egress::Egresses,
        log::{AppendError, Log, Offset, Partition, ReadError, Record},
        snapshots::Snapshots,
    },
    shard::{Options, TakeOver},
};

use super::{
    Plan, RunError, Storage,
    egress_writer::{self, Places},
};
use crate::{egress::FileEgress, failpoint::failpoint};

/// What shards are loaded from, and where their records for egresses go.
pub(super) struct Ports<'a> {
    pub(super) log: &'a mut dyn Log,
    pub(super) snapshots: &'a mut dyn Snapshots,
    pub(super) egress: &'a mut FileEgress,
    pub(super) places: &'a Places,
}

/// Loads shards; they come back in the order in which they are named.
pub(super) fn prepare(
    plan: &Plan,
    options: &Arc<Options>,
    shards: &[ShardId],
    ports: Ports<'_>,
) -> Result<Vec<TakeOver>, RunError> {
    let taken: Vec<u64> = shards.iter().map(|shard| ports.egress.ended(*shard)).collect();
    let (egress, places) = (Mutex::new(ports.egress), ports.places);
    let egress = InTurns(&egress);
    let load = |number: usize, log: &mut dyn Log, snapshots: &mut dyn Snapshots| {
        let (shard, taken) = (shards[number], taken[number]);
        let mut emit = |emission| egress_writer::write(&mut egress.take(), places, &emission);
        let take_over = TakeOver::prepare(&plan.program, options, shard, (log, snapshots), taken, &mut emit)?;
        check_nothing_lost(plan, shard, take_over.epoch(), taken)?;
        failpoint("start/shard-prepared");
        Ok(take_over)
    };
    let threads = plan.threads.min(shards.len());
    if threads <= 1 {
        return (0..shards.len()).map(|number| load(number, &mut *ports.log, &mut *ports.snapshots)).collect();
    }
    let (log, snapshots) = (Mutex::new(ports.log), Mutex::new(ports.snapshots));
    on_threads(threads, shards.len(), |number| load(number, &mut InTurns(&log), &mut InTurns(&snapshots)))
}

/// Does what has the numbers 0 to `count`, on so many threads; this one is one of them.
fn on_threads<T: Send>(
    threads: usize,
    count: usize,
    one: impl Fn(usize) -> Result<T, RunError> + Sync,
) -> Result<Vec<T>, RunError> {
    let (next, has_failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || {
        let mut done = Vec::new();
        while !has_failed.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                break;
            }
            let outcome = one(number);
            has_failed.fetch_or(outcome.is_err(), Ordering::Relaxed);
            done.push((number, outcome));
        }
        done
    };
    let mut done = thread::scope(|scope| {
        let spawn = |number| thread::Builder::new().name(format!("statefn-load-{number}")).spawn_scoped(scope, work);
        // A thread that cannot be started is one less.
        let others: Vec<_> = (1..threads).filter_map(|number| spawn(number).ok()).collect();
        let mut done = work();
        for other in others {
            done.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        done
    });
    done.sort_unstable_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Refuses a journal that ends before what egresses have: its end was damaged and looked like a
/// write that a crash cut short, or an older copy of it was put in its place. New epochs with the
/// numbers of lost ones would be taken for those that are written already.
fn check_nothing_lost(plan: &Plan, shard: ShardId, epoch: u64, taken: u64) -> Result<(), RunError> {
    let Storage::Directory(directory) = &plan.storage else { return Ok(()) };
    if taken <= epoch {
        return Ok(());
    }
    Err(Corrupt(format!(
        "the log in `{}` lost acknowledged records: the journal of shard {shard} ends with epoch {epoch}, and the egresses have its records up to epoch {taken}; restore the data directory, outputs included, from a whole copy",
        directory.join("log").display()
    ))
    .into())
}

/// A port that threads use in turns.
struct InTurns<'m, 'p, P: ?Sized>(&'m Mutex<&'p mut P>);

impl<'m, 'p, P: ?Sized> InTurns<'m, 'p, P> {
    fn take(&self) -> MutexGuard<'m, &'p mut P> {
        // A thread that panicked ends the run anyway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is read is handed out when the others may read on already.
impl Log for InTurns<'_, '_, dyn Log + '_> {
    fn append(&mut self, group: &[Record<'_>]) -> Result<Vec<Offset>, AppendError> {
        self.take().append(group)
    }

    fn read(
        &mut self,
        partition: Partition,
        from: Offset,
        each: &mut dyn FnMut(Offset, &[u8]),
    ) -> Result<(), ReadError> {
        let mut records = Records::default();
        let read = self.take().read(partition, from, &mut |offset, record| records.add(offset, record));
        records.each(each);
        read
    }

    fn read_short(
        &mut self,
        partition: Partition,
        from: Offset,
        bytes_max: usize,
        each: &mut dyn FnMut(Offset, &[u8]),
    ) -> Result<(), ReadError> {
        let mut records = Records::default();
        let read =
            self.take().read_short(partition, from, bytes_max, &mut |offset, record| records.add(offset, record));
        records.each(each);
        read
    }

    fn start(&self, partition: Partition) -> Offset {
        self.take().start(partition)
    }

    fn end(&self, partition: Partition) -> Offset {
        self.take().end(partition)
    }

    fn trim(&mut self, partition: Partition, before: Offset) -> Result<(), String> {
        self.take().trim(partition, before)
    }
}

impl Snapshots for InTurns<'_, '_, dyn Snapshots + '_> {
    fn put(&mut self, name: &str, bytes: &[u8]) -> Result<(), String> {
        self.take().put(name, bytes)
    }

    fn get(&mut self, name: &str) -> Result<Option<Vec<u8>>, String> {
        self.take().get(name)
    }

    fn remove(&mut self, name: &str) -> Result<(), String> {
        self.take().remove(name)
    }

    fn list(&mut self) -> Result<Vec<String>, String> {
        self.take().list()
    }
}

/// Records in one buffer.
#[derive(Default)]
struct Records {
    bytes: Vec<u8>,
    /// Of each record its offset, and where it ends.
    ends: Vec<(Offset, usize)>,
}

impl Records {
    fn add(&mut self, offset: Offset, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        self.ends.push((offset, self.bytes.len()));
    }

    fn each(&self, each: &mut dyn FnMut(Offset, &[u8])) {
        let mut begin = 0;
        for (offset, end) in &self.ends {
            each(*offset, &self.bytes[begin..*end]);
            begin = *end;
        }
    }
}

#[cfg(test)]
mod tests {
    use statefn_core::ports::{
        log::{self, MemoryLog},
        snapshots::{self, MemorySnapshots},
    };

    use super::*;

    #[test]
    fn ports_in_turns_conform() {
        // The suites make several, one after the other, and want to own each.
        fn leaked<P: ?Sized>(port: Box<P>) -> &'static Mutex<&'static mut P> {
            Box::leak(Box::new(Mutex::new(Box::leak(port))))
        }
        log::conformance(|| Box::new(InTurns(leaked::<dyn Log>(Box::new(MemoryLog::new(3))))));
        snapshots::conformance(|| Box::new(InTurns(leaked::<dyn Snapshots>(Box::new(MemorySnapshots::default())))));
    }

    #[test]
    fn all_is_done_once_and_comes_back_in_order() {
        for threads in 2..5 {
            let done = on_threads(threads, 100, |number| Ok(number * 2)).expect("nothing fails");
            assert!(done.into_iter().eq((0..100).map(|number| number * 2)));
        }
    }

    #[test]
    fn of_several_that_fail_the_first_is_told() {
        for threads in 2..5 {
            let fails = |number| match number % 7 {
                3 => Err(RunError::Broken(format!("{number} failed"))),
                _ => Ok(()),
            };
            let error = on_threads(threads, 100, fails).expect_err("many fail");
            assert_eq!(error.to_string(), "3 failed");
        }
    }
}
