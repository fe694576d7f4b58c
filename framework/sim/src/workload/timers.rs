//! Timers and event-time order in two stages: first/* sends to second/*, from messages and timers.
//!
//! The input is out of order within its lateness. What must hold for every key of the second
//! stage: all plain messages arrive; messages in event-time order and timers come in one order,
//! as a simulation of the key alone, from the whole input sorted by time, says; no timer at T
//! comes before a message of a time up to T.
//!
//! So that there is one right answer, the times of different senders to one key differ, and what
//! plain messages set has no name (they come in any order).

use std::{
    collections::{BTreeMap, BTreeSet},
    mem::discriminant,
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

static LINES: Egress<Line> = Egress::new("lines");

/// How many keys the first stage has.
const FIRST_KEYS: i64 = 4;
/// Times of different senders, which are these keys and the ingress `direct`, differ modulo this.
const SENDERS: i64 = FIRST_KEYS + 1;
const SECOND_KEYS: u64 = 5;

/// What a call of the second stage does besides its line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Task {
    /// Sets a timer without a name, so many milliseconds after the call's time.
    Set { after: i64, ping: Ping },
    /// Sets or replaces a named timer.
    SetAs { name: String, after: i64, named: Named },
    /// Takes a named timer back.
    Cancel { name: String },
    /// Sets a periodic timer.
    Repeat { after: i64, again: Again },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Ping {
    id: u64,
    tasks: Vec<Task>,
}
message!(Ping, "ping");

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Named {
    id: u64,
    tasks: Vec<Task>,
}
message!(Named, "named");

/// A timer that sets itself again: at the end of the input it stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Again {
    id: u64,
    period: i64,
}
message!(Again, "again");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Plain {
    id: u64,
    tasks: Vec<Task>,
}
message!(Plain, "plain");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Ordered {
    id: u64,
    tasks: Vec<Task>,
}
message!(Ordered, "ordered");

/// A message that the first stage sends.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Order {
    to: String,
    id: u64,
    is_ordered: bool,
    tasks: Vec<Task>,
}

/// A record of the input: what a key of the first stage sends now, and from a timer.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Event {
    at: i64,
    key: String,
    now: Vec<Order>,
    later: Vec<(i64, Vec<Order>)>,
}
message!(Event, "event");

/// A record of the ingress that leads straight to the second stage.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Direct {
    at: i64,
    order: Order,
}
message!(Direct, "direct");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Later {
    orders: Vec<Order>,
}
message!(Later, "later");

/// What a line tells besides its key: the kind of call, its time, its id.
type Told = (What, i64, u64);

/// What a call of the second stage tells.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    key: String,
    what: What,
    time: i64,
    id: u64,
}
message!(Line, "line");

#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Plain,
    Ordered,
    Timer,
}

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct First {
    events: u64,
}

function! {
    First, "sim/first",
    on { 0 plain Event -> (): event }
    timers { 0 Later: later }
    sends { 0 Second }
    emits {}
}

impl First {
    fn event(&mut self, msg: &Event, ctx: &mut Context<'_, Self>) {
        self.events += 1;
        send(&msg.now, ctx);
        for (after, orders) in &msg.later {
            ctx.set_timer(ctx.event_time() + ms(*after), Later { orders: orders.clone() });
        }
    }

    fn later(&mut self, timer: &Later, ctx: &mut Context<'_, Self>) {
        send(&timer.orders, ctx);
    }
}

fn send(orders: &[Order], ctx: &mut Context<'_, First>) {
    for Order { to, id, is_ordered, tasks } in orders {
        let (to, id, tasks) = (Address::<Second>::new(&**to), *id, tasks.clone());
        match is_ordered {
            true => ctx.send(to, Ordered { id, tasks }),
            false => ctx.send(to, Plain { id, tasks }),
        }
    }
}

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Second {
    calls: u64,
}

function! {
    Second, "sim/second",
    on { 0 plain Plain -> (): plain, 1 ordered Ordered -> (): ordered }
    timers { 0 Ping: ping, 1 Named: named, 2 Again: again }
    sends {}
    emits { LINES }
}

impl Second {
    fn plain(&mut self, msg: &Plain, ctx: &mut Context<'_, Self>) {
        self.call(What::Plain, msg.id, &msg.tasks, ctx);
    }
    fn ordered(&mut self, msg: &Ordered, ctx: &mut Context<'_, Self>) {
        self.call(What::Ordered, msg.id, &msg.tasks, ctx);
    }
    fn ping(&mut self, timer: &Ping, ctx: &mut Context<'_, Self>) {
        self.call(What::Timer, timer.id, &timer.tasks, ctx);
    }
    fn named(&mut self, timer: &Named, ctx: &mut Context<'_, Self>) {
        self.call(What::Timer, timer.id, &timer.tasks, ctx);
    }
    fn again(&mut self, timer: &Again, ctx: &mut Context<'_, Self>) {
        self.call(What::Timer, timer.id, &[], ctx);
        ctx.set_timer(ctx.event_time() + ms(timer.period), timer.clone());
    }

    fn call(&mut self, what: What, id: u64, tasks: &[Task], ctx: &mut Context<'_, Self>) {
        self.calls += 1;
        ctx.emit(&LINES, &Line { key: ctx.key().clone(), what, time: ctx.event_time().0, id });
        for task in tasks.iter().cloned() {
            let due = |after| ctx.event_time() + ms(after);
            match task {
                Task::Set { after, ping } => ctx.set_timer(due(after), ping),
                Task::SetAs { name, after, named } => ctx.set_timer_as(&name, due(after), named),
                Task::Cancel { name } => ctx.cancel_timer(&name),
                Task::Repeat { after, again } => ctx.set_timer(due(after), again),
            }
        }
    }
}

fn ms(count: i64) -> Duration {
    Duration::from_millis(count.unsigned_abs())
}

/// See the module.
pub(super) struct Timers {
    partitions: Vec<Vec<Event>>,
    direct: Vec<Direct>,
    lateness_ms: i64,
}

impl Timers {
    pub(super) fn new(random: &mut Random) -> Self {
        let partitions = random.between(1, 3) as usize;
        // The keys of a partition differ by up to 3 ms.
        let lateness_ms = random.one_of(&[5, 10, 40, 200]);
        let records = random.between(5, 60);
        let mut maker = Maker { random: random.fork(), next_id: 0 };
        let stretch = random.one_of(&[1, 5, 30]);
        let partitions =
            (0..partitions).map(|partition| maker.partition(partition, partitions, records, lateness_ms, stretch));
        let partitions = partitions.collect();
        let direct_records = maker.random.between(0, 40);
        let direct = maker.direct(direct_records, lateness_ms, stretch);
        Self { partitions, direct, lateness_ms }
    }
}

/// Makes the input.
struct Maker {
    random: Random,
    next_id: u64,
}

impl Maker {
    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn partition(
        &mut self,
        partition: usize,
        partitions: usize,
        records: i64,
        lateness_ms: i64,
        stretch: i64,
    ) -> Vec<Event> {
        let keys: Vec<i64> = (0..FIRST_KEYS).filter(|key| *key as usize % partitions == partition).collect();
        let mut newest = self.random.between(-50, 50) * SENDERS;
        let mut events = Vec::new();
        for _ in 0..records {
            newest += self.random.between(0, stretch) * SENDERS;
            let Some(key) = keys.get(self.random.place(keys.len().max(1))) else { break };
            let early = self.early(lateness_ms);
            let now = self.orders();
            let timers = self.random.below(3);
            let later = (0..timers).map(|_| (self.random.between(0, 20) * SENDERS, self.orders())).collect();
            events.push(Event { at: newest - early + key, key: first(*key), now, later });
        }
        events
    }

    /// How far a record is behind the newest one.
    fn early(&mut self, lateness_ms: i64) -> i64 {
        self.random.between(0, (lateness_ms / SENDERS - 1).max(0)) * SENDERS
    }

    fn direct(&mut self, records: i64, lateness_ms: i64, stretch: i64) -> Vec<Direct> {
        let mut newest = self.random.between(-50, 50) * SENDERS;
        let records = (0..records).map(|_| {
            newest += self.random.between(0, stretch) * SENDERS;
            Direct { at: newest - self.early(lateness_ms) + FIRST_KEYS, order: self.order() }
        });
        records.collect()
    }

    fn orders(&mut self) -> Vec<Order> {
        (0..self.random.below(3)).map(|_| self.order()).collect()
    }

    fn order(&mut self) -> Order {
        let is_ordered = self.random.chance(600);
        let tasks = (0..self.random.below(3)).map(|_| self.task(is_ordered, 2)).collect();
        Order { to: format!("second-{}", self.random.below(SECOND_KEYS)), id: self.id(), is_ordered, tasks }
    }

    fn task(&mut self, may_name: bool, depth: u32) -> Task {
        let after = self.random.one_of(&[0, 1, 2, 3, 4, 8, 30, 100, 5_000]);
        let name = format!("name-{}", self.random.below(2));
        let id = self.id();
        match self.random.below(if may_name { 8 } else { 4 }) {
            0 => Task::Repeat { after, again: Again { id, period: self.random.between(7, 60) } },
            // What an unnamed timer does must not depend on its place among equal ones.
            1..4 => Task::Set { after, ping: Ping { id, tasks: self.tasks(false, depth) } },
            4 => Task::Cancel { name },
            _ => Task::SetAs { name, after, named: Named { id, tasks: self.tasks(true, depth) } },
        }
    }

    fn tasks(&mut self, may_name: bool, depth: u32) -> Vec<Task> {
        if depth == 0 {
            return Vec::new();
        }
        (0..self.random.below(3)).map(|_| self.task(may_name, depth - 1)).collect()
    }
}

fn first(key: i64) -> String {
    format!("first-{key}")
}

/// When a message reaches a key of the second stage: its time, whether a timer sent it, and its
/// place among those of the same sender.
type Arrival = (i64, bool, usize);

/// The place of what is to come in the order of a key: time, timers behind messages, arrival.
type Place = (i64, bool, u64);

/// One key of the second stage, simulated alone.
#[derive(Default)]
struct Model {
    /// What is to come: by time, messages first, then by arrival.
    pending: BTreeMap<Place, (Pending, bool)>,
    named: BTreeMap<String, Place>,
    next: u64,
    lines: Vec<Told>,
}

#[derive(Clone)]
enum Pending {
    Ordered(u64, Vec<Task>),
    Ping(Ping),
    Named(String, Named),
    Again(Again),
}

impl Model {
    fn add(&mut self, time: i64, pending: Pending, by: Option<&Pending>) -> Place {
        let place = (time, !matches!(pending, Pending::Ordered(..)), self.next);
        self.next += 1;
        // A timer that a timer of its kind has set stays at the end of the input.
        let is_rearmed = by.is_some_and(|by| discriminant(by) == discriminant(&pending));
        self.pending.insert(place, (pending, is_rearmed));
        place
    }

    fn run(&mut self, last_event: i64) {
        while let Some(((time, ..), (pending, is_rearmed))) = self.pending.pop_first() {
            if is_rearmed && time > last_event {
                continue;
            }
            let by = pending.clone();
            let (what, id, tasks) = match pending {
                Pending::Ordered(id, tasks) => (What::Ordered, id, tasks),
                Pending::Ping(Ping { id, tasks }) => (What::Timer, id, tasks),
                Pending::Named(name, Named { id, tasks }) => {
                    self.named.remove(&name);
                    (What::Timer, id, tasks)
                }
                Pending::Again(again) => (What::Timer, again.id, vec![Task::Repeat { after: again.period, again }]),
            };
            self.lines.push((what, time, id));
            self.run_tasks(time, &tasks, Some(&by));
        }
    }

    fn run_tasks(&mut self, time: i64, tasks: &[Task], by: Option<&Pending>) {
        for task in tasks.iter().cloned() {
            match task {
                Task::Set { after, ping } => _ = self.add(time + after, Pending::Ping(ping), by),
                Task::Repeat { after, again } => _ = self.add(time + after, Pending::Again(again), by),
                Task::Cancel { name } => self.cancel(&name),
                Task::SetAs { name, after, named } => {
                    self.cancel(&name);
                    let place = self.add(time + after, Pending::Named(name.clone(), named), by);
                    self.named.insert(name, place);
                }
            }
        }
    }

    fn cancel(&mut self, name: &str) {
        if let Some(place) = self.named.remove(name) {
            self.pending.remove(&place);
        }
    }
}

impl Timers {
    /// By key of the second stage, all messages to it, in the order of time.
    fn arrivals(&self) -> BTreeMap<String, BTreeMap<Arrival, Vec<Order>>> {
        let mut arrivals: BTreeMap<String, BTreeMap<Arrival, Vec<Order>>> = BTreeMap::new();
        let mut place = 0;
        for event in self.partitions.iter().flatten() {
            let mut add = |time, is_timer, orders: &[Order]| {
                for order in orders {
                    place += 1;
                    let key = (time, is_timer, place);
                    arrivals.entry(order.to.clone()).or_default().entry(key).or_default().push(order.clone());
                }
            };
            add(event.at, false, &event.now);
            event.later.iter().for_each(|(after, orders)| add(event.at + after, true, orders));
        }
        for (place, Direct { at, order }) in self.direct.iter().enumerate() {
            arrivals.entry(order.to.clone()).or_default().insert((*at, false, place), vec![order.clone()]);
        }
        arrivals
    }

    fn expected(&self) -> BTreeMap<String, Expected> {
        let times = self.partitions.iter().flatten().map(|event| event.at);
        let last_event = times.chain(self.direct.iter().map(|direct| direct.at)).max().unwrap_or(i64::MIN);
        let expect = |arrivals: BTreeMap<Arrival, Vec<Order>>| {
            let mut model = Model::default();
            let mut plain = BTreeSet::new();
            for ((time, ..), orders) in arrivals {
                for Order { id, is_ordered, tasks, .. } in orders {
                    if is_ordered {
                        model.add(time, Pending::Ordered(id, tasks), None);
                    } else {
                        plain.insert((time, id));
                        model.run_tasks(time, &tasks, None);
                    }
                }
            }
            model.run(last_event);
            Expected { plain, lines: model.lines }
        };
        self.arrivals().into_iter().map(|(key, arrivals)| (key, expect(arrivals))).collect()
    }
}

/// What a key of the second stage has to tell.
struct Expected {
    plain: BTreeSet<(i64, u64)>,
    lines: Vec<Told>,
}

impl Workload for Timers {
    fn setup(&self) -> Setup {
        let lateness = ms(self.lateness_ms);
        let events =
            Ingress::<Event>::new("events").event_time(|event| EventTime(event.at)).lateness(lateness).to::<First>();
        let direct = Ingress::<Direct>::new("directs")
            .event_time(|direct| EventTime(direct.at))
            .lateness(lateness)
            .to::<Second>();
        let program = ProgramSpec {
            app: "timers".into(),
            functions: vec![FunctionSpec::of::<First>(), FunctionSpec::of::<Second>()],
            ingresses: vec![events.spec(), direct.spec()],
            egresses: vec![LINES.declaration()],
            ..ProgramSpec::default()
        };
        let events = bind(events, |event: Event, out| out.send(Address::<First>::new(&*event.key), event.clone()));
        let direct = bind(direct, |Direct { order, .. }, out| {
            let Order { to, id, is_ordered, tasks } = order;
            let to = Address::<Second>::new(to);
            if is_ordered { out.send(to, Ordered { id, tasks }) } else { out.send(to, Plain { id, tasks }) }
        });
        let event_records = self.partitions.iter().map(|events| events.iter().map(encoded).collect()).collect();
        let direct_records = self.direct.iter().map(encoded).collect();
        Setup {
            program,
            ingresses: vec![Box::new(events), Box::new(direct)],
            inputs: vec![event_records, vec![direct_records]],
        }
    }

    fn keep_records(&mut self, keeps: &mut dyn FnMut() -> bool) {
        self.partitions.iter_mut().for_each(|records| records.retain(|_| keeps()));
        self.direct.retain(|_| keeps());
    }

    fn check_end(&self, end: &End<'_>) -> Result<(), String> {
        let mut found = lines_by_key(end)?;
        for (key, Expected { plain, lines }) in self.expected() {
            let found = found.remove(&key).unwrap_or_default();
            check_no_timer_is_early(&key, &found)?;
            let (found_plain, found): (Vec<_>, Vec<_>) = found.into_iter().partition(|(what, ..)| *what == What::Plain);
            let found_plain: Vec<(i64, u64)> = found_plain.into_iter().map(|(_, time, id)| (time, id)).collect();
            let once: BTreeSet<_> = found_plain.iter().copied().collect();
            same(format_args!("plain messages of {key}"), &once, &plain)?;
            same(format_args!("plain messages of {key}, each once"), &found_plain.len(), &plain.len())?;
            same(
                format_args!("ordered messages and timers of {key}"),
                &in_any_order_of_timers(found),
                &in_any_order_of_timers(lines),
            )?;
        }
        same("keys nobody sends to", &found.keys().collect::<Vec<_>>(), &Vec::new())
    }
}

/// By key, what was told, in the order in which it was.
fn lines_by_key(end: &End<'_>) -> Result<BTreeMap<String, Vec<Told>>, String> {
    let mut lines: BTreeMap<String, Vec<Told>> = BTreeMap::new();
    for record in end.audit.shards.iter().flat_map(|shard| &shard.emitted) {
        if record.egress == usize::from(end.program.dead_letters) {
            return Err(format!("a dead letter: {}", String::from_utf8_lossy(&record.bytes)));
        }
        let Line { key, what, time, id } = Line::decode(&record.bytes).map_err(|error| error.to_string())?;
        lines.entry(key).or_default().push((what, time, id));
    }
    Ok(lines)
}

fn check_no_timer_is_early(key: &str, lines: &[Told]) -> Result<(), String> {
    let mut reached = i64::MIN;
    for (what, time, id) in lines {
        match what {
            What::Timer => reached = reached.max(*time),
            _ if *time <= reached => {
                return Err(format!("{key}: message {id} of {time} comes after a timer at {reached}"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Timers of one time may come in any order, as those that plain messages set do.
fn in_any_order_of_timers(mut lines: Vec<Told>) -> Vec<Told> {
    for equal in lines.chunk_by_mut(|a, b| (a.0, a.1) == (b.0, b.1)) {
        if equal[0].0 == What::Timer {
            equal.sort_unstable();
        }
    }
    lines
}

fn encoded(record: &impl Wire) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    bytes
}
