//! Kills the shop with SIGKILL while clients place orders over HTTP, and looks after every piece, cent
//! and receipt.
//!
//! The payment server runs beside it, fails for two requests of five, and keeps a ledger. Each client
//! places orders, each with an idempotency key, and repeats one, also over kills, until it is answered;
//! all are repeated in the end and must get the answers that they had. Then every order must have come
//! to its end, what is shipped is paid exactly once, and nothing else is.
//!
//! Deliberately absent: kills of the payment server; it fails often enough.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, atomic::Ordering},
    thread,
};

use fastrand::Rng;
use serde_json::Value;

use crate::{
    Outcome,
    http_client::Response,
    http_kill::Options,
    say,
    service::{Caller, Load, Service, check_same},
};

const ITEMS: u64 = 4;
/// How many pieces of each item are there at first: not enough for all orders.
const PIECES: u64 = 400;
const PRICE_CENTS: u64 = 150;

/// An order and its idempotency key, which are the same.
#[derive(Debug, Clone)]
struct Order {
    number: String,
    item: u64,
    count: u64,
    /// The last digits of the card; one of 0000 does not pay.
    card: &'static str,
}

impl Order {
    fn place(&self, caller: &mut Caller, load: &Load) -> Response {
        let Self { number, item, count, card } = self;
        let body = format!("{{\"item\":\"item-{item}\",\"count\":{count},\"card\":\"{card}\"}}");
        caller.call(&format!("/functions/shop/order/{number}/place"), number, &body, load)
    }
}

/// The payment server; dropping it ends it.
struct Payments(Child);

impl Payments {
    fn start(binary: &Path, ledger: &Path) -> Outcome<(Self, SocketAddr)> {
        let mut command = Command::new(binary);
        command.arg("payments").arg("127.0.0.1:0").arg(ledger).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut server = Self(command.spawn()?);
        let mut line = String::new();
        BufReader::new(server.0.stdout.take().ok_or("no output of the server")?).read_line(&mut line)?;
        let address = line.trim().strip_prefix("payments at ").ok_or("the payment server does not start")?;
        Ok((server, address.parse()?))
    }
}

impl Drop for Payments {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, and need not be.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the task and prints a fact a line.
pub(crate) fn run(options: &Options) -> Outcome {
    let directory = tempfile::tempdir()?;
    let ledger = directory.path().join("ledger.jsonl");
    let shop = Service::build("orders", directory.path())?;
    let (_payments, address) = Payments::start(shop.binary(), &ledger)?;
    let shipments = shop.data().join("shipments.jsonl");
    let shop = shop.env("ORDERS_PAYMENTS", address.to_string());
    let shop = shop.set(format!("egress.shipments.path={}", shipments.display()));
    let load = Arc::new(Load::default());
    let clients: Vec<_> = (0..options.clients)
        .map(|number| {
            let (load, options) = (Arc::clone(&load), options.clone());
            thread::spawn(move || order(number, &options, &load).map_err(|error| error.to_string()))
        })
        .collect();
    let killed = shop.kill_under(&load, options.kills, options.seed);
    load.is_over.store(true, Ordering::Release);
    let mut last = killed?;
    let mut orders = Vec::new();
    for client in clients {
        orders.extend(client.join().map_err(|_| "a client panicked")??);
    }
    let mut caller = Caller::default();
    for (order, answer) in &orders {
        check_same(order, answer, &order.place(&mut caller, &load))?;
    }
    shop.stop(&mut last)?;
    let shipped = check(&shop, &orders, &ledger, &shipments)?;
    say(&format!(
        "{} kills while clients ordered: {} orders were answered, {} broken off and repeated, all once more in the end; each got the answer that it had; {shipped} are shipped and paid once, and nothing of the others remains",
        options.kills,
        orders.len(),
        load.broken_off.load(Ordering::Relaxed),
    ))
}

/// Places orders until it is over; returns every order with its answer.
fn order(client: u64, options: &Options, load: &Load) -> Outcome<Vec<(Order, Response)>> {
    let mut random = Rng::with_seed(options.seed ^ (client << 32));
    let mut caller = Caller::default();
    if client == 0 {
        for item in 0..ITEMS {
            let body = format!("{{\"count\":{PIECES},\"price_cents\":{PRICE_CENTS}}}");
            let path = format!("/functions/shop/stock/item-{item}/restock");
            let answer = caller.call(&path, "first", &body, load);
            if answer.status != 200 {
                return Err(format!("item-{item} was not restocked: {answer:?}").into());
            }
        }
    }
    let mut done: Vec<(Order, Response)> = Vec::new();
    while !load.is_over.load(Ordering::Acquire) {
        let card = if random.u64(0..5) == 0 { "0000" } else { "4242" };
        let number = format!("order-{client}-{}", done.len());
        let order = Order { number, item: random.u64(0..ITEMS), count: random.u64(1..5), card };
        let answer = order.place(&mut caller, load);
        if !matches!(answer.status, 200 | 402 | 409) {
            return Err(format!("{order:?} was answered by {answer:?}").into());
        }
        load.answered.fetch_add(1, Ordering::AcqRel);
        done.push((order, answer));
    }
    Ok(done)
}

/// Checks orders, stock, shipments and ledger against each other; returns how many orders are shipped.
fn check(shop: &Service, orders: &[(Order, Response)], ledger: &Path, shipments: &Path) -> Outcome<usize> {
    let states = shop.states("shop/order")?;
    if states.len() != orders.len() {
        return Err(format!("{} orders were placed, and {} are there", orders.len(), states.len()).into());
    }
    let lines = |path: &Path| -> Outcome<Vec<Value>> {
        let text = fs::read_to_string(path)?;
        let lines = text.lines().filter(|line| !line.is_empty());
        Ok(lines.map(serde_json::from_str).collect::<Result<_, _>>()?)
    };
    let mut charged: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for entry in lines(ledger)? {
        let charge = entry.get("charge").ok_or_else(|| format!("nothing is to be paid back here: {entry}"))?;
        let cents = charge["cents"].as_u64().ok_or("a charge has cents")?;
        charged.entry(text(&charge["order"])?).or_default().push(cents);
    }
    let mut sent: BTreeMap<String, u64> = BTreeMap::new();
    for shipment in lines(shipments)? {
        *sent.entry(text(&shipment["order"])?).or_default() += 1;
    }
    let mut pieces = [0; ITEMS as usize];
    let mut shipped = 0;
    for (order, answer) in orders {
        let status = &states[&order.number]["status"];
        let is_shipped = status == "Shipped";
        let paid = charged.remove(&order.number).unwrap_or_default();
        let cents = if is_shipped { vec![order.count * PRICE_CENTS] } else { Vec::new() };
        let parcels = sent.remove(&order.number).unwrap_or_default();
        let is_right = is_shipped == (answer.status == 200) && paid == cents && parcels == u64::from(is_shipped);
        if !is_right {
            return Err(format!(
                "{order:?} is {status}, was answered by {answer:?}, has paid {paid:?} and got {parcels} parcels"
            )
            .into());
        }
        shipped += usize::from(is_shipped);
        pieces[order.item as usize] += if is_shipped { order.count } else { 0 };
    }
    if !charged.is_empty() || !sent.is_empty() {
        return Err(format!("nobody has ordered what was paid or sent: {charged:?}, {sent:?}").into());
    }
    for (item, state) in shop.states("shop/stock")? {
        let place: usize = item.trim_start_matches("item-").parse()?;
        let number = |field: &str| state[field].as_u64().ok_or("a stock has numbers");
        let is_empty = state["reserved"].as_object().is_some_and(serde_json::Map::is_empty);
        if !is_empty || number("shipped")? != pieces[place] || number("left")? + pieces[place] != PIECES {
            return Err(format!("{item} is {state}, and {} pieces were ordered", pieces[place]).into());
        }
    }
    Ok(shipped)
}

fn text(value: &Value) -> Outcome<String> {
    Ok(value.as_str().ok_or("this is a text")?.to_owned())
}
