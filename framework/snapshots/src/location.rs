//! URLs of places.

use std::path::PathBuf;

use crate::{Error, key::ROOT};

/// What a URL says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Location {
    Directory(PathBuf),
    /// Objects of `bucket` whose keys begin with `prefix/`; an empty prefix is the whole bucket.
    Bucket {
        bucket: String,
        prefix: String,
    },
}

impl Location {
    pub(crate) fn parse(url: &str) -> Result<Self, Error> {
        parse(url).map_err(|problem| {
            Error::Settings(format!(
                "`{url}` is no place for snapshots: {problem}; write `s3://bucket/app` or `file:///directory`"
            ))
        })
    }
}

fn parse(url: &str) -> Result<Location, String> {
    if let Some(path) = url.strip_prefix("file://") {
        return directory(path);
    }
    let path = url.strip_prefix("s3://").ok_or("it begins with neither `s3://` nor `file://`")?;
    let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    check_part(bucket).map_err(|problem| format!("its bucket `{bucket}` {problem}"))?;
    if !prefix.is_empty() {
        prefix.split('/').try_for_each(|part| {
            check_part(part).map_err(|problem| format!("the part `{part}` behind the bucket {problem}"))
        })?;
    }
    Ok(Location::Bucket { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
}

fn directory(path: &str) -> Result<Location, String> {
    if !path.starts_with('/') {
        return Err(format!("`{path}` is no absolute path"));
    }
    if let Some(letter) = path.chars().find(|letter| matches!(letter, '%' | '?' | '#')) {
        return Err(format!("it has a `{letter}`, which means something else in URLs than in paths"));
    }
    Ok(Location::Directory(PathBuf::from(path)))
}

fn check_part(part: &str) -> Result<(), String> {
    if part.is_empty() {
        return Err("is empty".to_owned());
    }
    if part == "." || part == ".." || part == ROOT {
        return Err("is not allowed".to_owned());
    }
    let is_known = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    match part.chars().find(|letter| !is_known(*letter)) {
        Some(letter) => Err(format!("has a `{letter}`; letters, digits, `-`, `_` and `.` are allowed")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let bucket = |bucket: &str, prefix: &str| Location::Bucket { bucket: bucket.into(), prefix: prefix.into() };
        for (url, location) in [
            ("s3://b", bucket("b", "")),
            ("s3://b/", bucket("b", "")),
            ("s3://my.bucket-1/team/App_1/", bucket("my.bucket-1", "team/App_1")),
            ("file:///var/lib/my app", Location::Directory("/var/lib/my app".into())),
        ] {
            assert_eq!(Location::parse(url), Ok(location), "{url}");
        }
    }

    #[test]
    fn wrong_urls_are_refused_with_the_reason() {
        for (url, reason) in [
            ("", "neither `s3://` nor `file://`"),
            ("/var/lib", "neither `s3://` nor `file://`"),
            ("s3:///app", "its bucket `` is empty"),
            ("s3://user@host/app", "its bucket `user@host` has a `@`"),
            ("s3://b/a//c", "the part `` behind the bucket is empty"),
            ("s3://b/a/../c", "the part `..` behind the bucket is not allowed"),
            ("s3://b/_snapshots", "the part `_snapshots` behind the bucket is not allowed"),
            ("s3://b/a?x", "the part `a?x` behind the bucket has a `?`"),
            ("file://var/lib", "`var/lib` is no absolute path"),
            ("file:///a%20b", "it has a `%`"),
        ] {
            let error = Location::parse(url).unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{url}` is no place for snapshots: ")), "{error}");
            assert!(error.contains(reason), "{error}");
        }
    }
}
