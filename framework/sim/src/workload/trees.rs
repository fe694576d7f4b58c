//! Random program trees: a message holds commands, some of which send further messages with
//! commands, at once or by a timer that may be cancelled; some are rejected, some break their key.
//!
//! What must hold: an outside model walks the trees of the input and adds up what each key must
//! have run, hold and emit. Each run happens once, at its key; a cancelled send never; of a
//! rejected run nothing remains but its dead letter; a broken run parks its key with itself alone.
//! What a read answers is committed when it is answered (I7).
//!
//! So that there is one right answer, a run that breaks has a key of its own, and what cancels a
//! timer is a timer of the same key that was set by the same call.
//!
//! Source: the command interpreter of Flink Stateful Functions (`statefun-smoke-e2e`).

use std::{collections::BTreeMap, panic::resume_unwind, time::Duration};

use serde::{Deserialize, Serialize};
use statefn_core::{
    Address, Context, Egress, EventTime, Failed, Fault, Message, Wire,
    function::Target,
    ingress::{Ingress, bind},
    program::{FunctionSpec, Program, ProgramSpec},
    shard::{Answer, Reply},
};

use super::{Asked, End, Setup, Workload, faults::No, same, states_of};
use crate::{check::Audit, random::Random};

static LEAVES: Egress<Leaf> = Egress::new("leaves");
const KEYS: u64 = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Fate {
    Fine,
    Rejected,
    Fault,
    Panic,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Command {
    Add(u64),
    Emit,
    Send {
        to: String,
        run: Run,
    },
    /// Sends by a timer; another timer may take it back before.
    SendAfter {
        after: i64,
        cancel_after: Option<i64>,
        to: String,
        run: Run,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Run {
    id: u64,
    fate: Fate,
    commands: Vec<Command>,
}
message!(Run, "run");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Later {
    to: String,
    run: Run,
}
message!(Later, "later");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Cancel {
    name: String,
}
message!(Cancel, "cancel");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Read {}
message!(Read, "read");

/// What a read answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Seen {
    key: String,
    runs: usize,
}

impl Wire for Seen {
    fn encode(&self, out: &mut Vec<u8>) {
        statefn_core::message::encode_json(self, out);
    }
    fn decode(bytes: &[u8]) -> Result<Self, statefn_core::DecodeError> {
        statefn_core::message::decode_json(bytes)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Leaf {
    id: u64,
}
message!(Leaf, "leaf");

#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Node {
    total: u64,
    runs: Vec<u64>,
}

function! {
    Node, "sim/node",
    on { 0 plain Run -> Result<(), Failed<No>>: run, 1 read Read -> Seen: read }
    timers { 0 Later: later, 1 Cancel: cancel }
    sends { 0 Node }
    emits { LEAVES }
}

impl Node {
    fn run(&mut self, msg: &Run, ctx: &mut Context<'_, Self>) -> Result<(), Failed<No>> {
        self.runs.push(msg.id);
        for (place, command) in msg.commands.iter().enumerate() {
            self.command(msg.id, place, command, ctx);
        }
        match msg.fate {
            Fate::Fine => Ok(()),
            Fate::Rejected => Err(Failed::Rejected(No(msg.id))),
            Fate::Fault => Err(Fault::new("broken").into()),
            // A panic without the hook, which would print every one of them.
            Fate::Panic => resume_unwind(Box::new("broken")),
        }
    }

    fn command(&mut self, id: u64, place: usize, command: &Command, ctx: &mut Context<'_, Self>) {
        match command {
            Command::Add(count) => self.total += count,
            Command::Emit => ctx.emit(&LEAVES, &Leaf { id }),
            Command::Send { to, run } => ctx.send(Address::<Self>::new(&**to), run.clone()),
            Command::SendAfter { after, cancel_after, to, run } => {
                let due = |after: i64| ctx.event_time() + Duration::from_millis(after.unsigned_abs());
                let (due, cancel_due) = (due(*after), cancel_after.map(due));
                let name = format!("{id}-{place}");
                ctx.set_timer_as(&name, due, Later { to: to.clone(), run: run.clone() });
                if let Some(due) = cancel_due {
                    ctx.set_timer(due, Cancel { name });
                }
            }
        }
    }

    fn read(&mut self, _: &Read, ctx: &mut Context<'_, Self>) -> Seen {
        Seen { key: ctx.key().clone(), runs: self.runs.len() }
    }

    fn later(&mut self, timer: &Later, ctx: &mut Context<'_, Self>) {
        ctx.send(Address::<Self>::new(&*timer.to), timer.run.clone());
    }

    fn cancel(&mut self, timer: &Cancel, ctx: &mut Context<'_, Self>) {
        ctx.cancel_timer(&timer.name);
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Root {
    at: i64,
    key: String,
    run: Run,
}
message!(Root, "root");

/// Grows the trees.
struct Gardener {
    random: Random,
    next_id: u64,
}

impl Gardener {
    /// A key, and a run of at most this depth for it.
    fn run(&mut self, depth: u32) -> (String, Run) {
        self.next_id += 1;
        let id = self.next_id;
        let fate = match self.random.below(40) {
            0 => Fate::Fault,
            1 => Fate::Panic,
            2..6 => Fate::Rejected,
            _ => Fate::Fine,
        };
        let is_broken = matches!(fate, Fate::Fault | Fate::Panic);
        let key = if is_broken { format!("broken-{id}") } else { key(self.random.below(KEYS)) };
        let commands = (0..self.random.below(4)).filter_map(|_| self.command(depth)).collect();
        (key, Run { id, fate, commands })
    }

    fn command(&mut self, depth: u32) -> Option<Command> {
        match self.random.below(10) {
            0..3 => Some(Command::Add(self.random.below(100))),
            3 => Some(Command::Emit),
            _ if depth == 0 => None,
            4..8 => {
                let (to, run) = self.run(depth - 1);
                Some(Command::Send { to, run })
            }
            _ => {
                let after = self.random.one_of(&[0, 1, 5, 40, 1_000]);
                let cancel_after =
                    self.random.chance(500).then(|| self.random.between(0, 60)).filter(|at| *at != after);
                let (to, run) = self.run(depth - 1);
                Some(Command::SendAfter { after, cancel_after, to, run })
            }
        }
    }
}

fn key(number: u64) -> String {
    format!("node-{number}")
}

/// What the trees of the input must lead to.
#[derive(Debug, Default)]
struct Harvest {
    nodes: BTreeMap<String, Node>,
    broken: Vec<String>,
    rejected: usize,
    emitted: Vec<u64>,
}

impl Harvest {
    fn run(&mut self, key: &str, run: &Run) {
        match run.fate {
            Fate::Fault | Fate::Panic => return self.broken.push(key.to_owned()),
            Fate::Rejected => {
                self.rejected += 1;
                return;
            }
            Fate::Fine => {}
        }
        self.nodes.entry(key.to_owned()).or_default().runs.push(run.id);
        for command in &run.commands {
            match command {
                Command::Add(count) => self.nodes.entry(key.to_owned()).or_default().total += count,
                Command::Emit => self.emitted.push(run.id),
                Command::SendAfter { after, cancel_after, .. } if cancel_after.is_some_and(|at| at < *after) => {}
                Command::Send { to, run } | Command::SendAfter { to, run, .. } => self.run(to, run),
            }
        }
    }
}

/// See the module.
pub(super) struct Trees {
    partitions: Vec<Vec<Root>>,
}

impl Trees {
    pub(super) fn new(random: &mut Random) -> Self {
        let partitions = random.between(1, 3);
        let records = random.between(5, 60);
        let depth = random.between(1, 5) as u32;
        let mut gardener = Gardener { random: random.fork(), next_id: 0 };
        let mut root = |number: i64| {
            let (key, run) = gardener.run(depth);
            Root { at: number * 3, key, run }
        };
        Self { partitions: (0..partitions).map(|_| (0..records).map(&mut root).collect()).collect() }
    }

    fn check_emitted(end: &End<'_>, harvest: &Harvest) -> Result<(), String> {
        let (mut letters, mut emitted) = (0, Vec::new());
        for record in end.audit.shards.iter().flat_map(|shard| &shard.emitted) {
            if record.egress == usize::from(end.program.dead_letters) {
                letters += 1;
            } else {
                emitted.push(Leaf::decode(&record.bytes).map_err(|error| error.to_string())?.id);
            }
        }
        emitted.sort_unstable();
        let mut expected = harvest.emitted.clone();
        expected.sort_unstable();
        same("what was emitted", &emitted, &expected)?;
        same("rejected runs", &letters, &harvest.rejected)
    }
}

impl Workload for Trees {
    fn setup(&self) -> Setup {
        let ingress = Ingress::<Root>::new("roots").event_time(|root| EventTime(root.at)).to::<Node>();
        let program = ProgramSpec {
            app: "trees".into(),
            functions: vec![FunctionSpec::of::<Node>()],
            ingresses: vec![ingress.spec()],
            egresses: vec![LEAVES.declaration()],
            ..ProgramSpec::default()
        };
        let bind = bind(ingress, |root: Root, out| out.send(Address::<Node>::new(root.key), root.run));
        let encoded = |root: &Root| {
            let mut bytes = Vec::new();
            root.encode(&mut bytes);
            bytes
        };
        let inputs = self.partitions.iter().map(|roots| roots.iter().map(encoded).collect()).collect();
        Setup { program, ingresses: vec![Box::new(bind)], inputs: vec![inputs] }
    }

    fn request(&self, random: &mut Random, _: u64) -> Option<Asked> {
        let mut payload = Vec::new();
        Read {}.encode(&mut payload);
        let key = key(random.below(KEYS)).into_bytes();
        Some(Asked { function: Node::NAME, message: Read::NAME, key, payload })
    }

    fn check_answer(&self, _: &Program, audit: &Audit, answer: &Answer) -> Result<(), String> {
        let Reply::Answered(bytes) = &answer.reply else { return Err(format!("a read failed: {answer:?}")) };
        let seen = Seen::decode(bytes).map_err(|error| error.to_string())?;
        let nodes: BTreeMap<String, Node> = states_of::<Node>(audit, Node::NAME)?.into_iter().collect();
        let committed = nodes.get(&seen.key).map_or(0, |node| node.runs.len());
        if seen.runs > committed {
            return Err(format!("a read of {} tells {} runs, {committed} are committed (I7)", seen.key, seen.runs));
        }
        Ok(())
    }

    fn keep_records(&mut self, keeps: &mut dyn FnMut() -> bool) {
        self.partitions.iter_mut().for_each(|records| records.retain(|_| keeps()));
    }

    fn check_end(&self, end: &End<'_>) -> Result<(), String> {
        let mut harvest = Harvest::default();
        self.partitions.iter().flatten().for_each(|root| harvest.run(&root.key, &root.run));
        let mut nodes: BTreeMap<String, Node> = states_of::<Node>(end.audit, Node::NAME)?.into_iter().collect();
        for node in nodes.values_mut().chain(harvest.nodes.values_mut()) {
            node.runs.sort_unstable();
        }
        same("what each key has run and holds", &nodes, &harvest.nodes)?;
        let mut broken = Vec::new();
        for (_, key, parked) in end.audit.shards.iter().flat_map(|shard| shard.image.parked()) {
            let key = String::from_utf8_lossy(key).into_owned();
            same(format_args!("calls that wait for {key}"), &parked.queue.len(), &1)?;
            broken.push(key);
        }
        broken.sort_unstable();
        harvest.broken.sort_unstable();
        same("keys that are parked", &broken, &harvest.broken)?;
        Self::check_emitted(end, &harvest)
    }
}
