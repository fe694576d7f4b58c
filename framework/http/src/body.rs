//! Reading a body: bounded in size and time.

use actix_web::{
    HttpMessage, HttpRequest,
    http::header::{self, HeaderMap},
    web,
};
use tokio::time::timeout;

use crate::{problem::Problem, server::Options};

/// The content type of JSON lines.
pub(crate) const LINES: &str = "application/x-ndjson";

/// Checks that a body is said to be what is wanted.
pub(crate) fn check_type(headers: &HeaderMap, wanted: &str) -> Result<(), Problem> {
    let wrong = |what: &str| Problem::new("bad-content-type", format!("{what}: this message is `{wanted}`"));
    let mut given = headers.get_all(header::CONTENT_TYPE);
    let text = given.next().and_then(|value| value.to_str().ok());
    let text = text.ok_or_else(|| wrong("the request has no content type"))?;
    if given.next().is_some() {
        return Err(wrong("the request has two content types"));
    }
    let mut parts = text.split(';').map(str::trim);
    let is_wanted = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case(wanted));
    let is_utf8 = parts.all(|part| {
        let part = part.to_ascii_lowercase();
        part.is_empty() || matches!(part.as_str(), "charset=utf-8" | "charset=\"utf-8\"")
    });
    if !is_wanted || !is_utf8 {
        return Err(wrong("the request has another content type"));
    }
    match headers.get(header::CONTENT_ENCODING) {
        Some(coding) if coding != "identity" => Err(wrong("compressed bodies are not taken")),
        _ => Ok(()),
    }
}

/// Notes that the body of a request was read to its end.
struct WasRead;

/// Whether the body of a request was read to its end.
pub(crate) fn was_read(request: &HttpRequest) -> bool {
    request.extensions().contains::<WasRead>()
}

/// Reads a whole body.
pub(crate) async fn read(
    request: &HttpRequest,
    payload: web::Payload,
    limits: &Options,
) -> Result<web::Bytes, Problem> {
    let bytes_max = limits.body_bytes_max;
    let too_large = || Problem::new("body-too-large", format!("a body has at most {bytes_max} bytes here"));
    let said = request.headers().get(header::CONTENT_LENGTH);
    let said: Option<u64> = said.and_then(|length| length.to_str().ok()?.parse().ok());
    if said.is_some_and(|said| said > bytes_max as u64) {
        return Err(too_large());
    }
    match timeout(limits.body_time_max, payload.to_bytes_limited(bytes_max)).await {
        Ok(Ok(Ok(body))) => {
            request.extensions_mut().insert(WasRead);
            Ok(body)
        }
        Ok(Ok(Err(error))) => Err(Problem::new("bad-body", error.to_string())),
        Ok(Err(_)) => Err(too_large()),
        Err(_) => {
            let text = format!("the body was not there after {} seconds", limits.body_time_max.as_secs_f32());
            Err(Problem::new("slow-body", text))
        }
    }
}
