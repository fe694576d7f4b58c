//! Which object a name means.
//!
//! Invariants: no key is the directory of another key, no name leads out of the root, and the roots
//! of two URLs have no object in common.

use object_store::path::Path;

use crate::Error;

/// The directory with all objects of a place. It cannot be part of a URL or of a name.
pub(crate) const ROOT: &str = "_snapshots";
/// What a key ends with, and no part of a name can end with.
const END: char = '_';
/// The longest part of a name between two `/`, in bytes; file systems allow 255 with a suffix.
const PART_BYTES_MAX: usize = 200;
/// The longest name in bytes; S3 allows 1,024 for a whole key.
const NAME_BYTES_MAX: usize = 700;

/// The root below a prefix, which may be empty.
pub(crate) fn root(prefix: &str) -> Path {
    Path::from_iter(prefix.split('/').filter(|part| !part.is_empty()).chain([ROOT]))
}

pub(crate) fn key_of(root: &Path, name: &str) -> Result<Path, Error> {
    check(name)?;
    Ok(Path::from(format!("{root}/{name}{END}")))
}

/// The name that a key means; none if it is none of ours.
pub(crate) fn name_of(root: &Path, key: &Path) -> Option<String> {
    let name = key.as_ref().strip_prefix(root.as_ref())?.strip_prefix('/')?.strip_suffix(END)?;
    check(name).is_ok().then(|| name.to_owned())
}

/// A key that no name means, and that nobody else has.
pub(crate) fn probe(root: &Path) -> Path {
    Path::from(format!("{root}/_probe-{:016x}", fastrand::u64(..)))
}

fn check(name: &str) -> Result<(), Error> {
    let is_known = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    let is_good = |part: &str| {
        (1..=PART_BYTES_MAX).contains(&part.len()) && part != "." && part != ".." && part.bytes().all(is_known)
    };
    if name.len() <= NAME_BYTES_MAX && name.split('/').all(is_good) {
        return Ok(());
    }
    Err(Error::Settings(format!(
        "`{name}` is no name of a snapshot: it has at most {NAME_BYTES_MAX} bytes and consists of parts of 1 to {PART_BYTES_MAX} of `a-z`, `0-9`, `-` and `.`, with `/` between them, and no part is `.` or `..`"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_keys_mean_each_other() {
        for (prefix, name, key) in [
            ("", "a", "_snapshots/a_"),
            ("team/app", "shard-1/2", "team/app/_snapshots/shard-1/2_"),
            ("app", "a/b.c/d", "app/_snapshots/a/b.c/d_"),
        ] {
            let root = root(prefix);
            let found = key_of(&root, name).unwrap();
            assert_eq!(found.as_ref(), key);
            assert_eq!(name_of(&root, &found).as_deref(), Some(name));
        }
    }

    #[test]
    fn other_keys_are_none_of_ours() {
        let root = root("app");
        for key in ["app/_snapshots/a", "app/_snapshots/A_", "app/x/_snapshots/a_", "app/_snapshots2/a_", "other/a_"] {
            assert_eq!(name_of(&root, &Path::from(key)), None, "{key}");
        }
        assert_eq!(name_of(&root, &probe(&root)), None);
        assert_ne!(probe(&root), probe(&root));
    }

    #[test]
    fn wrong_names_are_refused() {
        let (long, deep) = ("a".repeat(201), "a/".repeat(350) + "a");
        for name in ["", "/a", "a/", "a//b", ".", "a/../b", "A", "a_", "a b", "a%2fb", "é", &long, &deep] {
            let error = key_of(&root("app"), name).unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{name}` is no name of a snapshot")), "{error}");
        }
    }
}
