//! Stateful functions for event-driven services: one instance per key, exactly once, event time built in.

#![forbid(unsafe_code)]

mod app;
mod cli;
mod error;
mod fleet;
mod http;
pub mod inspect;
pub mod repair;
pub mod run;
pub mod settings;
pub mod testing;
mod trace;

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;

#[doc(hidden)]
pub use statefn_runtime::failpoint;

pub use self::{
    app::{App, Module},
    error::Error,
    run::Summary,
    settings::Settings,
};

pub use statefn_core::{
    activity::{ActivityContext, NotDone, Policy, TryAgain},
    ask::{Deferred, Done, Reply, ReplyTo},
};

pub use statefn_core::{
    Address, Context, DecodeError, Due, Egress, Encoding, EventTime, Failed, Fault, IntoKey, Key, KeyBytes, LinkError,
    Message, Never, ProcessingTime, Reject, State, Wire,
    ingress::{Ingress, Router},
    key::KeyKind,
    schema::Schema,
};

/// Makes the methods of an impl block the handlers of a stateful function.
///
/// The struct is the state of one key, its methods are what happens to it. The impl block stays as
/// you write it, but for the markers `#[on]`, `#[on_timer]` and `#[on_reply]`; the other methods are
/// yours.
///
/// # Arguments
///
/// | argument | meaning |
/// |---|---|
/// | `name = "namespace/name"` | The stable name; it is part of what is on disk. Required, unless `implements` is given. |
/// | `key = Type` | The identity of one instance, a [`Key`]; `String` if not given. |
/// | `sends(A, Self, path::B)` | Every function, or contract of one, that it sends to. |
/// | `emits(STATIC, path::STATIC)` | Every [`Egress`] that it emits to. |
/// | `implements = path::Contract` | The [`contract!`] that it covers; name and key come from there. |
///
/// # Handlers
///
/// `#[on]` makes a method the handler of its message, `#[on(in_event_time_order)]` lets the message
/// wait for the watermark, so that the messages of a key come in the order of their event time, and
/// `#[on_timer]` makes it the handler of timers with that payload. A handler takes
///
/// - `&mut self`, or `&self` if it only reads (a timer handler always takes `&mut self`),
/// - its message, by reference (`msg: &Deposit`: no copy) or by value (`msg: Deposit`),
/// - and, if it wants one, `ctx: &mut Context<Self>`. With `&self` that is `ctx: &Context<Self>`,
///   and everything with an effect needs `&mut`: a read cannot send.
///
/// It returns nothing, an answer, or `Result<answer, error>`, where the error is a [`Reject`] type,
/// a [`Fault`], or [`Failed`] for both. In place of the answer it may return [`Deferred`] and answer
/// later, see [`Context::defer_reply`]. A timer handler returns nothing or `Result<(), Fault>`.
///
/// `#[on_reply]` makes a method the handler of what comes back: `Reply<Target, Message>` of what
/// [`Context::ask`] asked, `Done<activity>` of what [`Context::call`] called. It takes `&mut self`, the
/// reply by value or reference, and `ctx`, and returns what a timer handler does.
///
/// # Examples
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use statefn::prelude::*;
///
/// #[derive(Default, Clone, Serialize, Deserialize, State)]
/// pub struct Account { balance_cents: u64 }
///
/// #[derive(Clone, Serialize, Deserialize, Message)]
/// #[message(name = "deposit")]
/// pub struct Deposit { pub cents: u64 }
///
/// #[derive(Clone, Serialize, Deserialize, Message)]
/// #[message(name = "transfer")]
/// pub struct Transfer { pub to: String, pub cents: u64 }
///
/// #[derive(Debug, Serialize, Deserialize, Reject)]
/// #[reject(code = "overdrawn")]
/// pub struct Overdrawn { pub missing_cents: u64 }
///
/// #[function(name = "bank/account", sends(Self))]
/// impl Account {
///     #[on]
///     fn deposit(&mut self, msg: &Deposit) {
///         self.balance_cents += msg.cents;
///     }
///
///     #[on]
///     fn transfer(&mut self, msg: &Transfer, ctx: &mut Context<Self>) -> Result<(), Overdrawn> {
///         self.take(msg.cents)?;
///         ctx.send(Account::at(&msg.to), Deposit { cents: msg.cents });
///         Ok(())
///     }
///
///     fn take(&mut self, cents: u64) -> Result<(), Overdrawn> {
///         if cents > self.balance_cents {
///             return Err(Overdrawn { missing_cents: cents - self.balance_cents });
///         }
///         self.balance_cents -= cents;
///         Ok(())
///     }
/// }
///
/// let mut account = Account::default();
/// account.deposit(&Deposit { cents: 10 });
/// assert_eq!(account.take(15).unwrap_err().missing_cents, 5);
/// assert_eq!(format!("{:?}", Account::at("alice")), r#"bank/account/"alice""#);
/// ```
///
/// # Expanded code
///
/// Beside the impl block above stands this, with longer paths:
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # use statefn::{__private::*, prelude::*};
/// # #[derive(Default, Clone, Serialize, Deserialize, State)]
/// # pub struct Account { balance_cents: u64 }
/// # #[derive(Clone, Serialize, Deserialize, Message)]
/// # #[message(name = "deposit")]
/// # pub struct Deposit { pub cents: u64 }
/// # #[derive(Clone, Serialize, Deserialize, Message)]
/// # #[message(name = "transfer")]
/// # pub struct Transfer { pub to: String, pub cents: u64 }
/// # #[derive(Debug, Serialize, Deserialize, Reject)]
/// # #[reject(code = "overdrawn")]
/// # pub struct Overdrawn { pub missing_cents: u64 }
/// # impl Account {
/// #     fn deposit(&mut self, msg: &Deposit) { self.balance_cents += msg.cents; }
/// #     fn transfer(&mut self, msg: &Transfer, ctx: &mut Context<Self>) -> Result<(), Overdrawn> {
/// #         ctx.send(Account::at(&msg.to), Deposit { cents: msg.cents });
/// #         Ok(())
/// #     }
/// # }
/// impl Account {
///     pub fn at(key: impl IntoKey<String>) -> Address<Self> {
///         Address::new(key)
///     }
/// }
///
/// impl Target for Account {
///     const NAME: &'static str = "bank/account";
///     const MESSAGES: &'static [&'static str] = &[<Deposit as Message>::NAME, <Transfer as Message>::NAME];
///     type Key = String;
/// }
///
/// impl Function for Account {
///     const SENDS: &'static [TargetDeclaration] = &[TargetDeclaration::of::<Self>()];
///     fn emits() -> Vec<EgressDeclaration> {
///         vec![]
///     }
///     fn handlers(handlers: &mut Handlers<Self>) {
///         handlers.on::<Deposit>();
///         handlers.on::<Transfer>();
///     }
/// }
///
/// // For each handler of a message:
/// impl Accepts<Deposit> for Account {
///     type Return = ();
///     const INDEX: u16 = 0;
/// }
/// impl Handles<Deposit> for Account {
///     const ACCESS: Access = Access::Write;
///     const IN_EVENT_TIME_ORDER: bool = false;
///     fn handle(&mut self, msg: &mut Incoming<Deposit>, _ctx: &mut Context<'_, Self>) {
///         Self::deposit(self, msg.get())
///     }
/// }
/// # impl Accepts<Transfer> for Account {
/// #     type Return = Result<(), Overdrawn>;
/// #     const INDEX: u16 = 1;
/// # }
/// # impl Handles<Transfer> for Account {
/// #     const ACCESS: Access = Access::Write;
/// #     const IN_EVENT_TIME_ORDER: bool = false;
/// #     fn handle(&mut self, msg: &mut Incoming<Transfer>, ctx: &mut Context<'_, Self>) -> Result<(), Overdrawn> {
/// #         Self::transfer(self, msg.get(), ctx)
/// #     }
/// # }
///
/// // For each target in `sends`:
/// impl SendsTo<Self> for Account {
///     const SLOT: u16 = 0;
/// }
///
/// // Two messages of one name do not compile:
/// const _: () = assert_distinct(<Account as Target>::MESSAGES);
/// ```
///
/// A timer handler is an `impl HandlesTimer<T>` with its own `INDEX` and `fire`, a handler of replies
/// an `impl HandlesReply<R>` with `INDEX` and `on_reply`. With `implements`,
/// `NAME` and `Key` are those of the contract, and `assert_covers::<Contract, Account>()` is checked.
#[doc(inline)]
pub use statefn_macros::function;

/// Makes an async function an activity: a call to the outside that handlers ask for.
///
/// The function stays as it is; beside it stands a type of the same name. [`App::activity`] registers it, [`Context::call`] asks
/// for a call of it, and a handler `#[on_reply] fn name(&mut self, done: Done<activity>, ..)` takes the
/// result, exactly once. A call begins when the handler that asked for it is committed; an attempt
/// that fails or takes too long is repeated after a back-off, and after a crash it begins again. So the
/// outside may see a call more than once, always with the same [`ActivityContext::id`].
///
/// # Arguments
///
/// | argument | meaning |
/// |---|---|
/// | `name = "namespace/name"` | The stable name; it is part of what is on disk. Required. |
/// | `policy = Policy::new()..` | How often, how long and how many at a time it is tried: a [`Policy`]. |
///
/// It takes an owned value that can be encoded, and if it wants one an [`ActivityContext`]; it returns
/// `Result<answer, error>`, where the error is a [`Reject`] type (the outside said no), [`TryAgain`] (any
/// other error becomes one by `?`), or [`NotDone`] for both. A panic is tried again.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use serde::{Deserialize, Serialize};
/// use statefn::{prelude::*, testing::TestApp, Policy};
///
/// #[derive(Clone, Serialize, Deserialize, Message)] #[message(name = "charge")]
/// pub struct Charge { pub cents: u64 }
///
/// #[derive(Debug, Serialize, Deserialize, Reject)] #[reject(code = "declined")]
/// pub struct Declined;
///
/// /// Charges a card; returns the number of the receipt.
/// #[activity(name = "shop/charge", policy = Policy::new().give_up_after(Duration::from_secs(60)))]
/// async fn charge(charge: Charge, ctx: ActivityContext) -> Result<u64, NotDone<Declined>> {
///     let _ = ctx.id();                   // the idempotency key for the payment service
///     if charge.cents > 100 { Err(Declined)? }
///     Ok(charge.cents)
/// }
///
/// #[derive(Default, Clone, Serialize, Deserialize, State)]
/// struct Order { receipt: Option<u64> }
///
/// #[function(name = "shop/order")]
/// impl Order {
///     #[on]
///     fn pay(&mut self, msg: &Charge, ctx: &mut Context<Self>) {
///         ctx.call::<charge>(msg.clone(), 0);
///     }
///     #[on_reply]
///     fn charged(&mut self, done: Done<charge>) {
///         self.receipt = done.outcome.ok();
///     }
/// }
///
/// let mut app = TestApp::new(App::new("shop").function::<Order>().activity::<charge>());
/// app.stand_in::<charge>(|charge, _| Ok(charge.cents + 1));
/// app.request(Order::at("o-1"), Charge { cents: 50 }).unwrap();
/// app.run();
/// assert_eq!(app.state(Order::at("o-1")).unwrap().receipt, Some(51));
/// ```
#[doc(inline)]
pub use statefn_macros::activity;

/// Declares what a function takes and answers, without its implementation.
///
/// Put it into a crate of its own: others send to the contract and need not know the function, and
/// the function that says `#[function(implements = ..)]` does not compile where it does not cover
/// it. A contract has addresses as a function has.
///
/// # Arguments
///
/// `visibility Name = "namespace/name", key = Type;` and then the messages, `;` between them, each
/// as `Message` or `Message -> what its handler returns`. `key` is `String` if it is not given. Doc
/// comments before the visibility are those of the type.
///
/// An implementation may take more messages, in any order, and may return `Result<A, Failed<E>>`
/// where the contract says `Result<A, E>`.
///
/// # Examples
///
/// ```
/// mod bank_api {
///     use serde::{Deserialize, Serialize};
///     use statefn::prelude::*;
///
///     #[derive(Clone, Serialize, Deserialize, Message)]
///     #[message(name = "deposit")]
///     pub struct Deposit { pub cents: u64 }
///
///     #[derive(Clone, Serialize, Deserialize, Message)]
///     #[message(name = "get-balance")]
///     pub struct GetBalance;
///
///     statefn::contract! {
///         /// One account.
///         pub Account = "bank/account", key = u64;
///         Deposit;
///         GetBalance -> u64
///     }
/// }
///
/// use bank_api::{Deposit, GetBalance};
/// use serde::{Deserialize, Serialize};
/// use statefn::prelude::*;
///
/// #[derive(Default, Clone, Serialize, Deserialize, State)]
/// struct Account { balance_cents: u64 }
///
/// #[function(implements = bank_api::Account)]
/// impl Account {
///     #[on]
///     fn deposit(&mut self, msg: &Deposit) { self.balance_cents += msg.cents; }
///     #[on]
///     fn balance(&self, _: &GetBalance) -> u64 { self.balance_cents }
/// }
///
/// assert_eq!(format!("{:?}", bank_api::Account::at(7)), "bank/account/7");
/// ```
///
/// # Expanded code
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # use statefn::{__private::*, prelude::*};
/// # #[derive(Clone, Serialize, Deserialize, Message)]
/// # #[message(name = "deposit")]
/// # pub struct Deposit { pub cents: u64 }
/// # #[derive(Clone, Serialize, Deserialize, Message)]
/// # #[message(name = "get-balance")]
/// # pub struct GetBalance;
/// /// One account.
/// #[derive(Debug)]
/// pub enum Account {}
///
/// impl Account {
///     pub fn at(key: impl IntoKey<u64>) -> Address<Self> {
///         Address::new(key)
///     }
/// }
///
/// impl Target for Account {
///     const NAME: &'static str = "bank/account";
///     const MESSAGES: &'static [&'static str] = &[<Deposit as Message>::NAME, <GetBalance as Message>::NAME];
///     type Key = u64;
/// }
///
/// // For each message:
/// impl Accepts<GetBalance> for Account {
///     type Return = u64;
///     const INDEX: u16 = 1;
/// }
/// # impl Accepts<Deposit> for Account {
/// #     type Return = ();
/// #     const INDEX: u16 = 0;
/// # }
///
/// // What an implementation has to have:
/// impl<F> Covers<F> for Account
/// where
///     F: Function<Key = u64>
///         + Handles<Deposit>
///         + Accepts<Deposit, Return: HandlerReturn<Answer = (), Rejection = statefn::Never>>
///         + Handles<GetBalance>
///         + Accepts<GetBalance, Return: HandlerReturn<Answer = u64, Rejection = statefn::Never>>,
/// {
/// }
///
/// const _: () = assert_distinct(<Account as Target>::MESSAGES);
/// ```
#[doc(inline)]
pub use statefn_macros::contract;

/// Makes a struct or an enum a message: what is sent, set as a timer, emitted, or answered.
///
/// # Arguments
///
/// | argument | meaning |
/// |---|---|
/// | `name = ".."` | The stable name; it is part of what is on disk. Required. |
/// | `prost` | The encoding is protobuf, by the type's `prost::Message`; without it JSON, by serde. |
///
/// # Examples
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use statefn::prelude::*;
///
/// #[derive(Clone, Serialize, Deserialize, Message)]
/// #[message(name = "deposit")]
/// struct Deposit { cents: u64 }
///
/// #[derive(Clone, PartialEq, prost::Message, Message)]
/// #[message(name = "sale", prost)]
/// struct Sale {
///     #[prost(uint64, tag = "1")]
///     cents: u64,
/// }
///
/// let mut bytes = Vec::new();
/// statefn::Wire::encode(&Deposit { cents: 5 }, &mut bytes);
/// assert_eq!(bytes, br#"{"cents":5}"#);
/// ```
///
/// # Expanded code
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # use statefn::__private::*;
/// # #[derive(Clone, Serialize, Deserialize)]
/// # struct Deposit { cents: u64 }
/// impl Wire for Deposit {
///     fn encode(&self, out: &mut Vec<u8>) {
///         encode_json(self, out);
///     }
///     fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
///         decode_json(bytes)
///     }
///     fn decode_row(row: Row<'_>) -> Result<Self, DecodeError> {
///         decode_row(row)
///     }
///     fn json_schema() -> Value {
///         schema_of::<Self>()
///     }
/// }
///
/// impl Schema for Deposit {
///     fn schema(within: &mut Within) -> Value {
///         within.open("crate::Deposit", |within| object_schema(false, vec![
///             FieldSchema { name: "cents", meaning: "", is_optional: false, schema: Of::<u64>::new().schema(within) },
///         ]))
///     }
/// }
///
/// impl Message for Deposit {
///     const NAME: &'static str = "deposit";
///     const ENCODING: Encoding = Encoding::Json;
/// }
/// ```
///
/// With `prost` the calls are `encode_prost`, `decode_prost`, `reset_prost` and `decode_prost_into`, which keeps
/// the buffers of the message before, and `ENCODING` is `Protobuf`.
#[doc(inline)]
pub use statefn_macros::Message;

/// Makes a struct or an enum a rejection: a handler's answer "no".
///
/// # Arguments
///
/// | argument | meaning |
/// |---|---|
/// | `code = ".."` | A stable code for programs. Required. |
/// | `status = 409` | The HTTP status that a caller over HTTP gets, 400 to 499; 409 if not given. |
///
/// On an enum both may stand on the enum, on its variants, or on both: the variant's counts.
///
/// # Examples
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use statefn::prelude::*;
///
/// #[derive(Debug, Serialize, Deserialize, Reject)]
/// #[reject(code = "overdrawn")]
/// struct Overdrawn { missing_cents: u64 }
///
/// #[derive(Debug, Serialize, Deserialize, Reject)]
/// #[reject(status = 422)]
/// enum Refused {
///     #[reject(code = "closed", status = 410)]
///     Closed,
///     #[reject(code = "too-much")]
///     TooMuch { limit_cents: u64 },
/// }
///
/// let overdrawn = Overdrawn { missing_cents: 5 };
/// assert_eq!((overdrawn.code(), overdrawn.status()), ("overdrawn", 409));
/// assert_eq!(Refused::Closed.status(), 410);
/// assert_eq!(Refused::TooMuch { limit_cents: 1 }.status(), 422);
/// ```
///
/// # Expanded code
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # use statefn::__private::*;
/// # #[derive(Debug, Serialize, Deserialize)]
/// # struct Overdrawn { missing_cents: u64 }
/// impl Wire for Overdrawn {
///     fn encode(&self, out: &mut Vec<u8>) {
///         encode_json(self, out);
///     }
///     fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
///         decode_json(bytes)
///     }
/// }
///
/// impl Reject for Overdrawn {
///     fn code(&self) -> &'static str {
///         "overdrawn"
///     }
///     fn status(&self) -> u16 {
///         409
///     }
/// }
/// ```
#[doc(inline)]
pub use statefn_macros::Reject;
/// Says what serde makes of a type that messages hold, as JSON Schema; `GET /functions` tells it.
///
/// `#[derive(Message)]` and `#[derive(Reject)]` do this by themselves; it is for the structs and enums within
/// them. Doc comments become descriptions. Names and shapes are those that `#[serde(..)]` gives them; where
/// other code reads or writes a value (`with`, `from`), and for a type without a schema, anything is said to go:
/// a schema may say too little, and never something wrong.
///
/// # Examples
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use statefn::{Wire, prelude::*};
///
/// #[derive(Clone, Serialize, Deserialize, Schema)]
/// #[serde(rename_all = "kebab-case")]
/// enum Way { ByPost, Courier { phone: Option<String> } }
///
/// /// Sends an order off.
/// #[derive(Clone, Serialize, Deserialize, Message)]
/// #[message(name = "ship")]
/// struct Ship {
///     /// How.
///     way: Way,
///     #[serde(default)]
///     parcels: u8,
/// }
///
/// assert_eq!(Ship::json_schema().to_string(), concat!(
///     r#"{"description":"Sends an order off.","properties":{"#,
///     r#""parcels":{"minimum":0,"type":"integer"},"#,
///     r#""way":{"description":"How.","oneOf":[{"const":"by-post"},{"additionalProperties":false,"#,
///     r#""properties":{"courier":{"properties":{"phone":{"anyOf":[{"type":"string"},{"type":"null"}]}},"type":"object"}},"#,
///     r#""required":["courier"],"type":"object"}]}},"required":["way"],"type":"object"}"#,
/// ));
/// ```
pub use statefn_macros::Schema;

/// Makes a struct the state of one key.
///
/// Also needed are `Default` (a key that has no state yet), `Clone` (a handler that may reject runs
/// on a copy) and serde's `Serialize` and `Deserialize`. A state is stored as MessagePack with named
/// fields, so a field can go, and one can come if it has `#[serde(default)]`.
///
/// The derive also tells the fields to those who read states without the type. Options of serde
/// under which their names would be wrong, such as `rename_all` and `flatten`, are refused.
///
/// # Arguments
///
/// `#[state(version = 2)]` is the version of the layout, from 1, which it is if not given. A program
/// refuses a state of a newer version than its own.
///
/// # Examples
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use statefn::prelude::*;
///
/// #[derive(Default, Clone, Serialize, Deserialize, State)]
/// #[state(version = 2)]
/// struct Account {
///     balance_cents: u64,
///     #[serde(default)]
///     open_holds: Vec<u64>,
/// }
///
/// let types: Vec<_> = Account::FIELDS.iter().map(|field| (field.name, field.ty)).collect();
/// assert_eq!(types, [("balance_cents", "u64"), ("open_holds", "Vec<u64>")]);
/// ```
///
/// # Expanded code
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # use statefn::__private::*;
/// # #[derive(Default, Clone, Serialize, Deserialize)]
/// # struct Account { balance_cents: u64, open_holds: Vec<u64> }
/// impl State for Account {
///     const FIELDS: &'static [Field] = &[
///         Field { name: "balance_cents", ty: "u64" },
///         Field { name: "open_holds", ty: "Vec<u64>" },
///     ];
///     const VERSION: u32 = 2;
///
///     fn encode_state(&self, out: &mut Vec<u8>) {
///         encode_state(self, Self::VERSION, out);
///     }
///     fn decode_state(bytes: &[u8]) -> Result<Self, DecodeError> {
///         decode_state(bytes, Self::VERSION)
///     }
/// }
/// ```
#[doc(inline)]
pub use statefn_macros::State;

/// The code of the README, run as tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}

/// The code of the guide to testing, run as tests.
#[cfg(doctest)]
#[doc = include_str!("../docs/TESTING.md")]
mod testing_guide {}

/// What most files of an app need.
pub mod prelude {
    pub use crate::{
        ActivityContext, Address, App, Context, Deferred, Done, Due, Egress, EventTime, Failed, Fault, Ingress,
        IntoKey, Key, Message, NotDone, ProcessingTime, Reject, Reply, ReplyTo, Router, Schema, Settings, State,
        Summary, TryAgain, activity, contract, function,
    };
}

/// What the macros print and the benchmarks refer to; not for users.
#[doc(hidden)]
pub mod __private {
    pub use statefn_core::{
        Address, Context, DecodeError, Egress, Encoding, Fault, IntoKey, Message, Reject, State, Wire,
        activity::{Activity, ActivityContext, Policy},
        address::{murmur2, shard_of},
        ask::HandlesReply,
        egress::EgressDeclaration,
        function::{
            Accepts, Access, Covers, Function, HandlerReturn, Handles, HandlesTimer, Incoming, SendsTo, Target,
            TargetDeclaration, TimerReturn, assert_covers, assert_distinct,
        },
        host::Handlers,
        message::{
            Row, decode_json, decode_prost, decode_prost_into, decode_row, encode_json, encode_prost, reset_prost,
        },
        schema::{
            Field as FieldSchema, Of, Schema, Tag, Unknown, Value, Variant as VariantSchema, Within,
            anything as anything_schema, described as described_schema, object as object_schema, of as schema_of,
            tuple as tuple_schema, unit as unit_schema, variants as variants_schema,
        },
        state::{Field, decode as decode_state, encode as encode_state},
    };
}
