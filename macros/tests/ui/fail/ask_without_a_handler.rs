// Nobody would take the reply.

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
    fn deposit(&mut self, msg: &Deposit, ctx: &mut Context<Self>) {
        ctx.ask(Account::at("bob"), msg.clone(), 0);
    }
}

fn main() {}
