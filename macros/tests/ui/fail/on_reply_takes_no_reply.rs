// A message is no reply.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Account {
    balance_cents: u64,
}

#[function(name = "bank/account")]
impl Account {
    #[on_reply]
    fn deposited(&mut self, _: &Deposit) {}
}

fn main() {}
