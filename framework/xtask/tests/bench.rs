//! Every row of `cargo xtask bench`, so small that it takes a second: a benchmark that nobody runs rots.
//!
//! Figures are not looked at, but that there are some, which a run gives only behind its audit.

use std::process::{Command, Output};

use serde_json::Value;
use services::{kafka::Broker, s3::Server};

/// Runs a row as a developer does, in this build, and returns its JSON.
fn bench(arguments: &str) -> Value {
    let output = run(&format!("bench {arguments} --unoptimized --json --runs 1"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "`bench {arguments}` failed: {}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stdout)))
}

fn run(arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(arguments.split_whitespace()).output().expect("can be started")
}

/// Runs a row and checks that each of so many points has the figure that counts, of both sides.
fn check(points: usize, arguments: &str) {
    let report = bench(arguments);
    let found = report["points"].as_array().expect("a list of points");
    assert_eq!(found.len(), points, "{report}");
    for point in found {
        let merit = point["merit"].as_str().expect("a name");
        for side in ["app", "by_hand"] {
            let figure = point[side][merit].as_f64().unwrap_or_else(|| panic!("no {merit} of {side} in {point}"));
            assert!(figure.is_finite() && figure > 0.0, "{merit} of {side} is {figure}");
        }
        assert!(point["ratio"].as_f64().is_some_and(|ratio| ratio > 0.0), "{point}");
    }
}

#[test]
fn keyed_sum_in_memory() {
    check(2, "keyed-sum --events 20000 --keys 500 --commit-interval 50ms");
    check(1, "keyed-sum --events 20000 --keys 15000 --key-kind u64 --threads 1 --commit-interval 50ms --messages json");
}

#[test]
fn keyed_sum_from_file_to_file() {
    check(2, "keyed-sum --events 20000 --keys 500 --threads 1 --log disk --output file --commit-interval 50ms,10ms");
}

#[test]
fn latency() {
    check(2, "latency --events 4000 --rate 20000 --keys 500");
}

#[test]
fn http() {
    check(2, "http --requests 400 --clients 1,4");
}

#[test]
fn sends() {
    check(4, "sends --events 5000 --keys 1000 --sends 1,4");
}

#[test]
fn timers() {
    check(1, "timers --timers 20000 --span 10s");
}

#[test]
fn transfers() {
    check(2, "transfers --events 5000 --accounts 100");
}

#[test]
fn recovery() {
    check(1, "recovery --bytes 2000000 --backlog 2000");
}

#[test]
fn start() {
    check(1, "start --keys 20000");
}

/// Runs a row with a fleet, where its servers are installed, and checks that it has these figures.
fn check_fleet(arguments: &str, figures: &[&str]) {
    // Says what is missing, or fails where nothing may be skipped.
    if Broker::shared().is_none() || Server::shared().is_none() {
        return;
    }
    let output = run(&format!("bench {arguments} --unoptimized --json"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "`bench {arguments}` failed: {}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for name in figures {
        let figure = report["conclusions"][name].as_f64().unwrap_or_else(|| panic!("no `{name}` in {report}"));
        assert!(figure.is_finite() && figure > 0.0, "{name} is {figure}");
    }
}

#[test]
fn kafka() {
    let figures = ["ratio", "CPU s per million events, app", "exactly once, p50 ms", "at least once, p99 ms"];
    check_fleet("kafka --records 20000 --keys 500 --shards 8 --partitions 2 --time 1s", &figures);
}

#[test]
fn moves() {
    let figures = ["shards that moved", "pause of one that moved, p99 ms", "longest gap while nothing moved, max ms"];
    check_fleet("move --moves 1 --shards 4 --partitions 2 --rate 200", &figures);
}

#[test]
fn take_over() {
    let figures = ["shards of the worker that was killed", "kill until first output, worst s"];
    check_fleet("take-over --bytes 200000 --shards 4 --partitions 2 --rate 200 --session-timeout 3s", &figures);
}

#[test]
fn idle_fleet() {
    check_fleet("idle-fleet --shards 8 --partitions 2 --time 1s", &["start until all shards are here, s", "RSS MiB"]);
}

#[test]
fn a_row_that_cannot_be_right_is_refused() {
    let output = run("bench keyed-sum --events 1000 --keys 10 --output file --unoptimized");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("add `--log disk`"), "{error}");
}

#[test]
fn rows_whose_instructions_are_counted_take_their_records() {
    for row in ["keyed-sum", "sends-within", "sends-across", "transfers"] {
        let output = run(&format!("instructions --row {row} --events 5000"));
        assert!(output.status.success(), "{row}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(!run("instructions --row nothing --events 1").status.success());
}
