//! Reads `pub Account = "bank/account", key = AccountId; Deposit; Transfer -> Result<(), Overdrawn>`.

use proc_macro2::{Ident, TokenStream, TokenTree};
use syn::{
    Attribute, LitStr, Path, ReturnType, Token, Type, Visibility,
    parse::{Parse, ParseStream, Parser},
    parse_quote_spanned,
    spanned::Spanned,
};

use crate::{
    arguments::{each_argument, unknown},
    problems::Problems,
};

/// What the user wrote.
pub(super) struct Input {
    pub(super) attributes: Vec<Attribute>,
    pub(super) visibility: Visibility,
    pub(super) ident: Ident,
    pub(super) name: LitStr,
    pub(super) key: Option<Type>,
    pub(super) messages: Vec<Message>,
}

/// A message that the contract names, and what comes back.
pub(super) struct Message {
    pub(super) ty: Path,
    pub(super) output: Type,
}

/// Reads the contract; `None` if its head is not readable.
pub(super) fn parse(input: TokenStream, problems: &mut Problems) -> Option<Input> {
    let parsed = (|input: ParseStream<'_>| parse_contract(input, problems)).parse2(input);
    problems.ok(parsed)
}

fn parse_contract(input: ParseStream<'_>, problems: &mut Problems) -> syn::Result<Input> {
    let attributes = input.call(Attribute::parse_outer)?;
    let (visibility, ident, name) = parse_head(input).map_err(|error| {
        let text = "a contract begins with its type and its name: `pub Account = \"bank/account\";`";
        syn::Error::new(error.span(), text)
    })?;
    let key = parse_key(until_semicolon(input)?, problems);
    let mut messages = Vec::new();
    while !input.is_empty() {
        messages.extend(problems.ok(syn::parse2(until_semicolon(input)?)));
    }
    Ok(Input { attributes, visibility, ident, name, key, messages })
}

fn parse_head(input: ParseStream<'_>) -> syn::Result<(Visibility, Ident, LitStr)> {
    let visibility = input.parse()?;
    let ident = input.parse()?;
    input.parse::<Token![=]>()?;
    let name = input.parse()?;
    input.parse::<Option<Token![,]>>()?;
    Ok((visibility, ident, name))
}

fn parse_key(arguments: TokenStream, problems: &mut Problems) -> Option<Type> {
    let mut key = None;
    each_argument(arguments, problems, |argument, input, _| {
        if argument != "key" {
            return Err(unknown("contract!", argument, "`key`"));
        }
        input.parse::<Token![=]>()?;
        key = Some(input.parse()?);
        Ok(())
    });
    key
}

/// Returns the tokens up to the next `;`, and takes that too.
fn until_semicolon(input: ParseStream<'_>) -> syn::Result<TokenStream> {
    let mut tokens = TokenStream::new();
    while !input.is_empty() && !input.peek(Token![;]) {
        tokens.extend([input.parse::<TokenTree>()?]);
    }
    input.parse::<Option<Token![;]>>()?;
    Ok(tokens)
}

impl Parse for Message {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let ty: Path = input.parse()?;
        let output = match input.parse()? {
            ReturnType::Default => parse_quote_spanned!(ty.span()=> ()),
            ReturnType::Type(_, output) => *output,
        };
        if !input.is_empty() {
            return Err(input.error("expected `;` behind the message"));
        }
        Ok(Self { ty, output })
    }
}
