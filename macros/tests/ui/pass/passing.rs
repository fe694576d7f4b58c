// Messages come by reference or by value, contexts in every spelling, answers in every kind.

#[path = "../bank.rs"]
mod bank;
use bank::*;

use statefn::Context as Ctx;

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Account {
    balance_cents: u64,
    last: Option<Transfer>,
}

#[derive(Serialize, Deserialize, Message)]
#[message(name = "audit")]
enum Audit {
    All,
    Since { ms: i64 },
}

#[derive(Serialize, Deserialize, Message)]
#[message(name = "report")]
struct Report(Vec<u64>);

#[derive(Debug, Serialize, Deserialize, Reject)]
#[reject(code = "refused")]
enum Refused {
    #[reject(code = "closed", status = 410)]
    Closed,
    Later(u64),
}

#[function(name = "bank/account")]
impl Account {
    #[on]
    fn by_reference(&mut self, msg: &Deposit) {
        self.balance_cents += msg.cents;
    }

    #[on(in_event_time_order)]
    fn by_value(&mut self, msg: Transfer, ctx: &mut statefn::Context<'_, Self>) -> Result<u64, Failed<Refused>> {
        if ctx.key().is_empty() {
            return Err(Refused::Closed.into());
        }
        let cents: u64 = "1".parse().map_err(Fault::from)?;
        self.last = Some(msg);
        Ok(cents)
    }

    #[on]
    fn read(&self, GetBalance: GetBalance, ctx: &Context<'_, Account>) -> Option<String> {
        Some(ctx.key().clone())
    }

    #[on]
    #[allow(clippy::unused_self, reason = "an attribute of the user's own")]
    pub(crate) fn audit(&mut self, msg: Audit, _: &Context<Self>) -> Result<Report, Fault> {
        match msg {
            Audit::All => Ok(Report(vec![self.balance_cents])),
            Audit::Since { ms } => Err(Fault::new(ms)),
        }
    }

    #[on_timer]
    fn expired(&mut self, timer: HoldExpired, ctx: &mut Context<Self>) -> Result<(), Fault> {
        self.balance_cents += timer.cents;
        ctx.clear();
        Ok(())
    }

    #[on_timer]
    fn deposit_later(&mut self, _: &Deposit, _: &Context<Self>) {}

    fn new(balance_cents: u64) -> Self {
        Self { balance_cents, last: None }
    }
}

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Nothing;

#[function(name = "bank/nothing", sends(Account, Nothing))]
impl Nothing {}

#[derive(Default, Clone, Serialize, Deserialize, State)]
#[state(version = 2)]
struct Counter(u64);

#[function(name = "bank/counter")]
impl Counter {
    #[on]
    fn count(&mut self, _: &Deposit) {
        self.0 += 1;
    }
}

fn main() {
    let _: Option<Ctx<'_, Counter>> = None;
    let _ = Account::new(1);
    assert_eq!(Refused::Closed.code(), "closed");
    assert_eq!(Refused::Closed.status(), 410);
    assert_eq!(Refused::Later(1).code(), "refused");
    assert_eq!(Refused::Later(1).status(), 409);
    assert_eq!(Counter::VERSION, 2);
}
