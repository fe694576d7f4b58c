// Windows are not supported yet.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Account {
    balance_cents: u64,
}

#[function(name = "bank/account")]
impl Account {
    #[on_close]
    fn close(&mut self, _: Window) {}
}

fn main() {}
