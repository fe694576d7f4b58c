// A state is not generic.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Account<T> {
    balance: T,
}

fn main() {}
