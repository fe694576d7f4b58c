//! Finds the mistakes of a contract and keeps what is sound.

use std::collections::BTreeSet;

use proc_macro2::Ident;
use syn::{Attribute, LitStr, Type, Visibility, parse_quote};

use super::parse::{Input, Message};
use crate::{names::check_function_name, problems::Problems, text::text_of};

/// A contract without mistakes in what stands here.
pub(super) struct Contract {
    pub(super) attributes: Vec<Attribute>,
    pub(super) visibility: Visibility,
    pub(super) ident: Ident,
    pub(super) name: LitStr,
    pub(super) key: Type,
    pub(super) messages: Vec<Message>,
    /// Nothing of what the user wrote is left out.
    pub(super) is_complete: bool,
}

/// Returns the contract with all that is sound of it.
pub(super) fn check(input: Input, problems: &mut Problems) -> Contract {
    let Input { attributes, visibility, ident, name, key, messages } = input;
    check_function_name(&name, problems);
    let messages = without_repeats(messages, problems);
    let key = key.unwrap_or_else(|| parse_quote!(::std::string::String));
    let is_complete = problems.count() == 0;
    Contract { attributes, visibility, ident, name, key, messages, is_complete }
}

fn without_repeats(messages: Vec<Message>, problems: &mut Problems) -> Vec<Message> {
    let mut seen = BTreeSet::new();
    let mut kept = Vec::new();
    for message in messages {
        let name = text_of(&message.ty);
        if seen.insert(name.clone()) {
            kept.push(message);
        } else {
            problems.add(message.ty, format_args!("`{name}` stands twice in the contract: remove one of them"));
        }
    }
    kept
}
