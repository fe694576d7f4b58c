// Versions count from 1.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Default, Clone, Serialize, Deserialize, State)]
#[state(version = 0)]
struct Account {
    balance_cents: u64,
}

fn main() {}
