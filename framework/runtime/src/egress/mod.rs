//! The exactly-once file egress: one writer for all shards and all egresses of an app.
//!
//! Records of committed epochs are buffered. [`FileEgress::sync`] writes the lines of all files,
//! makes them durable, and then makes a *mark* durable, which says how long each file is and up to
//! which epoch each shard is taken:
//!
//! ```text
//! file   | lines of taken epochs            | lines that no mark knows |
//!        0                                  length in the mark         end
//! mark   { length of each file, epoch of each shard }
//! ```
//!
//! An egress that cannot be written falls behind the others, which the mark says too.
//!
//! After a crash each file is cut at its mark and the epochs behind the mark are written again from
//! the journal. The mark is what makes a line stand, so each line stands exactly once.
//!
//! Invariants:
//! - `taken` only moves when a mark that says so is durable, so the journal may be trimmed up to it.
//! - Bytes before the mark are never written again with other content; no byte of a file that this
//!   app did not begin is ever changed.
//! - The lines of a shard stand in the order of its epochs.
//!
//! Deliberately absent: rotation and compression of files, an order between shards, and a lock
//! against a second process, which the lock of the data directory is.

pub(crate) mod disk;
mod error;
mod mark;
mod sink;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use statefn_core::{Encoding, address::ShardId};

pub use self::error::EgressError;
use self::{
    disk::{Disk, RealDisk},
    mark::{Mark, MarkFiles},
    sink::Sink,
};
use crate::{
    failpoint::failpoint,
    rules::{self, Rule},
};

/// Where the records of an egress go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Into a file, exactly once.
    File(PathBuf),
    /// To standard output, at least once: after a crash the newest lines may come again. Records
    /// that are no JSON are written in base64.
    Console,
    /// Nowhere: records are counted and dropped, for measurements.
    Counter,
}

/// An egress and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkSpec {
    /// The name of the egress.
    pub name: String,
    /// JSON records become lines; protobuf records stand behind their length as a varint.
    pub encoding: Encoding,
    /// Where they go.
    pub place: Place,
}

/// What an egress has written since it was opened; it counts what a mark covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// Records.
    pub records: u64,
    /// Bytes, line ends and lengths included.
    pub bytes: u64,
}

/// The writer of all egresses of an app.
///
/// An epoch is given by [`write`](Self::write) for each of its records and then
/// [`end_epoch`](Self::end_epoch), also if it has none. Epochs of different shards may interleave.
///
/// # Examples
/// ```
/// use statefn_core::Encoding;
/// use statefn_runtime::egress::{FileEgress, Place, SinkSpec};
/// # let directory = tempfile::tempdir()?;
/// # let directory = directory.path();
/// let file = directory.join("sales.jsonl");
/// let sink = SinkSpec { name: "sales".into(), encoding: Encoding::Json, place: Place::File(file.clone()) };
/// let mut egress = FileEgress::open(&directory.join("data"), vec![sink], 2)?;
/// egress.write(0, 1, 0, b"{\"cents\":3}");
/// egress.end_epoch(0, 1);
/// assert_eq!(egress.taken(0), 0);
/// egress.sync()?;
/// assert_eq!(egress.taken(0), 1);
/// assert_eq!(std::fs::read(file)?, b"{\"cents\":3}\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct FileEgress {
    sinks: Vec<Sink>,
    shards: Vec<ShardProgress>,
    marks: MarkFiles,
    /// The mark that is durable.
    mark: Mark,
}

/// How far a shard is.
#[derive(Debug, Default)]
struct ShardProgress {
    /// The highest epoch whose records are in the buffers.
    ended: u64,
    /// Records of an epoch that has not ended.
    open: OpenEpoch,
}

#[derive(Debug, Default)]
struct OpenEpoch {
    epoch: u64,
    /// The egress and the length of each record in `bytes`.
    records: Vec<(usize, usize)>,
    bytes: Vec<u8>,
}

impl OpenEpoch {
    fn begin(&mut self, epoch: u64) {
        self.epoch = epoch;
        self.records.clear();
        self.bytes.clear();
    }
}

impl FileEgress {
    /// Opens the files of an app and cuts each at its mark.
    ///
    /// The mark is kept in `mark_directory`, which is made if it is missing, as are the files. An
    /// egress that the mark does not know begins with a new file; a mark of an egress that is no
    /// longer there is kept.
    ///
    /// # Errors
    /// If a file is shorter than its mark, or has content that is not of this app, if two egresses
    /// have one file, if the mark is damaged, of a newer version or of another number of shards, or
    /// if the operating system says no. Nothing of a file was changed then that a mark covers.
    pub fn open(mark_directory: &Path, sinks: Vec<SinkSpec>, shards: u32) -> Result<Self, EgressError> {
        Self::open_on(&RealDisk, mark_directory, sinks, shards)
    }

    pub(crate) fn open_on(
        disk: &dyn Disk,
        mark_directory: &Path,
        sinks: Vec<SinkSpec>,
        shards: u32,
    ) -> Result<Self, EgressError> {
        check_paths(&sinks)?;
        let (marks, mark) = MarkFiles::open(disk, mark_directory, shards)?;
        let sinks = sinks.into_iter().map(|spec| Sink::open(disk, spec, &mark)).collect::<Result<Vec<_>, _>>()?;
        check_files(&sinks)?;
        let progress = mark.taken.iter().map(|taken| ShardProgress { ended: *taken, ..ShardProgress::default() });
        let mut egress = Self { sinks, shards: progress.collect(), marks, mark };
        // Before a new file gets its first line a mark must know it, or that line would be foreign.
        if egress.sinks.iter().any(|sink| !sink.is_known_to(&egress.mark)) {
            let all = vec![true; egress.sinks.len()];
            egress.make_mark(&all)?;
        }
        Ok(egress)
    }

    /// The epoch up to which the records of a shard are durable in all egresses; the journal is
    /// needed behind it.
    ///
    /// # Panics
    /// If there is no such shard.
    #[must_use]
    pub fn taken(&self, shard: ShardId) -> u64 {
        self.mark.taken[shard as usize]
    }

    /// How many shards the app has.
    #[must_use]
    pub fn shards(&self) -> u32 {
        self.shards.len() as u32
    }

    /// Forgets the records of an epoch of this shard that has not ended, and returns the last epoch
    /// that need not be given again in this process.
    ///
    /// A host that starts again calls it before it replays.
    ///
    /// # Panics
    /// If there is no such shard.
    pub fn restart(&mut self, shard: ShardId) -> u64 {
        let progress = &mut self.shards[shard as usize];
        progress.open.begin(0);
        progress.ended
    }

    /// Buffers a record of a confirmed epoch; one of an epoch that has ended before is ignored.
    ///
    /// `egress` is the place of the egress in what was opened.
    ///
    /// # Panics
    /// If there is no such shard or egress, or if an epoch begins before the one before it has ended.
    pub fn write(&mut self, shard: ShardId, epoch: u64, egress: usize, record: &[u8]) {
        assert!(egress < self.sinks.len(), "there are {} egresses, no number {egress}", self.sinks.len());
        let progress = &mut self.shards[shard as usize];
        if epoch <= progress.ended {
            return;
        }
        let open = &mut progress.open;
        if open.epoch != epoch {
            assert!(open.records.is_empty(), "epoch {} of shard {shard} ends before {epoch} begins", open.epoch);
            open.begin(epoch);
        }
        open.records.push((egress, record.len()));
        open.bytes.extend_from_slice(record);
    }

    /// Ends an epoch: the next [`sync`](Self::sync) makes it stand as a whole.
    ///
    /// # Panics
    /// If there is no such shard, or if records of another epoch were written and not ended.
    pub fn end_epoch(&mut self, shard: ShardId, epoch: u64) {
        let progress = &mut self.shards[shard as usize];
        if epoch <= progress.ended {
            return;
        }
        let open = &mut progress.open;
        let mut bytes = &open.bytes[..];
        assert!(open.records.is_empty() || open.epoch == epoch, "epoch {} is open, not {epoch}", open.epoch);
        for &(egress, length) in &open.records {
            let (record, rest) = bytes.split_at(length);
            self.sinks[egress].push(shard, epoch, record);
            bytes = rest;
        }
        open.begin(0);
        progress.ended = epoch;
    }

    /// Buffers all records of a confirmed epoch and ends it; one that has ended before is ignored.
    ///
    /// Each record is the place of its egress and its bytes. It is what [`write`](Self::write) and
    /// [`end_epoch`](Self::end_epoch) do, without keeping the records until the epoch ends.
    ///
    /// # Panics
    /// If there is no such shard or egress, or if records of an epoch were written and not ended.
    pub fn write_epoch<'a>(&mut self, shard: ShardId, epoch: u64, records: impl Iterator<Item = (usize, &'a [u8])>) {
        let progress = &mut self.shards[shard as usize];
        assert!(progress.open.records.is_empty(), "epoch {} of shard {shard} is open", progress.open.epoch);
        if epoch <= progress.ended {
            return;
        }
        for (egress, record) in records {
            self.sinks[egress].push(shard, epoch, record);
        }
        progress.ended = epoch;
    }

    /// How many bytes wait for the next [`sync`](Self::sync).
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        let open = self.shards.iter().map(|shard| shard.open.bytes.len()).sum::<usize>();
        open + self.sinks.iter().map(Sink::buffered_bytes).sum::<usize>()
    }

    /// Whether an epoch has ended that is not taken.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.shards.iter().zip(&self.mark.taken).any(|(shard, taken)| shard.ended > *taken)
    }

    /// What the egress at this place has written since it was opened.
    ///
    /// # Panics
    /// If there is no such egress.
    #[must_use]
    pub fn written(&self, egress: usize) -> Written {
        self.sinks[egress].written()
    }

    /// Makes all ended epochs durable; then they are [`taken`](Self::taken).
    ///
    /// It blocks for the fsyncs: one for each file that got lines, one for the mark. An egress that
    /// cannot be written does not stop the others: their lines stand, and only `taken` waits for it.
    ///
    /// # Errors
    /// The first one, if the operating system says no, such as on a full disk. What does not stand
    /// is kept in memory, and calling it again goes on.
    pub fn sync(&mut self) -> Result<(), EgressError> {
        if !self.is_behind() {
            return Ok(());
        }
        let mut outcomes: Vec<_> = self.sinks.iter_mut().map(Sink::write_out).collect();
        failpoint("egress/lines-written");
        if rules::holds(Rule::MarkIsBehindTheLines) {
            self.make_lines_durable(&mut outcomes);
        }
        failpoint("egress/lines-synced");
        let ready: Vec<_> = outcomes.iter().map(Result::is_ok).collect();
        self.make_mark(&ready)?;
        failpoint("egress/mark-made");
        outcomes.into_iter().collect()
    }

    fn make_lines_durable(&self, outcomes: &mut [Result<(), EgressError>]) {
        let all = rules::holds(Rule::AllEgressFilesAreSynced);
        for (sink, outcome) in self.sinks.iter().skip(usize::from(!all)).zip(&mut outcomes[usize::from(!all)..]) {
            if outcome.is_ok() {
                *outcome = sink.make_durable();
            }
        }
    }

    /// Makes a mark durable that covers the buffers of those sinks that are ready.
    fn make_mark(&mut self, ready: &[bool]) -> Result<(), EgressError> {
        let ended: Vec<_> = self.shards.iter().map(|shard| shard.ended).collect();
        let reached = |(sink, ready): (&Sink, &bool)| match ready {
            true => sink.taken_with_buffer(&ended),
            false => sink.taken().to_vec(),
        };
        let reached: Vec<_> = self.sinks.iter().zip(ready).map(reached).collect();
        let mut mark = self.mark.clone();
        mark.taken = least(&reached, &ended);
        for ((sink, _), taken) in self.sinks.iter().zip(ready).zip(&reached).filter(|((_, ready), _)| **ready) {
            sink.enter_into(&mut mark, taken.clone());
        }
        if mark == self.mark {
            return Ok(());
        }
        mark.sequence += 1;
        self.marks.write(&mark)?;
        self.mark = mark;
        for ((sink, _), taken) in self.sinks.iter_mut().zip(ready).zip(reached).filter(|((_, ready), _)| **ready) {
            sink.forget_buffer(taken);
        }
        Ok(())
    }
}

/// Of each shard the epoch that all sinks have; if there is none, what has ended.
fn least(reached: &[Vec<u64>], ended: &[u64]) -> Vec<u64> {
    let of_shard = |shard: usize| reached.iter().map(|sink| sink[shard]).min().unwrap_or(ended[shard]);
    (0..ended.len()).map(of_shard).collect()
}

impl std::fmt::Debug for FileEgress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileEgress").field("mark", &self.mark).finish_non_exhaustive()
    }
}

fn check_paths(sinks: &[SinkSpec]) -> Result<(), EgressError> {
    for (at, sink) in sinks.iter().enumerate() {
        let Place::File(path) = &sink.place else { continue };
        if let Some(first) = sinks[..at].iter().find(|other| other.place == sink.place) {
            let (path, first, second) = (path.clone(), first.name.clone(), sink.name.clone());
            return Err(EgressError::PathTwice { path, first, second });
        }
    }
    Ok(())
}

/// Two paths can lead to one file.
fn check_files(sinks: &[Sink]) -> Result<(), EgressError> {
    let mut files: Vec<((u64, u64), &str)> = Vec::new();
    for sink in sinks {
        let (Some(path), Some(identity)) = (sink.path(), sink.identity()?) else { continue };
        if let Some((_, first)) = files.iter().find(|(known, _)| *known == identity) {
            let (path, first, second) = (path.to_owned(), (*first).to_owned(), sink.name().to_owned());
            return Err(EgressError::PathTwice { path, first, second });
        }
        files.push((identity, sink.name()));
    }
    Ok(())
}
