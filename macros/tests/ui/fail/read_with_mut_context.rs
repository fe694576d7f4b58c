// A handler that reads has no effects.

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
    fn balance(&self, _: &GetBalance, _: &mut Context<Self>) -> u64 {
        self.balance_cents
    }
}

fn main() {}
