//! `contract!`: what a function takes and answers, without its implementation.
//!
//! Deliberately absent: timers, `sends` and `emits`, which are the implementation's own.

use proc_macro2::TokenStream;
use quote::quote;

use crate::problems::Problems;

mod check;
mod expand;
mod parse;

/// Expands the macro.
pub(crate) fn contract(input: TokenStream) -> TokenStream {
    let mut problems = Problems::default();
    let input = parse::parse(input, &mut problems);
    let contract = input.map(|input| check::check(input, &mut problems));
    let errors = problems.into_compile_errors();
    let printed = contract.map(|contract| expand::expand(&contract));
    quote!(#errors #printed)
}
