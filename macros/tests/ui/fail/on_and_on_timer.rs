// A method handles one thing.

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
    #[on_timer]
    fn deposit(&mut self, _: &Deposit) {}
}

fn main() {}
