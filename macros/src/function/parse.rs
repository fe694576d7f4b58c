//! Reads the attribute and takes the markers off the methods.

use proc_macro2::{Ident, TokenStream};
use syn::{
    Attribute, Expr, ImplItem, ImplItemFn, ItemImpl, LitStr, Meta, Path, Signature, Token, Type, parenthesized,
    parse::ParseStream, punctuated::Punctuated, spanned::Spanned,
};

use crate::{
    arguments::{each_argument, text, unknown},
    problems::Problems,
    text::text_of,
};

const ARGUMENTS: &str = "`name`, `key`, `sends`, `emits`, `implements`";

/// What the user wrote.
pub(super) struct Input {
    pub(super) arguments: Arguments,
    pub(super) methods: Vec<Method>,
}

/// What stands in the brackets of `#[function(..)]`.
#[derive(Default)]
pub(super) struct Arguments {
    pub(super) name: Option<LitStr>,
    pub(super) key: Option<Type>,
    pub(super) sends: Vec<Path>,
    pub(super) emits: Vec<Path>,
    pub(super) implements: Option<Path>,
    /// An argument could not be read, so that one that is missing may be the one.
    pub(super) are_faulty: bool,
}

/// A method with at least one marker.
pub(super) struct Method {
    pub(super) markers: Vec<Marker>,
    pub(super) signature: Signature,
    pub(super) condition: Option<Attribute>,
}

/// An attribute that makes a method a handler.
pub(super) struct Marker {
    pub(super) attribute: Attribute,
    pub(super) kind: MarkerKind,
}

#[derive(Clone, Copy)]
pub(super) enum MarkerKind {
    On {
        in_event_time_order: bool,
    },
    OnTimer,
    OnReply,
    /// `#[on_close]`, which other frameworks and later versions have.
    Later,
}

/// Reads the attribute's arguments and takes the markers off the block's methods.
pub(super) fn parse(arguments: TokenStream, mut block: ItemImpl, problems: &mut Problems) -> (Input, ItemImpl) {
    let arguments = parse_arguments(arguments, problems);
    let methods = block.items.iter_mut().filter_map(|item| parse_method(item, problems)).collect();
    (Input { arguments, methods }, block)
}

fn parse_arguments(tokens: TokenStream, problems: &mut Problems) -> Arguments {
    let before = problems.count();
    let mut arguments = Arguments::default();
    each_argument(tokens, problems, |name, input, problems| parse_argument(name, input, &mut arguments, problems));
    arguments.are_faulty = problems.count() > before;
    arguments
}

fn parse_argument(
    name: &Ident,
    input: ParseStream<'_>,
    arguments: &mut Arguments,
    problems: &mut Problems,
) -> syn::Result<()> {
    match name.to_string().as_str() {
        "name" => arguments.name = Some(text(name, input, "bank/account")?),
        "key" => arguments.key = Some(behind_equals(input)?),
        "sends" => arguments.sends = paths(name, input)?,
        "emits" => arguments.emits = paths(name, input)?,
        "implements" => arguments.implements = Some(behind_equals(input)?),
        "window" => {
            behind_equals::<Expr>(input)?;
            problems.add(name, "windows are not supported yet: remove `window`, and close by a timer");
        }
        _ => return Err(unknown("#[function]", name, ARGUMENTS)),
    }
    Ok(())
}

fn behind_equals<T: syn::parse::Parse>(input: ParseStream<'_>) -> syn::Result<T> {
    input.parse::<Token![=]>()?;
    input.parse()
}

/// Reads `(A, Self, path::B)`.
fn paths(name: &Ident, input: ParseStream<'_>) -> syn::Result<Vec<Path>> {
    if !input.peek(syn::token::Paren) {
        return Err(syn::Error::new(name.span(), format_args!("`{name}` is a list of paths: `{name}(A, path::B)`")));
    }
    let list;
    parenthesized!(list in input);
    let paths = Punctuated::<Path, Token![,]>::parse_terminated(&list)?;
    Ok(paths.into_iter().collect())
}

fn parse_method(item: &mut ImplItem, problems: &mut Problems) -> Option<Method> {
    let ImplItem::Fn(method) = item else { return None };
    let markers = take_markers(method, problems);
    if markers.is_empty() {
        return None;
    }
    let condition = method.attrs.iter().find(|attribute| attribute.path().is_ident("cfg")).cloned();
    Some(Method { markers, signature: method.sig.clone(), condition })
}

fn take_markers(method: &mut ImplItemFn, problems: &mut Problems) -> Vec<Marker> {
    let taken = method.attrs.extract_if(.., |attribute| is_marker(attribute));
    taken.map(|attribute| Marker { kind: parse_marker(&attribute, problems), attribute }).collect()
}

fn is_marker(attribute: &Attribute) -> bool {
    ["on", "on_timer", "on_reply", "on_close"].iter().any(|name| attribute.path().is_ident(name))
}

fn parse_marker(attribute: &Attribute, problems: &mut Problems) -> MarkerKind {
    if attribute.path().is_ident("on") {
        MarkerKind::On { in_event_time_order: parse_on(attribute, problems) }
    } else {
        let name = text_of(attribute.path());
        if !matches!(attribute.meta, Meta::Path(_)) {
            problems.add(&attribute.meta, format_args!("`#[{name}]` takes no arguments: remove them"));
        }
        match name.as_str() {
            "on_timer" => MarkerKind::OnTimer,
            "on_reply" => MarkerKind::OnReply,
            _ => MarkerKind::Later,
        }
    }
}

/// Reads whether `#[on]` asks for the order of event time.
fn parse_on(attribute: &Attribute, problems: &mut Problems) -> bool {
    let mut in_event_time_order = false;
    match &attribute.meta {
        Meta::Path(_) => {}
        Meta::List(list) => each_argument(list.tokens.clone(), problems, |argument, _, _| {
            if argument != "in_event_time_order" {
                return Err(unknown("#[on]", argument, "`in_event_time_order`"));
            }
            in_event_time_order = true;
            Ok(())
        }),
        Meta::NameValue(pair) => {
            problems.push(syn::Error::new(pair.span(), "write `#[on]`, or `#[on(in_event_time_order)]`"));
        }
    }
    in_event_time_order
}
