// An answer is owned.

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
    fn balance(&self, _: &GetBalance) -> Result<&u64, Overdrawn> {
        Ok(&self.balance_cents)
    }
}

fn main() {}
