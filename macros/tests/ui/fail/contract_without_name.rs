// A contract begins with its type and its name.

#[path = "../bank.rs"]
mod bank;
use bank::*;

contract! { pub Bank, key = u64; Deposit }

fn main() {}
