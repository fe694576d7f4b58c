//! What an error of the library means for those who run an app.
//!
//! The library keeps the answer of a server only as text, and its kinds do not tell an object that
//! is not there from a key that nobody knows. So the codes of S3 are read from the text.

#[cfg(feature = "s3")]
use std::error::Error as _;

use object_store::Error;

/// Who has to do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Refused,
    Unreachable,
}

/// What is wrong and what to do, for the end of a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(crate) kind: Kind,
    pub(crate) text: String,
}

/// Where the key comes from that a server does not like.
const KEY: &str = "set `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`";
const RIGHTS: &str = "give the key the rights s3:ListBucket, s3:GetObject, s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload on it";

/// Whether the error says that there is no such object, and nothing else.
pub(crate) fn is_missing_object(error: &Error) -> bool {
    let text = error.to_string();
    // A directory has no codes; some servers send none for a head.
    matches!(error, Error::NotFound { .. }) && code_of(&text).is_none_or(|code| code == "NoSuchKey")
}

/// Whether a server that keeps objects as files has found a directory that comes or goes just now.
pub(crate) fn is_of_directories(error: &Error) -> bool {
    code_of(&error.to_string()) == Some("ExistingObjectIsDirectory")
}

pub(crate) fn of(error: &Error) -> Cause {
    let text = error.to_string();
    if let Some(code) = code_of(&text) {
        let message = element(&text, "Message").unwrap_or("no message");
        return of_code(code, &message.replace("&#34;", "`").replace("&quot;", "`"));
    }
    let root = root_of(error);
    if let Some(cause) = status_of(&text).map(of_status) {
        return cause;
    }
    if is_of_network(error) {
        let advice = "start the server, or correct `AWS_ENDPOINT_URL`, or whatever is between it and here";
        return Cause { kind: Kind::Unreachable, text: format!("it does not answer ({root}): {advice}") };
    }
    Cause { kind: Kind::Refused, text: root }
}

fn of_code(code: &str, message: &str) -> Cause {
    let (kind, advice) = match code {
        "NoSuchBucket" => (Kind::Refused, "create the bucket, or correct the URL".to_owned()),
        // The second is what versitygw says.
        "InvalidAccessKeyId" | "XAdminUserNotFound" => {
            (Kind::Refused, format!("the server does not know the access key: {KEY}"))
        }
        "SignatureDoesNotMatch" => (Kind::Refused, format!("the secret does not belong to the access key: {KEY}")),
        "ExpiredToken" | "InvalidToken" => {
            (Kind::Refused, format!("the key is not valid any more: {KEY} and `AWS_SESSION_TOKEN`"))
        }
        "AccessDenied" | "AllAccessDisabled" => (Kind::Refused, RIGHTS.to_owned()),
        "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException" => {
            (Kind::Refused, "set `AWS_REGION` to the region of the bucket".to_owned())
        }
        "RequestTimeTooSkewed" => (Kind::Refused, "set the clock of this machine".to_owned()),
        "InternalError" | "SlowDown" | "ServiceUnavailable" | "RequestTimeout" => {
            (Kind::Unreachable, "try again later".to_owned())
        }
        _ => (Kind::Refused, "see the documents of the server".to_owned()),
    };
    Cause { kind, text: format!("the server says {code} ({message}): {advice}") }
}

/// For answers without a code, such as those to a head.
fn of_status(status: u16) -> Cause {
    let (kind, advice) = match status {
        401 | 403 => (Kind::Refused, format!("{KEY}, or {RIGHTS}")),
        301 | 307 | 400 => (Kind::Refused, "see whether `AWS_REGION` is the region of the bucket".to_owned()),
        404 => (Kind::Refused, "see whether the bucket exists and `AWS_ENDPOINT_URL` leads to an S3 server".to_owned()),
        408 | 429 | 500.. => (Kind::Unreachable, "try again later".to_owned()),
        _ => (Kind::Refused, "see the documents of the server".to_owned()),
    };
    Cause { kind, text: format!("the server answers with status {status}: {advice}") }
}

fn code_of(text: &str) -> Option<&str> {
    element(text, "Code")
}

/// The text in the first element of this name.
fn element<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    text.split_once(&open)?.1.split_once(&close).map(|(within, _)| within.trim())
}

/// The number in `.. status code: 404 Not Found ..`.
fn status_of(text: &str) -> Option<u16> {
    let behind = text.split_once("status code: ")?.1;
    behind.get(..3)?.parse().ok()
}

/// The text of the error from which all others come.
fn root_of(error: &Error) -> String {
    let mut root: &dyn std::error::Error = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root.to_string()
}

#[cfg(feature = "s3")]
fn is_of_network(error: &Error) -> bool {
    let mut sources = std::iter::successors(error.source(), |source| (*source).source());
    sources.any(<dyn std::error::Error>::is::<object_store::client::HttpError>)
}

#[cfg(not(feature = "s3"))]
fn is_of_network(_: &Error) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn not_found(text: &str) -> Error {
        Error::NotFound { path: "a".to_owned(), source: text.into() }
    }

    #[test]
    fn an_object_is_missing_only_if_the_server_says_so() {
        for (text, is_missing) in [
            ("status code: 404 Not Found: <Error><Code>NoSuchKey</Code></Error>", true),
            ("No such file or directory", true),
            ("status code: 404 Not Found: <Error><Code>NoSuchBucket</Code></Error>", false),
            ("status code: 404 Not Found: <Error><Code>InvalidAccessKeyId</Code></Error>", false),
        ] {
            assert_eq!(is_missing_object(&not_found(text)), is_missing, "{text}");
        }
        let denied = Error::PermissionDenied { path: "a".to_owned(), source: "NoSuchKey".into() };
        assert!(!is_missing_object(&denied));
    }

    #[test]
    fn causes_say_what_to_do() {
        let generic = |text: &str| Error::Generic { store: "S3", source: text.into() };
        let message = "<Error><Code>SignatureDoesNotMatch</Code><Message>not &#34;this&quot; one</Message></Error>";
        for (error, kind, said) in [
            (generic(message), Kind::Refused, "SignatureDoesNotMatch (not `this` one): the secret does not belong"),
            (not_found("<Code>NoSuchBucket</Code>"), Kind::Refused, "create the bucket"),
            (generic("<Code>SlowDown</Code>"), Kind::Unreachable, "try again later"),
            (generic("<Code>Novelty</Code>"), Kind::Refused, "the server says Novelty (no message): see"),
            (generic("status code: 503 Service Unavailable: "), Kind::Unreachable, "with status 503: try again"),
            (generic("status code: 403 Forbidden: "), Kind::Refused, "s3:ListBucket"),
            (generic("no space left"), Kind::Refused, "no space left"),
        ] {
            let cause = of(&error);
            assert_eq!(cause.kind, kind, "{error}");
            assert!(cause.text.contains(said), "{cause:?}");
        }
        let source = Box::new(io::Error::other("the disk burns"));
        assert_eq!(of(&Error::Generic { store: "file", source }).text, "the disk burns");
    }
}
