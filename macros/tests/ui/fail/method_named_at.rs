// `at` is what the macro adds.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Account {
    balance_cents: u64,
}

#[function(name = "bank/account")]
impl Account {
    fn at(&self) -> u64 {
        self.balance_cents
    }
}

fn main() {}
