// A target is declared by `sends(..)`.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Account {
    balance_cents: u64,
}

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Clerk;

#[function(name = "shop/clerk", key = u64)]
impl Clerk {
    #[on]
    fn deposit(&mut self, _: &Deposit) {}
}

#[function(name = "bank/account")]
impl Account {
    #[on]
    fn deposit(&mut self, msg: &Deposit, ctx: &mut Context<Self>) {
        ctx.send(Clerk::at(7), msg.clone());
    }
}

fn main() {}
