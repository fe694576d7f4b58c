//! Traces: how what an app does in them comes to a receiver of OpenTelemetry.
//!
//! ```text
//! hosts, activities ──(spans, if there is room)──► queue ──► one thread ──(batches)──► POST endpoint (OTLP, protobuf)
//! ```
//! Invariants: nobody waits for the queue, and nothing else of the app for the receiver; what does not fit or
//! is not taken in time is dropped, counted and told. A span has the same id however often it is told.
//!
//! Deliberately absent: metrics and logs by OTLP, and other protocols: a collector speaks those. Without the
//! feature `otel`, settings that ask for an exporter are refused.

#[cfg(feature = "otel")]
mod client;
#[cfg(feature = "otel")]
mod exporter;
#[cfg(feature = "otel")]
mod otlp;

#[cfg(feature = "otel")]
pub(crate) use self::exporter::Exporter;
#[cfg(not(feature = "otel"))]
use {
    crate::{Error, Settings},
    statefn_runtime::engine::{Plan, SpanSink},
};

/// What is never started, as this program has no exporter.
#[cfg(not(feature = "otel"))]
pub(crate) enum Exporter {}

#[cfg(not(feature = "otel"))]
impl Exporter {
    pub(crate) fn start(_: &Plan, settings: &Settings) -> Result<Option<Self>, Error> {
        match &settings.trace.endpoint {
            None => Ok(None),
            Some(endpoint) => Err(Error::Settings(format!(
                "the setting `trace.endpoint` asks for traces at {}, and this program was built without them: build `statefn` with the feature `otel`",
                endpoint.as_str()
            ))),
        }
    }

    pub(crate) fn sink(&self) -> SpanSink {
        match *self {}
    }

    pub(crate) fn stop(self) {
        match self {}
    }
}
