//! Segment files: the encoding of their header and groups, and reading groups in a row.
//!
//! Invariants: a [`Point`] is all that is needed to write or check the next group; a group that
//! [`Groups`] yields is whole, carries the right checksum, and follows the one before.
//!
//! Deliberately absent: which files there are and what a bad group means; see `recovery`.

use std::{
    io,
    path::{Path, PathBuf},
};

use statefn_core::ports::log::{Offset, Partition, Record};

use super::{
    FORMAT_VERSION,
    disk::{DiskFile, read_full_at},
    u32_at, u64_at,
};

const HEADER_MAGIC: &[u8; 8] = b"statefnL";
const HEADER_FIXED_BYTES: usize = 56;
/// The checksum of a header covers what is behind it.
const HEADER_CHECKED_FROM: usize = 16;
/// Groups do not share a block with the header.
const BLOCK_BYTES: usize = 4096;

const GROUP_MAGIC: &[u8; 4] = b"SFNg";
const WRONG_CHECKSUM: &str = "a group has a wrong checksum";
const ILL_FORMED: &str = "a group has a right checksum but its records do not fill it";
const GROUP_CHECKED_FROM: usize = 8;
pub(super) const GROUP_HEADER_BYTES: usize = 48;
const GROUP_ALIGNMENT: usize = 8;
const RECORD_HEADER_BYTES: usize = 8;

/// The highest offset or sequence number that a segment may begin with.
const NUMBER_MAX: u64 = u64::MAX >> 1;
/// How much is read from a file in one go, in bytes: little enough to stay in the processor's cache
/// while it is checked.
const CHUNK_BYTES: usize = 256 << 10;
/// How far apart the marks of a segment are, in bytes of the file, at least.
const MARK_BYTES: u64 = 1 << 20;

/// A point between two groups of a log: what the next group must say, and the offsets it gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Point {
    /// Where in the segment file.
    pub(super) position: u64,
    /// The sequence number of the next group.
    pub(super) sequence: u64,
    /// The checksum of the group before, 0 if there is none.
    pub(super) crc: u32,
    /// The offset of the next record of each partition.
    pub(super) next: Vec<Offset>,
}

impl Point {
    /// The point where a log of so many partitions begins.
    pub(super) fn origin(partitions: u32) -> Self {
        let next = vec![0; partitions as usize];
        Self { position: header_bytes(next.len()), sequence: 1, crc: 0, next }
    }

    /// The same point as the beginning of another segment.
    pub(super) fn at_segment_start(&self) -> Self {
        Self { position: header_bytes(self.next.len()), ..self.clone() }
    }

    /// Moves behind a group.
    pub(super) fn advance(&mut self, group: &Group<'_>) {
        for (partition, _) in group.records() {
            self.next[partition as usize] += 1;
        }
        self.step_over(group);
    }

    /// Moves behind a group whose offsets were counted already.
    pub(super) fn step_over(&mut self, group: &Group<'_>) {
        self.step(group.bytes.len() as u64, group.crc());
    }

    fn step(&mut self, length: u64, crc: u32) {
        self.position += length;
        self.sequence += 1;
        self.crc = crc;
    }
}

/// What stands at the front of a segment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) log_id: u64,
    pub(super) number: u64,
    /// Where the segment before ends; what it holds behind that is void.
    pub(super) previous_end: u64,
    /// The point where this segment begins.
    pub(super) start: Point,
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.start.position as usize);
        out.extend_from_slice(HEADER_MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.log_id.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.start.sequence.to_le_bytes());
        out.extend_from_slice(&self.previous_end.to_le_bytes());
        out.extend_from_slice(&self.start.crc.to_le_bytes());
        out.extend_from_slice(&(self.start.next.len() as u32).to_le_bytes());
        for next in &self.start.next {
            out.extend_from_slice(&next.to_le_bytes());
        }
        out.resize(self.start.position as usize, 0);
        let crc = crc32c::crc32c(&out[HEADER_CHECKED_FROM..]);
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Decodes the header of a log with `partitions` partitions.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn decode(bytes: &[u8], partitions: u32) -> Result<Self, &'static str> {
        if bytes.len() as u64 != header_bytes(partitions as usize) {
            return Err("the header of the segment is cut short");
        }
        if &bytes[..8] != HEADER_MAGIC {
            return Err("this is not the header of a segment");
        }
        if u32_at(bytes, 12) != crc32c::crc32c(&bytes[HEADER_CHECKED_FROM..]) {
            return Err("the header of the segment has a wrong checksum");
        }
        if u32_at(bytes, 8) != FORMAT_VERSION {
            return Err("the segment has another format version than `statefn.json` says");
        }
        if u32_at(bytes, 52) != partitions {
            return Err("the segment has another number of partitions than `statefn.json` says");
        }
        let next = (0..partitions as usize).map(|partition| u64_at(bytes, HEADER_FIXED_BYTES + 8 * partition));
        let start = Point {
            position: bytes.len() as u64,
            sequence: u64_at(bytes, 32),
            crc: u32_at(bytes, 48),
            next: next.collect(),
        };
        // No log comes so far; the numbers go on from here.
        if start.next.iter().chain([&start.sequence]).any(|number| *number > NUMBER_MAX) {
            return Err("the header of the segment holds a number out of range");
        }
        Ok(Self { log_id: u64_at(bytes, 16), number: u64_at(bytes, 24), previous_end: u64_at(bytes, 40), start })
    }
}

/// The length of the header of a segment, and so where its first group is.
pub(super) fn header_bytes(partitions: usize) -> u64 {
    (HEADER_FIXED_BYTES + 8 * partitions).next_multiple_of(BLOCK_BYTES) as u64
}

/// The name of the file of a segment.
pub(super) fn file_name(number: u64) -> String {
    format!("{number:016}.log")
}

/// The number of the segment that a file name stands for.
pub(super) fn number_of(name: &str) -> Option<u64> {
    let number = name.strip_suffix(".log")?.parse().ok()?;
    (file_name(number) == name).then_some(number)
}

/// A whole, checked group.
#[derive(Clone, Copy)]
pub(super) struct Group<'a> {
    bytes: &'a [u8],
}

impl<'a> Group<'a> {
    /// Writes a group for `point` into `out`, which is emptied first.
    pub(super) fn encode<'o>(out: &'o mut Vec<u8>, log_id: u64, point: &Point, records: &[Record<'_>]) -> Group<'o> {
        let length = Group::length_of(records);
        out.clear();
        out.reserve(length);
        out.extend_from_slice(GROUP_MAGIC);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(length as u64).to_le_bytes());
        out.extend_from_slice(&log_id.to_le_bytes());
        out.extend_from_slice(&point.sequence.to_le_bytes());
        out.extend_from_slice(&point.position.to_le_bytes());
        out.extend_from_slice(&point.crc.to_le_bytes());
        out.extend_from_slice(&(records.len() as u32).to_le_bytes());
        for record in records {
            out.extend_from_slice(&record.partition.to_le_bytes());
            out.extend_from_slice(&(record.bytes.len() as u32).to_le_bytes());
            out.extend_from_slice(record.bytes);
        }
        out.resize(length, 0);
        let crc = crc32c::crc32c(&out[GROUP_CHECKED_FROM..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        Group { bytes: out }
    }

    /// The length of the encoding of such a group, in bytes.
    pub(super) fn length_of(records: &[Record<'_>]) -> usize {
        let records: usize = records.iter().map(|record| RECORD_HEADER_BYTES + record.bytes.len()).sum();
        (GROUP_HEADER_BYTES + records).next_multiple_of(GROUP_ALIGNMENT)
    }

    pub(super) fn crc(&self) -> u32 {
        u32_at(self.bytes, 4)
    }

    #[cfg(feature = "fuzzing")]
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Yields the records in order.
    pub(super) fn records(&self) -> Records<'a> {
        Records { bytes: &self.bytes[GROUP_HEADER_BYTES..], left: u32_at(self.bytes, 44) }
    }

    /// Says whether the records fill the group and belong to partitions that exist. The checksum
    /// was right, so this can fail only if the writer was wrong.
    fn is_well_formed(&self, partitions: usize) -> bool {
        let mut records = self.records();
        let all_known = records.by_ref().all(|(partition, _)| (partition as usize) < partitions);
        all_known && records.left == 0 && records.bytes.len() < GROUP_ALIGNMENT
    }
}

/// The records of a group.
pub(super) struct Records<'a> {
    bytes: &'a [u8],
    left: u32,
}

impl<'a> Iterator for Records<'a> {
    type Item = (Partition, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let (head, rest) = self.bytes.split_at_checked(RECORD_HEADER_BYTES)?;
        let (record, rest) = rest.split_at_checked(u32_at(head, 4) as usize)?;
        self.bytes = rest;
        self.left -= 1;
        Some((u32_at(head, 0), record))
    }
}

/// The outcome of looking for a group.
pub(super) enum Step<'a> {
    /// It is there, whole.
    Whole(Group<'a>),
    /// It is not, or something is wrong with it.
    Bad(&'static str),
}

/// What looking through a group has found.
pub(super) enum Passed {
    /// It is whole; so long is it.
    Whole(u64),
    /// It is not there, or something is wrong with it.
    Bad(&'static str),
}

/// The bytes as a segment whose header and groups have the right checksums and follow each other.
#[cfg(feature = "fuzzing")]
pub(super) fn sealed(bytes: &[u8], log_id: u64, partitions: u32) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let start = header_bytes(partitions as usize) as usize;
    out[..8].copy_from_slice(HEADER_MAGIC);
    out[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    out[16..24].copy_from_slice(&log_id.to_le_bytes());
    out[52..56].copy_from_slice(&partitions.to_le_bytes());
    let crc = crc32c::crc32c(&out[HEADER_CHECKED_FROM..start]);
    out[12..16].copy_from_slice(&crc.to_le_bytes());
    let (mut at, mut sequence, mut previous_crc) = (start, u64_at(&out, 32), u32_at(&out, 48));
    while out.len() - at >= GROUP_HEADER_BYTES {
        // As long as it says, if there is so much.
        let said = u64_at(&out, at + 8);
        let room = (out.len() - at) as u64 / GROUP_ALIGNMENT as u64 * GROUP_ALIGNMENT as u64;
        let length = if (GROUP_HEADER_BYTES as u64..=room).contains(&said) { said } else { room };
        let group = &mut out[at..at + length as usize];
        group[..4].copy_from_slice(GROUP_MAGIC);
        let fields = [(8, length), (16, log_id), (24, sequence), (32, at as u64)];
        fields.iter().for_each(|(at, field)| group[*at..at + 8].copy_from_slice(&field.to_le_bytes()));
        group[40..44].copy_from_slice(&previous_crc.to_le_bytes());
        previous_crc = crc32c::crc32c(&group[GROUP_CHECKED_FROM..]);
        group[4..8].copy_from_slice(&previous_crc.to_le_bytes());
        (at, sequence) = (at + length as usize, sequence.wrapping_add(1));
    }
    out
}

/// Reads groups of one file in a row, in big chunks.
pub(super) struct Groups<'f> {
    file: &'f dyn DiskFile,
    log_id: u64,
    /// Where in the file no group can reach behind.
    limit: u64,
    buffer: Vec<u8>,
    buffered_from: u64,
}

impl<'f> Groups<'f> {
    /// `limit` must not be behind the end of the file.
    pub(super) fn new(file: &'f dyn DiskFile, log_id: u64, limit: u64) -> Self {
        Self { file, log_id, limit, buffer: Vec::new(), buffered_from: 0 }
    }

    /// Reads the group at `point`.
    ///
    /// # Errors
    /// What the system says if it cannot read.
    pub(super) fn at(&mut self, point: &Point) -> io::Result<Step<'_>> {
        let head = match self.head(point)? {
            Ok(head) => head,
            Err(wrong) => return Ok(Step::Bad(wrong)),
        };
        let partitions = point.next.len();
        let group = Group { bytes: self.bytes(point.position, head.length as usize)? };
        if group.crc() != crc32c::crc32c(&group.bytes[GROUP_CHECKED_FROM..]) {
            return Ok(Step::Bad(WRONG_CHECKSUM));
        }
        if !group.is_well_formed(partitions) {
            return Ok(Step::Bad(ILL_FORMED));
        }
        Ok(Step::Whole(group))
    }

    /// Looks through the group at `point`, however large it is with little memory: if it is whole,
    /// `places` are where its records stand, and `point` moves behind it.
    ///
    /// # Errors
    /// What the system says if it cannot read.
    pub(super) fn pass(&mut self, point: &mut Point, places: &mut Vec<(Partition, Place)>) -> io::Result<Passed> {
        let head = match self.head(point)? {
            Ok(head) => head,
            Err(wrong) => return Ok(Passed::Bad(wrong)),
        };
        places.clear();
        let mut found = Finder::new(point, head.records, places);
        let mut crc = 0;
        let (mut at, end) = (point.position, point.position + head.length);
        while at < end {
            let piece = self.bytes(at, (end - at).min(CHUNK_BYTES as u64) as usize)?;
            let is_first = at == point.position;
            crc = crc32c::crc32c_append(crc, if is_first { &piece[GROUP_CHECKED_FROM..] } else { piece });
            found.take(if is_first { &piece[GROUP_HEADER_BYTES..] } else { piece });
            at += piece.len() as u64;
        }
        let is_well_formed = found.is_well_formed();
        if crc != head.crc {
            return Ok(Passed::Bad(WRONG_CHECKSUM));
        }
        if !is_well_formed {
            return Ok(Passed::Bad(ILL_FORMED));
        }
        places.iter().for_each(|(partition, _)| point.next[*partition as usize] += 1);
        point.step(head.length, head.crc);
        Ok(Passed::Whole(head.length))
    }

    /// Reads the head of the group at `point`, or says what is wrong with it.
    fn head(&mut self, point: &Point) -> io::Result<Result<Head, &'static str>> {
        let room = self.limit.saturating_sub(point.position);
        if room < GROUP_HEADER_BYTES as u64 {
            return Ok(Err("a group is cut short"));
        }
        let head = Head::decode(self.bytes(point.position, GROUP_HEADER_BYTES)?);
        Ok(head.check(self.log_id, point, room).map(|()| head))
    }

    /// Returns `length` bytes at `at`, of the buffer if they are there.
    fn bytes(&mut self, at: u64, length: usize) -> io::Result<&[u8]> {
        let buffered_to = self.buffered_from + self.buffer.len() as u64;
        if at < self.buffered_from || at + length as u64 > buffered_to {
            self.fill(at, length)?;
        }
        let from = (at - self.buffered_from) as usize;
        Ok(&self.buffer[from..from + length])
    }

    fn fill(&mut self, at: u64, length: usize) -> io::Result<()> {
        let wanted = (length.max(CHUNK_BYTES) as u64).min(self.limit - at) as usize;
        // A group often begins in what is buffered and ends behind it.
        let begins_at = at.checked_sub(self.buffered_from).and_then(|begins_at| usize::try_from(begins_at).ok());
        let kept = match begins_at.filter(|begins_at| *begins_at < self.buffer.len()) {
            Some(begins_at) => {
                self.buffer.copy_within(begins_at.., 0);
                wanted.min(self.buffer.len() - begins_at)
            }
            None => 0,
        };
        self.buffer.resize(wanted, 0);
        self.buffered_from = at;
        let filled = kept + read_full_at(self.file, &mut self.buffer[kept..], at + kept as u64)?;
        self.buffer.truncate(filled);
        if filled < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

/// Finds the records of a group in its bytes, which come piece by piece. Whether the checksum is
/// right shows only at the end, so anything may come.
struct Finder<'a> {
    places: &'a mut Vec<(Partition, Place)>,
    partitions: usize,
    /// Where in the file the next byte stands.
    position: u64,
    /// How many records have not begun yet.
    left: u32,
    /// The head of a record, as far as it is there.
    head: Vec<u8>,
    /// How many bytes of the last place are still to come.
    missing: usize,
    /// How many bytes are behind the last record.
    behind: usize,
    is_known: bool,
}

impl<'a> Finder<'a> {
    fn new(group: &Point, records: u32, places: &'a mut Vec<(Partition, Place)>) -> Self {
        let head = Vec::with_capacity(RECORD_HEADER_BYTES);
        let (partitions, position) = (group.next.len(), group.position + GROUP_HEADER_BYTES as u64);
        Self { places, partitions, position, left: records, head, missing: 0, behind: 0, is_known: true }
    }

    fn take(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() && self.is_known {
            let length = match (self.missing, self.left) {
                (0, 0) => piece.len(),
                (0, _) => piece.len().min(RECORD_HEADER_BYTES - self.head.len()),
                (missing, _) => piece.len().min(missing),
            };
            let (bytes, rest) = piece.split_at(length);
            self.position += length as u64;
            match (self.missing, self.left) {
                (0, 0) => self.behind += length,
                (0, _) => self.take_head(bytes),
                _ => self.take_record(bytes),
            }
            piece = rest;
        }
    }

    fn take_head(&mut self, bytes: &[u8]) {
        self.head.extend_from_slice(bytes);
        if self.head.len() < RECORD_HEADER_BYTES {
            return;
        }
        let (partition, length) = (u32_at(&self.head, 0), u32_at(&self.head, 4));
        self.head.clear();
        self.left -= 1;
        self.missing = length as usize;
        self.is_known = (partition as usize) < self.partitions;
        self.places.push((partition, Place { position: self.position, length, crc: 0 }));
    }

    fn take_record(&mut self, bytes: &[u8]) {
        self.missing -= bytes.len();
        if let Some((_, place)) = self.places.last_mut() {
            place.crc = crc32c::crc32c_append(place.crc, bytes);
        }
    }

    /// Says whether the records fill the group and belong to partitions that exist.
    fn is_well_formed(&self) -> bool {
        self.is_known && self.left == 0 && self.missing == 0 && self.behind < GROUP_ALIGNMENT
    }
}

/// The fixed part of a group.
struct Head {
    has_magic: bool,
    crc: u32,
    length: u64,
    log_id: u64,
    sequence: u64,
    position: u64,
    previous_crc: u32,
    records: u32,
}

impl Head {
    fn decode(bytes: &[u8]) -> Self {
        Self {
            has_magic: &bytes[..4] == GROUP_MAGIC,
            crc: u32_at(bytes, 4),
            length: u64_at(bytes, 8),
            log_id: u64_at(bytes, 16),
            sequence: u64_at(bytes, 24),
            position: u64_at(bytes, 32),
            previous_crc: u32_at(bytes, 40),
            records: u32_at(bytes, 44),
        }
    }

    fn check(&self, log_id: u64, point: &Point, room: u64) -> Result<(), &'static str> {
        if !self.has_magic {
            return Err("there is no group");
        }
        if self.log_id != log_id || self.position != point.position {
            return Err("a group belongs elsewhere");
        }
        if self.sequence != point.sequence || self.previous_crc != point.crc {
            return Err("a group does not follow the one before");
        }
        if self.length < GROUP_HEADER_BYTES as u64 || !self.length.is_multiple_of(GROUP_ALIGNMENT as u64) {
            return Err("a group has an impossible length");
        }
        if self.length > room {
            return Err("a group is cut short");
        }
        Ok(())
    }
}

/// What a file holds behind its last good group.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Zeros only: nothing was written.
    Zeros,
    /// Bytes up to this position, and no good group that is later: a write that was cut short.
    Torn { to: u64 },
    /// A good group of the same log that came later, at this position.
    LaterGroup { at: u64 },
}

/// Looks at what is behind `point`, where there is no good group, up to the end of the file.
///
/// # Errors
/// What the system says if it cannot read.
pub(super) fn examine_rest(file: &dyn DiskFile, log_id: u64, point: &Point) -> io::Result<Rest> {
    let length = file.length()?;
    let mut torn_to = None;
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut at = point.position;
    while at < length {
        let filled = read_full_at(file, &mut buffer, at)?;
        let chunk = &buffer[..filled];
        // The whole preallocated rest comes through here at each open: first the fast question.
        if chunk.iter().fold(0, |any, byte| any | byte) != 0 {
            let last = chunk.iter().rposition(|byte| *byte != 0).unwrap_or(0);
            torn_to = Some(at + last as u64 + 1);
            if let Some(later) = later_group_in(file, log_id, point, chunk, at)? {
                return Ok(Rest::LaterGroup { at: later });
            }
        }
        if filled < buffer.len() {
            break;
        }
        at += filled as u64;
    }
    Ok(torn_to.map_or(Rest::Zeros, |to| Rest::Torn { to }))
}

/// Returns where in the chunk at `from` a good group of the log begins that is later than `point`.
fn later_group_in(file: &dyn DiskFile, log_id: u64, point: &Point, chunk: &[u8], from: u64) -> io::Result<Option<u64>> {
    for (index, word) in chunk.chunks_exact(GROUP_ALIGNMENT).enumerate() {
        let at = from + (index * GROUP_ALIGNMENT) as u64;
        if &word[..4] == GROUP_MAGIC && is_later_group(file, log_id, point, at)? {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

/// Bytes inside a record can look like a group, even like one of this log, but not like one that
/// stands at just this position.
fn is_later_group(file: &dyn DiskFile, log_id: u64, point: &Point, at: u64) -> io::Result<bool> {
    let mut head = [0; GROUP_HEADER_BYTES];
    if read_full_at(file, &mut head, at)? < head.len() {
        return Ok(false);
    }
    let Head { sequence, previous_crc, .. } = Head::decode(&head);
    if sequence <= point.sequence {
        return Ok(false);
    }
    let there = Point { position: at, sequence, crc: previous_crc, next: point.next.clone() };
    let mut groups = Groups::new(file, log_id, file.length()?);
    Ok(matches!(groups.at(&there)?, Step::Whole(_)))
}

/// Where a record stands in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) position: u64,
    pub(super) length: u32,
    /// Of its bytes, so that a read notices if they went bad since.
    pub(super) crc: u32,
}

/// One segment of a log as it is known in memory.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) number: u64,
    /// Where the segment before ends, in its file.
    pub(super) previous_end: u64,
    /// Points of the file, the first at its first group, the others about [`MARK_BYTES`] apart.
    marks: Vec<Point>,
    /// By partition, where each record stands: from an open, which reads all of them, to the first
    /// append. A start reads one partition after the other, and by this each byte once for all.
    places: Option<Vec<Vec<Place>>>,
}

impl Segment {
    pub(super) fn new(path: &Path, header: &Header) -> Self {
        let Header { number, previous_end, ref start, .. } = *header;
        Self { path: path.to_owned(), number, previous_end, marks: vec![start.clone()], places: None }
    }

    /// Notes where the records of the next group stand.
    pub(super) fn note(&mut self, group: &[(Partition, Place)]) {
        let partitions = self.marks[0].next.len();
        let places = self.places.get_or_insert_with(|| vec![Vec::new(); partitions]);
        group.iter().for_each(|(partition, place)| places[*partition as usize].push(*place));
    }

    /// Where the records of a partition stand, in order, if that is known.
    pub(super) fn places(&self, partition: Partition) -> Option<&[Place]> {
        self.places.as_ref().map(|places| &places[partition as usize][..])
    }

    pub(super) fn forget_places(&mut self) {
        self.places = None;
    }

    /// The point where the segment begins.
    pub(super) fn start(&self) -> &Point {
        &self.marks[0]
    }

    /// Notes a point if it is far enough behind the last one that was noted.
    pub(super) fn mark(&mut self, point: &Point) {
        // A mark costs 8 bytes for each partition; it may not outweigh what it saves.
        let apart = MARK_BYTES.max(point.next.len() as u64 * 1024);
        if self.marks.last().is_none_or(|last| point.position >= last.position + apart) {
            self.marks.push(point.clone());
        }
    }

    /// Notes a point whatever was noted before it.
    pub(super) fn mark_end(&mut self, point: &Point) {
        if self.marks.last().is_none_or(|last| point.position > last.position) {
            self.marks.push(point.clone());
        }
    }

    /// The stretches of the segment that hold records of `partition` at or behind `from`: where
    /// each begins and the position where it ends. The segment ends at `end` with the offsets `next`.
    pub(super) fn stretches<'s>(
        &'s self,
        end: u64,
        next: &'s [Offset],
        partition: Partition,
        from: Offset,
    ) -> impl Iterator<Item = (&'s Point, u64)> {
        let partition = partition as usize;
        let ends = self.marks[1..].iter().map(move |mark| (mark.position, mark.next[partition]));
        let ends = ends.chain([(end, next[partition])]);
        self.marks.iter().zip(ends).filter_map(move |(begin, (end, next))| {
            let holds = begin.next[partition] < next && from < next;
            holds.then_some((begin, end))
        })
    }
}
