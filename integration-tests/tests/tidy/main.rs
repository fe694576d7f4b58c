//! What keeps the workspace tidy: rules about its manifests, sources and documents, as tests.
//!
//! Each rule is a plain function from text to problems. One test runs it over the workspace, and
//! another shows on a bad sample that it can fail. A problem names its file, its line where it has
//! one, and what to do.
//!
//! Deliberately absent: what the compiler, clippy and rustfmt can check.

mod ci;
mod documents;
mod fuzz;
mod manifests;
mod purity;
mod sources;
mod tokens;
mod variables;
mod workspace;

/// Fails with one line for each problem.
#[track_caller]
fn assert_none(rule: &str, problems: &[String]) {
    assert!(problems.is_empty(), "{rule}; but:\n  {}", problems.join("\n  "));
}

/// Fails unless there is exactly one problem, and its text has `part`.
#[track_caller]
fn assert_one(problems: &[String], part: &str) {
    assert!(problems.len() == 1 && problems[0].contains(part), "expected one problem with `{part}`: {problems:?}");
}
