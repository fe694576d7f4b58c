//! The log: appending groups, going on in the next segment, reading, trimming.

use std::{
    any::Any,
    collections::VecDeque,
    fmt, io,
    path::{Path, PathBuf},
};

use statefn_core::{
    limits::FRAME_BYTES_MAX,
    ports::log::{AppendError, Log, Offset, Partition, ReadError, Record},
};

use super::{
    OpenError, Report,
    disk::{self, Disk, DiskFile, RealDisk, read_full_at, write_all_at},
    identity,
    recovery::{Recovered, Recovery, create_segment},
    segment::{self, Group, Groups, Header, Place, Point, Segment, Step},
    superblock::{Durable, Superblock},
};
use crate::{
    failpoint::failpoint,
    rules::{self, Rule},
};

/// How far ahead zeros are written, in bytes: a sync of bytes that were written before needs no
/// change of the file's metadata, which is what makes small syncs fast.
const ZEROS_AHEAD_BYTES: u64 = 1 << 20;
/// From this size on a group is written without zeros ahead: it would only be written twice.
const ZEROS_AHEAD_GROUP_BYTES_MAX: usize = 128 << 10;
/// How large the buffer for groups may stay between appends, in bytes.
const BUFFER_BYTES_KEPT_MAX: usize = 32 << 20;

/// How to open a log.
#[derive(Debug, Clone)]
pub struct Options {
    pub(super) app: String,
    pub(super) shards: u32,
    pub(super) segment_bytes: u64,
}

impl Options {
    /// The log of `app`, with a partition for each of its `shards`.
    #[must_use]
    pub fn new(app: &str, shards: u32) -> Self {
        Self { app: app.to_owned(), shards, segment_bytes: 64 << 20 }
    }

    /// Sets the length of a segment file in bytes, 64 MiB if not set; a group that is larger gets
    /// a segment of its own. Space is given back segment by segment. May differ at each open.
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }
}

/// A log in a directory of this machine; see [the module](super) for its format and promises.
///
/// One value at a time has a directory open, in all processes; every call blocks.
///
/// ```
/// use statefn_core::ports::log::{Log, Record};
/// use statefn_runtime::embedded::{EmbeddedLog, Options};
///
/// let directory = tempfile::tempdir().unwrap();
/// let options = Options::new("bank", 64);
/// let (mut log, report) = EmbeddedLog::open(directory.path(), &options).unwrap();
/// assert!(report.created);
/// log.append(&[Record { partition: 7, bytes: b"frame" }]).unwrap();
/// drop(log);
///
/// let (log, report) = EmbeddedLog::open(directory.path(), &options).unwrap();
/// assert_eq!((log.end(7), report.records), (1, 1));
/// ```
pub struct EmbeddedLog {
    disk: Box<dyn Disk>,
    directory: PathBuf,
    log_id: u64,
    segment_bytes: u64,
    /// From the oldest to the one that is written; never empty.
    segments: VecDeque<Segment>,
    /// Behind the last acknowledged group.
    tip: Point,
    /// The file of the last segment.
    active: Box<dyn DiskFile>,
    active_length: u64,
    /// Up to where zeros or groups were written.
    active_written_to: u64,
    /// What stands in the last segment behind the tip is void, and a next segment that says so may
    /// be half made: nothing else is written before it is whole.
    must_rotate: bool,
    superblock: Superblock,
    trim_points: Vec<Offset>,
    /// The last removal of a segment may not be durable yet.
    removal_is_pending: bool,
    buffer: Vec<u8>,
    _lock: Box<dyn Any + Send>,
}

impl EmbeddedLog {
    /// Opens the log in `directory`, or creates it there; reads and checks all of it.
    ///
    /// # Errors
    /// Each [`OpenError`]; a log that lost acknowledged records is never opened.
    ///
    /// # Panics
    /// If `options` ask for no shard.
    pub fn open(directory: impl AsRef<Path>, options: &Options) -> Result<(Self, Report), OpenError> {
        Self::open_on(Box::new(RealDisk), directory.as_ref(), options)
    }

    pub(crate) fn open_on(
        disk: Box<dyn Disk>,
        directory: &Path,
        options: &Options,
    ) -> Result<(Self, Report), OpenError> {
        assert!(options.shards > 0, "a log needs at least one shard");
        disk::ensure_root(&*disk, directory).map_err(OpenError::at(directory))?;
        let entries = disk.entries(directory).map_err(OpenError::at(directory))?;
        identity::check_is_ours(directory, &entries)?;
        let lock = disk.lock(&directory.join(identity::LOCK_NAME)).map_err(OpenError::at(directory))?;
        let Some(lock) = lock else {
            return Err(OpenError::InUse { directory: directory.to_owned() });
        };
        failpoint("start/directory-locked");
        let identity = identity::establish(&*disk, directory, &options.app, options.shards)?;
        let log_id = identity.log_id();
        let recovered = Recovery { disk: &*disk, directory, log_id, options }.run()?;
        let Recovered { segments, tip, active, superblock, report } = recovered;
        let log = Self {
            log_id,
            segment_bytes: options.segment_bytes,
            active_length: active.length().map_err(OpenError::at(directory))?,
            active_written_to: tip.position,
            must_rotate: report.cut.is_some(),
            trim_points: vec![0; tip.next.len()],
            directory: directory.to_owned(),
            disk,
            segments,
            tip,
            active,
            superblock,
            removal_is_pending: false,
            buffer: Vec::new(),
            _lock: lock,
        };
        Ok((log, report))
    }

    /// Notes on disk how far the log is durable, so that the next open notices a loss of what was
    /// acknowledged until now. Cheap when nothing was appended; call it once a second. It costs a
    /// sync, so call it where no append waits.
    ///
    /// # Errors
    /// A text that names the file and the cause; nothing is lost, call it again.
    pub fn sync_superblock(&mut self) -> Result<(), String> {
        self.superblock.write(self.durable()).map_err(|error| {
            let path = self.directory.join(super::superblock::FILE_NAME);
            format!("cannot write `{}`: {error}", path.display())
        })
    }

    /// Calls `each` with every record that is kept, reading each file once; records of a partition
    /// come in order.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] if bytes are bad or cannot be read.
    pub fn scan(&self, each: &mut dyn FnMut(Partition, Offset, &[u8])) -> Result<(), ReadError> {
        for (index, segment) in self.segments.iter().enumerate() {
            let end = self.end_of(index).position;
            let stretches = [(segment.start(), end)].into_iter();
            self.read_stretches(segment, end, stretches, each)?;
        }
        Ok(())
    }

    /// Returns the bytes that the segment files take up, without what is preallocated.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (0..self.segments.len()).map(|index| self.end_of(index).position).sum()
    }

    /// Returns the partitions whose records keep the oldest segment from being removed, as far as
    /// it is not the one that is written. A partition that gets few records would hold back the
    /// log for ever: snapshot and trim what is named here when [`Self::bytes`] has become too much.
    #[must_use]
    pub fn held_by(&self) -> Vec<Partition> {
        let Some(second) = self.segments.get(1) else {
            return Vec::new();
        };
        let holds = |partition: &Partition| self.holds(&second.start().next, *partition);
        (0..self.tip.next.len() as Partition).filter(holds).collect()
    }

    /// Says whether the oldest segment, which ends with the offsets `next`, has records of
    /// `partition` that were not trimmed.
    fn holds(&self, next: &[Offset], partition: Partition) -> bool {
        let partition = partition as usize;
        let begins = self.segments[0].start().next[partition];
        begins < next[partition] && self.trim_points[partition] < next[partition]
    }

    /// The point up to which everything was acknowledged.
    fn durable(&self) -> Durable {
        let sequence = self.tip.sequence - 1;
        Durable { segment: self.last_number(), sequence, end: self.tip.position }
    }

    fn last_number(&self) -> u64 {
        self.segments.back().map_or(0, |segment| segment.number)
    }

    /// Writes a group at the tip and syncs it; the tip moves only if both succeeded.
    fn write_group(&mut self, records: &[Record<'_>], length: usize) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut tip = self.tip.clone();
        tip.advance(&Group::encode(&mut buffer, self.log_id, &self.tip, records));
        self.add_zeros_ahead(&mut buffer, length);
        // Until the sync has returned, nobody knows what is behind the tip.
        self.must_rotate = true;
        let written = write_all_at(&*self.active, &buffer, self.tip.position).and_then(|()| {
            failpoint("log/group-written");
            if rules::holds(Rule::GroupsAreSynced) { self.active.sync() } else { Ok(()) }
        });
        let written_to = self.tip.position + buffer.len() as u64;
        buffer.clear();
        buffer.shrink_to(BUFFER_BYTES_KEPT_MAX);
        self.buffer = buffer;
        written?;
        failpoint("log/group-synced");
        self.must_rotate = false;
        self.active_written_to = self.active_written_to.max(written_to);
        self.tip = tip;
        if let Some(segment) = self.segments.back_mut() {
            segment.mark(&self.tip);
        }
        Ok(())
    }

    fn add_zeros_ahead(&self, buffer: &mut Vec<u8>, length: usize) {
        let end = self.tip.position + length as u64;
        if length <= ZEROS_AHEAD_GROUP_BYTES_MAX && end > self.active_written_to {
            let to = (end + ZEROS_AHEAD_BYTES).min(self.active_length).max(end);
            buffer.resize((to - self.tip.position) as usize, 0);
        }
    }

    /// Goes on in a new segment, which is whole and durable when this returns, with room for a
    /// group of `length` bytes. May be repeated after a failure, at any step.
    fn rotate(&mut self, length: usize) -> io::Result<()> {
        // A new file that was named but whose directory could not be synced may be there after a
        // crash: from here on only the same step again is right.
        self.must_rotate = true;
        failpoint("rotation/begin");
        self.superblock.write(self.durable())?;
        failpoint("rotation/superblock-written");
        let number = self.last_number() + 1;
        let start = self.tip.at_segment_start();
        let header = Header { log_id: self.log_id, number, previous_end: self.tip.position, start };
        let path = self.directory.join(segment::file_name(number));
        let file_length = self.segment_bytes.max(header.start.position + length as u64);
        let active = create_segment(&*self.disk, &path, &header, file_length)?;
        failpoint("rotation/segment-created");
        // Gives back what was preallocated. The new header says where the file ends, so it does
        // not matter whether this succeeds.
        _ = self.active.set_length(self.tip.position);
        failpoint("rotation/segment-before-shortened");
        self.segments.push_back(Segment::new(&path, &header));
        self.tip = header.start;
        self.active = active;
        self.active_length = file_length;
        self.active_written_to = self.tip.position;
        self.must_rotate = false;
        Ok(())
    }

    fn refused(&self, doing: &str, error: io::Error) -> AppendError {
        AppendError::Refused(format!(
            "cannot {doing} in `{}`: {error}; nothing of the group stands, it may be given again once the cause is gone",
            self.directory.display()
        ))
    }

    /// Returns where a segment ends.
    fn end_of(&self, index: usize) -> End<'_> {
        match self.segments.get(index + 1) {
            None => End { position: self.tip.position, next: &self.tip.next },
            Some(next) => End { position: next.previous_end, next: &next.start().next },
        }
    }

    /// Reads the records of a partition whose length is wanted.
    fn read_if(
        &self,
        partition: Partition,
        from: Offset,
        is_wanted: impl Fn(usize) -> bool,
        each: &mut dyn FnMut(Offset, &[u8]),
    ) -> Result<(), ReadError> {
        let start = self.start(partition);
        if from < start {
            return Err(ReadError::Trimmed { partition, wanted: from, start });
        }
        for (index, segment) in self.segments.iter().enumerate() {
            if let Some(places) = segment.places(partition) {
                let first = segment.start().next[partition as usize];
                let wanted = (first..).zip(places);
                let wanted = wanted.filter(|(offset, place)| *offset >= from && is_wanted(place.length as usize));
                self.read_places(segment, wanted, &mut *each)?;
                continue;
            }
            let End { position, next } = self.end_of(index);
            let stretches = segment.stretches(position, next, partition, from);
            let mut pick = |of: Partition, offset, bytes: &[u8]| {
                if of == partition && offset >= from && is_wanted(bytes.len()) {
                    each(offset, bytes);
                }
            };
            self.read_stretches(segment, position, stretches, &mut pick)?;
        }
        Ok(())
    }

    /// Reads stretches of one segment, in order.
    fn read_stretches<'s>(
        &self,
        segment: &Segment,
        end: u64,
        stretches: impl Iterator<Item = (&'s Point, u64)>,
        each: &mut dyn FnMut(Partition, Offset, &[u8]),
    ) -> Result<(), ReadError> {
        let mut stretches = stretches.peekable();
        if stretches.peek().is_none() {
            return Ok(());
        }
        let file = self.disk.open(&segment.path).map_err(|error| damaged(segment, 0, error))?;
        let mut groups = Groups::new(&*file, self.log_id, end);
        for (begin, end) in stretches {
            let mut at = begin.clone();
            while at.position < end {
                match groups.at(&at).map_err(|error| damaged(segment, at.position, error))? {
                    Step::Bad(wrong) => return Err(damaged(segment, at.position, wrong)),
                    Step::Whole(group) => deliver(group, &mut at, each),
                }
            }
        }
        Ok(())
    }

    /// Reads records by their places.
    fn read_places<'s>(
        &self,
        segment: &Segment,
        places: impl Iterator<Item = (Offset, &'s Place)>,
        mut each: impl FnMut(Offset, &[u8]),
    ) -> Result<(), ReadError> {
        let mut places = places.peekable();
        if places.peek().is_none() {
            return Ok(());
        }
        let file = self.disk.open(&segment.path).map_err(|error| damaged(segment, 0, error))?;
        let mut bytes = Vec::new();
        for (offset, Place { position, length, crc }) in places {
            let length = *length as usize;
            if bytes.len() < length {
                bytes.resize(length, 0);
            }
            let record = &mut bytes[..length];
            let filled = read_full_at(&*file, record, *position).map_err(|error| damaged(segment, *position, error))?;
            if filled < length || crc32c::crc32c(record) != *crc {
                return Err(damaged(segment, *position, "a record is not what it was when the log was opened"));
            }
            each(offset, record);
        }
        Ok(())
    }

    /// Removes the oldest segment if no record in it is wanted; says whether it did.
    fn remove_oldest(&mut self) -> Result<bool, String> {
        let Some(second) = self.segments.get(1) else {
            return Ok(false);
        };
        let next = &second.start().next;
        if (0..next.len() as Partition).any(|partition| self.holds(next, partition)) {
            return Ok(false);
        }
        let path = &self.segments[0].path;
        // A removed file may come back in a crash, but not with a gap behind it: the removal
        // before is made durable first.
        if std::mem::replace(&mut self.removal_is_pending, true)
            && rules::holds(Rule::RemovalsAreSynced)
            && let Err(error) = self.disk.sync_directory(&self.directory)
        {
            return Err(format!("cannot sync `{}` to remove more: {error}", self.directory.display()));
        }
        failpoint("trim/unlink");
        match self.disk.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(format!("cannot remove the segment `{}`: {error}", path.display()));
            }
            _ => _ = self.segments.pop_front(),
        }
        failpoint("trim/unlinked");
        Ok(true)
    }
}

impl Log for EmbeddedLog {
    fn append(&mut self, group: &[Record<'_>]) -> Result<Vec<Offset>, AppendError> {
        check(group, self.tip.next.len())?;
        if group.is_empty() {
            return Ok(Vec::new());
        }
        self.segments.iter_mut().for_each(Segment::forget_places);
        let length = Group::length_of(group);
        if self.must_rotate || self.tip.position + length as u64 > self.active_length {
            self.rotate(length).map_err(|error| self.refused("start a new segment", error))?;
        }
        let offsets = offsets(&self.tip.next, group);
        if let Err(error) = self.write_group(group, length) {
            // Cut at once, so that the group is gone even if no append follows. If this fails too,
            // the next append begins with it.
            _ = self.rotate(length);
            return Err(self.refused("write a group", error));
        }
        Ok(offsets)
    }

    fn read(
        &mut self,
        partition: Partition,
        from: Offset,
        each: &mut dyn FnMut(Offset, &[u8]),
    ) -> Result<(), ReadError> {
        self.read_if(partition, from, |_| true, each)
    }

    fn read_short(
        &mut self,
        partition: Partition,
        from: Offset,
        bytes_max: usize,
        each: &mut dyn FnMut(Offset, &[u8]),
    ) -> Result<(), ReadError> {
        self.read_if(partition, from, |length| length <= bytes_max, each)
    }

    /// # Panics
    /// If there is no such partition.
    fn start(&self, partition: Partition) -> Offset {
        self.segments[0].start().next[partition as usize]
    }

    /// # Panics
    /// If there is no such partition.
    fn end(&self, partition: Partition) -> Offset {
        self.tip.next[partition as usize]
    }

    /// Only notes the point, in memory; segment files are removed, the oldest first, when every
    /// record in them is before the points of their partitions. After an open, give the points
    /// again. The segment that is written is never removed.
    fn trim(&mut self, partition: Partition, before: Offset) -> Result<(), String> {
        let point = &mut self.trim_points[partition as usize];
        *point = before.min(self.tip.next[partition as usize]).max(*point);
        while self.remove_oldest()? {}
        Ok(())
    }
}

impl fmt::Debug for EmbeddedLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EmbeddedLog({})", self.directory.display())
    }
}

impl Drop for EmbeddedLog {
    /// A clean stop leaves a superblock that is up to date; one that is not is no error.
    fn drop(&mut self) {
        if let Err(error) = self.sync_superblock() {
            tracing::warn!(error, "the superblock is behind the log; the next open reads on from there");
        }
    }
}

/// Where a segment ends: in its file, and the next offset of each partition there.
struct End<'a> {
    position: u64,
    next: &'a [Offset],
}

/// Refuses records that no log can hold, before anything is written.
fn check(group: &[Record<'_>], partitions: usize) -> Result<(), AppendError> {
    for Record { partition, bytes } in group {
        if *partition as usize >= partitions {
            let message = format!("there is no partition {partition}, the log has {partitions}");
            return Err(AppendError::Refused(message));
        }
        if bytes.is_empty() || bytes.len() > FRAME_BYTES_MAX {
            let length = bytes.len();
            let message = format!("a record of {length} bytes; it must have 1 to {FRAME_BYTES_MAX}");
            return Err(AppendError::Refused(message));
        }
    }
    Ok(())
}

/// Returns the offset that each record of the group gets.
fn offsets(next: &[Offset], group: &[Record<'_>]) -> Vec<Offset> {
    let mut next = next.to_vec();
    let mut take = |record: &Record<'_>| {
        let offset = next[record.partition as usize];
        next[record.partition as usize] += 1;
        offset
    };
    group.iter().map(&mut take).collect()
}

/// Hands out the records of a group and moves behind it.
fn deliver(group: Group<'_>, at: &mut Point, each: &mut dyn FnMut(Partition, Offset, &[u8])) {
    for (partition, bytes) in group.records() {
        let next = &mut at.next[partition as usize];
        each(partition, *next, bytes);
        *next += 1;
    }
    at.step_over(&group);
}

fn damaged(segment: &Segment, offset: u64, what: impl fmt::Display) -> ReadError {
    let path = segment.path.display();
    ReadError::Damaged(format!("`{path}` is damaged at byte {offset}: {what}; restore the directory from a copy"))
}
