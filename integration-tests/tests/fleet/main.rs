//! Workers of a fleet, in processes of their own, on a real Kafka broker and a real S3 server.
//!
//! There are two apps: `src/bin/ledger.rs`, which reads transfers of a topic, and the bank of the examples,
//! which is paid with over HTTP. Whatever happens to workers and servers, their statements, read by an
//! independent client that sees committed records only, must be those of a run in which nothing
//! happened: each once, those of an account in an order that explains its balance at each of them.

#![allow(clippy::unwrap_used, reason = "a test fails loudly where it stands")]
#![allow(clippy::print_stdout, reason = "figures, and what led to a failure, are told")]

mod bank;
mod client;
mod faults;
mod http;
mod ledger;
mod worker;

use std::time::Duration;

use services::{kafka::Broker, s3::Server};

use self::{
    bank::Bank,
    client::{STATEMENTS, TRANSFERS, Topics},
    faults::Plan,
    ledger::Ledger,
    worker::{Fleet, Program},
};

/// Servers that nobody else uses, if they are installed.
fn servers() -> Option<(Broker, Server)> {
    // Says what is missing, or fails where nothing may be skipped.
    Broker::shared()?;
    Server::shared()?;
    Some((Broker::start().unwrap(), Server::start().unwrap()))
}

#[test]
fn a_worker_that_is_killed_is_replaced_and_every_statement_stands_once() {
    let Some((broker, server)) = servers() else { return };
    let topics = Topics::create(&broker, 4, &[TRANSFERS, STATEMENTS]);
    let mut fleet = Fleet::new(Program::ledger(), &broker, &server);
    (0..3).for_each(|_| fleet.start());
    let mut ledger = Ledger::new(&topics, 40);
    ledger.pay_while(2_000, Duration::from_millis(1));
    ledger.wait_until_stated(1_000);
    fleet.kill(1);
    ledger.pay_while(2_000, Duration::from_millis(1));
    fleet.start();
    ledger.settle();
    fleet.stop_all();
    ledger.check();
    fleet.check_stored();
}

/// A partition belongs to the shard of its number: where a topic has as many as the app has shards, Java's
/// producer has put the records of a key where they belong.
#[test]
fn records_of_a_java_producer_are_taken_without_a_hop_where_partitions_are_as_many_as_shards() {
    for (partitions, is_direct) in [(16, true), (5, false)] {
        let Some((broker, server)) = servers() else { return };
        let topics = Topics::create(&broker, partitions, &[TRANSFERS, STATEMENTS]);
        let mut fleet = Fleet::new(Program::ledger(), &broker, &server);
        (0..2).for_each(|_| fleet.start());
        let mut ledger = Ledger::new(&topics, 100);
        ledger.pay_by_java(&broker, 1_000);
        // Paid and received; timers wait for the time of all partitions.
        ledger.wait_until_stated(2_000);
        assert_eq!(topics.mails(16) == 0, is_direct, "{partitions} partitions: {} mails", topics.mails(16));
        ledger.settle();
        fleet.stop_all();
        ledger.check();
        fleet.check_stored();
    }
}

#[test]
fn a_partition_that_is_added_while_workers_run_is_read_from_its_start() {
    let Some((broker, server)) = servers() else { return };
    let topics = Topics::create(&broker, 2, &[TRANSFERS, STATEMENTS]);
    let mut fleet = Fleet::new(Program::ledger(), &broker, &server);
    (0..2).for_each(|_| fleet.start());
    let mut ledger = Ledger::new(&topics, 40);
    ledger.pay_while(200, Duration::from_millis(1));
    ledger.wait_until_stated(400);
    topics.grow(3);
    ledger.write_to(&topics, 3);
    ledger.pay_while(200, Duration::from_millis(1));
    ledger.wait_until_stated(800);
    // A worker that comes later reads on where it was read to.
    fleet.kill(0);
    fleet.start();
    ledger.pay_while(200, Duration::from_millis(1));
    ledger.settle();
    fleet.stop_all();
    ledger.check();
    fleet.check_stored();
}

/// Clients with idempotency keys ask workers at random, while one is killed, one frozen and one stopped.
#[test]
fn every_worker_answers_for_every_account_whatever_happens_to_the_others() {
    let Some((broker, server)) = servers() else { return };
    Topics::create(&broker, 4, &[TRANSFERS, STATEMENTS]);
    let mut fleet = Fleet::new(Program::ledger(), &broker, &server);
    let ports = http::free_ports(8);
    let admins = ports[4..].to_vec();
    let mut listens = ports.iter().zip(&admins).map(|(http, admin)| [*http, *admin]);
    for _ in 0..3 {
        fleet.start_listening(listens.next().unwrap());
    }
    let status = fleet.wait_until_owned(admins[0], 3);
    let clients = http::Clients::start(&ports[..4]);
    fleet.kill(0);
    fleet.start_listening(listens.next().unwrap());
    let replaced = fleet.wait_until_owned(admins[3], 3);
    assert_ne!(status["workers"], replaced["workers"]);
    fleet.freeze(0, true);
    fleet.wait_until_owned(admins[3], 2);
    fleet.freeze(0, false);
    fleet.wait_until_owned(admins[3], 3);
    fleet.stop(1);
    fleet.wait_until_owned(admins[3], 2);
    let paid = clients.stop();
    for (account, deposits) in &paid.deposits {
        for port in [ports[1], ports[3]] {
            assert_eq!(http::balance(port, account), Some(*deposits as i64), "{account}, asked at {port}: {paid:?}");
        }
    }
    println!("{paid:?}");
    fleet.stop_all();
    fleet.check_stored();
}

/// All kinds of faults, mixed; how many, the variable `STATEFN_FLEET_KILLS` says.
#[test]
#[ignore = "it takes minutes: `cargo xtask nightly` runs it"]
fn faults_of_all_kinds_lose_nothing_and_double_nothing() {
    let Some((mut broker, server)) = servers() else { return };
    let topics = Topics::create(&broker, 6, &[TRANSFERS, STATEMENTS]);
    let mut fleet = Fleet::new(Program::ledger(), &broker, &server);
    (0..3).for_each(|_| fleet.start());
    let mut ledger = Ledger::new(&topics, 1_000);
    let plan = Plan::of_environment();
    let counts = plan.run(&mut fleet, &mut broker, &mut ledger);
    ledger.settle();
    fleet.stop_all();
    let checked = ledger.check();
    fleet.check_stored();
    assert!(checked.messages >= 200_000, "{checked:?}");
    println!("figures: fleet_kills={} fleet_faults={}", counts.kills, counts.all());
    println!("{counts:?}, {checked:?}");
}

/// The same with the bank, whose clients ask any worker, and ask again with the same idempotency key.
#[test]
#[ignore = "it takes minutes: `cargo xtask nightly` runs it"]
fn faults_of_all_kinds_leave_the_bank_every_cent() {
    let Some((mut broker, server)) = servers() else { return };
    let topics = Topics::create(&broker, 6, &["orders", STATEMENTS, "audits"]);
    let mut fleet = Fleet::new(Program::bank(), &broker, &server);
    (0..3).for_each(|_| fleet.start());
    let mut bank = Bank::open(fleet.addresses(), 200);
    let plan = Plan::of_environment();
    let counts = plan.run(&mut fleet, &mut broker, &mut bank);
    bank.settle();
    fleet.stop_all();
    let checked = bank.check(&topics);
    fleet.check_stored();
    assert!(checked.payments >= 100 * counts.all(), "{checked:?}");
    println!("figures: fleet_kills={} fleet_faults={}", counts.kills, counts.all());
    println!("{counts:?}, {checked:?}");
}
