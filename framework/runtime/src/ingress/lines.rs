//! JSON lines: each line is a record; lines of white space are none.

use memchr::memchr;
use statefn_core::limits::{DEAD_LETTER_BYTES_MAX, MESSAGE_BYTES_MAX};

use super::{
    SourceError,
    file::{Bad, Found},
    window::Window,
};

/// Some writers put it before the first line.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) line_ends: u64,
}

impl Lines {
    pub(super) fn next<'a>(&mut self, window: &'a mut Window) -> Result<(u64, Found<'a>), SourceError> {
        // The lines that are skipped are looked at first: a loop cannot hand out what it borrows.
        let (length, line) = loop {
            let line = self.line_ends;
            let Some(length) = find_line(window)? else { return Ok((line, Found::End)) };
            if length > MESSAGE_BYTES_MAX {
                return self.skip_long(window).map(|bad| (line, Found::Bad(bad)));
            }
            self.line_ends += 1;
            if !is_blank(text_of(&window.bytes()[..length])) {
                break (length, line);
            }
            window.take(length);
        };
        let begins_file = window.offset() == 0;
        let text = text_of(window.take(length));
        let text = if begins_file { text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text) } else { text };
        let found = match std::str::from_utf8(text) {
            Ok(_) => Found::Bytes(text),
            Err(error) => Found::Bad(Bad::no_text("line", error, text)),
        };
        Ok((line, found))
    }

    /// Passes a line that is too long, holding only its beginning.
    fn skip_long(&mut self, window: &mut Window) -> Result<Bad, SourceError> {
        let start = window.bytes()[..DEAD_LETTER_BYTES_MAX].to_vec();
        let mut bytes_total = 0;
        loop {
            if let Some(at) = memchr(b'\n', window.bytes()) {
                self.line_ends += 1;
                let total = bytes_total + at as u64;
                window.take(at + 1);
                return Ok(Bad::too_long("line", start, total));
            }
            bytes_total += window.take_all().len() as u64;
            if !window.fill()? {
                return Ok(Bad::too_long("line", start, bytes_total));
            }
        }
    }
}

/// The length of the next line with its end; one that is too long is not looked at to its end.
fn find_line(window: &mut Window) -> Result<Option<usize>, SourceError> {
    let mut scanned = 0;
    loop {
        let bytes = window.bytes();
        if let Some(at) = memchr(b'\n', &bytes[scanned..]) {
            return Ok(Some(scanned + at + 1));
        }
        scanned = bytes.len();
        if scanned > MESSAGE_BYTES_MAX {
            return Ok(Some(scanned));
        }
        if !window.fill()? {
            return Ok((scanned > 0).then_some(scanned));
        }
    }
}

fn text_of(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn is_blank(text: &[u8]) -> bool {
    text.first().is_none_or(u8::is_ascii_whitespace) && text.iter().all(u8::is_ascii_whitespace)
}
