// A function is not generic.

#[path = "../bank.rs"]
mod bank;
use bank::*;

struct Account<T> {
    balance: T,
}

#[function(name = "bank/account")]
impl<T> Account<T> {
    #[on]
    fn deposit(&mut self, _: &Deposit) {}
}

fn main() {}
