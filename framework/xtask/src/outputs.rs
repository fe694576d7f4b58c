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

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes an output of carriers, all others empty, and compares it with three lines of two keys.
    fn check(lines: &[&str]) -> Result<usize, String> {
        let directory = tempfile::tempdir().unwrap();
        let (found, expected) = (directory.path().join("found"), directory.path().join("expected"));
        for (directory, lines) in [(&found, lines), (&expected, &["AA 1", "AA 2", "UA 1"])] {
            fs::create_dir(directory).unwrap();
            OUTPUTS.iter().for_each(|(output, _)| fs::write(directory.join(format!("{output}.jsonl")), "").unwrap());
            let lines = lines.iter().map(|line| line.split_once(' ').unwrap());
            let lines = lines.map(|(carrier, day)| format!("{{\"carrier\":\"{carrier}\",\"day\":{day}}}\n"));
            fs::write(directory.join("carriers.jsonl"), lines.collect::<String>()).unwrap();
        }
        compare(&found, &expected).map(|facts| facts.len()).map_err(|error| error.to_string())
    }

    #[test]
    fn lines_of_different_keys_may_change_places_and_nothing_else_may() {
        assert_eq!(check(&["AA 1", "AA 2", "UA 1"]), Ok(OUTPUTS.len()));
        assert_eq!(check(&["UA 1", "AA 1", "AA 2"]), Ok(OUTPUTS.len()));
        for (lines, place) in [
            (&["AA 2", "AA 1", "UA 1"][..], "key \"AA\", line 0"),
            (&["AA 1", "AA 2", "AA 2", "UA 1"], "key \"AA\", line 2"),
            (&["AA 1", "UA 1"], "key \"AA\", line 1"),
            (&["AA 1", "AA 2", "UA 1", "DL 1"], "key \"DL\", line 0"),
        ] {
            let error = check(lines).unwrap_err();
            assert!(error.starts_with(&format!("the output `carriers` differs: {place}")), "{error}");
        }
    }
}
