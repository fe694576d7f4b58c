//! The metrics, as Prometheus reads them: put together when somebody asks, from what is counted anyway.
//!
//! `docs/METRICS.md` has a line for each; a test compares the two with a real scrape.
//!
//! Invariant: nothing is done for metrics where an event is handled.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};
use statefn_core::{
    ports::inspect::{Distribution, Inspect, Numbers, Pausable, ShardStatus},
    program::{FunctionId, Program},
    time::EventTime,
};

use super::view::{self, Lag};
use crate::meter::Meter;

/// The content type of what [`written`] writes.
pub(super) const CONTENT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that metrics are made of.
pub(super) struct Sources<'a> {
    pub(super) program: &'a Program,
    pub(super) inspect: &'a dyn Inspect,
    pub(super) shards: &'a [ShardStatus],
    pub(super) meter: &'a Meter,
    pub(super) version: &'a str,
    pub(super) uptime: Duration,
    pub(super) is_ready: bool,
}

/// A metric: its name, what it means, its unit, and its values.
#[derive(Debug)]
struct Metric {
    name: &'static str,
    meaning: &'static str,
    unit: Option<Unit>,
    values: Values,
}

type Labels = Vec<(&'static str, String)>;

#[derive(Debug)]
enum Values {
    Counter(Vec<(Labels, u64)>),
    Gauge(Vec<(Labels, f64)>),
    Histogram(Distribution),
}

#[derive(Debug)]
struct Metrics(Vec<Metric>);

/// The text that a scrape is answered with.
pub(super) fn written(sources: &Sources<'_>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Metrics(metrics(sources))));
    let mut written = String::new();
    // Writing into a text does not fail.
    let _ = text::encode(&mut written, &registry);
    written
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.iter().try_for_each(|metric| metric.encode(&mut encoder))
    }
}

impl Metric {
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let kind = match &self.values {
            Values::Counter(_) => MetricType::Counter,
            Values::Gauge(_) => MetricType::Gauge,
            Values::Histogram(_) => MetricType::Histogram,
        };
        let name = format!("statefn_{}", self.name);
        let mut encoder = encoder.encode_descriptor(&name, self.meaning, self.unit.as_ref(), kind)?;
        match &self.values {
            // What has no labels is not one of several.
            Values::Counter(values) => match &values[..] {
                [(labels, value)] if labels.is_empty() => ConstCounter::new(*value).encode(encoder)?,
                values => {
                    for (labels, value) in values {
                        ConstCounter::new(*value).encode(encoder.encode_family(labels)?)?;
                    }
                }
            },
            Values::Gauge(values) => match &values[..] {
                [(labels, value)] if labels.is_empty() => ConstGauge::new(*value).encode(encoder)?,
                values => {
                    for (labels, value) in values {
                        ConstGauge::new(*value).encode(encoder.encode_family(labels)?)?;
                    }
                }
            },
            Values::Histogram(Distribution { upto, count, sum_seconds }) => {
                let mut before = 0;
                let each = |(seconds, upto): &(f64, u64)| (*seconds, upto - std::mem::replace(&mut before, *upto));
                let mut buckets: Vec<(f64, u64)> = upto.iter().map(each).collect();
                buckets.push((f64::MAX, count.saturating_sub(before)));
                encoder.encode_histogram::<NoLabelSet>(*sum_seconds, *count, &buckets, None)?;
            }
        }
        Ok(())
    }
}

fn counter(name: &'static str, meaning: &'static str, value: u64) -> Metric {
    Metric { name, meaning, unit: None, values: Values::Counter(vec![(Vec::new(), value)]) }
}

fn gauge(name: &'static str, meaning: &'static str, unit: Option<Unit>, value: usize) -> Metric {
    gauges(name, meaning, unit, vec![(Vec::new(), value as f64)])
}

fn gauges(name: &'static str, meaning: &'static str, unit: Option<Unit>, values: Vec<(Labels, f64)>) -> Metric {
    Metric { name, meaning, unit, values: Values::Gauge(values) }
}

fn metrics(sources: &Sources<'_>) -> Vec<Metric> {
    let mut metrics = of_process(sources);
    metrics.extend(of_work(sources));
    metrics.extend(of_event_time(sources));
    metrics.extend(of_state(sources));
    metrics.extend(of_queues(sources));
    metrics.extend(of_http(sources.meter));
    metrics
}

fn of_process(sources: &Sources<'_>) -> Vec<Metric> {
    let build = vec![("version", sources.version.to_owned()), ("app", sources.program.app.clone())];
    let mut paused = Vec::new();
    for (place, ingress) in sources.program.ingresses.iter().enumerate() {
        let pause = sources.inspect.pause(Pausable::Ingress(place));
        paused.push((vec![("kind", "ingress".to_owned()), ("name", ingress.name.to_owned())], pause.is_held));
    }
    for (id, function) in sources.program.functions.iter().enumerate() {
        let pause = sources.inspect.pause(Pausable::Function(id as FunctionId));
        paused.push((vec![("kind", "function".to_owned()), ("name", function.spec.name.to_owned())], pause.is_held));
    }
    let paused = paused.into_iter().map(|(labels, is_held)| (labels, f64::from(u8::from(is_held)))).collect();
    vec![
        gauges("build_info", "The app and the version of statefn; always 1", None, vec![(build, 1.0)]),
        gauges(
            "uptime",
            "How long the process runs",
            Some(Unit::Seconds),
            vec![(Vec::new(), sources.uptime.as_secs_f64())],
        ),
        gauge("ready", "Whether the app takes work: 1 or 0", None, usize::from(sources.is_ready)),
        gauges("paused", "Whether a pause holds an ingress or function: 1 or 0", None, paused),
    ]
}

fn of_work(sources: &Sources<'_>) -> Vec<Metric> {
    let counters = view::counted(sources.shards);
    let Numbers { records, unreadable, snapshots, trims, commits, .. } = sources.inspect.numbers();
    vec![
        counter("records", "Records read from ingresses, unreadable ones included", records),
        counter("unreadable_records", "Records that could not be read", unreadable),
        counter("events", "Calls of handlers, timers included", counters.calls),
        counter("timers_fired", "Timers that fired", counters.timers),
        counter("messages", "Messages from function to function", counters.messages),
        counter("emitted_records", "Records for egresses, dead letters included", counters.emitted),
        counter("rejections", "Calls that were rejected and that nobody waited for", counters.rejections),
        counter("faults", "Calls that parked their key", counters.faults),
        counter("late_messages", "Messages that came behind the watermark of their function", counters.late),
        counter("dead_letters", "What could not be handled and was told to the dead letters", counters.dead_letters),
        counter("epochs", "Epochs that were sealed", counters.epochs),
        Metric { unit: Some(Unit::Bytes), ..counter("frame", "Bytes of the frames of sealed epochs", counters.bytes) },
        counter("snapshots", "Snapshots that were stored", snapshots),
        counter("journal_trims", "How often the journal of a shard was trimmed", trims),
        counter("parked_retries", "How often a parked key was made to go on", counters.retried),
        counter("parked_refused", "Calls that found the queue of their parked key full", counters.parked_refused),
        Metric {
            name: "commit",
            meaning: "How long commits took, from the first input of an epoch to its confirmation",
            unit: Some(Unit::Seconds),
            values: Values::Histogram(commits),
        },
    ]
}

fn of_event_time(sources: &Sources<'_>) -> Vec<Metric> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |now| now.as_secs_f64());
    let (mut watermarks, mut lags) = (Vec::new(), Vec::new());
    for stage in 0..sources.program.stages.len() {
        let labels = vec![("stage", view::names_of(sources.program, stage).join(","))];
        let watermark = view::stage(sources.shards, stage).map(|view| view.watermark);
        // Before the first event, and behind the last, there is no time to tell.
        let Some(EventTime(ms)) = watermark.filter(|time| !matches!(*time, EventTime::MIN | EventTime::MAX)) else {
            continue;
        };
        let seconds = ms as f64 / 1_000.0;
        watermarks.push((labels.clone(), seconds));
        lags.push((labels, now - seconds));
    }
    let all = view::lags(sources.inspect, sources.shards);
    let of_lags = |value: &dyn Fn(&Lag) -> Option<f64>| {
        let labelled = all.iter().filter_map(|lag| Some((labels_of(sources.program, lag), value(lag)?)));
        labelled.collect::<Vec<_>>()
    };
    let lag_bytes = of_lags(&|lag| Some(lag.bytes? as f64));
    let behind = of_lags(&|lag| Some(lag.records_max.saturating_sub(lag.least.records) as f64));
    vec![
        gauges(
            "ingress_lag",
            "Bytes of an ingress partition that not every shard has taken",
            Some(Unit::Bytes),
            lag_bytes,
        ),
        gauges("ingress_spread_records", "Records that some shard has taken and another one has not", None, behind),
        gauges("watermark", "Event time of a stage, since 1970", Some(Unit::Seconds), watermarks),
        gauges("watermark_lag", "How far the event time of a stage is behind the clock", Some(Unit::Seconds), lags),
    ]
}

fn labels_of(program: &Program, lag: &Lag) -> Labels {
    let ingress = program.ingresses[lag.ingress].name.to_owned();
    vec![("ingress", ingress), ("partition", lag.partition.to_string())]
}

fn of_state(sources: &Sources<'_>) -> Vec<Metric> {
    let (mut keys, mut bytes) = (Vec::new(), Vec::new());
    for (id, function) in sources.program.functions.iter().enumerate() {
        let labels = vec![("function", function.spec.name.to_owned())];
        let (count, size) = view::keys(sources.shards, id);
        keys.push((labels.clone(), count as f64));
        bytes.push((labels, size as f64));
    }
    let stopped = sources.shards.iter().filter(|shard| shard.is_stopped_by_parked).count();
    let sum = |value: &dyn Fn(&ShardStatus) -> usize| sources.shards.iter().map(value).sum::<usize>();
    vec![
        gauges("state_keys", "Keys of a function that have a state", None, keys),
        gauges("state", "What the states of a function take of memory, estimated", Some(Unit::Bytes), bytes),
        gauge("pending_timers", "Timers and messages that wait for their time", None, sum(&|shard| shard.pending)),
        gauge(
            "pending",
            "What timers and waiting messages take of memory",
            Some(Unit::Bytes),
            sum(&|shard| shard.pending_bytes),
        ),
        gauge("parked_keys", "Keys that are parked", None, sum(&|shard| shard.parked_keys)),
        gauge("parked", "About what parked keys wait with", Some(Unit::Bytes), sum(&|shard| shard.parked_bytes)),
        gauge("stopped_shards", "Shards that parked keys keep from taking input", None, stopped),
    ]
}

fn of_queues(sources: &Sources<'_>) -> Vec<Metric> {
    let numbers = sources.inspect.numbers();
    let unacknowledged = sources.shards.iter().map(|shard| shard.unacknowledged_bytes).sum();
    vec![
        gauge("requests_pending", "Requests whose answer is not told yet", None, numbers.requests_pending as usize),
        gauge(
            "requests_pending_size",
            "Bytes of the requests whose answer is not told yet",
            Some(Unit::Bytes),
            numbers.requests_bytes as usize,
        ),
        gauge(
            "unacknowledged",
            "Messages between shards that are not committed there",
            Some(Unit::Bytes),
            unacknowledged,
        ),
        counter("activity_attempts", "Attempts of activities that were begun", numbers.activity_attempts),
        counter(
            "activity_failures",
            "Attempts of activities that failed, and are repeated or given up",
            numbers.activity_failures,
        ),
        counter("egress_failures", "How often an egress could not be written", numbers.egress_failures),
        counter("egress_alarms", "How often egresses came to be far behind", numbers.egress_alarms),
        gauge(
            "egress_backlog",
            "What egresses have not written yet",
            Some(Unit::Bytes),
            numbers.egress_backlog_bytes as usize,
        ),
    ]
}

fn of_http(meter: &Meter) -> Vec<Metric> {
    let statuses = meter.statuses().into_iter();
    let requests = statuses.map(|(status, count)| (vec![("status", status.to_string())], count)).collect();
    vec![
        Metric {
            name: "http_requests",
            meaning: "Requests over HTTP that were answered, by status",
            unit: None,
            values: Values::Counter(requests),
        },
        Metric {
            name: "http_request",
            meaning: "How long requests over HTTP took, from the end of their head to the answer",
            unit: Some(Unit::Seconds),
            values: Values::Histogram(meter.times()),
        },
    ]
}
