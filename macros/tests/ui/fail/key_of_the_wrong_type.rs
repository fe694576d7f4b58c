// A key has the type that the function declares.

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

fn address() -> Address<Clerk> {
    Clerk::at("seven")
}

fn main() {}
