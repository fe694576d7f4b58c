//! What goes wrong, as `application/problem+json` (RFC 9457) with a stable code.
//!
//! Invariant: [`CODES`] is the one list of codes; each has a page in `framework/docs/errors`, which
//! the server shows at the `type` of the problem.

use std::borrow::Cow;

use actix_web::{
    HttpResponse, HttpResponseBuilder,
    http::{
        StatusCode,
        header::{self, HeaderValue},
    },
};
use serde_json::{Map, Value, json};
use statefn_core::{host::Rejection, ports::requests::Unanswered, shard::Trouble};

/// A code: its name, the status it comes with, and its page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// The stable name.
    pub name: &'static str,
    /// The HTTP status; that of `rejected` is the rejection's own.
    pub status: u16,
    /// What it says in short.
    pub title: &'static str,
    /// What it means and what to do, in Markdown.
    pub page: &'static str,
}

macro_rules! codes {
    ($($name:literal $status:literal $title:literal;)*) => {
        /// Every code, in the order of their names.
        pub const CODES: &[Code] = &[$(Code {
            name: $name,
            status: $status,
            title: $title,
            page: include_str!(concat!("../../docs/errors/", $name, ".md")),
        }),*];
    };
}

codes! {
    "answers-full" 503 "no more answers can be remembered";
    "audit-failed" 503 "the change cannot be written down, so it is not made";
    "bad-batch" 400 "a line of the batch is wrong";
    "bad-body" 400 "the body could not be read to its end";
    "bad-content-type" 415 "the body is not of the kind that the message has";
    "bad-event-time" 400 "the event time cannot be read";
    "bad-idempotency-key" 400 "the idempotency key cannot be taken";
    "bad-key" 400 "the key is not one of this function";
    "bad-message" 400 "the body is not such a message";
    "bad-method" 405 "this path takes another method";
    "bad-path" 400 "the path cannot be read";
    "bad-query" 400 "the query cannot be read";
    "body-too-large" 413 "the body is too large";
    "expired" 503 "the request waited for too long and was not begun";
    "forbidden" 403 "the admin interface does not take this request without a token";
    "handler-fault" 500 "the handler is broken";
    "idempotency-key-reused" 422 "the idempotency key was used for another request";
    "key-not-parked" 409 "the key is not parked";
    "key-parked" 500 "the key is parked after a fault";
    "no-owner" 503 "no worker has the shard of the key at the moment";
    "no-state" 404 "the key has no state";
    "not-found" 404 "there is nothing at this path";
    "not-ready" 503 "the app takes no requests at the moment";
    "not-replayed" 409 "the dead letter cannot be handed in once more";
    "not-stored" 503 "the pause cannot be stored";
    "outcome-unknown" 504 "nobody knows whether the request was done";
    "overloaded" 503 "too many requests are pending";
    "paused" 503 "the function is paused, or one that it leads to";
    "rejected" 400 "the handler said no";
    "slow-body" 408 "the body came too slowly";
    "unauthorized" 401 "the request has no token, or another one";
    "unknown-function" 404 "the app has no such function";
    "unknown-ingress" 404 "the app has no such ingress";
    "unknown-message" 404 "the function does not take such a message";
    "waits-for-event-time" 400 "the message waits for its event time";
}

/// How long a client should wait before it tries again, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// What went wrong with one request.
#[derive(Debug, PartialEq)]
pub(crate) struct Problem {
    kind: &'static str,
    status: u16,
    code: Cow<'static, str>,
    detail: String,
    /// The value of a rejection.
    value: Option<Value>,
    /// The methods that the path takes.
    allow: Option<&'static str>,
}

impl Problem {
    /// A problem with a code of [`CODES`].
    pub(crate) fn new(code: &'static str, detail: impl Into<String>) -> Self {
        let known = CODES.iter().find(|known| known.name == code);
        let status = known.unwrap_or_else(|| panic!("`{code}` stands in the list of codes")).status;
        Self { kind: code, status, code: code.into(), detail: detail.into(), value: None, allow: None }
    }

    /// The path takes only these methods.
    pub(crate) fn method(allow: &'static str) -> Self {
        let detail = format!("this path takes {allow}");
        Self { allow: Some(allow), ..Self::new("bad-method", detail) }
    }

    /// A handler's "no", with its own status and code.
    pub(crate) fn rejected(rejection: &Rejection) -> Self {
        let value = serde_json::from_slice(&rejection.value).unwrap_or(Value::Null);
        let (status, code) = (rejection.status, rejection.code.clone());
        Self { status, code, value: Some(value), ..Self::new("rejected", "the handler said no; `value` says why") }
    }

    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    pub(crate) fn kind(&self) -> &'static str {
        self.kind
    }

    #[cfg(test)]
    pub(crate) fn code(&self) -> &'static str {
        self.kind
    }

    pub(crate) fn response(&self) -> HttpResponse {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let title = CODES.iter().find(|known| known.name == self.kind).map_or("", |known| known.title);
        let mut body = Map::new();
        body.insert("type".into(), format!("/errors/{}", self.kind).into());
        body.insert("title".into(), title.into());
        body.insert("status".into(), self.status.into());
        body.insert("code".into(), self.code.as_ref().into());
        body.insert("detail".into(), self.detail.as_str().into());
        body.extend(self.value.clone().map(|value| ("value".to_owned(), value)));
        let mut response = HttpResponseBuilder::new(status);
        response.insert_header((header::CONTENT_TYPE, "application/problem+json"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.insert_header((header::RETRY_AFTER, RETRY_AFTER));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.insert_header((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        }
        if let Some(allow) = self.allow {
            response.insert_header((header::ALLOW, allow));
        }
        response.body(json!(body).to_string())
    }
}

impl From<Unanswered> for Problem {
    fn from(unanswered: Unanswered) -> Self {
        let code = match unanswered {
            Unanswered::Overloaded => "overloaded",
            Unanswered::Expired => "expired",
            Unanswered::NotRunning => "not-ready",
            Unanswered::Elsewhere => "no-owner",
            Unanswered::Paused => "paused",
            Unanswered::Unknown => "outcome-unknown",
        };
        Self::new(code, unanswered.to_string())
    }
}

impl From<Trouble> for Problem {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::NotParked => Self::new("key-not-parked", trouble.to_string()),
            Trouble::Parked => Self::new("key-parked", "an earlier message of this key broke its handler"),
            // The text may say what is nobody's business outside; `parked` shows it.
            Trouble::Faulted(_) => Self::new("handler-fault", "this message broke its handler; the key is parked now"),
            Trouble::Unreadable(error) => Self::new("bad-message", error),
            Trouble::KeyReused => Self::new("idempotency-key-reused", trouble.to_string()),
            Trouble::AnswersFull => Self::new("answers-full", trouble.to_string()),
            Trouble::Waits(message) => {
                let text = format!(
                    "`{message}` waits for its event time, so nobody can wait for its answer: add `?mode=send`"
                );
                Self::new("waits-for-event-time", text)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    #[test]
    fn each_code_has_a_page_and_each_page_a_code() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/errors");
        let pages = fs::read_dir(directory).expect("there are pages");
        let pages = pages.map(|page| page.expect("reads").file_name().into_string().expect("is text"));
        let codes: BTreeSet<String> = CODES.iter().map(|code| format!("{}.md", code.name)).collect();
        assert_eq!(pages.collect::<BTreeSet<_>>(), codes);
        for Code { name, status, page, .. } in CODES {
            assert!(page.starts_with(&format!("# `{name}`")), "the page of `{name}` begins with its name");
            assert!(page.contains(&format!("Status {status}")) || *name == "rejected", "`{name}` says its status");
            assert!(page.contains("**What to do.**"), "the page of `{name}` says what to do");
        }
    }

    #[test]
    fn codes_are_sorted_and_every_one_is_used() {
        assert!(CODES.is_sorted_by_key(|code| code.name));
        let sources = [
            include_str!("batch.rs"),
            include_str!("body.rs"),
            include_str!("edge.rs"),
            include_str!("event_time.rs"),
            include_str!("path.rs"),
            include_str!("admin/audit.rs"),
            include_str!("admin/guard.rs"),
            include_str!("admin/mod.rs"),
            include_str!("query.rs"),
            include_str!("problem.rs"),
        ];
        for code in CODES {
            // Once in the list, and once more where it is said.
            let quoted = format!("\"{}\"", code.name);
            let uses: usize = sources.iter().map(|source| source.matches(&quoted).count()).sum();
            assert!(uses >= 2, "`{}` is said nowhere", code.name);
        }
    }
}
