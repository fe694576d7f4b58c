// The status of a rejection says that the caller is wrong.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Debug, Serialize, Deserialize, Reject)]
#[reject(code = "overdrawn", status = 500)]
struct Broke;

fn main() {}
