// A router sends to what its ingress declares.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Clerk;

#[function(name = "shop/clerk", key = u64)]
impl Clerk {
    #[on]
    fn deposit(&mut self, _: &Deposit) {}
}

fn route(sale: Deposit, out: &mut Router<'_, ()>) {
    out.send(Clerk::at(7), sale);
}

fn main() {}
