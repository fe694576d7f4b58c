// Three mistakes are three errors, reported at once.

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
    async fn deposit(&mut self, _: &Deposit) {}

    #[on]
    fn transfer(&mut self) -> Result<(), Overdrawn> {
        Ok(())
    }

    #[on]
    fn balance(&self, _: &GetBalance) -> u64 {
        self.balance_cents
    }

    #[on_timer]
    fn expired(&self, _: &HoldExpired) {}
}

fn main() {}
