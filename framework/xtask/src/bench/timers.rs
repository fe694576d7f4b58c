//! Pending event-time timers, each of which fires once and is set again, durably.
//!
//! Three ingresses: the first makes the state of each key, the second sets a timer for each, and the
//! last moves event time over the span in which they are due. Each begins once the one before it is
//! over, so that it is seen by how much the process grows for timers alone, the buffers included
//! that grow as well; what the timers themselves take the app tells. What else is measured begins
//! with the last. A timer that is set again is due behind the end of the input and
//! stays.
//!
//! The loop by hand has a bucket for each millisecond and writes for each timer which one is gone,
//! which one has come, and the state.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use clap::Args;
use serde::{Deserialize, Serialize};
use statefn::prelude::*;

use super::{
    Failure,
    audit::{self, Audit},
    disk::{Disk, quantile_ms},
    figures::Figures,
    gate::{Gate, until_called},
    meter::{Meter, memory},
    numbers::mixed,
    pin,
    row::{Measuring, Row, Side},
    run_of_app::{self, Run},
};

/// What the key of a timer takes, in bytes; it has no name, and its payload is empty.
const KEY_BYTES: u64 = 8;
/// The earliest time at which a timer is due.
const DUE_MS_MIN: u64 = 2;
/// How many steps event time makes.
const TICKS: u64 = 1_000;

/// What to run.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub(crate) struct Options {
    /// How many timers there are.
    #[arg(long, default_value_t = 10_000_000)]
    timers: u64,
    /// Over which stretch of event time they are due.
    #[arg(long, default_value = "1000s", value_parser = humantime::parse_duration)]
    span: Duration,
    /// How many threads run shards.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// How many shards there are.
    #[arg(long, default_value_t = 64)]
    shards: u32,
    /// The shortest time between two commits.
    #[arg(long, default_value = "100ms", value_parser = humantime::parse_duration)]
    commit_interval: Duration,
    #[command(flatten)]
    #[serde(skip)]
    measuring: Measuring,
}

#[derive(Clone, PartialEq, prost::Message, Message)]
#[message(name = "make", prost)]
struct Make {
    #[prost(fixed64, tag = "1")]
    key: u64,
}

#[derive(Clone, PartialEq, prost::Message, Message)]
#[message(name = "set", prost)]
struct Set {
    #[prost(fixed64, tag = "1")]
    key: u64,
    #[prost(fixed64, tag = "2")]
    due_ms: u64,
}

#[derive(Clone, PartialEq, prost::Message, Message)]
#[message(name = "tick", prost)]
struct Tick {
    #[prost(fixed64, tag = "1")]
    at_ms: u64,
}

#[derive(Clone, PartialEq, prost::Message, Message)]
#[message(name = "ring", prost)]
struct Ring {}

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Alarm {
    rings: u64,
}

/// The span, for handlers.
struct Span(Duration);

#[function(name = "bench/alarm", key = u64)]
impl Alarm {
    #[on]
    fn make(&mut self, _: &Make) {
        self.rings = 0;
    }

    #[on]
    fn set(&mut self, msg: &Set, ctx: &mut Context<Self>) {
        ctx.set_timer(EventTime(msg.due_ms as i64), Ring {});
    }

    #[on_timer]
    fn ring(&mut self, _: &Ring, ctx: &mut Context<Self>) {
        self.rings += 1;
        audit::note(*ctx.key(), ctx.event_time().0 as u64);
        let due = ctx.event_time() + ctx.resource::<Span>().0;
        ctx.set_timer(due, Ring {});
    }
}

impl Row for Options {
    const NAME: &'static str = "timers";
    const MERIT: &'static str = "fires/CPU-second";

    fn measuring(&self) -> &Measuring {
        &self.measuring
    }

    fn points(&self) -> Vec<(String, Self)> {
        vec![(format!("{} pending", self.timers), self.clone())]
    }

    fn times(&self, factor: u64) -> Self {
        Self { timers: self.timers * factor, ..self.clone() }
    }

    fn events(&self) -> u64 {
        self.timers
    }

    fn run(&self, side: Side, data: &Path) -> Result<Figures, Failure> {
        match side {
            Side::App => self.run_app(data),
            Side::ByHand => self.run_by_hand(data),
        }
    }
}

impl Options {
    fn span_ms(&self) -> u64 {
        self.span.as_millis() as u64
    }

    /// When the first timer of a key is due: within a span whose end is the last event, and behind
    /// which all timers are due that are set again.
    fn due_ms(&self, key: u64) -> u64 {
        DUE_MS_MIN + mixed(key) % self.span_ms()
    }

    fn app(&self, data: &Path, may_set: Gate, may_tick: Gate) -> App {
        let options = self.clone();
        let timers = self.timers;
        let makes = Ingress::<Make>::new("makes").generate(move |key| (key < timers).then_some(Make { key }));
        let sets = Ingress::<Set>::new("sets").generate(move |key| {
            may_set.pass();
            (key < options.timers).then(|| Set { key, due_ms: options.due_ms(key) })
        });
        let span_ms = self.span_ms();
        let ticks = Ingress::<Tick>::new("ticks").event_time(|tick| EventTime(tick.at_ms as i64));
        let ticks = ticks.generate(move |number| {
            may_tick.pass();
            (number < TICKS).then(|| Tick { at_ms: 1 + span_ms * (number + 1) / TICKS })
        });
        let settings = Settings {
            shards: Some(self.shards),
            threads: Some(self.threads),
            commit_interval: Some(self.commit_interval),
            ..Settings::new().data(data)
        };
        App::new("bench-timers")
            .function::<Alarm>()
            .resource(Span(self.span))
            .ingress(makes.to::<Alarm>(), |make, out| out.send(Alarm::at(make.key), make))
            .ingress(sets.to::<Alarm>(), |set, out| out.send(Alarm::at(set.key), set))
            .ingress(ticks.to::<Alarm>(), |_, _| {})
            .settings(settings)
    }

    fn run_app(&self, data: &Path) -> Result<Figures, Failure> {
        let (may_set, may_tick) = (Gate::default(), Gate::default());
        let running = self.app(data, may_set.clone(), may_tick.clone()).start()?;
        pin::threads_of_app(self.threads);
        until_called(&running, self.timers)?;
        let without_timers = memory("VmRSS")?;
        may_set.open();
        until_called(&running, 2 * self.timers)?;
        let grown = memory("VmRSS")?.saturating_sub(without_timers);
        let at_start = running.status().totals();
        let meter = Meter::start()?;
        may_tick.open();
        let Run { totals, .. } = run_of_app::ended(running)?;
        if totals.shards.timers != self.timers {
            return Err(format!("{} timers were to fire: {totals:?}", self.timers).into());
        }
        let log_bytes = totals.shards.bytes - at_start.shards.bytes;
        let figures = self.figures(meter, log_bytes, at_start.pending_bytes)?;
        Ok(figures.with("bytes by which the process grew for a timer", grown as f64 / self.timers as f64))
    }

    fn figures(&self, meter: Meter, log_bytes: u64, memory_bytes: u64) -> Result<Figures, Failure> {
        let of_each = |bytes: u64| bytes as f64 / self.timers as f64;
        let figures = meter.stop(Audit::taken(), self.timers, "fire")?;
        let figures = figures.with("log bytes/fire", of_each(log_bytes));
        let beside_key = memory_bytes.saturating_sub(self.timers * KEY_BYTES);
        Ok(figures.with("bytes of timer beside key", of_each(beside_key)))
    }

    fn run_by_hand(&self, data: &Path) -> Result<Figures, Failure> {
        pin::this_thread();
        let empty = memory("VmRSS")?;
        let span_ms = self.span_ms();
        let mut wheel: Vec<Vec<u64>> = vec![Vec::new(); span_ms as usize];
        let mut rings = vec![0_u64; self.timers as usize];
        (0..self.timers).for_each(|key| wheel[(self.due_ms(key) - DUE_MS_MIN) as usize].push(key));
        let (mut disk, mut journal) = (Disk::create(data, None)?, Vec::new());
        let pending = memory("VmRSS")?;
        let meter = Meter::start()?;
        let (mut committed_at, mut latencies) = (Instant::now(), Vec::new());
        for (due_ms, bucket) in (DUE_MS_MIN..).zip(&wheel) {
            // Each goes back into its bucket: the wheel turns once in a span.
            for key in bucket {
                rings[*key as usize] += 1;
                audit::note(*key, due_ms);
                for number in [due_ms, due_ms + span_ms, *key, rings[*key as usize]] {
                    journal.extend_from_slice(&number.to_le_bytes());
                }
            }
            let is_last = due_ms + 1 == DUE_MS_MIN + span_ms;
            if committed_at.elapsed() >= self.commit_interval || is_last {
                disk.commit(&journal, &[], due_ms)?;
                journal.clear();
                latencies.push(committed_at.elapsed());
                committed_at = Instant::now();
            }
        }
        let figures = self.figures(meter, disk.bytes.0, pending.saturating_sub(empty))?;
        Ok(figures.with("commit p50 ms", quantile_ms(&latencies, 50)))
    }
}
