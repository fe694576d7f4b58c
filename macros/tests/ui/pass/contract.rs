// A contract is addressed like a function; an implementation covers it, in any order and with more.

mod bank_api {
    use serde::{Deserialize, Serialize};
    use statefn::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct AccountId(pub u64);

    impl Key for AccountId {
        fn write(&self, out: &mut statefn::KeyBytes) {
            self.0.write(out);
        }
        fn read(bytes: &[u8]) -> Result<Self, statefn::DecodeError> {
            u64::read(bytes).map(Self)
        }
    }

    #[derive(Clone, Serialize, Deserialize, Message)]
    #[message(name = "deposit")]
    pub struct Deposit {
        pub cents: u64,
    }

    #[derive(Clone, Serialize, Deserialize, Message)]
    #[message(name = "transfer")]
    pub struct Transfer {
        pub cents: u64,
    }

    #[derive(Clone, Serialize, Deserialize, Message)]
    #[message(name = "get-balance")]
    pub struct GetBalance;

    #[derive(Debug, Serialize, Deserialize, Reject)]
    #[reject(code = "overdrawn")]
    pub struct Overdrawn;

    statefn::contract! {
        /// One account.
        pub Account = "bank/account", key = AccountId;
        Deposit;
        Transfer -> Result<(), Overdrawn>;
        GetBalance -> u64
    }

    statefn::contract! { Undocumented = "bank/other"; super::bank_api::Deposit; }
    const _: Option<Undocumented> = None;
}

mod bank {
    use serde::{Deserialize, Serialize};
    use statefn::prelude::*;

    use super::bank_api::{self, Deposit, GetBalance, Overdrawn, Transfer};

    #[derive(Clone, Serialize, Deserialize, Message)]
    #[message(name = "close")]
    pub struct Close;

    #[derive(Default, Clone, Serialize, Deserialize, State)]
    pub struct Account {
        balance_cents: u64,
    }

    #[function(implements = bank_api::Account, sends(bank_api::Account))]
    impl Account {
        #[on]
        fn close(&mut self, _: &Close, ctx: &mut Context<Self>) {
            ctx.send(bank_api::Account::at(ctx.key()), Deposit { cents: 1 });
        }
        #[on]
        fn balance(&self, _: &GetBalance) -> u64 {
            self.balance_cents
        }
        #[on]
        fn transfer(&mut self, _: &Transfer) -> Result<(), Failed<Overdrawn>> {
            Err(Fault::new("broken").into())
        }
        #[on]
        fn deposit(&mut self, msg: &Deposit) {
            self.balance_cents += msg.cents;
        }
    }
}

mod shop {
    use serde::{Deserialize, Serialize};
    use statefn::prelude::*;

    use super::bank_api::{self, AccountId, Deposit};

    #[derive(Default, Clone, Serialize, Deserialize, State)]
    pub struct Clerk;

    #[function(name = "shop/clerk", sends(bank_api::Account))]
    impl Clerk {
        #[on]
        fn pay(&mut self, msg: &Deposit, ctx: &mut Context<Self>) {
            ctx.send(bank_api::Account::at(AccountId(7)), msg.clone());
        }
    }
}

fn main() {
    let _ = shop::Clerk::at("first");
    let contract = bank_api::Account::at(bank_api::AccountId(7));
    let implementation = bank::Account::at(bank_api::AccountId(7));
    assert_eq!(format!("{contract:?}"), format!("{implementation:?}"));
}
