// Keys of every kind, given as a value, a reference or a literal.

#[path = "../bank.rs"]
mod bank;
use bank::*;

use statefn::DecodeError;
use uuid::Uuid;

#[derive(Debug, Clone, PartialEq, Eq)]
struct AccountId(u64);

impl Key for AccountId {
    fn write(&self, out: &mut statefn::KeyBytes) {
        self.0.write(out);
    }
    fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        u64::read(bytes).map(Self)
    }
}

impl IntoKey<AccountId> for &str {
    fn into_key(self) -> AccountId {
        AccountId(self.len() as u64)
    }
}

macro_rules! keyed {
    ($name:ident, $key:ty, $function:literal) => {
        #[derive(Default, Clone, Serialize, Deserialize, State)]
        struct $name;

        #[function(name = $function, key = $key)]
        impl $name {
            #[on]
            fn deposit(&mut self, _: &Deposit, ctx: &mut Context<Self>) {
                let _: &$key = ctx.key();
            }
        }
    };
}

keyed!(ByText, String, "keys/text");
keyed!(ByUuid, Uuid, "keys/uuid");
keyed!(ByU64, u64, "keys/u64");
keyed!(ByI8, i8, "keys/i8");
keyed!(ByU128, u128, "keys/u128");
keyed!(ById, AccountId, "keys/id");

fn main() {
    let text = String::from("a");
    let _ = (ByText::at("a"), ByText::at(&text), ByText::at(text));
    let uuid = Uuid::nil();
    let _ = (ByUuid::at(uuid), ByUuid::at(&uuid));
    let _ = (ByU64::at(7), ByU64::at(&7), ByI8::at(-1), ByU128::at(1));
    let _ = (ById::at(AccountId(1)), ById::at(&AccountId(1)), ById::at("abc"));
}
