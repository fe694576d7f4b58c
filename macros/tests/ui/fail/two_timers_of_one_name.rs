// The timer payloads of a function have different names.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Account {
    balance_cents: u64,
}

#[derive(Serialize, Deserialize, Message)]
#[message(name = "hold-expired")]
struct Expired;

#[function(name = "bank/account")]
impl Account {
    #[on_timer]
    fn hold_expired(&mut self, _: &HoldExpired) {}

    #[on_timer]
    fn expired(&mut self, _: &Expired) {}
}

fn main() {}
