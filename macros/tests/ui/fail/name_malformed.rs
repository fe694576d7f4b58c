// A name is `namespace/name`.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Account {
    balance_cents: u64,
}

#[function(name = "Account")]
impl Account {
    #[on]
    fn deposit(&mut self, msg: &Deposit) {
        self.balance_cents += msg.cents;
    }
}

fn main() {}
