//! Stateful functions for event-driven services: one instance per key, exactly once, event time built in.

#![forbid(unsafe_code)]

pub use statefn_core::{
    Address, Context, DecodeError, Due, Egress, Encoding, EventTime, Failed, Fault, IntoKey, Key, LinkError, Message,
    Never, ProcessingTime, Reject, State, Wire,
    ingress::{Ingress, Router},
};

/// What most files of an app need.
pub mod prelude {
    pub use crate::{
        Address, Context, Due, Egress, EventTime, Failed, Fault, Ingress, IntoKey, Key, Message, ProcessingTime,
        Reject, Router, State,
    };
}

/// What the macros print refers to; not for users.
#[doc(hidden)]
pub mod __private {
    pub use statefn_core::{
        Address, Context, DecodeError, Encoding, Fault, IntoKey, Message, Reject, State, Wire,
        egress::EgressDeclaration,
        function::{
            Accepts, Access, Covers, Function, HandlerReturn, Handles, HandlesTimer, Incoming, SendsTo, Target,
            TargetDeclaration, TimerReturn, assert_covers, assert_distinct,
        },
        host::Handlers,
        message::{Row, decode_json, decode_prost, decode_prost_into, decode_row, encode_json, encode_prost},
        state::{Field, decode as decode_state, encode as encode_state},
    };
}
