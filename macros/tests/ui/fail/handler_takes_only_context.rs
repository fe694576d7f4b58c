// A handler takes a message, also when it has a context.

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
    fn deposit(&mut self, _: &mut Context<Self>) {}
}

fn main() {}
