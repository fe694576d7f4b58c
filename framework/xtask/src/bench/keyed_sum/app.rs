//! One run of the app.

use std::{fs, path::Path};

use statefn::Settings;

use super::{Case, Log, Messages, Options, Output};
use crate::bench::{
    Failure,
    audit::Audit,
    figures::Figures,
    files::Records,
    meter::Meter,
    run_of_app::{self, Run},
};

/// Runs the app over the input.
pub(crate) fn run<C: Case>(options: &Options, input: &Path, data: &Path) -> Result<Figures, Failure> {
    let app = C::app(settings(options, input, data)?, options.output != Output::None);
    let meter = Meter::start()?;
    let Run { totals, commit_latency } = run_of_app::to_end(app, options.threads()?)?;
    let events = options.events();
    if totals.records != events || totals.shards.calls != events {
        return Err(format!("the app ended before its input: {totals:?}").into());
    }
    let emitted = totals.shards.emitted;
    let audit = Audit { emitted, ..Audit::taken() };
    let figures = meter.stop(audit, events, "event")?;
    let output = if options.output == Output::File { fs::read(data.join("sums"))? } else { Vec::new() };
    let figures = figures
        .with("log bytes/event", totals.shards.bytes as f64 / events as f64)
        .with("output bytes/event", output.len() as f64 / events as f64)
        .with("commit p50 ms", commit_latency.p50_us as f64 / 1e3)
        .with("commit p99 ms", commit_latency.p99_us as f64 / 1e3);
    figures.with_output(options.output == Output::File, records(options, &output))
}

/// The records in what was written.
pub(super) fn records<'a>(options: &Options, output: &'a [u8]) -> Box<dyn Iterator<Item = &'a [u8]> + 'a> {
    match options.messages {
        Messages::Json => Box::new(output.split_inclusive(|byte| *byte == b'\n')),
        Messages::Protobuf => Box::new(Records::of(output)),
    }
}

fn settings(options: &Options, input: &Path, data: &Path) -> Result<Settings, Failure> {
    let mut settings = Settings::new().input("adds", input);
    settings.shards = Some(options.shards);
    settings.threads = Some(options.threads()?);
    settings.commit_interval = Some(options.commit_interval()?);
    if options.log == Log::Disk {
        settings = settings.data(data);
    }
    Ok(match options.output {
        Output::File if options.log == Log::Memory => return Err("a file needs a log: add `--log disk`".into()),
        Output::File => settings.output("sums", data.join("sums")),
        Output::Count | Output::None => settings.with("egress.sums.to=count")?,
    })
}
