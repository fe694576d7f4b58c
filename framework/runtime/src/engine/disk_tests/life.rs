//! The life of a process on a [`TestDisk`]: it takes the shards over, goes on, and may die anywhere.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::Value;
use statefn_core::{
    ingress::Batches,
    pipeline::{Action, Append, Pipeline},
    ports::{
        egress::Egresses,
        ingress::{ReadLimit, Source, finish_stretch},
        log::{Log, Offset, Partition, Record},
    },
    shard::{Replica, TakeOver, read_back},
    time::ProcessingTime,
};

use super::{
    app::{HOME, OUTPUTS, SHARDS},
    disk::TestDisk,
};
use crate::{
    egress::FileEgress,
    embedded::{EmbeddedLog, FileSnapshots, Options as LogOptions},
    engine::{
        Plan,
        coordinator::{Opened, options, places},
        egress_writer::{self, Places},
        snapshot_writer,
    },
    ingress::GeneratorSource,
};

/// How many records are read at a time, if it is not said.
const STRETCH_RECORDS: u64 = 5;
/// How many steps a life has at most.
const STEPS_MAX: usize = 2_000;
/// How often what a full disk refuses is tried again.
const TRIES_MAX: usize = 64;
const STEP_MS: i64 = 20;

/// What the log has ever acknowledged.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    /// By partition, the records from offset 0 on.
    pub(super) records: Vec<Vec<Vec<u8>>>,
    /// The position of the disk when a group was acknowledged, and then the end of each partition.
    pub(super) ends: Vec<(usize, Vec<Offset>)>,
}

impl History {
    /// Notes what is new in the log, which was acknowledged just now.
    pub(super) fn note(&mut self, disk: &TestDisk, log: &mut EmbeddedLog) {
        self.records.resize(SHARDS as usize, Vec::new());
        let partitions: Vec<Partition> = (0..SHARDS).collect();
        for (partition, known) in partitions.iter().zip(&mut self.records) {
            // What was trimmed before the history began is not asked for either.
            known.resize(known.len().max(log.start(*partition) as usize), Vec::new());
            let from = known.len() as Offset;
            log.read(*partition, from, &mut |_, record| known.push(record.to_vec())).expect("the log reads");
        }
        self.ends.push((disk.position(), ends(log)));
    }

    /// Checks that a log has all that was `acknowledged`, and no other records than were appended.
    pub(super) fn check(&self, log: &mut EmbeddedLog, acknowledged: &[Offset]) -> Result<(), String> {
        let ends = ends(log);
        if ends.iter().zip(acknowledged).any(|(end, acknowledged)| end < acknowledged) {
            return Err(format!("acknowledged records are lost: {ends:?} of {acknowledged:?}"));
        }
        for (partition, records) in (0..).zip(&self.records) {
            let (start, mut differs) = (log.start(partition), false);
            let read = log.read(partition, start, &mut |offset, record| {
                differs |= records.get(offset as usize).is_some_and(|known| known != record);
            });
            read.map_err(|error| error.to_string())?;
            if differs {
                return Err(format!("partition {partition} holds other records than were appended"));
            }
        }
        Ok(())
    }
}

/// Of each partition, the offset of the next record.
pub(super) fn ends(log: &EmbeddedLog) -> Vec<Offset> {
    (0..SHARDS).map(|partition| log.end(partition)).collect()
}

/// What an app has come to: its outputs by line, and its states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    outputs: BTreeMap<String, Vec<u64>>,
    states: BTreeMap<(String, Vec<u8>), Vec<u8>>,
}

impl End {
    pub(super) fn lines(&self) -> usize {
        self.outputs.values().map(Vec::len).sum()
    }
}

/// See the module.
pub(super) struct Life<'a> {
    plan: &'a Plan,
    disk: TestDisk,
    pub(super) log: EmbeddedLog,
    opened: Opened,
    places: Places,
    pipeline: Pipeline,
    source: GeneratorSource,
    batches: Batches,
    now: ProcessingTime,
    steps: usize,
    /// How many records are read at a time; others than before make other epochs.
    pub(super) stretch_records: u64,
    /// What was acknowledged, if it is noted.
    pub(super) history: Option<History>,
}

pub(super) fn open_log(plan: &Plan, disk: &TestDisk) -> Result<EmbeddedLog, String> {
    let options = LogOptions::new(&plan.program.app, plan.shards).segment_bytes(plan.segment_bytes);
    let opened = EmbeddedLog::open_on(Box::new(disk.clone()), &home("log"), &options);
    Ok(opened.map_err(|error| error.to_string())?.0)
}

fn open_snapshots(disk: &TestDisk) -> Result<FileSnapshots, String> {
    FileSnapshots::open_on(Box::new(disk.clone()), &home("snapshots")).map_err(|error| error.to_string())
}

fn home(name: &str) -> PathBuf {
    Path::new(HOME).join(name)
}

impl<'a> Life<'a> {
    /// Opens everything and takes the shards over, as the coordinator does.
    pub(super) fn start(plan: &'a Plan, disk: &TestDisk, history: Option<History>) -> Result<Self, String> {
        let (log, snapshots) = (open_log(plan, disk)?, Box::new(open_snapshots(disk)?));
        let egress = FileEgress::open_on(disk, &home("egress"), plan.outputs.clone(), plan.shards);
        let egress = egress.map_err(|error| error.to_string())?;
        let taken_over = Opened::take_over(plan, options(plan), log, snapshots, egress);
        let (log, mut opened) = taken_over.map_err(|error| error.to_string())?;
        let mut pipeline = Pipeline::new(plan.program.clone(), &opened.options, 0);
        let shards = std::mem::take(&mut opened.shards);
        snapshot_writer::remove_unmarked(&mut *opened.snapshots, &snapshot_writer::kept(&shards));
        let positions = shards.iter().map(|shard| shard.position(0, 0));
        let first = positions.min_by_key(|position| (position.is_ended, position.offset)).unwrap_or_default();
        for shard in shards {
            let taken = opened.egress.taken(shard.id());
            pipeline.adopt(shard, taken);
        }
        let mut life = Self {
            plan,
            disk: disk.clone(),
            log,
            opened,
            places: places(plan),
            pipeline,
            source: GeneratorSource::new(first),
            batches: Batches::new(plan.shards),
            now: ProcessingTime(0),
            steps: 0,
            stretch_records: STRETCH_RECORDS,
            history,
        };
        life.note();
        Ok(life)
    }

    /// As [`Self::start`], again and again until the disk has space.
    pub(super) fn start_at_last(plan: &'a Plan, disk: &TestDisk) -> (Self, TestDisk) {
        let mut disk = disk.clone();
        for _ in 0..TRIES_MAX {
            match Self::start(plan, &disk, None) {
                Ok(life) => return (life, disk),
                Err(_) => disk = disk.kill(),
            }
        }
        panic!("the app does not start");
    }

    /// Goes on to the end of the input.
    pub(super) fn run_to_the_end(&mut self) -> Result<(), String> {
        while !self.step()? {}
        Ok(())
    }

    /// Takes a stretch of input in and does all that follows; returns whether everything is done.
    pub(super) fn step(&mut self) -> Result<bool, String> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(format!("the run does not end: {:?}", self.pipeline));
        }
        self.now.0 += STEP_MS;
        self.take_input()?;
        self.pipeline.pump(self.now);
        while self.execute()? {
            self.pipeline.pump(self.now);
        }
        // Several epochs share a mark, and a superblock is rarer still.
        if self.steps.is_multiple_of(3) || self.is_finished() {
            self.sync_egress()?;
        }
        if self.steps.is_multiple_of(7) {
            _ = self.log.sync_superblock();
            self.ask_for_snapshots();
        }
        Ok(self.is_finished() && !self.opened.egress.is_behind())
    }

    fn is_finished(&self) -> bool {
        self.source.position().is_ended && self.pipeline.is_finished()
    }

    fn take_input(&mut self) -> Result<(), String> {
        if self.source.position().is_ended && self.steps > 1 || !self.pipeline.wants_input() {
            return Ok(());
        }
        let limit = ReadLimit { records: self.stretch_records, bytes: u64::MAX };
        let stretch = self.source.read(&*self.plan.ingresses[0], &mut self.batches, limit);
        finish_stretch(&mut self.batches, 0, 0, stretch.map_err(|error| error.to_string())?);
        for (shard, batch) in (0..).zip(&mut self.batches.shards) {
            self.pipeline.ingress(shard, batch, self.now);
            batch.clear();
        }
        Ok(())
    }

    /// Executes what the pipeline asks for; returns whether there was anything.
    fn execute(&mut self) -> Result<bool, String> {
        let (mut appends, mut is_any) = (Vec::new(), false);
        while let Some(action) = self.pipeline.next_action() {
            is_any = true;
            match action {
                Action::Append(append) => appends.push(append),
                Action::Emit(emission) => egress_writer::write(&mut self.opened.egress, &self.places, &emission),
                Action::Store(snapshot) => {
                    let stored = self.opened.snapshots.put(&snapshot.mark.name, &snapshot.bytes);
                    self.pipeline.snapshot_stored(snapshot.shard, stored.ok().map(|()| snapshot.mark));
                }
                Action::ReadBack { shard, snapshot } => {
                    let read = read_back(&mut *self.opened.snapshots, &snapshot);
                    self.pipeline.snapshot_read_back(shard, &snapshot, read.is_ok());
                }
                Action::Forget { shard, snapshots, before } => {
                    for mark in snapshots {
                        _ = self.opened.snapshots.remove(&mark.name);
                    }
                    if let Some(before) = before {
                        _ = self.log.trim(shard, before);
                    }
                }
                Action::TakeOver(shard) => return Err(format!("shard {shard} is lost")),
                // There is no other pipeline, nobody asks, and nothing is called or traced.
                Action::Publish(_)
                | Action::Progress(_)
                | Action::Answer(_)
                | Action::Call(_)
                | Action::Trace(_)
                | Action::AskEnd { .. }
                | Action::TrimMailbox { .. } => {}
            }
        }
        self.append(&appends)?;
        Ok(is_any)
    }

    fn append(&mut self, appends: &[Append]) -> Result<(), String> {
        let records = appends.iter().flat_map(|append| {
            append.records.iter().map(|bytes| Record { partition: append.shard, bytes: bytes.as_slice() })
        });
        let group: Vec<Record<'_>> = records.collect();
        if group.is_empty() {
            return Ok(());
        }
        let offsets = until_it_works(|| self.log.append(&group).map_err(|error| error.to_string()))?;
        self.note();
        let mut place = 0;
        for append in appends {
            self.pipeline.appended(append.shard, offsets[place]);
            place += append.records.len();
        }
        Ok(())
    }

    /// Notes what the log has, and from now on what it acknowledges.
    pub(super) fn begin_history(&mut self) {
        self.history = Some(History::default());
        self.note();
    }

    fn note(&mut self) {
        if let Some(history) = &mut self.history {
            history.note(&self.disk, &mut self.log);
        }
    }

    fn sync_egress(&mut self) -> Result<(), String> {
        until_it_works(|| self.opened.egress.sync().map_err(|error| error.to_string()))?;
        for shard in 0..SHARDS {
            self.pipeline.egress_taken(shard, self.opened.egress.taken(shard));
        }
        self.execute().map(drop)
    }

    fn ask_for_snapshots(&mut self) {
        if self.log.bytes() > 2 * self.plan.segment_bytes {
            self.log.held_by().into_iter().for_each(|shard| self.pipeline.want_snapshot(shard));
        }
    }
}

fn until_it_works<T>(mut attempt: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let mut outcome = attempt();
    for _ in 1..TRIES_MAX {
        if outcome.is_ok() {
            break;
        }
        outcome = attempt();
    }
    outcome
}

/// Verifies every shard as `check` does, and returns what the app has come to.
pub(super) fn end_of(plan: &Plan, disk: &TestDisk) -> Result<End, String> {
    let (mut log, mut snapshots) = (open_log(plan, disk)?, open_snapshots(disk)?);
    let options = std::sync::Arc::new(options(plan));
    let mut states = BTreeMap::new();
    for shard in 0..SHARDS {
        TakeOver::check(&plan.program, &options, shard, (&mut log, &mut snapshots))
            .map_err(|error| error.to_string())?;
        let replica = Replica::recover(shard, &mut log, &mut snapshots, u64::MAX, &mut |_, _| {});
        let image = replica.map_err(|error| error.to_string())?.image;
        states.extend(image.states().map(|(name, key, state)| ((name.to_owned(), key.to_vec()), state.to_vec())));
    }
    Ok(End { outputs: outputs(disk)?, states })
}

/// By output and line, the amounts in their order.
fn outputs(disk: &TestDisk) -> Result<BTreeMap<String, Vec<u64>>, String> {
    let mut outputs: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for output in OUTPUTS {
        let bytes = disk.bytes(&home(&format!("{output}.jsonl"))).ok_or_else(|| format!("no output {output}"))?;
        let text = String::from_utf8(bytes).map_err(|error| error.to_string())?;
        for line in text.lines() {
            let value: Value = serde_json::from_str(line).map_err(|error| format!("{output}: {error}: {line}"))?;
            let amount = value["amount"].as_u64().ok_or_else(|| format!("{output}: {line}"))?;
            outputs.entry(format!("{output}: {}", value["line"])).or_default().push(amount);
        }
    }
    Ok(outputs)
}
