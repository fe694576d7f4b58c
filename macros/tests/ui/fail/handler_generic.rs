// A handler takes one type of message.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Account {
    balance_cents: u64,
}

#[function(name = "bank/account")]
impl Account {
    #[on]
    fn handle<M: Message>(&mut self, _: &M) {}
}

fn main() {}
