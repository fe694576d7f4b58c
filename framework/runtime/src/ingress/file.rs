//! Files of records: CSV, JSON lines and protobuf, plain or gzip.
//!
//! An offset is a place in the file behind the decompression. A plain file is opened again by
//! seeking; a compressed one is decompressed up to the position.

use std::{
    path::Path,
    str::Utf8Error,
    sync::{Arc, OnceLock},
};

use serde::{Deserialize, Serialize};
use statefn_core::{
    dead_letter::DeadLetter,
    ingress::{Batches, ErasedIngress},
    limits::{DEAD_LETTER_BYTES_MAX, MESSAGE_BYTES_MAX},
    ports::ingress::{ReadLimit, Source, Stretch},
    shard::frame::Position,
};

use super::{
    SourceError,
    delimited::Delimited,
    lines::Lines,
    raw::{Frontier, LinesBefore, Origin, RawStretch},
    rows::Rows,
    window::Window,
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

/// What stands next in a file.
pub(super) enum Found<'a> {
    Bytes(&'a [u8]),
    /// The values of a row one behind the other, where each ends, and the row as it stands there.
    Row {
        text: &'a [u8],
        ends: &'a [usize],
        raw: &'a [u8],
    },
    Bad(Bad),
    End,
}

/// A record that is none, whatever the message is.
#[derive(Debug, Default)]
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

    /// What becomes of it.
    pub(super) fn letter(&self, ingress: &str, place: &str) -> DeadLetter {
        DeadLetter::of_start(ingress, place, &self.reason, &self.start, self.bytes_total)
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
    /// The next record, and the line ends before it.
    fn next<'a>(&'a mut self, window: &'a mut Window) -> Result<(u64, Found<'a>), SourceError> {
        match self {
            Self::Csv(rows) => rows.next(window),
            Self::JsonLines(lines) => lines.next(window),
            Self::Protobuf(delimited) => Ok((0, delimited.next(window)?)),
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
    origin: Arc<Origin>,
    /// None of a file that was read to its end before.
    file: Option<Cutter>,
    /// The offset of the next record that is to be cut, and how many there were before it.
    cut: (u64, u64),
    frontier: Frontier,
    /// What was cut and is routed by [`Source::read`].
    pending: RawStretch,
    failed: Option<SourceError>,
}

struct Cutter {
    window: Window,
    framing: Framing,
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
        let (origin, file) = match from.is_ended {
            true => (Origin { path: path.to_owned(), columns: None, lines: LinesBefore::None }, None),
            false => Cutter::open(path, format, from.offset).map(|(origin, cutter)| (origin, Some(cutter)))?,
        };
        let (cut, frontier) = ((from.offset, from.records), Frontier::new(from));
        Ok(Self { origin: Arc::new(origin), file, cut, frontier, pending: RawStretch::default(), failed: None })
    }

    /// Cuts the next records into `raw`, in place of what it has, up to the limit.
    ///
    /// The last stretch says so, and behind it there are none. What was cut is no longer given by
    /// [`Source::read`]: a caller does the one or the other.
    ///
    /// # Errors
    /// If the input cannot be read on; what could be read before that place was cut. It stays.
    pub fn cut(&mut self, raw: &mut RawStretch, limit: ReadLimit) -> Result<(), SourceError> {
        raw.begin(&self.origin, self.cut.0, self.cut.1);
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if let Err(error) = self.cut_until(raw, limit) {
            self.failed = Some(error.clone());
            if raw.records() == 0 {
                return Err(error);
            }
        }
        if raw.is_last() {
            self.file = None;
        }
        Ok(())
    }

    fn cut_until(&mut self, raw: &mut RawStretch, limit: ReadLimit) -> Result<(), SourceError> {
        let Some(Cutter { window, framing }) = &mut self.file else {
            raw.end();
            return Ok(());
        };
        let from = self.cut.0;
        while raw.records() < limit.records && self.cut.0 - from < limit.bytes {
            let (line, found) = framing.next(window)?;
            if let Found::End = found {
                raw.end();
                return Ok(());
            }
            // What was found is copied before the window is asked again.
            raw.push(line, found);
            let end = window.offset();
            assert!(end > self.cut.0, "a record has at least one byte");
            raw.set_end(end);
            self.cut = (end, self.cut.1 + 1);
        }
        if window.is_at_end()? {
            raw.end();
        }
        Ok(())
    }

    /// How much of the file was cut, in thousandths.
    fn cut_permille(&self) -> u64 {
        self.file.as_ref().map_or(1000, |file| file.window.read_permille())
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
        if self.pending.is_done() {
            let mut pending = std::mem::take(&mut self.pending);
            let cut = self.cut(&mut pending, limit);
            self.pending = pending;
            cut?;
        }
        if self.frontier.is_proven() {
            self.pending.prove();
        }
        let routed = self.pending.route(ingress, batches, limit);
        let is_empty = routed.records() == 0;
        let (stretch, error) = self.frontier.pass(routed);
        if let Some(error) = error {
            self.pending = RawStretch::default();
            self.failed = Some(error.clone());
            if is_empty {
                return Err(error);
            }
        }
        Ok(stretch)
    }

    fn position(&self) -> Position {
        self.frontier.position()
    }

    fn dead_letters(&self) -> u64 {
        self.frontier.dead_letters()
    }

    fn read_permille(&self) -> u64 {
        if self.pending.is_done() { self.cut_permille() } else { self.cut_permille().min(999) }
    }
}

impl std::fmt::Debug for FileSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let debug = &mut f.debug_struct("FileSource");
        debug.field("path", &self.origin.path).field("at", &self.frontier.position()).finish_non_exhaustive()
    }
}

impl Cutter {
    fn open(path: &Path, format: Format, offset: u64) -> Result<(Origin, Self), SourceError> {
        let mut window = Window::open(path, format != Format::Protobuf)?;
        let mut columns = None;
        let mut framing = match format {
            Format::Csv => {
                let (rows, header) = Rows::open(&mut window)?;
                columns = Some(header);
                Framing::Csv(Box::new(rows))
            }
            Format::JsonLines => Framing::JsonLines(Lines::default()),
            Format::Protobuf => Framing::Protobuf(Delimited),
        };
        let mut lines = if format == Format::Protobuf { LinesBefore::None } else { LinesBefore::Known(0) };
        if offset > window.offset() {
            let passed = window.go_to(offset)?;
            if let (Framing::Csv(rows), None) = (&mut framing, passed) {
                rows.forget_line_ends();
            }
            if format != Format::Protobuf {
                lines = match passed {
                    Some(line_ends) => LinesBefore::Known(line_ends),
                    None => LinesBefore::BeforeOffset(offset, OnceLock::new()),
                };
            }
        }
        Ok((Origin { path: path.to_owned(), columns, lines }, Self { window, framing }))
    }
}
