//! What the macros accept, and what they say about what they do not accept.
//!
//! `TRYBUILD=overwrite cargo test -p statefn-macros --test ui` writes the expected errors anew; read
//! them before they are committed.

#[test]
fn ui() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass/*.rs");
    cases.compile_fail("tests/ui/fail/*.rs");
}
