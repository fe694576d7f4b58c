//! A bank: payments come in from a file, statements go out to the console. A payment that is refused
//! becomes a dead letter, which is shown too.
//!
//! Without a data directory nothing survives the run; `--data DIRECTORY` keeps the balances.

use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use statefn::prelude::*;

/// One account; its fields are the state of one key.
#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Account {
    balance_cents: u64,
}

#[derive(Clone, Serialize, Deserialize, Message)]
#[message(name = "deposit")]
struct Deposit {
    cents: u64,
}

#[derive(Clone, Serialize, Deserialize, Message)]
#[message(name = "transfer")]
struct Transfer {
    to: String,
    cents: u64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize, Reject)]
#[reject(code = "overdrawn")]
struct Overdrawn {
    missing_cents: u64,
}

#[function(name = "bank/account", sends(Self), emits(STATEMENTS))]
impl Account {
    #[on]
    fn deposit(&mut self, deposit: &Deposit, ctx: &mut Context<Self>) {
        self.balance_cents += deposit.cents;
        ctx.emit(&STATEMENTS, &Statement { account: ctx.key().clone(), balance_cents: self.balance_cents });
    }

    /// Takes the money here and sends it on: both happen, or neither.
    #[on]
    fn transfer(&mut self, transfer: &Transfer, ctx: &mut Context<Self>) -> Result<(), Overdrawn> {
        if transfer.cents > self.balance_cents {
            return Err(Overdrawn { missing_cents: transfer.cents - self.balance_cents });
        }
        self.balance_cents -= transfer.cents;
        ctx.send(Account::at(&transfer.to), Deposit { cents: transfer.cents });
        Ok(())
    }
}

/// One line of `payments.jsonl`; what is paid in has no `from`.
#[derive(Clone, Serialize, Deserialize, Message)]
#[message(name = "payment")]
struct Payment {
    from: Option<String>,
    to: String,
    cents: u64,
}

#[derive(Clone, Serialize, Deserialize, Message)]
#[message(name = "statement")]
struct Statement {
    account: String,
    balance_cents: u64,
}

static STATEMENTS: Egress<Statement> = Egress::new("statements");

fn app() -> App {
    let payments = concat!(env!("CARGO_MANIFEST_DIR"), "/data/payments.jsonl");
    App::new("bank")
        .function::<Account>()
        .ingress(Ingress::<Payment>::new("payments").to::<Account>(), |Payment { from, to, cents }, out| match from {
            Some(from) => out.send(Account::at(from), Transfer { to, cents }),
            None => out.send(Account::at(to), Deposit { cents }),
        })
        .egress(&STATEMENTS)
        .settings(Settings::new().input("payments", payments).console("statements"))
}

fn main() -> ExitCode {
    app().main()
}

#[cfg(test)]
mod tests {
    use statefn::testing::{Harness, TestApp};

    use super::*;

    fn payment(from: Option<&str>, to: &str, cents: u64) -> Payment {
        Payment { from: from.map(str::to_owned), to: to.to_owned(), cents }
    }

    #[test]
    fn an_account_cannot_be_overdrawn() {
        let mut alice = Harness::<Account>::at("alice");
        alice.deliver(Deposit { cents: 100 }).unwrap();
        alice.deliver(Transfer { to: "bob".into(), cents: 70 }).unwrap();
        let sent = alice.sent::<Account, Deposit>();
        assert_eq!((sent.len(), sent[0].0.as_str(), sent[0].1.cents), (1, "bob", 70));

        let rejected = alice.deliver(Transfer { to: "bob".into(), cents: 70 });
        assert_eq!(rejected, Err(Failed::Rejected(Overdrawn { missing_cents: 40 })));
        assert_eq!(alice.state().balance_cents, 30);
    }

    #[test]
    fn money_survives_a_crash_and_what_is_refused_is_a_dead_letter() {
        let mut app = TestApp::new(app());
        app.ingest("payments", &payment(None, "alice", 100));
        app.ingest("payments", &payment(Some("alice"), "bob", 70));
        app.run();
        app.crash();
        app.ingest("payments", &payment(Some("alice"), "bob", 70));
        app.run();
        let balances = ["alice", "bob"].map(|name| app.state(Account::at(name)).unwrap().balance_cents);
        assert_eq!(balances, [30, 70]);
        assert_eq!(app.emitted(&STATEMENTS).len(), 2);

        let letters = app.dead_letters();
        assert_eq!(letters.len(), 1);
        assert_eq!(letters[0].error, r#"overdrawn: {"missing_cents":40}"#);
    }
}
