//! The rows whose instructions are counted: apps without threads, files and clocks.
//!
//! The shards run as tests run them: one thread, a journal in memory, and an epoch for each run of
//! records. So the same records always take the same way; what reads and writes files is not in it.

use statefn::{App, testing::TestApp};

use super::{Failure, keyed_sum, sends, transfers};

/// How many shards there are.
const SHARDS: u32 = 64;
/// How many records are in an epoch of all shards together.
const EPOCH_RECORDS: u64 = 4_096;

/// An app and the records that it gets.
pub(crate) struct Counted {
    /// The name of the row.
    pub(crate) name: &'static str,
    /// The only ingress.
    pub(crate) ingress: &'static str,
    pub(crate) app: App,
    /// Record number so-and-so, encoded.
    pub(crate) record: Box<dyn Fn(u64) -> Vec<u8>>,
}

/// All of them.
pub(crate) fn rows() -> Vec<Counted> {
    let mut rows = vec![keyed_sum::counted()];
    rows.extend(sends::counted(SHARDS));
    rows.push(transfers::counted());
    rows
}

/// Gives one of them so many records, and checks that all of them were taken.
pub(crate) fn run(name: &str, events: u64) -> Result<(), Failure> {
    let Some(row) = rows().into_iter().find(|row| row.name == name) else {
        return Err(format!("no instructions are counted of `{name}`").into());
    };
    let mut app = TestApp::with_shards(row.app, SHARDS);
    for number in 0..events {
        app.ingest_bytes(row.ingress, &(row.record)(number));
        if (number + 1).is_multiple_of(EPOCH_RECORDS) {
            app.run();
        }
    }
    app.run();
    let (parked, letters) = (app.parked().len(), app.dead_letters().len());
    match super::audit::Audit::taken().calls >= events && parked + letters == 0 {
        true => Ok(()),
        false => Err(format!("`{name}` did not take all its records: {parked} parked, {letters} dead letters").into()),
    }
}
