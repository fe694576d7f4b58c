//! The outputs of a year of flights equal plain counting, however the app is cut into shards and
//! threads.

#![allow(clippy::unwrap_used, reason = "a test fails loudly where it stands")]

mod plain;

use flights::app;
use statefn::Settings;

use crate::plain::{Outputs, assert_same, flights_file};

fn run(shards: u32, threads: usize) -> Outputs {
    let data = tempfile::tempdir().unwrap();
    let settings = Settings::new().data(data.path()).input("flights", flights_file());
    let settings = Settings { shards: Some(shards), threads: Some(threads), ..settings };
    let summary = app().settings(settings).at_end(|_| {}).run().unwrap();
    assert_eq!(summary.totals.records, 336_776);
    Outputs::read(data.path())
}

#[test]
fn the_outputs_equal_plain_counting_whatever_shards_and_threads() {
    let expected = Outputs::counted(&flights_file());
    assert_eq!(expected.carriers.iter().map(|day| day.flights).sum::<u64>(), 336_776);
    for (shards, threads) in [(64, 2), (7, 1), (1, 1)] {
        let found = run(shards, threads);
        found.assert_order_of_keys();
        assert_same(found, expected.clone());
    }
}
