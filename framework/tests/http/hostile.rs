//! Requests that are wrong in every way somebody could think of: each gets its code, none disturbs a
//! neighbour, and none costs memory.

use std::time::Duration;

use statefn::settings::HttpSettings;

use crate::{
    app::Service,
    client::{Client, post},
};

const ADD: &str = "/functions/test/counter/alice/add";
const JSON: &str = "content-type: application/json\r\n";
/// How large a body may be here.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// How often the whole table is sent while memory is watched.
const ROUNDS: usize = 12;
/// By how much memory may differ all the same: allocators keep what they once had.
const SLACK_BYTES: u64 = 24 * 1024 * 1024;

/// What is to come back.
#[derive(Debug, Clone, Copy)]
enum Expected {
    /// A problem with this status and code.
    Problem(u16, &'static str),
    /// A bare status, from bytes that are no HTTP, and the end of the connection.
    Status(u16),
    /// Nothing but the end of the connection.
    End,
}

use Expected::{End, Problem, Status};

/// What happens behind the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Wait,
    HalfClose,
}

struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    then: Then,
    expected: Expected,
}

fn case(name: &'static str, bytes: impl Into<Vec<u8>>, expected: Expected) -> Case {
    Case { name, bytes: bytes.into(), then: Then::Wait, expected }
}

fn get(name: &'static str, path: &str, expected: Expected) -> Case {
    case(name, format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"), expected)
}

/// A good body to a bad place.
fn to(name: &'static str, path: &str, expected: Expected) -> Case {
    case(name, post(path, JSON, br#"{"amount":1}"#), expected)
}

/// A bad body to a good place.
fn body(name: &'static str, message: &str, body: impl AsRef<[u8]>, expected: Expected) -> Case {
    case(name, post(&format!("/functions/test/counter/alice/{message}"), JSON, body.as_ref()), expected)
}

/// A good request with other headers.
fn headers(name: &'static str, headers: &str, expected: Expected) -> Case {
    case(name, post(ADD, headers, br#"{"amount":1}"#), expected)
}

/// The head of a good request, and whatever comes behind it.
fn raw(name: &'static str, rest: &str, expected: Expected) -> Case {
    case(name, format!("POST {ADD} HTTP/1.1\r\nhost: test\r\n{JSON}{rest}"), expected)
}

fn paths() -> Vec<Case> {
    let long = "k".repeat(2_000);
    let longest = "k".repeat(70_000);
    vec![
        to("a function that there is not", "/functions/test/nothing/alice/add", Problem(404, "unknown-function")),
        to("a namespace that there is not", "/functions/nothing/counter/alice/add", Problem(404, "unknown-function")),
        to("an empty function", "/functions///alice/add", Problem(404, "unknown-function")),
        to("a name in other case", "/functions/test/Counter/alice/add", Problem(404, "unknown-function")),
        to("a message that there is not", "/functions/test/counter/alice/nothing", Problem(404, "unknown-message")),
        to("an empty message", "/functions/test/counter/alice/", Problem(404, "unknown-message")),
        to("a message of another function", "/functions/test/counter/alice/sum", Problem(404, "unknown-message")),
        to("an empty key", "/functions/test/counter//add", Problem(400, "bad-key")),
        to("a key of dots", "/functions/test/counter/../add", Problem(400, "bad-path")),
        to("a key of encoded dots", "/functions/test/counter/%2e%2e/add", Problem(400, "bad-path")),
        to("a key that is one dot", "/functions/test/counter/./add", Problem(400, "bad-path")),
        to("a way out", "/functions/test/counter/../../../etc/passwd", Problem(400, "bad-path")),
        to("a key that is no UTF-8", "/functions/test/counter/%ff%fe/add", Problem(400, "bad-key")),
        to("a surrogate as a key", "/functions/test/counter/%ed%a0%80/add", Problem(400, "bad-key")),
        to("an overlong slash", "/functions/test/counter/%c0%af/add", Problem(400, "bad-key")),
        to("a name that is no UTF-8", "/functions/te%ffst/counter/alice/add", Problem(400, "bad-path")),
        to("a percent at the end", "/functions/test/counter/alice/add%", Problem(400, "bad-path")),
        to("half an escape", "/functions/test/counter/a%2/add", Problem(400, "bad-path")),
        to("an escape that is none", "/functions/test/counter/%zz/add", Problem(400, "bad-path")),
        to("an escape of four digits", "/functions/test/counter/%u0041/add", Problem(400, "bad-path")),
        to("a slash too many", "/functions/test/counter/alice/add/", Problem(404, "not-found")),
        to("two slashes in front", "//functions/test/counter/alice/add", Problem(404, "not-found")),
        to("an escaped slash between parts", "/functions/test%2Fcounter/alice/add", Problem(404, "not-found")),
        to("a long key", &format!("/functions/test/counter/{long}/add"), Problem(400, "bad-key")),
        to("a path that is far too long", &format!("/functions/test/counter/{longest}/add"), Status(400)),
        to("a text where a number is the key", "/functions/test/by-number/alice/sum", Problem(400, "bad-key")),
        to("a number that is too large", "/functions/test/by-number/2147483648/sum", Problem(400, "bad-key")),
        to("a number with a plus", "/functions/test/by-number/+1/sum", Problem(400, "bad-key")),
        to("a number with a zero in front", "/functions/test/by-number/01/sum", Problem(400, "bad-key")),
        to("a number with a space", "/functions/test/by-number/1%20/sum", Problem(400, "bad-key")),
        to("digits of another script", "/functions/test/by-number/%d9%a1/sum", Problem(400, "bad-key")),
        to("a UUID that is none", "/functions/test/by-uuid/1234/get", Problem(400, "bad-key")),
        to("a query that there is not", "/functions/test/counter/alice/add?x=1", Problem(400, "bad-query")),
        to("a mode that there is not", "/functions/test/counter/alice/add?mode=maybe", Problem(400, "bad-query")),
        to("a message as a state", "/functions/test/counter/alice/state", Problem(404, "unknown-message")),
        to("a post to a list", "/functions", Problem(405, "bad-method")),
        get("a get of a message", ADD, Problem(405, "bad-method")),
        get("a state that there is not", "/functions/test/counter/nobody/state", Problem(404, "no-state")),
        get("the state of no function", "/functions/test/nothing/alice/state", Problem(404, "unknown-function")),
        get("a page that there is not", "/errors/nothing", Problem(404, "not-found")),
        get("a page by a detour", "/errors/..%2f..%2fREADME", Problem(404, "not-found")),
        get("nothing", "/", Problem(404, "not-found")),
        case("an option", format!("OPTIONS {ADD} HTTP/1.1\r\nhost: test\r\n\r\n"), Problem(405, "bad-method")),
        case("a trace", format!("TRACE {ADD} HTTP/1.1\r\nhost: test\r\n\r\n"), Problem(405, "bad-method")),
        case("a deletion", format!("DELETE {ADD} HTTP/1.1\r\nhost: test\r\n\r\n"), Problem(405, "bad-method")),
    ]
}

fn bodies() -> Vec<Case> {
    let deep_list = format!("{{\"children\":{}{}}}", "[".repeat(20_000), "]".repeat(20_000));
    let deep_tree = format!("{}{}", "{\"children\":[".repeat(2_000), "]}".repeat(2_000));
    let many = format!("{{\"text\":[{}]}}", "0,".repeat(20_000) + "0");
    let huge = format!("{{\"text\":\"{}\"}}", "x".repeat(BODY_BYTES_MAX));
    let bad = Problem(400, "bad-message");
    vec![
        body("no body", "add", "", bad),
        body("no JSON", "add", "amount=1", bad),
        body("half of a JSON", "add", "{\"amount\":", bad),
        body("two JSONs", "add", "{\"amount\":1}{\"amount\":1}", bad),
        body("a field of another type", "add", "{\"amount\":\"1\"}", bad),
        body("a negative amount", "add", "{\"amount\":-1}", bad),
        body("a number that is too large", "add", "{\"amount\":18446744073709551616}", bad),
        body("a number beyond all", "add", format!("{{\"amount\":1e{}}}", "9".repeat(500)), bad),
        body("a field twice", "add", "{\"amount\":1,\"amount\":1}", bad),
        body("a field that is missing", "add", "{}", bad),
        body("null", "add", "null", bad),
        body("a body that is no UTF-8", "note", b"{\"text\":\"\xff\xfe\"}", bad),
        body("half a surrogate", "note", "{\"text\":\"\\ud800\"}", bad),
        body("a zero byte in a text", "note", b"{\"text\":\"a\0b\"}", bad),
        body("a byte order mark", "add", "\u{feff}{\"amount\":1}", bad),
        body("a deep list", "tree", deep_list, bad),
        body("a deep tree", "tree", deep_tree, bad),
        body("a long list of another type", "note", many, bad),
        body("a body that is too large", "note", huge, Problem(413, "body-too-large")),
        body("a message that cannot be read is not sent", "add?mode=send", "{", bad),
        body("a rejection", "take", "{\"amount\":999999999}", Problem(409, "too-little")),
        body("a message that waits", "in-order", "{}", Problem(400, "waits-for-event-time")),
    ]
}

fn heads() -> Vec<Case> {
    let kind = Problem(415, "bad-content-type");
    let once = Problem(400, "bad-idempotency-key");
    let time = Problem(400, "bad-event-time");
    let large = "h".repeat(200_000);
    let many = "x: y\r\n".repeat(200);
    vec![
        headers("no content type", "", kind),
        headers("a form", "content-type: application/x-www-form-urlencoded\r\n", kind),
        headers("plain text", "content-type: text/plain\r\n", kind),
        headers("protobuf where JSON is taken", "content-type: application/x-protobuf\r\n", kind),
        headers("another character set", "content-type: application/json; charset=utf-16\r\n", kind),
        headers("a content type that is no text", "content-type: \u{ff}\u{fe}\r\n", kind),
        headers("two content types", &format!("{JSON}content-type: text/plain\r\n"), kind),
        headers("a compressed body", &format!("{JSON}content-encoding: gzip\r\n"), kind),
        headers("an empty idempotency key", &format!("{JSON}idempotency-key:\r\n"), once),
        headers("a long idempotency key", &format!("{JSON}idempotency-key: {}\r\n", "k".repeat(256)), once),
        headers("an idempotency key with a space", &format!("{JSON}idempotency-key: a b\r\n"), once),
        headers("an idempotency key that is no text", &format!("{JSON}idempotency-key: \u{ff}\r\n"), once),
        headers("two idempotency keys", &format!("{JSON}idempotency-key: a\r\nidempotency-key: b\r\n"), once),
        headers("an event time that is none", &format!("{JSON}event-time: soon\r\n"), time),
        headers("an empty event time", &format!("{JSON}event-time:\r\n"), time),
        headers("an event time without an offset", &format!("{JSON}event-time: 2026-01-01T00:00:00\r\n"), time),
        headers("an event time beyond all", &format!("{JSON}event-time: 9223372036854775807\r\n"), time),
        headers("an event time before all", &format!("{JSON}event-time: -9223372036854775808\r\n"), time),
        headers("a long event time", &format!("{JSON}event-time: {}\r\n", "9".repeat(10_000)), time),
        headers("an event time that is no text", &format!("{JSON}event-time: \u{ff}\r\n"), time),
        headers("two event times", &format!("{JSON}event-time: 1\r\nevent-time: 1\r\n"), time),
        headers("a header that is too large", &format!("{JSON}x: {large}\r\n"), Status(431)),
        headers("too many headers", &format!("{JSON}{many}"), Status(431)),
        headers("a header with a space in its name", &format!("{JSON}x y: z\r\n"), Status(400)),
        headers("a folded header", &format!("{JSON}x: y\r\n z\r\n"), Status(400)),
        headers("two lengths", &format!("{JSON}content-length: 3\r\n"), Status(400)),
        raw("a length and chunks", "content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", Status(400)),
        raw("chunks and a length", "transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n", Status(400)),
        raw("chunks twice", "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", Status(400)),
        raw("a coding behind chunks", "transfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n", Status(400)),
        raw("a coding that is none", "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n", Status(400)),
        raw("a length with a sign", "content-length: +12\r\n\r\n{\"amount\":1}", Status(400)),
        raw("a length below zero", "content-length: -1\r\n\r\n", Status(400)),
        raw("a length in hexadecimal", "content-length: 0xc\r\n\r\n{\"amount\":1}", Status(400)),
        raw("a list of lengths", "content-length: 12, 12\r\n\r\n{\"amount\":1}", Status(400)),
        raw("a length beyond all", "content-length: 18446744073709551615\r\n\r\n", Problem(413, "body-too-large")),
        raw("a length beyond numbers", "content-length: 99999999999999999999999\r\n\r\n", Status(400)),
        raw("a chunk that is no number", "transfer-encoding: chunked\r\n\r\nzz\r\n", Problem(400, "bad-body")),
        raw("a chunk beyond all", "transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n", Problem(400, "bad-body")),
        raw("a chunk without its end", "transfer-encoding: chunked\r\n\r\n1\r\n{x\r\n", Problem(400, "bad-body")),
        case("no host", format!("POST {ADD} HTTP/1.1\r\n{JSON}content-length: 0\r\n\r\n"), Status(400)),
        case("another version", format!("POST {ADD} HTTP/9.9\r\nhost: test\r\n\r\n"), Status(400)),
        case("HTTP/2 at once", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Status(400)),
        case("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and so on\r\n\r\n".to_vec(), Status(400)),
        case("zero bytes", vec![0; 1_000], Status(400)),
        case("a word", "hello\r\n\r\n", Status(400)),
        case("a path that is none", "GET functions HTTP/1.1\r\nhost: test\r\n\r\n", Problem(404, "not-found")),
        case("a bare line end in a header", format!("POST {ADD} HTTP/1.1\r\nhost: te\rst\r\n\r\n"), Status(400)),
    ]
}

fn slow() -> Vec<Case> {
    vec![
        case("half of a head", format!("POST {ADD} HTTP/1.1\r\nhost: test\r\n"), Status(408)),
        raw("half of a body", "content-length: 12\r\n\r\n{\"amount\"", Problem(408, "slow-body")),
        raw("half of the chunks", "transfer-encoding: chunked\r\n\r\n5\r\n{\"amo\r\n", Problem(408, "slow-body")),
        Case {
            then: Then::HalfClose,
            ..case("a connection that ends in a head", format!("POST {ADD} HTTP/1.1\r\nhost"), End)
        },
    ]
}

/// Sends a case on a connection of its own; says what is not as expected.
fn check(service: &Service, Case { name, bytes, then, expected }: &Case) -> Option<String> {
    let mut client = service.client();
    client.send(bytes);
    if *then == Then::HalfClose {
        client.half_close();
    }
    let response = client.response();
    let found = response.as_ref().map(|response| (response.status, response.code()));
    let is_right = match *expected {
        Problem(status, code) => found == Some((status, code.to_owned())),
        // A client that still writes when the server closes may not get to read it.
        Status(status) => {
            (found == Some((status, String::new())) || found.is_none() && bytes.len() > 60_000) && client.is_closed()
        }
        End => found.is_none(),
    };
    (!is_right).then(|| format!("{name}: {expected:?} is expected, not {response:?}"))
}

/// How many bytes of memory this process has.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux says it");
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages");
    pages * 4096
}

#[test]
fn bad_requests_get_their_code_and_disturb_nobody() {
    let data = tempfile::tempdir().expect("a directory");
    let http = HttpSettings { body_bytes_max: Some(BODY_BYTES_MAX as u64), ..HttpSettings::default() };
    let service = Service::start_with(data.path(), http);
    let cases: Vec<Case> = [paths(), bodies(), heads()].into_iter().flatten().collect();
    assert!(cases.len() >= 100, "{} requests", cases.len());
    let mut good = 0;
    let mut neighbour = service.client();
    let mut check_neighbour = |client: &mut Client| {
        good += 1;
        assert_eq!(client.post(ADD, r#"{"amount":1}"#).text(), good.to_string());
    };
    let mut before = 0;
    for round in 0..ROUNDS {
        let mut wrong = Vec::new();
        for case in &cases {
            wrong.extend(check(&service, case));
            check_neighbour(&mut neighbour);
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        if round == 1 {
            before = resident_bytes();
        }
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < SLACK_BYTES, "memory has grown by {grown} bytes over {} rounds", ROUNDS - 2);
    let summary = service.stop();
    let totals = summary.totals.shards;
    // Nothing but the good requests has changed anything, and nothing was kept for later.
    assert_eq!((totals.emitted, totals.faults, totals.messages), (0, 0, 0));
    assert_eq!(totals.epochs, good);
}

#[test]
fn a_client_that_is_slow_is_not_waited_for() {
    let data = tempfile::tempdir().expect("a directory");
    let http = HttpSettings {
        head_time_max: Some(Duration::from_secs(1)),
        body_time_max: Some(Duration::from_secs(1)),
        ..HttpSettings::default()
    };
    let service = Service::start_with(data.path(), http);
    for (good, case) in (1..).zip(slow()) {
        assert_eq!(check(&service, &case), None);
        assert_eq!(service.client().post(ADD, r#"{"amount":1}"#).text(), good.to_string());
    }
    service.stop();
}

#[test]
fn requests_in_one_pipe_are_answered_in_their_order() {
    let data = tempfile::tempdir().expect("a directory");
    let service = Service::start(data.path());
    let mut client = service.client();
    let mut bytes = Vec::new();
    for amount in 1..=20 {
        bytes.extend(post(ADD, JSON, format!("{{\"amount\":{amount}}}").as_bytes()));
        bytes.extend(post(ADD, JSON, b"{}"));
    }
    client.send(&bytes);
    let mut sum = 0;
    for amount in 1..=20 {
        sum += amount;
        assert_eq!(client.response().expect("an answer").text(), sum.to_string());
        assert_eq!(client.response().expect("an answer").code(), "bad-message");
    }
    service.stop();
}

#[test]
fn a_client_that_says_no_more_still_gets_its_answer() {
    let data = tempfile::tempdir().expect("a directory");
    let service = Service::start(data.path());
    let mut client = service.client();
    client.send(&post(ADD, JSON, br#"{"amount":4}"#));
    client.half_close();
    assert_eq!(client.response().expect("an answer").text(), "4");
    service.stop();
}

#[test]
fn clients_that_go_away_leave_nothing_behind() {
    let data = tempfile::tempdir().expect("a directory");
    let service = Service::start(data.path());
    for _ in 0..200 {
        let mut client = service.client();
        client.send(&post(ADD, JSON, br#"{"amount":1}"#));
    }
    let mut client = service.client();
    let before = client.post(ADD, r#"{"amount":0}"#).json();
    assert!(before.as_u64().is_some_and(|sum| sum <= 200), "{before}");
    service.stop();
}
