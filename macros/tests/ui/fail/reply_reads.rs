// A handler of a reply that changes nothing does nothing.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Account {
    balance_cents: u64,
}

#[function(name = "bank/account", sends(Self))]
impl Account {
    #[on]
    fn deposit(&mut self, _: &Deposit) {}

    #[on_reply]
    fn deposited(&self, _: &statefn::Reply<Account, Deposit>) {}
}

fn main() {}
