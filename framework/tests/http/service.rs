//! What the routes do for those who mean well.

use prost::Message as _;
use serde_json::json;
use statefn::settings::HttpSettings;

use crate::{
    app::{Service, Sum},
    client::{Client, Response, post},
};

#[test]
fn answers_are_of_committed_state_and_survive_a_restart() {
    let data = tempfile::tempdir().expect("a directory");
    let service = Service::start(data.path());
    let mut client = service.client();
    let added = client.post("/functions/test/counter/alice/add", r#"{"amount":7}"#);
    assert_eq!((added.status, added.text(), added.header("content-type")), (200, "7", Some("application/json")));
    assert_eq!(client.post("/functions/test/counter/alice/add", r#"{"amount":3}"#).text(), "10");
    assert_eq!(client.post("/functions/test/counter/alice/get", "{}").text(), "10");
    assert_eq!(client.get("/functions/test/counter/alice/state").json(), json!({ "sum": 10, "notes": [] }));
    let unit = client.post("/functions/test/counter/a%2Fb/note", r#"{"text":"ä"}"#);
    assert_eq!((unit.status, unit.text()), (200, "null"));
    for _ in 0..50 {
        client.post("/functions/test/counter/alice/get", "{}");
        client.get("/functions/test/counter/alice/state");
    }
    let summary = service.stop();
    // Reads and states have made no frame.
    assert_eq!(summary.totals.shards.epochs, 3);

    let service = Service::start(data.path());
    let mut client = service.client();
    assert_eq!(client.get("/functions/test/counter/alice/state").json()["sum"], 10);
    assert_eq!(client.get("/functions/test/counter/a%2fb/state").json()["notes"], json!(["ä"]));
    service.stop();
}

#[test]
fn a_rejection_has_its_own_status_code_and_value() {
    let data = tempfile::tempdir().expect("a directory");
    let service = Service::start(data.path());
    let mut client = service.client();
    let rejected = client.post("/functions/test/counter/alice/take", r#"{"amount":5}"#);
    assert_eq!((rejected.status, rejected.code().as_str()), (409, "too-little"));
    let problem = rejected.json();
    assert_eq!((&problem["type"], &problem["value"]), (&json!("/errors/rejected"), &json!({ "missing": 5 })));
    // The page of its type is there, and a rejection leaves nothing.
    assert!(client.get(problem["type"].as_str().expect("text")).text().starts_with("# `rejected`"));
    assert_eq!(client.get("/functions/test/counter/alice/state").code(), "no-state");
    service.stop();
}

#[test]
fn a_fault_parks_its_key_and_says_nothing_of_the_program() {
    let data = tempfile::tempdir().expect("a directory");
    let service = Service::start(data.path());
    let mut client = service.client();
    client.post("/functions/test/counter/bad/add", r#"{"amount":5}"#);
    let fault = client.post("/functions/test/counter/bad/break", "{}");
    assert_eq!((fault.status, fault.code().as_str()), (500, "handler-fault"));
    assert!(!fault.text().contains("secret"));
    assert_eq!(client.post("/functions/test/counter/bad/add", r#"{"amount":1}"#).code(), "key-parked");
    assert_eq!(client.get("/functions/test/counter/bad/state").json()["sum"], 5);
    assert_eq!(client.post("/functions/test/counter/good/add", r#"{"amount":1}"#).text(), "1");
    let summary = service.stop();
    assert_eq!(summary.totals.parked_keys, 1);
}

#[test]
fn keys_are_written_as_their_kind_is() {
    let data = tempfile::tempdir().expect("a directory");
    let service = Service::start(data.path());
    let mut client = service.client();
    for amount in [3, 4] {
        let body = Sum { amount }.encode_to_vec();
        client.send(&post("/functions/test/by-number/-12/sum", "content-type: application/x-protobuf\r\n", &body));
    }
    assert_eq!(client.response().map(|first| first.status), Some(200));
    let second = client.response().expect("an answer");
    assert_eq!(second.header("content-type"), Some("application/x-protobuf"));
    assert_eq!(Sum::decode(second.body.as_slice()), Ok(Sum { amount: 7 }));
    assert_eq!(client.get("/functions/test/by-number/-12/state").json(), json!({ "sum": 7 }));
    let upper = "/functions/test/by-uuid/0000ABCD-0000-0000-0000-000000000001";
    assert_eq!(client.post(&format!("{upper}/get"), "{}").text(), "1");
    assert_eq!(client.post(&format!("{}/get", upper.to_lowercase()), "{}").text(), "2");
    service.stop();
}

#[test]
fn what_is_sent_is_committed_and_not_waited_for() {
    let data = tempfile::tempdir().expect("a directory");
    let service = Service::start(data.path());
    let mut client = service.client();
    let sent = client.post("/functions/test/counter/alice/add?mode=send", r#"{"amount":2}"#);
    assert_eq!((sent.status, sent.text()), (202, ""));
    assert_eq!(client.get("/functions/test/counter/alice/state").json()["sum"], 2);
    // Nobody waits for the answer, so a rejection is a dead letter.
    assert_eq!(client.post("/functions/test/counter/alice/take?mode=send", r#"{"amount":5}"#).status, 202);
    assert_eq!(client.post("/functions/test/counter/alice/in-order?mode=send", "{}").status, 202);
    let passed = client.post("/functions/test/counter/alice/pass-on", r#"{"to":"bob","amount":4}"#);
    assert_eq!(passed.status, 200);
    while client.get("/functions/test/counter/bob/state").status != 200 {}
    let summary = service.stop();
    assert_eq!((summary.totals.shards.rejections, summary.totals.parked_keys), (1, 0));
    let letters = std::fs::read_to_string(data.path().join("dead-letters.jsonl")).expect("there are dead letters");
    assert!(letters.contains("too-little"), "{letters}");
}

#[test]
fn functions_health_and_pages_are_listed() {
    let data = tempfile::tempdir().expect("a directory");
    let service = Service::start(data.path());
    let mut client = service.client();
    let functions = client.get("/functions").json();
    let names: Vec<_> = functions.as_array().expect("a list").iter().map(|function| &function["function"]).collect();
    assert_eq!(names, ["test/by-number", "test/by-uuid", "test/counter"]);
    let keys: Vec<_> = functions.as_array().expect("a list").iter().map(|function| &function["key"]).collect();
    assert_eq!(keys, ["i32", "uuid", "text"]);
    let json = "application/json";
    let of_get = json!({
        "message": "get",
        "access": "read",
        "content": json,
        "answer": json,
        "waits_for_event_time": false,
        "schema": { "type": "object", "properties": {} },
        "answer_schema": { "type": "integer", "minimum": 0 },
    });
    assert_eq!(functions[2]["messages"][2], of_get);
    let number = json!({ "type": "integer", "minimum": 0 });
    let rejection = json!({ "type": "object", "required": ["missing"], "properties": { "missing": number } });
    assert_eq!(functions[2]["messages"][1]["rejection_schema"], rejection);
    let tree = json!({ "type": "array", "items": true });
    assert_eq!(functions[2]["messages"][4]["schema"]["properties"]["children"], tree, "one that holds itself");
    let when = json!({
        "type": "object",
        "description": "Asks for its own event time.",
        "properties": {
            "at_ms": { "anyOf": [{ "type": "integer" }, { "type": "null" }] },
            "also": { "type": "array", "items": { "oneOf": [
                { "const": "nothing" },
                { "type": "object", "required": ["something"], "properties": { "something": number }, "additionalProperties": false },
            ] } },
        },
    });
    let messages = functions[2]["messages"].as_array().expect("a list");
    assert_eq!(messages.last().expect("many")["schema"], when);
    assert_eq!(functions[0]["messages"][0]["answer"], "application/x-protobuf");
    assert_eq!(functions[0]["messages"][0]["answer_schema"], serde_json::Value::Null, "that is no JSON");
    assert_eq!(client.get("/health").json(), json!({ "status": "alive" }));
    for code in statefn_http::CODES {
        assert_eq!(client.get(&format!("/errors/{}", code.name)).text(), code.page);
    }
    service.stop();
}

#[test]
fn a_request_may_state_when_it_happens() {
    const WHEN: &str = "/functions/test/counter/alice/when";
    let data = tempfile::tempdir().expect("a directory");
    let http = HttpSettings { event_time_field: Some("at_ms".into()), ..HttpSettings::default() };
    let service = Service::start_with(data.path(), http);
    let mut client = service.client();
    let mut when = |header: &str, body: &str| {
        client.send(&post(WHEN, &format!("content-type: application/json\r\n{header}"), body.as_bytes()));
        client.response().expect("an answer").json().as_i64().expect("a time")
    };
    assert_eq!(when("event-time: 1767225600000\r\n", "{}"), 1_767_225_600_000);
    assert_eq!(when("event-time: 2026-01-01T01:00:00+01:00\r\n", "{}"), 1_767_225_600_000);
    assert_eq!(when("", r#"{"at_ms":1767225600001}"#), 1_767_225_600_001);
    assert_eq!(when("event-time: 5\r\n", r#"{"at_ms":1767225600001}"#), 5, "the header goes before");
    let before = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("now").as_millis();
    assert!(when("", "{}") >= i64::try_from(before).expect("a time") - 1, "without a time it happens now");
    let mut client = service.client();
    let unreadable = client.post(WHEN, r#"{"at_ms":99999999999999999}"#);
    assert_eq!((unreadable.status, unreadable.code().as_str()), (400, "bad-event-time"));
    for (time, expected) in
        [(r#""1970-01-01T00:00:00Z""#, r#"{"status":202}"#), ("true", "is no event time: write it as")]
    {
        let line = format!(r#"{{"key":"bob","message":"in-order","body":{{}},"event_time":{time}}}"#);
        client.send(&post("/batch/test/counter", "content-type: application/x-ndjson\r\n", line.as_bytes()));
        let told = client.response().expect("an answer");
        assert!(told.text().contains(expected), "{}", told.text());
    }
    service.stop();
}

/// One that waits for its time cannot be answered; what to do instead stands in the answer and on its page.
#[test]
fn a_message_that_waits_says_how_it_can_be_sent() {
    const IN_ORDER: &str = "/functions/test/counter/alice/in-order";
    let data = tempfile::tempdir().expect("a directory");
    let service = Service::start(data.path());
    let mut client = service.client();
    let refused = client.post(IN_ORDER, "{}");
    assert_eq!((refused.status, refused.code().as_str()), (400, "waits-for-event-time"));
    let problem = refused.json();
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("add `?mode=send`")), "{problem}");
    let page = client.get(problem["type"].as_str().expect("a page"));
    assert!(page.status == 200 && page.text().contains("Add `?mode=send`"), "{}", page.text());
    assert_eq!(client.get("/functions/test/counter/alice/state").code(), "no-state", "nothing was done");
    let mut send = |time: &str| {
        let headers = format!("content-type: application/json\r\nevent-time: {time}\r\n");
        client.send(&post(&format!("{IN_ORDER}?mode=send"), &headers, b"{}"));
        assert_eq!(client.response().expect("an answer").status, 202);
    };
    send("9999-01-01T00:00:00Z");
    send("2000-01-01T00:00:00Z");
    while client.get("/functions/test/counter/alice/state").status != 200 {}
    assert_eq!(client.get("/functions/test/counter/alice/state").json()["sum"], 1, "the other one waits");
    service.stop();
}

#[test]
fn a_stop_answers_what_was_taken_in_and_closes_idle_connections() {
    let data = tempfile::tempdir().expect("a directory");
    let service = Service::start(data.path());
    let mut clients: Vec<Client> = (0..50).map(|_| service.client()).collect();
    let mut idle = service.client();
    assert_eq!(idle.get("/health").status, 200);
    for (number, client) in clients.iter_mut().enumerate() {
        let body = format!("{{\"amount\":{number}}}");
        client.send(&post("/functions/test/counter/alice/add", "content-type: application/json\r\n", body.as_bytes()));
    }
    service.stop();
    assert!(idle.is_closed());
    let (mut least, mut most) = (0, 0);
    for (number, client) in (0..).zip(&mut clients) {
        match client.response() {
            Some(response) if response.status == 200 => (least, most) = (least + number, most + number),
            Some(response) => assert_eq!(response.code(), "not-ready"),
            // The connection was closed before anybody read from it, or before the answer was there.
            None => most += number,
        }
    }
    let service = Service::start(data.path());
    let state = service.client().get("/functions/test/counter/alice/state");
    let sum = if state.status == 200 { state.json()["sum"].as_u64().expect("a sum") } else { 0 };
    assert!((least..=most).contains(&sum), "{sum} is there, {least} was acknowledged and {most} may be");
    service.stop();
}

/// Adds with an idempotency key.
fn add_once(client: &mut Client, path: &str, amount: u64, once: &str) -> Response {
    let headers = format!("content-type: application/json\r\nidempotency-key: {once}\r\n");
    client.send(&post(path, &headers, format!("{{\"amount\":{amount}}}").as_bytes()));
    client.response().expect("an answer")
}

#[test]
fn a_request_that_is_repeated_gets_the_same_answer_and_is_done_once() {
    const ADD: &str = "/functions/test/counter/alice/add";
    let data = tempfile::tempdir().expect("a directory");
    let service = Service::start(data.path());
    let mut client = service.client();
    let first = add_once(&mut client, ADD, 5, "a");
    assert_eq!((first.status, first.text()), (200, "5"));
    assert_eq!(client.post(ADD, r#"{"amount":1}"#).text(), "6");
    assert_eq!(add_once(&mut client, ADD, 5, "a").text(), "5");
    let reused = add_once(&mut client, ADD, 6, "a");
    assert_eq!((reused.status, reused.code().as_str()), (422, "idempotency-key-reused"));
    assert_eq!(add_once(&mut client, &format!("{ADD}?mode=send"), 5, "a").code(), "idempotency-key-reused");
    let take = ADD.replace("/add", "/take");
    let rejected = add_once(&mut client, &take, 9, "b");
    assert_eq!((rejected.status, rejected.code().as_str()), (409, "too-little"));
    client.post(ADD, r#"{"amount":100}"#);
    // Two at a time: the second waits for the first.
    let mut second = service.client();
    for client in [&mut client, &mut second] {
        let headers = "content-type: application/json\r\nidempotency-key: c\r\n";
        client.send(&post(ADD, headers, br#"{"amount":1}"#));
    }
    assert_eq!(client.response().map(|answer| answer.body), second.response().map(|answer| answer.body));
    service.stop();

    let service = Service::start(data.path());
    let mut client = service.client();
    assert_eq!(add_once(&mut client, ADD, 5, "a").text(), "5");
    let again = add_once(&mut client, &take, 9, "b");
    assert_eq!((again.status, again.json()), (409, rejected.json()));
    assert_eq!(client.get("/functions/test/counter/alice/state").json()["sum"], 107);
    service.stop();
}

#[test]
fn timers_fire_though_nobody_says_anything() {
    let data = tempfile::tempdir().expect("a directory");
    let service = Service::start(data.path());
    let mut client = service.client();
    // Before the timer is set, so that a slow answer does not count against it.
    let begun = std::time::Instant::now();
    assert_eq!(client.post("/functions/test/counter/alice/later", r#"{"milliseconds":200}"#).status, 200);
    while client.get("/functions/test/counter/alice/state").json()["sum"] != 100 {
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "the timer does not fire");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // It may come late, but never early.
    assert!(begun.elapsed() >= std::time::Duration::from_millis(150));
    let summary = service.stop();
    assert_eq!(summary.totals.shards.timers, 1);
}

#[test]
fn a_batch_is_sent_line_by_line_or_not_at_all() {
    const BATCH: &str = "/batch/test/counter";
    let data = tempfile::tempdir().expect("a directory");
    let service = Service::start(data.path());
    let mut client = service.client();
    let mut send = |lines: &str| {
        client.send(&post(BATCH, "content-type: application/x-ndjson\r\n", lines.as_bytes()));
        client.response().expect("an answer")
    };
    let line = |key: &str, amount: u64| format!(r#"{{"key":"{key}","message":"add","body":{{"amount":{amount}}}}}"#);
    let good: Vec<String> = (1..=500).map(|number| line(&format!("a/{}", number % 5), number)).collect();
    let sent = send(&good.join("\n"));
    assert_eq!((sent.status, sent.text().lines().count()), (200, 500));
    assert!(sent.text().lines().all(|line| line == r#"{"status":202}"#));
    let once = line("once", 7).replace("}}", r#"},"idempotency_key":"k"}"#);
    assert_eq!(send(&format!("{once}\n\n{once}\n")).text().lines().count(), 2);
    let reused = send(&once.replace('7', "8"));
    assert!(reused.text().contains("idempotency-key-reused"), "{}", reused.text());
    for (lines, expected) in [
        (format!("{}\n{{}}", line("b", 1)), "line 2: missing field `key`"),
        (format!("{}\n{}", line("b", 1), line("", 1)), "line 2: the key is empty"),
        (line("b", 1).replace("add", "nothing"), "line 1: `test/counter` takes no message"),
        (line("b", 1).replace("amount", "amounts"), "line 1: missing field `amount`"),
        (line("b", 1).replace("key", "keys"), "line 1: unknown field `keys`"),
        (line("b", 1).repeat(2), "line 1: trailing characters"),
        (once.replace("\"k\"", "\"a b\""), "line 1: an idempotency key has"),
        (String::new(), "the batch has no line"),
        ("\n".repeat(1_000), "the batch has no line"),
        (vec![line("b", 1); 10_001].join("\n"), "a batch has at most 10000 lines"),
    ] {
        let refused = send(&lines);
        assert_eq!((refused.status, refused.code().as_str()), (400, "bad-batch"), "{expected}");
        let detail = refused.json()["detail"].as_str().expect("text").to_owned();
        assert!(detail.starts_with(expected), "{detail}");
    }
    let mut client = service.client();
    assert_eq!(client.get("/functions/test/counter/b/state").code(), "no-state");
    assert_eq!(client.get("/functions/test/counter/once/state").json()["sum"], 7);
    let sum = |key: u64| (1..=500).filter(|number| number % 5 == key).sum::<u64>();
    for key in 0..5 {
        assert_eq!(client.get(&format!("/functions/test/counter/a%2F{key}/state")).json()["sum"], sum(key));
    }
    assert_eq!(client.get(BATCH).code(), "bad-method");
    let unread = client.post(BATCH, &line("b", 1));
    // What stands behind a body that nobody has read is not looked for, and the client is told.
    assert_eq!((unread.code().as_str(), unread.header("connection")), ("bad-content-type", Some("close")));
    assert!(client.is_closed());
    service.stop();
}
