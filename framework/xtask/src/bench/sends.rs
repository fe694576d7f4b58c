//! Messages from function to function: each event makes some sends to other random keys, all in its
//! own shard or all in other shards.
//!
//! The log is in memory; a message to another shard stands in a sealed frame, one to the own shard
//! does not. The loop by hand encodes each message behind its key into its journal and decodes it
//! there; what the app would not seal it takes out of the journal again.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use statefn::{
    __private::{Wire, murmur2, shard_of},
    prelude::*,
};

use super::{
    Failure,
    audit::{self, Audit},
    counted::Counted,
    figures::Figures,
    files::{self, put_record, read_record},
    meter::Meter,
    numbers::mixed,
    pin,
    row::{Measuring, Row, Side},
    run_of_app::{self, Run},
};

/// How many sends an event has at most: its record stays short.
const SENDS_MAX: u64 = 8;
/// How many records are taken between two looks at the clock.
const RECORDS_PER_LOOK: u64 = 4_096;

/// What to run.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub(crate) struct Options {
    /// How many records are read.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// How many keys there are.
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// How many messages each event sends; each number in turn.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4])]
    sends: Vec<u64>,
    /// Where the messages go; each in turn.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Target::Local, Target::Cross])]
    to: Vec<Target>,
    /// How many threads run shards.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// How many shards there are.
    #[arg(long, default_value_t = 64)]
    shards: u32,
    /// The shortest time between two commits.
    #[arg(long, default_value = "100ms", value_parser = humantime::parse_duration)]
    commit_interval: Duration,
    #[command(flatten)]
    #[serde(skip)]
    measuring: Measuring,
}

/// Where messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
enum Target {
    /// To keys of the own shard.
    Local,
    /// To keys of other shards.
    Cross,
}

/// A record: which keys get a message, and from whom.
#[derive(Clone, PartialEq, prost::Message, Message)]
#[message(name = "kick", prost)]
struct Kick {
    #[prost(fixed64, tag = "1")]
    from: u64,
    #[prost(fixed64, repeated, tag = "2")]
    to: Vec<u64>,
}

#[derive(Clone, PartialEq, prost::Message, Message)]
#[message(name = "ping", prost)]
struct Ping {
    #[prost(fixed64, tag = "1")]
    from: u64,
}

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Node {
    kicks: u64,
    pings: u64,
}

#[function(name = "bench/node", key = u64, sends(Self))]
impl Node {
    #[on]
    fn kick(&mut self, msg: &Kick, ctx: &mut Context<Self>) {
        self.kicks += 1;
        audit::note(*ctx.key(), self.kicks);
        for to in &msg.to {
            ctx.send(Node::at(*to), Ping { from: *ctx.key() });
        }
    }

    #[on]
    fn ping(&mut self, msg: &Ping, ctx: &mut Context<Self>) {
        self.pings += 1;
        // In which order the messages of different keys come is open, so the two are noted apart.
        audit::note(*ctx.key(), self.pings);
        audit::note(*ctx.key(), msg.from);
    }
}

impl Row for Options {
    const NAME: &'static str = "sends";
    const MERIT: &'static str = "sends/CPU-second";

    fn measuring(&self) -> &Measuring {
        &self.measuring
    }

    fn points(&self) -> Vec<(String, Self)> {
        let points = self.to.iter().flat_map(|to| self.sends.iter().map(|sends| (*to, *sends)));
        let point = |(to, sends)| {
            let name = format!("{sends} {}", if to == Target::Local { "within the shard" } else { "to other shards" });
            (name, Self { to: vec![to], sends: vec![sends], ..self.clone() })
        };
        points.map(point).collect()
    }

    fn times(&self, factor: u64) -> Self {
        Self { events: self.events * factor, ..self.clone() }
    }

    fn events(&self) -> u64 {
        self.events
    }

    fn prepare(&self) -> Result<(), Failure> {
        let (to, sends) = self.point()?;
        let peers = Peers::of(self.keys, self.shards);
        files::prepare(&self.path()?, |file| {
            let mut record = Vec::new();
            for number in 0..self.events {
                record.clear();
                peers.kick(number, to, sends).encode(&mut record);
                put_record(file, &record)?;
            }
            Ok(())
        })
    }

    fn run(&self, side: Side, data: &Path) -> Result<Figures, Failure> {
        let _ = data;
        let sends = self.events * self.point()?.1;
        match side {
            Side::App => self.run_app(sends),
            Side::ByHand => self.run_by_hand(sends),
        }
    }
}

impl Options {
    fn point(&self) -> Result<(Target, u64), Failure> {
        match (self.to.first(), self.sends.first()) {
            (Some(to), Some(sends)) if (1..=SENDS_MAX).contains(sends) => Ok((*to, *sends)),
            _ => Err(format!("`--sends` must be 1 to {SENDS_MAX}, and `--to` say where").into()),
        }
    }

    fn path(&self) -> Result<PathBuf, Failure> {
        let (to, sends) = self.point()?;
        let Self { events, keys, shards, .. } = self;
        Ok(files::directory()?.join(format!("kicks-{to:?}-{sends}-{keys}-{shards}-{events}.pb")))
    }

    fn run_app(&self, sends: u64) -> Result<Figures, Failure> {
        let mut settings = Settings::new().input("kicks", self.path()?);
        settings.shards = Some(self.shards);
        settings.threads = Some(self.threads);
        settings.commit_interval = Some(self.commit_interval);
        let meter = Meter::start()?;
        let Run { totals, .. } = run_of_app::to_end(app().settings(settings), self.threads)?;
        if (totals.shards.messages, totals.shards.calls) != (sends, sends + self.events) {
            return Err(format!("{sends} messages were to be sent: {totals:?}").into());
        }
        self.figures(meter, sends, totals.shards.bytes)
    }

    fn figures(&self, meter: Meter, sends: u64, journal_bytes: u64) -> Result<Figures, Failure> {
        let figures = meter.stop(Audit::taken(), sends, "send")?;
        Ok(figures.with("log bytes/send", journal_bytes as f64 / sends as f64))
    }

    fn run_by_hand(&self, sends: u64) -> Result<Figures, Failure> {
        pin::this_thread();
        let meter = Meter::start()?;
        let mut work = ByHand { seals_messages: self.point()?.0 == Target::Cross, ..ByHand::default() };
        let mut reader = BufReader::with_capacity(256 << 10, File::open(self.path()?)?);
        let (mut record, mut records, mut committed_at) = (Vec::new(), 0_u64, Instant::now());
        while read_record(&mut reader, &mut record)? {
            work.take(&record)?;
            records += 1;
            if records.is_multiple_of(RECORDS_PER_LOOK) && committed_at.elapsed() >= self.commit_interval {
                work.commit();
                committed_at = Instant::now();
            }
        }
        work.commit();
        self.figures(meter, sends, work.journal_bytes)
    }
}

#[derive(Default)]
struct ByHand {
    seals_messages: bool,
    nodes: HashMap<u64, (Node, bool)>,
    changed: Vec<u64>,
    kick: Kick,
    ping: Ping,
    journal: Vec<u8>,
    journal_bytes: u64,
}

impl ByHand {
    fn take(&mut self, record: &[u8]) -> Result<(), Failure> {
        self.kick.decode_into(record)?;
        let from = self.kick.from;
        let node = self.node(from);
        node.kicks += 1;
        audit::note(from, node.kicks);
        let targets = std::mem::take(&mut self.kick.to);
        for to in &targets {
            let start = self.journal.len();
            self.journal.extend_from_slice(&to.to_le_bytes());
            let middle = self.journal.len();
            Ping { from }.encode(&mut self.journal);
            self.ping.decode_into(&self.journal[middle..])?;
            if !self.seals_messages {
                self.journal.truncate(start);
            }
            let from = self.ping.from;
            let node = self.node(*to);
            node.pings += 1;
            audit::note(*to, node.pings);
            audit::note(*to, from);
        }
        self.kick.to = targets;
        Ok(())
    }

    fn node(&mut self, key: u64) -> &mut Node {
        let (node, is_changed) = self.nodes.entry(key).or_default();
        if !*is_changed {
            *is_changed = true;
            self.changed.push(key);
        }
        node
    }

    /// Puts the changed states behind the messages, and forgets both.
    fn commit(&mut self) {
        for key in self.changed.drain(..) {
            let Some((node, is_changed)) = self.nodes.get_mut(&key) else { continue };
            *is_changed = false;
            for number in [key, node.kicks, node.pings] {
                self.journal.extend_from_slice(&number.to_le_bytes());
            }
        }
        self.journal_bytes += self.journal.len() as u64;
        self.journal.clear();
    }
}

fn app() -> App {
    let kicks = Ingress::<Kick>::new("kicks").to::<Node>();
    let app = App::new("bench-sends").function::<Node>();
    app.ingress(kicks, |kick, out| out.forward_unchanged(Node::at(kick.from), kick))
}

/// The app and its records, to count instructions.
pub(super) fn counted(shards: u32) -> [Counted; 2] {
    const KEYS: u64 = 10_000;
    const SENDS: u64 = 2;
    [("sends-within", Target::Local), ("sends-across", Target::Cross)].map(|(name, to)| {
        let peers = Peers::of(KEYS, shards);
        let record = move |number| {
            let mut bytes = Vec::new();
            peers.kick(number, to, SENDS).encode(&mut bytes);
            bytes
        };
        Counted { name, ingress: "kicks", app: app(), record: Box::new(record) }
    })
}

/// All keys, by shard.
struct Peers {
    keys: u64,
    shards: Vec<Vec<u64>>,
}

impl Peers {
    fn of(keys: u64, count: u32) -> Self {
        let mut shards = vec![Vec::new(); count as usize];
        (0..keys).for_each(|key| shards[shard(key, count)].push(key));
        Self { keys, shards }
    }

    fn kick(&self, number: u64, to: Target, sends: u64) -> Kick {
        let from = mixed(number) % self.keys;
        let random = |send| mixed(number * SENDS_MAX + send + 1);
        Kick { from, to: (0..sends).map(|send| self.pick(from, to, random(send))).collect() }
    }

    /// A key that `from` sends to.
    fn pick(&self, from: u64, to: Target, random: u64) -> u64 {
        let shards = self.shards.len();
        let own = shard(from, shards as u32);
        let shard = match to {
            Target::Cross if shards > 1 => (own + 1 + (random >> 32) as usize % (shards - 1)) % shards,
            Target::Cross | Target::Local => own,
        };
        let keys = &self.shards[shard];
        keys.get(random as u32 as usize % keys.len().max(1)).copied().unwrap_or(from)
    }
}

fn shard(key: u64, shards: u32) -> usize {
    shard_of(murmur2(Node::at(key).key()), shards) as usize
}
