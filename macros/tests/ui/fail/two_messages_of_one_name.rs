// The messages of a function have different names.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Account {
    balance_cents: u64,
}

#[derive(Serialize, Deserialize, Message)]
#[message(name = "deposit")]
struct Payment;

#[function(name = "bank/account")]
impl Account {
    #[on]
    fn deposit(&mut self, msg: &Deposit) {
        self.balance_cents += msg.cents;
    }

    #[on]
    fn pay(&mut self, _: &Payment) {}
}

fn main() {}
