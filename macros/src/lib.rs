//! The attribute and derive macros of statefn; use them through the `statefn` crate.
//!
//! Each macro goes parse → check → expand: `parse` reads what the user wrote and loses nothing,
//! `check` finds every mistake and keeps what is sound, `expand` prints that and decides nothing.
//!
//! Invariants: what the user wrote is printed back unchanged, also when it is wrong; every mistake
//! of an item is reported at once and once; nothing is printed for a faulty part, so that one
//! mistake does not become two errors; printed code only names things and calls
//! `::statefn::__private`, by absolute paths.
//!
//! Deliberately absent: the documentation for users, which stands in the facade, where it can have
//! examples that run; and anything that knows how a function is run.

#![forbid(unsafe_code)]

use proc_macro::TokenStream;

mod activity;
mod arguments;
mod contract;
mod function;
mod message;
mod names;
mod problems;
mod reject;
mod schema;
mod state;
mod text;

#[cfg(test)]
mod tests;

/// Makes the methods of an impl block the handlers of a stateful function; see `statefn::function`.
#[proc_macro_attribute]
pub fn function(arguments: TokenStream, item: TokenStream) -> TokenStream {
    function::function(arguments.into(), item.into()).into()
}

/// Makes an async function an activity; see `statefn::activity`.
#[proc_macro_attribute]
pub fn activity(arguments: TokenStream, item: TokenStream) -> TokenStream {
    activity::activity(arguments.into(), item.into()).into()
}

/// Declares what a function of another crate takes and answers; see `statefn::contract`.
#[proc_macro]
pub fn contract(input: TokenStream) -> TokenStream {
    contract::contract(input.into()).into()
}

/// Makes a type a message; see `statefn::Message`.
#[proc_macro_derive(Message, attributes(message))]
pub fn message(item: TokenStream) -> TokenStream {
    message::message(item.into()).into()
}

/// Makes a type a rejection; see `statefn::Reject`.
#[proc_macro_derive(Reject, attributes(reject))]
pub fn reject(item: TokenStream) -> TokenStream {
    reject::reject(item.into()).into()
}

/// Says what serde makes of a type that messages hold; see `statefn::Schema`.
#[proc_macro_derive(Schema)]
pub fn schema(item: TokenStream) -> TokenStream {
    schema::schema(item.into()).into()
}

/// Makes a struct the state of a function; see `statefn::State`.
#[proc_macro_derive(State, attributes(state))]
pub fn state(item: TokenStream) -> TokenStream {
    state::state(item.into()).into()
}
