//! Rust as a flat list of tokens, without comments: what stands in texts is no identifier.

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

use crate::workspace::File;

/// A token, or one half of a pair of brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
    pub(crate) is_identifier: bool,
}

/// The tokens of a file, in order; documentation comments are attributes.
#[track_caller]
pub(crate) fn tokens(file: &File) -> Vec<Token> {
    let stream = file.text.parse::<TokenStream>();
    let stream = stream.unwrap_or_else(|error| panic!("`{}` is not Rust: {error}", file.path));
    let mut tokens = Vec::new();
    flatten(stream, &mut tokens);
    tokens
}

/// Where the texts of `pattern` stand one after the other.
pub(crate) fn places<'t>(tokens: &'t [Token], pattern: &'t [&str]) -> impl Iterator<Item = usize> + 't {
    let windows = tokens.windows(pattern.len()).enumerate();
    windows.filter(move |(_, window)| window.iter().map(|token| &token.text).eq(pattern)).map(|(place, _)| place)
}

fn flatten(stream: TokenStream, tokens: &mut Vec<Token>) {
    for tree in stream {
        let line = tree.span().start().line;
        let (text, is_identifier) = match tree {
            TokenTree::Ident(name) => (name.to_string(), true),
            TokenTree::Literal(literal) => (literal.to_string(), false),
            TokenTree::Punct(colon) if colon.as_char() == ':' && colon.spacing() == Spacing::Joint => {
                ("::".to_owned(), false)
            }
            // The second half of `::`, which stands already.
            TokenTree::Punct(colon) if colon.as_char() == ':' && ends_in_path(tokens) => continue,
            TokenTree::Punct(punct) => (punct.as_char().to_string(), false),
            TokenTree::Group(group) => {
                let (open, close) = brackets(group.delimiter());
                tokens.push(Token { text: open.to_owned(), line, is_identifier: false });
                flatten(group.stream(), tokens);
                let end = group.span_close().start().line;
                tokens.push(Token { text: close.to_owned(), line: end, is_identifier: false });
                continue;
            }
        };
        tokens.push(Token { text, line, is_identifier });
    }
}

fn brackets(delimiter: Delimiter) -> (&'static str, &'static str) {
    match delimiter {
        Delimiter::Parenthesis => ("(", ")"),
        Delimiter::Brace => ("{", "}"),
        Delimiter::Bracket => ("[", "]"),
        Delimiter::None => ("", ""),
    }
}

fn ends_in_path(tokens: &[Token]) -> bool {
    tokens.last().is_some_and(|token| token.text == "::")
}
