// Functions can be printed by a macro by example, also with types from outside of it.

#[path = "../bank.rs"]
mod bank;
use bank::*;

macro_rules! function {
    ($name:ident, $message:ty, $answer:ty, $timer:ty, $egress:path) => {
        #[derive(Default, Clone, Serialize, Deserialize, State)]
        struct $name {
            last: $answer,
        }

        #[statefn::function(name = "bank/account", sends(Self), emits($egress))]
        impl $name {
            #[on]
            fn handle(&mut self, msg: $message, ctx: &mut Context<Self>) -> $answer {
                ctx.send(Self::at("bob"), msg);
                self.last.clone()
            }

            #[on_timer]
            fn fire(&mut self, _: $timer, ctx: &mut Context<Self>) -> Result<(), Fault> {
                ctx.clear();
                Ok(())
            }
        }
    };
}

function!(Account, Deposit, Option<String>, HoldExpired, STATEMENTS);

fn main() {}
