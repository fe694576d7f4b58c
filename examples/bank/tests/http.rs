//! The bank as a service: the very lines of README, against a process.

#![allow(clippy::unwrap_used, reason = "a test fails loudly where it stands")]

#[path = "../../session.rs"]
mod session;

const PROGRAM: &str = env!("CARGO_BIN_EXE_bank");
const README: &str = include_str!("../README.md");

#[test]
fn the_session_of_the_readme_is_what_happens() {
    session::session(PROGRAM, README, "BANK", session::run);
}

#[test]
fn the_client_of_this_test_does_what_curl_does() {
    session::session(PROGRAM, README, "BANK", session::exchange);
}

#[test]
fn the_messages_have_schemas() {
    let directory = tempfile::tempdir().unwrap();
    let (_bank, address) = session::start(PROGRAM, directory.path());
    let functions: serde_json::Value =
        serde_json::from_str(&session::exchange("curl -s $BANK/functions", "BANK", &address)).unwrap();
    let account = functions.as_array().unwrap().iter().find(|function| function["function"] == "bank/account").unwrap();
    let message = |name: &str| {
        account["messages"].as_array().unwrap().iter().find(|known| known["message"] == name).unwrap().clone()
    };
    let pay = message("pay");
    assert_eq!(
        pay["schema"],
        serde_json::json!({
            "type": "object",
            "description": "Moves money to another account at once, and answers what is left.",
            "required": ["to", "cents"],
            "properties": {
                "to": { "type": "string", "description": "The other account." },
                "cents": { "type": "integer", "description": "How much." },
            },
        })
    );
    assert_eq!(pay["answer_schema"], serde_json::json!({ "type": "integer" }));
    assert_eq!(pay["rejection_schema"]["required"], serde_json::json!(["missing_cents"]));
    assert_eq!(message("receive")["rejection_schema"], serde_json::Value::Null, "it never rejects");
}
