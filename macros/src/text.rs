//! What a person would say of tokens: how they read, and where they stand.

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::spanned::Spanned;

/// Returns where the tokens stand, for printed code about which errors should point there.
///
/// Names in that code still mean what they mean in the other printed code; tokens that come out of
/// a macro by example would bring their own scope.
pub(crate) fn place_of(tokens: impl ToTokens) -> Span {
    tokens.span().resolved_at(Span::call_site())
}

/// Returns the tokens as text: `Vec<u64>`, where their own `to_string` gives `Vec < u64 >`.
pub(crate) fn text_of(tokens: impl ToTokens) -> String {
    let mut text = String::new();
    write(tokens.into_token_stream(), &mut text);
    text
}

/// Returns whether one of the tokens, at any depth, is this one.
pub(crate) fn contains(tokens: impl ToTokens, wanted: &str) -> bool {
    tokens.into_token_stream().into_iter().any(|token| match token {
        TokenTree::Group(group) => contains(group.stream(), wanted),
        token => token.to_string() == wanted,
    })
}

fn write(tokens: TokenStream, text: &mut String) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                let (open, close) = delimiters(group.delimiter());
                text.push_str(open);
                write(group.stream(), text);
                text.push_str(close);
            }
            TokenTree::Punct(punct) => write_punct(punct.as_char(), text),
            TokenTree::Ident(_) | TokenTree::Literal(_) => write_word(&token.to_string(), text),
        }
    }
}

fn delimiters(delimiter: Delimiter) -> (&'static str, &'static str) {
    match delimiter {
        Delimiter::Parenthesis => ("(", ")"),
        Delimiter::Brace => ("{", "}"),
        Delimiter::Bracket => ("[", "]"),
        Delimiter::None => ("", ""),
    }
}

fn write_punct(punct: char, text: &mut String) {
    match punct {
        ',' | ';' => text.extend([punct, ' ']),
        '+' | '=' => text.extend([' ', punct, ' ']),
        '>' if text.ends_with('-') => {
            text.truncate(text.len() - 1);
            text.push_str(" -> ");
        }
        '\'' if text.ends_with(is_word) => text.extend([' ', punct]),
        _ => text.push(punct),
    }
}

fn write_word(word: &str, text: &mut String) {
    if text.ends_with(is_word) {
        text.push(' ');
    }
    text.push_str(word);
}

fn is_word(last: char) -> bool {
    last.is_alphanumeric() || last == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_read_as_they_are_written() {
        for ty in [
            "u64",
            "Vec<u64>",
            "std::collections::BTreeMap<String, Vec<(u8, [u8; 4])>>",
            "Option<&'static str>",
            "Box<dyn Fn(u64) -> u64 + Send>",
            "<Account as Target>::Key",
        ] {
            let tokens: TokenStream = ty.parse().expect("tokens");
            assert_eq!(text_of(tokens), ty);
        }
    }
}
