//! Files of length-delimited records: how inputs are made and outputs read.
//!
//! Invariant: every record is shorter than 128 bytes, so its length is one byte.

use std::{
    env,
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use super::Failure;

/// The longest record whose length is one byte.
pub(crate) const RECORD_BYTES_MAX: usize = 127;

/// Where inputs and data lie: beside what was built, so that `cargo clean` removes them.
pub(crate) fn directory() -> Result<PathBuf, Failure> {
    let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target")));
    let directory = target.join("bench");
    fs::create_dir_all(&directory)?;
    Ok(directory)
}

/// Makes an input by `write` if it is not there, and reads it once, so that it is in the page cache.
pub(crate) fn prepare(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if !path.exists() {
        // Another process may make the same.
        let unfinished = tempfile::NamedTempFile::new_in(directory()?)?;
        let mut file = BufWriter::with_capacity(1 << 20, unfinished.reopen()?);
        write(&mut file)?;
        file.flush()?;
        unfinished.persist(path)?;
    }
    io::copy(&mut File::open(path)?, &mut io::sink())?;
    Ok(())
}

/// Appends a record behind its length.
pub(crate) fn put_record(file: &mut impl Write, record: &[u8]) -> Result<(), Failure> {
    assert!(record.len() <= RECORD_BYTES_MAX, "a record of the benchmarks has {} bytes", record.len());
    file.write_all(&[record.len() as u8])?;
    Ok(file.write_all(record)?)
}

/// Reads the next record; false at the end.
pub(crate) fn read_record(reader: &mut BufReader<File>, record: &mut Vec<u8>) -> Result<bool, Failure> {
    let mut length = [0];
    if reader.read(&mut length)? == 0 {
        return Ok(false);
    }
    assert!(usize::from(length[0]) <= RECORD_BYTES_MAX, "a record of the benchmarks is shorter than 128 bytes");
    record.resize(usize::from(length[0]), 0);
    reader.read_exact(record)?;
    Ok(true)
}

/// The records in the bytes of a file; one that is cut off at the end is none.
pub(crate) struct Records<'a>(&'a [u8]);

impl<'a> Records<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first()?;
        let (record, rest) = rest.split_at_checked(usize::from(*length))?;
        self.0 = rest;
        Some(record)
    }
}
