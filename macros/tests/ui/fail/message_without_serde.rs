// A message that is not prost derives serde.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Message)]
#[message(name = "payment")]
struct Payment {
    cents: u64,
}

fn main() {}
