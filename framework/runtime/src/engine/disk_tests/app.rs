//! The app: counters that add up, tell a total on another shard, and write a line from a timer.
//!
//! Lines of a `line` have one order in every run: those of a counter, of its timer, and of a
//! counter's share of a total.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use statefn_core::{
    Address, Context, DecodeError, Egress, Encoding, EventTime, Fault, Message, State, Wire,
    egress::EgressDeclaration,
    function::{Accepts, Access, Function, Handles, HandlesTimer, Incoming, SendsTo, Target, TargetDeclaration},
    host::Handlers,
    ingress::{Ingress, bind},
    message::{decode_json, encode_json},
    program::{FunctionSpec, Program, ProgramSpec},
    shard::ParkedLimits,
    state::{self, Field},
};

use crate::{
    egress::{Place, SinkSpec},
    engine::{Input, InputPlace, Plan, Storage},
};

/// Where everything is.
pub(super) const HOME: &str = "/data";
pub(super) const SHARDS: u32 = 4;
/// The outputs.
pub(super) const OUTPUTS: [&str; 2] = ["sums", "shares"];
const SEGMENT_BYTES: u64 = 16 << 10;
const SNAPSHOT_TAIL_BYTES: u64 = 2 << 10;

static SUMS: Egress<Line> = Egress::new("sums");
static SHARES: Egress<Line> = Egress::new("shares");

macro_rules! json {
    ($type:ident, $name:literal) => {
        impl Wire for $type {
            fn encode(&self, out: &mut Vec<u8>) {
                encode_json(self, out);
            }
            fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
                decode_json(bytes)
            }
        }
        impl Message for $type {
            const NAME: &'static str = $name;
            const ENCODING: Encoding = Encoding::Json;
        }
    };
}

macro_rules! state {
    ($type:ident) => {
        impl State for $type {
            const FIELDS: &'static [Field] = &[];
            const VERSION: u32 = 1;
            fn encode_state(&self, out: &mut Vec<u8>) {
                state::encode(self, 1, out);
            }
            fn decode_state(bytes: &[u8]) -> Result<Self, DecodeError> {
                state::decode(bytes, 1)
            }
        }
    };
}

/// A line of an output; `amount` is what it adds up to within its `line`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Line {
    line: String,
    amount: u64,
}
json!(Line, "line");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Add {
    key: String,
    amount: u64,
    at: i64,
}
json!(Add, "add");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Share {
    of: String,
    amount: u64,
}
json!(Share, "share");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Later {
    amount: u64,
}
json!(Later, "later");

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Counter {
    sum: u64,
    fired: u64,
}
state!(Counter);

impl Target for Counter {
    const NAME: &'static str = "disk/counter";
    const MESSAGES: &'static [&'static str] = &[Add::NAME];
    type Key = String;
}

impl Function for Counter {
    const SENDS: &'static [TargetDeclaration] = &[TargetDeclaration::of::<Total>()];
    fn emits() -> Vec<EgressDeclaration> {
        vec![SUMS.declaration()]
    }
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.on::<Add>();
        handlers.on_timer::<Later>();
    }
}

impl SendsTo<Total> for Counter {
    const SLOT: u16 = 0;
}

impl Accepts<Add> for Counter {
    type Return = ();
    const INDEX: u16 = 0;
}

impl Handles<Add> for Counter {
    const ACCESS: Access = Access::Write;
    const IN_EVENT_TIME_ORDER: bool = false;
    fn handle(&mut self, add: &mut Incoming<Add>, ctx: &mut Context<'_, Self>) {
        let Add { key, amount, .. } = add.get();
        self.sum += amount;
        ctx.emit(&SUMS, &Line { line: key.clone(), amount: self.sum });
        ctx.send(Address::<Total>::new(format!("total-{}", amount % 5)), Share { of: key.clone(), amount: *amount });
        if amount.is_multiple_of(3) {
            ctx.set_timer(ctx.event_time() + Duration::from_millis(40), Later { amount: *amount });
        }
    }
}

impl HandlesTimer<Later> for Counter {
    const INDEX: u16 = 0;
    fn fire(&mut self, later: &mut Incoming<Later>, ctx: &mut Context<'_, Self>) -> Result<(), Fault> {
        self.fired += later.get().amount;
        ctx.emit(&SUMS, &Line { line: format!("timers of {}", ctx.key()), amount: self.fired });
        Ok(())
    }
}

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Total {
    sum: u64,
}
state!(Total);

impl Target for Total {
    const NAME: &'static str = "disk/total";
    const MESSAGES: &'static [&'static str] = &[Share::NAME];
    type Key = String;
}

impl Function for Total {
    const SENDS: &'static [TargetDeclaration] = &[];
    fn emits() -> Vec<EgressDeclaration> {
        vec![SHARES.declaration()]
    }
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.on::<Share>();
    }
}

impl Accepts<Share> for Total {
    type Return = ();
    const INDEX: u16 = 0;
}

impl Handles<Share> for Total {
    const ACCESS: Access = Access::Write;
    const IN_EVENT_TIME_ORDER: bool = false;
    fn handle(&mut self, share: &mut Incoming<Share>, ctx: &mut Context<'_, Self>) {
        let Share { of, amount } = share.get();
        self.sum += amount;
        ctx.emit(&SHARES, &Line { line: format!("{of} in {}", ctx.key()), amount: *amount });
    }
}

/// What each line of the outputs has in the end, if the input has so many records.
pub(in super::super) fn expected(records: u64) -> BTreeMap<String, Vec<u64>> {
    let mut lines = BTreeMap::<String, Vec<u64>>::new();
    for Add { key, amount, .. } in (0..records).map(record) {
        let mut add_up = |line: String| {
            let line = lines.entry(line).or_default();
            line.push(line.last().copied().unwrap_or_default() + amount);
        };
        add_up(key.clone());
        if amount.is_multiple_of(3) {
            add_up(format!("timers of {key}"));
        }
        lines.entry(format!("{key} in total-{}", amount % 5)).or_default().push(amount);
    }
    lines
}

/// The line that a record of an output belongs to, and its amount.
pub(in super::super) fn read_line(record: &[u8]) -> (String, u64) {
    let line = Line::decode(record).expect("an output has lines");
    (line.line, line.amount)
}

/// Record `number` of the input.
fn record(number: u64) -> Add {
    Add { key: format!("key-{}", number * 7 % 11), amount: 1 + number * 13 % 17, at: number as i64 * 5 }
}

/// The app with an input of so many records.
pub(in super::super) fn plan(records: u64) -> Plan {
    let ingress = Ingress::<Add>::new("adds")
        .event_time(|add| EventTime(add.at))
        .generate(move |number| (number < records).then(|| record(number)))
        .to::<Counter>();
    let program = Program::link(ProgramSpec {
        app: "disk".into(),
        functions: vec![FunctionSpec::of::<Counter>(), FunctionSpec::of::<Total>()],
        ingresses: vec![ingress.spec()],
        egresses: vec![SUMS.declaration(), SHARES.declaration()],
        ..ProgramSpec::default()
    });
    let program = program.expect("the app links");
    let bound = bind(ingress, |add: Add, out| out.send(Address::<Counter>::new(&*add.key), add));
    let ingresses = vec![bound(&program)];
    let output = |name: &str| SinkSpec {
        name: name.into(),
        encoding: Encoding::Json,
        place: Place::File(Path::new(HOME).join(format!("{name}.jsonl"))),
    };
    Plan {
        program: Arc::clone(&program),
        ingresses,
        inputs: vec![Input { places: vec![InputPlace::Generator], records_per_second: None }],
        outputs: OUTPUTS.into_iter().map(output).collect(),
        storage: Storage::Directory(HOME.into()),
        shards: SHARDS,
        threads: 1,
        commit_interval: Duration::ZERO,
        snapshot_tail_bytes: SNAPSHOT_TAIL_BYTES,
        segment_bytes: SEGMENT_BYTES,
        answers_kept: Duration::from_secs(3600),
        spans: None,
        handler_time_limit: Duration::from_secs(600),
        parked: ParkedLimits::default(),
        egress_backlog_bytes_max: 256 << 20,
    }
}
