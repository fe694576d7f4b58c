// Nobody waits for the answer of a timer.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Account {
    balance_cents: u64,
}

#[function(name = "bank/account")]
impl Account {
    #[on_timer]
    fn expired(&mut self, _: &HoldExpired) -> Result<(), Overdrawn> {
        Ok(())
    }
}

fn main() {}
