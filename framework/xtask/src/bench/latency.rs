//! From read to committed output, at a steady rate.
//!
//! Record n is meant to be read at a time that depends on n alone, and its latency counts from
//! there: a run that falls behind does not hide it. The schedule is the earliest by which no record
//! was read before its time. A line counts as committed once the file is synced that it stands in,
//! which a thread beside the app sees by the mark that is written behind that sync; how long the
//! file was it has read before, so no line counts too soon.
//!
//! The loop by hand takes what is due, commits it with the same three syncs, and waits out the rest
//! of its commit interval. Both are shown beside the time of a sync alone, measured before each run.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use hashbrown::HashMap;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use statefn::{__private::Wire, prelude::*, run::Running};

use super::{
    Failure,
    audit::{self, Audit},
    disk::{Disk, quantile_ms},
    figures::Figures,
    files::Records,
    meter::Meter,
    numbers::mixed,
    pin,
    row::{Measuring, Row, Side},
    run_of_app::{self, Run},
};

/// How often the output and its marks are looked at.
const LOOK_INTERVAL: Duration = Duration::from_micros(200);
/// How often the loop by hand looks for records that are due, if it commits without an interval.
const DUE_INTERVAL: Duration = Duration::from_micros(100);
/// The files that marks are written to in turn; a checksum stands in their first bytes.
const MARKS: [&str; 2] = ["egress/egress.mark.0", "egress/egress.mark.1"];
const MARK_BYTES: usize = 12;
/// Syncs that are measured before a run, and how much each writes.
const SYNCS: usize = 50;
const SYNC_BYTES: usize = 4096;

/// What to run.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub(crate) struct Options {
    /// How many records a second are read.
    #[arg(long, default_value_t = 200_000)]
    rate: u64,
    /// How many records are read: ten seconds of them, if not given.
    #[arg(long)]
    events: Option<u64>,
    /// How many keys there are.
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// The shortest time between two commits; each in turn.
    #[arg(long, value_delimiter = ',', default_values = ["10ms", "0s"], value_parser = humantime::parse_duration)]
    commit_interval: Vec<Duration>,
    /// How many threads run shards.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// How many shards there are.
    #[arg(long, default_value_t = 64)]
    shards: u32,
    #[command(flatten)]
    #[serde(skip)]
    measuring: Measuring,
}

#[derive(Clone, PartialEq, prost::Message, Message)]
#[message(name = "look", prost)]
struct Look {
    #[prost(fixed64, tag = "1")]
    key: u64,
    #[prost(fixed64, tag = "2")]
    number: u64,
}

#[derive(Clone, PartialEq, prost::Message, Message)]
#[message(name = "seen", prost)]
struct Seen {
    #[prost(fixed64, tag = "1")]
    number: u64,
}

static SEEN: Egress<Seen> = Egress::new("seen");

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Viewer {
    count: u64,
}

#[function(name = "bench/viewer", key = u64, emits(SEEN))]
impl Viewer {
    #[on]
    fn look(&mut self, msg: &Look, ctx: &mut Context<Self>) {
        self.count += 1;
        audit::note(*ctx.key(), self.count);
        ctx.emit(&SEEN, &Seen { number: msg.number });
    }
}

impl Row for Options {
    const NAME: &'static str = "latency";
    const MERIT: &'static str = "p99 ms";

    fn measuring(&self) -> &Measuring {
        &self.measuring
    }

    fn points(&self) -> Vec<(String, Self)> {
        let point = |interval: &Duration| {
            let name = format!("at {}/s, commits {}", self.rate, humantime::format_duration(*interval));
            (name, Self { commit_interval: vec![*interval], ..self.clone() })
        };
        self.commit_interval.iter().map(point).collect()
    }

    fn times(&self, factor: u64) -> Self {
        Self { events: Some(self.events() * factor), ..self.clone() }
    }

    fn events(&self) -> u64 {
        self.events.unwrap_or(10 * self.rate)
    }

    fn run(&self, side: Side, data: &Path) -> Result<Figures, Failure> {
        let syncs = measure_syncs(data)?;
        let figures = match side {
            Side::App => self.run_app(data),
            Side::ByHand => self.run_by_hand(data),
        }?;
        let of_4k = figures.with("fdatasync of 4 KiB p50 ms", quantile_ms(&syncs, 50));
        Ok(of_4k.with("fdatasync of 4 KiB p99 ms", quantile_ms(&syncs, 99)))
    }
}

impl Options {
    fn commit_interval(&self) -> Result<Duration, Failure> {
        self.commit_interval.first().copied().ok_or_else(|| "`--commit-interval` names no time".into())
    }

    fn look(&self, number: u64) -> Look {
        Look { key: mixed(number) % self.keys, number }
    }

    fn app(&self, data: &Path, schedule: &Arc<Schedule>) -> Result<App, Failure> {
        let (schedule, events, options) = (Arc::clone(schedule), self.events(), self.clone());
        let looks = Ingress::<Look>::new("looks").generate(move |number| {
            (number < events).then(|| {
                schedule.reads(number);
                options.look(number)
            })
        });
        let settings = Settings::new().data(data).output("seen", data.join("seen"));
        let mut settings = settings.with(&format!("ingress.looks.records_per_second={}.0", self.rate))?;
        settings.shards = Some(self.shards);
        settings.threads = Some(self.threads);
        settings.commit_interval = Some(self.commit_interval()?);
        let app = App::new("bench-latency").function::<Viewer>().egress(&SEEN).settings(settings);
        Ok(app.ingress(looks.to::<Viewer>(), |look, out| out.send(Viewer::at(look.key), look)))
    }

    fn run_app(&self, data: &Path) -> Result<Figures, Failure> {
        let schedule = Arc::new(Schedule::new(self.rate));
        let app = self.app(data, &schedule)?;
        let meter = Meter::start()?;
        let running = app.start()?;
        pin::threads_of_app(self.threads);
        let durable = watch(&running, data)?;
        let Run { totals, .. } = run_of_app::ended(running)?;
        let ended_at = Instant::now();
        let audit = Audit { emitted: totals.shards.emitted, ..Audit::taken() };
        let figures = meter.stop(audit, self.events(), "event")?;
        let output = fs::read(data.join("seen"))?;
        let mut latencies = Latencies::new()?;
        let (mut durable, mut end) = (durable.into_iter().peekable(), 0);
        for record in Records::of(&output) {
            end += 1 + record.len() as u64;
            while durable.next_if(|durable| durable.bytes < end).is_some() {}
            let durable_at = durable.peek().map_or(ended_at, |durable| durable.at);
            latencies.add(durable_at.saturating_duration_since(schedule.time_of(Seen::decode(record)?.number)));
        }
        latencies.tell(figures).with_output(true, Records::of(&output))
    }

    fn run_by_hand(&self, data: &Path) -> Result<Figures, Failure> {
        pin::this_thread();
        let (events, interval) = (self.events(), self.commit_interval()?);
        let mut latencies = Latencies::new()?;
        let mut work = ByHand::new(data)?;
        let meter = Meter::start()?;
        let started_at = Instant::now();
        let time_of = |number: u64| started_at + Duration::from_secs_f64(number as f64 / self.rate as f64);
        let mut number = 0;
        while number < events {
            let (first, turn_at) = (number, Instant::now());
            while number < events && time_of(number) <= turn_at {
                work.take(&self.look(number));
                number += 1;
            }
            if number > first {
                work.commit()?;
                let committed_at = work.disk.output_at;
                (first..number)
                    .for_each(|number| latencies.add(committed_at.saturating_duration_since(time_of(number))));
            }
            thread::sleep(interval.max(DUE_INTERVAL).saturating_sub(turn_at.elapsed()));
        }
        let figures = meter.stop(Audit { emitted: events, ..Audit::taken() }, events, "event")?;
        let figures = latencies.tell(figures);
        let figures = figures.with("fdatasync p50 ms", quantile_ms(&work.disk.syncs, 50));
        let figures = figures.with("fdatasync p99 ms", quantile_ms(&work.disk.syncs, 99));
        figures.with_output(true, Records::of(&fs::read(data.join("seen"))?))
    }
}

/// When each record was meant to be read.
struct Schedule {
    ns_per_record: f64,
    origin: OnceLock<Instant>,
    /// From the origin to the time of record 0, in nanoseconds; it only goes back.
    start_ns: AtomicI64,
}

impl Schedule {
    fn new(rate: u64) -> Self {
        Self { ns_per_record: 1e9 / rate as f64, origin: OnceLock::new(), start_ns: AtomicI64::new(i64::MAX) }
    }

    /// A record is being read: its time is not later than now.
    fn reads(&self, number: u64) {
        let origin = *self.origin.get_or_init(Instant::now);
        let since_ns = origin.elapsed().as_nanos() as i64 - (number as f64 * self.ns_per_record) as i64;
        self.start_ns.fetch_min(since_ns, Ordering::Relaxed);
    }

    fn time_of(&self, number: u64) -> Instant {
        let origin = *self.origin.get_or_init(Instant::now);
        let since_ns = self.start_ns.load(Ordering::Relaxed) + (number as f64 * self.ns_per_record) as i64;
        let distance = Duration::from_nanos(since_ns.unsigned_abs());
        if since_ns < 0 { origin.checked_sub(distance).unwrap_or(origin) } else { origin + distance }
    }
}

/// That so many bytes of the output were durable at a time.
struct Durable {
    at: Instant,
    bytes: u64,
}

/// Watches the output of an app until it ends.
fn watch(running: &Running, data: &Path) -> Result<Vec<Durable>, Failure> {
    let mut durable = Vec::new();
    let (mut marks, mut written) = ([[0; MARK_BYTES]; 2], 0);
    let mut files = [None, None];
    while !running.is_finished() {
        let mut is_marked = false;
        for ((file, name), known) in files.iter_mut().zip(MARKS).zip(&mut marks) {
            if file.is_none() {
                *file = File::open(data.join(name)).ok();
            }
            let mut mark = [0; MARK_BYTES];
            let is_read = file.as_ref().is_some_and(|file: &File| file.read_exact_at(&mut mark, 0).is_ok());
            is_marked |= is_read && mark != *known;
            *known = mark;
        }
        if is_marked {
            // What was written when the output was looked at last, before this mark.
            durable.push(Durable { at: Instant::now(), bytes: written });
        }
        written = fs::metadata(data.join("seen")).map_or(0, |file| file.len());
        thread::sleep(LOOK_INTERVAL);
    }
    Ok(durable)
}

/// Times from meant to be read to committed.
struct Latencies(Histogram<u64>);

impl Latencies {
    fn new() -> Result<Self, Failure> {
        Ok(Self(Histogram::new_with_bounds(1, 3_600_000_000, 3)?))
    }

    fn add(&mut self, latency: Duration) {
        self.0.saturating_record((latency.as_micros() as u64).max(1));
    }

    fn tell(&self, figures: Figures) -> Figures {
        let quantiles = [("p50 ms", 0.5), ("p99 ms", 0.99), ("p99.9 ms", 0.999), ("longest ms", 1.0)];
        quantiles.iter().fold(figures, |figures, (name, quantile)| {
            figures.with(*name, self.0.value_at_quantile(*quantile) as f64 / 1e3)
        })
    }
}

struct ByHand {
    counts: HashMap<u64, u64>,
    journal: Vec<u8>,
    output: Vec<u8>,
    disk: Disk,
    taken: u64,
}

impl ByHand {
    fn new(data: &Path) -> Result<Self, Failure> {
        let disk = Disk::create(data, Some("seen"))?;
        Ok(Self { counts: HashMap::new(), journal: Vec::new(), output: Vec::new(), disk, taken: 0 })
    }

    fn take(&mut self, look: &Look) {
        let count = self.counts.entry(look.key).or_default();
        *count += 1;
        audit::note(look.key, *count);
        self.journal.extend_from_slice(&look.key.to_le_bytes());
        self.journal.extend_from_slice(&count.to_le_bytes());
        let start = self.output.len();
        self.output.push(0);
        Seen { number: look.number }.encode(&mut self.output);
        self.output[start] = (self.output.len() - start - 1) as u8;
        self.taken += 1;
    }

    fn commit(&mut self) -> Result<(), Failure> {
        self.journal.extend_from_slice(&self.output);
        self.disk.commit(&self.journal, &self.output, self.taken)?;
        self.journal.clear();
        self.output.clear();
        Ok(())
    }
}

/// How long syncs of a file take that do nothing else.
fn measure_syncs(data: &Path) -> Result<Vec<Duration>, Failure> {
    let path = data.join("syncs");
    let mut file = File::create(&path)?;
    let mut syncs = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        file.write_all(&[0x55; SYNC_BYTES])?;
        let started_at = Instant::now();
        file.sync_data()?;
        syncs.push(started_at.elapsed());
    }
    fs::remove_file(path)?;
    Ok(syncs)
}
