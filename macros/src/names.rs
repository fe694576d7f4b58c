//! Which stable names are allowed; they stand in URLs, on disk and in settings.

use syn::LitStr;

use crate::problems::Problems;

/// Checks the name of a function: `namespace/name`.
pub(crate) fn check_function_name(name: &LitStr, problems: &mut Problems) {
    let value = name.value();
    let is_good = value.split_once('/').is_some_and(|(namespace, name)| is_word(namespace) && is_word(name));
    if !is_good {
        problems.add(
            name,
            format_args!(
                "{value:?} is no function name: write `namespace/name`, each of `a-z`, `0-9`, `_` and `-` and \
                 beginning with a letter, such as \"bank/account\""
            ),
        );
    }
}

/// Checks the name of a message or the code of a rejection; `what` says which of them.
pub(crate) fn check_word(word: &LitStr, what: &str, example: &str, problems: &mut Problems) {
    let value = word.value();
    if !is_word(&value) {
        problems.add(
            word,
            format_args!(
                "{value:?} is no {what}: use `a-z`, `0-9`, `_` and `-`, beginning with a letter, such as {example:?}"
            ),
        );
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use proc_macro2::Span;

    use super::*;

    fn check(name: &str, is_good: bool) {
        let mut problems = Problems::default();
        check_function_name(&LitStr::new(name, Span::call_site()), &mut problems);
        assert_eq!(problems.count() == 0, is_good, "{name}");
    }

    #[test]
    fn function_names_are_namespace_and_name() {
        for name in ["bank/account", "a/b", "my_shop-2/order_line"] {
            check(name, true);
        }
        for name in ["", "account", "bank/", "/account", "a/b/c", "Bank/account", "bank/1st", "bank/acc ount", "bänk/a"]
        {
            check(name, false);
        }
    }
}
