//! Compares what two runs of the flights example have written.
//!
//! Lines of different keys may stand in any order, those of one key have one: so two outputs are
//! equal if each key has the same lines in the same order. That implies equal multisets.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::Value;

use crate::Outcome;

/// Each output and the field that is its key.
const OUTPUTS: [(&str, &str); 5] = [
    ("unseen", "tail_number"),
    ("knock_on", "tail_number"),
    ("carriers", "carrier"),
    ("airports", "airport"),
    ("dead-letters", "key"),
];

/// Returns a line for each output that is equal in both directories.
pub(crate) fn compare(found: &Path, expected: &Path) -> Outcome<Vec<String>> {
    let mut facts = Vec::new();
    for (output, key) in OUTPUTS {
        let file = format!("{output}.jsonl");
        let (found, expected) = (by_key(&found.join(&file), key)?, by_key(&expected.join(&file), key)?);
        if let Some(difference) = difference(&found, &expected) {
            return Err(format!("the output `{output}` differs: {difference}").into());
        }
        let lines: usize = found.values().map(Vec::len).sum();
        let keys = found.len();
        facts.push(format!("output {output}: {lines} lines equal, in the order of each of {keys} keys"));
    }
    Ok(facts)
}

type ByKey = BTreeMap<String, Vec<String>>;

fn by_key(file: &Path, key: &str) -> Outcome<ByKey> {
    let text = fs::read_to_string(file).map_err(|error| format!("cannot read `{}`: {error}", file.display()))?;
    let mut lines = ByKey::new();
    for line in text.lines() {
        let value: Value = serde_json::from_str(line)
            .map_err(|error| format!("`{}` holds a line that is no JSON: {error}: {line}", file.display()))?;
        lines.entry(value[key].to_string()).or_default().push(line.to_owned());
    }
    Ok(lines)
}

fn difference(found: &ByKey, expected: &ByKey) -> Option<String> {
    let mut keys: Vec<&String> = found.keys().chain(expected.keys()).collect();
    keys.sort();
    let none = Vec::new();
    keys.into_iter().find_map(|key| {
        let (found, expected) = (found.get(key).unwrap_or(&none), expected.get(key).unwrap_or(&none));
        let same = found.iter().zip(expected).take_while(|(found, expected)| found == expected).count();
        (found != expected).then(|| {
            let (has, wants) = (found.get(same), expected.get(same));
            format!("key {key}, line {same}: found {has:?}, expected {wants:?}")
        })
    })
}
