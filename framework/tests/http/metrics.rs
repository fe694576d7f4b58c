//! The metrics: what a scrape says, and that the docs say the same.

use std::collections::{BTreeMap, BTreeSet};

use statefn::settings::HttpSettings;

use crate::app::Service;

/// A metric of a scrape: its type, what it means, and its samples by name and labels.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    meaning: String,
    unit: String,
    samples: BTreeMap<String, f64>,
}

/// Reads the text of a scrape, and fails where it is none.
fn parse(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let body = text.strip_suffix("# EOF\n").expect("the scrape has an end");
    let mut current = String::new();
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            let (what, name) = (words.next().expect("a word"), words.next().expect("a name"));
            let value = words.next().unwrap_or_default().to_owned();
            let family = families.entry(name.to_owned()).or_default();
            match what {
                "HELP" => family.meaning = value,
                "TYPE" => family.kind = value,
                "UNIT" => family.unit = value,
                _ => panic!("`{line}` is no line of a scrape"),
            }
            name.clone_into(&mut current);
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("`{line}` is no sample"));
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("`{line}` has no number"));
        let name = sample.split('{').next().expect("a name");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        assert!(sample == name || sample.ends_with('}'), "`{line}` has labels without an end");
        let family = families.get_mut(&current).expect("a sample stands behind what it is");
        let suffix = name.strip_prefix(&current).unwrap_or_else(|| panic!("`{line}` stands below `{current}`"));
        let suffixes: &[&str] = match family.kind.as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "histogram" => &["_bucket", "_sum", "_count"],
            kind => panic!("`{current}` is of the kind `{kind}`"),
        };
        assert!(suffixes.contains(&suffix), "{line}");
        assert!(family.samples.insert(sample.to_owned(), value).is_none(), "`{sample}` stands there twice");
    }
    families
}

/// The lines of the docs: name, type, unit, meaning.
fn documented() -> BTreeSet<[String; 4]> {
    let text = include_str!("../../docs/METRICS.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let row = |row: &str| {
        let cells: Vec<&str> = row.trim_end_matches(" |").split(" | ").collect();
        let [name, kind, unit, meaning] = cells[..] else { panic!("`{row}` is no row of four") };
        [name.trim_end_matches('`'), kind, unit, meaning].map(str::to_owned)
    };
    rows.map(row).collect()
}

#[test]
fn a_scrape_says_what_the_docs_say_and_what_happened() {
    let data = tempfile::tempdir().expect("a directory");
    let service = Service::start_with(data.path(), HttpSettings::default());
    let (mut client, mut admin) = (service.client(), service.admin());
    for key in ["alice", "bob"] {
        client.post(&format!("/functions/test/counter/{key}/add"), r#"{"amount":7}"#);
    }
    client.post("/functions/test/counter/bad/break", "{}");
    client.post("/functions/test/counter/late/later", r#"{"milliseconds":3600000}"#);
    client.post("/functions/test/counter/poor/take?mode=send", r#"{"amount":1}"#);
    admin.send(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let scrape = admin.response().expect("an answer");
    assert_eq!(scrape.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    let families = parse(scrape.text());
    let found = families.iter().map(|(name, family)| {
        let unit = if family.unit.is_empty() { "-" } else { &family.unit };
        [name, &family.kind, unit, family.meaning.trim_end_matches('.')].map(|text| text.to_string())
    });
    let (found, documented) = (found.collect::<BTreeSet<_>>(), documented());
    let line = |row: &[String; 4]| format!("| `{}` | {} | {} | {} |", row[0], row[1], row[2], row[3]);
    let missing: Vec<String> = found.difference(&documented).map(line).collect();
    let too_many: Vec<String> = documented.difference(&found).map(line).collect();
    assert!(missing.is_empty(), "`docs/METRICS.md` lacks:\n{}", missing.join("\n"));
    assert!(too_many.is_empty(), "`docs/METRICS.md` has what no scrape has:\n{}", too_many.join("\n"));

    let samples: BTreeMap<&str, f64> =
        families.values().flat_map(|family| &family.samples).map(|(sample, value)| (sample.as_str(), *value)).collect();
    let value = |sample: &str| *samples.get(sample).unwrap_or_else(|| panic!("no {sample}: {samples:?}"));
    assert_eq!(value("statefn_state_keys{function=\"test/counter\"}"), 3.0);
    assert!(value("statefn_state_bytes{function=\"test/counter\"}") > 0.0);
    assert_eq!((value("statefn_parked_keys"), value("statefn_faults_total")), (1.0, 1.0));
    assert_eq!((value("statefn_pending_timers"), value("statefn_rejections_total")), (1.0, 1.0));
    assert_eq!((value("statefn_dead_letters_total"), value("statefn_ready")), (1.0, 1.0));
    assert_eq!(value("statefn_events_total"), 5.0);
    assert!(value("statefn_epochs_total") >= 4.0 && value("statefn_frame_bytes_total") > 0.0);
    assert_eq!(value("statefn_http_requests_total{status=\"500\"}"), 1.0);
    assert_eq!(value("statefn_http_request_seconds_bucket{le=\"+Inf\"}"), value("statefn_http_request_seconds_count"));
    assert!(value("statefn_commit_seconds_count") >= 1.0);
    let buckets = &families["statefn_commit_seconds"].samples;
    assert!(buckets.keys().filter(|name| name.contains("_bucket")).count() == 15);
    service.stop();
}
