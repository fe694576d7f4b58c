//! The admin interface: every route, who may use it, and what it says to those who mean no good.

use std::{net::SocketAddr, path::Path, time::Duration};

use serde_json::{Value, json};
use statefn::{
    Error,
    prelude::*,
    settings::{AdminSettings, HttpSettings, Secret},
};

use crate::{
    app::{Service, app},
    client::{Client, Response},
};

const LOOPBACK: &str = "127.0.0.1:0";

fn service(data: &Path) -> Service {
    Service::start_with(data, HttpSettings::default())
}

/// A request to the admin interface, as this machine makes it.
fn ask(client: &mut Client, method: &str, path: &str) -> Response {
    ask_with(client, method, path, "", b"")
}

fn ask_with(client: &mut Client, method: &str, path: &str, headers: &str, body: &[u8]) -> Response {
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {length}\r\n\r\n");
    client.send(&[head.as_bytes(), body].concat());
    client.response().expect("an answer")
}

fn get(client: &mut Client, path: &str) -> Value {
    let response = ask(client, "GET", &format!("/admin/v1/{path}"));
    assert_eq!(response.status, 200, "{path}: {}", response.text());
    response.json()
}

fn names(list: &Value, name: &str) -> Vec<String> {
    let list = list.as_array().expect("a list").iter();
    list.map(|entry| entry[name].as_str().expect("a text").to_owned()).collect()
}

#[test]
fn the_status_says_how_far_everything_is() {
    let data = tempfile::tempdir().expect("a directory");
    let service = service(data.path());
    let (mut client, mut admin) = (service.client(), service.admin());
    for key in ["alice", "bob", "eve"] {
        assert_eq!(client.post(&format!("/functions/test/counter/{key}/add"), r#"{"amount":7}"#).status, 200);
    }
    let status = get(&mut admin, "status");
    assert_eq!((&status["app"], &status["condition"]), (&json!("http-test"), &json!("ready")));
    assert_eq!((&status["shards_of_app"], &status["totals"]["events"]), (&json!(8), &json!(3)));
    let shards = status["shards"].as_array().expect("a list");
    assert_eq!(shards.len(), 8);
    let sum = |name: &str| shards.iter().map(|shard| shard[name].as_u64().expect("a number")).sum::<u64>();
    assert_eq!(sum("keys"), 3);
    assert!(sum("state_bytes") > 0 && sum("epoch") >= 3 && sum("journal_offset") > 8);
    // Both hosts are there, and the clock is what event time of a service follows.
    assert!(shards.iter().any(|shard| shard["host"] == 1));
    for stage in status["stages"].as_array().expect("a list") {
        assert!(["clock", "cycle"].contains(&stage["held_by"]["kind"].as_str().expect("a text")), "{stage}");
    }
    std::thread::sleep(Duration::from_millis(250));
    client.post("/functions/test/counter/alice/add", r#"{"amount":1}"#);
    let rates = get(&mut admin, "status")["rates_per_second"].clone();
    assert!(rates["events"].as_f64().expect("a number") > 0.0, "{rates}");
    service.stop();
}

#[test]
fn functions_and_graph_are_those_of_the_program() {
    let data = tempfile::tempdir().expect("a directory");
    let service = service(data.path());
    let mut admin = service.admin();
    let functions = get(&mut admin, "functions");
    assert_eq!(names(&functions["functions"], "function"), ["test/by-number", "test/by-uuid", "test/counter"]);
    let counter = &functions["functions"][2];
    assert_eq!((&counter["sends"], &counter["timers"]), (&json!(["test/counter"]), &json!(["now"])));
    let graph = ask(&mut admin, "GET", "/admin/v1/graph");
    assert!(graph.text().contains("function test/counter -> function test/counter\n"), "{}", graph.text());
    for (format, begin) in [("dot", "digraph app {"), ("mermaid", "flowchart LR"), ("text", "function ")] {
        assert!(ask(&mut admin, "GET", &format!("/admin/v1/graph?format={format}")).text().starts_with(begin));
    }
    assert_eq!(ask(&mut admin, "GET", "/admin/v1/graph?format=png").code(), "bad-query");
    service.stop();
}

#[test]
fn keys_come_in_pages_and_their_states_and_timers_are_shown() {
    let data = tempfile::tempdir().expect("a directory");
    let service = service(data.path());
    let (mut client, mut admin) = (service.client(), service.admin());
    let mut expected: Vec<String> = (0..57).map(|number| format!("key/{number:02}")).collect();
    expected.push("other ä".into());
    for key in &expected {
        let path = key.replace('/', "%2F").replace(' ', "%20").replace('ä', "%C3%A4");
        assert_eq!(client.post(&format!("/functions/test/counter/{path}/add"), r#"{"amount":1}"#).status, 200);
    }
    for limit in [1, 10, 57, 58, 1_000] {
        let (mut found, mut after, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = get(&mut admin, &format!("keys/test/counter?limit={limit}{after}"));
            let keys = names(&page["keys"], "key");
            assert!(keys.len() <= limit);
            found.extend(keys);
            pages += 1;
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        assert_eq!((&found, pages), (&expected, expected.len().div_ceil(limit)), "by {limit}");
    }
    let page = get(&mut admin, "keys/test/counter?prefix=key%2F5");
    assert_eq!(names(&page["keys"], "key"), expected[50..57]);
    let state = get(&mut admin, &format!("state/test/counter/{}", page["keys"][0]["path"].as_str().expect("a path")));
    assert_eq!((&state["key"], &state["state"]["sum"]), (&json!("key/50"), &json!(1)));
    assert_eq!(ask(&mut admin, "GET", "/admin/v1/state/test/counter/nobody").code(), "no-state");

    for milliseconds in [7_200_000, 3_600_000] {
        client.post("/functions/test/counter/late/later", &format!(r#"{{"milliseconds":{milliseconds}}}"#));
    }
    client.post("/functions/test/counter/later/later", r#"{"milliseconds":3600000}"#);
    let timers = get(&mut admin, "timers/test/counter/late");
    let timers = timers["timers"].as_array().expect("a list");
    assert_eq!(timers.len(), 2, "those of other keys are not told");
    assert!(timers[0]["due_ms"].as_i64() < timers[1]["due_ms"].as_i64());
    assert_eq!((&timers[0]["kind"], &timers[0]["message"]), (&json!("event-time"), &json!("now")));
    let one = get(&mut admin, "timers/test/counter/late?limit=1");
    assert_eq!((&one["timers"][0], &one["is_more"]), (&timers[0], &json!(true)), "the first one is due first");
    assert_eq!(get(&mut admin, "timers/test/counter/nobody")["timers"], json!([]));
    service.stop();
}

#[test]
fn numbers_and_uuids_are_keys_too() {
    let data = tempfile::tempdir().expect("a directory");
    let service = service(data.path());
    let (mut client, mut admin) = (service.client(), service.admin());
    let uuid = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    assert_eq!(client.post(&format!("/functions/test/by-uuid/{uuid}/get"), "{}").status, 200);
    for number in ["-2", "258"] {
        let path = format!("/functions/test/by-number/{number}/sum");
        client.send(&crate::client::post(&path, "content-type: application/x-protobuf\r\n", &[8, 1]));
        assert_eq!(client.response().expect("an answer").status, 200);
    }
    assert_eq!(names(&get(&mut admin, "keys/test/by-uuid")["keys"], "key"), [uuid]);
    assert_eq!(names(&get(&mut admin, "keys/test/by-number")["keys"], "key"), ["258", "-2"], "by their bytes");
    assert_eq!(get(&mut admin, "state/test/by-number/-2")["state"], json!({ "sum": 1 }));
    assert_eq!(ask(&mut admin, "GET", "/admin/v1/state/test/by-number/x").code(), "bad-key");
    assert_eq!(ask(&mut admin, "GET", "/admin/v1/keys/test/by-number?prefix=2").code(), "bad-query");
    assert_eq!(names(&get(&mut admin, "keys/test/by-number?after=258")["keys"], "key"), ["-2"]);
    service.stop();
}

#[test]
fn parked_keys_and_dead_letters_are_listed() {
    let data = tempfile::tempdir().expect("a directory");
    let service = service(data.path());
    let (mut client, mut admin) = (service.client(), service.admin());
    for key in ["bad", "worse", "worst"] {
        assert_eq!(client.post(&format!("/functions/test/counter/{key}/break"), "{}").status, 500);
    }
    client.post("/functions/test/counter/bad/add?mode=send", r#"{"amount":1}"#);
    let first = get(&mut admin, "parked?limit=2");
    assert_eq!(names(&first["parked"], "key"), ["bad", "worse"]);
    let bad = &first["parked"][0];
    assert_eq!((&bad["message"], &bad["queue"], &bad["payload"]["json"]), (&json!("break"), &json!(2), &json!({})));
    assert!(bad["reason"].as_str().expect("a text").contains("a secret of the program"));
    let next = first["next"].as_str().expect("there is more");
    let second = get(&mut admin, &format!("parked?limit=2&after={next}"));
    assert_eq!((names(&second["parked"], "key"), &second["next"]), (vec!["worst".to_owned()], &Value::Null));
    assert_eq!(get(&mut admin, "parked/test/counter/bad")["reason"], bad["reason"]);
    assert_eq!(ask(&mut admin, "GET", "/admin/v1/parked/test/counter/good").code(), "key-not-parked");
    assert_eq!(get(&mut admin, "status")["parked_keys"], 3);

    for missing in 1..=3 {
        client.post("/functions/test/counter/poor/take?mode=send", &format!(r#"{{"amount":{missing}}}"#));
    }
    let letters = loop {
        let letters = get(&mut admin, "dead-letters?limit=2");
        if !letters["next"].is_null() {
            break letters;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    assert_eq!(letters["dead_letters"][0]["letter"]["reason"], "rejected");
    let more = get(&mut admin, &format!("dead-letters?after={}", letters["next"]));
    assert_eq!(more["dead_letters"][0]["letter"]["text"], r#"{"amount":3}"#);
    service.stop();
}

#[test]
fn a_paused_function_gets_no_new_work_and_stays_so_after_a_restart() {
    let data = tempfile::tempdir().expect("a directory");
    let service = service(data.path());
    let (mut client, mut admin) = (service.client(), service.admin());
    client.post("/functions/test/counter/alice/add", r#"{"amount":7}"#);
    let paused = ask(&mut admin, "POST", "/admin/v1/functions/test/counter/pause");
    assert_eq!((paused.status, paused.json()), (200, json!({ "is_paused": true, "is_held": true })));
    let refused = client.post("/functions/test/counter/alice/add", r#"{"amount":7}"#);
    assert_eq!((refused.status, refused.code().as_str(), refused.header("retry-after")), (503, "paused", Some("1")));
    assert_eq!(client.post("/functions/test/counter/alice/add?mode=send", r#"{"amount":7}"#).code(), "paused");
    // Reads go on, and so does what has nothing to do with it.
    assert_eq!(client.post("/functions/test/counter/alice/get", "{}").text(), "7");
    let uuid = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    assert_eq!(client.post(&format!("/functions/test/by-uuid/{uuid}/get"), "{}").status, 200);
    service.stop();

    let service = self::service(data.path());
    let (mut client, mut admin) = (service.client(), service.admin());
    assert_eq!(client.post("/functions/test/counter/alice/add", r#"{"amount":7}"#).code(), "paused");
    assert_eq!(get(&mut admin, "functions")["functions"][2]["is_paused"], true);
    assert_eq!(ask(&mut admin, "POST", "/admin/v1/functions/test/counter/resume").status, 200);
    assert_eq!(client.post("/functions/test/counter/alice/add", r#"{"amount":7}"#).text(), "14");
    service.stop();

    let audit = std::fs::read_to_string(data.path().join("audit.jsonl")).expect("there is a log");
    let lines: Vec<Value> = audit.lines().map(|line| serde_json::from_str(line).expect("is JSON")).collect();
    let told: Vec<_> = lines.iter().map(|line| (line["what"].as_str(), line["outcome"].as_str())).collect();
    let (pause, resume) = (Some("pause function test/counter"), Some("resume function test/counter"));
    assert_eq!(told, [(pause, Some("asked")), (pause, Some("done")), (resume, Some("asked")), (resume, Some("done"))]);
    for line in &lines {
        assert!(line["remote"].as_str().expect("a text").starts_with("127.0.0.1:") && line["token"].is_null());
        assert!(line["time"].as_str().expect("a text").ends_with('Z'));
    }
}

#[test]
fn a_change_that_cannot_be_written_down_is_not_made() {
    let data = tempfile::tempdir().expect("a directory");
    let service = service(data.path());
    let mut admin = service.admin();
    std::fs::create_dir(data.path().join("audit.jsonl")).expect("a directory is in the way");
    let refused = ask(&mut admin, "POST", "/admin/v1/functions/test/counter/pause");
    assert_eq!((refused.status, refused.code().as_str()), (503, "audit-failed"));
    assert_eq!(get(&mut admin, "functions")["functions"][2]["is_paused"], false);
    service.stop();
}

#[test]
fn with_a_token_every_request_but_that_for_health_shows_it() {
    let data = tempfile::tempdir().expect("a directory");
    let admin =
        AdminSettings { listen: Some(LOOPBACK.parse().expect("an address")), token: Some(Secret::new("sesame")) };
    let service = Service::start_as(data.path(), HttpSettings::default(), admin);
    let mut admin = service.admin();
    assert_eq!(ask(&mut admin, "GET", "/health").status, 200);
    for path in ["/admin/v1/status", "/metrics", "/errors/bad-key", "/nothing", "/admin/v1/%"] {
        for headers in ["", "authorization: Bearer sesam\r\n", "authorization: Basic sesame\r\n"] {
            let refused = ask_with(&mut admin, "GET", path, headers, b"");
            assert_eq!((refused.status, refused.code().as_str()), (401, "unauthorized"), "{path} {headers}");
            assert_eq!(refused.header("www-authenticate"), Some("bearer"));
        }
    }
    let token = "authorization: Bearer sesame\r\n";
    assert_eq!(ask_with(&mut admin, "GET", "/admin/v1/status", token, b"").status, 200);
    assert_eq!(ask_with(&mut admin, "POST", "/admin/v1/functions/test/counter/pause", "", b"").status, 401);
    let mut admin = service.admin();
    assert_eq!(ask_with(&mut admin, "POST", "/admin/v1/functions/test/counter/pause", token, b"").status, 200);
    service.stop();
    let audit = std::fs::read_to_string(data.path().join("audit.jsonl")).expect("there is a log");
    assert_eq!(audit.matches(r#""token":"admin.token""#).count(), 2);
    assert!(!audit.contains("sesame"), "the token itself is told nowhere");
}

#[test]
fn others_are_listened_to_only_with_a_token() {
    let start = |token: Option<Secret>| {
        let listen: SocketAddr = "0.0.0.0:0".parse().expect("an address");
        let settings = Settings { admin: AdminSettings { listen: Some(listen), token }, ..Settings::default() };
        app().settings(settings).start()
    };
    let Err(Error::Settings(wrong)) = start(None) else { panic!("it starts without a token") };
    assert!(wrong.contains("set `admin.token`"), "{wrong}");
}

#[test]
fn an_app_without_requests_ends_with_its_input_also_if_it_is_looked_into() {
    let admin = AdminSettings { listen: Some(LOOPBACK.parse().expect("an address")), token: None };
    let running = reader().settings(Settings { admin, shards: Some(2), ..Settings::default() });
    let running = running.start().expect("the app starts");
    assert!(running.admin_address().is_some() && running.http_address().is_none());
    assert_eq!(running.wait().expect("it ends").totals.records, 300);
}

/// Requests that mean no good or have a slip of the pen: method, path, body, status, code.
const HOSTILE: &[(&str, &str, &str, u16, &str)] = &[
    ("GET", "/", "", 404, "not-found"),
    ("GET", "/admin", "", 404, "not-found"),
    ("GET", "/admin/v1", "", 404, "not-found"),
    ("GET", "/admin/v1/", "", 404, "not-found"),
    ("GET", "/admin/v2/status", "", 404, "not-found"),
    ("GET", "/admin/v1/status/", "", 404, "not-found"),
    ("GET", "/admin/v1/status?x=1", "", 400, "bad-query"),
    ("POST", "/admin/v1/status", "", 405, "bad-method"),
    ("DELETE", "/admin/v1/keys/test/counter", "", 405, "bad-method"),
    ("POST", "/metrics", "", 405, "bad-method"),
    ("POST", "/health", "", 405, "bad-method"),
    ("GET", "/admin/v1/keys/test", "", 404, "not-found"),
    ("GET", "/admin/v1/keys/test/nothing", "", 404, "unknown-function"),
    ("GET", "/admin/v1/keys/%ff/counter", "", 400, "bad-path"),
    ("GET", "/admin/v1/keys/../counter", "", 400, "bad-path"),
    ("GET", "/admin/v1/keys/test/counter?limit=0", "", 400, "bad-query"),
    ("GET", "/admin/v1/keys/test/counter?limit=1001", "", 400, "bad-query"),
    ("GET", "/admin/v1/keys/test/counter?limit=99999999999999999999", "", 400, "bad-query"),
    ("GET", "/admin/v1/keys/test/counter?limit=1&limit=1", "", 400, "bad-query"),
    ("GET", "/admin/v1/keys/test/counter?after=%zz", "", 400, "bad-query"),
    ("GET", "/admin/v1/keys/test/counter?after=%ff", "", 400, "bad-key"),
    ("GET", "/admin/v1/keys/test/by-number?after=", "", 400, "bad-key"),
    ("GET", "/admin/v1/state/test/counter", "", 404, "not-found"),
    ("GET", "/admin/v1/state/test/counter/", "", 400, "bad-key"),
    ("GET", "/admin/v1/state/test/counter/%2e%2e", "", 400, "bad-path"),
    ("GET", "/admin/v1/state/test/counter/%ff", "", 400, "bad-key"),
    ("GET", "/admin/v1/state/test/by-uuid/alice", "", 400, "bad-key"),
    ("GET", "/admin/v1/timers/test/counter/a?limit=x", "", 400, "bad-query"),
    ("GET", "/admin/v1/parked?after=test", "", 400, "bad-query"),
    ("GET", "/admin/v1/parked?after=test/nothing/a", "", 404, "unknown-function"),
    ("GET", "/admin/v1/parked?after=test/by-number/a", "", 400, "bad-key"),
    ("GET", "/admin/v1/dead-letters?after=-1", "", 400, "bad-query"),
    ("GET", "/admin/v1/dead-letters?after=18446744073709551616", "", 400, "bad-query"),
    ("GET", "/admin/v1/functions/test/counter/pause", "", 405, "bad-method"),
    ("PUT", "/admin/v1/functions/test/counter/pause", "", 405, "bad-method"),
    ("POST", "/admin/v1/functions/test/nothing/pause", "", 404, "unknown-function"),
    ("POST", "/admin/v1/functions/test/counter/stop", "", 404, "not-found"),
    ("POST", "/admin/v1/functions/test/counter/pause?all=1", "", 400, "bad-query"),
    ("POST", "/admin/v1/functions/test/counter/pause", "{}", 400, "bad-body"),
    ("POST", "/admin/v1/ingresses/nothing/pause", "", 404, "unknown-ingress"),
    ("POST", "/admin/v1/ingresses/%ff/pause", "", 404, "unknown-ingress"),
    ("GET", "/errors/nothing", "", 404, "not-found"),
];

#[test]
fn what_is_wrong_has_its_code_and_changes_nothing() {
    let data = tempfile::tempdir().expect("a directory");
    let service = service(data.path());
    for (method, path, body, status, code) in HOSTILE {
        let mut admin = service.admin();
        let response = ask_with(&mut admin, method, path, "", body.as_bytes());
        assert_eq!((response.status, response.code().as_str()), (*status, *code), "{method} {path} {body}");
    }
    let mut admin = service.admin();
    let long = format!("/admin/v1/state/test/counter/{}", "k".repeat(5_000));
    assert_eq!(ask(&mut admin, "GET", &long).code(), "bad-key");
    let mut admin = service.admin();
    admin.send(b"POST /admin/v1/functions/test/counter/pause HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999999\r\n\r\n");
    assert_eq!(admin.response().expect("an answer").code(), "body-too-large");
    // Another name for this machine could be that of a page of somebody else.
    let mut admin = service.admin();
    assert_eq!(admin.get("/admin/v1/status").code(), "forbidden");
    let origin = "origin: http://evil.example\r\n";
    let mut admin = service.admin();
    let refused = ask_with(&mut admin, "POST", "/admin/v1/functions/test/counter/pause", origin, b"");
    assert_eq!((refused.status, refused.code().as_str()), (403, "forbidden"));
    let functions = get(&mut service.admin(), "functions");
    assert_eq!(functions["functions"][2]["is_paused"], false);
    assert!(!data.path().join("audit.jsonl").exists(), "what is refused before it is begun is no change");
    service.stop();
}

#[test]
fn parked_keys_go_on_in_order_and_dead_letters_are_replayed_once() {
    let data = tempfile::tempdir().expect("a directory");
    let service = service(data.path());
    let (mut client, mut admin) = (service.client(), service.admin());
    for key in ["a", "b", "c", "d"] {
        assert_eq!(client.post(&format!("/functions/test/counter/{key}/break"), "{}").status, 500);
        for amount in [1, 10] {
            client.post(&format!("/functions/test/counter/{key}/add?mode=send"), &format!(r#"{{"amount":{amount}}}"#));
        }
    }
    let change = |admin: &mut Client, method: &str, path: &str, body: &str| {
        ask_with(admin, method, &format!("/admin/v1/parked/test/counter/{path}"), "", body.as_bytes())
    };
    // What broke breaks again, and everything waits as before.
    let retried = change(&mut admin, "POST", "a/retry", "").json();
    assert_eq!((&retried["waiting"], &retried["key"]), (&json!(3), &json!("a")));
    assert!(retried["reason"].as_str().expect("a text").contains("a secret of the program"));
    let skipped = change(&mut admin, "POST", "a/skip", "").json();
    assert_eq!((&skipped["waiting"], &skipped["reason"]), (&json!(0), &Value::Null));
    assert_eq!(get(&mut admin, "state/test/counter/a")["state"]["sum"], 11);
    assert_eq!(change(&mut admin, "POST", "a/retry", "").code(), "key-not-parked");
    // An edit has to be what the handler, or the function, takes.
    assert_eq!(change(&mut admin, "PUT", "b/message", "[").code(), "bad-message");
    assert_eq!(change(&mut admin, "PUT", "b/state", "[1, 2").code(), "bad-message");
    assert_eq!(change(&mut admin, "PUT", "b/state", r#"{"sum":"much"}"#).code(), "bad-message");
    assert_eq!(get(&mut admin, "parked")["parked"].as_array().expect("a list").len(), 3);
    let edited = change(&mut admin, "PUT", "b/state", r#"{"sum":100,"notes":[]}"#).json();
    assert_eq!(edited["waiting"], 3, "with another state the message breaks too");
    assert_eq!(change(&mut admin, "POST", "b/skip", "").status, 200);
    assert_eq!(get(&mut admin, "state/test/counter/b")["state"]["sum"], 111);
    assert_eq!(change(&mut admin, "GET", "c/retry", "").code(), "bad-method");
    assert_eq!(change(&mut admin, "POST", "c/state", "").code(), "bad-method");

    // What was refused before its body was read has closed the connection.
    let mut admin = service.admin();
    client.post("/functions/test/counter/poor/take?mode=send", r#"{"amount":3}"#);
    let letter = loop {
        let letters = get(&mut admin, "dead-letters?limit=1000");
        let mut letters = letters["dead_letters"].as_array().expect("a list").clone();
        letters.retain(|letter| letter["letter"]["reason"] == "rejected");
        match letters.pop() {
            Some(letter) => break letter,
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    client.post("/functions/test/counter/poor/add", r#"{"amount":5}"#);
    for _ in 0..2 {
        let replayed = ask(&mut admin, "POST", &format!("/admin/v1/dead-letters/{}/replay", letter["at"]));
        assert_eq!((replayed.status, &replayed.json()["outcome"]), (200, &json!("replayed")), "{}", replayed.text());
        let sum = &get(&mut admin, "state/test/counter/poor")["state"]["sum"];
        assert_eq!(sum, 2, "it is taken once: {}: {letter}", replayed.text());
    }
    for at in ["1", "x", "0", "99999999"] {
        assert_eq!(ask(&mut admin, "POST", &format!("/admin/v1/dead-letters/{at}/replay")).code(), "not-found");
    }
    service.stop();
    let audit = std::fs::read_to_string(data.path().join("audit.jsonl")).expect("there is a log");
    let outcome = |what: &str, outcome: &str| {
        audit.lines().filter(|line| line.contains(what) && line.contains(&format!("\"outcome\":\"{outcome}\""))).count()
    };
    assert_eq!(outcome("retry parked test/counter a", "done"), 1);
    assert_eq!(outcome("retry parked test/counter a", "key-not-parked"), 1);
    assert_eq!(outcome("edit the state of parked test/counter b", "done"), 1);
    assert_eq!(outcome("edit the state of parked test/counter b", "bad-message"), 1, "what is no JSON is no change");
    assert_eq!(outcome("replay dead letter", "done"), 2);
}

/// An app that reads a few records by itself.
fn reader() -> App {
    let adds = Ingress::<Numbered>::new("adds");
    let adds = adds.generate(|number| (number < 300).then(|| Numbered { key: (number % 7).to_string() }));
    App::new("reader").function::<Tally>().ingress(adds.to::<Tally>(), |add, out| out.send(Tally::at(&add.key), add))
}

#[derive(Debug, Default, Clone, serde::Serialize, serde::Deserialize, State)]
struct Tally {
    count: u64,
}

#[derive(Debug, serde::Serialize, serde::Deserialize, Message)]
#[message(name = "numbered")]
struct Numbered {
    key: String,
}

#[function(name = "test/tally")]
impl Tally {
    #[on]
    fn numbered(&mut self, _: &Numbered) {
        self.count += 1;
    }
}

#[test]
fn a_paused_ingress_is_not_read_until_it_goes_on() {
    let data = tempfile::tempdir().expect("a directory");
    // As if it had been paused before a restart, by what it leads to.
    std::fs::write(data.path().join("paused.json"), r#"{"ingresses":["adds"],"functions":["test/tally"]}"#)
        .expect("writes");
    let admin = AdminSettings { listen: Some(LOOPBACK.parse().expect("an address")), token: None };
    let settings = Settings { data: Some(data.path().into()), shards: Some(2), admin, ..Settings::default() };
    let running = reader().settings(settings).start().expect("the app starts");
    let mut admin = Client::connect(running.admin_address().expect("it listens"));
    let status = loop {
        let status = get(&mut admin, "status");
        if status["condition"] == "ready" && status["shards"].as_array().is_some_and(|shards| shards.len() == 2) {
            break status;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let ingress = &status["ingresses"][0];
    assert_eq!((&ingress["is_paused"], &ingress["is_held"]), (&json!(true), &json!(true)));
    assert_eq!((&ingress["partitions"][0]["records"], &status["totals"]["records"]), (&json!(0), &json!(0)));
    assert_eq!(status["stages"][0]["held_by"]["text"], "ingress adds, partition 0");
    // One of the two pauses holds it still.
    let resumed = ask(&mut admin, "POST", "/admin/v1/ingresses/adds/resume").json();
    assert_eq!(resumed, json!({ "is_paused": false, "is_held": true }));
    assert_eq!(get(&mut admin, "status")["totals"]["records"], 0);
    assert!(!running.is_finished());
    assert_eq!(ask(&mut admin, "POST", "/admin/v1/functions/test/tally/resume").status, 200);
    let summary = running.wait().expect("it ends with its input");
    assert_eq!((summary.totals.records, summary.totals.shards.calls), (300, 300));
}
