// The error of a handler is a rejection.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Account {
    balance_cents: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Broke;

#[function(name = "bank/account")]
impl Account {
    #[on]
    fn transfer(&mut self, _: &Transfer) -> Result<(), Broke> {
        Err(Broke)
    }
}

fn main() {}
