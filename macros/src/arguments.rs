//! Reads lists such as `name = "bank/account", sends(Self)`.
//!
//! Invariant: a faulty argument is reported and skipped, the others are read all the same.

use std::collections::BTreeSet;

use proc_macro2::{Ident, TokenStream, TokenTree};
use syn::{
    Attribute, LitStr, Meta, Token,
    ext::IdentExt,
    parse::{ParseStream, Parser},
};

use crate::problems::Problems;

/// Calls `read` for each argument, with the input behind its name.
///
/// `read` stops at the end of its argument, or fails.
pub(crate) fn each_argument(
    tokens: TokenStream,
    problems: &mut Problems,
    mut read: impl FnMut(&Ident, ParseStream<'_>, &mut Problems) -> syn::Result<()>,
) {
    let parsed = (|input: ParseStream<'_>| {
        let mut seen = BTreeSet::new();
        while !input.is_empty() {
            if let Err(error) = argument(input, &mut seen, problems, &mut read) {
                problems.push(error);
                skip_argument(input)?;
            }
            input.parse::<Option<Token![,]>>()?;
        }
        Ok(())
    })
    .parse2(tokens);
    problems.ok(parsed);
}

/// Calls `read` for each argument of each attribute called `name`, as [`each_argument`] does.
pub(crate) fn each_attribute_argument(
    attributes: &[Attribute],
    name: &str,
    problems: &mut Problems,
    mut read: impl FnMut(&Ident, ParseStream<'_>, &mut Problems) -> syn::Result<()>,
) {
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident(name)) {
        match &attribute.meta {
            Meta::List(list) => each_argument(list.tokens.clone(), problems, &mut read),
            meta => problems.add(meta, format_args!("`#[{name}]` needs its arguments in brackets: `#[{name}(..)]`")),
        }
    }
}

/// Reads `= "text"`.
pub(crate) fn text(name: &Ident, input: ParseStream<'_>, example: &str) -> syn::Result<LitStr> {
    let text = input.parse::<Token![=]>().and_then(|_| input.parse());
    text.map_err(|error| syn::Error::new(error.span(), format_args!("`{name}` is a text: `{name} = {example:?}`")))
}

/// Says that there is no such argument.
pub(crate) fn unknown(attribute: &str, argument: &Ident, supported: &str) -> syn::Error {
    syn::Error::new(
        argument.span(),
        format_args!("unsupported `{attribute}` argument `{argument}`; supported arguments are: {supported}"),
    )
}

fn argument(
    input: ParseStream<'_>,
    seen: &mut BTreeSet<String>,
    problems: &mut Problems,
    read: &mut impl FnMut(&Ident, ParseStream<'_>, &mut Problems) -> syn::Result<()>,
) -> syn::Result<()> {
    let name = input.call(Ident::parse_any)?;
    if !seen.insert(name.to_string()) {
        return Err(syn::Error::new(name.span(), format_args!("`{name}` is given twice: remove one of them")));
    }
    read(&name, input, problems)?;
    if input.is_empty() || input.peek(Token![,]) {
        return Ok(());
    }
    Err(input.error(format_args!("expected `,` behind the argument `{name}`")))
}

fn skip_argument(input: ParseStream<'_>) -> syn::Result<()> {
    while !input.is_empty() && !input.peek(Token![,]) {
        input.parse::<TokenTree>()?;
    }
    Ok(())
}
