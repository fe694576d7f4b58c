// Only the known arguments of `#[message]` are taken.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Serialize, Deserialize, Message)]
#[message(name = "payment", avro)]
struct Payment {
    cents: u64,
}

fn main() {}
