//! Egress while its broker is killed, started again and frozen.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use services::kafka::Broker;
use statefn_core::ports::egress::Egresses;
use statefn_kafka::{EgressError, GroupEgress, egress::Delivery};

use crate::support::{App, LIMIT, LOOK, offsets, until, write};

/// A broker that a test may harm.
fn own_broker() -> Option<Broker> {
    Broker::shared()?;
    Some(Broker::start().expect("it starts, as the shared one did"))
}

/// Two shards that emit, and what is to stand of them.
struct Shards {
    epochs: [u64; 2],
}

impl Shards {
    const RECORDS: u64 = 3;

    /// Gives the next epoch of both shards.
    fn emit(&mut self, egress: &mut GroupEgress) {
        for shard in [0, 1] {
            self.epochs[shard] += 1;
            self.give(egress, shard, self.epochs[shard]);
        }
    }

    fn give(&self, egress: &mut GroupEgress, shard: usize, epoch: u64) {
        let records: Vec<_> = (0..Self::RECORDS).map(|record| format!("{shard}/{epoch}/{record}")).collect();
        let records: Vec<_> = records.iter().map(|record| (shard, record.as_str())).collect();
        write(egress, shard as u32, epoch, &records);
    }

    /// Gives what an egress that was opened again does not have, as the journal would.
    fn give_again(&self, egress: &mut GroupEgress) {
        for shard in [0, 1] {
            for epoch in egress.taken(shard as u32) + 1..=self.epochs[shard] {
                self.give(egress, shard, epoch);
            }
        }
    }

    /// All records of a shard, in order.
    fn wanted(&self, shard: usize) -> Vec<String> {
        let epochs = 1..=self.epochs[shard];
        epochs.flat_map(|epoch| (0..Self::RECORDS).map(move |record| format!("{shard}/{epoch}/{record}"))).collect()
    }

    fn check_exactly_once(&self, app: &App) {
        for shard in [0, 1] {
            let found = app.standing(shard);
            let values: Vec<_> = found.iter().map(|found| found.value.clone()).collect();
            assert_eq!(values, self.wanted(shard), "shard {shard}");
            assert!(found.iter().all(|found| found.id == found.value), "a record has its identity");
        }
    }
}

/// Writes on a thread of its own until it is told to stop; calls that fail are counted and tried again.
struct Writing {
    stop: Arc<AtomicBool>,
    failures: Arc<Mutex<Vec<String>>>,
    thread: JoinHandle<(GroupEgress, Shards)>,
}

impl Writing {
    fn start(mut egress: GroupEgress, mut shards: Shards) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let failures = Arc::<Mutex<Vec<String>>>::default();
        let (is_over, failed) = (Arc::clone(&stop), Arc::clone(&failures));
        let thread = std::thread::spawn(move || {
            while !is_over.load(Ordering::Acquire) {
                shards.emit(&mut egress);
                let synced = egress.sync();
                assert!(!synced.as_ref().is_err_and(EgressError::is_fenced), "nobody else owns the group");
                failed.lock().expect("no panic").extend(synced.err().map(|error| error.to_string()));
            }
            (egress, shards)
        });
        Self { stop, failures, thread }
    }

    fn stop(self) -> (GroupEgress, Shards) {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("no panic")
    }

    /// Waits until more transactions than so many were written.
    fn wait_for_more_than(&self, app: &App, end: i64) {
        wait_until("transactions are written", || offsets(&app.bootstrap, &app.topic(0), 0).1 > end);
    }

    fn wait_for_a_failure(&self) {
        let failures = || self.failures.lock().expect("no panic").len();
        let before = failures();
        wait_until("a call fails", || failures() > before);
    }
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    until(what, || {
        std::thread::sleep(LOOK);
        if is_so() { Ok(()) } else { Err("not yet") }
    });
}

/// Writes until everything is taken, while the broker may still be on its way back.
fn finish(egress: &mut GroupEgress) {
    until("everything is taken", || egress.finish());
    assert!(!egress.is_behind());
}

/// What a kill, or a freeze, hits is left to chance: it comes after some transactions, at any place
/// of the next.
const ROUNDS: u64 = 2;
const TRANSACTIONS: i64 = 40;

#[test]
fn a_broker_that_is_killed_loses_and_doubles_nothing() {
    let Some(mut broker) = own_broker() else { return };
    // The client has time to connect again, and to send again what was on its way: no call fails.
    let mut app = App::new(&broker, "killed", Delivery::ExactlyOnce).patience(LIMIT);
    app.options.transaction_timeout = LIMIT;
    let (mut egress, mut shards) = (app.open(), Shards { epochs: [0, 0] });
    for _ in 0..ROUNDS {
        let end = offsets(&app.bootstrap, &app.topic(0), 0).1;
        let writing = Writing::start(egress, shards);
        writing.wait_for_more_than(&app, end + TRANSACTIONS);
        broker.kill().expect("it runs");
        broker.restart().expect("it starts again");
        let failures = Arc::clone(&writing.failures);
        (egress, shards) = writing.stop();
        // The next transaction must not begin with a producer whose requests may still be on their way.
        shards.emit(&mut egress);
        finish(&mut egress);
        assert_eq!(*failures.lock().expect("no panic"), [""; 0]);
    }
    // A commit that was sent twice may come late, and end a later transaction half-written.
    assert!(egress.renewals() >= ROUNDS, "each kill broke a connection with requests: {}", egress.renewals());
    shards.check_exactly_once(&app);
}

#[test]
fn a_broker_that_is_frozen_loses_and_doubles_nothing() {
    let Some(mut broker) = own_broker() else { return };
    let mut app = App::new(&broker, "frozen", Delivery::ExactlyOnce).patience(Duration::from_secs(1));
    // The broker ends a transaction itself if the freeze is longer than this.
    app.options.transaction_timeout = Duration::from_secs(2);
    let (mut egress, mut shards) = (app.open(), Shards { epochs: [0, 0] });
    for round in 0..ROUNDS {
        let end = offsets(&app.bootstrap, &app.topic(0), 0).1;
        let writing = Writing::start(egress, shards);
        writing.wait_for_more_than(&app, end + TRANSACTIONS);
        broker.pause().expect("it runs");
        writing.wait_for_a_failure();
        writing.wait_for_a_failure();
        if round == 0 {
            broker.resume().expect("it is frozen");
            (egress, shards) = writing.stop();
        } else {
            // The owner gives up, not knowing what became of its last transaction.
            let left;
            (left, shards) = writing.stop();
            drop(left);
            broker.resume().expect("it is frozen");
            egress = app.open();
            shards.give_again(&mut egress);
        }
        finish(&mut egress);
    }
    shards.check_exactly_once(&app);
}

#[test]
fn many_short_freezes_lose_and_double_nothing() {
    let Some(mut broker) = own_broker() else { return };
    // Each freeze makes a call fail: before records were written, before the commit, or behind it.
    let app = App::new(&broker, "short-freezes", Delivery::ExactlyOnce).patience(Duration::from_millis(500));
    let (mut egress, mut shards) = (app.open(), Shards { epochs: [0, 0] });
    for round in 0..12 {
        let end = offsets(&app.bootstrap, &app.topic(0), 0).1;
        let writing = Writing::start(egress, shards);
        writing.wait_for_more_than(&app, end);
        broker.pause().expect("it runs");
        writing.wait_for_a_failure();
        broker.resume().expect("it is frozen");
        (egress, shards) = writing.stop();
        if round % 3 == 2 {
            drop(egress);
            egress = app.open();
            shards.give_again(&mut egress);
        }
    }
    finish(&mut egress);
    shards.check_exactly_once(&app);
}

#[test]
fn at_least_once_loses_nothing_and_keeps_order_when_the_broker_is_killed() {
    let Some(mut broker) = own_broker() else { return };
    let app = App::new(&broker, "killed-again", Delivery::AtLeastOnce).patience(Duration::from_secs(2));
    let writing = Writing::start(app.open(), Shards { epochs: [0, 0] });
    writing.wait_for_more_than(&app, TRANSACTIONS);
    broker.kill().expect("it runs");
    broker.restart().expect("it starts again");
    let (mut egress, shards) = writing.stop();
    finish(&mut egress);
    for shard in [0, 1] {
        let mut seen = BTreeSet::new();
        let mut values = app.values(shard);
        values.retain(|value| seen.insert(value.clone()));
        assert_eq!(values, shards.wanted(shard), "shard {shard}");
    }
}
