//! What is said where nothing is installed.

use std::{env, process::Command};

use services::{Error, kafka::Broker, s3::Server};

/// Set in the runs of the test below, which are processes of their own.
const ROLE: &str = "SERVICES_TEST_ROLE";

#[test]
fn what_is_missing_is_named() {
    let empty = tempfile::tempdir().unwrap();
    let run = |role: &str, is_ci: bool| {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "in_a_process_of_its_own"]);
        command.env(ROLE, role).env("STATEFN_SERVICES", empty.path()).env_remove("CI");
        if is_ci {
            command.env("CI", "true");
        }
        let output = command.output().unwrap();
        let text = [&output.stdout[..], &output.stderr[..]].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    };
    for (role, tests) in [("kafka", "a real Kafka broker"), ("s3", "a real S3 server")] {
        let (is_good, text) = run(role, false);
        assert!(is_good, "{text}");
        let note = format!("note: the tests with {tests} of this binary do NOT run: ");
        assert_eq!(text.matches(&note).count(), 1, "{text}");
        assert!(text.contains(" is missing: run `cargo xtask setup`"), "{text}");

        let (is_good, text) = run(role, true);
        assert!(!is_good, "{text}");
        let error = format!("the tests with {tests} cannot run, and the variable `CI` says that they must: ");
        assert!(text.contains(&error), "{text}");
    }
}

#[test]
fn in_a_process_of_its_own() {
    match env::var(ROLE).as_deref() {
        Ok("kafka") => {
            assert!(Broker::shared().is_none());
            assert!(Broker::shared().is_none());
            assert!(matches!(Broker::start(), Err(Error::Missing { .. })));
        }
        Ok("s3") => {
            assert!(Server::shared().is_none());
            assert!(Server::shared().is_none());
            assert!(matches!(Server::start(), Err(Error::Missing { .. })));
        }
        _ => {}
    }
}
