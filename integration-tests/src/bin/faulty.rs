//! An app whose handler breaks on the records that say so; for the tests of faults.
//!
//! With the variable `FAULTY_MENDED` it is the next version of that program, in which nothing breaks.

use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use statefn::prelude::*;

/// How a record breaks the handler.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Break {
    Panic,
    Fault,
    /// The process dies.
    Abort,
    /// The handler never returns.
    Hang,
}

/// Whether this is the version in which nothing breaks.
struct IsMended(bool);

#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "add")]
struct Add {
    key: String,
    amount: u64,
    #[serde(default)]
    breaks: Option<Break>,
}

#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "seen")]
struct Seen {
    amount: u64,
}

#[derive(Debug, Serialize, Deserialize, Message)]
#[message(name = "sum")]
struct Sum {
    key: String,
    sum: u64,
}

static SUMS: Egress<Sum> = Egress::new("sums");

#[derive(Debug, Default, Clone, Serialize, Deserialize, State)]
struct Counter {
    sum: u64,
}

#[function(name = "faulty/counter", sends(Total), emits(SUMS))]
impl Counter {
    #[on]
    fn add(&mut self, add: &Add, ctx: &mut Context<Self>) -> Result<(), Fault> {
        self.sum += add.amount;
        ctx.emit(&SUMS, &Sum { key: add.key.clone(), sum: self.sum });
        ctx.send(Total::at(format!("total of {}", add.key)), Seen { amount: add.amount });
        match add.breaks {
            None => Ok(()),
            Some(_) if ctx.resource::<IsMended>().0 => Ok(()),
            Some(Break::Fault) => Err(Fault::new("the record says fault")),
            Some(Break::Panic) => panic!("the record says panic"),
            Some(Break::Abort) => std::process::abort(),
            Some(Break::Hang) => loop {
                std::hint::spin_loop();
            },
        }
    }
}

/// Counts what counters have told it, on another shard than most of them.
#[derive(Debug, Default, Clone, Serialize, Deserialize, State)]
struct Total {
    sum: u64,
}

#[function(name = "faulty/total")]
impl Total {
    #[on]
    fn seen(&mut self, seen: &Seen) {
        self.sum += seen.amount;
    }
}

fn main() -> ExitCode {
    App::new("faulty")
        .function::<Counter>()
        .function::<Total>()
        .ingress(Ingress::<Add>::new("adds").to::<Counter>(), |add, out| out.send(Counter::at(&add.key), add))
        .egress(&SUMS)
        .resource(IsMended(std::env::var_os("FAULTY_MENDED").is_some()))
        .main()
}
