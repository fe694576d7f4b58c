//! Rejections, faults and panics on some records; other keys are as if nothing had happened.
//!
//! What must hold for every key: it handles its records in order until the first fault; from then
//! on its calls wait, in order, the one that failed first; each rejection before that is exactly
//! one dead letter and leaves nothing else behind; so is each record that cannot be read.
//!
//! In some worlds parked keys are retried or skipped, and in some of these the program is mended at
//! some time. Then each key has handled all its records in the end, in order, but for those that are
//! dead letters because they were skipped.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::resume_unwind,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use statefn_core::{
    Address, Context, EventTime, Failed, Fault, Message, Reject, Wire,
    codec::Reader,
    dead_letter::{DeadLetter, Reason},
    function::Target,
    ingress::{Ingress, bind},
    message::decode_json,
    program::{FunctionSpec, ProgramSpec},
    shard::frame::MessageRef,
};

use super::{End, Setup, Unparks, Workload, same, states_of};
use crate::{plan::JUMP_MS_MAX, random::Random, world::BEGIN_MS};

const KEYS: u64 = 8;
const ALARM_MS_MAX: i64 = 700;
/// How long it takes until a program is mended, if it is.
const MENDED_MS_MAX: i64 = 3_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Fate {
    Fine,
    Rejected,
    Fault,
    Panic,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Work {
    at: i64,
    id: u64,
    key: String,
    fate: Fate,
    timer_after: Option<i64>,
    alarm_after: Option<i64>,
    /// Whether what it sends deletes the state of its receiver.
    clears: bool,
    /// When its fault is mended, by the clock.
    mended_at: i64,
}
message!(Work, "work");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Due {
    id: u64,
}
message!(Due, "due");

/// A timer that waits for the clock.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Alarm {
    id: u64,
    at: i64,
}
message!(Alarm, "alarm");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Done {
    id: u64,
    clears: bool,
}
message!(Done, "done");

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct No(pub(super) u64);

impl Wire for No {
    fn encode(&self, out: &mut Vec<u8>) {
        statefn_core::message::encode_json(self, out);
    }
    fn decode(bytes: &[u8]) -> Result<Self, statefn_core::DecodeError> {
        decode_json(bytes)
    }
}

impl Reject for No {
    fn code(&self) -> &'static str {
        "no"
    }
    fn status(&self) -> u16 {
        400
    }
}

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Worker {
    handled: Vec<u64>,
    fired: Vec<u64>,
    alarmed: Vec<u64>,
    early_alarms: u64,
}

function! {
    Worker, "sim/worker",
    on { 0 plain Work -> Result<u64, Failed<No>>: work }
    timers { 0 Due: due, 1 Alarm: alarm }
    sends { 0 Tail }
    emits {}
}

impl Worker {
    fn work(&mut self, msg: &Work, ctx: &mut Context<'_, Self>) -> Result<u64, Failed<No>> {
        self.handled.push(msg.id);
        ctx.send(Address::<Tail>::new(tail(&msg.key)), Done { id: msg.id, clears: msg.clears });
        if let Some(after) = msg.timer_after {
            ctx.set_timer(ctx.event_time() + Duration::from_millis(after.unsigned_abs()), Due { id: msg.id });
        }
        if let Some(after) = msg.alarm_after {
            let at = ctx.now() + Duration::from_millis(after.unsigned_abs());
            ctx.set_timer(at, Alarm { id: msg.id, at: at.0 });
        }
        match msg.fate {
            Fate::Fine => Ok(msg.id),
            Fate::Fault | Fate::Panic if ctx.now().0 >= msg.mended_at => Ok(msg.id),
            Fate::Rejected => Err(Failed::Rejected(No(msg.id))),
            Fate::Fault => Err(Fault::new("broken").into()),
            // A panic without the hook, which would print every one of them.
            Fate::Panic => resume_unwind(Box::new("broken")),
        }
    }

    fn due(&mut self, timer: &Due, _: &mut Context<'_, Self>) {
        self.fired.push(timer.id);
    }

    fn alarm(&mut self, timer: &Alarm, ctx: &mut Context<'_, Self>) {
        self.alarmed.push(timer.id);
        self.early_alarms += u64::from(ctx.now().0 < timer.at);
    }
}

/// Gets what each worker has done; no fault reaches it.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Tail {
    done: Vec<u64>,
}

function! {
    Tail, "sim/tail",
    on { 0 plain Done -> (): done }
    timers {}
    sends {}
    emits {}
}

impl Tail {
    fn done(&mut self, msg: &Done, ctx: &mut Context<'_, Self>) {
        self.done.push(msg.id);
        if msg.clears {
            ctx.clear();
        }
    }
}

fn tail(key: &str) -> String {
    format!("tail-of-{key}")
}

/// See the module.
pub(super) struct Faults {
    /// None for a record that cannot be read.
    partitions: Vec<Vec<Option<Work>>>,
    unparks: Unparks,
}

impl Faults {
    pub(super) fn new(random: &mut Random) -> Self {
        let partitions = random.between(1, 3) as usize;
        let mut faults = Self { partitions: vec![Vec::new(); partitions], unparks: Unparks::Never };
        let broken = random.one_of(&[0, 10, 40]);
        for id in 0..random.between(10, 150) as u64 {
            let number = random.below(KEYS);
            let fate = match random.chance(broken) {
                true => random.one_of(&[Fate::Fault, Fate::Panic]),
                false => random.one_of(&[Fate::Fine, Fate::Fine, Fate::Fine, Fate::Rejected]),
            };
            let timer_after = random.chance(300).then(|| random.between(0, 50));
            let alarm_after = random.chance(200).then(|| random.between(0, ALARM_MS_MAX));
            let (key, clears) = (format!("worker-{number}"), random.chance(100));
            let work = Work { at: id as i64 * 2, id, key, fate, timer_after, alarm_after, clears, mended_at: i64::MAX };
            let is_readable = !random.chance(30);
            faults.partitions[number as usize % partitions].push(is_readable.then_some(work));
        }
        faults.unparks = random.one_of(&[Unparks::Never, Unparks::InTrouble, Unparks::UntilNone]);
        if faults.unparks == Unparks::UntilNone {
            let mended_at = BEGIN_MS + random.between(0, MENDED_MS_MAX);
            faults.partitions.iter_mut().flatten().flatten().for_each(|work| work.mended_at = mended_at);
        }
        faults
    }

    /// By key, its records in order.
    fn works(&self) -> BTreeMap<String, Vec<&Work>> {
        let mut works: BTreeMap<String, Vec<&Work>> = BTreeMap::new();
        for work in self.partitions.iter().flatten().flatten() {
            works.entry(work.key.clone()).or_default().push(work);
        }
        works
    }

    /// Whether a record stops its key also in the end.
    fn stops(&self, work: &Work) -> bool {
        self.unparks != Unparks::UntilNone && is_broken(work)
    }

    /// The place of the first record that stops its key.
    fn stop(&self, works: &[&Work]) -> usize {
        works.iter().position(|work| self.stops(work)).unwrap_or(works.len())
    }

    /// Whether a record is handled, unless one before it stops its key.
    fn is_fine(&self, work: &Work) -> bool {
        work.fate == Fate::Fine || is_broken(work) && !self.stops(work)
    }

    fn check_letters(&self, letters: Vec<DeadLetter>, mut rejected: Vec<String>) -> Result<(), String> {
        let (mut found, mut unreadable) = (Vec::new(), 0);
        for letter in letters {
            match letter.reason {
                Reason::Rejected => found.push(letter.error),
                Reason::Undecodable => unreadable += 1,
                Reason::Skipped => {}
                Reason::UnreadableMessage | Reason::Refused | Reason::ParkedQueueFull => {
                    return Err(format!("a letter that nothing here writes: {letter:?}"));
                }
            }
        }
        found.sort_unstable();
        rejected.sort_unstable();
        same("dead letters of rejections", &found, &rejected)?;
        let expected = self.partitions.iter().flatten().filter(|work| work.is_none()).count();
        same("dead letters of records that cannot be read", &unreadable, &expected)
    }
}

fn is_broken(work: &Work) -> bool {
    matches!(work.fate, Fate::Fault | Fate::Panic)
}

/// The dead letters; no two have the same identity.
fn letters(end: &End<'_>) -> Result<Vec<DeadLetter>, String> {
    let records = end.audit.shards.iter().flat_map(|shard| &shard.emitted);
    let letters = records.map(|record| decode_json(&record.bytes).map_err(|error| error.to_string()));
    let letters: Vec<DeadLetter> = letters.collect::<Result<_, String>>()?;
    let ids: BTreeSet<&Option<String>> = letters.iter().map(|letter| &letter.id).collect();
    same("dead letters with an identity of their own", &ids.len(), &letters.len())?;
    Ok(letters)
}

/// The calls that were skipped.
fn skipped(letters: &[DeadLetter]) -> Result<Waiting, String> {
    let mut skipped = Waiting::default();
    for letter in letters.iter().filter(|letter| letter.reason == Reason::Skipped) {
        skipped.add(letter.message.as_deref().unwrap_or_default(), &letter.bytes())?;
    }
    Ok(skipped)
}

/// What is parked for a key: records, timers of event time and of the clock, each in order.
#[derive(Debug, Default, Clone)]
struct Waiting {
    records: Vec<u64>,
    timers: Vec<u64>,
    alarms: Vec<u64>,
}

impl Waiting {
    fn add(&mut self, message: &str, payload: &[u8]) -> Result<(), String> {
        let id = match message {
            Work::NAME => Work::decode(payload).map(|work| self.records.push(work.id)),
            Due::NAME => Due::decode(payload).map(|due| self.timers.push(due.id)),
            _ => Alarm::decode(payload).map(|alarm| self.alarms.push(alarm.id)),
        };
        id.map_err(|error| error.to_string())
    }
}

fn parked(end: &End<'_>) -> Result<BTreeMap<String, Waiting>, String> {
    let mut all = BTreeMap::new();
    for image in end.audit.shards.iter().map(|shard| &shard.image) {
        for (function, key, parked) in image.parked() {
            same("the function of a parked key", &function, &Worker::NAME)?;
            let mut waiting = Waiting::default();
            for (_, bytes) in &parked.queue {
                let message = MessageRef::read(&mut Reader::new(bytes)).map_err(|error| error.to_string())?;
                waiting.add(image.name(message.message), message.payload)?;
            }
            all.insert(String::from_utf8_lossy(key).into_owned(), waiting);
        }
    }
    Ok(all)
}

/// One key at the end.
struct Found {
    worker: Worker,
    tail: Tail,
    waiting: Waiting,
}

impl Found {
    /// Compares a key with what its records, in order, lead to.
    fn check(self, model: &Faults, key: &str, works: &[&Work], skipped: &Waiting) -> Result<(), String> {
        let Self { worker, tail, waiting } = self;
        let (before, behind) = works.split_at(model.stop(works));
        let fine: Vec<&Work> = before.iter().filter(|work| model.is_fine(work)).copied().collect();
        let ids = |works: &[&Work]| works.iter().map(|work| work.id).collect::<Vec<u64>>();
        same(format_args!("records handled by {key}"), &worker.handled, &ids(&fine))?;
        let cleared = fine.iter().rposition(|work| work.clears).map_or(0, |last| last + 1);
        same(format_args!("messages of {key} since the last that clears"), &tail.done, &ids(&fine[cleared..]))?;
        same(format_args!("records that wait for {key}"), &waiting.records, &ids(behind))?;
        let mut timers: Vec<(i64, u64)> =
            fine.iter().filter_map(|work| Some((work.at + work.timer_after?, work.id))).collect();
        timers.sort_unstable();
        let mut timers: Vec<u64> = timers.into_iter().map(|(_, id)| id).collect();
        timers.retain(|id| !skipped.timers.contains(id));
        let mut fired = [worker.fired, waiting.timers].concat();
        if model.unparks != Unparks::Never {
            // What a retried record sets may be due before what stands behind it.
            timers.sort_unstable();
            fired.sort_unstable();
        }
        same(format_args!("timers of {key}, fired and waiting"), &fired, &timers)?;
        let mut alarms = [worker.alarmed, waiting.alarms].concat();
        alarms.sort_unstable();
        let set = fine.iter().filter(|work| work.alarm_after.is_some() && !skipped.alarms.contains(&work.id));
        let set: Vec<u64> = set.map(|work| work.id).collect();
        same(format_args!("alarms of {key}, fired and waiting"), &alarms, &set)?;
        same(format_args!("alarms of {key} before their time"), &worker.early_alarms, &0)
    }
}

impl Workload for Faults {
    fn setup(&self) -> Setup {
        let ingress = Ingress::<Work>::new("work").event_time(|work| EventTime(work.at)).to::<Worker>();
        let program = ProgramSpec {
            app: "faults".into(),
            functions: vec![FunctionSpec::of::<Worker>(), FunctionSpec::of::<Tail>()],
            ingresses: vec![ingress.spec()],
            ..ProgramSpec::default()
        };
        let bind = bind(ingress, |work: Work, out| out.send(Address::<Worker>::new(&*work.key), work.clone()));
        let encoded = |work: &Option<Work>| {
            let mut bytes = b"no JSON".to_vec();
            if let Some(work) = work {
                bytes.clear();
                work.encode(&mut bytes);
            }
            bytes
        };
        let inputs = self.partitions.iter().map(|works| works.iter().map(encoded).collect()).collect();
        Setup { program, ingresses: vec![Box::new(bind)], inputs: vec![inputs] }
    }

    fn keep_records(&mut self, keeps: &mut dyn FnMut() -> bool) {
        self.partitions.iter_mut().for_each(|records| records.retain(|_| keeps()));
    }

    fn unparks(&self) -> Unparks {
        self.unparks
    }

    fn lingers_ms(&self) -> i64 {
        // A clock that was too far ahead when the alarm was set has gone back by then.
        ALARM_MS_MAX + JUMP_MS_MAX + 200
    }

    fn check_end(&self, end: &End<'_>) -> Result<(), String> {
        let mut workers: BTreeMap<String, Worker> = states_of::<Worker>(end.audit, Worker::NAME)?.into_iter().collect();
        let mut tails: BTreeMap<String, Tail> = states_of::<Tail>(end.audit, Tail::NAME)?.into_iter().collect();
        let mut parked = parked(end)?;
        let mut rejected = Vec::new();
        let letters = letters(end)?;
        let skipped = skipped(&letters)?;
        for (key, mut works) in self.works() {
            works.retain(|work| !skipped.records.contains(&work.id));
            let before = &works[..self.stop(&works)];
            let no = before.iter().filter(|work| work.fate == Fate::Rejected);
            rejected.extend(no.map(|work| format!("no: {}", work.id)));
            let found = Found {
                worker: workers.remove(&key).unwrap_or_default(),
                tail: tails.remove(&tail(&key)).unwrap_or_default(),
                waiting: parked.remove(&key).unwrap_or_default(),
            };
            let is_cleared = before.iter().rev().find(|work| self.is_fine(work)).is_some_and(|work| work.clears);
            if is_cleared && end.audit.states().any(|(_, name, _)| name == tail(&key).as_bytes()) {
                return Err(format!("the state of {} was deleted and is there", tail(&key)));
            }
            found.check(self, &key, &works, &skipped)?;
        }
        self.check_letters(letters, rejected)
    }
}
