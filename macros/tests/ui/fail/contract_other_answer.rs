// A function answers what its contract says.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Account {
    balance_cents: u64,
}

contract! { Bank = "bank/account"; Deposit; GetBalance -> u64 }

#[function(implements = Bank)]
impl Account {
    #[on]
    fn deposit(&mut self, msg: &Deposit) {
        self.balance_cents += msg.cents;
    }

    #[on]
    fn balance(&self, _: &GetBalance) -> String {
        self.balance_cents.to_string()
    }
}

fn main() {}
