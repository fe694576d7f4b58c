// A contract names a message once.

#[path = "../bank.rs"]
mod bank;
use bank::*;

contract! { pub Bank = "bank/account", key = u64; Deposit; GetBalance -> u64; Deposit }

fn main() {}
