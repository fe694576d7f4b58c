// What a function takes does not depend on the build.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Account {
    balance_cents: u64,
}

#[function(name = "bank/account")]
impl Account {
    #[cfg(unix)]
    #[on]
    fn deposit(&mut self, _: &Deposit) {}
}

fn main() {}
