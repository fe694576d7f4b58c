//! The saga in an app in memory: each way that an order can go.

#![allow(clippy::unwrap_used, reason = "a test fails loudly where it stands")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use orders::{
    api::{NotPlaced, Place, Placed, Release, Reserve, Restock, SHIPMENTS, Shipment},
    order::{Order, PATIENCE, Status},
    payments::{Client, Declined, charge, refund},
    stock::Stock,
};
use statefn::{
    Done, EventTime, Failed, Reply, TryAgain,
    testing::{Harness, TestApp},
};

/// A shop with ten pens; the outside charges and pays back.
fn shop() -> TestApp {
    let nobody = Client::new(SocketAddr::from(([127, 0, 0, 1], 1)));
    let mut shop = TestApp::new(orders::app(nobody));
    shop.stand_in::<charge>(|charge, _| match charge.card.as_str() {
        "empty" => Err(Declined {}.into()),
        _ => Ok(format!("receipt-{}", charge.order)),
    });
    shop.stand_in::<refund>(|refund, _| Ok(refund.cents));
    shop.request(Stock::at("pen"), Restock { count: 10, price_cents: 150 }).unwrap();
    shop
}

fn place(count: u32, card: &str) -> Place {
    Place { item: "pen".into(), count, card: card.into() }
}

fn stock(shop: &mut TestApp) -> (u32, usize, u32) {
    let stock = shop.state(Stock::at("pen")).unwrap();
    (stock.left, stock.reserved.len(), stock.shipped)
}

#[test]
fn an_order_is_paid_and_shipped_before_it_is_answered() {
    let mut shop = shop();
    let answer = shop.request(Order::at("o-1"), place(2, "4242"));
    assert_eq!(answer, Ok(Placed { receipt: "receipt-o-1".into(), cents: 300 }));
    assert_eq!(stock(&mut shop), (8, 0, 2));
    let shipment = Shipment { item: "pen".into(), count: 2, order: "o-1".into() };
    assert_eq!(shop.emitted(&SHIPMENTS), [shipment]);
}

#[test]
fn an_order_that_is_sold_out_or_not_paid_leaves_nothing_behind() {
    let mut shop = shop();
    let answer = shop.request(Order::at("o-1"), place(11, "4242"));
    assert_eq!(answer, Err(Failed::Rejected(NotPlaced::SoldOut { left: 10 })));
    let answer = shop.request(Order::at("o-2"), place(1, "empty"));
    assert_eq!(answer, Err(Failed::Rejected(NotPlaced::Declined)));
    assert_eq!(stock(&mut shop), (10, 0, 0));
    assert_eq!(shop.dead_letters(), []);
}

#[test]
fn an_order_number_is_used_once() {
    let mut shop = shop();
    shop.request(Order::at("o-1"), place(1, "4242")).unwrap();
    let again = shop.request(Order::at("o-1"), place(1, "4242"));
    assert_eq!(again, Err(Failed::Rejected(NotPlaced::Known)));
    assert_eq!(stock(&mut shop), (9, 0, 1));
}

#[test]
fn an_order_survives_a_crash_and_its_caller_asks_again() {
    let mut shop = shop();
    let is_open = Arc::new(AtomicBool::new(false));
    let open = Arc::clone(&is_open);
    shop.stand_in::<charge>(move |charge, _| match open.load(Ordering::Relaxed) {
        true => Ok(format!("receipt-{}", charge.order)),
        false => Err(TryAgain::new("closed").into()),
    });
    let begun = shop.begin(Order::at("o-1"), place(1, "4242"), Some("once"));
    assert!(shop.answer(&begun).is_none());
    shop.crash();
    is_open.store(true, Ordering::Relaxed);
    let again = shop.begin(Order::at("o-1"), place(1, "4242"), Some("once"));
    assert_eq!(shop.answer(&again), Some(Ok(Placed { receipt: "receipt-o-1".into(), cents: 150 })));
    assert_eq!(stock(&mut shop), (9, 0, 1));
}

#[test]
fn what_comes_too_late_is_given_back() {
    let mut order = Harness::<Order>::at("o-1");
    assert_eq!(order.begin(place(2, "4242")), Ok(None));
    order.reply(Reply::<Stock, Reserve>::new("pen".into(), 0, Ok(150))).unwrap();
    order.advance_to(EventTime(0) + PATIENCE + Duration::from_millis(1)).unwrap();
    assert_eq!(order.answers::<Placed, NotPlaced>(), [Err(NotPlaced::TooLate)]);
    order.reply(Done::<charge> { token: 0, outcome: Ok("receipt".into()) }).unwrap();
    assert_eq!(order.sent::<Stock, Release>().len(), 1);
    let called: Vec<u64> = order.called::<refund>().iter().map(|(refund, _)| refund.cents).collect();
    assert_eq!(called, [300]);
    order.reply(Done::<refund> { token: 0, outcome: Ok(300) }).unwrap();
    assert_eq!((order.state().refunded_cents, &order.state().status), (300, &Status::Refused(NotPlaced::TooLate)));
}

#[test]
fn a_payment_that_nobody_knows_of_parks_the_order_for_a_person() {
    let mut shop = shop();
    shop.stand_in::<charge>(|_, _| Err(TryAgain::new("closed for ever").into()));
    let begun = shop.begin(Order::at("o-1"), place(1, "4242"), None);
    shop.advance_clock(Duration::from_secs(2 * 60 * 60));
    shop.run();
    assert!(shop.answer(&begun).is_none());
    let parked = shop.parked();
    assert_eq!(parked.len(), 1);
    assert_eq!(parked[0].0, "shop/order");
}
