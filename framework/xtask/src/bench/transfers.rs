//! Transfers between the accounts of a bank, durable, with a record out for each.
//!
//! The audit reads what is committed: all accounts together have what they began with, and each has
//! what it has in the loop by hand.

use std::{
    fs::{self, File},
    io::BufReader,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use statefn::{__private::Wire, inspect::Inspection, prelude::*};

use super::{
    Failure,
    audit::{self, Audit},
    counted::Counted,
    disk::{Disk, quantile_ms},
    figures::Figures,
    files::{self, Records, put_record, read_record},
    meter::Meter,
    numbers::{Zipf, mixed},
    pin,
    row::{Measuring, Row, Side},
    run_of_app::{self, Run},
};

/// What an account has in the beginning.
const OPENING_CENTS: i64 = 1_000_000;
/// How many records are taken between two looks at the clock.
const RECORDS_PER_LOOK: u64 = 256;

/// What to run.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub(crate) struct Options {
    /// How many transfers there are.
    #[arg(long, default_value_t = 2_000_000)]
    events: u64,
    /// How many accounts there are.
    #[arg(long, default_value_t = 10_000)]
    accounts: u64,
    /// How skewed the choice of who gets money is, from 0 (uniform) to below 1; each in turn.
    #[arg(long, value_delimiter = ',', default_values_t = [0.0, 0.99])]
    zipf: Vec<f64>,
    /// How many threads run shards.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// How many shards there are.
    #[arg(long, default_value_t = 64)]
    shards: u32,
    /// The shortest time between two commits.
    #[arg(long, default_value = "10ms", value_parser = humantime::parse_duration)]
    commit_interval: Duration,
    #[command(flatten)]
    #[serde(skip)]
    measuring: Measuring,
}

#[derive(Clone, PartialEq, prost::Message, Message)]
#[message(name = "transfer", prost)]
struct Transfer {
    #[prost(fixed64, tag = "1")]
    number: u64,
    #[prost(fixed64, tag = "2")]
    from: u64,
    #[prost(fixed64, tag = "3")]
    to: u64,
    #[prost(int64, tag = "4")]
    cents: i64,
}

#[derive(Clone, PartialEq, prost::Message, Message)]
#[message(name = "receive", prost)]
struct Receive {
    #[prost(fixed64, tag = "1")]
    number: u64,
    #[prost(int64, tag = "2")]
    cents: i64,
}

#[derive(Clone, PartialEq, prost::Message, Message)]
#[message(name = "done", prost)]
struct Done {
    #[prost(fixed64, tag = "1")]
    number: u64,
}

#[derive(Debug, Serialize, Deserialize, Reject)]
#[reject(code = "overdrawn")]
struct Overdrawn {
    missing_cents: i64,
}

static DONE: Egress<Done> = Egress::new("done");

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Account {
    /// What has come in since the beginning, less what has gone out.
    change_cents: i64,
}

impl Account {
    fn take(&mut self, cents: i64) -> Result<(), Overdrawn> {
        let left = OPENING_CENTS + self.change_cents - cents;
        if left < 0 {
            return Err(Overdrawn { missing_cents: -left });
        }
        self.change_cents -= cents;
        Ok(())
    }
}

#[function(name = "bench/account", key = u64, sends(Self), emits(DONE))]
impl Account {
    #[on]
    fn transfer(&mut self, msg: &Transfer, ctx: &mut Context<Self>) -> Result<(), Overdrawn> {
        self.take(msg.cents)?;
        audit::note(msg.number, 0);
        ctx.send(Account::at(msg.to), Receive { number: msg.number, cents: msg.cents });
        Ok(())
    }

    #[on]
    fn receive(&mut self, msg: &Receive, ctx: &mut Context<Self>) {
        self.change_cents += msg.cents;
        audit::note(msg.number, 1 + *ctx.key());
        ctx.emit(&DONE, &Done { number: msg.number });
    }
}

impl Row for Options {
    const NAME: &'static str = "transfers";
    const MERIT: &'static str = "transfers/CPU-second";

    fn measuring(&self) -> &Measuring {
        &self.measuring
    }

    fn points(&self) -> Vec<(String, Self)> {
        let point = |zipf: &f64| (format!("zipf {zipf}"), Self { zipf: vec![*zipf], ..self.clone() });
        self.zipf.iter().map(point).collect()
    }

    fn times(&self, factor: u64) -> Self {
        Self { events: self.events * factor, ..self.clone() }
    }

    fn events(&self) -> u64 {
        self.events
    }

    fn prepare(&self) -> Result<(), Failure> {
        let zipf = Zipf::new(self.accounts, self.theta()?);
        files::prepare(&self.path()?, |file| {
            let mut record = Vec::new();
            for number in 0..self.events {
                record.clear();
                transfer(number, self.accounts, &zipf).encode(&mut record);
                put_record(file, &record)?;
            }
            Ok(())
        })
    }

    fn run(&self, side: Side, data: &Path) -> Result<Figures, Failure> {
        match side {
            Side::App => self.run_app(data),
            Side::ByHand => self.run_by_hand(data),
        }
    }
}

impl Options {
    fn theta(&self) -> Result<f64, Failure> {
        let theta = self.zipf.first().copied().filter(|theta| (0.0..1.0).contains(theta));
        theta
            .filter(|_| self.accounts > 2)
            .ok_or_else(|| "`--zipf` must be 0 to below 1, `--accounts` more than 2".into())
    }

    fn path(&self) -> Result<PathBuf, Failure> {
        let name = format!("transfers-{}-{}-{}.pb", self.theta()?, self.accounts, self.events);
        Ok(files::directory()?.join(name))
    }

    fn app(&self, data: &Path) -> Result<App, Failure> {
        let settings = Settings::new().data(data).input("transfers", self.path()?).output("done", data.join("done"));
        let settings = Settings {
            shards: Some(self.shards),
            threads: Some(self.threads),
            commit_interval: Some(self.commit_interval),
            ..settings
        };
        Ok(app().settings(settings))
    }

    fn run_app(&self, data: &Path) -> Result<Figures, Failure> {
        let app = self.app(data)?;
        let meter = Meter::start()?;
        let Run { totals, commit_latency } = run_of_app::to_end(app, self.threads)?;
        let audit = Audit { emitted: totals.shards.emitted, ..Audit::taken() };
        let figures = meter
            .stop(audit, self.events, "transfer")?
            .with("log bytes/transfer", totals.shards.bytes as f64 / self.events as f64)
            .with("commit p50 ms", commit_latency.p50_us as f64 / 1e3)
            .with("commit p99 ms", commit_latency.p99_us as f64 / 1e3);
        audit_accounts(&committed(self.app(data)?, self.accounts)?, data, figures)
    }

    fn run_by_hand(&self, data: &Path) -> Result<Figures, Failure> {
        pin::this_thread();
        let meter = Meter::start()?;
        let mut work = ByHand::new(self.accounts, data)?;
        let mut reader = BufReader::with_capacity(256 << 10, File::open(self.path()?)?);
        let (mut record, mut records) = (Vec::new(), 0_u64);
        while read_record(&mut reader, &mut record)? {
            work.take(&record)?;
            records += 1;
            if records.is_multiple_of(RECORDS_PER_LOOK) && work.committed_at.elapsed() >= self.commit_interval {
                work.commit()?;
            }
        }
        work.commit()?;
        let audit = Audit { emitted: records, ..Audit::taken() };
        let figures = meter
            .stop(audit, records, "transfer")?
            .with("log bytes/transfer", work.disk.bytes.0 as f64 / records as f64)
            .with("commit p50 ms", quantile_ms(&work.latencies, 50))
            .with("commit p99 ms", quantile_ms(&work.latencies, 99));
        let accounts: Vec<i64> = work.accounts.iter().map(|(account, _)| account.change_cents).collect();
        audit_accounts(&accounts, data, figures)
    }
}

fn app() -> App {
    let transfers = Ingress::<Transfer>::new("transfers").to::<Account>();
    let app = App::new("bench-transfers").function::<Account>().egress(&DONE);
    app.ingress(transfers, |transfer, out| out.forward_unchanged(Account::at(transfer.from), transfer))
}

/// The app and its records, to count instructions.
pub(super) fn counted() -> Counted {
    const ACCOUNTS: u64 = 10_000;
    let zipf = Zipf::new(ACCOUNTS, 0.0);
    let record = move |number| {
        let mut bytes = Vec::new();
        transfer(number, ACCOUNTS, &zipf).encode(&mut bytes);
        bytes
    };
    Counted { name: "transfers", ingress: "transfers", app: app(), record: Box::new(record) }
}

fn transfer(number: u64, accounts: u64, zipf: &Zipf) -> Transfer {
    let from = mixed(2 * number) % accounts;
    // Ranks are scattered, so that the frequent accounts are not neighbours.
    let to = mixed(zipf.rank(mixed(2 * number + 1))) % accounts;
    let to = if to == from { (to + 1) % accounts } else { to };
    Transfer { number, from, to, cents: 1 }
}

/// What each account has in what is committed.
fn committed(app: App, accounts: u64) -> Result<Vec<i64>, Failure> {
    let mut changes = vec![0; accounts as usize];
    for line in Inspection::open(app)?.states(Some("bench/account"))? {
        let line: Value = serde_json::from_str(&line)?;
        let key = line["key"].as_str().and_then(number_of).and_then(|key| changes.get_mut(key as usize));
        let (Some(to), Some(change)) = (key, line["state"]["change_cents"].as_i64()) else {
            return Err(format!("there is no such account: {line}").into());
        };
        *to = change;
    }
    Ok(changes)
}

/// The number whose bytes a key is; printed, they are base64, as the first ones are no text.
fn number_of(key: &str) -> Option<u64> {
    let bytes = STANDARD.decode(key.strip_prefix("base64:")?).ok()?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// Fails unless the money is all there, and adds what each account has to what is compared.
fn audit_accounts(changes: &[i64], data: &Path, figures: Figures) -> Result<Figures, Failure> {
    let surplus: i64 = changes.iter().sum();
    if surplus != 0 {
        return Err(format!("the accounts have {surplus} cents more than they began with").into());
    }
    let output = fs::read(data.join("done"))?;
    Ok(figures
        .with_output(true, Records::of(&output))?
        .with_states((0..).zip(changes.iter().map(|change| *change as u64))))
}

struct ByHand {
    accounts: Vec<(Account, bool)>,
    changed: Vec<u64>,
    transfer: Transfer,
    receive: Receive,
    output: Vec<u8>,
    journal: Vec<u8>,
    disk: Disk,
    taken: u64,
    committed_at: Instant,
    latencies: Vec<Duration>,
}

impl ByHand {
    fn new(accounts: u64, data: &Path) -> Result<Self, Failure> {
        Ok(Self {
            accounts: vec![(Account::default(), false); accounts as usize],
            changed: Vec::new(),
            transfer: Transfer::default(),
            receive: Receive::default(),
            output: Vec::new(),
            journal: Vec::new(),
            disk: Disk::create(data, Some("done"))?,
            taken: 0,
            committed_at: Instant::now(),
            latencies: Vec::new(),
        })
    }

    fn take(&mut self, record: &[u8]) -> Result<(), Failure> {
        self.transfer.decode_into(record)?;
        let Transfer { number, from, to, cents } = self.transfer;
        let taken = self.account(from).take(cents);
        taken.map_err(|overdrawn| format!("account {from} misses {} cents", overdrawn.missing_cents))?;
        audit::note(number, 0);
        let start = self.journal.len();
        Receive { number, cents }.encode(&mut self.journal);
        self.receive.decode_into(&self.journal[start..])?;
        let Receive { number, cents } = self.receive;
        self.account(to).change_cents += cents;
        audit::note(number, 1 + to);
        let start = self.output.len();
        self.output.push(0);
        Done { number }.encode(&mut self.output);
        self.output[start] = (self.output.len() - start - 1) as u8;
        self.taken += 1;
        Ok(())
    }

    fn account(&mut self, key: u64) -> &mut Account {
        let (account, is_changed) = &mut self.accounts[key as usize];
        if !*is_changed {
            *is_changed = true;
            self.changed.push(key);
        }
        account
    }

    fn commit(&mut self) -> Result<(), Failure> {
        for key in self.changed.drain(..) {
            let (account, is_changed) = &mut self.accounts[key as usize];
            *is_changed = false;
            self.journal.extend_from_slice(&key.to_le_bytes());
            self.journal.extend_from_slice(&account.change_cents.to_le_bytes());
        }
        self.journal.extend_from_slice(&self.output);
        self.disk.commit(&self.journal, &self.output, self.taken)?;
        self.journal.clear();
        self.output.clear();
        self.latencies.push(self.committed_at.elapsed());
        self.committed_at = Instant::now();
        Ok(())
    }
}
