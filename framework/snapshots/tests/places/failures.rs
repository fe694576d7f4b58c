//! What goes wrong with a server: each is an error that says what to do, and none waits for ever.

use std::{fs, net::TcpListener, sync::mpsc, thread, time::Duration};

use services::s3::Server;
use statefn_core::ports::snapshots::Snapshots;
use statefn_snapshots::{Error, ObjectSnapshots, Options};

use crate::{bytes, open, options, url};

const SHORT: Duration = Duration::from_millis(300);
/// Longer than any server here is down.
const LONG: Duration = Duration::from_secs(120);

fn refused(url: &str, options: &Options, parts: &[&str]) {
    let error = ObjectSnapshots::open(url, options).expect_err("it refuses");
    assert!(matches!(error, Error::Refused(_)), "{error:?}");
    let text = error.to_string();
    assert!(text.starts_with(&format!("cannot use the snapshots at `{url}` at http://127.0.0.1:")), "{text}");
    parts.iter().for_each(|part| assert!(text.contains(part), "`{part}` in: {text}"));
    let secret = options.secret_access_key.as_deref().expect("all have one");
    assert!(!text.contains(secret), "{text}");
}

#[test]
fn a_server_that_refuses_says_why() {
    let Some(server) = Server::shared() else { return };
    let (good, here) = (options(server), url(server, "refused"));
    let wrong_secret = Options { secret_access_key: Some("mistyped".to_owned()), ..good.clone() };
    refused(&here, &wrong_secret, &["SignatureDoesNotMatch", "set `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`"]);
    let unknown_key = Options { access_key_id: Some("nobody".to_owned()), ..good.clone() };
    refused(&here, &unknown_key, &["the server does not know the access key: set `AWS_ACCESS_KEY_ID`"]);
    let elsewhere = Options { region: Some("eu-central-1".to_owned()), ..good.clone() };
    refused(&here, &elsewhere, &["AuthorizationHeaderMalformed", "set `AWS_REGION`"]);
    refused("s3://no-such-bucket/app", &good, &["NoSuchBucket", "create the bucket, or correct the URL"]);
}

#[test]
fn a_bucket_that_vanishes_is_an_error_and_not_an_empty_place() {
    if Server::shared().is_none() {
        return;
    }
    let server = Server::start().unwrap();
    let mut place = open(&server, "vanished");
    place.put("shard-1/2", b"state").unwrap();
    fs::remove_dir_all(server.directory().join(server.bucket())).unwrap();
    for (outcome, verb) in [
        (place.get("shard-1/2").map(drop), "read `shard-1/2` of"),
        (place.get("shard-1/3").map(drop), "read `shard-1/3` of"),
        (place.list().map(drop), "list"),
        (place.put("shard-1/3", b"state"), "store `shard-1/3` among"),
    ] {
        let error = outcome.unwrap_err();
        assert!(
            error.starts_with(&format!("cannot {verb} the snapshots at `s3://test/vanished` at http://")),
            "{error}"
        );
        assert!(error.contains("NoSuchBucket"), "{error}");
    }
}

#[test]
fn nobody_at_the_endpoint_is_told_within_the_retry_time() {
    // Nobody listens at a port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let key = Some("key".to_owned());
    let options = |scheme: &str| Options {
        retry_time: SHORT,
        endpoint: Some(format!("{scheme}://127.0.0.1:{port}")),
        access_key_id: key.clone(),
        secret_access_key: key.clone(),
        ..Options::default()
    };
    for scheme in ["http", "https"] {
        let error = ObjectSnapshots::open("s3://test/app", &options(scheme)).unwrap_err();
        assert!(matches!(error, Error::Unreachable(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(&format!("at {scheme}://127.0.0.1:{port}: it does not answer (")), "{text}");
        assert!(text.contains("Connection refused") && text.contains("correct `AWS_ENDPOINT_URL`"), "{text}");
    }
    let error = ObjectSnapshots::open("s3://test/app", &options("ftp")).unwrap_err();
    assert!(matches!(error, Error::Settings(_)), "{error:?}");
}

#[test]
fn a_server_without_tls_is_no_server_with_tls() {
    let Some(server) = Server::shared() else { return };
    let endpoint = Some(server.endpoint().replace("http://", "https://"));
    let options = Options { retry_time: SHORT, endpoint, ..options(server) };
    let error = ObjectSnapshots::open(&url(server, "tls"), &options).unwrap_err();
    assert!(matches!(error, Error::Unreachable(_)), "{error:?}");
}

#[test]
fn a_server_that_is_down_or_frozen_is_waited_for_and_used_again() {
    if Server::shared().is_none() {
        return;
    }
    let mut server = Server::start().unwrap();
    let (here, good) = (url(&server, "down"), options(&server));
    let mut impatient = ObjectSnapshots::open(&here, &Options { retry_time: SHORT, ..good.clone() }).unwrap();
    let mut patient = ObjectSnapshots::open(&here, &Options { retry_time: LONG, ..good }).unwrap();
    patient.put("shard-1/2", b"state").unwrap();

    let fails = |place: &mut ObjectSnapshots| {
        for error in [
            place.put("shard-1/3", b"state").unwrap_err(),
            place.get("shard-1/2").unwrap_err(),
            // A request that was given up may still be done when the server is back.
            place.remove("shard-1/9").unwrap_err(),
            place.list().unwrap_err(),
        ] {
            assert!(error.contains("it does not answer ("), "{error}");
        }
    };
    server.pause().unwrap();
    fails(&mut impatient);
    server.resume().unwrap();
    impatient.put("shard-1/3", b"state").unwrap();
    server.stop().unwrap();
    fails(&mut impatient);

    // The patient ones begin while the server is down, and end when it is back.
    let (begun, has_begun) = mpsc::channel();
    let waiting = thread::spawn(move || {
        begun.send(()).expect("the test waits");
        patient.put("shard-1/4", b"state")?;
        patient.list()
    });
    has_begun.recv().unwrap();
    server.restart().unwrap();
    assert_eq!(waiting.join().unwrap().unwrap(), ["shard-1/2", "shard-1/3", "shard-1/4"]);
    assert_eq!(impatient.get("shard-1/4").unwrap().as_deref(), Some(&b"state"[..]));
}

#[test]
fn uploads_that_a_kill_interrupts_are_whole_or_not_there() {
    if Server::shared().is_none() {
        return;
    }
    let mut server = Server::start().unwrap();
    let place =
        ObjectSnapshots::open(&url(&server, "kill"), &Options { retry_time: LONG, ..options(&server) }).unwrap();
    let bytes = bytes(30 << 20);
    for round in 0..3 {
        let name = format!("shard-1/{round}");
        let (mut writer, content, written) = (place.clone(), bytes.clone(), name.clone());
        let (begun, has_begun) = mpsc::channel();
        let writing = thread::spawn(move || {
            begun.send(()).expect("the test waits");
            writer.put(&written, &content)
        });
        has_begun.recv().unwrap();
        server.kill().unwrap();
        server.restart().unwrap();
        let mut reader = place.clone();
        match writing.join().unwrap() {
            Ok(()) => assert!(reader.get(&name).unwrap().as_ref() == Some(&bytes), "{name} is whole"),
            Err(error) => {
                assert!(error.starts_with(&format!("cannot store `{name}` among ")), "{error}");
                reader.put(&name, &bytes).unwrap();
                assert!(reader.get(&name).unwrap().as_ref() == Some(&bytes), "{name} is whole");
            }
        }
    }
}
