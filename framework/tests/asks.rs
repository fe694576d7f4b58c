//! Asks, deferred answers, activities and delays, in whole apps in memory.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use statefn::{
    Policy,
    prelude::*,
    testing::{Harness, SpanKind, SpanRecord, TestApp, Trace},
};

#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "reserve")]
struct Reserve {
    count: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "restock")]
struct Restock {
    count: u32,
}

#[derive(Debug, PartialEq, Serialize, Deserialize, Reject)]
#[reject(code = "sold-out", status = 409)]
struct SoldOut {
    left: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Message)]
#[message(name = "place")]
struct Place {
    item: String,
    count: u32,
}

#[derive(Debug, PartialEq, Serialize, Deserialize, Message)]
#[message(name = "placed")]
struct Placed {
    receipt: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "charge")]
struct Charge {
    count: u32,
}

#[derive(Debug, PartialEq, Serialize, Deserialize, Reject)]
#[reject(code = "declined", status = 402)]
struct Declined {}

#[derive(Debug, PartialEq, Serialize, Deserialize, Reject)]
enum Refused {
    #[reject(code = "sold-out", status = 409)]
    SoldOut { left: u32 },
    #[reject(code = "declined", status = 402)]
    Declined,
}

/// Charges; never really called in these tests.
#[expect(clippy::unused_async, reason = "an activity is async, also one that does not wait")]
#[activity(name = "shop/charge", policy = Policy::new().attempts_max(3))]
async fn charge(charge: Charge, ctx: ActivityContext) -> Result<u64, NotDone<Declined>> {
    Err(TryAgain::new(format_args!("no server for {} of {}", charge.count, ctx.id())))?
}

#[derive(Debug, Default, Clone, Serialize, Deserialize, State)]
struct Stock {
    left: u32,
}

#[function(name = "shop/stock")]
impl Stock {
    #[on]
    fn restock(&mut self, msg: &Restock) {
        self.left += msg.count;
    }

    #[on]
    fn reserve(&mut self, msg: &Reserve) -> Result<u32, Failed<SoldOut>> {
        if msg.count == 13 {
            return Err(Fault::new("an unlucky number").into());
        }
        self.left = self.left.checked_sub(msg.count).ok_or(SoldOut { left: self.left })?;
        Ok(self.left)
    }
}

#[derive(Debug, Default, Clone, Serialize, Deserialize, State)]
struct Order {
    caller: Option<ReplyTo<Placed, Refused>>,
    replies: Vec<(String, u64, bool)>,
    count: u32,
}

#[function(name = "shop/order", sends(Stock, Self))]
impl Order {
    #[on]
    fn place(&mut self, msg: &Place, ctx: &mut Context<Self>) -> Result<Deferred<Placed>, Refused> {
        if msg.count == 0 {
            return Err(Refused::Declined);
        }
        let (later, caller) = ctx.defer_reply();
        self.caller = Some(caller);
        self.count = msg.count;
        ctx.ask(Stock::at(&msg.item), Reserve { count: msg.count }, 7);
        Ok(later)
    }

    #[on]
    fn again(&mut self, msg: &Reserve, ctx: &mut Context<Self>) {
        ctx.send_after(Duration::from_secs(30), Order::at("other"), msg.clone());
        self.count += 1;
    }

    #[on_reply]
    fn reserved(&mut self, reply: Reply<Stock, Reserve>, ctx: &mut Context<Self>) {
        self.replies.push((reply.key, reply.token, reply.outcome.is_ok()));
        match reply.outcome {
            Ok(_) => ctx.call::<charge>(Charge { count: self.count }, 8),
            Err(Failed::Rejected(SoldOut { left })) => self.finish(Err(Refused::SoldOut { left }), ctx),
            Err(Failed::Fault(_)) => {}
        }
    }

    #[on_reply]
    fn charged(&mut self, done: &Done<charge>, ctx: &mut Context<Self>) {
        match &done.outcome {
            Ok(receipt) => self.finish(Ok(Placed { receipt: *receipt + done.token }), ctx),
            Err(_) => self.finish(Err(Refused::Declined), ctx),
        }
    }

    fn finish(&mut self, answer: Result<Placed, Refused>, ctx: &mut Context<Self>) {
        if let Some(caller) = self.caller.take() {
            ctx.answer(caller, answer);
        }
    }
}

fn app() -> App {
    App::new("shop").function::<Stock>().function::<Order>().activity::<charge>()
}

fn shop() -> TestApp {
    let mut shop = TestApp::new(app());
    shop.stand_in::<charge>(|charge, _| if charge.count > 5 { Err(Declined {}.into()) } else { Ok(100) });
    shop.request(Stock::at("pen"), Restock { count: 10 }).expect("is taken");
    shop
}

fn place(count: u32) -> Place {
    Place { item: "pen".into(), count }
}

#[test]
fn a_saga_answers_its_caller_at_its_end() {
    let mut shop = shop();
    assert_eq!(shop.request(Order::at("o-1"), place(3)), Ok(Placed { receipt: 108 }));
    assert_eq!(shop.state(Stock::at("pen")).map(|stock| stock.left), Some(7));
    let replies = shop.state(Order::at("o-1")).map(|order| order.replies);
    assert_eq!(replies, Some(vec![("pen".to_owned(), 7, true)]));
    assert_eq!(shop.dead_letters(), []);
}

#[test]
fn a_rejection_comes_back_as_a_reply_and_makes_no_dead_letter() {
    let mut shop = shop();
    let answer = shop.request(Order::at("o-1"), place(11));
    assert_eq!(answer, Err(Failed::Rejected(Refused::SoldOut { left: 10 })));
    assert_eq!(shop.dead_letters(), []);
}

#[test]
fn a_rejection_of_an_activity_comes_back() {
    let mut shop = shop();
    assert_eq!(shop.request(Order::at("o-1"), place(6)), Err(Failed::Rejected(Refused::Declined)));
}

#[test]
fn a_handler_that_may_defer_may_also_reject_at_once() {
    let mut shop = shop();
    assert_eq!(shop.request(Order::at("o-1"), place(0)), Err(Failed::Rejected(Refused::Declined)));
    assert_eq!(shop.state(Order::at("o-1")).map(|order| order.count), None, "a rejected call changes nothing");
}

#[test]
fn what_an_activity_tries_again_survives_a_crash_and_the_request_finds_its_answer() {
    let mut shop = shop();
    let attempts = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&attempts);
    shop.stand_in::<charge>(move |_, _| match counted.fetch_add(1, Ordering::Relaxed) {
        0 | 1 => Err(TryAgain::new("later").into()),
        _ => Ok(5),
    });
    let begun = shop.begin(Order::at("o-1"), place(1), Some("once"));
    assert!(shop.answer(&begun).is_none(), "the first attempt fails");
    shop.crash();
    shop.run();
    assert!(shop.answer(&begun).is_none(), "nobody of the old process is told");
    let again = shop.begin(Order::at("o-1"), place(1), Some("once"));
    assert_eq!(shop.answer(&again), Some(Ok(Placed { receipt: 13 })));
    assert_eq!(attempts.load(Ordering::Relaxed), 3);
    shop.crash();
    let later = shop.begin(Order::at("o-1"), place(1), Some("once"));
    assert_eq!(shop.answer(&later), Some(Ok(Placed { receipt: 13 })));
    assert_eq!(shop.state(Stock::at("pen")).map(|stock| stock.left), Some(9), "the order was placed once");
}

/// One trace over a request, an ask to another shard, its reply, an activity that a crash interrupts, its result,
/// and a message after a delay.
#[test]
fn what_an_order_does_is_one_tree_also_over_a_crash() {
    const ROOT: Trace = Trace { id: [9; 16], span: 3, parent: 0 };
    let mut shop = shop();
    let is_open = Arc::new(AtomicU32::new(0));
    let (opened, told) = (Arc::clone(&is_open), Arc::new(std::sync::Mutex::new(Vec::new())));
    let headers = Arc::clone(&told);
    shop.stand_in::<charge>(move |_, ctx| {
        headers.lock().expect("no test broke").push(ctx.traceparent().map(str::to_owned));
        if opened.load(Ordering::Relaxed) == 0 { Err(TryAgain::new("later").into()) } else { Ok(5) }
    });
    shop.begin_traced(Order::at("o-1"), place(1), ROOT);
    shop.crash();
    is_open.store(1, Ordering::Relaxed);
    shop.begin_traced(Order::at("o-2"), Reserve { count: 2 }, Trace { span: 4, ..ROOT });
    shop.crash();
    shop.advance_clock(Duration::from_secs(30));
    shop.run();
    let (asked, replied) = (ROOT.child(1), ROOT.child(1).child(1));
    let result = replied.child(1);
    let calls: Vec<_> =
        shop.spans().iter().map(SpanRecord::clone).map(|span| (span.kind, span.name, span.trace)).collect();
    let (other, delayed) = (Trace { span: 4, ..ROOT }, Trace { span: 4, ..ROOT }.child(1));
    let expected = [
        (SpanKind::Request, "place", ROOT),
        (SpanKind::Message, "reserve", asked),
        (SpanKind::Reply, "shop/stock/reserve=", replied),
        (SpanKind::Reply, "shop/charge=", result),
        (SpanKind::Request, "reserve", other),
        (SpanKind::Message, "reserve", delayed),
    ];
    for (kind, name, trace) in expected {
        let found = calls.iter().filter(|call| **call == (kind, name.to_owned(), trace)).count();
        assert_eq!(found, 1, "{kind:?} {name} {trace:?} in {calls:?}");
    }
    assert_eq!(calls.len(), expected.len(), "{calls:?}");
    // Attempts are beside the result, under the call that asked for them.
    let told = told.lock().expect("no test broke").clone();
    let header = Trace { parent: replied.span, ..result.child(1) }.traceparent();
    assert_eq!(told, [Some(header.clone()), Some(header)]);
}

#[test]
fn who_asks_a_key_that_is_parked_waits() {
    let mut shop = shop();
    let begun = shop.begin(Order::at("o-1"), place(13), None);
    assert!(shop.answer(&begun).is_none());
    let parked = shop.parked();
    assert_eq!(parked.len(), 1);
    assert_eq!((parked[0].0.as_str(), parked[0].2.reason.as_str()), ("shop/stock", "an unlucky number"));
}

#[test]
fn a_message_is_sent_later_by_the_clock_also_after_a_crash() {
    let mut shop = shop();
    shop.request(Order::at("o-1"), Reserve { count: 2 }).expect("is taken");
    assert!(shop.state(Order::at("other")).is_none());
    shop.crash();
    shop.advance_clock(Duration::from_secs(29));
    shop.run();
    assert!(shop.state(Order::at("other")).is_none());
    shop.advance_clock(Duration::from_secs(1));
    shop.run();
    assert_eq!(shop.state(Order::at("other")).map(|order| order.count), Some(1));
}

#[test]
fn one_function_alone_shows_what_it_asks_calls_and_answers() {
    let mut order = Harness::<Order>::at("o-1");
    assert_eq!(order.begin(place(3)), Ok(None));
    let asked = order.asked::<Stock, Reserve>();
    assert_eq!(
        asked.iter().map(|(key, msg, token)| (key.as_str(), msg.count, *token)).collect::<Vec<_>>(),
        [("pen", 3, 7)]
    );
    order.reply(Reply::<Stock, Reserve>::new("pen".into(), 7, Ok(1))).expect("handled");
    assert_eq!(order.called::<charge>().iter().map(|(call, token)| (call.count, *token)).collect::<Vec<_>>(), [(3, 8)]);
    order.reply(Done::<charge> { token: 8, outcome: Ok(1) }).expect("handled");
    assert_eq!(order.answers::<Placed, Refused>(), [Ok(Placed { receipt: 9 })]);
    order.deliver(Reserve { count: 1 }).expect("handled");
    let later = order.sent_later::<Order, Reserve>();
    assert_eq!((later[0].0, later[0].1.as_str()), (ProcessingTime(30_000), "other"));
}

#[test]
fn what_is_asked_or_called_has_to_be_declared() {
    #[derive(Debug, Default, Clone, Serialize, Deserialize, State)]
    struct Careless {}

    #[function(name = "shop/careless")]
    impl Careless {
        #[on_reply]
        fn reserved(&mut self, _: &Reply<Stock, Reserve>) {}
        #[on_reply]
        fn charged(&mut self, _: &Done<charge>) -> Result<(), Fault> {
            Ok(())
        }
    }
    let error = TestApp::try_with_shards(App::new("shop").function::<Careless>().function::<Stock>(), 1);
    let error = error.expect_err("does not link").to_string();
    assert!(error.contains("takes replies of `shop/stock` to `reserve` but does not declare"), "{error}");
    assert!(error.contains("calls the activity `shop/charge`, which the app does not register"), "{error}");
}
