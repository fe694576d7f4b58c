//! Documents as tables, for people.

use std::time::{Duration, UNIX_EPOCH};

use comfy_table::{Table, presets::NOTHING};
use serde_json::Value;

/// A column: its heading, and how its cell is made of an entry.
type Column<'a> = (&'a str, &'a dyn Fn(&Value) -> String);

fn rows(entries: &Value, columns: &[Column<'_>]) -> Vec<String> {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(columns.iter().map(|(heading, _)| *heading));
    for entry in entries.as_array().into_iter().flatten() {
        table.add_row(columns.iter().map(|(_, cell)| cell(entry)));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect()
}

/// A value as a person reads it.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

fn field(name: &'static str) -> impl Fn(&Value) -> String {
    move |entry| text(&entry[name])
}

/// A time in milliseconds since 1970 as a date.
fn time(value: &Value) -> String {
    let Some(ms) = value.as_i64() else { return "-".into() };
    match u64::try_from(ms).ok().and_then(|ms| UNIX_EPOCH.checked_add(Duration::from_millis(ms))) {
        Some(at) if ms < 253_402_300_800_000 => humantime::format_rfc3339_millis(at).to_string(),
        _ => format!("{ms} ms"),
    }
}

fn watermark(entry: &Value) -> String {
    if entry["is_ended"] == true { "ended".into() } else { time(&entry["watermark_ms"]) }
}

pub(crate) fn status(status: &Value) -> Vec<String> {
    let mut lines = vec![format!(
        "{} is {} (statefn {}, up for {} s)",
        text(&status["app"]),
        text(&status["condition"]),
        text(&status["version"]),
        text(&status["uptime_seconds"])
    )];
    let rates = &status["rates_per_second"];
    if rates.is_object() {
        let (events, messages, epochs) = (text(&rates["events"]), text(&rates["messages"]), text(&rates["epochs"]));
        lines.push(format!("each second: {events} events, {messages} messages, {epochs} epochs"));
    }
    lines.push(format!("parked keys: {}", text(&status["parked_keys"])));
    if status["ingresses"].as_array().is_some_and(|ingresses| !ingresses.is_empty()) {
        lines.push(String::new());
        lines.extend(ingresses(&status["ingresses"]));
    }
    if status["stages"].is_array() {
        lines.push(String::new());
        let held_by = |stage: &Value| text(&stage["held_by"]["text"]);
        lines.extend(rows(
            &status["stages"],
            &[
                ("FUNCTIONS", &field("functions")),
                ("WATERMARK", &watermark),
                ("SHARD", &field("shard")),
                ("HELD BY", &held_by),
            ],
        ));
    }
    let is_fleet = status["workers"].as_array().is_some_and(|workers| !workers.is_empty());
    if is_fleet {
        lines.push(String::new());
        lines.extend(workers(&status["workers"]));
    }
    lines.push(String::new());
    let place = |shard: &Value| text(if is_fleet { &shard["worker"] } else { &shard["host"] });
    lines.extend(rows(
        &status["shards"],
        &[
            ("SHARD", &field("shard")),
            (if is_fleet { "WORKER" } else { "HOST" }, &place),
            ("TERM", &field("term")),
            ("EPOCH", &field("epoch")),
            ("JOURNAL", &field("journal_offset")),
            ("KEYS", &field("keys")),
            ("PENDING", &field("pending")),
            ("PARKED", &field("parked_keys")),
            ("UNACKNOWLEDGED", &field("unacknowledged_bytes")),
        ],
    ));
    lines
}

/// A row for each worker of a fleet.
fn workers(workers: &Value) -> Vec<String> {
    let count = |worker: &Value| worker["shards"].as_array().map_or(0, Vec::len).to_string();
    let columns: [Column<'_>; 4] =
        [("WORKER", &field("worker")), ("URL", &field("url")), ("SHARDS", &count), ("ASKED", &field("is_here"))];
    rows(workers, &columns)
}

/// A row for each partition.
fn ingresses(ingresses: &Value) -> Vec<String> {
    let mut partitions = Vec::new();
    for ingress in ingresses.as_array().into_iter().flatten() {
        for partition in ingress["partitions"].as_array().into_iter().flatten() {
            let mut row = partition.clone();
            row["ingress"] = ingress["ingress"].clone();
            row["is_held"] = ingress["is_held"].clone();
            partitions.push(row);
        }
    }
    let lag = |row: &Value| text(if row["lag_offsets"].is_null() { &row["lag_bytes"] } else { &row["lag_offsets"] });
    let is_log = partitions.iter().any(|partition| !partition["lag_offsets"].is_null());
    rows(
        &Value::Array(partitions),
        &[
            ("INGRESS", &field("ingress")),
            ("PARTITION", &field("partition")),
            ("RECORDS", &field("records")),
            (if is_log { "LAG OFFSETS" } else { "LAG BYTES" }, &lag),
            ("WATERMARK", &watermark),
            ("HELD", &field("is_held")),
        ],
    )
}

pub(crate) fn functions(functions: &Value) -> Vec<String> {
    let messages = |function: &Value| {
        let messages = function["messages"].as_array().into_iter().flatten();
        messages.map(|message| text(&message["message"])).collect::<Vec<_>>().join(", ")
    };
    rows(
        &functions["functions"],
        &[
            ("FUNCTION", &field("function")),
            ("KEY", &field("key")),
            ("KEYS", &field("keys")),
            ("MESSAGES", &messages),
            ("TIMERS", &field("timers")),
            ("SENDS", &field("sends")),
            ("EMITS", &field("emits")),
            ("PAUSED", &field("is_paused")),
        ],
    )
}

pub(crate) fn keys(keys: &Value) -> Vec<String> {
    let mut lines: Vec<String> = keys["keys"].as_array().into_iter().flatten().map(|key| text(&key["key"])).collect();
    if keys["next"].is_string() {
        lines.push("there are more: give a higher `--limit`, or a `--prefix`".into());
    }
    lines
}

pub(crate) fn state(state: &Value) -> Vec<String> {
    format!("{:#}", state["state"]).lines().map(str::to_owned).collect()
}

fn payload(entry: &Value) -> String {
    let payload = &entry["payload"];
    if !payload["json"].is_null() {
        return payload["json"].to_string();
    }
    let start = text(if payload["text"].is_null() { &payload["base64"] } else { &payload["text"] });
    format!("{start} ({} bytes)", payload["bytes"])
}

pub(crate) fn timers(timers: &Value) -> Vec<String> {
    let due = |timer: &Value| time(&timer["due_ms"]);
    rows(
        &timers["timers"],
        &[
            ("DUE", &due),
            ("KIND", &field("kind")),
            ("NAME", &field("name")),
            ("MESSAGE", &field("message")),
            ("PAYLOAD", &payload),
        ],
    )
}

pub(crate) fn parked(parked: &Value) -> Vec<String> {
    rows(
        &parked["parked"],
        &[
            ("FUNCTION", &field("function")),
            ("KEY", &field("key")),
            ("MESSAGE", &field("message")),
            ("PAYLOAD", &payload),
            ("WAITING", &field("queue")),
            ("REASON", &field("reason")),
        ],
    )
}

pub(crate) fn pause(told: &Value) -> Vec<String> {
    let name = text(&told["name"]);
    vec![match (told["is_paused"] == true, told["is_held"] == true) {
        (true, _) => format!("{name} is paused"),
        (false, true) => format!("{name} is not paused any more, but something that it leads to is"),
        (false, false) => format!("{name} goes on"),
    }]
}
