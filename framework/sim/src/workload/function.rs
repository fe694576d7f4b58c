//! Macros for functions written by hand: what `#[function]` would print, without its checks.

/// A JSON message with a name.
macro_rules! message {
    ($type:ident, $name:literal) => {
        impl statefn_core::Wire for $type {
            fn encode(&self, out: &mut Vec<u8>) {
                statefn_core::message::encode_json(self, out);
            }
            fn decode(bytes: &[u8]) -> Result<Self, statefn_core::DecodeError> {
                statefn_core::message::decode_json(bytes)
            }
        }
        impl statefn_core::Message for $type {
            const NAME: &'static str = $name;
            const ENCODING: statefn_core::Encoding = statefn_core::Encoding::Json;
        }
    };
}

macro_rules! is_ordered {
    (plain) => {
        false
    };
    (read) => {
        false
    };
    (ordered) => {
        true
    };
}

/// What a handler may do with the state, by the same word.
macro_rules! access {
    (read) => {
        statefn_core::function::Access::Read
    };
    ($order:ident) => {
        statefn_core::function::Access::Write
    };
}

/// A function with text keys. Handlers are `index order Message -> Return: method`, timer handlers
/// `index Payload: method`, handlers of replies `index Reply: method`, targets `slot Target`.
macro_rules! function {
    (
        $type:ident, $name:literal,
        on { $($index:literal $order:ident $message:ident -> $return:ty : $method:ident),* $(,)? }
        timers { $($timer_index:literal $timer:ident : $fire:ident),* $(,)? }
        $(replies { $($reply_index:literal $reply:ty : $on_reply:ident),* $(,)? })?
        sends { $($slot:literal $target:ident),* $(,)? }
        emits { $($egress:ident),* $(,)? }
    ) => {
        impl statefn_core::State for $type {
            const FIELDS: &'static [statefn_core::state::Field] = &[];
            const VERSION: u32 = 1;
            fn encode_state(&self, out: &mut Vec<u8>) {
                statefn_core::state::encode(self, 1, out);
            }
            fn decode_state(bytes: &[u8]) -> Result<Self, statefn_core::DecodeError> {
                statefn_core::state::decode(bytes, 1)
            }
        }
        impl statefn_core::function::Target for $type {
            const NAME: &'static str = $name;
            const MESSAGES: &'static [&'static str] = &[$(<$message as statefn_core::Message>::NAME),*];
            type Key = String;
        }
        impl statefn_core::function::Function for $type {
            const SENDS: &'static [statefn_core::function::TargetDeclaration] =
                &[$(statefn_core::function::TargetDeclaration::of::<$target>()),*];
            fn emits() -> Vec<statefn_core::egress::EgressDeclaration> {
                vec![$($egress.declaration()),*]
            }
            fn handlers(handlers: &mut statefn_core::host::Handlers<Self>) {
                $(handlers.on::<$message>();)*
                $(handlers.on_timer::<$timer>();)*
                $($(handlers.on_reply::<$reply>();)*)?
                let _ = handlers;
            }
        }
        $(
            impl statefn_core::function::Accepts<$message> for $type {
                type Return = $return;
                const INDEX: u16 = $index;
            }
            impl statefn_core::function::Handles<$message> for $type {
                const ACCESS: statefn_core::function::Access = access!($order);
                const IN_EVENT_TIME_ORDER: bool = is_ordered!($order);
                fn handle(
                    &mut self,
                    msg: &mut statefn_core::function::Incoming<$message>,
                    ctx: &mut statefn_core::Context<'_, Self>,
                ) -> $return {
                    self.$method(msg.get(), ctx)
                }
            }
        )*
        $(
            impl statefn_core::function::HandlesTimer<$timer> for $type {
                const INDEX: u16 = $timer_index;
                fn fire(
                    &mut self,
                    timer: &mut statefn_core::function::Incoming<$timer>,
                    ctx: &mut statefn_core::Context<'_, Self>,
                ) -> Result<(), statefn_core::Fault> {
                    self.$fire(timer.get(), ctx);
                    Ok(())
                }
            }
        )*
        $($(
            impl statefn_core::ask::HandlesReply<$reply> for $type {
                const INDEX: u16 = $reply_index;
                fn on_reply(
                    &mut self,
                    reply: $reply,
                    ctx: &mut statefn_core::Context<'_, Self>,
                ) -> Result<(), statefn_core::Fault> {
                    self.$on_reply(reply, ctx)
                }
            }
        )*)?
        $(
            impl statefn_core::function::SendsTo<$target> for $type {
                const SLOT: u16 = $slot;
            }
        )*
    };
}
