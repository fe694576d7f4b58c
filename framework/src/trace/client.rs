//! One attempt to post a batch, and what the answer means.
//!
//! Source: <https://opentelemetry.io/docs/specs/otlp/#otlphttp>: 2xx is taken, but for spans that the answer
//! counts as rejected; 429, 502, 503 and 504 may be tried again; all else never will be taken.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use ureq::{
    Agent,
    http::{HeaderName, HeaderValue, Uri},
};

use crate::settings::TraceSettings;

/// How long one attempt may take; a stop waits for that.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(5);
/// How much of an answer is read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Why a batch was not taken.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It never will be.
    Refused(String),
    /// It may be later.
    Later(String),
}

pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Client {
    /// # Errors
    /// The setting that is wrong, and what to write; nothing of what is secret.
    pub(super) fn new(endpoint: &str, settings: &TraceSettings) -> Result<Self, String> {
        let uri: Option<Uri> = endpoint.parse().ok();
        if uri.and_then(|uri| uri.host().map(str::is_empty)) != Some(false) {
            return Err(format!(
                "`trace.endpoint` is {endpoint}: it must be a URL with a host, such as `http://127.0.0.1:4318/v1/traces`"
            ));
        }
        if endpoint.starts_with("https:") && !cfg!(feature = "otel-tls") {
            return Err(format!(
                "`trace.endpoint` is {endpoint}, and this program was built without TLS: use a collector that is reached by `http`, or build `statefn` with the feature `otel-tls`"
            ));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_global(Some(ATTEMPT_TIME_MAX))
            .user_agent(concat!("statefn/", env!("CARGO_PKG_VERSION")));
        let headers = settings.headers.as_ref().map_or(Ok(Vec::new()), |headers| read_headers(headers.reveal()))?;
        Ok(Self { agent: config.build().into(), endpoint: endpoint.to_owned(), headers })
    }

    /// Posts a batch; returns how many of its spans the receiver has rejected.
    pub(super) fn post(&self, batch: &[u8]) -> Result<u64, Trouble> {
        let mut request = self.agent.post(&self.endpoint).content_type("application/x-protobuf");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let mut response = request.send(batch).map_err(|error| Trouble::Later(error.to_string()))?;
        let status = response.status().as_u16();
        let answer = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        match status {
            200..=299 => Ok(rejected(&answer.unwrap_or_default())),
            429 | 502 | 503 | 504 => Err(Trouble::Later(format!("it answers {status}"))),
            _ => Err(Trouble::Refused(format!("it answers {status}"))),
        }
    }
}

/// How many spans an answer counts as rejected; one that cannot be read counts none.
fn rejected(answer: &[u8]) -> u64 {
    let answer = ExportTraceServiceResponse::decode(answer).unwrap_or_default();
    answer.partial_success.map_or(0, |partial| partial.rejected_spans.unsigned_abs())
}

/// The headers of a text such as `name=value,other=value`.
fn read_headers(text: &str) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let header = |part: &str| {
        let (name, value) = part.split_once('=')?;
        Some((name.trim().parse().ok()?, value.trim().parse().ok()?))
    };
    let headers: Option<Vec<_>> = text.split(',').map(header).collect();
    headers.ok_or_else(|| "`trace.headers` must be headers such as `x-api-key=abc,x-team=shop`".to_owned())
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    use super::*;
    use crate::settings::Secret;

    #[test]
    fn headers_are_read_and_mistakes_show_nothing_of_them() {
        let headers = read_headers("x-api-key=a=b, X-Team=shop").expect("is right");
        let shown: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("is text"))).collect();
        assert_eq!(shown, [("x-api-key", "a=b"), ("x-team", "shop")]);
        for wrong in ["hunter2", "a b=hunter2", "a=hunter2\nb", "=hunter2", "a=1,"] {
            let settings = TraceSettings { headers: Some(Secret::new(wrong)), ..TraceSettings::default() };
            let error = Client::new("http://localhost", &settings).err().expect("is refused");
            assert!(error.contains("`trace.headers`") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn an_endpoint_has_a_host() {
        for wrong in ["http://", "http:///v1/traces", "http://a b"] {
            let error = Client::new(wrong, &TraceSettings::default()).err().expect("is refused");
            assert!(error.contains(wrong) && error.contains("with a host"), "{error}");
        }
    }

    #[test]
    fn tls_needs_its_feature() {
        let made = Client::new("https://localhost", &TraceSettings::default());
        assert_eq!(made.is_ok(), cfg!(feature = "otel-tls"));
    }

    #[test]
    fn rejected_spans_are_counted() {
        let partial_success = ExportTracePartialSuccess { rejected_spans: 3, error_message: "no".into() };
        let answer = ExportTraceServiceResponse { partial_success: Some(partial_success) };
        assert_eq!(rejected(&answer.encode_to_vec()), 3);
        assert_eq!((rejected(b""), rejected(b"{}")), (0, 0));
    }
}
