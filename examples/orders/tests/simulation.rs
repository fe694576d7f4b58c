//! The shop in simulated worlds: whatever happens, each order comes to an end, has what it paid for, and
//! nothing is paid twice.

#![allow(clippy::unwrap_used, reason = "a test fails loudly where it stands")]

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use orders::{
    api::{NotPlaced, Place, Placed, Restock, SHIPMENTS},
    order::{Order, Status},
    payments::{Charge, Client, Declined, Refund, charge, refund},
    stock::Stock,
};
use statefn::{
    Address, App, Failed, NotDone, TryAgain,
    testing::{Committed, Random, simulate},
};

const ITEMS: [&str; 3] = ["pen", "ink", "paper"];
const PRICE_CENTS: u64 = 150;
/// How many pieces of an item each restock brings.
const COUNT: u32 = 12;

/// A payment service that does each thing once, by its identity.
#[derive(Debug, Default)]
struct Payments {
    charges: BTreeMap<String, Charge>,
    refunds: BTreeMap<String, Refund>,
    attempts: u64,
}

impl Payments {
    fn charge(&mut self, charge: Charge, id: &str) -> Result<String, NotDone<Declined>> {
        self.attempts += 1;
        if self.attempts.is_multiple_of(5) {
            return Err(TryAgain::new("a bad day").into());
        }
        if charge.card.ends_with("0000") {
            return Err(Declined {}.into());
        }
        let known = self.charges.entry(id.to_owned()).or_insert_with(|| charge.clone());
        assert_eq!(*known, charge, "one identity stands for one payment");
        Ok(format!("receipt-{id}"))
    }

    fn refund(&mut self, refund: Refund, id: &str) -> Result<u64, TryAgain> {
        let known = self.refunds.entry(id.to_owned()).or_insert_with(|| refund.clone());
        assert_eq!(*known, refund, "one identity stands for one payment");
        Ok(refund.cents)
    }

    /// What an order has paid, and what of it was paid back.
    fn paid(&self, order: &str) -> u64 {
        let charges = self.charges.iter().filter(|(_, charge)| charge.order == order);
        let left = charges.map(|(id, charge)| {
            let receipt = format!("receipt-{id}");
            let back = self.refunds.values().filter(|refund| refund.receipt == receipt);
            charge.cents - back.map(|refund| refund.cents).sum::<u64>()
        });
        left.sum()
    }
}

fn app() -> App {
    orders::app(Client::new(SocketAddr::from(([127, 0, 0, 1], 1))))
}

fn restocks(_: &mut Random) -> Vec<(Address<Stock>, Restock)> {
    ITEMS.map(|item| (Stock::at(item), Restock { count: COUNT, price_cents: PRICE_CENTS })).to_vec()
}

/// The orders of a client, whose numbers nobody else uses.
fn places(client: &'static str) -> impl Fn(&mut Random) -> Vec<(Address<Order>, Place)> {
    move |random| {
        let number = random.between(3, 15);
        let mut place = |number: i64| {
            let (item, card) = (random.one_of(&ITEMS), random.one_of(&["4242", "4242", "4242", "0000"]));
            let place = Place { item: item.into(), count: random.between(1, 5) as u32, card: card.into() };
            (Order::at(format!("{client}-{number}")), place)
        };
        (0..number).map(&mut place).collect()
    }
}

/// Pieces are in stock, wait for an order, or are shipped.
fn no_piece_is_lost(world: &Committed<'_>) {
    let restocked = |item: &str| {
        let restocks = world.requests::<Stock, Restock>();
        let of_item = restocks.iter().filter(|(of, ..)| of == item);
        of_item.clone().filter(|(.., answer)| answer.is_some()).count()..=of_item.count()
    };
    for (item, stock) in world.states::<Stock>() {
        let pieces = stock.left + stock.reserved.values().sum::<u32>() + stock.shipped;
        assert_eq!(pieces % COUNT, 0, "{item}: {stock:?}");
        assert!(restocked(&item).contains(&((pieces / COUNT) as usize)), "{item}: {stock:?}");
    }
}

/// What was answered is what became of the order.
fn answers_are_true(world: &Committed<'_>) {
    for (number, _, answer) in world.requests::<Order, Place>() {
        let Some(answer) = answer else { continue };
        let order = world.state(&Order::at(&number)).unwrap();
        match answer {
            Ok(Placed { cents, .. }) => assert_eq!((order.status, order.cents), (Status::Shipped, cents), "{number}"),
            Err(Failed::Rejected(NotPlaced::Known)) => panic!("{number} was placed twice"),
            Err(Failed::Rejected(refused)) => assert_eq!(order.status, Status::Refused(refused), "{number}"),
            Err(Failed::Fault(fault)) => panic!("{number}: {fault}"),
        }
    }
}

fn every_order_is_done_or_undone(world: &Committed<'_>) {
    assert!(world.parked().is_empty() && world.dead_letters().is_empty());
    let payments = world.outside::<Payments>();
    let shipments = world.emitted(&SHIPMENTS);
    for (number, order) in world.states::<Order>() {
        let shipped: Vec<_> = shipments.iter().filter(|shipment| shipment.order == number).collect();
        let is_shipped = order.status == Status::Shipped;
        assert!(is_shipped || matches!(order.status, Status::Refused(_)), "{number} hangs: {order:?}");
        assert_eq!(shipped.len(), usize::from(is_shipped), "{number}");
        assert_eq!(payments.paid(&number), if is_shipped { order.cents } else { 0 }, "{number}: {order:?}");
    }
    assert!(world.states::<Stock>().iter().all(|(_, stock)| stock.reserved.is_empty()), "nothing is kept for nobody");
}

#[test]
fn orders_are_done_or_undone_whatever_happens() {
    let report = simulate(app)
        .live()
        .seeds(150)
        .outside(Payments::default)
        .stand_in::<charge, Payments>(|payments, charge, ctx| payments.charge(charge, ctx.id()))
        .stand_in::<refund, Payments>(|payments, refund, ctx| payments.refund(refund, ctx.id()).map_err(NotDone::from))
        .requests(restocks)
        .requests(places("ann"))
        .requests(places("ben"))
        .check(no_piece_is_lost)
        .check(answers_are_true)
        .at_end(every_order_is_done_or_undone)
        .linger(Duration::from_secs(120))
        .run();
    println!("{report}");
    assert!(report.attempts_again > 0 && report.attempts_doubled > 0 && report.deferred > 0);
}
