//! A handler that breaks on some records stops the keys of those records and nothing else.

#![allow(clippy::unwrap_used, reason = "a test fails loudly where it stands")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use serde_json::{Value, json};
use tempfile::TempDir;

const KEYS: u64 = 200;
const ROUNDS: u64 = 20;

/// In which round a key breaks, and how.
fn breaks(key: u64, round: u64) -> Option<&'static str> {
    match (key % 20, round) {
        (3, 7) => Some("panic"),
        (13, 11) => Some("fault"),
        _ => None,
    }
}

fn is_broken(key: u64) -> bool {
    (0..ROUNDS).any(|round| breaks(key, round).is_some())
}

/// Each round adds 1 to each key.
fn records(with_breaks: bool) -> String {
    let rounds = (0..ROUNDS).flat_map(|round| (0..KEYS).map(move |key| (round, key)));
    let records = rounds.filter_map(|(round, key)| {
        let breaks = breaks(key, round);
        let is_left_out = !with_breaks && breaks.is_some();
        (!is_left_out).then(|| json!({"key": format!("k{key}"), "amount": 1, "breaks": breaks}).to_string() + "\n")
    });
    records.collect()
}

struct Run {
    directory: TempDir,
}

impl Run {
    fn of(records: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("adds.jsonl"), records).unwrap();
        Self { directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Runs the app, or a subcommand of it; returns standard output and standard error.
    fn call(&self, arguments: &[&str]) -> (String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_faulty"));
        command.current_dir(self.path()).env_remove("RUST_LOG").args(["--data", "data", "--shards", "8"]);
        let output = command.arg("--set=ingress.adds.path=adds.jsonl").args(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        (text(&output.stdout), text(&output.stderr))
    }

    fn lines(&self, subcommand: &str) -> Vec<Value> {
        self.call(&[subcommand]).0.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// By key, the sums in their order.
    fn sums(&self) -> BTreeMap<String, Vec<u64>> {
        let mut sums: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for line in fs::read_to_string(self.path().join("data/sums.jsonl")).unwrap().lines() {
            let sum: Value = serde_json::from_str(line).unwrap();
            sums.entry(sum["key"].as_str().unwrap().to_owned()).or_default().push(sum["sum"].as_u64().unwrap());
        }
        sums
    }

    /// The states by function and key.
    fn states(&self) -> BTreeMap<(String, String), Value> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let states = self.lines("state").into_iter();
        states.map(|state| ((text(&state["function"]), text(&state["key"])), state["state"].clone())).collect()
    }
}

#[test]
fn a_broken_record_stops_its_key_and_no_other() {
    let (broken, whole) = (Run::of(&records(true)), Run::of(&records(false)));
    let (_, errors) = broken.call(&[]);
    whole.call(&[]);
    assert!(errors.contains("some keys are parked after a fault; `parked` lists them keys=20"), "{errors}");

    let broken_keys: BTreeSet<String> = (0..KEYS).filter(|key| is_broken(*key)).map(|key| format!("k{key}")).collect();
    let is_other = |key: &str| !broken_keys.contains(key.trim_start_matches("total of "));
    let (mut found, mut expected) = (broken.sums(), whole.sums());
    // Up to its break a key was like any other; the call that broke it left nothing behind.
    for key in 0..KEYS {
        let Some(round) = (0..ROUNDS).find(|round| breaks(key, *round).is_some()) else { continue };
        assert_eq!(found.get(&format!("k{key}")), Some(&(1..=round).collect()), "k{key}");
    }
    found.retain(|key, _| is_other(key));
    expected.retain(|key, _| is_other(key));
    assert_eq!(found, expected);

    let (mut found, mut expected) = (broken.states(), whole.states());
    for states in [&mut found, &mut expected] {
        states.retain(|(_, key), _| is_other(key));
    }
    assert_eq!(found.len() as u64, 2 * (KEYS - 20));
    assert_eq!(found, expected);
}

#[test]
fn parked_keys_are_listed_with_their_reason_and_survive_a_restart() {
    let run = Run::of(&records(true));
    run.call(&[]);
    let parked = run.lines("parked");
    let mut found = parked.clone();
    found.sort_by_key(Value::to_string);
    let mut expected = Vec::new();
    for (key, round) in (0..KEYS).flat_map(|key| (0..ROUNDS).map(move |round| (key, round))) {
        let Some(breaks) = breaks(key, round) else { continue };
        let reason = match breaks {
            "panic" => "panicked: the record says panic",
            _ => "the record says fault",
        };
        let (key, waiting) = (format!("k{key}"), ROUNDS - round);
        // As the handler's message is encoded.
        let text = format!("{{\"key\":\"{key}\",\"amount\":1,\"breaks\":\"{breaks}\"}}");
        expected.push(json!({
            "function": "faulty/counter", "key": key, "reason": reason, "waiting": waiting, "message": "add", "text": text,
        }));
    }
    expected.sort_by_key(Value::to_string);
    assert_eq!(found, expected);
    assert!(run.call(&["check"]).0.ends_with("8 shards are whole\n"));

    let (sums, states) = (run.sums(), run.states());
    run.call(&[]);
    assert_eq!(run.lines("parked"), parked);
    assert_eq!((run.sums(), run.states()), (sums, states));
}
