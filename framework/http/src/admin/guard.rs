//! Who may use the admin interface.
//!
//! Invariants: with a token every request but that for health needs it, and it is compared in constant
//! time; without one the server listens on a loopback address only, and takes no request that a web page
//! of somebody else could have made a browser send.
//!
//! Deliberately absent: several users. The audit log has the address, and whether a token was shown.

use std::net::{IpAddr, SocketAddr};

use actix_web::{HttpRequest, http::header};
use subtle::ConstantTimeEq;

use crate::problem::Problem;

/// Checks that an address may be listened at.
pub(super) fn check(listen: SocketAddr, token: Option<&str>) -> Result<(), String> {
    if listen.ip().is_loopback() || token.is_some() {
        return Ok(());
    }
    Err(format!(
        "{listen} is no loopback address: set `admin.token`, which every request then has to show, or listen at 127.0.0.1"
    ))
}

/// Checks that a request may be made.
pub(crate) fn admit(request: &HttpRequest, token: Option<&str>) -> Result<(), Problem> {
    match token {
        Some(token) => admit_with_token(request, token),
        None => admit_from_here(request),
    }
}

fn admit_with_token(request: &HttpRequest, token: &str) -> Result<(), Problem> {
    let mut given = request.headers().get_all(header::AUTHORIZATION);
    let (first, second) = (given.next(), given.next());
    let shown = first.filter(|_| second.is_none()).and_then(|value| value.as_bytes().split_at_checked(7));
    let is_it = shown.is_some_and(|(scheme, shown)| {
        scheme.eq_ignore_ascii_case(b"bearer ") && bool::from(shown.ct_eq(token.as_bytes()))
    });
    if is_it { Ok(()) } else { Err(Problem::new("unauthorized", "send the header `Authorization: Bearer TOKEN`")) }
}

/// A page of another site can make a browser send requests here, but not under a name that is this host's.
fn admit_from_here(request: &HttpRequest) -> Result<(), Problem> {
    let text = |name| request.headers().get(name).map(|value: &header::HeaderValue| value.to_str().unwrap_or_default());
    let host = text(header::HOST).unwrap_or_default();
    if !is_loopback(host) {
        let text = "without a token, requests are taken only for `localhost` or a loopback address";
        return Err(Problem::new("forbidden", text));
    }
    let origin = text(header::ORIGIN);
    if origin.is_some_and(|origin| origin.strip_prefix("http://") != Some(host)) {
        return Err(Problem::new("forbidden", "without a token, requests of a page of another site are not taken"));
    }
    Ok(())
}

fn is_loopback(host: &str) -> bool {
    let name = match host.parse::<SocketAddr>() {
        Ok(address) => return address.ip().is_loopback(),
        Err(_) => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().or_else(|_| name.parse()).is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn code(token: Option<&str>, headers: &[(&'static str, &str)]) -> &'static str {
        let request = headers.iter().fold(TestRequest::default(), |request, header| request.append_header(*header));
        admit(&request.to_http_request(), token).map_or_else(|problem| problem.code(), |()| "none")
    }

    #[test]
    fn a_token_has_to_be_shown_whole() {
        for (headers, expected) in [
            (&[("authorization", "Bearer secret")][..], "none"),
            (&[("authorization", "bearer secret")], "none"),
            (&[], "unauthorized"),
            (&[("authorization", "Bearer")], "unauthorized"),
            (&[("authorization", "Bearer ")], "unauthorized"),
            (&[("authorization", "Bearer secre")], "unauthorized"),
            (&[("authorization", "Bearer secret2")], "unauthorized"),
            (&[("authorization", "Bearer Secret")], "unauthorized"),
            (&[("authorization", "Basic secret")], "unauthorized"),
            (&[("authorization", "Bearer secret"), ("authorization", "Bearer secret")], "unauthorized"),
        ] {
            assert_eq!(code(Some("secret"), headers), expected, "{headers:?}");
        }
    }

    #[test]
    fn without_a_token_pages_of_others_are_refused() {
        for (headers, expected) in [
            (&[("host", "127.0.0.1:9")][..], "none"),
            (&[("host", "localhost:9")], "none"),
            (&[("host", "LOCALHOST")], "none"),
            (&[("host", "[::1]:9")], "none"),
            (&[("host", "127.0.0.1:9"), ("origin", "http://127.0.0.1:9")], "none"),
            (&[], "forbidden"),
            (&[("host", "evil.example:9")], "forbidden"),
            (&[("host", "localhost.evil.example")], "forbidden"),
            (&[("host", "10.0.0.1:9")], "forbidden"),
            (&[("host", "127.0.0.1:9"), ("origin", "http://evil.example")], "forbidden"),
            (&[("host", "127.0.0.1:9"), ("origin", "null")], "forbidden"),
            (&[("host", "127.0.0.1:9"), ("origin", "http://127.0.0.1:10")], "forbidden"),
        ] {
            assert_eq!(code(None, headers), expected, "{headers:?}");
        }
    }

    #[test]
    fn who_listens_to_others_needs_a_token() {
        for (listen, token, is_right) in [
            ("127.0.0.1:0", None, true),
            ("[::1]:0", None, true),
            ("0.0.0.0:0", None, false),
            ("[::]:0", None, false),
            ("10.0.0.1:80", None, false),
            ("0.0.0.0:0", Some("secret"), true),
        ] {
            assert_eq!(check(listen.parse().expect("an address"), token).is_ok(), is_right, "{listen}");
        }
    }
}
