//! Looking into the data of an app that is not running.
//!
//! Invariant: nothing is changed but a torn tail of the log, which opening it cuts.
//!
//! Deliberately absent: looking into an app that runs; it holds the lock of its data.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use statefn_core::{
    dead_letter::printable_key,
    ports::{log::Log, snapshots::Snapshots},
    program::Program,
    shard::{
        Options, Replica, TakeOver,
        frame::Position,
        image::{Image, Parked},
    },
    state::to_value,
};
use statefn_runtime::{
    embedded::{EmbeddedLog, FileSnapshots, Options as LogOptions},
    engine::fleet::Backend,
};

use crate::{App, Error, app::Parts, fleet, run::PARTITIONS_MAX};

/// The opened data of an app that is not running.
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # use statefn::prelude::*;
/// # #[derive(Default, Clone, Serialize, Deserialize, State)] struct Counter { count: u64 }
/// # #[derive(Serialize, Deserialize, Message)] #[message(name = "word")] struct Word { text: String }
/// # #[function(name = "words/counter")] impl Counter { #[on] fn word(&mut self, _: &Word) { self.count += 1; } }
/// use statefn::inspect::Inspection;
/// # let directory = tempfile::tempdir()?;
/// # let data = directory.path();
/// let app = || {
///     App::new("words")
///         .function::<Counter>()
///         .ingress(
///             Ingress::<Word>::new("words").generate(|n| (n < 3).then(|| Word { text: "a".into() })).to::<Counter>(),
///             |word, out| out.send(Counter::at(&word.text), word),
///         )
///         .settings(Settings::new().data(data))
/// };
/// app().run()?;
/// let mut inspection = Inspection::open(app())?;
/// assert_eq!(inspection.states(None)?, [r#"{"function":"words/counter","key":"a","state":{"count":3}}"#]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Inspection {
    program: Arc<Program>,
    log: Box<dyn Log>,
    snapshots: Box<dyn Snapshots>,
    options: Arc<Options>,
    /// None in a fleet.
    data: Option<PathBuf>,
}

impl Inspection {
    /// Opens the data that the app's settings name. Those of a fleet are looked at as they are at that
    /// moment; while workers go on, what one shard has may be newer than what another has.
    ///
    /// # Errors
    /// [`Error::Settings`] if they name none, or a fleet cannot be reached; [`Error::Open`] if a process
    /// uses them or they are damaged.
    pub fn open(app: App) -> Result<Self, Error> {
        let Parts { linked, names, settings, origins, .. } = app.take_parts();
        let program = linked?.program;
        if let Some(log) = &settings.log {
            let fleet = fleet::open(&program, &settings.filled(&names), &origins, log)?;
            return Self::of_fleet(program, settings.shards(), &*fleet.backend);
        }
        let Some(data) = &settings.data else {
            return Err(Error::Settings(
                "`data` is not set: say which data directory to look into, such as by `--data data/bank`".into(),
            ));
        };
        if !data.join("log").exists() {
            return Err(Error::Settings(format!("the data directory `{}` holds no data of an app", data.display())));
        }
        let (log, _) = EmbeddedLog::open(data.join("log"), &LogOptions::new(&program.app, settings.shards()))
            .map_err(Error::Open)?;
        let snapshots = FileSnapshots::open(data.join("snapshots")).map_err(Error::Open)?;
        let options = options(&program, settings.shards());
        let (log, snapshots) = (Box::new(log), Box::new(snapshots));
        Ok(Self { options, program, log, snapshots, data: Some(data.clone()) })
    }

    fn of_fleet(program: Arc<Program>, shards: u32, backend: &dyn Backend) -> Result<Self, Error> {
        let mut log = backend.log().map_err(Error::Broken)?;
        let snapshots = backend.snapshots().map_err(Error::Broken)?;
        log.refresh(&(0..shards).collect::<Vec<_>>()).map_err(Error::Broken)?;
        let options = Options { is_log_shared: true, ..Options::clone(&options(&program, shards)) };
        Ok(Self { options: Arc::new(options), program, log, snapshots, data: None })
    }

    fn image(&mut self, shard: u32) -> Result<Image, Error> {
        let replica = Replica::recover(shard, &mut *self.log, &mut *self.snapshots, u64::MAX, &mut |_, _| {});
        Ok(replica.map_err(|error| Error::Stored(error.into()))?.image)
    }

    /// Returns a line of JSON for each key that has a state, in the order of shards, functions and
    /// keys; of one function only, if `wanted` names it.
    ///
    /// # Errors
    /// [`Error::Stored`] if what is stored is damaged.
    pub fn states(&mut self, wanted: Option<&str>) -> Result<Vec<String>, Error> {
        let mut lines = Vec::new();
        for shard in 0..self.options.shards {
            let image = self.image(shard)?;
            for (function, key, state) in
                image.states().filter(|(name, ..)| wanted.is_none_or(|wanted| wanted == *name))
            {
                let state = to_value(state).unwrap_or_else(|error| Value::String(error.to_string()));
                lines.push(json!({"function": function, "key": printable_key(key), "state": state}).to_string());
            }
        }
        Ok(lines)
    }

    /// Returns a line of JSON for each parked key, with the reason, how many calls wait, and the first of them.
    ///
    /// # Errors
    /// [`Error::Stored`] if what is stored is damaged.
    pub fn parked(&mut self) -> Result<Vec<String>, Error> {
        let mut lines = Vec::new();
        for shard in 0..self.options.shards {
            let image = self.image(shard)?;
            for (function, key, parked) in image.parked() {
                let (key, waiting) = (printable_key(key), parked.queue.len());
                let line = json!({"function": function, "key": key, "reason": parked.reason, "waiting": waiting});
                lines.push(with_first_call(line, &image, parked).to_string());
            }
        }
        Ok(lines)
    }

    /// Returns a line of JSON for each partition of an ingress: how many of its records every shard that
    /// takes it in has committed, how many the furthest one has, and whether all have committed its end.
    /// In a fleet one shard takes a partition in, else all do.
    ///
    /// # Errors
    /// [`Error::Stored`] if what is stored is damaged.
    pub fn positions(&mut self) -> Result<Vec<String>, Error> {
        let mut positions: BTreeMap<(String, u32), Vec<Position>> = BTreeMap::new();
        for shard in 0..self.options.shards {
            for (ingress, partition, position) in self.image(shard)?.positions() {
                positions.entry((ingress.to_owned(), partition)).or_default().push(position);
            }
        }
        let readers = if self.options.is_log_shared { 1 } else { self.options.shards as usize };
        let line = |((ingress, partition), of_shards): ((String, u32), Vec<Position>)| {
            let is_everywhere = of_shards.len() == readers;
            let records = || of_shards.iter().map(|position| position.records);
            let records_min = if is_everywhere { records().min().unwrap_or_default() } else { 0 };
            let records_max = records().max().unwrap_or_default();
            let is_ended = is_everywhere && of_shards.iter().all(|position| position.is_ended);
            json!({
                "ingress": ingress,
                "partition": partition,
                "records_min": records_min,
                "records_max": records_max,
                "is_ended": is_ended,
            })
            .to_string()
        };
        Ok(positions.into_iter().map(line).collect())
    }

    /// Verifies every shard: that snapshot and journal fold, and that the program can read every
    /// state, message and timer; returns a line for each shard and one at the end.
    ///
    /// # Errors
    /// [`Error::Stored`] for the first shard that is not whole.
    pub fn check(&mut self) -> Result<Vec<String>, Error> {
        let mut lines = Vec::new();
        for shard in 0..self.options.shards {
            let ports: (&mut dyn Log, &mut dyn Snapshots) = (&mut *self.log, &mut *self.snapshots);
            let checked = TakeOver::check(&self.program, &self.options, shard, ports);
            let checked = checked.map_err(Error::Stored)?;
            lines.push(format!(
                "shard {shard}: epoch {}, {} keys, {} pending, {} parked, {} unacknowledged, journal {}..{}",
                checked.epoch,
                checked.keys,
                checked.pending,
                checked.parked,
                checked.unacknowledged,
                self.log.start(shard),
                self.log.end(shard)
            ));
        }
        statefn_cli::check(self.data.as_deref(), self.options.shards, &mut *self.log, &mut *self.snapshots)?;
        lines.push(format!("{} shards are whole", self.options.shards));
        Ok(lines)
    }
}

fn options(program: &Program, shards: u32) -> Arc<Options> {
    let mut options = Options::new(shards, program);
    options.partitions = vec![PARTITIONS_MAX as u32; program.ingresses.len()];
    Arc::new(options)
}

impl std::fmt::Debug for Inspection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Inspection({})", self.program.app)
    }
}

/// Adds the call that a key was parked with.
fn with_first_call(mut line: Value, image: &Image, parked: &Parked) -> Value {
    let Some((is_timer, first)) = parked.calls().next() else { return line };
    line[if is_timer { "timer" } else { "message" }] = image.name(first.message).into();
    match std::str::from_utf8(first.payload) {
        Ok(text) => line["text"] = text.into(),
        Err(_) => line["base64"] = STANDARD.encode(first.payload).into(),
    }
    line
}

/// The functions of an app and what they have to do with each other.
pub(crate) fn functions(app: App) -> Result<Vec<String>, Error> {
    let program = app.take_parts().linked?.program;
    let mut lines = Vec::new();
    for ingress in &program.ingresses {
        let targets: Vec<&str> = ingress.targets.iter().map(|target| target.name).collect();
        lines.push(format!("ingress {} -> {}", ingress.name, targets.join(", ")));
    }
    for function in &program.functions {
        let spec = &function.spec;
        lines.push(format!("function {} (stage {})", spec.name, function.stage));
        for handler in &spec.messages {
            let order = if handler.in_event_time_order { ", in event-time order" } else { "" };
            lines.push(format!("  on {}{order}", handler.message));
        }
        lines.extend(spec.timers.iter().map(|timer| format!("  on timer {timer}")));
        lines.extend(spec.sends.iter().map(|target| format!("  sends to {}", target.name)));
        lines.extend(spec.emits.iter().map(|egress| format!("  emits to {}", egress.name)));
    }
    Ok(lines)
}
