//! One run of the app.

use std::{fs, path::Path};

use statefn::{Settings, run::End};

use super::{
    Case, Failure, Options, Output,
    figures::{Figures, Meter},
    options::Log,
};

/// Runs the app over the input.
pub(crate) fn run<C: Case>(options: &Options, input: &Path, data: &Path) -> Result<Figures, Failure> {
    let settings = settings(options, input, data)?;
    let meter = Meter::start()?;
    let summary = C::app(settings, options.output != Output::None).run()?;
    let mut figures = meter.stop()?;
    let totals = summary.totals;
    if summary.end != End::Finished || totals.records != totals.shards.calls || totals.unreadable > 0 {
        return Err(format!("the app ended before its input: {totals:?}").into());
    }
    let sums = data.join("sums");
    let output_bytes = if sums.exists() { fs::metadata(sums)?.len() } else { 0 };
    figures.events = totals.shards.calls;
    figures.emitted = totals.shards.emitted;
    figures.bytes = totals.shards.bytes + output_bytes;
    figures.commit_p50_us = summary.commit_latency.p50_us;
    figures.commit_p99_us = summary.commit_latency.p99_us;
    Ok(figures)
}

fn settings(options: &Options, input: &Path, data: &Path) -> Result<Settings, Failure> {
    let mut settings = Settings::new().input("adds", input);
    settings.shards = Some(options.shards);
    settings.threads = Some(options.threads);
    settings.commit_interval = Some(options.commit_interval);
    if options.log == Log::Disk {
        settings = settings.data(data);
    }
    Ok(match options.output {
        Output::File if options.log == Log::Memory => return Err("a file needs a log: add `--log disk`".into()),
        Output::File => settings.output("sums", data.join("sums")),
        Output::Count | Output::None => settings.with("egress.sums.to=count")?,
    })
}
