//! Faults of all kinds, in an order that follows from a seed.

use std::{
    env,
    time::{Duration, Instant},
};

use services::kafka::Broker;

use crate::worker::Fleet;

/// How long is paid around each fault.
const AROUND: Duration = Duration::from_millis(5_250);
/// How long the broker is frozen: longer than the message time-out of the workers.
const BROKER_FREEZE: Duration = Duration::from_secs(5);
/// How long it may take until others have the shards of a worker that is frozen.
const PROOF_LIMIT: Duration = Duration::from_secs(60);
/// How many workers there are at least, and at most.
const WORKERS: [usize; 2] = [3, 5];

/// Those who pay while faults happen, and know what has come of it.
pub(crate) trait Load {
    /// So many new effects show that others have the shards of a worker that is frozen.
    const PROOF: usize;

    /// Pays for a while.
    fn pay_for(&mut self, time: Duration);

    /// How many effects of payments were seen by now.
    fn seen(&self) -> usize;

    /// Waits until so many were seen.
    fn wait_until_seen(&mut self, count: usize);
}

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// A worker dies, and another one comes.
    Kill,
    /// A worker is frozen until others have its shards; then it goes on.
    Freeze,
    /// The broker is stopped and started again.
    BrokerRestart,
    /// The broker is frozen for longer than appends wait.
    BrokerFreeze,
    /// A worker is added, or one ends cleanly.
    Move,
}

/// How many faults of each kind there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) kills: usize,
    pub(crate) freezes: usize,
    pub(crate) broker_restarts: usize,
    pub(crate) broker_freezes: usize,
    pub(crate) moves: usize,
}

impl Counts {
    pub(crate) fn all(&self) -> usize {
        self.kills + self.freezes + self.broker_restarts + self.broker_freezes + self.moves
    }
}

/// Which faults, in which order.
pub(crate) struct Plan {
    counts: Counts,
    random: u64,
}

impl Plan {
    /// As many kills as the variable `STATEFN_FLEET_KILLS` says, 10 if it says nothing, and others with them.
    pub(crate) fn of_environment() -> Self {
        let kills: usize = env::var("STATEFN_FLEET_KILLS").map_or(10, |text| text.parse().expect("a number of kills"));
        let tenth = kills.div_ceil(10);
        let (freezes, broker_restarts, broker_freezes, moves) = (3 * tenth, 2 * tenth, tenth, 3 * tenth);
        let counts = Counts { kills, freezes, broker_restarts, broker_freezes, moves };
        let seed = env::var("STATEFN_SEED").ok().and_then(|text| text.parse().ok());
        Self { counts, random: seed.unwrap_or(7) }
    }

    fn random(&mut self, below: usize) -> usize {
        // A linear congruential generator: Knuth, MMIX.
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as usize % below
    }

    /// The faults in a random order.
    fn order(&mut self) -> Vec<Fault> {
        let Counts { kills, freezes, broker_restarts, broker_freezes, moves } = self.counts;
        let of = |fault, count| std::iter::repeat_n(fault, count);
        let mut order: Vec<Fault> = of(Fault::Kill, kills)
            .chain(of(Fault::Freeze, freezes))
            .chain(of(Fault::BrokerRestart, broker_restarts))
            .chain(of(Fault::BrokerFreeze, broker_freezes))
            .chain(of(Fault::Move, moves))
            .collect();
        for place in (1..order.len()).rev() {
            order.swap(place, self.random(place + 1));
        }
        order
    }

    /// Pays, and lets each fault happen in the middle of it; returns how many there were.
    pub(crate) fn run<L: Load>(mut self, fleet: &mut Fleet, broker: &mut Broker, load: &mut L) -> Counts {
        load.pay_for(Duration::from_millis(1_500));
        load.wait_until_seen(L::PROOF / 2);
        for (number, fault) in self.order().into_iter().enumerate() {
            println!("fault {number}: {fault:?}, {} effects so far", load.seen());
            let worker = self.random(fleet.len());
            let before = AROUND.mul_f64(self.random(1_000) as f64 / 2_000.0);
            load.pay_for(before);
            let ends_at = Self::begin(fault, worker, fleet, broker);
            load.pay_for(AROUND - before);
            Self::end(fault, ends_at, fleet, broker, load);
            fleet.revive();
        }
        self.counts
    }

    /// Lets a fault begin; one that lasts goes on until the moment that is returned.
    fn begin(fault: Fault, worker: usize, fleet: &mut Fleet, broker: &mut Broker) -> Instant {
        match fault {
            Fault::Kill => fleet.kill(worker),
            Fault::Freeze => {
                // The last one, so that its place is known.
                let last = fleet.len() - 1;
                fleet.freeze(last, true);
                return Instant::now() + Duration::from_secs(5);
            }
            Fault::BrokerRestart => broker.stop().unwrap(),
            Fault::BrokerFreeze => {
                broker.pause().unwrap();
                return Instant::now() + BROKER_FREEZE;
            }
            Fault::Move if fleet.len() < WORKERS[1] && (fleet.len() == WORKERS[0] || worker.is_multiple_of(2)) => {
                fleet.start();
            }
            Fault::Move => fleet.stop(worker),
        }
        Instant::now()
    }

    /// Pays until many effects have come: those of a load that is not paid any more may be too few.
    fn prove_others_work<L: Load>(load: &mut L) {
        let (begun, wanted) = (Instant::now(), load.seen() + L::PROOF);
        while load.seen() < wanted {
            assert!(begun.elapsed() < PROOF_LIMIT, "only {} of {wanted} effects came", load.seen());
            load.pay_for(Duration::from_millis(200));
        }
    }

    fn end<L: Load>(fault: Fault, ends_at: Instant, fleet: &mut Fleet, broker: &mut Broker, load: &mut L) {
        let left = ends_at.saturating_duration_since(Instant::now());
        match fault {
            Fault::Kill => fleet.start(),
            Fault::Freeze => {
                // Others have its shards when effects of payments since then have come.
                load.pay_for(left);
                Self::prove_others_work(load);
                let last = fleet.len() - 1;
                fleet.freeze(last, false);
            }
            Fault::BrokerRestart => broker.restart().unwrap(),
            Fault::BrokerFreeze => {
                std::thread::sleep(left);
                broker.resume().unwrap();
            }
            Fault::Move => {}
        }
    }
}
