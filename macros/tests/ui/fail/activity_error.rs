// The error of an activity says whether it is to be tried again.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[statefn::activity(name = "bank/notify")]
async fn notify(_: Deposit) -> Result<(), String> {
    Ok(())
}

fn main() {}
