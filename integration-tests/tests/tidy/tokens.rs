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
    windows.filter(|(_, window)| window.iter().map(|token| &token.text).eq(pattern)).map(|(place, _)| place)
}

fn flatten(stream: TokenStream, tokens: &mut Vec<Token>) {
    for tree in stream {
        let line = tree.span().start().line;
        let mut push = |text: String, is_identifier| tokens.push(Token { text, line, is_identifier });
        match tree {
            TokenTree::Ident(name) => push(name.to_string(), true),
            TokenTree::Literal(literal) => push(literal.to_string(), false),
            TokenTree::Punct(punct) if punct.as_char() == ':' && punct.spacing() == Spacing::Joint => {
                push("::".to_owned(), false);
            }
            // The second half of `::`, which stands already.
            TokenTree::Punct(punct) if punct.as_char() == ':' && ends_in_path(tokens) => {}
            TokenTree::Punct(punct) => push(punct.as_char().to_string(), false),
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                let end = group.span_close().start().line;
                push(open.to_owned(), false);
                flatten(group.stream(), tokens);
                tokens.push(Token { text: close.to_owned(), line: end, is_identifier: false });
            }
        }
    }
}

fn ends_in_path(tokens: &[Token]) -> bool {
    tokens.last().is_some_and(|token| token.text == "::")
}
