// A handler takes a message and a context.

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
    fn deposit(&mut self, _: &Deposit, _: &mut Context<Self>, _: u64) {}
}

fn main() {}
