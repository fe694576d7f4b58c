// Only the known arguments of `#[state]` are taken, in brackets.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Default, Clone, Serialize, Deserialize, State)]
#[state(ttl = 60)]
struct Account {
    balance_cents: u64,
}

#[derive(Debug, Serialize, Deserialize, Reject)]
#[reject]
struct Closed;

fn main() {}
