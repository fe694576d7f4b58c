// The name is part of what is on disk.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[statefn::activity]
async fn notify(_: Deposit) -> Result<(), statefn::TryAgain> {
    Ok(())
}

fn main() {}
