//! The start of an app, and the memory it takes: before anything comes, and for keys.
//!
//! An app of this very program makes one record durable as soon as it can; the time counts from
//! before its process was made until the line stands in its output file. Then it waits, which is
//! its idle memory, and then takes keys in two stretches, whose difference is what keys take.
//!
//! The limit is a process that does the same by hand: one map, one line, three syncs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use clap::Args;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use statefn::prelude::*;

use super::{
    Failure,
    audit::{self, Audit},
    disk::Disk,
    figures::{Figures, Report},
    gate::{Gate, until_called},
    meter::{mebibytes, memory},
    row::{Measuring, Row, Side},
    run_of_app,
};
use crate::flights::workspace;

/// How often the output is looked at.
const LOOK_INTERVAL: Duration = Duration::from_micros(200);
/// How long a first line may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to run.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub(crate) struct Options {
    /// How many keys there are in the first stretch; the second has as many more.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// How many threads run shards.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// How many shards there are.
    #[arg(long, default_value_t = 64)]
    shards: u32,
    /// Also builds the hello example from nothing, which takes minutes, and tells how large it is.
    #[arg(long)]
    build: bool,
    #[command(flatten)]
    #[serde(skip)]
    measuring: Measuring,
}

#[derive(Clone, PartialEq, prost::Message, Message)]
#[message(name = "visit", prost)]
struct Visit {
    #[prost(fixed64, tag = "1")]
    key: u64,
}

static FIRST: Egress<Visit> = Egress::new("first");

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Visitor {
    count: u64,
    sum: u64,
}

#[function(name = "bench/visitor", key = u64, emits(FIRST))]
impl Visitor {
    #[on]
    fn visit(&mut self, msg: &Visit, ctx: &mut Context<Self>) {
        self.count += 1;
        self.sum += msg.key;
        audit::note(msg.key, self.count);
        if msg.key == 0 {
            ctx.emit(&FIRST, msg);
        }
    }
}

impl Row for Options {
    const NAME: &'static str = "start";
    const MERIT: &'static str = "start to first event ms";

    fn measuring(&self) -> &Measuring {
        &self.measuring
    }

    fn points(&self) -> Vec<(String, Self)> {
        vec![(format!("{} keys", self.keys), self.clone())]
    }

    fn times(&self, factor: u64) -> Self {
        Self { keys: self.keys * factor, ..self.clone() }
    }

    fn events(&self) -> u64 {
        self.keys
    }

    fn run(&self, side: Side, data: &Path) -> Result<Figures, Failure> {
        match side {
            Side::App => self.run_app(data),
            Side::ByHand => self.run_by_hand(data),
        }
    }

    fn conclusions(&self, _: &[Report]) -> Result<Vec<(String, f64)>, Failure> {
        if self.build { build() } else { Ok(Vec::new()) }
    }
}

impl Options {
    /// The first record, and two stretches of keys behind gates; it ends behind a third.
    fn app(&self, data: &Path, gates: &[Gate; 2], end: Gate) -> App {
        let settings = Settings::new().data(data).output("first", data.join("first"));
        let settings = Settings { shards: Some(self.shards), threads: Some(self.threads), ..settings };
        let app = App::new("bench-start").function::<Visitor>().egress(&FIRST).settings(settings);
        let first = Ingress::<Visit>::new("one").generate(|number| (number == 0).then_some(Visit { key: 0 }));
        let mut app = app.ingress(first.to::<Visitor>(), |visit, out| out.send(Visitor::at(visit.key), visit));
        let ends = Ingress::<Visit>::new("end").generate(move |_| {
            end.pass();
            None
        });
        app = app.ingress(ends.to::<Visitor>(), |_, _| {});
        let keys = self.keys;
        for ((name, gate), stretch) in ["keys", "more-keys"].into_iter().zip(gates.clone()).zip(0..) {
            let visits = Ingress::<Visit>::new(name).generate(move |number| {
                gate.pass();
                (number < keys).then_some(Visit { key: 1 + stretch * keys + number })
            });
            app = app.ingress(visits.to::<Visitor>(), |visit, out| out.send(Visitor::at(visit.key), visit));
        }
        app
    }

    fn run_app(&self, data: &Path) -> Result<Figures, Failure> {
        let (gates, end) = ([Gate::default(), Gate::default()], Gate::default());
        let running = self.app(data, &gates, end.clone()).start()?;
        let start_ms = wait_for_line(&data.join("first"))?;
        until_called(&running, 1)?;
        let mut sizes = vec![memory("VmRSS")?];
        for (gate, calls) in gates.iter().zip([1 + self.keys, 1 + 2 * self.keys]) {
            gate.open();
            until_called(&running, calls)?;
            sizes.push(memory("VmRSS")?);
        }
        end.open();
        let totals = run_of_app::ended(running)?.totals;
        self.figures(start_ms, &sizes, totals.shards.emitted)
    }

    fn figures(&self, start_ms: f64, sizes: &[u64], emitted: u64) -> Result<Figures, Failure> {
        let [idle, once, twice] = *sizes else { return Err("memory is measured three times".into()) };
        let of_keys = mebibytes(twice.saturating_sub(once)) * 1e6 / self.keys as f64;
        Ok(Figures::new(Audit { emitted, ..Audit::taken() })
            .with(Self::MERIT, start_ms)
            .with("RSS idle MiB", mebibytes(idle))
            .with("RSS per million keys MiB", of_keys))
    }

    fn run_by_hand(&self, data: &Path) -> Result<Figures, Failure> {
        let mut disk = Disk::create(data, Some("first"))?;
        let mut states: HashMap<u64, Visitor> = HashMap::new();
        let mut visit = |key: u64| {
            let visitor = states.entry(key).or_default();
            visitor.count += 1;
            visitor.sum += key;
            audit::note(key, visitor.count);
        };
        visit(0);
        disk.commit(&[0; 24], &[0; 10], 1)?;
        let start_ms = wait_for_line(&data.join("first"))?;
        let mut sizes = vec![memory("VmRSS")?];
        for stretch in 0..2 {
            (0..self.keys).for_each(|number| visit(1 + stretch * self.keys + number));
            sizes.push(memory("VmRSS")?);
        }
        self.figures(start_ms, &sizes, 1)
    }
}

/// Waits until a file has something in it; returns the time since before this process was made.
fn wait_for_line(file: &Path) -> Result<f64, Failure> {
    let started_at = Instant::now();
    while !fs::metadata(file).is_ok_and(|file| file.len() > 0) {
        if started_at.elapsed() > PATIENCE {
            return Err(format!("nothing stands in `{}` after {PATIENCE:?}", file.display()).into());
        }
        thread::sleep(LOOK_INTERVAL);
    }
    let now_us = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros() as f64;
    let begun_us: f64 = std::env::var(super::row::BEGUN_US)?.parse()?;
    Ok((now_us - begun_us) / 1e3)
}

/// Builds the hello example in an empty directory.
fn build() -> Result<Vec<(String, f64)>, Failure> {
    let target = tempfile::tempdir_in(super::files::directory()?)?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--release", "--package", "hello", "--target-dir"]).arg(target.path());
    let started_at = Instant::now();
    if !cargo.current_dir(workspace()).status()?.success() {
        return Err("the hello example cannot be built".into());
    }
    let seconds = started_at.elapsed().as_secs_f64();
    let program: PathBuf = target.path().join("release/hello");
    let size = mebibytes(fs::metadata(program)?.len());
    Ok(vec![("clean build of hello s".into(), seconds), ("program of hello MiB".into(), size)])
}
