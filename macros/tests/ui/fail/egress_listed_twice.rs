// An egress is listed once, and a list is a list of paths.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Account {
    balance_cents: u64,
}

#[function(name = "bank/account", sends = Account, emits(STATEMENTS, STATEMENTS))]
impl Account {}

fn main() {}
