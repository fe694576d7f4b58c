//! Poisoned keys: 1,000 of 100,000 have a message that breaks its handler, half by a fault and half by
//! a panic. All other keys are as if nothing had happened, and once the program is mended, `parked retry
//! --all` brings the poisoned ones to where they would have been, in order.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};
use statefn::{
    prelude::*,
    repair::{Remedy, Repair},
};

const KEYS: u64 = 100_000;
const POISONED: u64 = 1_000;
const ROUNDS: u64 = 3;

/// Adds to an account; the second one of a poisoned key breaks the first version of the program.
#[derive(Clone, Serialize, Deserialize, Message)]
#[message(name = "add")]
struct Add {
    account: u64,
    number: u64,
    poison: Poison,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Poison {
    None,
    Fault,
    Panic,
}

/// What an account tells another one once it has its last addition.
#[derive(Clone, Serialize, Deserialize, Message)]
#[message(name = "done")]
struct Done {
    account: u64,
}

/// A version of the program: the same function by name, state and messages.
macro_rules! version {
    ($module:ident, |$msg:ident| $fault:expr) => {
        mod $module {
            use super::*;

            #[derive(Default, Clone, Serialize, Deserialize, State)]
            pub(super) struct Account {
                numbers: Vec<u64>,
                done: u64,
            }

            #[function(name = "poison/account", key = u64, sends(Self))]
            impl Account {
                #[on]
                fn add(&mut self, msg: &Add, ctx: &mut Context<Self>) -> Result<(), Fault> {
                    self.numbers.push(msg.number);
                    if msg.number == ROUNDS {
                        ctx.send(Account::at(&((msg.account + 1) % KEYS)), Done { account: msg.account });
                    }
                    let $msg = msg;
                    $fault
                }
                #[on]
                fn done(&mut self, _: &Done) {
                    self.done += 1;
                }
            }

            pub(super) fn app(data: &Path, make: fn(u64) -> Option<Add>) -> App {
                let adds = Ingress::<Add>::new("adds").generate(make).to::<Account>();
                App::new("poison")
                    .function::<Account>()
                    .ingress(adds, |add, out| out.send(Account::at(&add.account), add))
                    .settings(Settings { shards: Some(8), ..Settings::new().data(data) })
            }
        }
    };
}
version!(broken, |msg| match msg.poison {
    Poison::None => Ok(()),
    Poison::Fault => Err(Fault::new("an amount that nobody has thought of")),
    Poison::Panic => panic!("an amount that nobody has thought of"),
});
version!(mended, |msg| {
    let _ = msg;
    Ok(())
});

fn poison_of(account: u64) -> Poison {
    match account % (KEYS / POISONED) {
        7 if (account / (KEYS / POISONED)).is_multiple_of(2) => Poison::Fault,
        7 => Poison::Panic,
        _ => Poison::None,
    }
}

fn poisoned(record: u64) -> Option<Add> {
    let (round, account) = (record / KEYS + 1, record % KEYS);
    let poison = if round == 2 { poison_of(account) } else { Poison::None };
    (round <= ROUNDS).then_some(Add { account, number: round, poison })
}

fn healthy(record: u64) -> Option<Add> {
    poisoned(record).map(|add| Add { poison: Poison::None, ..add })
}

fn states(app: App) -> BTreeMap<String, serde_json::Value> {
    let lines = statefn::inspect::Inspection::open(app).expect("opens").states(None).expect("is whole");
    let read = |line: String| {
        let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        (line["key"].to_string(), line["state"].clone())
    };
    lines.into_iter().map(read).collect()
}

#[test]
fn poisoned_keys_disturb_nobody_and_come_to_the_right_state_once_the_program_is_mended() {
    let directory = tempfile::tempdir().expect("temporary");
    let (with, without) = (directory.path().join("with"), directory.path().join("without"));
    mended::app(&without, healthy).run().expect("runs");
    let expected = states(mended::app(&without, healthy));
    assert_eq!(expected.len() as u64, KEYS);

    let summary = broken::app(&with, poisoned).run().expect("runs on with poison");
    assert_eq!((summary.totals.parked_keys, summary.totals.shards.faults), (POISONED, POISONED));
    let found = states(broken::app(&with, poisoned));
    let differ = expected.iter().filter(|(key, state)| found.get(*key) != Some(state)).count() as u64;
    // The key behind a poisoned one lacks what that one would have sent.
    assert_eq!(differ, 2 * POISONED);

    // The broken version parks them again, in order.
    let mut repair = Repair::open(broken::app(&with, poisoned)).expect("opens");
    let keys = repair.parked();
    assert_eq!(keys.len() as u64, POISONED);
    let told = repair.mend(&keys, &Remedy::Retry).expect("commits");
    assert!(told.iter().all(|line| line.contains("\"waiting\":3")), "{:?}", told[0]);
    drop(repair);

    let mut repair = Repair::open(mended::app(&with, poisoned)).expect("opens");
    let keys = repair.parked();
    let told = repair.mend(&keys, &Remedy::Retry).expect("commits");
    assert_eq!(told.len() as u64, POISONED);
    assert!(told.iter().all(|line| line.contains("\"waiting\":0")), "{:?}", told[0]);
    assert_eq!(repair.parked(), []);
    drop(repair);
    assert!(states(mended::app(&with, poisoned)) == expected, "all keys are as if there had been no poison");
    // The next start goes on from there.
    let summary = mended::app(&with, poisoned).run().expect("runs");
    assert_eq!((summary.totals.parked_keys, summary.totals.shards.calls), (0, 0));
}
