//! Spans as OTLP has them.
//!
//! | of a span | what it says |
//! |---|---|
//! | name | the function and what it was called with; of an attempt, the activity |
//! | kind | server: a request that waits for its answer; consumer: a message or timer; internal: a reply; client: an attempt |
//! | begin, end | the clock of the call's epoch, and when its commit was known; an attempt's own |
//! | status | an error if the call was rejected or is broken, or the attempt has to be repeated |
//! | attributes | `statefn.function`, `.key`, `.message`, `.event_time_ms`; `statefn.activity`, `.call`, `.attempt` |

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::SpanKind as Kind, status::StatusCode},
};
use statefn_core::{
    envelope::{SpanKind, SpanRecord, Trace},
    program::Program,
};
use statefn_runtime::engine::{AttemptRecord, Spans};

/// The flag of W3C Trace Context that says that a span is sampled.
const SAMPLED: u32 = 1;

/// Writes the spans of an app.
pub(super) struct Writer {
    program: Arc<Program>,
}

impl Writer {
    pub(super) fn new(program: &Arc<Program>) -> Self {
        Self { program: Arc::clone(program) }
    }

    /// Appends what was told.
    pub(super) fn write(&self, told: Spans, spans: &mut Vec<Span>) {
        match told {
            Spans::Calls { records, committed_at } => {
                spans.extend(records.into_iter().map(|record| self.call(record, committed_at)));
            }
            Spans::Attempt(record) => spans.push(attempt(record)),
        }
    }

    /// The request that brings spans to their receiver.
    pub(super) fn request(&self, spans: &[Span]) -> ExportTraceServiceRequest {
        let scope = InstrumentationScope {
            name: "statefn".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            ..InstrumentationScope::default()
        };
        let scope_spans = ScopeSpans { scope: Some(scope), spans: spans.to_vec(), ..ScopeSpans::default() };
        let attributes = vec![text("service.name", self.program.app.clone())];
        let resource = Resource { attributes, ..Resource::default() };
        let resource_spans =
            ResourceSpans { resource: Some(resource), scope_spans: vec![scope_spans], ..ResourceSpans::default() };
        ExportTraceServiceRequest { resource_spans: vec![resource_spans] }
    }

    fn call(&self, record: SpanRecord, committed_at: SystemTime) -> Span {
        let SpanRecord { trace, kind, function, name, key, event_time, now, error } = record;
        let name = name.trim_end_matches('=').to_owned();
        let shown = match kind {
            SpanKind::Reply => format!("{function} reply of {name}"),
            SpanKind::Request | SpanKind::Message | SpanKind::Timer => format!("{function} {name}"),
        };
        let began_at = UNIX_EPOCH + Duration::from_millis(now.max(0).unsigned_abs());
        let attributes = vec![
            text("statefn.key", self.key(&function, &key)),
            text("statefn.function", function),
            text("statefn.message", name),
            number("statefn.event_time_ms", event_time),
        ];
        let kind = match kind {
            SpanKind::Request => Kind::Server,
            SpanKind::Message | SpanKind::Timer => Kind::Consumer,
            SpanKind::Reply => Kind::Internal,
        };
        span(&trace, kind, shown, (began_at, committed_at), attributes, error)
    }

    /// A key as people write it.
    fn key(&self, function: &str, key: &[u8]) -> String {
        let function = self.program.function(function).map(|id| &self.program.functions[usize::from(id)]);
        let text = function.map_or_else(|| key.to_vec(), |function| function.spec.key.text(key));
        String::from_utf8_lossy(&text).into_owned()
    }
}

fn attempt(record: AttemptRecord) -> Span {
    let AttemptRecord { trace, activity, id, attempt, began_at, took, error } = record;
    let attributes = vec![
        text("statefn.activity", activity.clone()),
        text("statefn.call", id),
        number("statefn.attempt", i64::from(attempt)),
    ];
    span(&trace, Kind::Client, activity, (began_at, began_at + took), attributes, error)
}

fn span(
    trace: &Trace,
    kind: Kind,
    name: String,
    (began_at, ended_at): (SystemTime, SystemTime),
    attributes: Vec<KeyValue>,
    error: Option<String>,
) -> Span {
    let id = |span: u64| if span == 0 { Vec::new() } else { span.to_be_bytes().to_vec() };
    let began_at = nanoseconds(began_at);
    Span {
        trace_id: trace.id.to_vec(),
        span_id: id(trace.span),
        parent_span_id: id(trace.parent),
        flags: SAMPLED,
        name,
        kind: kind as i32,
        start_time_unix_nano: began_at,
        // The clock of a machine may go back.
        end_time_unix_nano: nanoseconds(ended_at).max(began_at),
        attributes,
        status: error.map(|message| Status { message, code: StatusCode::Error as i32 }),
        ..Span::default()
    }
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn text(key: &str, text: String) -> KeyValue {
    attribute(key, Value::StringValue(text))
}

fn number(key: &str, number: i64) -> KeyValue {
    attribute(key, Value::IntValue(number))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
