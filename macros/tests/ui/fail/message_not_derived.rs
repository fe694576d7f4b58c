// What a handler takes is a message.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Account {
    balance_cents: u64,
}

#[derive(Serialize, Deserialize)]
struct Payment;

#[function(name = "bank/account")]
impl Account {
    #[on]
    fn pay(&mut self, _: &Payment) {}
}

fn main() {}
