// A handler that reads cannot send.

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
    fn balance(&self, _: &GetBalance, ctx: &Context<Self>) -> u64 {
        ctx.send(Account::at("bob"), Deposit { cents: 1 });
        self.balance_cents
    }

    #[on]
    fn deposit(&mut self, msg: &Deposit) {
        self.balance_cents += msg.cents;
    }
}

fn main() {}
