//! Orders: sagas that ask for stock, charge outside by an activity, and answer their callers at the end.
//!
//! What must hold: each order is placed once and comes to an end; stock is reserved for exactly those
//! that are done; outside, each call has been charged once however often it was attempted, and an order
//! that is not done has its money back; each reply brings the token and the key it belongs to; a caller
//! is told what became of his order.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use statefn_core::{
    Address, Context, EventTime, Failed, Fault, Message, Reject, Wire,
    activity::{Activity, ActivityContext, CallOutcome, ErasedActivity, Policy, TryAgain},
    ask::{Deferred, Done, Reply, ReplyTo},
    function::Target,
    ingress::{Ingress, bind},
    program::{FunctionSpec, ProgramSpec},
    shard::{ActivityCall, Reply as Told},
};

use super::{Asked, End, Setup, Workload, same, states_of};
use crate::random::Random;

/// How long an order may take, in milliseconds of the clock.
const PATIENCE_MS: u64 = 1_500;
/// When an order looks at itself again, in milliseconds of the clock.
const REMINDER_MS: u64 = 200;
/// What the outside does not charge.
const DECLINED_CENTS: u64 = 7;
const ITEMS: u64 = 4;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Place {
    item: String,
    cents: u64,
}
message!(Place, "place");

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Placed {
    receipt: u64,
}
message!(Placed, "placed");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Reserve {
    order: String,
}
message!(Reserve, "reserve");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Release {
    order: String,
}
message!(Release, "release");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Remind {}
message!(Remind, "remind");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct TakesTooLong {}
message!(TakesTooLong, "takes-too-long");

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Payment {
    order: String,
    cents: u64,
}
message!(Payment, "payment");

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum No {
    SoldOut,
    Declined,
    TooLate,
}

impl Wire for No {
    fn encode(&self, out: &mut Vec<u8>) {
        statefn_core::message::encode_json(self, out);
    }
    fn decode(bytes: &[u8]) -> Result<Self, statefn_core::DecodeError> {
        statefn_core::message::decode_json(bytes)
    }
}

impl Reject for No {
    fn code(&self) -> &'static str {
        "no"
    }
    fn status(&self) -> u16 {
        409
    }
}

macro_rules! activity {
    ($type:ident, $name:literal) => {
        #[derive(Debug)]
        struct $type;
        impl Activity for $type {
            const NAME: &'static str = $name;
            const POLICY: Policy = Policy::new();
            type Call = Payment;
            type Return = Result<u64, No>;
            async fn attempt(_: Payment, _: ActivityContext) -> Result<u64, No> {
                unreachable!("the world makes the attempts")
            }
        }
    };
}
activity!(Charge, "sim/charge");
activity!(Refund, "sim/refund");

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Stock {
    taken: u64,
    reserved: BTreeSet<String>,
}

function! {
    Stock, "sim/stock",
    on {
        0 plain Reserve -> Result<u64, No>: reserve,
        1 plain Release -> (): release,
    }
    timers {}
    replies {}
    sends {}
    emits {}
}

impl Stock {
    fn reserve(&mut self, msg: &Reserve, ctx: &mut Context<'_, Self>) -> Result<u64, No> {
        // What a rejected call did to its copy must vanish.
        self.taken += 1;
        self.reserved.insert(msg.order.clone());
        if self.taken > room(ctx.key()) { Err(No::SoldOut) } else { Ok(self.taken) }
    }

    fn release(&mut self, msg: &Release, _: &mut Context<'_, Self>) {
        self.taken -= u64::from(self.reserved.remove(&msg.order));
    }
}

/// How often an item is there.
fn room(item: &str) -> u64 {
    item.bytes().map(u64::from).sum::<u64>() % 9 + 1
}

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
enum Status {
    #[default]
    New,
    Reserving,
    Charging,
    Done(u64),
    Refused(No),
}

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Order {
    item: String,
    cents: u64,
    placed: u64,
    reminded: u64,
    replies: u64,
    refunds: u64,
    status: Status,
    caller: Option<ReplyTo<Placed, No>>,
}

function! {
    Order, "sim/order",
    on {
        0 plain Place -> Deferred<Placed>: place,
        1 plain Remind -> (): remind,
    }
    timers { 0 TakesTooLong: takes_too_long }
    replies { 0 Reply<Stock, Reserve>: reserved, 1 Done<Charge>: charged, 2 Done<Refund>: refunded }
    sends { 0 Stock, 1 Order }
    emits {}
}

impl Order {
    fn place(&mut self, msg: &Place, ctx: &mut Context<'_, Self>) -> Deferred<Placed> {
        let (later, caller) = ctx.defer_reply();
        self.placed += 1;
        (self.item, self.cents) = (msg.item.clone(), msg.cents);
        self.caller = Some(caller);
        self.status = Status::Reserving;
        let order = ctx.key().clone();
        ctx.ask(Address::<Stock>::new(&*msg.item), Reserve { order }, self.cents);
        ctx.set_timer_as("patience", ctx.now() + Duration::from_millis(PATIENCE_MS), TakesTooLong {});
        ctx.send_after(Duration::from_millis(REMINDER_MS), Address::<Self>::new(ctx.key()), Remind {});
        later
    }

    fn remind(&mut self, _: &Remind, _: &mut Context<'_, Self>) {
        self.reminded += 1;
    }

    fn reserved(&mut self, reply: Reply<Stock, Reserve>, ctx: &mut Context<'_, Self>) -> Result<(), Fault> {
        self.replies += 1;
        if (&reply.key, reply.token) != (&self.item, self.cents) {
            return Err(Fault::new(format_args!("{reply:?} is not for this order")));
        }
        let payment = Payment { order: ctx.key().clone(), cents: self.cents };
        match (&self.status, reply.outcome) {
            (Status::Reserving, Ok(_)) => {
                self.status = Status::Charging;
                ctx.call::<Charge>(payment, self.cents);
            }
            (Status::Reserving, Err(Failed::Rejected(no))) => self.end(Err(no), ctx),
            (_, Ok(_)) => ctx.send(Address::<Stock>::new(&*self.item), Release { order: ctx.key().clone() }),
            (_, Err(_)) => {}
        }
        Ok(())
    }

    fn charged(&mut self, done: Done<Charge>, ctx: &mut Context<'_, Self>) -> Result<(), Fault> {
        self.replies += 1;
        if done.token != self.cents || self.replies > 2 {
            return Err(Fault::new(format_args!("{done:?} is not for this order, or came before")));
        }
        let order = ctx.key().clone();
        match (&self.status, done.outcome) {
            (Status::Charging, Ok(receipt)) => self.end(Ok(receipt), ctx),
            (Status::Charging, Err(_)) => {
                ctx.send(Address::<Stock>::new(&*self.item), Release { order });
                self.end(Err(No::Declined), ctx);
            }
            (_, Ok(_)) => {
                ctx.send(Address::<Stock>::new(&*self.item), Release { order: order.clone() });
                ctx.call::<Refund>(Payment { order, cents: self.cents }, 0);
            }
            (_, Err(_)) => ctx.send(Address::<Stock>::new(&*self.item), Release { order }),
        }
        Ok(())
    }

    fn refunded(&mut self, done: Done<Refund>, _: &mut Context<'_, Self>) -> Result<(), Fault> {
        self.refunds += 1;
        done.outcome.map(drop).map_err(|_| Fault::new("a refund is never refused"))
    }

    fn takes_too_long(&mut self, _: &TakesTooLong, ctx: &mut Context<'_, Self>) {
        self.end(Err(No::TooLate), ctx);
    }

    fn end(&mut self, outcome: Result<u64, No>, ctx: &mut Context<'_, Self>) {
        ctx.cancel_timer("patience");
        self.status = match &outcome {
            Ok(receipt) => Status::Done(*receipt),
            Err(no) => Status::Refused(no.clone()),
        };
        if let Some(caller) = self.caller.take() {
            ctx.answer(caller, outcome.map(|receipt| Placed { receipt }));
        }
    }
}

/// What the outside has done, by the identity of the call.
#[derive(Debug, Default)]
struct Outside {
    calls: BTreeMap<(u32, u64), (String, Payment)>,
    wrong: Vec<String>,
}

/// See the module.
pub(super) struct Orders {
    records: Vec<(String, Place)>,
    outside: RefCell<Outside>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    order: String,
    place: Place,
}
message!(Record, "record");

fn place(random: &mut Random) -> Place {
    Place { item: format!("item-{}", random.below(ITEMS)), cents: random.between(5, 30) as u64 }
}

impl Orders {
    pub(super) fn new(random: &mut Random) -> Self {
        let count = random.between(5, 40);
        let records = (0..count).map(|number| (format!("input-{number}"), place(random))).collect();
        Self { records, outside: RefCell::default() }
    }
}

impl Workload for Orders {
    fn setup(&self) -> Setup {
        let ingress = Ingress::<Record>::new("orders").event_time(|_| EventTime(1)).to::<Order>();
        let program = ProgramSpec {
            app: "orders".into(),
            functions: vec![FunctionSpec::of::<Order>(), FunctionSpec::of::<Stock>()],
            ingresses: vec![ingress.spec()],
            activities: vec![ErasedActivity::of::<Charge>(), ErasedActivity::of::<Refund>()],
            ..ProgramSpec::default()
        };
        let bind = bind(ingress, |record: Record, out| out.send(Address::<Order>::new(record.order), record.place));
        let records =
            self.records.iter().map(|(order, place)| encoded(&Record { order: order.clone(), place: place.clone() }));
        Setup { program, ingresses: vec![Box::new(bind)], inputs: vec![vec![records.collect()]] }
    }

    fn request(&self, random: &mut Random, id: u64) -> Option<Asked> {
        let key = format!("request-{id}").into_bytes();
        Some(Asked { function: Order::NAME, message: Place::NAME, key, payload: encoded(&place(random)) })
    }

    fn lingers_ms(&self) -> i64 {
        20_000
    }

    fn attempt(&self, call: &ActivityCall, _: u32) -> Result<CallOutcome, TryAgain> {
        let payment = Payment::decode(&call.call).map_err(TryAgain::new)?;
        let mut outside = self.outside.borrow_mut();
        let made = (call.activity.clone(), payment.clone());
        let known = outside.calls.entry((call.shard, call.id)).or_insert_with(|| made.clone()).clone();
        if known != made {
            outside.wrong.push(format!("call {} of shard {} was {known:?} and is {made:?}", call.id, call.shard));
        }
        let is_declined = call.activity == Charge::NAME && payment.cents == DECLINED_CENTS;
        let outcome = if is_declined { Err(Failed::Rejected(No::Declined)) } else { Ok(payment.cents + 1) };
        Ok(CallOutcome::of::<u64, No>(&outcome))
    }

    fn keep_records(&mut self, keeps: &mut dyn FnMut() -> bool) {
        self.records.retain(|_| keeps());
    }

    fn check_end(&self, end: &End<'_>) -> Result<(), String> {
        same("messages on their way at the end", &end.audit.on_the_way().count(), &0)?;
        let orders: BTreeMap<String, Order> = states_of::<Order>(end.audit, Order::NAME)?.into_iter().collect();
        for (name, order) in &orders {
            let what = |part: &str| format!("{part} of {name}, which is {:?}", order.status);
            same(what("placements"), &order.placed, &1)?;
            same(what("reminders"), &order.reminded, &1)?;
            // Also one that is sold out, or that has not waited, is told so.
            same(what("being told of the stock"), &(order.replies > 0), &true)?;
            if matches!(order.status, Status::New | Status::Reserving | Status::Charging) {
                return Err(format!("{name} has not come to an end: {order:?}"));
            }
        }
        for (name, _) in &self.records {
            same(format!("whether {name} is there"), &orders.contains_key(name), &true)?;
        }
        self.check_stock(end, &orders)?;
        self.check_money(&orders)?;
        check_answers(end, &orders)
    }
}

impl Orders {
    fn check_stock(&self, end: &End<'_>, orders: &BTreeMap<String, Order>) -> Result<(), String> {
        let stock = states_of::<Stock>(end.audit, Stock::NAME)?;
        for (item, stock) in &stock {
            same(format!("what is taken of {item}"), &stock.taken, &(stock.reserved.len() as u64))?;
        }
        let reserved: BTreeSet<&String> = stock.iter().flat_map(|(_, stock)| &stock.reserved).collect();
        let done: BTreeSet<&String> =
            orders.iter().filter(|(_, order)| matches!(order.status, Status::Done(_))).map(|(name, _)| name).collect();
        same("orders that have their stock", &reserved, &done)
    }

    fn check_money(&self, orders: &BTreeMap<String, Order>) -> Result<(), String> {
        let outside = self.outside.borrow();
        if let Some(wrong) = outside.wrong.first() {
            return Err(format!("the outside was told two things under one identity: {wrong}"));
        }
        let mut paid: BTreeMap<&String, i64> = orders.keys().map(|name| (name, 0)).collect();
        for (activity, Payment { order, cents }) in outside.calls.values() {
            let is_declined = activity == Charge::NAME && *cents == DECLINED_CENTS;
            let cents = if is_declined { 0 } else { *cents as i64 };
            let account = paid.get_mut(order).ok_or_else(|| format!("{order} has paid and is not there"))?;
            *account += if activity == Charge::NAME { cents } else { -cents };
        }
        let owed = orders
            .iter()
            .map(|(name, order)| (name, if matches!(order.status, Status::Done(_)) { order.cents as i64 } else { 0 }));
        same("what was paid outside", &paid, &owed.collect())
    }
}

fn check_answers(end: &End<'_>, orders: &BTreeMap<String, Order>) -> Result<(), String> {
    for told in end.answers {
        let name = format!("request-{}", told.answer.request);
        let status = orders.get(&name).map(|order| order.status.clone());
        let expected = match &told.answer.reply {
            Told::Answered(answer) => Placed::decode(answer).map(|placed| Status::Done(placed.receipt)),
            Told::Rejected(rejection) => No::decode(&rejection.value).map(Status::Refused),
            other => return Err(format!("{name} was answered by {other:?}")),
        };
        let expected = expected.map_err(|error| error.to_string())?;
        same(format!("what the caller of {name} was told"), &Some(expected), &status)?;
    }
    Ok(())
}

fn encoded(value: &impl Wire) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.encode(&mut bytes);
    bytes
}
