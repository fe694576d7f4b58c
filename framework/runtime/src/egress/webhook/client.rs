//! One attempt to post a record, and what the answer means.
//!
//! Without the feature `webhook` there is no client, and an app that has a webhook does not start.

use std::time::Duration;

#[cfg(feature = "webhook")]
pub(super) use self::real::Client;

/// Why a record was not taken.
#[derive(Debug)]
#[cfg_attr(not(feature = "webhook"), expect(dead_code, reason = "without a client nothing is sent"))]
pub(super) enum Trouble {
    /// It never will be, and why.
    Refused(String),
    /// It may be later, and when the receiver wants to be asked again.
    Later(String, Option<Duration>),
}

/// A client that an app without the feature cannot have.
#[cfg(not(feature = "webhook"))]
pub(super) enum Client {}

#[cfg(not(feature = "webhook"))]
impl Client {
    pub(super) fn new(_: &super::WebhookSpec, _: statefn_core::Encoding) -> Result<Self, String> {
        Err("this app is built without webhooks: build it with the feature `webhook`".into())
    }

    pub(super) fn post(&self, _: &str, _: &[u8]) -> Result<(), Trouble> {
        match *self {}
    }
}

#[cfg(feature = "webhook")]
mod real {
    use std::time::Duration;

    use statefn_core::Encoding;
    use ureq::{
        Agent, Body,
        http::{Response, StatusCode, Uri, header::RETRY_AFTER},
    };

    use super::{super::WebhookSpec, Trouble};

    /// How much of an answer is read: a connection whose answer was read whole is used again.
    const ANSWER_BYTES_MAX: u64 = 64 * 1024;
    /// How much of an answer is told.
    const ANSWER_CHARS_SHOWN: usize = 300;

    pub(in super::super) struct Client {
        agent: Agent,
        url: String,
        content_type: &'static str,
        authorization: Option<String>,
    }

    impl Client {
        /// # Errors
        /// If the URL is none that can be called.
        pub(in super::super) fn new(spec: &WebhookSpec, encoding: Encoding) -> Result<Self, String> {
            check_url(&spec.url)?;
            let config = Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .proxy(None)
                .timeout_global(Some(spec.time_max))
                .max_idle_connections(spec.parallel)
                .max_idle_connections_per_host(spec.parallel)
                .user_agent(concat!("statefn/", env!("CARGO_PKG_VERSION")));
            let content_type = match encoding {
                Encoding::Json => "application/json",
                Encoding::Protobuf => "application/x-protobuf",
            };
            let authorization = spec.authorization.clone();
            Ok(Self { agent: config.build().into(), url: spec.url.clone(), content_type, authorization })
        }

        /// Posts a record; `Ok` if the receiver takes it.
        pub(in super::super) fn post(&self, id: &str, record: &[u8]) -> Result<(), Trouble> {
            let mut request = self.agent.post(&self.url).header("Idempotency-Key", id).content_type(self.content_type);
            if let Some(authorization) = &self.authorization {
                request = request.header("Authorization", authorization);
            }
            let mut response = request.send(record).map_err(|error| Trouble::Later(error.to_string(), None))?;
            let status = response.status();
            // Whether the rest of the answer comes does not matter.
            let answer = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).lossy_utf8(true).read_to_string();
            meaning(status, || answer.unwrap_or_default(), asked_for(&response))
        }
    }

    /// What a status means: 2xx is taken; 4xx is refused, but for those that say "later"; all else is later.
    fn meaning(
        status: StatusCode,
        answer: impl FnOnce() -> String,
        asked_for: Option<Duration>,
    ) -> Result<(), Trouble> {
        if status.is_success() {
            return Ok(());
        }
        let text: String = answer().chars().take(ANSWER_CHARS_SHOWN).collect();
        let reason = format!("the receiver answered {status}: {text}");
        let is_later = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
        match status.is_client_error() && !is_later.contains(&status) {
            true => Err(Trouble::Refused(reason)),
            false => Err(Trouble::Later(reason, asked_for)),
        }
    }

    /// The seconds of `Retry-After`; a date is not understood, the own back-off holds then.
    fn asked_for(response: &Response<Body>) -> Option<Duration> {
        let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds))
    }

    fn check_url(url: &str) -> Result<(), String> {
        let uri: Uri = url.parse().map_err(|error| format!("it is no URL: {error}"))?;
        let has_host = uri.host().is_some_and(|host| !host.is_empty());
        match uri.scheme_str() {
            Some("http") if has_host => Ok(()),
            Some("https") if has_host && cfg!(feature = "webhook-tls") => Ok(()),
            Some("https") if has_host => {
                Err("this app is built without TLS: build it with the feature `webhook-tls`, or use `http`".into())
            }
            _ => Err("it must begin with `http://` or `https://` and name a host".into()),
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn each_status_has_a_meaning() {
            let meaning_of = |status: u16| {
                let status = StatusCode::from_u16(status).expect("a status");
                match meaning(status, || "x".repeat(1_000), None) {
                    Ok(()) => "taken",
                    Err(Trouble::Refused(reason)) => {
                        assert!(reason.len() < 400, "{reason}");
                        "refused"
                    }
                    Err(Trouble::Later(..)) => "later",
                }
            };
            for (statuses, expected) in [
                (&[200, 201, 202, 204, 299][..], "taken"),
                (&[400, 401, 403, 404, 409, 410, 413, 422, 451][..], "refused"),
                (&[301, 302, 304, 308, 408, 425, 429, 500, 502, 503, 504, 599][..], "later"),
            ] {
                for status in statuses {
                    assert_eq!(meaning_of(*status), expected, "{status}");
                }
            }
        }

        #[test]
        fn only_urls_that_can_be_called_are_taken() {
            let good = ["http://localhost", "http://127.0.0.1:80/a?b=c", "http://[::1]:8080/"];
            good.iter().for_each(|url| check_url(url).expect(url));
            for url in ["", "localhost:80", "/hook", "ftp://x/", "http://", "file:///etc", "http://a b"] {
                check_url(url).expect_err(url);
            }
            assert_eq!(check_url("https://example.org").is_ok(), cfg!(feature = "webhook-tls"));
        }
    }
}
