//! How long shards pause that move between workers, while others are started and stopped cleanly.
//!
//! A record out bears the worker that made it, so a reader of committed records sees the moves. Of each
//! round, from a start or stop until all is quiet again, the longest gap between two records out counts of
//! each shard: of those that moved, and of those that did not. A phase in which nothing happens is cut
//! into pieces of the same kind; what its gaps are is what the rate and the clients make of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use clap::Args;

use super::{
    Common, FleetRow,
    app::{ADDS, SUMS, keys_in_turn},
    audit::Tally,
    latency::write_once,
    load::{Load, Output},
    processes::{Office, Process},
    results::Results,
    servers::{Seen, Servers},
};
use crate::bench::{Failure, disk::quantile_ms};

/// How long no shard must move before a round is over.
const QUIET: Duration = Duration::from_secs(2);
/// How long a round may take.
const ROUND_LIMIT: Duration = Duration::from_secs(60);
/// How many pieces the control phase has.
const CONTROLS: usize = 5;
/// Keys of each shard.
const KEYS_EACH: usize = 4;

/// What to run.
#[derive(Debug, Clone, Args)]
pub(crate) struct Moves {
    /// How many shards must have moved in all.
    #[arg(long, default_value_t = 100)]
    moves: usize,
    /// How many records a second come, evenly over all shards.
    #[arg(long, default_value_t = 1_000)]
    rate: u64,
    /// How many shards there are; up to 32 each is a group of its own.
    #[arg(long, default_value_t = 16)]
    shards: u32,
    /// How many partitions the topics have; as many as there are shards if not given.
    #[arg(long)]
    partitions: Option<u32>,
    /// How many workers there are at least; one more comes and goes.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// The shortest time between two commits.
    #[arg(long, default_value = "20ms", value_parser = humantime::parse_duration)]
    commit_interval: Duration,
    #[command(flatten)]
    common: Common,
}

/// The longest gaps of shards in rounds.
#[derive(Default)]
struct Gaps {
    moved: Vec<Duration>,
    stayed: Vec<Duration>,
}

impl FleetRow for Moves {
    const NAME: &'static str = "move";

    fn common(&self) -> &Common {
        &self.common
    }

    fn measure(&self, results: &mut Results) -> Result<(), Failure> {
        let servers = Servers::start()?;
        let partitions = self.partitions.unwrap_or(self.shards);
        servers.create(&[(ADDS, partitions), (SUMS, partitions)])?;
        let settings = [
            format!("shards={}", self.shards),
            "threads=1".to_owned(),
            format!("commit_interval={}", humantime::format_duration(self.commit_interval)),
        ];
        let mut office = Office::new(&servers, &self.common, &settings)?;
        let keys = keys_in_turn(self.shards, KEYS_EACH);
        let keys_max = keys.iter().max().map_or(0, |key| key + 1);
        let (producer, mut written) = (servers.producer(0)?, Tally::new(keys_max));
        let mut output = Output::start(servers.consumer(SUMS, partitions)?, keys_max);

        write_once(&producer, &mut written, &keys)?;
        let mut workers = (0..self.workers).map(|_| office.worker()).collect::<Result<Vec<Process>, Failure>>()?;
        output.read_while(&mut all(&mut workers), |output| output.records() < keys.len() as u64)?;
        let load = Load::start(producer, written, keys, self.rate);
        output.read_until(Instant::now() + QUIET)?;

        let mut control = Gaps::default();
        for _ in 0..CONTROLS {
            let begun = Instant::now();
            output.read_until(begun + 2 * QUIET)?;
            control.note(output.log(), begun);
        }
        let (mut gaps, mut guest, mut rounds) = (Gaps::default(), None, 0);
        while gaps.moved.len() < self.moves {
            let begun = Instant::now();
            guest = match guest {
                None => Some(office.worker()?),
                Some(guest) => {
                    Process::stop(guest)?;
                    None
                }
            };
            self.settle(&mut output, &mut workers, guest.as_mut(), begun)?;
            gaps.note(output.log(), begun);
            rounds += 1;
        }
        let written = load.stop()?;
        output.check(&written, &mut all(&mut workers))?;
        guest.into_iter().chain(workers).try_for_each(Process::stop)?;

        results.add("shards that moved", gaps.moved.len() as f64, &format!("{} or more", self.moves))?;
        results.add("in so many starts and stops", f64::from(rounds), "")?;
        for (name, gaps, target) in [
            ("pause of one that moved", &gaps.moved, "500 or less"),
            ("longest gap of one that stayed", &gaps.stayed, ""),
            ("longest gap while nothing moved", &control.stayed, ""),
        ] {
            results.add(&format!("{name}, p50 ms"), quantile_ms(gaps, 50), "")?;
            results.add(&format!("{name}, p99 ms"), quantile_ms(gaps, 99), target)?;
            results.add(&format!("{name}, max ms"), quantile_ms(gaps, 100), "")?;
        }
        Ok(())
    }
}

impl Moves {
    /// Reads until each worker that should have shards has some, the others have none, and nothing moves.
    fn settle(
        &self,
        output: &mut Output,
        workers: &mut [Process],
        mut guest: Option<&mut Process>,
        begun: Instant,
    ) -> Result<(), Failure> {
        let expected: BTreeSet<u32> = workers.iter().chain(guest.as_deref()).map(Process::id).collect();
        let (mut owners, mut since) = (output.owners().clone(), Instant::now());
        loop {
            workers.iter_mut().chain(guest.as_deref_mut()).try_for_each(Process::check)?;
            output.read_until(Instant::now() + Duration::from_millis(50))?;
            if *output.owners() != owners {
                (owners, since) = (output.owners().clone(), Instant::now());
            }
            let having: BTreeSet<u32> = owners.values().copied().collect();
            if having == expected && since.elapsed() >= QUIET {
                return Ok(());
            }
            if begun.elapsed() > ROUND_LIMIT {
                let why = format!("or others do not take over: {having:?} have shards, but {expected:?} should");
                return Err(guest
                    .as_deref()
                    .or(workers.first())
                    .map_or_else(|| why.clone().into(), |one| one.broken(&why)));
            }
        }
    }
}

impl Gaps {
    /// Notes the longest gap of each shard since a moment.
    fn note(&mut self, log: &[Seen], begun: Instant) {
        // By shard: its last record, its longest gap, whether it moved.
        let mut shards: BTreeMap<u32, (&Seen, Duration, bool)> = BTreeMap::new();
        for seen in log {
            let Some(shard) = seen.shard else { continue };
            let (last, longest, has_moved) = shards.entry(shard).or_insert((seen, Duration::ZERO, false));
            if seen.at >= begun {
                *longest = (*longest).max(seen.at - last.at);
                *has_moved |= seen.sum.worker != last.sum.worker;
            }
            *last = seen;
        }
        for (_, longest, has_moved) in shards.into_values() {
            if has_moved { self.moved.push(longest) } else { self.stayed.push(longest) }
        }
    }
}

fn all(workers: &mut [Process]) -> Vec<&mut Process> {
    workers.iter_mut().collect()
}
