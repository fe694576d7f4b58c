//! The egresses of an app: one writer for all shards. Files have each record exactly once.
//!
//! Records of committed epochs are buffered. [`FileEgress::sync`](Egresses::sync) writes the lines of all files,
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
//! Records for a webhook wait in lanes until their receiver has taken them (`webhook`); the mark says how far
//! each shard has come there, too.
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
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod mark;
mod sink;
#[cfg(test)]
mod tests;
mod webhook;

use std::path::{Path, PathBuf};

use statefn_core::{Encoding, address::ShardId, egress::DEAD_LETTERS, ports::egress::Egresses};

pub use self::webhook::WebhookSpec;
use self::{
    disk::{Disk, RealDisk},
    mark::{Mark, MarkFiles},
    sink::Sink,
    webhook::Webhook,
};
pub use self::{
    error::EgressError,
    mark::{Marked, marked},
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
    /// To a URL, at least once, each record with the same `Idempotency-Key` at every repeat.
    Webhook(WebhookSpec),
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
/// How it is written to stands with its port, [`Egresses`]; the place of an egress is the one in
/// what was opened.
///
/// # Examples
/// ```
/// use statefn_core::{Encoding, ports::egress::Egresses};
/// use statefn_runtime::egress::{FileEgress, Place, SinkSpec};
/// # let directory = tempfile::tempdir()?;
/// # let directory = directory.path();
/// let file = directory.join("sales.jsonl");
/// let sink = SinkSpec { name: "sales".into(), encoding: Encoding::Json, place: Place::File(file.clone()) };
/// let mut egress = FileEgress::open(&directory.join("data"), vec![sink], 2)?;
/// egress.write_epoch(0, 1, [(0, &b"{\"cents\":3}"[..])].into_iter());
/// assert_eq!(egress.taken(0), 0);
/// egress.sync()?;
/// assert_eq!(egress.taken(0), 1);
/// assert_eq!(std::fs::read(file)?, b"{\"cents\":3}\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct FileEgress {
    sinks: Vec<Sink>,
    /// By shard: the highest epoch whose records are in the buffers.
    ended: Vec<u64>,
    marks: MarkFiles,
    /// The mark that is durable.
    mark: Mark,
    /// Whether dead letters of what receivers refused wait for their mark.
    has_letters: bool,
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
        let mut egress = Self { sinks, ended: mark.taken.clone(), marks, mark, has_letters: false };
        // Before a new file gets its first line a mark must know it, or that line would be foreign.
        if egress.sinks.iter().any(|sink| !sink.is_known_to(&egress.mark)) {
            let all = vec![true; egress.sinks.len()];
            egress.make_mark(&all)?;
        }
        Ok(egress)
    }

    /// How many shards the app has.
    #[must_use]
    pub fn shards(&self) -> u32 {
        self.ended.len() as u32
    }

    /// How many bytes wait for the next [`sync`](Egresses::sync).
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.sinks.iter().map(Sink::buffered_bytes).sum()
    }

    /// Whether an epoch has ended that is not taken.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.ended.iter().zip(&self.mark.taken).any(|(ended, taken)| ended > taken)
    }

    /// What the egress at this place has written since it was opened.
    ///
    /// # Panics
    /// If there is no such egress.
    #[must_use]
    pub fn written(&self, egress: usize) -> Written {
        self.sinks[egress].written()
    }

    /// Whether a record waits for the answer of its receiver.
    #[must_use]
    pub fn is_delivering(&mut self) -> bool {
        self.sinks.iter_mut().filter_map(Sink::webhook).any(|webhook| webhook.is_waiting())
    }

    /// How many bytes wait for the answers of their receivers.
    #[must_use]
    pub fn delivering_bytes(&mut self) -> usize {
        self.sinks.iter_mut().filter_map(Sink::webhook).map(|webhook| webhook.waiting_bytes()).sum()
    }

    /// Ends deliveries with those that are under way, and waits for these; what is left is given again when
    /// the egresses are opened the next time.
    pub fn stop_deliveries(&mut self) {
        self.sinks.iter_mut().filter_map(Sink::webhook).for_each(Webhook::stop);
    }

    /// Asks the webhooks what they are done with; what was refused becomes dead letters of the same mark.
    fn collect(&mut self) {
        let letters: Vec<_> = self.sinks.iter_mut().flat_map(|sink| sink.collect(&self.ended)).collect();
        let Some(letters_to) = self.letters_to() else {
            return letters.iter().for_each(|letter| {
                tracing::error!("a record was refused: {}", String::from_utf8_lossy(letter));
            });
        };
        self.has_letters |= !letters.is_empty();
        letters.iter().for_each(|letter| self.sinks[letters_to].put(letter));
    }

    /// The place of the dead letters.
    fn letters_to(&self) -> Option<usize> {
        self.sinks.iter().position(|sink| sink.name() == DEAD_LETTERS)
    }

    /// Which sinks the next mark may cover: a webhook only together with the dead letters of what it refused.
    fn ready(&mut self, outcomes: &[Result<(), EgressError>]) -> Vec<bool> {
        let mut ready: Vec<_> = outcomes.iter().map(Result::is_ok).collect();
        let waits_for_letters = self.has_letters && self.letters_to().is_some_and(|letters| !ready[letters]);
        for (sink, ready) in self.sinks.iter_mut().zip(&mut ready).filter(|_| waits_for_letters) {
            *ready &= sink.webhook().is_none();
        }
        ready
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
        let reached = |(sink, ready): (&Sink, &bool)| match ready {
            true => sink.taken_with_buffer(&self.ended),
            false => sink.taken().to_vec(),
        };
        let reached: Vec<_> = self.sinks.iter().zip(ready).map(reached).collect();
        let mut mark = self.mark.clone();
        mark.taken = least(&reached, &self.ended);
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

impl Egresses for FileEgress {
    type Error = EgressError;

    /// # Panics
    /// If there is no such shard or egress.
    fn write_epoch<'a>(&mut self, shard: ShardId, epoch: u64, records: impl Iterator<Item = (usize, &'a [u8])>) {
        let ended = &mut self.ended[shard as usize];
        if epoch <= *ended {
            return;
        }
        *ended = epoch;
        for (egress, record) in records {
            self.sinks[egress].push(shard, epoch, record);
        }
    }

    /// It blocks for the fsyncs: one for each file that got lines, one for the mark. An egress that
    /// cannot be written does not stop the others: their lines stand, and only `taken` waits for it.
    ///
    /// # Errors
    /// The first one, if the operating system says no, such as on a full disk.
    fn sync(&mut self) -> Result<(), EgressError> {
        if !self.is_behind() {
            return Ok(());
        }
        self.collect();
        let mut outcomes: Vec<_> = self.sinks.iter_mut().map(Sink::write_out).collect();
        failpoint("egress/lines-written");
        if rules::holds(Rule::MarkIsBehindTheLines) {
            self.make_lines_durable(&mut outcomes);
        }
        failpoint("egress/lines-synced");
        let ready = self.ready(&outcomes);
        self.make_mark(&ready)?;
        self.has_letters &= self.letters_to().is_some_and(|letters| !ready[letters]);
        failpoint("egress/mark-made");
        outcomes.into_iter().collect()
    }

    /// It is what all egresses have.
    fn taken(&self, shard: ShardId) -> u64 {
        self.mark.taken[shard as usize]
    }

    fn ended(&self, shard: ShardId) -> u64 {
        self.ended[shard as usize]
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
