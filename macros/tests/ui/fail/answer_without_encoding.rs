// An answer has an encoding.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Account {
    balance_cents: u64,
}

struct Receipt;

#[function(name = "bank/account")]
impl Account {
    #[on]
    fn deposit(&mut self, _: &Deposit) -> Receipt {
        Receipt
    }
}

fn main() {}
