//! Rules for every Rust source: reasons, first lines, and words that are written out.

use crate::{
    assert_none, assert_one,
    tokens::{Token, tokens},
    workspace::{File, files},
};

/// Abbreviations, and what to write instead. Short, so that it is never wrong: words that the
/// language or well-known libraries have (`ctx`, `len`, `prev`) are not in it.
pub(crate) const ABBREVIATIONS: [(&str, &str); 8] = [
    ("cfg", "settings, options or condition"),
    ("cnt", "count"),
    ("evt", "event"),
    ("idx", "index or place"),
    ("mgr", "what it does"),
    ("tmp", "temporary"),
    ("util", "what it is for"),
    ("utils", "what they are for"),
];

/// The sources of the compile tests: their first line is `//` and says the rule or what is shown.
const COMPILE_TESTS: &str = "macros/tests/ui/";

#[test]
fn exceptions_from_lints_have_a_reason() {
    let problems: Vec<String> = files(".rs").iter().flat_map(|file| unreasoned(file, &tokens(file))).collect();
    assert_none("`#[allow(..)]` and `#[expect(..)]` say why, in `reason = \"..\"`", &problems);
}

#[test]
fn files_begin_with_what_they_are() {
    let problems: Vec<String> = files(".rs").iter().flat_map(nameless).collect();
    assert_none("the first line of a file says what it is", &problems);
}

#[test]
fn identifiers_are_written_out() {
    let problems: Vec<String> = files(".rs").iter().flat_map(|file| abbreviated(file, &tokens(file))).collect();
    assert_none("identifiers are written out", &problems);
}

#[test]
fn an_exception_without_a_reason_is_found() {
    let found = |text: &str| unreasoned(&File::new("a.rs", text), &tokens(&File::new("a.rs", text)));
    let good = "#[allow(unused, reason = \"a test\")]\nfn a() { x.expect(\"b\"); vec![expect(b), allow(b)]; f(a, expect(b)); }";
    assert!(found(good).is_empty(), "{:?}", found(good));
    assert_one(&found("\n#[allow(unused)]\nfn a() {}"), "a.rs:2");
    assert_one(&found("#![expect(unused)]"), "a.rs:1");
    assert_one(&found("#[cfg_attr(test, allow(unused))]\nfn a() {}"), "a.rs:1");
}

#[test]
fn a_file_without_a_first_line_is_found() {
    assert!(nameless(&File::new("src/a.rs", "//! A file.\n\nfn a() {}\n")).is_empty());
    assert!(nameless(&File::new("macros/tests/ui/fail/a.rs", "// A rule.\n")).is_empty());
    assert_one(&nameless(&File::new("src/a.rs", "fn a() {}\n")), "src/a.rs");
    assert_one(&nameless(&File::new("src/a.rs", "//!\nfn a() {}\n")), "src/a.rs");
    assert_one(&nameless(&File::new("src/a.rs", "// A file.\n")), "src/a.rs");
    assert_one(&nameless(&File::new("src/a.rs", "\n")), "src/a.rs");
    assert_one(&nameless(&File::new("macros/tests/ui/fail/a.rs", "use a;\n")), "fail/a.rs");
}

#[test]
fn an_abbreviation_is_found() {
    let found = |text: &str| abbreviated(&File::new("a.rs", text), &tokens(&File::new("a.rs", text)));
    let good =
        "#[cfg(test)]\n#[cfg_attr(test, path = \"idx\")]\nmod indexes;\nfn utility() { if cfg!(test) {} } // idx\n";
    assert!(found(good).is_empty(), "{:?}", found(good));
    assert_one(&found("\nfn a(cfg: u8) {}"), "a.rs:2: `cfg`");
    assert_one(&found("fn a(row_idx: u8) {}"), "`row_idx`");
    assert_one(&found("fn a() -> EvtKind {}"), "`EvtKind`");
    assert_one(&found("const TMP_MAX: u8 = 1;"), "`TMP_MAX`");
    assert_one(&found("mod utils;"), "`utils`");
}

fn unreasoned(file: &File, tokens: &[Token]) -> Vec<String> {
    let mut problems = Vec::new();
    for (place, token) in tokens.iter().enumerate() {
        let is_exception = ["allow", "expect"].contains(&token.text.as_str()) && is_attribute(&tokens[..place]);
        if !is_exception || tokens.get(place + 1).is_none_or(|next| next.text != "(") {
            continue;
        }
        let mut within = tokens[place + 1..].iter().take_while(|token| token.text != ")");
        if !within.any(|token| token.text == "reason") {
            problems.push(format!("{}:{}: `{}(..)` without a reason", file.path, token.line, token.text));
        }
    }
    problems
}

/// Whether an attribute's name stands behind these tokens: `#[`, `#![`, or within `#[cfg_attr(..,`.
fn is_attribute(tokens: &[Token]) -> bool {
    let mut before = tokens.iter().rev().map(|token| token.text.as_str());
    match before.next() {
        Some("[") => before.find(|text| *text != "!") == Some("#"),
        Some(",") => before.take_while(|text| *text != "#").any(|text| text == "cfg_attr"),
        _ => false,
    }
}

fn nameless(file: &File) -> Vec<String> {
    let marker = if file.path.starts_with(COMPILE_TESTS) { "//" } else { "//!" };
    let first = file.text.lines().next().unwrap_or_default();
    // What the compile tests share is a module like any other.
    let said = first.strip_prefix("//!").or_else(|| first.strip_prefix(marker)).unwrap_or_default();
    if said.trim().is_empty() {
        return vec![format!("{}: begin it with a line `{marker} ..`", file.path)];
    }
    Vec::new()
}

fn abbreviated(file: &File, tokens: &[Token]) -> Vec<String> {
    let mut problems = Vec::new();
    for (place, token) in tokens.iter().enumerate().filter(|(_, token)| token.is_identifier) {
        // `#[cfg(..)]`, `cfg!(..)` and `cfg_attr` are the language's.
        let next = tokens.get(place + 1).map_or("", |next| next.text.as_str());
        if token.text == "cfg_attr" || (token.text == "cfg" && ["(", "!"].contains(&next)) {
            continue;
        }
        for word in words(&token.text) {
            if let Some((_, instead)) = ABBREVIATIONS.iter().find(|(short, _)| *short == word) {
                problems.push(format!("{}:{}: `{}`: write {instead}", file.path, token.line, token.text));
            }
        }
    }
    problems
}

/// The words of an identifier in any case, in lower case.
fn words(identifier: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for letter in identifier.chars() {
        if letter == '_' || (letter.is_uppercase() && was_lower) {
            words.push(String::new());
        }
        if letter != '_' {
            words.last_mut().expect("there is a word from the start on").extend(letter.to_lowercase());
        }
        was_lower = letter.is_lowercase();
    }
    words
}
