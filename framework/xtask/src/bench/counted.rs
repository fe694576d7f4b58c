//! The rows whose instructions are counted: apps without threads, files and clocks.
//!
//! The shards run as tests run them: one thread, a journal in memory, and an epoch for each run of
//! records. So the same records always take the same way; what reads and writes files is not in it.

use statefn::{App, testing::TestApp};

use super::{Failure, audit::Audit, keyed_sum, sends, transfers};

/// How many shards there are.
const SHARDS: u32 = 64;
/// How many records are in an epoch of all shards together: as many as a reader reads at once.
const EPOCH_RECORDS: u64 = 16_384;
/// The function whose instructions count, callees included.
pub(crate) const COUNTED: &str = "xtask::bench::counted::run_epoch*";

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
            run_epoch(&mut app);
        }
    }
    run_epoch(&mut app);
    let (calls, letters) = (Audit::taken().calls, app.dead_letters().len());
    if calls < events || letters > 0 {
        return Err(format!("`{name}` made {calls} calls and {letters} dead letters of {events} records").into());
    }
    Ok(())
}

/// A function of its own, so that its instructions can be told from those that make records.
#[inline(never)]
fn run_epoch(app: &mut TestApp) {
    app.run();
}
