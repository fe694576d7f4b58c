//! Protobuf records, each behind its length as a varint (what `encode_length_delimited` writes).
//!
//! A wrong length cannot be noticed but by what follows it, so a damaged file gives dead letters
//! until a length is impossible.

use statefn_core::limits::{DEAD_LETTER_BYTES_MAX, MESSAGE_BYTES_MAX};

use super::{
    SourceError,
    file::{Bad, Found},
    window::Window,
};

const PREFIX_BYTES_MAX: usize = 10;

#[derive(Debug, Default)]
pub(super) struct Delimited;

impl Delimited {
    pub(super) fn next<'a>(&mut self, window: &'a mut Window) -> Result<Found<'a>, SourceError> {
        let Some((prefix, length)) = read_prefix(window)? else { return Ok(Found::End) };
        if length > MESSAGE_BYTES_MAX as u64 {
            return skip_long(window, prefix, length).map(Found::Bad);
        }
        let end = prefix + length as usize;
        while window.bytes().len() < end {
            if !window.fill()? {
                return Err(window.truncated("a record"));
            }
        }
        Ok(Found::Bytes(&window.take(end)[prefix..]))
    }
}

/// How long the next length is, and the length.
fn read_prefix(window: &mut Window) -> Result<Option<(usize, u64)>, SourceError> {
    loop {
        let bytes = window.bytes();
        if let Some(&length @ 0..0x80) = bytes.first() {
            return Ok(Some((1, u64::from(length))));
        }
        let mut reader = statefn_core::codec::Reader::new(bytes);
        match reader.varint() {
            Ok(length) => return Ok(Some((reader.at(), length))),
            Err(_) if bytes.len() >= PREFIX_BYTES_MAX => {
                return Err(window.damaged("the next record has no length that can be read".to_owned()));
            }
            Err(_) => {}
        }
        if !window.fill()? {
            return if window.bytes().is_empty() { Ok(None) } else { Err(window.truncated("the length of a record")) };
        }
    }
}

/// Passes a record that is too long, holding only its beginning.
fn skip_long(window: &mut Window, prefix: usize, length: u64) -> Result<Bad, SourceError> {
    window.take(prefix);
    let mut start = Vec::new();
    let mut left = length;
    while left > 0 {
        if window.is_at_end()? {
            return Err(window.truncated("a record"));
        }
        let part = window.take(window.bytes().len().min(usize::try_from(left).unwrap_or(usize::MAX)));
        left -= part.len() as u64;
        start.extend_from_slice(&part[..part.len().min(DEAD_LETTER_BYTES_MAX - start.len())]);
    }
    Ok(Bad::too_long("record", start, length))
}
