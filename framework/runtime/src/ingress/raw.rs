//! Records that were cut out of a file and are still to be decoded and routed.
//!
//! Cutting has to go from record to record; decoding has not. So one thread cuts a stretch and
//! lets the next one cut on, and each decodes and routes what it has cut. What that makes is put in
//! order again by a [`Frontier`].
//!
//! Invariant: a stretch has the bytes of all its records, so it needs no file.

use std::{
    ops::Range,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use csv::StringRecord;
use statefn_core::{
    ingress::{Batches, ErasedIngress, RawRecord},
    message::Row,
    ports::ingress::{ReadLimit, Stretch},
    shard::frame::Position,
    time::EventTime,
};

use super::{
    SourceError,
    file::{Bad, Found},
    rows,
    window::count_line_ends,
};

/// What is known of a file whose records are cut, for those who say where a bad one stands.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) path: PathBuf,
    /// The columns of a CSV file.
    pub(super) columns: Option<StringRecord>,
    pub(super) lines: LinesBefore,
}

/// The line ends before those that the framing counts.
#[derive(Debug)]
pub(super) enum LinesBefore {
    /// The format has no lines.
    None,
    Known(u64),
    /// Those before this offset; they are counted when a dead letter needs it.
    BeforeOffset(u64, OnceLock<Option<u64>>),
}

/// Records of a file, in order, cut but not decoded.
#[derive(Debug, Default)]
pub struct RawStretch {
    origin: Option<Arc<Origin>>,
    records: Vec<Cut>,
    /// What the records have in the file, as far as it is needed.
    bytes: Vec<u8>,
    /// The values of rows, without quotes, and where each ends in its row.
    text: Vec<u8>,
    ends: Vec<usize>,
    bad: Vec<Bad>,
    fields: StringRecord,
    /// How many of `records` were routed.
    routed: usize,
    /// The offset of the next record that was not, and how many there were before it.
    at: (u64, u64),
    is_ended: bool,
    is_proven: bool,
}

#[derive(Debug)]
struct Cut {
    /// Where the record ends in the file, and the next begins.
    end: u64,
    line: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    Bytes(Range<usize>),
    Row { raw: Range<usize>, text: Range<usize>, ends: Range<usize> },
    Bad(usize),
}

/// What one call of [`RawStretch::route`] has put into batches.
#[derive(Debug)]
pub struct Routed {
    from: u64,
    offset: u64,
    records: u64,
    event_time_max: Option<EventTime>,
    dead_letters: u64,
    is_ended: bool,
    has_good: bool,
    problem: Option<SourceError>,
}

impl Routed {
    /// How many records it has.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// How many of them became dead letters.
    #[must_use]
    pub fn dead_letters(&self) -> u64 {
        self.dead_letters
    }
}

impl RawStretch {
    /// Empties it for records behind an offset; the memory stays.
    pub(super) fn begin(&mut self, origin: &Arc<Origin>, offset: u64, records: u64) {
        self.origin = Some(Arc::clone(origin));
        self.records.clear();
        self.bytes.clear();
        self.text.clear();
        self.ends.clear();
        self.bad.clear();
        self.routed = 0;
        self.at = (offset, records);
        (self.is_ended, self.is_proven) = (false, false);
    }

    /// Adds what was found; [`Self::set_end`] says where it ends.
    pub(super) fn push(&mut self, line: u64, found: Found<'_>) {
        let what = match found {
            Found::Bytes(bytes) => What::Bytes(append(&mut self.bytes, bytes)),
            Found::Row { text, ends, raw } => What::Row {
                raw: append(&mut self.bytes, raw),
                text: append(&mut self.text, text),
                ends: append(&mut self.ends, ends),
            },
            Found::Bad(bad) => {
                self.bad.push(bad);
                What::Bad(self.bad.len() - 1)
            }
            Found::End => return self.end(),
        };
        self.records.push(Cut { end: 0, line, what });
    }

    /// Says where the last record ends in the file.
    pub(super) fn set_end(&mut self, end: u64) {
        if let Some(last) = self.records.last_mut() {
            last.end = end;
        }
    }

    /// Says that nothing comes behind it.
    pub(super) fn end(&mut self) {
        self.is_ended = true;
    }

    /// How many records were cut.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records.len() as u64
    }

    /// Whether it is the last of its file.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.is_ended
    }

    /// Whether all was routed.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.routed == self.records.len()
    }

    /// Says that a record before it was good, so that no column is missing.
    pub fn prove(&mut self) {
        self.is_proven = true;
    }

    /// Decodes the next records and routes them into batches, up to the limit; records that cannot
    /// be read become dead letters.
    ///
    /// It stops early where a record cannot be read that may prove that the file lacks a column; who
    /// knows of a good record before it lets it go on ([`Self::prove`]).
    pub fn route(&mut self, ingress: &dyn ErasedIngress, batches: &mut Batches, limit: ReadLimit) -> Routed {
        let ((from, _), written) = (self.at, batches.written());
        let mut routed = Routed {
            from,
            offset: from,
            records: 0,
            event_time_max: None,
            dead_letters: 0,
            is_ended: false,
            has_good: false,
            problem: None,
        };
        let records = std::mem::take(&mut self.records);
        while let Some(record) = records.get(self.routed).filter(|_| routed.records < limit.records) {
            match self.decode(&record.what, ingress, batches) {
                Ok(time) => {
                    routed.event_time_max = routed.event_time_max.max(Some(time));
                    (routed.has_good, self.is_proven) = (true, true);
                }
                Err(bad) => {
                    routed.problem = self.column_problem(ingress, &bad.reason);
                    if routed.problem.is_some() {
                        break;
                    }
                    let letter = bad.letter(ingress.name(), &self.place(record.line));
                    batches.dead_letter(self.at.0, letter);
                    routed.dead_letters += 1;
                }
            }
            self.at = (record.end, self.at.1 + 1);
            self.routed += 1;
            routed.records += 1;
            if self.at.0 - from >= limit.bytes || batches.written() - written >= limit.bytes {
                break;
            }
        }
        self.records = records;
        routed.offset = self.at.0;
        routed.is_ended = self.is_ended && self.is_done();
        routed
    }

    fn decode(&mut self, what: &What, ingress: &dyn ErasedIngress, batches: &mut Batches) -> Result<EventTime, Bad> {
        let offset = self.at.0;
        match what {
            What::Bytes(bytes) => {
                let bytes = &self.bytes[bytes.clone()];
                ingress.route(offset, RawRecord::Bytes(bytes), batches).map_err(|reason| Bad::new(reason, bytes))
            }
            What::Row { raw, text, ends } => {
                let raw = &self.bytes[raw.clone()];
                let columns = self.origin.as_ref().and_then(|origin| origin.columns.as_ref());
                let columns = columns.expect("a file of rows has columns");
                let (text, ends) = (&self.text[text.clone()], &self.ends[ends.clone()]);
                rows::split(text, ends, raw, columns.len(), &mut self.fields)?;
                let row = Row { fields: &self.fields, columns };
                ingress.route(offset, RawRecord::Row(row), batches).map_err(|reason| Bad::new(reason, raw))
            }
            What::Bad(bad) => Err(std::mem::take(&mut self.bad[*bad])),
        }
    }

    /// Before the first good record: a column that the header lacks makes every record bad.
    fn column_problem(&self, ingress: &dyn ErasedIngress, reason: &str) -> Option<SourceError> {
        let origin = self.origin.as_ref().filter(|_| !self.is_proven)?;
        let columns = origin.columns.as_ref()?;
        let named = |prefix| reason.strip_prefix(prefix).and_then(|rest: &str| rest.strip_suffix('`'));
        let missing = named("missing field `").filter(|name| !columns.iter().any(|column| column == *name));
        let (column, doubled) = match (missing, named("duplicate field `")) {
            (Some(column), _) => (column.to_owned(), false),
            (None, Some(column)) => (column.to_owned(), true),
            (None, None) => return None,
        };
        let (path, ingress) = (origin.path.clone(), ingress.name().to_owned());
        let columns = columns.iter().map(str::to_owned).collect();
        Some(SourceError::Column { path, ingress, column, doubled, columns })
    }

    /// Where the next record stands, for a person.
    fn place(&self, line: u64) -> String {
        let Some(origin) = &self.origin else { return String::new() };
        let path = origin.path.display();
        let before = match &origin.lines {
            LinesBefore::None => return format!("{path}:record {} at byte {}", self.at.1 + 1, self.at.0),
            LinesBefore::Known(before) => Some(*before),
            LinesBefore::BeforeOffset(offset, counted) => {
                *counted.get_or_init(|| count_line_ends(&origin.path, *offset).ok())
            }
        };
        match before {
            Some(before) => format!("{path}:line {}", before + line + 1),
            // The record is what matters; its line is only a help to find it.
            None => format!("{path}:byte {}", self.at.0),
        }
    }
}

fn append<T: Copy>(to: &mut Vec<T>, more: &[T]) -> Range<usize> {
    let start = to.len();
    to.extend_from_slice(more);
    start..to.len()
}

/// Up to where a partition was routed, when what was routed is taken in the order of its offsets.
#[derive(Debug, Default)]
pub struct Frontier {
    at: Position,
    dead_letters: u64,
    is_proven: bool,
}

impl Frontier {
    /// Begins at a position.
    #[must_use]
    pub fn new(at: Position) -> Self {
        Self { at, ..Self::default() }
    }

    /// The position behind everything.
    #[must_use]
    pub fn position(&self) -> Position {
        self.at
    }

    /// How many records became dead letters.
    #[must_use]
    pub fn dead_letters(&self) -> u64 {
        self.dead_letters
    }

    /// Whether there was a good record.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.is_proven
    }

    /// Takes what comes next.
    ///
    /// The error, if there is one, stands behind the stretch: the input cannot be read on.
    ///
    /// # Panics
    /// If it does not come next.
    pub fn pass(&mut self, routed: Routed) -> (Stretch, Option<SourceError>) {
        assert_eq!(routed.from, self.at.offset, "what was routed is taken in the order of its offsets");
        self.at = Position {
            offset: routed.offset,
            records: self.at.records + routed.records,
            event_time_max: self.at.event_time_max.max(routed.event_time_max),
            is_ended: routed.is_ended,
        };
        self.dead_letters += routed.dead_letters;
        self.is_proven |= routed.has_good;
        let error = routed.problem.filter(|_| !self.is_proven);
        (Stretch { from: routed.from, to: self.at }, error)
    }
}
