//! What is shown: a row for each worker, as its admin interface tells it, and how the load goes.
//!
//! On a terminal the table is drawn again in its place, else a new one is printed now and then.

use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use super::{
    load::{Load, Pace},
    workers::{RESTART_PAUSE, Worker, Workers},
};
use crate::{Outcome, http_client::Client, say};

/// How often the table is drawn on a terminal, and elsewhere.
const INTERVALS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];
/// How long a worker may take to tell its status.
const STATUS_TIME_MAX: Duration = Duration::from_millis(500);
const HEADINGS: [&str; 9] = ["worker", "process", "http", "admin", "is", "shards", "epochs", "events/s", "lag"];
/// The columns that hold numbers.
const NUMBERS: [usize; 4] = [1, 6, 7, 8];

/// Where facts and tables go.
pub(super) struct Screen {
    /// What is drawn again in its place; none where standard output is no terminal.
    bar: Option<ProgressBar>,
    drawn_at: Option<Instant>,
}

impl Screen {
    pub(super) fn new() -> Outcome<Self> {
        if !io::stdout().is_terminal() {
            return Ok(Self { bar: None, drawn_at: None });
        }
        let bar = ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{msg}")?);
        bar.set_draw_target(ProgressDrawTarget::stdout());
        Ok(Self { bar: Some(bar), drawn_at: None })
    }

    /// Tells a fact, above the table.
    pub(super) fn say(&self, fact: &str) -> Outcome {
        match &self.bar {
            Some(bar) => {
                bar.println(fact);
                Ok(())
            }
            None => say(fact),
        }
    }

    /// Draws the table if it is time.
    pub(super) fn draw(&mut self, workers: &Workers, load: &Load) -> Outcome {
        let interval = INTERVALS[usize::from(self.bar.is_none())];
        if self.drawn_at.is_some_and(|at| at.elapsed() < interval) {
            return Ok(());
        }
        self.drawn_at = Some(Instant::now());
        let text = format!("{}\n{}", table(workers), summary(load));
        match &self.bar {
            Some(bar) => {
                bar.set_message(text);
                bar.tick();
                Ok(())
            }
            None => say(&text),
        }
    }

    /// Leaves the last table where it is.
    pub(super) fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.abandon();
        }
    }
}

/// What a worker tells of itself.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Status {
    /// The numbers of its shards.
    pub(super) shards: Vec<u64>,
    epochs: u64,
    events_each_second: Option<f64>,
    /// What its event time has come to, in milliseconds.
    watermark_ms: Option<u64>,
}

impl Status {
    /// Asks a worker; none if it does not answer.
    pub(super) fn of(worker: &Worker) -> Option<Self> {
        worker.id()?;
        let mut client = Client::connect_with(worker.admin(), STATUS_TIME_MAX).ok()?;
        let answer = client.get("/admin/v1/status").ok().filter(|answer| answer.status == 200)?;
        Some(Self::read(&serde_json::from_str(&answer.body).ok()?))
    }

    fn read(status: &Value) -> Self {
        let shards = status["shards"].as_array().map(Vec::as_slice).unwrap_or_default();
        let stages = status["stages"].as_array().map(Vec::as_slice).unwrap_or_default();
        Self {
            shards: shards.iter().filter_map(|shard| shard["shard"].as_u64()).collect(),
            epochs: shards.iter().filter_map(|shard| shard["epoch"].as_u64()).sum(),
            events_each_second: status["rates_per_second"]["events"].as_f64(),
            watermark_ms: stages.iter().filter_map(|stage| stage["watermark_ms"].as_u64()).min(),
        }
    }
}

fn table(workers: &Workers) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(HEADINGS);
    for column in NUMBERS {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for worker in &workers.all {
        table.add_row(row(worker, workers.is_restarted()));
    }
    table
}

fn row(worker: &Worker, is_restarted: bool) -> [String; 9] {
    let nothing = || "-".to_owned();
    let status = Status::of(worker);
    let is = match (worker.dead_for(), &status) {
        (Some(time), _) if is_restarted => {
            format!("dead, back in {:.0} s", RESTART_PAUSE.saturating_sub(time).as_secs_f64())
        }
        (Some(_), _) => "dead".to_owned(),
        (None, None) => "silent".to_owned(),
        (None, Some(_)) => "alive".to_owned(),
    };
    let status = status.unwrap_or_default();
    [
        worker.name.clone(),
        worker.id().map_or_else(nothing, |id| id.to_string()),
        worker.http().to_string(),
        worker.admin().to_string(),
        is,
        ranges(&status.shards),
        status.epochs.to_string(),
        status.events_each_second.map_or_else(nothing, |events| format!("{events:.0}")),
        status.watermark_ms.map_or_else(nothing, |watermark_ms| format!("{:.1} s", lag(watermark_ms).as_secs_f64())),
    ]
}

/// How far event time is behind the clock.
fn lag(watermark_ms: u64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_millis(watermark_ms))
}

/// Numbers in rising order, those that follow each other as one: `0 2-4`.
fn ranges(numbers: &[u64]) -> String {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    let mut numbers = numbers.to_vec();
    numbers.sort_unstable();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let range = |(first, last): &(u64, u64)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    ranges.iter().map(range).collect::<Vec<_>>().join(" ")
}

fn summary(load: &Load) -> String {
    let mut books = load.books();
    let Pace { each_second, p50_ms, p99_ms } = books.pace(load.begun());
    let (untaken, broken_off, failures) = (books.untaken, books.broken_off, books.failures.len());
    let (made, overdrawn) = (books.made, books.overdrawn);
    format!(
        "{made} payments, {overdrawn} refused; {each_second:.1} a second, half within {p50_ms} ms, 99 % within {p99_ms} ms; repeated: {untaken} not taken, {broken_off} broken off; failures: {failures}"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_in_a_row_are_one_range() {
        for (numbers, text) in [(&[][..], ""), (&[3], "3"), (&[5, 0, 2, 3, 4], "0 2-5"), (&[0, 1, 9], "0-1 9")] {
            assert_eq!(ranges(numbers), text, "{numbers:?}");
        }
    }

    #[test]
    fn what_a_worker_does_not_tell_is_not_shown() {
        assert_eq!(Status::read(&json!({})), Status::default());
        let told = json!({
            "shards": [{"shard": 1, "epoch": 5}, {"shard": 4, "epoch": 2}],
            "rates_per_second": {"events": 2.5},
            "stages": [{"watermark_ms": 9}, {"watermark_ms": null}, {"watermark_ms": 7}],
        });
        let read = Status { shards: vec![1, 4], epochs: 7, events_each_second: Some(2.5), watermark_ms: Some(7) };
        assert_eq!(Status::read(&told), read);
    }
}
