// A timer needs a handler for its payload.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Account {
    balance_cents: u64,
}

#[function(name = "bank/account")]
impl Account {
    #[on]
    fn deposit(&mut self, msg: &Deposit, ctx: &mut Context<Self>) {
        ctx.set_timer(ctx.event_time(), HoldExpired { cents: msg.cents });
    }
}

fn main() {}
