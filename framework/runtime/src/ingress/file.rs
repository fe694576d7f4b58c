//! Files of records: CSV, JSON lines and protobuf, plain or gzip.
//!
//! An offset is a place in the file behind the decompression. A plain file is opened again by
//! seeking; a compressed one is decompressed up to the position.

use std::{path::Path, str::Utf8Error};

use serde::{Deserialize, Serialize};
use statefn_core::{
    dead_letter::DeadLetter,
    ingress::{Batches, ErasedIngress, RawRecord},
    limits::{DEAD_LETTER_BYTES_MAX, MESSAGE_BYTES_MAX},
    message::Row,
    ports::ingress::{ReadLimit, Source, Stretch},
    shard::frame::Position,
};

use super::{
    SourceError,
    delimited::Delimited,
    generator::pass,
    lines::Lines,
    rows::Rows,
    window::{Window, count_line_ends},
};

/// How the records of a file are written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// A line with the names of the columns, then a row for each record.
    Csv,
    /// A line of JSON for each record.
    JsonLines,
    /// Protobuf messages, each behind its length as a varint.
    Protobuf,
}

impl Format {
    /// The format that the name of a file says, with or without a `.gz` behind it.
    ///
    /// ```
    /// use statefn_runtime::ingress::Format;
    /// assert_eq!(Format::of_path("flights.csv.gz".as_ref()), Some(Format::Csv));
    /// assert_eq!(Format::of_path("flights.jsonl".as_ref()), Some(Format::JsonLines));
    /// assert_eq!(Format::of_path("flights.txt".as_ref()), None);
    /// ```
    #[must_use]
    pub fn of_path(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        match name.rsplit_once('.')?.1 {
            "csv" => Some(Self::Csv),
            "jsonl" | "ndjson" | "json" => Some(Self::JsonLines),
            "pb" | "binpb" => Some(Self::Protobuf),
            _ => None,
        }
    }
}

/// What stands next in a file; the numbers count line ends before it.
pub(super) enum Found<'a> {
    Bytes(u64, &'a [u8]),
    Row(u64, Row<'a>, &'a [u8]),
    Bad(u64, Bad),
    End,
}

/// A record that is none, whatever the message is.
pub(super) struct Bad {
    pub(super) reason: String,
    start: Vec<u8>,
    bytes_total: u64,
}

impl Bad {
    pub(super) fn new(reason: String, bytes: &[u8]) -> Self {
        let start = bytes[..bytes.len().min(DEAD_LETTER_BYTES_MAX)].to_vec();
        Self { reason, start, bytes_total: bytes.len() as u64 }
    }

    pub(super) fn too_long(what: &str, start: Vec<u8>, bytes_total: u64) -> Self {
        let reason = format!("the {what} has {bytes_total} bytes; the limit is {MESSAGE_BYTES_MAX}");
        Self { reason, start, bytes_total }
    }

    pub(super) fn no_text(what: &str, error: Utf8Error, bytes: &[u8]) -> Self {
        let at = error.valid_up_to();
        let byte = bytes.get(at).copied().unwrap_or_default();
        Self::new(format!("the {what} is no UTF-8 text: its byte {} is 0x{byte:02x}", at + 1), bytes)
    }
}

enum Framing {
    Csv(Box<Rows>),
    JsonLines(Lines),
    Protobuf(Delimited),
}

impl Framing {
    fn next<'a>(&'a mut self, window: &'a mut Window) -> Result<Found<'a>, SourceError> {
        match self {
            Self::Csv(rows) => rows.next(window, false),
            Self::JsonLines(lines) => lines.next(window),
            Self::Protobuf(delimited) => delimited.next(window),
        }
    }
}

/// A file that is read once from its beginning to the end it has then.
///
/// # Examples
/// ```
/// use statefn_core::shard::frame::Position;
/// use statefn_runtime::ingress::{FileSource, Format, SourceError};
/// let error = FileSource::open("no/such.csv".as_ref(), Format::Csv, Position::default()).unwrap_err();
/// assert!(matches!(error, SourceError::Unreadable { .. }));
/// ```
pub struct FileSource {
    /// None of a file that was read to its end before.
    file: Option<Reading>,
    at: Position,
    dead_letters: u64,
    failed: Option<SourceError>,
}

struct Reading {
    window: Window,
    framing: Framing,
    lines: LinesBefore,
    /// Whether a record was routed: then no column is missing.
    is_proven: bool,
}

/// The line ends before those that the framing counts.
#[derive(Clone, Copy)]
enum LinesBefore {
    Known(u64),
    /// Those before this offset; they are counted when a dead letter needs it.
    BeforeOffset(u64),
}

impl FileSource {
    /// Opens a file at a position that it has returned before; the default one is the beginning.
    ///
    /// A file that was read to its end is not opened again, so it may be gone by then.
    ///
    /// # Errors
    /// If the file cannot be read, is no regular file, is shorter than the position, or is a CSV
    /// file without header, or if its name and its content disagree about `.gz`.
    pub fn open(path: &Path, format: Format, from: Position) -> Result<Self, SourceError> {
        let file = if from.is_ended { None } else { Some(Reading::open(path, format, from.offset)?) };
        Ok(Self { file, at: from, dead_letters: 0, failed: None })
    }

    /// Reads until the limit or an error; what was read before an error is kept.
    fn read_until(
        &mut self,
        ingress: &dyn ErasedIngress,
        batches: &mut Batches,
        limit: ReadLimit,
    ) -> Result<(), SourceError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let (from, records, written) = (self.at.offset, self.at.records, batches.written());
        while self.at.records - records < limit.records {
            match file.step(&mut self.at, ingress, batches)? {
                Step::Routed => {}
                Step::DeadLetter => self.dead_letters += 1,
                Step::End => {
                    self.at.is_ended = true;
                    self.file = None;
                    return Ok(());
                }
            }
            if self.at.offset - from >= limit.bytes || batches.written() - written >= limit.bytes {
                break;
            }
        }
        if file.window.is_at_end()? {
            self.at.is_ended = true;
            self.file = None;
        }
        Ok(())
    }
}

impl Source for FileSource {
    type Error = SourceError;

    fn read(
        &mut self,
        ingress: &dyn ErasedIngress,
        batches: &mut Batches,
        limit: ReadLimit,
    ) -> Result<Stretch, SourceError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let before = self.at;
        if let Err(error) = self.read_until(ingress, batches, limit) {
            self.failed = Some(error.clone());
            if self.at == before {
                return Err(error);
            }
        }
        Ok(Stretch { from: before.offset, to: self.at })
    }

    fn position(&self) -> Position {
        self.at
    }

    fn dead_letters(&self) -> u64 {
        self.dead_letters
    }

    fn read_permille(&self) -> u64 {
        self.file.as_ref().map_or(1000, |file| file.window.read_permille())
    }
}

impl std::fmt::Debug for FileSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.file.as_ref().map(|file| file.window.path());
        f.debug_struct("FileSource").field("path", &path).field("at", &self.at).finish_non_exhaustive()
    }
}

enum Step {
    Routed,
    DeadLetter,
    End,
}

impl Reading {
    fn open(path: &Path, format: Format, offset: u64) -> Result<Self, SourceError> {
        let mut window = Window::open(path, format != Format::Protobuf)?;
        let mut framing = match format {
            Format::Csv => Framing::Csv(Box::new(Rows::open(&mut window)?)),
            Format::JsonLines => Framing::JsonLines(Lines::default()),
            Format::Protobuf => Framing::Protobuf(Delimited),
        };
        let mut lines = LinesBefore::Known(0);
        if offset > window.offset() {
            lines = match window.go_to(offset)? {
                Some(line_ends) => LinesBefore::Known(line_ends),
                None => LinesBefore::BeforeOffset(offset),
            };
            if let (Framing::Csv(rows), LinesBefore::BeforeOffset(_)) = (&mut framing, lines) {
                rows.forget_line_ends();
            }
        }
        Ok(Self { window, framing, lines, is_proven: false })
    }

    /// Routes the next record, or makes it a dead letter, and moves the position past it.
    fn step(
        &mut self,
        at: &mut Position,
        ingress: &dyn ErasedIngress,
        batches: &mut Batches,
    ) -> Result<Step, SourceError> {
        let offset = at.offset;
        let found = self.framing.next(&mut self.window)?;
        let (line, bad) = match found {
            Found::End => return Ok(Step::End),
            Found::Bad(line, bad) => (line, bad),
            Found::Bytes(line, bytes) => match ingress.route(offset, RawRecord::Bytes(bytes), batches) {
                Ok(time) => return Ok(self.routed(at, time)),
                Err(reason) => (line, Bad::new(reason, bytes)),
            },
            Found::Row(line, row, raw) => match ingress.route(offset, RawRecord::Row(row), batches) {
                Ok(time) => return Ok(self.routed(at, time)),
                Err(reason) => (line, Bad::new(reason, raw)),
            },
        };
        self.check_columns(ingress, &bad.reason)?;
        let place = self.place(at, line);
        let letter = DeadLetter::of_start(ingress.name(), &place, &bad.reason, &bad.start, bad.bytes_total);
        batches.dead_letter(offset, letter);
        self.move_on(at);
        Ok(Step::DeadLetter)
    }

    fn routed(&mut self, at: &mut Position, time: statefn_core::EventTime) -> Step {
        self.is_proven = true;
        pass(at, time);
        self.move_on(at);
        Step::Routed
    }

    fn move_on(&self, at: &mut Position) {
        assert!(self.window.offset() > at.offset, "a record has at least one byte");
        at.offset = self.window.offset();
        at.records += 1;
    }

    /// Before the first good record: a column that the header lacks makes every record bad.
    fn check_columns(&self, ingress: &dyn ErasedIngress, reason: &str) -> Result<(), SourceError> {
        let (Framing::Csv(rows), false) = (&self.framing, self.is_proven) else { return Ok(()) };
        let columns = rows.columns();
        let named = |prefix| reason.strip_prefix(prefix).and_then(|rest: &str| rest.strip_suffix('`'));
        let missing = named("missing field `").filter(|name| !columns.iter().any(|column| column == name));
        let (column, doubled) = match (missing, named("duplicate field `")) {
            (Some(column), _) => (column.to_owned(), false),
            (None, Some(column)) => (column.to_owned(), true),
            (None, None) => return Ok(()),
        };
        let (path, ingress) = (self.window.path().to_owned(), ingress.name().to_owned());
        Err(SourceError::Column { path, ingress, column, doubled, columns })
    }

    /// Where the record behind `at` stands, for a person.
    fn place(&mut self, at: &Position, line: u64) -> String {
        let path = self.window.path().display();
        if let Framing::Protobuf(_) = self.framing {
            return format!("{path}:record {} at byte {}", at.records + 1, at.offset);
        }
        if let LinesBefore::BeforeOffset(offset) = self.lines {
            match count_line_ends(self.window.path(), offset) {
                Ok(line_ends) => self.lines = LinesBefore::Known(line_ends),
                // The record is what matters; its line is only a help to find it.
                Err(_) => return format!("{path}:byte {}", at.offset),
            }
        }
        let LinesBefore::Known(before) = self.lines else { return format!("{path}:byte {}", at.offset) };
        format!("{path}:line {}", before + line + 1)
    }
}
