//! The data directory of an app that does not run.
//!
//! Without the app's program, keys that are integers are told as bytes, as nobody knows that they are.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Value, json};
use statefn_core::{
    address::{murmur2, shard_of},
    graph::{Graph, Notation},
    key::KeyKind,
    ports::inspect::{ParkedFound, Start, TimerFound, TimerKind},
    program::Program,
    shard::{
        Replica,
        frame::{PENDING_EVENT_TIMER, PENDING_MESSAGE, PENDING_REARMED, Position},
        image::Image,
    },
    state::to_value,
    view,
};
use statefn_runtime::embedded::{EmbeddedLog, FileSnapshots, Options, belongs_to};

use crate::{Error, Source, check::check, command::key_bytes};

/// How many bytes of each message are told in a list.
const PAYLOAD_BYTES_MAX: usize = 4 * 1024;

/// The opened data of an app that does not run.
pub struct Data {
    directory: PathBuf,
    app: String,
    shards: u32,
    log: EmbeddedLog,
    snapshots: FileSnapshots,
    program: Option<Arc<Program>>,
}

impl Data {
    /// Opens a data directory; `program` is the app's, where it is known.
    ///
    /// # Errors
    /// [`Error::Data`] if it holds no data of an app, a process uses them, or they are damaged.
    pub fn open(directory: &Path, program: Option<Arc<Program>>) -> Result<Self, Error> {
        let wrong = |error: &dyn fmt::Display| Error::Data(error.to_string());
        let known = belongs_to(&directory.join("log")).map_err(|error| wrong(&error))?;
        let (app, shards) = known.ok_or_else(|| {
            Error::Data(format!("the data directory `{}` holds no data of an app", directory.display()))
        })?;
        let opened = EmbeddedLog::open(directory.join("log"), &Options::new(&app, shards));
        let (log, _) = opened.map_err(|error| {
            Error::Data(format!("{error}; if the app runs, ask it by `--url` and the address of its admin interface"))
        })?;
        let snapshots = FileSnapshots::open(directory.join("snapshots")).map_err(|error| wrong(&error))?;
        Ok(Self { directory: directory.to_owned(), app, shards, log, snapshots, program })
    }

    fn image(&mut self, shard: u32) -> Result<Image, Error> {
        let replica = Replica::recover(shard, &mut self.log, &mut self.snapshots, u64::MAX, &mut |_, _| {});
        replica.map(|replica| replica.image).map_err(|error| Error::Data(error.to_string()))
    }

    fn images(&mut self) -> Result<Vec<Image>, Error> {
        (0..self.shards).map(|shard| self.image(shard)).collect()
    }

    fn kind(&self, function: &str) -> Option<KeyKind> {
        let program = self.program.as_ref()?;
        Some(program.functions[usize::from(program.function(function)?)].spec.key)
    }

    /// The bytes of a key of a function.
    fn key(&self, function: &str, text: &str) -> Result<Vec<u8>, Error> {
        let bytes = key_bytes(text)?;
        match self.kind(function).filter(|_| !text.starts_with("base64:")) {
            Some(kind) => kind.bytes(&bytes).map_err(|error| Error::Usage(error.to_string())),
            None => Ok(bytes),
        }
    }

    fn image_of(&mut self, key: &[u8]) -> Result<Image, Error> {
        self.image(shard_of(murmur2(key), self.shards))
    }

    fn needs_program(&self, what: &str) -> Error {
        Error::Usage(format!(
            "{what} stands in the app's program, not in its data: ask the binary of the app `{}`, or the app itself by `--url`",
            self.app
        ))
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Data({})", self.directory.display())
    }
}

fn shard(image: &Image, shard: u32) -> Value {
    json!({
        "shard": shard,
        "term": image.term(),
        "epoch": image.epoch(),
        "journal_offset": image.next_offset(),
        "keys": image.states().count(),
        "pending": image.pending().count(),
        "parked_keys": image.parked().count(),
        "unacknowledged_messages": image.outbox().count(),
    })
}

/// The partitions of each ingress, as far as every shard has taken them.
fn ingresses(images: &[Image]) -> Value {
    let mut positions: BTreeMap<String, BTreeMap<u32, Vec<Position>>> = BTreeMap::new();
    for (ingress, partition, position) in images.iter().flat_map(Image::positions) {
        positions.entry(ingress.to_owned()).or_default().entry(partition).or_default().push(position);
    }
    let partition = |(partition, of_shards): (u32, Vec<Position>)| {
        let is_everywhere = of_shards.len() == images.len();
        let records = || of_shards.iter().map(|position| position.records);
        json!({
            "partition": partition,
            "records": if is_everywhere { records().min().unwrap_or_default() } else { 0 },
            "records_max": records().max(),
            "is_ended": is_everywhere && of_shards.iter().all(|position| position.is_ended),
        })
    };
    let ingress = |(ingress, partitions): (String, BTreeMap<u32, Vec<Position>>)| json!({ "ingress": ingress, "partitions": partitions.into_iter().map(partition).collect::<Vec<_>>() });
    positions.into_iter().map(ingress).collect()
}

impl Source for Data {
    fn status(&mut self) -> Result<Value, Error> {
        let images = self.images()?;
        Ok(json!({
            "app": self.app,
            "version": env!("CARGO_PKG_VERSION"),
            "condition": "not running",
            "parked_keys": images.iter().map(|image| image.parked().count()).sum::<usize>(),
            "ingresses": ingresses(&images),
            "shards_of_app": self.shards,
            "shards": (0..).zip(&images).map(|(number, image)| shard(image, number)).collect::<Vec<_>>(),
        }))
    }

    fn functions(&mut self) -> Result<Value, Error> {
        if let Some(program) = &self.program {
            return Ok(view::program(program));
        }
        let mut names = BTreeMap::<String, usize>::new();
        for image in self.images()? {
            for (function, ..) in image.states() {
                *names.entry(function.to_owned()).or_default() += 1;
            }
        }
        let functions = names.into_iter().map(|(function, keys)| json!({ "function": function, "keys": keys }));
        Ok(json!({ "app": self.app, "functions": functions.collect::<Vec<_>>() }))
    }

    fn graph(&mut self, notation: &str) -> Result<String, Error> {
        let program = self.program.as_ref().ok_or_else(|| self.needs_program("what functions send to"))?;
        let notation =
            Notation::of(notation).ok_or_else(|| Error::Usage(format!("there is no notation `{notation}`")))?;
        Ok(Graph::of(program).written(notation))
    }

    fn keys(&mut self, function: &str, prefix: &str, _after: Option<&str>, limit: usize) -> Result<Value, Error> {
        let kind = self.kind(function);
        let mut found = BTreeSet::new();
        let mut is_more = false;
        for shard in 0..self.shards {
            let image = self.image(shard)?;
            let states =
                image.states().filter(|(name, key, _)| *name == function && key.starts_with(prefix.as_bytes()));
            for (_, key, _) in states {
                found.insert(key.to_vec());
                if found.len() > limit {
                    found.pop_last();
                    is_more = true;
                }
            }
        }
        let keys: Vec<Value> = found.iter().map(|key| view::key(kind, key)).collect();
        let next = keys.last().filter(|_| is_more).map(|last| last["path"].clone());
        Ok(json!({ "function": function, "keys": keys, "next": next }))
    }

    fn state(&mut self, function: &str, key: &str) -> Result<Value, Error> {
        let bytes = self.key(function, key)?;
        let image = self.image_of(&bytes)?;
        let mut states = image.states();
        let Some((.., state)) = states.find(|(name, key, _)| *name == function && *key == bytes) else {
            let detail = format!("the key `{key}` of `{function}` has no state");
            return Err(Error::Refused { code: "no-state".into(), detail });
        };
        let mut told = view::key(self.kind(function), &bytes);
        told["function"] = function.into();
        told["state"] = to_value(state).map_err(|error| Error::Data(error.to_string()))?;
        Ok(told)
    }

    fn timers(&mut self, function: &str, key: &str) -> Result<Value, Error> {
        let bytes = self.key(function, key)?;
        let image = self.image_of(&bytes)?;
        let of_key = image
            .pending()
            .filter(|entry| image.name(entry.message.function) == function && entry.message.key == bytes);
        let mut timers: Vec<TimerFound> = of_key
            .map(|entry| TimerFound {
                id: entry.id,
                kind: match entry.kind & !PENDING_REARMED {
                    PENDING_MESSAGE => TimerKind::Message,
                    PENDING_EVENT_TIMER => TimerKind::EventTime,
                    _ => TimerKind::ProcessingTime,
                },
                due: entry.due,
                name: (!entry.name.is_empty()).then(|| String::from_utf8_lossy(entry.name).into_owned()),
                message: image.name(entry.message.message).to_owned(),
                payload: Start::of(entry.message.payload, PAYLOAD_BYTES_MAX),
            })
            .collect();
        timers.sort_by_key(|timer| (timer.due, timer.kind != TimerKind::Message, timer.id));
        let mut told = view::key(self.kind(function), &bytes);
        told["function"] = function.into();
        told["timers"] = timers.iter().map(view::timer).collect();
        Ok(told)
    }

    fn parked(&mut self, _after: Option<&str>) -> Result<Value, Error> {
        let mut all = Vec::new();
        for image in self.images()? {
            for (function, key, parked) in image.parked() {
                let Some((is_timer, first)) = parked.calls().next() else { continue };
                let found = ParkedFound {
                    function: 0,
                    key: key.to_vec(),
                    reason: parked.reason.clone(),
                    message: image.name(first.message).to_owned(),
                    is_timer,
                    payload: Start::of(first.payload, PAYLOAD_BYTES_MAX),
                    time: first.time,
                    queue: parked.queue.len(),
                };
                all.push((function.to_owned(), key.to_vec(), view::parked(function, self.kind(function), &found)));
            }
        }
        all.sort_by(|one, other| (&one.0, &one.1).cmp(&(&other.0, &other.1)));
        Ok(json!({ "parked": all.into_iter().map(|(.., parked)| parked).collect::<Vec<_>>() }))
    }

    fn dead_letters(&mut self, _after: Option<&str>) -> Result<Value, Error> {
        let path = self.directory.join("dead-letters.jsonl");
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            read => read.map_err(|error| Error::Data(format!("`{}`: {error}", path.display())))?,
        };
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let letter = |line: &[u8]| json!({ "letter": serde_json::from_slice::<Value>(line).unwrap_or_default() });
        Ok(json!({ "dead_letters": lines.map(letter).collect::<Vec<_>>() }))
    }

    fn check(&mut self) -> Result<Vec<String>, Error> {
        let mut lines = check(Some(&self.directory), self.shards, &mut self.log, &mut self.snapshots)?;
        lines.push(format!("{} shards are whole", self.shards));
        Ok(lines)
    }

    fn change(&mut self, _method: &str, _path: &str, _body: &[u8]) -> Result<Value, Error> {
        Err(Error::Usage(format!(
            "a change needs the app: ask it by `--url` while it runs, or its own binary (`{}`) while it does not",
            self.app
        )))
    }
}
