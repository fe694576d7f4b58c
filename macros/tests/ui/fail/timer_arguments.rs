// `#[on_timer]` takes no arguments.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Account {
    balance_cents: u64,
}

#[function(name = "bank/account")]
impl Account {
    #[on_timer(in_event_time_order)]
    fn expired(&mut self, _: &HoldExpired) {}
}

fn main() {}
