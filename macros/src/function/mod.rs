//! `#[function]`: makes the methods of an inherent impl block the handlers of a stateful function.
//!
//! The impl block is printed as it stands, without the markers `#[on]` and `#[on_timer]`; beside it
//! stand one small impl for each handler and those of the function as a whole.
//!
//! Deliberately absent: generic functions, whose name would stand for several types.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Item, ItemImpl};

use crate::problems::Problems;

mod check;
mod expand;
mod parse;

/// Expands the attribute.
pub(crate) fn function(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let mut problems = Problems::default();
    match problems.ok(impl_block(&item)) {
        Some(block) => expand_impl(arguments, block, problems),
        None => {
            let errors = problems.into_compile_errors();
            quote!(#item #errors)
        }
    }
}

fn expand_impl(arguments: TokenStream, block: ItemImpl, mut problems: Problems) -> TokenStream {
    let (input, block) = parse::parse(arguments, block, &mut problems);
    let function = check::check(input, &block, &mut problems);
    let errors = problems.into_compile_errors();
    let printed = function.map(|function| expand::expand(&function));
    quote!(#block #errors #printed)
}

fn impl_block(item: &TokenStream) -> syn::Result<ItemImpl> {
    match syn::parse2(item.clone())? {
        Item::Impl(block) => Ok(block),
        other => Err(syn::Error::new_spanned(
            other,
            "`#[function]` stands on the impl block that holds the handlers: `#[function(name = \"..\")] impl Account { .. }`",
        )),
    }
}
