// An activity outlives the handler.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[statefn::activity(name = "bank/notify")]
async fn notify(_: &Deposit) -> Result<(), statefn::TryAgain> {
    Ok(())
}

fn main() {}
