// Only the known arguments of a contract are taken, and its name is `namespace/name`.

#[path = "../bank.rs"]
mod bank;
use bank::*;

contract! { pub Bank = "bank", sends(Deposit); Deposit }

fn main() {}
