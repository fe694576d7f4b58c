// A message is not generic.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Serialize, Deserialize, Message)]
#[message(name = "payment")]
struct Payment<T> {
    cents: T,
}

fn main() {}
