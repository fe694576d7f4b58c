// What does not wait needs no activity; and one that cannot fail has not met the outside yet.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[statefn::activity(name = "bank/notify")]
fn notify(_: Deposit) {}

fn main() {}
