// A target is listed once; `Self` and the own name are the same.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Account {
    balance_cents: u64,
}

#[function(name = "bank/account", sends(Self, Account))]
impl Account {
    #[on]
    fn deposit(&mut self, msg: &Deposit) {
        self.balance_cents += msg.cents;
    }
}

fn main() {}
