//! What was paid, and what must have been stated of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use rdkafka::{consumer::BaseConsumer, producer::BaseProducer};
use serde::Deserialize;
use serde_json::json;
use services::kafka::Broker;

use crate::{
    client::{self, TRANSFERS, Topics},
    faults::Load,
};

/// Event time of the first transfer, in milliseconds.
const BEGIN_MS: i64 = 1_700_000_000_000;
/// How far apart transfers are in event time, in milliseconds.
const STEP_MS: i64 = 3;
/// One transfer for each of these, in the mix of faults.
const PAUSE: Duration = Duration::from_micros(1_500);
/// How long nothing may be stated before something is wrong: longer than any fault lasts.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// How long it is waited for statements that should not come.
const LINGER: Duration = Duration::from_secs(2);

/// One transfer.
#[derive(Debug, Clone)]
struct Paid {
    from: String,
    to: String,
    cents: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Move {
    Paid,
    Received,
    Settled,
}

#[derive(Debug, Clone, Deserialize)]
struct Statement {
    account: String,
    number: u64,
    what: Move,
    balance_cents: i64,
    /// Where it stands.
    #[serde(skip)]
    #[expect(dead_code, reason = "it is printed")]
    place: String,
}

/// What a check has seen.
#[derive(Debug, Clone, Copy)]
#[expect(dead_code, reason = "it is printed")]
pub(crate) struct Checked {
    pub(crate) transfers: usize,
    pub(crate) messages: usize,
    pub(crate) accounts: usize,
}

/// All transfers and statements of a test.
pub(crate) struct Ledger {
    producer: BaseProducer,
    consumer: BaseConsumer,
    partitions: i32,
    accounts: u64,
    paid: Vec<Paid>,
    /// How many of them lead to statements; those behind only let event time go on.
    counted: usize,
    stated: Vec<Statement>,
}

impl Ledger {
    pub(crate) fn new(topics: &Topics, accounts: u64) -> Self {
        Self {
            producer: topics.producer(),
            consumer: topics.statements(),
            partitions: topics.partitions,
            accounts,
            paid: Vec::new(),
            counted: 0,
            stated: Vec::new(),
        }
    }

    /// Writes so many transfers, one for each `pause`, and reads statements meanwhile; calls `each`
    /// after every transfer.
    pub(crate) fn pay_while(&mut self, count: usize, pause: Duration) {
        let begun = Instant::now();
        for number in 0..count {
            self.pay();
            let due = begun + pause * number as u32;
            self.read_until(due);
        }
    }

    fn pay(&mut self) {
        let number = self.paid.len() as u64;
        let to = format!("account-{}", number.wrapping_mul(104_729) / 3 % self.accounts);
        let (from, record) = self.note(|_| to);
        // Transfers of one account stand in one partition, so they have an order.
        let partition = (number.wrapping_mul(7_919) % self.accounts) as i32 % self.partitions;
        client::write(&self.producer, partition, &from, record.as_bytes());
    }

    /// Makes the next transfer; returns who pays, and its record.
    fn note(&mut self, payee: impl FnOnce(&str) -> String) -> (String, String) {
        let number = self.paid.len() as u64;
        let from = format!("account-{}", number.wrapping_mul(7_919) % self.accounts);
        let to = payee(&from);
        let cents = 1 + (number.wrapping_mul(31) % 97) as i64;
        let at_ms = BEGIN_MS + number as i64 * STEP_MS;
        let record = json!({"number": number, "from": from, "to": to, "cents": cents, "at_ms": at_ms});
        self.paid.push(Paid { from: from.clone(), to, cents });
        (from, record.to_string())
    }

    /// Lets a Java program write so many transfers of accounts to themselves, in the partitions that it chooses.
    pub(crate) fn pay_by_java(&mut self, broker: &Broker, count: usize) {
        let records: Vec<_> = (0..count).map(|_| self.note(ToOwned::to_owned)).collect();
        let records = records.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        broker.produce_by_java(TRANSFERS, records).unwrap();
    }

    /// Writes to so many partitions from now on, by a client that learns of them.
    pub(crate) fn write_to(&mut self, topics: &Topics, partitions: i32) {
        client::flush(&self.producer);
        (self.producer, self.partitions) = (topics.producer(), partitions);
    }

    /// Reads what is stated until a moment.
    fn read_until(&mut self, due: Instant) {
        loop {
            let left = due.saturating_duration_since(Instant::now());
            match client::read_with_place(&self.consumer, left) {
                Some((statement, place)) => {
                    self.stated.push(Statement { place, ..serde_json::from_slice(&statement).unwrap() });
                }
                None if Instant::now() >= due => return,
                None => {}
            }
        }
    }

    /// Waits until so many statements were read.
    pub(crate) fn wait_until_stated(&mut self, count: usize) {
        let (mut seen, mut since) = (self.stated.len(), Instant::now());
        while self.stated.len() < count {
            self.read_until(Instant::now() + Duration::from_millis(20));
            if self.stated.len() > seen {
                (seen, since) = (self.stated.len(), Instant::now());
            }
            assert!(since.elapsed() < SILENCE_LIMIT, "only {seen} of {count} statements came: {}", self.missing());
        }
    }

    /// Lets event time go on behind all timers, and waits for all statements, and a while for more.
    pub(crate) fn settle(&mut self) {
        self.counted = self.paid.len();
        let at_ms = BEGIN_MS + self.counted as i64 * STEP_MS + 10_000;
        for partition in 0..self.partitions {
            let record = json!({"number": u64::MAX, "from": "clock", "to": "clock", "cents": 0, "at_ms": at_ms});
            client::write(&self.producer, partition, "clock", record.to_string().as_bytes());
        }
        client::flush(&self.producer);
        // Those of the clock are paid and received; their own timers are still to come.
        self.wait_until_stated(3 * self.counted + 2 * self.partitions as usize);
        self.read_until(Instant::now() + LINGER);
    }

    /// The first statements that did not come.
    fn missing(&self) -> String {
        let found: BTreeSet<(u64, Move)> =
            self.stated.iter().map(|statement| (statement.number, statement.what)).collect();
        let all = (0..self.paid.len() as u64)
            .flat_map(|number| [Move::Paid, Move::Received, Move::Settled].map(|what| (number, what)));
        let missing = all.filter(|statement| !found.contains(statement));
        let told = missing.take(30).map(|(number, what)| {
            let Paid { from, to, .. } = &self.paid[number as usize];
            format!("{number} {what:?} {from} to {to}")
        });
        told.collect::<Vec<_>>().join(", ")
    }

    /// Compares what was stated with what was paid.
    pub(crate) fn check(&self) -> Checked {
        let stated: Vec<&Statement> = self.stated.iter().filter(|statement| statement.account != "clock").collect();
        let mut times = BTreeMap::<(u64, Move), u32>::new();
        for statement in &stated {
            *times.entry((statement.number, statement.what)).or_default() += 1;
        }
        let kinds = [Move::Paid, Move::Received, Move::Settled];
        let expected = (0..self.counted as u64).flat_map(|number| kinds.map(|what| (number, what)));
        let missing: Vec<_> = expected.filter(|statement| !times.contains_key(statement)).take(5).collect();
        assert!(missing.is_empty(), "statements are lost, such as {missing:?}");
        let doubled: Vec<_> = times.iter().filter(|(_, times)| **times > 1).take(5).collect();
        let is_doubled =
            |found: &&&Statement| doubled.iter().any(|(doubled, _)| **doubled == (found.number, found.what));
        let places: Vec<_> = stated.iter().filter(is_doubled).collect();
        assert!(doubled.is_empty(), "statements stand twice, such as {places:?}");
        assert_eq!(stated.len(), 3 * self.counted, "nothing is stated that was not paid");
        let accounts = self.check_accounts(&stated);
        Checked { transfers: self.counted, messages: stated.len(), accounts }
    }

    /// Each account's balance follows from the moves that were stated before, and payments of an
    /// account are made in their order.
    fn check_accounts(&self, stated: &[&Statement]) -> usize {
        let mut accounts = BTreeMap::<&str, (i64, Option<u64>)>::new();
        for statement in stated {
            let paid = &self.paid[statement.number as usize];
            let (balance_cents, last) = accounts.entry(&statement.account).or_default();
            match statement.what {
                Move::Paid => {
                    assert_eq!(paid.from, statement.account, "{statement:?}");
                    assert!(*last < Some(statement.number), "payments of an account keep their order: {statement:?}");
                    *last = Some(statement.number);
                    *balance_cents -= paid.cents;
                }
                Move::Received => {
                    assert_eq!(paid.to, statement.account, "{statement:?}");
                    *balance_cents += paid.cents;
                }
                Move::Settled => assert_eq!(paid.to, statement.account, "{statement:?}"),
            }
            assert_eq!(statement.balance_cents, *balance_cents, "{statement:?}");
        }
        assert_eq!(accounts.values().map(|(cents, _)| cents).sum::<i64>(), 0, "no money is made or lost");
        accounts.len()
    }
}

impl Load for Ledger {
    const PROOF: usize = 1_000;

    fn pay_for(&mut self, time: Duration) {
        self.pay_while(time.div_duration_f64(PAUSE) as usize, PAUSE);
    }

    fn seen(&self) -> usize {
        self.stated.len()
    }

    fn wait_until_seen(&mut self, count: usize) {
        self.wait_until_stated(count);
    }
}
