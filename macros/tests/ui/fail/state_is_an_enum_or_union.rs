// A state is a struct.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Default, Clone, Serialize, Deserialize, State)]
enum Door {
    #[default]
    Open,
    Closed,
}

#[derive(State)]
union Bits {
    whole: u64,
}

fn main() {}
