// The type of a function is a state.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Default, Clone, Serialize, Deserialize)]
struct Account {
    balance_cents: u64,
}

#[function(name = "bank/account")]
impl Account {
    #[on]
    fn deposit(&mut self, msg: &Deposit) {
        self.balance_cents += msg.cents;
    }
}

fn main() {}
