// The name of a message can stand in a URL.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Serialize, Deserialize, Message)]
#[message(name = "pay me")]
struct Payment {
    cents: u64,
}

fn main() {}
