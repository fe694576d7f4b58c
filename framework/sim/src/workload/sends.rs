//! Random sends: every key numbers its messages to every other key, and checks what it gets.
//!
//! What must hold: for each pair of keys all messages arrive, once, in order; each record of the
//! input is handled once, those of a partition in order. Each message goes a few hops, so keys of
//! one shard send to each other within an epoch, and over the limits of one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use statefn_core::{
    Address, Context, EventTime, Wire,
    function::Target,
    ingress::{Ingress, bind},
    program::{FunctionSpec, ProgramSpec},
};

use super::{End, Setup, Workload, same, states_of};
use crate::random::Random;

/// Starts a chain of messages at a key.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Go {
    key: String,
    partition: u64,
    number: u64,
    /// Each hop sends this many messages; their number decides the targets.
    fan: u64,
    hops: u64,
    seed: u64,
}
message!(Go, "go");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Note {
    from: String,
    sequence: u64,
    fan: u64,
    hops: u64,
    seed: u64,
}
message!(Note, "note");

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Peer {
    sent: BTreeMap<String, u64>,
    received: BTreeMap<String, u64>,
    /// By partition, the number of the last record, and how many came.
    input: BTreeMap<u64, (u64, u64)>,
    problems: Vec<String>,
}

function! {
    Peer, "sim/peer",
    on { 0 plain Go -> (): go, 1 plain Note -> (): note }
    timers {}
    sends { 0 Peer }
    emits {}
}

impl Peer {
    fn go(&mut self, msg: &Go, ctx: &mut Context<'_, Self>) {
        let (last, count) = self.input.entry(msg.partition).or_insert((0, 0));
        if msg.number <= *last {
            self.problems.push(format!("record {} of partition {} after {last}", msg.number, msg.partition));
        }
        (*last, *count) = (msg.number, *count + 1);
        self.send_on(msg.fan, msg.hops, msg.seed, ctx);
    }

    fn note(&mut self, msg: &Note, ctx: &mut Context<'_, Self>) {
        let last = self.received.entry(msg.from.clone()).or_default();
        if msg.sequence != *last + 1 {
            self.problems.push(format!("message {} from {} after {last}", msg.sequence, msg.from));
        }
        *last = msg.sequence;
        self.send_on(msg.fan, msg.hops, msg.seed, ctx);
    }

    fn send_on(&mut self, fan: u64, hops: u64, seed: u64, ctx: &mut Context<'_, Self>) {
        if hops == 0 {
            return;
        }
        let mut random = Random::new(seed);
        for _ in 0..fan {
            let to = key(random.below(KEYS));
            let sequence = self.sent.entry(to.clone()).or_default();
            *sequence += 1;
            let note =
                Note { from: ctx.key().clone(), sequence: *sequence, fan, hops: hops - 1, seed: random.number() };
            ctx.send(Address::<Self>::new(to), note);
        }
    }
}

const KEYS: u64 = 9;

fn key(number: u64) -> String {
    format!("peer-{number}")
}

/// See the module.
pub(super) struct Sends {
    partitions: Vec<Vec<Go>>,
}

impl Sends {
    pub(super) fn new(random: &mut Random) -> Self {
        let partitions = random.between(1, 3) as u64;
        let records = random.between(5, 80) as u64;
        let mut go = |partition, number| Go {
            key: key(random.below(KEYS)),
            partition,
            number,
            fan: random.below(3),
            hops: random.below(4),
            seed: random.number(),
        };
        let partitions = (0..partitions).map(|partition| (1..=records).map(|number| go(partition, number)).collect());
        Self { partitions: partitions.collect() }
    }
}

impl Workload for Sends {
    fn setup(&self) -> Setup {
        let ingress = Ingress::<Go>::new("starts").event_time(|go| EventTime(go.number as i64)).to::<Peer>();
        let program = ProgramSpec {
            app: "sends".into(),
            functions: vec![FunctionSpec::of::<Peer>()],
            ingresses: vec![ingress.spec()],
            ..ProgramSpec::default()
        };
        let bind = bind(ingress, |go: Go, out| out.send(Address::<Peer>::new(&*go.key), go.clone()));
        let encoded = |go: &Go| {
            let mut bytes = Vec::new();
            go.encode(&mut bytes);
            bytes
        };
        let inputs = self.partitions.iter().map(|starts| starts.iter().map(encoded).collect()).collect();
        Setup { program, ingresses: vec![Box::new(bind)], inputs: vec![inputs] }
    }

    fn keep_records(&mut self, keeps: &mut dyn FnMut() -> bool) {
        self.partitions.iter_mut().for_each(|records| records.retain(|_| keeps()));
    }

    fn check_end(&self, end: &End<'_>) -> Result<(), String> {
        let peers: BTreeMap<String, Peer> = states_of::<Peer>(end.audit, Peer::NAME)?.into_iter().collect();
        let (mut sent, mut received, mut input) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (key, peer) in &peers {
            same(format_args!("problems of {key}"), &peer.problems, &Vec::new())?;
            sent.extend(peer.sent.iter().map(|(to, count)| ((key.clone(), to.clone()), *count)));
            received.extend(peer.received.iter().map(|(from, count)| ((from.clone(), key.clone()), *count)));
            input.extend(peer.input.iter().map(|(partition, (_, count))| ((key.clone(), *partition), *count)));
        }
        same("messages received, by sender and receiver", &received, &sent)?;
        let mut expected = BTreeMap::new();
        for go in self.partitions.iter().flatten() {
            *expected.entry((go.key.clone(), go.partition)).or_insert(0) += 1;
        }
        same("records handled, by key and partition", &input, &expected)
    }
}
