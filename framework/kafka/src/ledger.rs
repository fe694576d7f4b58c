//! What is under way: the appends whose records were not all reported yet.
//!
//! Invariants: an append is told once, without a lock, and when the ledger has forgotten it; if it
//! is never reported, when it is dropped. Of a partition, everything that is under way goes through
//! one producer.
//!
//! Deliberately absent: producers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use statefn_core::ports::{
    log::{AppendError, Offset, Partition},
    shared::Told,
};

use crate::report::lock;

/// The number of a producer among those of an appender.
pub(crate) type Generation = u64;

/// The appends of one appender that are under way.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// By partition of which something is under way, the producer, and how many appends there are.
    routes: BTreeMap<Partition, (Generation, usize)>,
    bytes: usize,
    records: usize,
}

impl Ledger {
    /// How many bytes, and how many records, are under way.
    pub(crate) fn load(&self) -> (usize, usize) {
        (self.bytes, self.records)
    }

    /// The producer through which everything goes that is under way to a partition.
    pub(crate) fn generation_of(&self, partition: Partition) -> Option<Generation> {
        self.routes.get(&partition).map(|(generation, _)| *generation)
    }

    fn begin(&mut self, partition: Partition, generation: Generation, bytes: usize, records: usize) {
        let route = self.routes.entry(partition).or_insert((generation, 0));
        // What was given up through a broken producer no longer counts.
        *route = (generation, route.1 + 1);
        self.bytes += bytes;
        self.records += records;
    }

    fn end(&mut self, partition: Partition, bytes: usize, records: usize) {
        if let Some(route) = self.routes.get_mut(&partition) {
            route.1 -= 1;
            if route.1 == 0 {
                self.routes.remove(&partition);
            }
        }
        self.bytes -= bytes;
        self.records -= records;
    }
}

/// One append that is under way.
pub(crate) struct Flight {
    ledger: Arc<Mutex<Ledger>>,
    partition: Partition,
    bytes: usize,
    records: usize,
    progress: Mutex<Progress>,
}

struct Progress {
    /// Reports that are missing, and one for who gives the records to the producer.
    missing: usize,
    /// Not one record was given to a producer.
    is_refused: bool,
    first: Option<Offset>,
    failure: Option<String>,
    told: Option<Told>,
}

impl Flight {
    /// Notes an append that is about to be given to a producer; [`Self::given`] must follow.
    pub(crate) fn begin(
        ledger: &Arc<Mutex<Ledger>>,
        partition: Partition,
        generation: Generation,
        records: &[Arc<Vec<u8>>],
        told: Told,
    ) -> Arc<Self> {
        let bytes = records.iter().map(|record| record.len()).sum();
        lock(ledger).begin(partition, generation, bytes, records.len());
        let missing = records.len() + 1;
        let progress = Progress { missing, is_refused: false, first: None, failure: None, told: Some(told) };
        let ledger = Arc::clone(ledger);
        Arc::new(Self { ledger, partition, bytes, records: records.len(), progress: Mutex::new(progress) })
    }

    /// The records were given to a producer, but for the last `unsent`, if it failed.
    pub(crate) fn given(&self, unsent: usize, failure: Option<String>) {
        let mut progress = lock(&self.progress);
        progress.is_refused = unsent == self.records;
        if let Some(failure) = failure {
            progress.failure.get_or_insert(failure);
        }
        progress.missing -= unsent;
        drop(progress);
        self.count_down();
    }

    /// What became of a record of it.
    pub(crate) fn report(&self, index: usize, outcome: Result<Offset, String>) {
        let mut progress = lock(&self.progress);
        let Progress { first, failure, .. } = &mut *progress;
        let found = outcome.and_then(|offset| {
            let begins = offset.checked_sub(index as u64).filter(|begins| *begins == *first.get_or_insert(*begins));
            begins.ok_or_else(|| format!("record {index} of it stands at {offset}, not in a row with the others"))
        });
        if let Err(why) = found {
            failure.get_or_insert(why);
        }
        drop(progress);
        self.count_down();
    }

    fn count_down(&self) {
        let mut progress = lock(&self.progress);
        progress.missing -= 1;
        if progress.missing > 0 {
            return;
        }
        let told = progress.told.take();
        let outcome = match (progress.first, progress.failure.take()) {
            (_, Some(why)) if progress.is_refused => Err(AppendError::Refused(why)),
            (Some(first), None) => Ok(first),
            (_, why) => Err(AppendError::Unknown(why.unwrap_or_else(|| "no record was reported".to_owned()))),
        };
        drop(progress);
        lock(&self.ledger).end(self.partition, self.bytes, self.records);
        if let Some(told) = told {
            told(outcome);
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let told = lock(&self.progress).told.take();
        if let Some(told) = told {
            lock(&self.ledger).end(self.partition, self.bytes, self.records);
            told(Err(AppendError::Unknown("the producer ended before it reported".to_owned())));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    type Outcome = Result<Offset, AppendError>;

    fn begin(ledger: &Arc<Mutex<Ledger>>, generation: Generation, records: usize) -> (Arc<Flight>, Receiver<Outcome>) {
        let (told, outcome) = channel();
        let records: Vec<Arc<Vec<u8>>> = (0..records).map(|_| Arc::new(vec![7; 10])).collect();
        let told: Told = Box::new(move |outcome| told.send(outcome).expect("the test listens"));
        (Flight::begin(ledger, 3, generation, &records, told), outcome)
    }

    #[test]
    fn an_append_is_told_when_all_of_it_was_reported() {
        let ledger = Arc::default();
        let (flight, outcome) = begin(&ledger, 0, 3);
        let known = |ledger: &Mutex<Ledger>| {
            let ledger = lock(ledger);
            (ledger.load(), ledger.generation_of(3))
        };
        assert_eq!(known(&ledger), ((30, 3), Some(0)));
        flight.report(2, Ok(12));
        flight.report(0, Ok(10));
        flight.given(0, None);
        assert!(outcome.try_recv().is_err(), "a report is missing");
        flight.report(1, Ok(11));
        assert_eq!(outcome.try_recv().unwrap().unwrap(), 10);
        assert_eq!(known(&ledger), ((0, 0), None));
        drop(flight);
        assert!(outcome.try_recv().is_err(), "it is told once");
    }

    #[test]
    fn records_that_do_not_stand_in_a_row_have_an_unknown_outcome() {
        for offsets in [[10, 12], [11, 10], [10, 10], [0, 0]] {
            let (flight, outcome) = begin(&Arc::default(), 0, 2);
            flight.given(0, None);
            flight.report(0, Ok(offsets[0]));
            flight.report(1, Ok(offsets[1]));
            assert!(matches!(outcome.try_recv().unwrap(), Err(AppendError::Unknown(_))), "{offsets:?}");
        }
    }

    #[test]
    fn only_what_was_never_given_to_a_producer_is_refused() {
        let full = || Some("full".to_owned());
        let (flight, outcome) = begin(&Arc::default(), 0, 2);
        flight.given(2, full());
        assert!(matches!(outcome.try_recv().unwrap(), Err(AppendError::Refused(why)) if why == "full"));

        let (flight, outcome) = begin(&Arc::default(), 0, 2);
        flight.given(1, full());
        assert!(outcome.try_recv().is_err(), "the first record was given and is not reported yet");
        flight.report(0, Ok(4));
        assert!(matches!(outcome.try_recv().unwrap(), Err(AppendError::Unknown(why)) if why == "full"));

        let (flight, outcome) = begin(&Arc::default(), 0, 1);
        flight.given(0, None);
        flight.report(0, Err("late".to_owned()));
        assert!(matches!(outcome.try_recv().unwrap(), Err(AppendError::Unknown(why)) if why == "late"));
    }

    #[test]
    fn an_append_that_is_never_reported_is_told_when_it_is_dropped() {
        let ledger = Arc::default();
        let (flight, outcome) = begin(&ledger, 0, 1);
        flight.given(0, None);
        drop(flight);
        assert!(matches!(outcome.try_recv().unwrap(), Err(AppendError::Unknown(_))));
        assert_eq!(lock(&ledger).load(), (0, 0));
    }

    #[test]
    fn a_partition_is_with_the_producer_of_what_is_under_way() {
        let ledger = Arc::default();
        let (first, _told) = begin(&ledger, 0, 1);
        let (second, _told_too) = begin(&ledger, 0, 1);
        first.given(0, None);
        second.given(0, None);
        first.report(0, Ok(0));
        assert_eq!(lock(&ledger).generation_of(3), Some(0));
        second.report(0, Ok(1));
        assert_eq!(lock(&ledger).generation_of(3), None);
    }
}
