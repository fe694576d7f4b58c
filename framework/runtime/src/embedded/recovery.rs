//! Opening a log: what is there, is it whole, and where does it go on?
//!
//! Invariants: opening changes nothing until the log has been found good; what it hands back as
//! the log's end is durable.
//!
//! Deliberately absent: repair. A log that lost acknowledged records is for a person to judge.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
};

use super::{
    OpenError,
    disk::{Disk, DiskFile, Entry, TEMPORARY_SUFFIX, publish, read_full_at, write_all_at},
    log::Options,
    segment::{self, Groups, Header, Passed, Point, Rest, Segment},
    superblock::{self, Durable, Superblock},
};
use crate::failpoint::failpoint;

/// How much of a group is written again in one go, in bytes.
const PIECE_BYTES: usize = 1 << 20;

/// What an open found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The log was created by this open.
    pub created: bool,
    /// The number of segment files.
    pub segments: u64,
    /// The bytes of the groups in them.
    pub bytes: u64,
    /// The records in them, of all partitions.
    pub records: u64,
    /// The end of the log that a crash had left half written, if there was one.
    pub cut: Option<Cut>,
}

/// A write that was cut short by a crash; none of its records was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The segment file.
    pub file: PathBuf,
    /// Where in it the half group begins.
    pub offset: u64,
    /// How many bytes of it were there.
    pub bytes: u64,
}

/// A log that was found good.
pub(super) struct Recovered {
    pub(super) segments: VecDeque<Segment>,
    /// Where the log goes on, in the last segment.
    pub(super) tip: Point,
    /// The file of the last segment.
    pub(super) active: Box<dyn DiskFile>,
    pub(super) superblock: Superblock,
    pub(super) report: Report,
}

/// The place that is recovered, and what all steps need.
pub(super) struct Recovery<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) directory: &'a Path,
    pub(super) log_id: u64,
    pub(super) options: &'a Options,
}

/// A segment file and its header.
struct Found {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    header: Header,
}

impl Recovery<'_> {
    /// Opens the log that is there, or makes the first segment and superblock of a new one.
    pub(super) fn run(&self) -> Result<Recovered, OpenError> {
        let entries = self.disk.entries(self.directory).map_err(OpenError::at(self.directory))?;
        self.remove_leftovers(&entries)?;
        let mut numbers: Vec<u64> = entries.iter().filter_map(|entry| segment::number_of(&entry.name)).collect();
        numbers.sort_unstable();
        let superblock_path = self.directory.join(superblock::FILE_NAME);
        match Superblock::open(self.disk, &superblock_path, self.log_id)? {
            None => self.create(&superblock_path, &numbers),
            Some(superblock) => self.recover(superblock, &numbers),
        }
    }

    /// Removes what a crash left of files that were being written.
    fn remove_leftovers(&self, entries: &[Entry]) -> Result<(), OpenError> {
        for entry in entries.iter().filter(|entry| entry.name.ends_with(TEMPORARY_SUFFIX)) {
            let path = self.directory.join(&entry.name);
            self.disk.remove(&path).map_err(OpenError::at(&path))?;
        }
        Ok(())
    }

    /// Creates a log, or finishes a creation that a crash cut short: the superblock comes last.
    fn create(&self, superblock_path: &Path, numbers: &[u64]) -> Result<Recovered, OpenError> {
        self.check_nothing_was_appended(superblock_path, numbers)?;
        let tip = Point::origin(self.options.shards);
        let header = Header { log_id: self.log_id, number: 1, previous_end: 0, start: tip.clone() };
        let path = self.directory.join(segment::file_name(1));
        let active =
            create_segment(self.disk, &path, &header, self.options.segment_bytes).map_err(OpenError::at(&path))?;
        failpoint("start/first-segment-created");
        let durable = Durable { segment: 1, sequence: 0, end: tip.position };
        let superblock = Superblock::create(self.disk, superblock_path, self.log_id, durable)
            .map_err(OpenError::at(superblock_path))?;
        failpoint("start/superblock-created");
        let segments = VecDeque::from([Segment::new(&path, &header)]);
        let report = Report { created: true, segments: 1, bytes: 0, records: 0, cut: None };
        Ok(Recovered { segments, tip, active, superblock, report })
    }

    /// The first group is appended only when the superblock is there, so records without one are
    /// those of a log that lost it.
    fn check_nothing_was_appended(&self, superblock_path: &Path, numbers: &[u64]) -> Result<(), OpenError> {
        let lost = || Err(OpenError::damaged(superblock_path, 0, "it is missing, though the log has records"));
        let number = match numbers {
            [] => return Ok(()),
            [number] => *number,
            _ => return lost(),
        };
        let path = self.directory.join(segment::file_name(number));
        let file = self.disk.open(&path).map_err(OpenError::at(&path))?;
        let start = Point::origin(self.options.shards);
        match segment::examine_rest(&*file, self.log_id, &start).map_err(OpenError::at(&path))? {
            Rest::Zeros if number == 1 => Ok(()),
            _ => lost(),
        }
    }

    fn recover(&self, superblock: Superblock, numbers: &[u64]) -> Result<Recovered, OpenError> {
        let durable = superblock.durable();
        let mut found = self.read_headers(numbers)?;
        let Some(first) = found.first() else {
            let path = self.directory.join(segment::file_name(durable.segment));
            return Err(OpenError::damaged(&path, 0, "the file is missing, and so is every other segment"));
        };
        let mut tip = first.header.start.clone();
        let mut report = Report { created: false, segments: found.len() as u64, bytes: 0, records: 0, cut: None };
        let mut segments = VecDeque::new();
        let mut last_group = None;
        for (index, Found { path, file, header }) in found.iter().enumerate() {
            check_follows(path, header, &tip)?;
            tip = header.start.clone();
            let mut segment = Segment::new(path, header);
            let end = self.end_of(path, &**file, found.get(index + 1))?;
            let walk = self.walk(&**file, &mut segment, &mut tip, end, &mut report).map_err(OpenError::at(path))?;
            match (walk.bad, found.get(index + 1)) {
                (Some(wrong), Some(_)) => return Err(OpenError::damaged(path, tip.position, wrong)),
                (Some(wrong), None) => report.cut = self.judge_end(path, &**file, &tip, wrong, durable)?,
                (None, _) => {}
            }
            if index + 1 == found.len() {
                // Whoever took over what is there reads on from here.
                segment.mark_end(&tip);
            }
            segments.push_back(segment);
            last_group = walk.last_group;
        }
        let Found { path, file: active, .. } = found.swap_remove(segments.len() - 1);
        check_nothing_lost(&path, &tip, durable)?;
        self.settle(&*active, last_group, &tip, durable).map_err(OpenError::at(&path))?;
        Ok(Recovered { segments, tip, active, superblock, report })
    }

    fn read_headers(&self, numbers: &[u64]) -> Result<Vec<Found>, OpenError> {
        let mut found: Vec<Found> = Vec::with_capacity(numbers.len());
        for number in numbers {
            let path = self.directory.join(segment::file_name(*number));
            if found.last().is_some_and(|before| before.header.number + 1 != *number) {
                let missing = self.directory.join(segment::file_name(number - 1));
                return Err(OpenError::damaged(&missing, 0, "the file is missing, but segments around it are there"));
            }
            let file = self.disk.open(&path).map_err(OpenError::at(&path))?;
            let header = self.read_header(&*file, &path)?;
            if header.number != *number || header.log_id != self.log_id {
                return Err(OpenError::damaged(&path, 0, "the segment belongs to another log or another place in it"));
            }
            found.push(Found { path, file, header });
        }
        Ok(found)
    }

    fn read_header(&self, file: &dyn DiskFile, path: &Path) -> Result<Header, OpenError> {
        let mut bytes = vec![0; segment::header_bytes(self.options.shards as usize) as usize];
        let filled = read_full_at(file, &mut bytes, 0).map_err(OpenError::at(path))?;
        Header::decode(&bytes[..filled], self.options.shards).map_err(|wrong| OpenError::damaged(path, 0, wrong))
    }

    /// Returns where a segment ends: where the next one says, or at the end of the file at most.
    fn end_of(&self, path: &Path, file: &dyn DiskFile, next: Option<&Found>) -> Result<u64, OpenError> {
        let length = file.length().map_err(OpenError::at(path))?;
        match next {
            None => Ok(length),
            Some(next) if next.header.previous_end <= length => Ok(next.header.previous_end),
            Some(next) => {
                let end = next.header.previous_end;
                let what = format!("the file ends here, but the segment goes to byte {end} as the next one says");
                Err(OpenError::damaged(path, length, what))
            }
        }
    }

    /// Reads the groups of a segment up to its end or the first bad one; `tip` moves along.
    fn walk(
        &self,
        file: &dyn DiskFile,
        segment: &mut Segment,
        tip: &mut Point,
        end: u64,
        report: &mut Report,
    ) -> io::Result<Walk> {
        let mut groups = Groups::new(file, self.log_id, end);
        let (mut last_group, mut places) = (None, Vec::new());
        while tip.position < end {
            let begin = tip.position;
            match groups.pass(tip, &mut places)? {
                Passed::Whole(length) => report.bytes += length,
                Passed::Bad(wrong) => return Ok(Walk { bad: Some(wrong), last_group }),
            }
            last_group = Some(begin);
            report.records += places.len() as u64;
            segment.note(&places);
            segment.mark(tip);
        }
        Ok(Walk { bad: None, last_group })
    }

    /// Decides what a bad group in the last segment is: the clean end, a torn write, or damage.
    fn judge_end(
        &self,
        path: &Path,
        file: &dyn DiskFile,
        tip: &Point,
        wrong: &str,
        durable: Durable,
    ) -> Result<Option<Cut>, OpenError> {
        match segment::examine_rest(file, self.log_id, tip).map_err(OpenError::at(path))? {
            Rest::LaterGroup { at } => {
                let what = format!("{wrong}, but a good group that came later begins at byte {at}");
                Err(OpenError::damaged(path, tip.position, what))
            }
            Rest::Zeros => Ok(None),
            Rest::Torn { to } => {
                check_nothing_lost(path, tip, durable)?;
                let (offset, bytes) = (tip.position, to - tip.position);
                tracing::warn!(file = %path.display(), offset, bytes, "left behind a write that a crash cut short; it was never acknowledged");
                Ok(Some(Cut { file: path.to_owned(), offset, bytes }))
            }
        }
    }

    /// Makes durable what was read, as far as the superblock does not say that it is.
    fn settle(&self, active: &dyn DiskFile, last_group: Option<u64>, tip: &Point, durable: Durable) -> io::Result<()> {
        if let Some(from) = last_group.filter(|_| tip.sequence - 1 > durable.sequence) {
            let mut piece = vec![0; PIECE_BYTES.min((tip.position - from) as usize)];
            for at in (from..tip.position).step_by(PIECE_BYTES) {
                let piece = &mut piece[..PIECE_BYTES.min((tip.position - at) as usize)];
                if read_full_at(active, piece, at)? < piece.len() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                write_all_at(active, piece, at)?;
            }
            failpoint("start/last-group-written-again");
            active.sync()?;
        }
        self.disk.sync_directory(self.directory)
    }
}

/// How far a walk through a segment came.
struct Walk {
    /// What is wrong behind the last good group; `None` if the segment is full of groups.
    bad: Option<&'static str>,
    /// Where the last good group begins.
    last_group: Option<u64>,
}

fn check_follows(path: &Path, header: &Header, tip: &Point) -> Result<(), OpenError> {
    if header.start == tip.at_segment_start() {
        return Ok(());
    }
    Err(OpenError::damaged(path, 0, "the segment does not go on where the one before ends"))
}

fn check_nothing_lost(path: &Path, tip: &Point, durable: Durable) -> Result<(), OpenError> {
    let found = tip.sequence - 1;
    if found >= durable.sequence {
        return Ok(());
    }
    Err(OpenError::LostRecords { file: path.to_owned(), offset: tip.position, found, durable: durable.sequence })
}

/// Creates a segment file with its header, durably, whole or not at all.
pub(super) fn create_segment(
    disk: &dyn Disk,
    path: &Path,
    header: &Header,
    length: u64,
) -> io::Result<Box<dyn DiskFile>> {
    publish(disk, path, |file| {
        file.allocate(length.max(header.start.position))?;
        write_all_at(file, &header.encode(), 0)?;
        failpoint("rotation/segment-filled");
        Ok(())
    })
}
