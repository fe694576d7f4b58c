//! What is done with the data of an app that does not run: its shards are taken over by this thread,
//! do what they are asked, and are left for the next start.
//!
//! It is the same core and the same order as in a run: every request is an epoch in the journal, and
//! what it causes is followed until nothing is left to do, in all shards. Only no input is read, and no
//! snapshot taken.
//!
//! Invariant: what was told is committed; what egresses do not have yet they get from the journal at
//! the next start.
//!
//! Deliberately absent: threads, guards and the watchdog. Somebody sits in front of it.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use statefn_core::{
    address::{murmur2, shard_of},
    effect::{Call, Calls},
    pipeline::{Action, Append, Pipeline},
    ports::{
        clock::Clock,
        egress::Egresses,
        log::{Log, Record},
    },
    program::FunctionId,
    shard::{Reply, Request, Shard, Wants, image::Parked},
    time::EventTime,
};

use super::{
    Plan, RunError, Storage,
    coordinator::Opened,
    egress_writer::{self, Places},
    panics,
};
use crate::{clock::MachineClock, egress::FileEgress, embedded::EmbeddedLog};

/// How many requests are applied before what they cause is committed.
const REQUESTS_AT_A_TIME: usize = 256;

/// The shards of an app that does not run; see the module.
pub struct Offline {
    log: EmbeddedLog,
    egress: FileEgress,
    places: Places,
    pipeline: Pipeline,
    shards: u32,
    requests: u64,
}

impl Offline {
    /// Opens the data of a plan and takes every shard over. Its inputs are not looked at.
    ///
    /// # Errors
    /// As [`run`](super::run); above all if the app runs, or keeps no data.
    pub fn open(plan: Plan, is_live: bool) -> Result<Self, RunError> {
        let Storage::Directory(directory) = &plan.storage else {
            return Err(RunError::Broken("an app without `data` keeps nothing that could be mended".into()));
        };
        check_is_there(directory)?;
        // The next start takes the snapshot that is due.
        let plan = Plan { snapshot_tail_bytes: u64::MAX, ..plan };
        let Opened { log, egress, places, shards, options, .. } = Opened::open(&plan, is_live)?;
        let log = log.ok_or_else(|| RunError::Broken("a directory has a log".into()))?;
        let mut pipeline = Pipeline::new(plan.program, &options, 0);
        let count = options.shards;
        panics::set_hook();
        let watch = Arc::default();
        panics::note_thread(&watch);
        for mut shard in shards {
            shard.set_watch(Arc::clone(&watch));
            let taken = egress.taken(shard.id());
            pipeline.adopt(shard, taken);
        }
        Ok(Self { log, egress, places, pipeline, shards: count, requests: 0 })
    }

    /// How many shards the app has.
    #[must_use]
    pub fn shards(&self) -> u32 {
        self.shards
    }

    /// Every parked key: its function's name, its bytes, and what it waits with.
    pub fn parked(&self) -> impl Iterator<Item = (&str, &[u8], &Parked)> {
        self.pipeline.shards().flat_map(Shard::parked)
    }

    /// Does what is asked, in order, and tells what came of each once it is committed.
    ///
    /// # Errors
    /// If the disk does not take it; what was committed before stays.
    pub fn ask(&mut self, asked: Vec<Asked>) -> Result<Vec<Reply>, RunError> {
        let first = self.requests;
        let mut replies = BTreeMap::new();
        for some in asked.chunks(REQUESTS_AT_A_TIME) {
            for Asked { wants, once, calls } in some {
                let shard = shard_of(calls.calls[0].hash, self.shards);
                let request = Request::for_answer(self.requests, calls.clone());
                let request = Request { wants: *wants, once: once.clone(), ..request };
                self.pipeline.request(shard, &request, MachineClock.now());
                self.requests += 1;
            }
            self.settle(&mut replies)?;
        }
        let told = (first..self.requests).map(|id| replies.remove(&id));
        told.collect::<Option<Vec<Reply>>>().ok_or_else(|| RunError::Broken("a request was not answered".into()))
    }

    /// Goes on until nothing is left to do.
    fn settle(&mut self, replies: &mut BTreeMap<u64, Reply>) -> Result<(), RunError> {
        loop {
            self.pipeline.pump(MachineClock.now());
            let mut appends = Vec::new();
            let mut is_any = false;
            while let Some(action) = self.pipeline.next_action() {
                is_any = true;
                match action {
                    Action::Append(append) => appends.push(append),
                    Action::Emit(emission) => egress_writer::write(&mut self.egress, &self.places, &emission),
                    Action::Answer(answer) => _ = replies.insert(answer.request, answer.reply),
                    Action::TakeOver(shard) => {
                        return Err(RunError::Broken(format!("somebody else writes to the journal of shard {shard}")));
                    }
                    // All shards are here, and journals are neither snapshotted nor trimmed.
                    _ => {}
                }
            }
            self.append(&appends)?;
            if !is_any {
                return Ok(self.egress.sync()?);
            }
        }
    }

    fn append(&mut self, appends: &[Append]) -> Result<(), RunError> {
        let group: Vec<Record<'_>> = appends
            .iter()
            .flat_map(|append| append.records.iter().map(|bytes| Record { partition: append.shard, bytes }))
            .collect();
        if group.is_empty() {
            return Ok(());
        }
        let offsets =
            self.log.append(&group).map_err(|error| RunError::Broken(format!("nothing can be committed: {error}")))?;
        let mut offsets = offsets.into_iter();
        for append in appends {
            let mut of_append = offsets.by_ref().take(append.records.len());
            let first = of_append.next().expect("an append has a record, and each record an offset");
            of_append.for_each(drop);
            self.pipeline.appended(append.shard, first);
        }
        Ok(())
    }
}

impl std::fmt::Debug for Offline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Offline({:?})", self.pipeline)
    }
}

/// What is asked of a key.
#[derive(Debug, Clone)]
pub struct Asked {
    /// What is to be told.
    pub wants: Wants,
    /// The idempotency key, if there is one.
    pub once: Option<Vec<u8>>,
    /// Exactly one call; see [`Request`].
    pub calls: Calls,
}

impl Asked {
    /// Something about a parked key; of an edit, `edit` is what is put in place.
    #[must_use]
    pub fn about_parked(wants: Wants, function: FunctionId, key: &[u8], edit: &[u8]) -> Self {
        let mut calls = Calls::default();
        calls.push(Call::message(function, 0, murmur2(key), EventTime::MIN), key, edit);
        Self { wants, once: None, calls }
    }
}

/// A directory that holds no log must not get one by this.
fn check_is_there(directory: &Path) -> Result<(), RunError> {
    if directory.join("log").exists() {
        return Ok(());
    }
    Err(RunError::Broken(format!("the data directory `{}` holds no data of an app", directory.display())))
}
