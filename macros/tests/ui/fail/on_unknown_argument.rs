// Only the known arguments of `#[on]` are taken.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Account {
    balance_cents: u64,
}

#[function(name = "bank/account")]
impl Account {
    #[on(bogus)]
    fn deposit(&mut self, _: &Deposit) {}
}

fn main() {}
