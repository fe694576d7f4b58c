// A rejection needs a code, each variant of an enum too.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Debug, Serialize, Deserialize, Reject)]
#[reject(status = 404)]
struct Unknown;

#[derive(Debug, Serialize, Deserialize, Reject)]
enum Refused {
    #[reject(code = "closed")]
    Closed,
    Late,
}

fn main() {}
