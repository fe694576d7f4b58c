// `#[function]` stands on an impl block.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[function(name = "bank/account")]
#[derive(Default)]
struct Account {
    balance_cents: u64,
}

fn main() {}
