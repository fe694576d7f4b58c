//! The bank: transfers between accounts of all shards, deposits from input and from clients.
//!
//! What must hold: at any committed moment the balances and the money on its way are what was
//! deposited; a rejected transfer is one dead letter; accounts that are never overdrawn end with
//! the balance of a model; a deposit that was answered is there, once; and a read tells of each
//! deposit that anybody was told of before the read was asked for.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use statefn_core::{
    Address, Context, Egress, EventTime, Message, Reject, Wire,
    function::Target,
    ingress::{Ingress, bind},
    program::{FunctionSpec, Program, ProgramSpec},
    shard::Reply,
};

use super::{Asked, End, Setup, Told, Workload, same, states_of};
use crate::{check::Audit, random::Random};

static STATEMENTS: Egress<Entry> = Egress::new("statements");

/// Ids of deposits of the input; clients' begin at 0.
const INPUT_IDS: u64 = 1_000_000;
/// What an account that is never overdrawn begins with.
const RICH_CENTS: u64 = 1_000_000;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Deposit {
    id: u64,
    cents: u64,
}
message!(Deposit, "deposit");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct GetDeposits {}
message!(GetDeposits, "get-deposits");

/// What a read tells.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Held {
    account: String,
    deposits: BTreeSet<u64>,
}
message!(Held, "held");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Transfer {
    to: String,
    cents: u64,
}
message!(Transfer, "transfer");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Receive {
    cents: u64,
}
message!(Receive, "receive");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    account: String,
    deposited: u64,
}
message!(Entry, "entry");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Overdrawn {
    missing: u64,
}

impl Wire for Overdrawn {
    fn encode(&self, out: &mut Vec<u8>) {
        statefn_core::message::encode_json(self, out);
    }
    fn decode(bytes: &[u8]) -> Result<Self, statefn_core::DecodeError> {
        statefn_core::message::decode_json(bytes)
    }
}

impl Reject for Overdrawn {
    fn code(&self) -> &'static str {
        "overdrawn"
    }
    fn status(&self) -> u16 {
        409
    }
}

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Account {
    balance: u64,
    deposited: u64,
    deposits: Vec<u64>,
    transfers: u64,
}

function! {
    Account, "sim/account",
    on {
        0 plain Deposit -> u64: deposit,
        1 plain Transfer -> Result<(), Overdrawn>: transfer,
        2 plain Receive -> (): receive,
        3 read GetDeposits -> Held: deposits,
    }
    timers {}
    sends { 0 Account }
    emits { STATEMENTS }
}

impl Account {
    fn deposit(&mut self, msg: &Deposit, ctx: &mut Context<'_, Self>) -> u64 {
        self.balance += msg.cents;
        self.deposited += msg.cents;
        self.deposits.push(msg.id);
        ctx.emit(&STATEMENTS, &Entry { account: ctx.key().clone(), deposited: msg.cents });
        self.balance
    }

    fn transfer(&mut self, msg: &Transfer, ctx: &mut Context<'_, Self>) -> Result<(), Overdrawn> {
        // What a rejected call did to its copy and has sent must vanish.
        let had = self.balance;
        self.balance = had.wrapping_sub(msg.cents);
        self.transfers += 1;
        ctx.send(Address::<Self>::new(&*msg.to), Receive { cents: msg.cents });
        if had < msg.cents { Err(Overdrawn { missing: msg.cents - had }) } else { Ok(()) }
    }

    fn deposits(&self, _: &GetDeposits, ctx: &Context<'_, Self>) -> Held {
        Held { account: ctx.key().clone(), deposits: self.deposits.iter().copied().collect() }
    }

    fn receive(&mut self, msg: &Receive, _: &mut Context<'_, Self>) {
        self.balance += msg.cents;
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Order {
    at: i64,
    account: String,
    deposit: Option<Deposit>,
    transfer: Option<Transfer>,
}
message!(Order, "order");

/// See the module.
pub(super) struct Bank {
    partitions: Vec<Vec<Order>>,
    accounts: u64,
}

impl Bank {
    pub(super) fn new(random: &mut Random) -> Self {
        let partitions = random.between(1, 3) as usize;
        let accounts = random.between(2, 12) as u64;
        let mut bank = Self { partitions: vec![Vec::new(); partitions], accounts };
        for account in 0..accounts {
            let deposit = Some(Deposit { id: INPUT_IDS + account, cents: RICH_CENTS });
            bank.order(account, Order { at: 0, account: rich(account), deposit, transfer: None });
        }
        for number in 0..random.between(20, 250) {
            let account = random.below(accounts);
            let is_rich = random.chance(500);
            let name = if is_rich { rich } else { poor };
            let is_deposit = random.chance(if is_rich { 0 } else { 300 });
            let cents = random.below(500);
            let id = INPUT_IDS + accounts + number as u64;
            let deposit = is_deposit.then_some(Deposit { id, cents });
            let transfer = (!is_deposit).then(|| Transfer { to: name(random.below(accounts)), cents });
            bank.order(account, Order { at: number * 3, account: name(account), deposit, transfer });
        }
        bank
    }

    /// All orders of an account stand in one partition, so they come in order.
    fn order(&mut self, account: u64, order: Order) {
        let partition = account as usize % self.partitions.len();
        self.partitions[partition].push(order);
    }

    fn orders(&self) -> impl Iterator<Item = &Order> {
        self.partitions.iter().flatten()
    }

    fn check_rich(&self, accounts: &BTreeMap<String, Account>) -> Result<(), String> {
        let mut expected: BTreeMap<String, u64> =
            (0..self.accounts).map(|account| (rich(account), RICH_CENTS)).collect();
        for order in self.orders().filter(|order| order.account.starts_with("rich")) {
            let Some(Transfer { to, cents }) = &order.transfer else { continue };
            *expected.get_mut(&order.account).expect("a rich account") -= cents;
            *expected.get_mut(to).expect("the rich send to the rich") += cents;
        }
        let found = accounts.iter().filter(|(name, _)| name.starts_with("rich"));
        let found = found.map(|(name, account)| (name.clone(), account.balance)).collect();
        same("balances of accounts that are never overdrawn", &found, &expected)
    }

    fn check_deposits(&self, accounts: &BTreeMap<String, Account>, end: &End<'_>) -> Result<(), String> {
        let deposits: Vec<u64> = accounts.values().flat_map(|account| account.deposits.clone()).collect();
        let once: BTreeSet<u64> = deposits.iter().copied().collect();
        same("deposits that stand, each once", &deposits.len(), &once.len())?;
        let expected: BTreeSet<u64> = self.orders().filter_map(|order| Some(order.deposit.as_ref()?.id)).collect();
        let of_input: BTreeSet<u64> = once.range(INPUT_IDS..).copied().collect();
        same("deposits of the input", &of_input, &expected)?;
        for Told { answer, .. } in end.answers.iter().filter(|told| !is_read(told.answer.request)) {
            let is_there = once.contains(&answer.request);
            if is_there != matches!(answer.reply, Reply::Answered(_)) {
                return Err(format!(
                    "deposit {} is there: {is_there}, its answer: {:?} (I7)",
                    answer.request, answer.reply
                ));
            }
        }
        Ok(())
    }

    /// Checks that a read misses no deposit that was answered, or read, before it was asked for.
    fn check_reads(end: &End<'_>, accounts: &BTreeMap<String, Account>) -> Result<(), String> {
        let of_deposit: BTreeMap<u64, &String> = accounts
            .iter()
            .flat_map(|(name, account)| account.deposits.iter().map(move |deposit| (*deposit, name)))
            .collect();
        let mut heard: Vec<Held> = Vec::new();
        for Told { answer, known } in end.answers {
            let held = match &answer.reply {
                Reply::Answered(bytes) if is_read(answer.request) => {
                    Held::decode(bytes).map_err(|error| error.to_string())?
                }
                _ => {
                    let account = of_deposit.get(&answer.request).map_or_else(String::new, |name| (*name).clone());
                    heard.push(Held { account, deposits: BTreeSet::from([answer.request]) });
                    continue;
                }
            };
            let mut before = heard[..*known].iter().filter(|heard| heard.account == held.account);
            if let Some(missed) = before.find(|heard| !heard.deposits.is_subset(&held.deposits)) {
                return Err(format!("{missed:?} was known when {held:?} was asked for: the read is stale (I7)"));
            }
            heard.push(held);
        }
        Ok(())
    }

    fn check_letters(&self, accounts: &BTreeMap<String, Account>, end: &End<'_>) -> Result<(), String> {
        let emitted = end.audit.shards.iter().flat_map(|shard| &shard.emitted);
        let letters = emitted.filter(|record| record.egress == usize::from(end.program.dead_letters)).count();
        let accepted: u64 = accounts.values().map(|account| account.transfers).sum();
        let transfers = self.orders().filter(|order| order.transfer.is_some()).count();
        same("transfers that were made or rejected", &(accepted as usize + letters), &transfers)
    }
}

/// Whether a client reads with this request; else it deposits.
fn is_read(request: u64) -> bool {
    request % 2 == 1
}

fn rich(account: u64) -> String {
    format!("rich-{account}")
}

fn poor(account: u64) -> String {
    format!("poor-{account}")
}

impl Workload for Bank {
    fn setup(&self) -> Setup {
        let ingress = Ingress::<Order>::new("orders").event_time(|order| EventTime(order.at)).to::<Account>();
        let program = ProgramSpec {
            app: "bank".into(),
            functions: vec![FunctionSpec::of::<Account>()],
            ingresses: vec![ingress.spec()],
            egresses: vec![STATEMENTS.declaration()],
            ..ProgramSpec::default()
        };
        let bind = bind(ingress, |order: Order, out| {
            let account = Address::<Account>::new(order.account);
            if let Some(deposit) = order.deposit {
                out.send(account.clone(), deposit);
            }
            if let Some(transfer) = order.transfer {
                out.send(account, transfer);
            }
        });
        let inputs = self.partitions.iter().map(|orders| orders.iter().map(encoded).collect()).collect();
        Setup { program, ingresses: vec![Box::new(bind)], inputs: vec![inputs] }
    }

    fn request(&self, random: &mut Random, id: u64) -> Option<Asked> {
        let key = poor(random.below(self.accounts)).into_bytes();
        let (message, payload) = match is_read(id) {
            true => (GetDeposits::NAME, encoded(&GetDeposits {})),
            false => (Deposit::NAME, encoded(&Deposit { id, cents: 1 + id % 7 })),
        };
        Some(Asked { function: Account::NAME, message, key, payload })
    }

    fn check_running(&self, program: &Program, audit: &Audit) -> Result<(), String> {
        let accounts = states_of::<Account>(audit, Account::NAME)?;
        let balance: u64 = accounts.iter().map(|(_, account)| account.balance).sum();
        let deposited: u64 = accounts.iter().map(|(_, account)| account.deposited).sum();
        let mut on_the_way = 0;
        for (message, payload) in audit.on_the_way() {
            // Orders may be on their way too, from the shard that has read them.
            if program.name(*message) == Receive::NAME {
                on_the_way += Receive::decode(payload).map_err(|error| error.to_string())?.cents;
            }
        }
        same("money", &(balance + on_the_way), &deposited)
    }

    fn keep_records(&mut self, keeps: &mut dyn FnMut() -> bool) {
        for orders in &mut self.partitions {
            // The first records give the rich what they begin with.
            let mut places = 0..;
            orders.retain(|_| keeps() | places.next().is_some_and(|place| place < self.accounts));
        }
    }

    fn check_end(&self, end: &End<'_>) -> Result<(), String> {
        same("money on its way at the end", &end.audit.on_the_way().count(), &0)?;
        let accounts = states_of::<Account>(end.audit, Account::NAME)?.into_iter().collect();
        self.check_rich(&accounts)?;
        self.check_deposits(&accounts, end)?;
        Self::check_reads(end, &accounts)?;
        self.check_letters(&accounts, end)
    }
}

fn encoded(value: &impl Wire) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.encode(&mut bytes);
    bytes
}
