//! The dead letters, as the file of their egress has them.
//!
//! Invariant: a page reads no more than [`BYTES_MAX`], however long the file is.

use std::{
    fs::File,
    io::{self, ErrorKind, Read, Seek, SeekFrom},
    path::Path,
};

use serde_json::{Value, json};

/// How much of the file is read for a page; a letter is far shorter.
const BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The letters behind an offset of the file, each with the offset behind it, and whether there are more.
pub(super) fn page(path: &Path, after: u64, limit: usize) -> io::Result<(Vec<Value>, bool)> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok((Vec::new(), false)),
        file => file?,
    };
    file.seek(SeekFrom::Start(after))?;
    let mut bytes = Vec::new();
    file.by_ref().take(BYTES_MAX).read_to_end(&mut bytes)?;
    let (mut letters, mut at, mut is_more) = (Vec::new(), after, bytes.len() as u64 == BYTES_MAX);
    // A line without its end is still being written.
    for line in bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
        if letters.len() == limit {
            is_more = true;
            break;
        }
        at += line.len() as u64;
        let letter = serde_json::from_slice(line);
        letters.push(json!({ "at": at, "letter": letter.unwrap_or(Value::Null) }));
    }
    Ok((letters, is_more))
}

/// The letter that ends at an offset of the file, if one does.
pub(super) fn before(path: &Path, at: u64) -> io::Result<Option<Vec<u8>>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    if at == 0 || at > file.metadata()?.len() {
        return Ok(None);
    }
    let from = at.saturating_sub(BYTES_MAX);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(at - from).read_to_end(&mut bytes)?;
    let Some(line) = bytes.strip_suffix(b"\n") else { return Ok(None) };
    let begin = line.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    Ok(Some(line[begin..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_and_half_a_line_is_left_out() {
        let path = std::env::temp_dir().join(format!("statefn-letters-{}", std::process::id()));
        std::fs::write(&path, "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n{\"n\"").expect("writes");
        let first = page(&path, 0, 2).expect("reads");
        assert_eq!(first, (vec![json!({"at": 8, "letter": {"n": 1}}), json!({"at": 16, "letter": {"n": 2}})], true));
        assert_eq!(page(&path, 16, 2).expect("reads"), (vec![json!({"at": 24, "letter": {"n": 3}})], false));
        assert_eq!(before(&path, 16).expect("reads"), Some(b"{\"n\":2}".to_vec()));
        for none in [0, 15, 28, 29] {
            assert_eq!(before(&path, none).expect("reads"), None, "{none}");
        }
        std::fs::remove_file(&path).expect("is removed");
        assert_eq!(page(&path, 0, 2).expect("none is there"), (vec![], false));
    }
}
