//! From the path of a request to what it asks for.
//!
//! Invariant: a path is cut at its slashes before anything is decoded, so a key may hold a slash,
//! and no spelling of a path is changed on the way: `.`, `..` and empty parts are refused, because
//! proxies would change them.

use crate::problem::Problem;

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// All functions.
    Functions,
    /// Many messages of a function.
    Batch(String),
    /// A message, or the state, of a key.
    Key {
        function: String,
        key: Vec<u8>,
        last: String,
    },
    Health,
    Ready,
    /// The page of an error code.
    Error(String),
}

impl Place {
    /// The place of a path as it stands in the request.
    pub(crate) fn of(path: &str) -> Result<Self, Problem> {
        let parts = path.strip_prefix('/').unwrap_or(path).split('/');
        let parts: Vec<Vec<u8>> = parts.map(decode).collect::<Result<_, _>>()?;
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        match parts[..] {
            [b"functions"] => Ok(Self::Functions),
            [b"functions", namespace, name, key, last] => {
                if key.is_empty() {
                    return Err(Problem::new("bad-key", "the key is empty"));
                }
                let function = format!("{}/{}", text(namespace)?, text(name)?);
                Ok(Self::Key { function, key: key.to_vec(), last: text(last)?.to_owned() })
            }
            [b"batch", namespace, name] => Ok(Self::Batch(format!("{}/{}", text(namespace)?, text(name)?))),
            [b"health"] => Ok(Self::Health),
            [b"ready"] => Ok(Self::Ready),
            [b"errors", code] => Ok(Self::Error(text(code)?.to_owned())),
            _ => Err(Problem::new("not-found", "there is nothing at this path; `GET /functions` lists what there is")),
        }
    }
}

pub(crate) fn text(part: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(part).map_err(|_| Problem::new("bad-path", "a part of the path is no UTF-8"))
}

/// Decodes a part of a path.
pub(crate) fn decode(part: &str) -> Result<Vec<u8>, Problem> {
    let decoded = unescape(part)?;
    match decoded.as_slice() {
        b"." | b".." => Err(Problem::new("bad-path", "`.` and `..` cannot be parts of a path, nor keys over HTTP")),
        _ => Ok(decoded),
    }
}

/// Decodes what is percent-encoded.
pub(crate) fn unescape(part: &str) -> Result<Vec<u8>, Problem> {
    let mut decoded = Vec::with_capacity(part.len());
    let mut bytes = part.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digits = (bytes.next().and_then(hex), bytes.next().and_then(hex));
        let (Some(high), Some(low)) = digits else {
            return Err(Problem::new("bad-path", "`%` in a path is followed by two hexadecimal digits"));
        };
        decoded.push(high << 4 | low);
    }
    Ok(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str) -> Option<(String, Vec<u8>, String)> {
        match Place::of(path) {
            Ok(Place::Key { function, key, last }) => Some((function, key, last)),
            _ => None,
        }
    }

    fn code(path: &str) -> &'static str {
        Place::of(path).map_or_else(|problem| problem.code(), |_| "none")
    }

    #[test]
    fn parts_are_decoded_one_by_one() {
        let expected = |key: &[u8]| Some(("bank/account".to_owned(), key.to_vec(), "deposit".to_owned()));
        assert_eq!(key("/functions/bank/account/alice/deposit"), expected(b"alice"));
        assert_eq!(key("/functions/bank/account/a%2Fb%20c+d/deposit"), expected(b"a/b c+d"));
        assert_eq!(key("/functions/b%61nk/account/%c3%A4/deposi%74"), expected("ä".as_bytes()));
        assert_eq!(key("/functions/bank/account/%ff/deposit"), expected(&[0xff]));
        assert_eq!(key("/functions/bank/account/%252e/deposit"), expected(b"%2e"));
        assert_eq!(key("/functions/bank/account/.../deposit"), expected(b"..."));
        assert_eq!(Place::of("/functions"), Ok(Place::Functions));
        assert_eq!(Place::of("/errors/bad-key"), Ok(Place::Error("bad-key".into())));
    }

    #[test]
    fn what_proxies_would_change_is_refused() {
        for (path, expected) in [
            ("/functions/bank/account//deposit", "bad-key"),
            ("/functions/bank/account/../deposit", "bad-path"),
            ("/functions/bank/account/%2e%2E/deposit", "bad-path"),
            ("/functions/bank/account/%2e/deposit", "bad-path"),
            ("/functions/bank/account/a/%", "bad-path"),
            ("/functions/bank/account/%4/deposit", "bad-path"),
            ("/functions/bank/account/%zz/deposit", "bad-path"),
            ("/functions/bank/account/%+1/deposit", "bad-path"),
            ("/functions/%ff/account/a/deposit", "bad-path"),
            ("//functions", "not-found"),
            ("/functions/", "not-found"),
            ("/functions/bank/account/a/deposit/", "not-found"),
            ("/", "not-found"),
            ("", "not-found"),
        ] {
            assert_eq!(code(path), expected, "{path}");
        }
    }
}
