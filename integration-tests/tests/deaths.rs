//! A record that kills its process, or never lets a handler return, is found by the processes that
//! follow; its key is parked, and everything else is as if the record had not been there. And what a
//! person does then: retry, skip and edit parked keys, and replay dead letters.

#![allow(clippy::unwrap_used, reason = "a test fails loudly where it stands")]

use std::{
    collections::BTreeMap,
    fs,
    process::{Command, Output},
};

use serde_json::{Value, json};
use tempfile::TempDir;

const KEYS: u64 = 60;
const ROUNDS: u64 = 20;
/// How often a process may die until the next one runs to its end.
const DEATHS_MAX: usize = 3;

/// Each round adds 1 to each key; `breaks` says which record breaks, and how.
fn records(breaks: impl Fn(u64, u64) -> Option<&'static str>) -> String {
    let rounds = (0..ROUNDS).flat_map(|round| (0..KEYS).map(move |key| (round, key)));
    let line = |(round, key)| json!({"key": format!("k{key}"), "amount": 1, "breaks": breaks(key, round)}).to_string();
    rounds.map(|at| line(at) + "\n").collect()
}

struct App {
    directory: TempDir,
    is_mended: bool,
}

impl App {
    fn of(records: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("adds.jsonl"), records).unwrap();
        Self { directory, is_mended: false }
    }

    fn try_call(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_faulty"));
        command.current_dir(self.directory.path()).env_remove("RUST_LOG").env_remove("FAULTY_MENDED");
        if self.is_mended {
            command.env("FAULTY_MENDED", "1");
        }
        command.args(["--data", "data", "--shards", "8", "--threads", "2", "--set=ingress.adds.path=adds.jsonl"]);
        command.args(arguments).output().unwrap()
    }

    fn call(&self, arguments: &[&str]) -> Vec<Value> {
        let Output { status, stdout, stderr } = self.try_call(arguments);
        assert!(status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&stderr));
        let text = String::from_utf8(stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Starts the app until it runs to its end; returns what those that died have said.
    fn run_to_the_end(&self, arguments: &[&str]) -> Vec<String> {
        let mut deaths = Vec::new();
        loop {
            let Output { status, stderr, .. } = self.try_call(arguments);
            if status.success() {
                return deaths;
            }
            deaths.push(String::from_utf8_lossy(&stderr).into_owned());
            assert!(deaths.len() <= DEATHS_MAX, "it dies again and again: {deaths:?}");
        }
    }

    /// The states by function and key.
    fn states(&self) -> BTreeMap<(String, String), Value> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let states = self.call(&["state"]).into_iter();
        states.map(|state| ((text(&state["function"]), text(&state["key"])), state["state"].clone())).collect()
    }

    /// The sum of a counter, and what its total has been told of it.
    fn sums(&self, key: &str) -> (u64, u64) {
        let states = self.states();
        let sum = |function: &str, key: &str| {
            states.get(&(function.into(), key.into())).map_or(0, |state| state["sum"].as_u64().unwrap())
        };
        (sum("faulty/counter", key), sum("faulty/total", &format!("total of {key}")))
    }

    /// What is parked, without the text of the first call.
    fn parked(&self) -> Vec<Value> {
        let mut parked = self.call(&["parked"]);
        parked.iter_mut().for_each(|key| _ = key.as_object_mut().unwrap().remove("text"));
        parked
    }
}

fn check_it_is_found(breaks: &'static str, arguments: &[&str]) -> Vec<String> {
    let app = App::of(&records(|key, round| (key == 7 && round == 3).then_some(breaks)));
    let deaths = app.run_to_the_end(arguments);
    assert!(!deaths.is_empty(), "the record kills");
    let reason = "the process died twice while it ran this message";
    let parked = json!({"function": "faulty/counter", "key": "k7", "reason": reason, "waiting": 17, "message": "add"});
    assert_eq!(app.parked(), [parked]);
    assert!(app.call(&["parked"])[0]["text"].as_str().unwrap().contains(breaks));

    let healthy = App::of(&records(|_, _| None));
    healthy.call(&[]);
    let (mut found, mut expected) = (app.states(), healthy.states());
    for states in [&mut found, &mut expected] {
        states.retain(|(_, key), _| key != "k7" && key != "total of k7");
    }
    assert_eq!(found, expected);
    assert_eq!(app.sums("k7"), (3, 3));

    // The next start accuses nobody any more.
    app.call(&[]);
    let app = App { is_mended: true, ..app };
    let told = app.call(&["parked", "retry", "--function", "faulty/counter", "--key", "k7"]);
    assert_eq!(told, [json!({"function": "faulty/counter", "key": "k7", "waiting": 0})]);
    assert_eq!(app.states(), healthy.states());
    deaths
}

#[test]
fn a_record_that_kills_the_process_is_parked() {
    check_it_is_found("abort", &[]);
}

#[test]
fn a_handler_that_never_returns_is_parked() {
    let deaths = check_it_is_found("hang", &["--handler-time-limit", "1s"]);
    for death in &deaths {
        assert!(death.contains("`faulty/counter` has run for more than 1s"), "{death}");
        assert!(death.contains("the message `add`"), "{death}");
    }
    // The first one knows the key by its hash only; the next ones are careful.
    assert!(deaths.last().unwrap().contains("of the key k7"), "{deaths:?}");
}

#[test]
fn parked_keys_are_skipped_edited_and_retried() {
    let breaks = |key, round| match (key, round) {
        (1..=4, 5) => Some("fault"),
        _ => None,
    };
    let app = App::of(&records(breaks));
    app.call(&[]);
    assert_eq!(app.parked().len(), 4);
    let one = |key| ["--function", "faulty/counter", "--key", key];
    let done = |key: &str| [json!({"function": "faulty/counter", "key": key, "waiting": 0})];

    assert_eq!(app.call(&[&["parked", "skip"][..], &one("k1")].concat()), done("k1"));
    assert_eq!(app.sums("k1"), (ROUNDS - 1, ROUNDS - 1));
    let edit = ["--message", r#"{"key":"k2","amount":100}"#];
    assert_eq!(app.call(&[&["parked", "edit"][..], &one("k2"), &edit].concat()), done("k2"));
    assert_eq!(app.sums("k2"), (ROUNDS - 1 + 100, ROUNDS - 1 + 100));
    // Another state alone does not mend the call.
    let edit = ["--state", r#"{"sum":1000}"#];
    let told = app.call(&[&["parked", "edit"][..], &one("k3"), &edit].concat());
    assert_eq!((&told[0]["waiting"], &told[0]["reason"]), (&json!(15), &json!("the record says fault")));
    for (wrong, why) in [(["--message", "7"], "invalid type"), (["--state", "7"], "the stored state is no")] {
        let told = app.call(&[&["parked", "edit"][..], &one("k3"), &wrong].concat());
        assert!(told[0]["error"].as_str().unwrap().contains(why), "{told:?}");
    }
    assert_eq!(app.call(&[&["parked", "retry"][..], &one("k1")].concat())[0]["error"], "the key is not parked");

    let app = App { is_mended: true, ..app };
    assert_eq!(app.call(&["parked", "retry", "--all"]).len(), 2);
    assert_eq!(app.parked(), [] as [Value; 0]);
    assert_eq!((app.sums("k3"), app.sums("k4")), ((1_000 + 15, ROUNDS), (ROUNDS, ROUNDS)));
    app.call(&[]);
    assert_eq!((app.sums("k3"), app.sums("k4")), ((1_000 + 15, ROUNDS), (ROUNDS, ROUNDS)));
}

#[test]
fn dead_letters_are_replayed_once() {
    let records = records(|key, round| (key == 1 && round == 5).then_some("fault"));
    let app = App::of(&(records + "{\"key\":\"k9\",\"amount\":-1}\n"));
    app.call(&[]);
    app.call(&["parked", "skip", "--function", "faulty/counter", "--key", "k1"]);
    let letters = app.call(&["dead-letters", "list"]);
    let mut reasons: Vec<&str> = letters.iter().map(|letter| letter["reason"].as_str().unwrap()).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["skipped", "undecodable"]);
    let skipped = app.call(&["dead-letters", "list", "--only", "skipped"]);
    assert_eq!((&skipped[0]["key"], &skipped[0]["message"]), (&json!("k1"), &json!("add")));

    let app = App { is_mended: true, ..app };
    assert_eq!(app.sums("k1"), (ROUNDS - 1, ROUNDS - 1));
    for _ in 0..3 {
        let told = app.call(&["dead-letters", "replay", "--only", "skipped"]);
        assert_eq!(told, [json!({"id": skipped[0]["id"], "outcome": "replayed", "messages": 1})]);
        assert_eq!(app.sums("k1"), (ROUNDS, ROUNDS), "however often it is replayed");
        app.call(&[]);
    }
    let told = app.call(&["dead-letters", "replay", "--only", "undecodable"]);
    assert_eq!(told[0]["outcome"], "left");
    let wrong = app.try_call(&["dead-letters", "list", "--only", "bogus"]);
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("supported reasons are: undecodable, rejected"));
}
