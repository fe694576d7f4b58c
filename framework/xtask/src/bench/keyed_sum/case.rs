//! The app that is measured, once for each kind of key and message.

use statefn::{
    __private::{Message, Wire},
    App, Settings,
};

/// The length of a message without its framing, in bytes.
const MESSAGE_BYTES: usize = 100;

/// One kind of key and message.
pub(crate) trait Case {
    /// A key.
    type Key: Clone + Eq + std::hash::Hash + AsBytes;
    /// A record in.
    type Add: Message;
    /// A record out.
    type Sum: Message;

    /// The app; its ingress is `adds`, its egress `sums`.
    fn app(settings: Settings, emits: bool) -> App;
    /// A record of [`MESSAGE_BYTES`] bytes.
    fn add(key: u64, amount: u64) -> Self::Add;
    /// What a record adds, and to which key.
    fn parts(add: &Self::Add) -> (&Self::Key, u64);
    /// An empty record out.
    fn empty() -> Self::Sum;
    /// Fills in a record out.
    fn fill(sum: &mut Self::Sum, key: &Self::Key, state: (u64, u64));
}

/// The bytes that a journal holds for a key.
pub(crate) trait AsBytes {
    /// Appends them.
    fn put(&self, out: &mut Vec<u8>);
    /// The key with this number.
    fn numbered(number: u64) -> Self;
}

impl AsBytes for String {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
    fn numbered(number: u64) -> Self {
        format!("user-{number:012}")
    }
}

impl AsBytes for u64 {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
    fn numbered(number: u64) -> Self {
        number
    }
}

/// How many bytes of a note are missing to make a message as long as it has to be.
pub(crate) fn missing(add: &impl Wire) -> usize {
    let mut bytes = Vec::new();
    add.encode(&mut bytes);
    MESSAGE_BYTES.saturating_sub(bytes.len())
}

macro_rules! case {
    ($module:ident: $key:ty as $kind:ident $(, $encoding:ident)?) => {
        pub(crate) mod $module {
            use serde::{Deserialize, Serialize};
            use statefn::prelude::*;

            use super::{AsBytes, Case};
            use crate::bench::audit;

            #[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize, Message)]
            #[message(name = "add" $(, $encoding)?)]
            pub(crate) struct Add {
                #[prost($kind, tag = "1")]
                user: $key,
                #[prost(uint64, tag = "2")]
                amount: u64,
                #[prost(string, tag = "3")]
                note: String,
            }

            #[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize, Message)]
            #[message(name = "sum" $(, $encoding)?)]
            pub(crate) struct Sum {
                #[prost($kind, tag = "1")]
                user: $key,
                #[prost(fixed64, tag = "2")]
                count: u64,
                #[prost(fixed64, tag = "3")]
                sum: u64,
            }

            static SUMS: Egress<Sum> = Egress::new("sums");

            #[derive(Default, Clone, Serialize, Deserialize, State)]
            pub(crate) struct Total {
                count: u64,
                sum: u64,
            }

            #[function(name = "bench/total", key = $key, emits(SUMS))]
            impl Total {
                #[on]
                fn add(&mut self, msg: &Add, ctx: &mut Context<Self>) {
                    self.count += 1;
                    self.sum += msg.amount;
                    audit::note(self.count, self.sum);
                    let key = ctx.key();
                    ctx.emit_with(&SUMS, |sum| {
                        sum.user.clone_from(key);
                        (sum.count, sum.sum) = (self.count, self.sum);
                    });
                }
            }

            #[derive(Default, Clone, Serialize, Deserialize, State)]
            pub(crate) struct SilentTotal {
                count: u64,
                sum: u64,
            }

            #[function(name = "bench/silent-total", key = $key)]
            impl SilentTotal {
                #[on]
                fn add(&mut self, msg: &Add) {
                    self.count += 1;
                    self.sum += msg.amount;
                    audit::note(self.count, self.sum);
                }
            }

            pub(crate) enum Here {}

            impl Case for Here {
                type Key = $key;
                type Add = Add;
                type Sum = Sum;

                fn app(settings: Settings, emits: bool) -> App {
                    let app = App::new("bench").egress(&SUMS).settings(settings);
                    let adds = Ingress::<Add>::new("adds");
                    if emits {
                        let router = |add: Add, out: &mut Router<'_, _>| out.forward_unchanged(Total::at(&add.user), add);
                        app.function::<Total>().ingress(adds.to::<Total>(), router)
                    } else {
                        let router = |add: Add, out: &mut Router<'_, _>| out.forward_unchanged(SilentTotal::at(&add.user), add);
                        app.function::<SilentTotal>().ingress(adds.to::<SilentTotal>(), router)
                    }
                }
                fn add(key: u64, amount: u64) -> Add {
                    let mut add = Add { user: AsBytes::numbered(key), amount, note: "x".to_owned() };
                    add.note = "x".repeat(1 + super::missing(&add));
                    add
                }
                fn parts(add: &Add) -> (&$key, u64) {
                    (&add.user, add.amount)
                }
                fn empty() -> Sum {
                    Sum::default()
                }
                fn fill(to: &mut Sum, key: &$key, (count, sum): (u64, u64)) {
                    to.user.clone_from(key);
                    (to.count, to.sum) = (count, sum);
                }
            }
        }
    };
}

case!(text_protobuf: String as string, prost);
case!(text_json: String as string);
case!(number_protobuf: u64 as fixed64, prost);
case!(number_json: u64 as fixed64);
