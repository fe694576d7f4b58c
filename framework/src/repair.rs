//! What a person does about parked keys and dead letters of an app that does not run.
//!
//! Invariants: what is told is committed; a dead letter that is replayed again is taken once, as its
//! identity is remembered with the key (for a year).
//!
//! Deliberately absent: an app that runs; it holds the lock of its data, and takes the same requests
//! by its requests port ([`Wants::Retry`] and its kin).

use std::{fs, path::Path, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
pub use statefn_core::dead_letter::{DeadLetter, Reason};
use statefn_core::{
    address::murmur2,
    dead_letter::printable_key,
    effect::{Call, Calls},
    ingress::{Batches, ErasedIngress, RawRecord},
    message::decode_json,
    program::{FunctionId, Program},
    shard::{Reply, Wants, image::Parked},
    state::from_value,
    time::EventTime,
};
use statefn_runtime::{
    egress::Place,
    engine::{Asked, Offline},
};

use crate::{App, Error, app::Parts};

/// The opened data of an app that does not run.
pub struct Repair {
    program: Arc<Program>,
    ingresses: Vec<Arc<dyn ErasedIngress>>,
    offline: Offline,
}

/// A parked key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedKey {
    /// Its function.
    pub function: String,
    /// Its bytes.
    pub key: Vec<u8>,
}

/// What is done with a parked key.
#[derive(Debug, Clone, PartialEq)]
pub enum Remedy {
    /// Its calls are made again, in order.
    Retry,
    /// Its first call becomes a dead letter, the others are made again.
    Skip,
    /// Its first call gets these bytes, and all are made again.
    EditMessage(Vec<u8>),
    /// It gets another state, given as JSON, and its calls are made again.
    EditState(Value),
}

impl Repair {
    /// Opens the data that the app's settings name, and takes its shards over.
    ///
    /// # Errors
    /// [`Error::Settings`] if they name none, [`Error::Open`] if a process uses them or they are
    /// damaged, and what else keeps the app from starting.
    pub fn open(app: App) -> Result<Self, Error> {
        crate::run::check_panics(cfg!(panic = "abort"))?;
        let Parts { linked, names, settings, origins, .. } = app.take_parts();
        let linked = linked?;
        if settings.data.is_none() {
            return Err(Error::Settings(
                "`data` is not set: say which data directory to mend, such as by `--data data/bank`".into(),
            ));
        }
        let (program, ingresses) = (Arc::clone(&linked.program), linked.ingresses.clone());
        let plan = crate::run::plan_of_data(linked, &names, &settings, &origins)?;
        let offline = Offline::open(plan, settings.http.listen.is_some())?;
        Ok(Self { program, ingresses, offline })
    }

    /// Every parked key.
    #[must_use]
    pub fn parked(&self) -> Vec<ParkedKey> {
        let key = |(function, key, _): (&str, &[u8], &Parked)| ParkedKey { function: function.into(), key: key.into() };
        self.offline.parked().map(key).collect()
    }

    /// Lets parked keys go on; returns a line of JSON for each, which says how many calls wait again
    /// and why, or why nothing was done.
    ///
    /// A queue that is longer than an epoch is retried until its end.
    ///
    /// # Errors
    /// [`Error::Settings`] if there is no such function, and [`Error::Broken`] if nothing can be committed.
    pub fn mend(&mut self, keys: &[ParkedKey], remedy: &Remedy) -> Result<Vec<String>, Error> {
        let asked = keys.iter().map(|key| self.asked(key, remedy)).collect::<Result<Vec<_>, _>>()?;
        let mut replies = self.offline.ask(asked)?;
        // Those whose epoch was full have less to wait with each time.
        let mut left: Vec<(usize, u64)> = replies.iter().enumerate().filter_map(goes_on).collect();
        while !left.is_empty() {
            let asked = left.iter().map(|(place, _)| self.asked(&keys[*place], &Remedy::Retry));
            let told = self.offline.ask(asked.collect::<Result<_, _>>()?)?;
            for ((place, _), reply) in left.iter().zip(told) {
                replies[*place] = reply;
            }
            let goes_on_still = |(place, before): (usize, u64)| {
                goes_on((place, &replies[place])).filter(|(_, waiting)| *waiting < before)
            };
            left = left.into_iter().filter_map(goes_on_still).collect();
        }
        Ok(keys.iter().zip(&replies).map(|(key, reply)| line_of(key, reply)).collect())
    }

    fn asked(&self, key: &ParkedKey, remedy: &Remedy) -> Result<Asked, Error> {
        let function = self.function(&key.function)?;
        let (wants, edit) = match remedy {
            Remedy::Retry => (Wants::Retry, Vec::new()),
            Remedy::Skip => (Wants::Skip, Vec::new()),
            Remedy::EditMessage(payload) => (Wants::EditMessage, payload.clone()),
            Remedy::EditState(state) => {
                let version = self.program.functions[usize::from(function)].spec.version;
                let state = from_value(state, version).map_err(|error| Error::Settings(error.to_string()))?;
                (Wants::EditState, state)
            }
        };
        Ok(Asked::about_parked(wants, function, &key.key, &edit))
    }

    fn function(&self, name: &str) -> Result<FunctionId, Error> {
        let known = || self.program.functions.iter().map(|function| function.spec.name);
        let place = known().position(|known| known == name);
        let place = place.ok_or_else(|| {
            let known = known().collect::<Vec<_>>().join("`, `");
            Error::Settings(format!("the app has no function `{name}`; it has `{known}`"))
        })?;
        Ok(place as FunctionId)
    }

    /// The key of a function that is written as `text`, or as `base64:` and its bytes.
    ///
    /// # Errors
    /// [`Error::Settings`] if there is no such function, or the text is no key of it.
    pub fn key(&self, function: &str, text: &str) -> Result<ParkedKey, Error> {
        let spec = &self.program.functions[usize::from(self.function(function)?)].spec;
        let wrong = |error: String| Error::Settings(format!("`{text}` is no key of `{function}`: {error}"));
        let key = match text.strip_prefix("base64:") {
            Some(bytes) => STANDARD.decode(bytes).map_err(|error| wrong(error.to_string()))?,
            None => (spec.key_from_text)(text.as_bytes()).map_err(|error| wrong(error.to_string()))?,
        };
        Ok(ParkedKey { function: function.to_owned(), key })
    }

    /// Hands dead letters in once more, each once however often this is asked; returns a line of JSON
    /// for each, which says what became of it.
    ///
    /// # Errors
    /// [`Error::Broken`] if nothing can be committed.
    pub fn replay(&mut self, letters: &[Letter]) -> Result<Vec<String>, Error> {
        let mut asked = Vec::new();
        let mut outcomes = Vec::new();
        for letter in letters {
            match self.calls_of(&letter.letter) {
                Ok(calls) => {
                    outcomes.push(Ok(calls.len()));
                    let once = |place| Some(format!("dead-letter/{}/{place}", letter.id).into_bytes());
                    let ask = |(place, calls)| Asked { wants: Wants::Replay, once: once(place), calls };
                    asked.extend(calls.into_iter().enumerate().map(ask));
                }
                Err(why) => outcomes.push(Err(why)),
            }
        }
        let mut replies = self.offline.ask(asked)?.into_iter();
        let lines = letters.iter().zip(outcomes).map(|(letter, outcome)| {
            let told = outcome.and_then(|count| {
                let failed = replies.by_ref().take(count).find_map(|reply| match reply {
                    Reply::Failed(trouble) => Some(trouble.to_string()),
                    _ => None,
                });
                failed.map_or(Ok(count), Err)
            });
            match told {
                Ok(messages) => json!({"id": letter.id, "outcome": "replayed", "messages": messages}).to_string(),
                Err(why) => json!({"id": letter.id, "outcome": "left", "why": why}).to_string(),
            }
        });
        Ok(lines.collect())
    }

    /// The calls that a letter stands for.
    fn calls_of(&self, letter: &DeadLetter) -> Result<Vec<Calls>, String> {
        if let Some(bytes) = letter.bytes_total {
            return Err(format!("only the first of its {bytes} bytes are here: its ingress has the record"));
        }
        match (&letter.ingress, &letter.function) {
            (Some(ingress), _) => self.calls_of_record(ingress, &letter.bytes()),
            (None, Some(function)) => self.call_of_message(function, letter).map(|calls| vec![calls]),
            (None, None) => Err("it names neither an ingress nor a function".into()),
        }
    }

    fn calls_of_record(&self, ingress: &str, bytes: &[u8]) -> Result<Vec<Calls>, String> {
        let known = self.ingresses.iter().find(|known| known.name() == ingress);
        let known = known.ok_or_else(|| format!("the app has no ingress `{ingress}`"))?;
        let mut batches = Batches::new(self.offline.shards());
        known.route(0, RawRecord::Bytes(bytes), &mut batches)?;
        let single = |call: &Call, bytes: &[u8]| {
            let mut calls = Calls::default();
            calls.push_from(call, bytes);
            calls
        };
        let batches = batches.shards.iter().map(|batch| &batch.calls);
        Ok(batches.flat_map(|calls| calls.calls.iter().map(|call| single(call, &calls.bytes))).collect())
    }

    fn call_of_message(&self, function: &str, letter: &DeadLetter) -> Result<Calls, String> {
        let function = self.function(function).map_err(|error| error.to_string())?;
        let spec = &self.program.functions[usize::from(function)].spec;
        let message = letter.message.as_deref().unwrap_or_default();
        let handler = match letter.is_timer {
            true => spec.timers.iter().position(|timer| *timer == message),
            false => spec.messages.iter().position(|handler| handler.message == message),
        };
        let handler = handler.ok_or_else(|| format!("`{}` handles no `{message}`", spec.name))?;
        let text = letter.key.as_deref().unwrap_or_default();
        let key = match text.strip_prefix("base64:") {
            Some(bytes) => STANDARD.decode(bytes).map_err(|error| format!("its key cannot be read: {error}"))?,
            None => text.as_bytes().to_vec(),
        };
        let time = letter.time.map_or(EventTime::MIN, EventTime);
        let call = Call { is_timer: letter.is_timer, ..Call::message(function, handler as u16, murmur2(&key), time) };
        let mut calls = Calls::default();
        calls.push(call, &key, &letter.bytes());
        Ok(calls)
    }
}

impl std::fmt::Debug for Repair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Repair({})", self.program.app)
    }
}

/// A key whose calls were made again and of which some wait: its place, and how many.
fn goes_on((place, reply): (usize, &Reply)) -> Option<(usize, u64)> {
    match reply {
        Reply::Resumed { waiting, .. } if *waiting > 0 => Some((place, *waiting)),
        _ => None,
    }
}

fn line_of(key: &ParkedKey, reply: &Reply) -> String {
    let (function, printable) = (&key.function, printable_key(&key.key));
    let line = match reply {
        Reply::Resumed { waiting: 0, .. } => json!({"function": function, "key": printable, "waiting": 0}),
        Reply::Resumed { waiting, reason } => {
            json!({"function": function, "key": printable, "waiting": waiting, "reason": reason})
        }
        Reply::Failed(trouble) => json!({"function": function, "key": printable, "error": trouble.to_string()}),
        other => {
            json!({"function": function, "key": printable, "error": format!("an answer of another kind: {other:?}")})
        }
    };
    line.to_string()
}

/// A dead letter and what it is known by.
#[derive(Debug, Clone)]
pub struct Letter {
    /// What no other letter of the app has.
    pub id: String,
    /// The letter.
    pub letter: DeadLetter,
}

/// Reads the dead letters of an app from the file that its settings name, or another one; only those of
/// one reason, if there is one.
///
/// # Errors
/// [`Error::Settings`] if they are in no file, [`Error::Broken`] if it cannot be read.
pub fn letters(app: &App, file: Option<&Path>, only: Option<Reason>) -> Result<Vec<Letter>, Error> {
    let place = match file {
        Some(file) => file.to_owned(),
        None => match app.place_of_letters() {
            Some(Place::File(path)) => path,
            _ => {
                return Err(Error::Settings(
                    "the dead letters of this app are in no file: name one by `--file`".into(),
                ));
            }
        },
    };
    let broken = |error: String| Error::Broken(format!("the dead letters in `{}`: {error}", place.display()));
    let text = fs::read(&place).map_err(|error| broken(error.to_string()))?;
    let mut letters = Vec::new();
    let mut at = 0;
    for (number, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let letter: DeadLetter = decode_json(line).map_err(|error| broken(format!("line {}: {error}", number + 1)))?;
        // Letters of older versions have only their place, which never changes.
        let id = letter.id.clone().unwrap_or_else(|| format!("{at}-{:08x}", murmur2(line)));
        at += line.len();
        if only.is_none_or(|reason| reason == letter.reason) {
            letters.push(Letter { id, letter });
        }
    }
    Ok(letters)
}
