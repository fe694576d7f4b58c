//! Looking into the data of an app that is not running.

use std::sync::Arc;

use serde_json::{Value, json};
use statefn_core::{
    dead_letter::printable_key,
    ports::log::Log,
    program::Program,
    shard::{Options, Replica, TakeOver, image::Image},
    state::to_value,
};
use statefn_runtime::embedded::{EmbeddedLog, FileSnapshots, Options as LogOptions};

use crate::{App, Error};

/// The opened data of an app.
pub(crate) struct Inspection {
    program: Arc<Program>,
    log: EmbeddedLog,
    snapshots: FileSnapshots,
    options: Arc<Options>,
}

impl Inspection {
    pub(crate) fn open(app: App) -> Result<Self, Error> {
        let (linked, settings, _) = app.take_parts();
        let program = linked?.program;
        let Some(data) = &settings.data else {
            return Err(Error::Settings("`data` is not set: say which data directory to look into".into()));
        };
        if !data.join("log").exists() {
            return Err(Error::Settings(format!("the data directory `{}` holds no data of an app", data.display())));
        }
        let (log, _) = EmbeddedLog::open(data.join("log"), &LogOptions::new(&program.app, settings.shards()))
            .map_err(Error::Open)?;
        let snapshots = FileSnapshots::open(data.join("snapshots")).map_err(Error::Open)?;
        let mut options = Options::new(settings.shards(), &program);
        options.partitions = vec![1024; program.ingresses.len()];
        Ok(Self { options: Arc::new(options), program, log, snapshots })
    }

    fn image(&mut self, shard: u32) -> Result<Image, Error> {
        let replica = Replica::recover(shard, &mut self.log, &mut self.snapshots, u64::MAX, &mut |_, _| {});
        Ok(replica.map_err(|error| Error::Stored(error.into()))?.image)
    }

    /// A line of JSON for each key, in the order of shards, functions and keys.
    pub(crate) fn states(&mut self, wanted: Option<&str>) -> Result<Vec<String>, Error> {
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

    /// A line of JSON for each parked key.
    pub(crate) fn parked(&mut self) -> Result<Vec<String>, Error> {
        let mut lines = Vec::new();
        for shard in 0..self.options.shards {
            for (function, key, parked) in self.image(shard)?.parked() {
                let (key, waiting) = (printable_key(key), parked.queue.len());
                lines.push(
                    json!({"function": function, "key": key, "reason": parked.reason, "waiting": waiting}).to_string(),
                );
            }
        }
        Ok(lines)
    }

    /// A line for each shard that is whole.
    pub(crate) fn check(&mut self) -> Result<Vec<String>, Error> {
        let mut lines = Vec::new();
        for shard in 0..self.options.shards {
            let checked = TakeOver::check(&self.program, &self.options, shard, (&mut self.log, &mut self.snapshots));
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
        lines.push(format!("{} shards are whole", self.options.shards));
        Ok(lines)
    }
}

/// The functions of an app and what they have to do with each other.
pub(crate) fn functions(app: App) -> Result<Vec<String>, Error> {
    let (linked, ..) = app.take_parts();
    let program = linked?.program;
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
