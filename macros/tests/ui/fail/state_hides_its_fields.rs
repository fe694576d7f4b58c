// The fields of a state are described by the names that stand in its encoding.

#[path = "../bank.rs"]
mod bank;
use bank::*;

#[derive(Default, Clone, Serialize, Deserialize)]
struct Limits {
    day_cents: u64,
}

#[derive(Default, Clone, Serialize, Deserialize, State)]
#[serde(rename_all = "camelCase")]
struct Account {
    balance_cents: u64,
    #[serde(flatten)]
    limits: Limits,
}

fn main() {}
