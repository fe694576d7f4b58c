// The key of a function is a `Key`.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Account {
    balance_cents: u64,
}

#[function(name = "bank/account", key = f64)]
impl Account {
    #[on]
    fn deposit(&mut self, msg: &Deposit) {
        self.balance_cents += msg.cents;
    }
}

fn main() {}
