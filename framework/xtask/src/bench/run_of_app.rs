//! One run of an app to the end of its input.

use statefn::{
    App,
    run::{End, Latency, Totals},
};

use super::{Failure, pin};

/// What a run did.
pub(crate) struct Run {
    pub(crate) totals: Totals,
    pub(crate) commit_latency: Latency,
}

/// Runs an app whose shards are run by so many threads, and fails unless all went well.
pub(crate) fn to_end(app: App, threads: usize) -> Result<Run, Failure> {
    let running = app.start()?;
    pin::threads_of_app(threads);
    ended(running)
}

/// Waits for the end of a run, and fails unless all went well.
pub(crate) fn ended(running: statefn::run::Running) -> Result<Run, Failure> {
    let summary = running.wait()?;
    let totals = summary.totals;
    let broken = totals.unreadable + totals.shards.rejections + totals.shards.faults + totals.shards.late;
    if summary.end != End::Finished || broken > 0 || totals.parked_keys > 0 {
        return Err(format!("the run of the app is not whole: {:?}, {totals:?}", summary.end).into());
    }
    Ok(Run { totals, commit_latency: summary.commit_latency })
}
