// A message needs a stable name.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Serialize, Deserialize, Message)]
struct Payment {
    cents: u64,
}

fn main() {}
