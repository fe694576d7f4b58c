//! Poison: how much the keys whose handlers break cost all others.
//!
//! Both sides are the app. On one of them some keys have a message that breaks their handler, half of
//! them by a fault and half by a panic, and from then on their calls wait; on the other, which stands
//! in the place of the loop by hand, nothing breaks. The two take turns as those of every row do.
//!
//! Invariant: the keys that do not break see the same on both sides.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use clap::Args;
use serde::{Deserialize, Serialize};
use statefn::{prelude::*, run::End};

use super::{
    Failure,
    audit::{self, Audit},
    figures::Figures,
    pin,
    row::{Measuring, Row, Side},
};

/// Every how many keys one is poisoned, if there is poison: a thousand of a hundred thousand.
const KEYS_FOR_EACH_POISONED: u64 = 100;
/// In which round the poison comes.
const POISONED_ROUND: u64 = 1;

/// What to run.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub(crate) struct Options {
    /// How many keys there are.
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// How many messages each key gets.
    #[arg(long, default_value_t = 60)]
    rounds: u64,
    /// How many threads run shards.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// The shortest time between two commits.
    #[arg(long, default_value = "10ms", value_parser = humantime::parse_duration)]
    commit_interval: Duration,
    #[command(flatten)]
    #[serde(skip)]
    measuring: Measuring,
}

#[derive(Clone, PartialEq, prost::Message, Message)]
#[message(name = "add", prost)]
struct Add {
    #[prost(fixed64, tag = "1")]
    key: u64,
    #[prost(uint64, tag = "2")]
    amount: u64,
    /// 0 for none, 1 for a fault, 2 for a panic.
    #[prost(uint32, tag = "3")]
    poison: u32,
}

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Sum {
    sum: u64,
}

#[function(name = "bench/poison", key = u64)]
impl Sum {
    #[on]
    fn add(&mut self, add: &Add) -> Result<(), Fault> {
        self.sum += add.amount;
        if !is_to_be_poisoned(add.key) {
            audit::note(add.key, self.sum);
        }
        match add.poison {
            0 => Ok(()),
            1 => Err(Fault::new("poison")),
            _ => panic!("poison"),
        }
    }
}

fn is_to_be_poisoned(key: u64) -> bool {
    key.is_multiple_of(KEYS_FOR_EACH_POISONED)
}

impl Row for Options {
    const NAME: &'static str = "poison";
    const MERIT: &'static str = "records a second";

    fn measuring(&self) -> &Measuring {
        &self.measuring
    }

    fn points(&self) -> Vec<(String, Self)> {
        vec![("app = with poison, by hand = without".into(), self.clone())]
    }

    fn times(&self, factor: u64) -> Self {
        Self { rounds: self.rounds * factor, ..self.clone() }
    }

    fn events(&self) -> u64 {
        self.keys * self.rounds
    }

    fn run(&self, side: Side, data: &Path) -> Result<Figures, Failure> {
        let settings = Settings {
            threads: Some(self.threads),
            commit_interval: Some(self.commit_interval),
            ..Settings::new().data(data)
        };
        let (keys, records, has_poison) = (self.keys, self.events(), side == Side::App);
        let make = move |record: u64| {
            let (round, key) = (record / keys, record % keys);
            let is_poison = has_poison && round == POISONED_ROUND && is_to_be_poisoned(key);
            let kind = 1 + (key / KEYS_FOR_EACH_POISONED % 2) as u32;
            let poison = if is_poison { kind } else { 0 };
            (record < records).then_some(Add { key, amount: round + 1, poison })
        };
        let ingress = Ingress::<Add>::new("adds").generate(make).to::<Sum>();
        let app = App::new("bench-poison").function::<Sum>().settings(settings);
        let app = app.ingress(ingress, |add, out| out.send(Sum::at(add.key), add));
        let started_at = Instant::now();
        let running = app.start()?;
        pin::threads_of_app(self.threads);
        let summary = running.wait()?;
        let seconds = started_at.elapsed().as_secs_f64();
        let totals = summary.totals;
        let poisoned = if has_poison { keys.div_ceil(KEYS_FOR_EACH_POISONED) } else { 0 };
        let is_whole = summary.end == End::Finished && totals.records == records && totals.parked_keys == poisoned;
        if !is_whole || totals.shards.faults != poisoned {
            return Err(format!("the run is not whole: {:?}, {totals:?}", summary.end).into());
        }
        Ok(Figures::new(Audit::taken())
            .with(Self::MERIT, records as f64 / seconds)
            .with("parked keys", totals.parked_keys as f64)
            .with("MiB that they wait with", totals.parked_bytes as f64 / f64::from(1 << 20)))
    }
}
