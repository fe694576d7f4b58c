// A handler that reads cannot emit.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Account {
    balance_cents: u64,
}

#[function(name = "bank/account", emits(STATEMENTS))]
impl Account {
    #[on]
    fn balance(&self, _: &GetBalance, ctx: &Context<Self>) -> u64 {
        ctx.emit(&STATEMENTS, &Deposit { cents: 1 });
        self.balance_cents
    }
}

fn main() {}
