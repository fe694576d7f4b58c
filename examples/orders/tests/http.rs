//! The shop as a service: the very lines of README, against a process.

#![allow(clippy::unwrap_used, reason = "a test fails loudly where it stands")]

#[path = "../../session.rs"]
mod session;

const PROGRAM: &str = env!("CARGO_BIN_EXE_orders");
const README: &str = include_str!("../README.md");

#[test]
fn the_session_of_the_readme_is_what_happens() {
    session::session(PROGRAM, README, "SHOP", session::run);
}

#[test]
fn the_client_of_this_test_does_what_curl_does() {
    session::session(PROGRAM, README, "SHOP", session::exchange);
}
