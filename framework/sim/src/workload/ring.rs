//! A cycle with event time: keys of ring/* send to each other, and to a stage behind the cycle.
//!
//! What must hold: every hop of every chain arrives once; per key ordered messages come in the
//! order of time, also in the stage behind; every timer fires once, and none at T before a
//! message of a time up to T. Timers do not send into the cycle, because what they send there may
//! come after the watermark by definition.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use statefn_core::{
    Address, Context, Egress, EventTime, Wire,
    ingress::{Ingress, bind},
    program::{FunctionSpec, ProgramSpec},
};

use super::{End, Setup, Workload, same};
use crate::random::Random;

static HOPS: Egress<Line> = Egress::new("hops");
const KEYS: u64 = 6;

/// One message of a chain; it goes on to a key that its seed decides.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Hop {
    chain: u64,
    left: u64,
    seed: u64,
    timer_after: i64,
}

impl Hop {
    fn next(&self) -> (String, Self) {
        let mut random = Random::new(self.seed);
        let to = ring(random.below(KEYS));
        (to, Self { left: self.left - 1, seed: random.number(), ..self.clone() })
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Plain(Hop);
message!(Plain, "plain");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Ordered(Hop);
message!(Ordered, "ordered");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Due {
    chain: u64,
    left: u64,
}
message!(Due, "due");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Behind {
    chain: u64,
    left: u64,
}
message!(Behind, "behind");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Start {
    at: i64,
    key: String,
    is_ordered: bool,
    hop: Hop,
}
message!(Start, "start");

#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Plain,
    Ordered,
    Timer,
    Behind,
}

#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    key: String,
    what: What,
    time: i64,
    chain: u64,
    left: u64,
}
message!(Line, "line");

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Ring {
    hops: u64,
}

function! {
    Ring, "sim/ring",
    on { 0 plain Plain -> (): plain, 1 ordered Ordered -> (): ordered }
    timers { 0 Due: due }
    sends { 0 Ring, 1 After }
    emits { HOPS }
}

impl Ring {
    fn plain(&mut self, msg: &Plain, ctx: &mut Context<'_, Self>) {
        self.hop(What::Plain, &msg.0, ctx);
        if msg.0.left > 0 {
            let (to, hop) = msg.0.next();
            ctx.send(Address::<Self>::new(to), Plain(hop));
        }
    }

    fn ordered(&mut self, msg: &Ordered, ctx: &mut Context<'_, Self>) {
        self.hop(What::Ordered, &msg.0, ctx);
        if msg.0.left > 0 {
            let (to, hop) = msg.0.next();
            ctx.send(Address::<Self>::new(to), Ordered(hop));
        }
    }

    fn hop(&mut self, what: What, hop: &Hop, ctx: &mut Context<'_, Self>) {
        let Hop { chain, left, timer_after, .. } = *hop;
        self.hops += 1;
        ctx.emit(&HOPS, &Line { key: ctx.key().clone(), what, time: ctx.event_time().0, chain, left });
        ctx.send(Address::<After>::new(behind(chain)), Behind { chain, left });
        ctx.set_timer(ctx.event_time() + Duration::from_millis(timer_after.unsigned_abs()), Due { chain, left });
    }

    fn due(&mut self, timer: &Due, ctx: &mut Context<'_, Self>) {
        let Due { chain, left } = *timer;
        ctx.emit(&HOPS, &Line { key: ctx.key().clone(), what: What::Timer, time: ctx.event_time().0, chain, left });
    }
}

/// The stage behind the cycle.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct After {
    messages: u64,
}

function! {
    After, "sim/after",
    on { 0 ordered Behind -> (): behind }
    timers {}
    sends {}
    emits { HOPS }
}

impl After {
    fn behind(&mut self, msg: &Behind, ctx: &mut Context<'_, Self>) {
        let Behind { chain, left } = *msg;
        self.messages += 1;
        ctx.emit(&HOPS, &Line { key: ctx.key().clone(), what: What::Behind, time: ctx.event_time().0, chain, left });
    }
}

fn ring(number: u64) -> String {
    format!("ring-{number}")
}

fn behind(chain: u64) -> String {
    format!("behind-{}", chain % 3)
}

/// The workload.
pub(super) struct Chains {
    partitions: Vec<Vec<Start>>,
    lateness_ms: i64,
}

impl Chains {
    pub(super) fn new(random: &mut Random) -> Self {
        let partitions = random.between(1, 2);
        let records = random.between(3, 40);
        let lateness_ms = random.one_of(&[0, 5, 50]);
        let stretch = random.one_of(&[1, 10]);
        let mut chain = 0;
        let mut partition = || {
            let mut newest = random.between(-20, 20);
            let starts = (0..records).map(|_| {
                newest += random.between(0, stretch);
                chain += 1;
                let timer_after = random.one_of(&[0, 0, 1, 5, 40]);
                let hop = Hop { chain, left: random.below(4), seed: random.number(), timer_after };
                let at = newest - random.between(0, lateness_ms);
                Start { at, key: ring(random.below(KEYS)), is_ordered: random.chance(500), hop }
            });
            starts.collect()
        };
        Self { partitions: (0..partitions).map(|_| partition()).collect(), lateness_ms }
    }

    fn expected(&self) -> BTreeSet<Line> {
        let mut lines = BTreeSet::new();
        for Start { at, key, is_ordered, hop } in self.partitions.iter().flatten() {
            let what = if *is_ordered { What::Ordered } else { What::Plain };
            let (mut key, mut hop) = (key.clone(), hop.clone());
            loop {
                let Hop { chain, left, timer_after, .. } = hop;
                lines.insert(Line { key: key.clone(), what, time: *at, chain, left });
                lines.insert(Line { key: key.clone(), what: What::Timer, time: at + timer_after, chain, left });
                lines.insert(Line { key: behind(chain), what: What::Behind, time: *at, chain, left });
                if left == 0 {
                    break;
                }
                (key, hop) = hop.next();
            }
        }
        lines
    }
}

impl Workload for Chains {
    fn setup(&self) -> Setup {
        let lateness = Duration::from_millis(self.lateness_ms.unsigned_abs());
        let ingress =
            Ingress::<Start>::new("starts").event_time(|start| EventTime(start.at)).lateness(lateness).to::<Ring>();
        let program = ProgramSpec {
            app: "ring".into(),
            functions: vec![FunctionSpec::of::<Ring>(), FunctionSpec::of::<After>()],
            ingresses: vec![ingress.spec()],
            egresses: vec![HOPS.declaration()],
            ..ProgramSpec::default()
        };
        let bind = bind(ingress, |start: Start, out| {
            let key = Address::<Ring>::new(start.key);
            if start.is_ordered { out.send(key, Ordered(start.hop)) } else { out.send(key, Plain(start.hop)) }
        });
        let encoded = |start: &Start| {
            let mut bytes = Vec::new();
            start.encode(&mut bytes);
            bytes
        };
        let inputs = self.partitions.iter().map(|starts| starts.iter().map(encoded).collect()).collect();
        Setup { program, ingresses: vec![Box::new(bind)], inputs: vec![inputs] }
    }

    fn keep_records(&mut self, keeps: &mut dyn FnMut() -> bool) {
        self.partitions.iter_mut().for_each(|records| records.retain(|_| keeps()));
    }

    fn check_end(&self, end: &End<'_>) -> Result<(), String> {
        let mut lines: BTreeMap<String, Vec<Line>> = BTreeMap::new();
        let mut all = Vec::new();
        for record in end.audit.shards.iter().flat_map(|shard| &shard.emitted) {
            let line = Line::decode(&record.bytes).map_err(|error| error.to_string())?;
            all.push(line.clone());
            lines.entry(line.key.clone()).or_default().push(line);
        }
        let expected = self.expected();
        let once: BTreeSet<Line> = all.iter().cloned().collect();
        let missing: Vec<&Line> = expected.difference(&once).collect();
        let surplus: Vec<&Line> = once.difference(&expected).collect();
        same("lines that are missing, and those nobody asked for", &(missing, surplus), &(Vec::new(), Vec::new()))?;
        same("lines, each once", &all.len(), &expected.len())?;
        lines.values().try_for_each(|lines| check_times(lines))
    }
}

fn check_times(lines: &[Line]) -> Result<(), String> {
    let (mut ordered, mut fired) = (i64::MIN, i64::MIN);
    for line in lines {
        let is_in_order = match line.what {
            What::Ordered | What::Behind => line.time >= ordered && line.time > fired,
            What::Plain => line.time > fired,
            What::Timer => line.time >= ordered && line.time >= fired,
        };
        if !is_in_order {
            return Err(format!("{line:?} comes after a message of {ordered} and a timer of {fired}"));
        }
        match line.what {
            What::Ordered | What::Behind => ordered = line.time,
            What::Timer => fired = line.time,
            What::Plain => {}
        }
    }
    Ok(())
}
