//! What is not in the options is taken from the variables that all tools of S3 read.

use std::{env, process::Command};

use services::s3::Server;
use statefn_core::ports::snapshots::Snapshots;
use statefn_snapshots::{ObjectSnapshots, Options};

/// The URL to open; set in the runs of the test below, which are processes of their own.
const URL: &str = "SNAPSHOTS_TEST_URL";

#[test]
fn variables_are_read() {
    let Some(server) = Server::shared() else { return };
    let url = crate::url(server, "variables");
    let run = |endpoint_variable: &str, region: &str, secret: &str| {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "variables::in_a_process_of_its_own"]).env(URL, &url);
        command.env(endpoint_variable, server.endpoint()).env("AWS_REGION", region);
        command.env("AWS_ACCESS_KEY_ID", server.access_key()).env("AWS_SECRET_ACCESS_KEY", secret);
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for (variable, name) in [("AWS_ENDPOINT_URL", "one"), ("AWS_ENDPOINT_URL_S3", "two")] {
        let (is_good, text) = run(variable, "us-east-1", server.secret_key());
        assert!(is_good, "{text}");
        let mut place = crate::open(server, "variables");
        assert_eq!(place.get("from-a-process").unwrap().as_deref(), Some(&b"state"[..]), "{name}");
        place.remove("from-a-process").unwrap();
    }
    let (is_good, text) = run("AWS_ENDPOINT_URL", "eu-central-1", server.secret_key());
    assert!(!is_good && text.contains("set `AWS_REGION`"), "{text}");
    let (is_good, text) = run("AWS_ENDPOINT_URL", "us-east-1", "mistyped");
    assert!(!is_good && text.contains("SignatureDoesNotMatch"), "{text}");
}

#[test]
fn in_a_process_of_its_own() {
    if let Ok(url) = env::var(URL) {
        let mut place = ObjectSnapshots::open(&url, &Options::default()).unwrap();
        place.put("from-a-process", b"state").unwrap();
    }
}
