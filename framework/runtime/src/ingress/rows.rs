//! CSV: a header with the names of the columns, then rows, whose values may be quoted.
//!
//! The parser is the one of the `csv` crate; its buffered reader is not used, because a quote that
//! is never closed would make it read the rest of the file into memory.

use csv::StringRecord;
use csv_core::ReadRecordResult;
use statefn_core::limits::{DEAD_LETTER_BYTES_MAX, MESSAGE_BYTES_MAX};

use super::{
    SourceError,
    file::{Bad, Found},
    window::Window,
};

const FIELDS_AT_FIRST: usize = 64;
const TEXT_BYTES_AT_FIRST: usize = 4096;

pub(super) struct Rows {
    parser: csv_core::Reader,
    /// The values of a row, one behind the other, without quotes.
    text: Vec<u8>,
    /// Where each value ends in it.
    ends: Vec<usize>,
}

/// What came of parsing one row.
enum Parsed {
    /// Its length in the file with its end, its fields, and whether only the end of the file ends it.
    Row { length: usize, fields: usize, at_end: bool },
    /// It is too long: so much was parsed of it.
    TooLong { length: usize, is_whole: bool },
}

impl Rows {
    /// Reads the header; returns the names of the columns too.
    pub(super) fn open(window: &mut Window) -> Result<(Self, StringRecord), SourceError> {
        let mut rows = Self {
            parser: csv_core::Reader::new(),
            text: vec![0; TEXT_BYTES_AT_FIRST],
            ends: vec![0; FIELDS_AT_FIRST],
        };
        let path = window.path().to_owned();
        let mut columns = StringRecord::new();
        let split = match rows.next(window)?.1 {
            Found::Row { text, ends, raw } => split(text, ends, raw, ends.len(), &mut columns),
            Found::Bad(bad) => Err(bad),
            Found::End | Found::Bytes(_) => return Err(SourceError::NoHeader { path }),
        };
        if let Err(bad) = split {
            return Err(SourceError::BadHeader { path, reason: bad.reason });
        }
        if columns.is_empty() {
            return Err(SourceError::NoHeader { path });
        }
        Ok((rows, columns))
    }

    /// How many line ends were passed.
    pub(super) fn line_ends(&self) -> u64 {
        self.parser.line() - 1
    }

    pub(super) fn forget_line_ends(&mut self) {
        self.parser.set_line(1);
    }

    /// The next row, and the line ends before it.
    pub(super) fn next<'a>(&'a mut self, window: &'a mut Window) -> Result<(u64, Found<'a>), SourceError> {
        let is_there = self.skip_line_ends(window)?;
        let line = self.line_ends();
        if !is_there {
            return Ok((line, Found::End));
        }
        let (length, fields, at_end) = match self.parse(window)? {
            Parsed::Row { length, fields, at_end } => (length, fields, at_end),
            Parsed::TooLong { length, is_whole } => {
                return self.skip_long(window, length, is_whole).map(|bad| (line, Found::Bad(bad)));
            }
        };
        let raw = window.take(length);
        if at_end && is_quote_open(raw) {
            let reason = "a quote of the row is never closed, so the row ends where the file ends";
            return Ok((line, Found::Bad(Bad::new(reason.to_owned(), row_of(raw)))));
        }
        let ends = &self.ends[..fields];
        let text = &self.text[..ends.last().copied().unwrap_or(0)];
        Ok((line, Found::Row { text, ends, raw: row_of(raw) }))
    }

    /// Passes empty lines and the second half of `\r\n`; false at the end of the file.
    fn skip_line_ends(&mut self, window: &mut Window) -> Result<bool, SourceError> {
        loop {
            let Some(&next) = window.bytes().first() else {
                if !window.fill()? {
                    return Ok(false);
                }
                continue;
            };
            if !matches!(next, b'\r' | b'\n') {
                return Ok(true);
            }
            window.take(1);
            self.parser.set_line(self.parser.line() + u64::from(next == b'\n'));
        }
    }

    /// Parses the next row into `text` and `ends`.
    fn parse(&mut self, window: &mut Window) -> Result<Parsed, SourceError> {
        let (mut length, mut text, mut fields, mut at_end) = (0, 0, 0, false);
        loop {
            let input = &window.bytes()[length..];
            let (result, read, text_more, fields_more) =
                self.parser.read_record(input, &mut self.text[text..], &mut self.ends[fields..]);
            length += read;
            text += text_more;
            fields += fields_more;
            let is_whole = matches!(result, ReadRecordResult::Record | ReadRecordResult::End);
            if length > MESSAGE_BYTES_MAX {
                return Ok(Parsed::TooLong { length, is_whole });
            }
            match result {
                ReadRecordResult::Record | ReadRecordResult::End => {
                    return Ok(Parsed::Row { length, fields, at_end });
                }
                // An input without bytes tells the parser that the file ends.
                ReadRecordResult::InputEmpty => at_end = !window.fill()?,
                ReadRecordResult::OutputFull => self.text.resize(self.text.len() * 2, 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
            }
        }
    }

    /// Passes a row of which `length` bytes are parsed, holding only its beginning.
    fn skip_long(&mut self, window: &mut Window, length: usize, mut is_whole: bool) -> Result<Bad, SourceError> {
        let start = window.take(length)[..DEAD_LETTER_BYTES_MAX].to_vec();
        let mut bytes_total = length as u64;
        while !is_whole {
            if window.bytes().is_empty() {
                window.fill()?;
            }
            let (result, read, ..) = self.parser.read_record(window.bytes(), &mut self.text, &mut self.ends);
            is_whole = matches!(result, ReadRecordResult::Record | ReadRecordResult::End);
            bytes_total += window.take(read).len() as u64;
        }
        Ok(Bad::too_long("row", start, bytes_total))
    }
}

/// Makes the values of a row, of which there are to be so many.
pub(super) fn split(
    text: &[u8],
    ends: &[usize],
    raw: &[u8],
    columns: usize,
    fields: &mut StringRecord,
) -> Result<(), Bad> {
    if ends.len() != columns {
        let reason =
            format!("the row has {} fields, the header has {columns}; quote a value that holds a comma", ends.len());
        return Err(Bad::new(reason, raw));
    }
    let text = std::str::from_utf8(text).map_err(|_| match std::str::from_utf8(raw) {
        Err(error) => Bad::no_text("row", error, raw),
        Ok(_) => Bad::new("a value of the row is no UTF-8 text".to_owned(), raw),
    })?;
    fields.clear();
    let mut start = 0;
    for &end in ends {
        let field = text.get(start..end);
        let field = field.ok_or_else(|| Bad::new("a value of the row is no UTF-8 text".to_owned(), raw))?;
        fields.push_field(field);
        start = end;
    }
    Ok(())
}

/// Whether a quote has no second one; a quote that stands for itself has.
fn is_quote_open(raw: &[u8]) -> bool {
    memchr::memchr_iter(b'"', raw).count() % 2 == 1
}

fn row_of(raw: &[u8]) -> &[u8] {
    let end = raw.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
    &raw[..end]
}
