//! The mark: how long each file is and up to which epoch each shard is taken. Version 1.
//!
//! ```text
//! magic "sfegress" | crc32c u32 over all behind it | version u8 | length of the body u32 | body
//! body: sequence | count of shards, each: taken epoch
//!       | count of files, each: egress, path, length, and for each shard how many epochs it is ahead
//! ```
//! Fixed numbers are little-endian, those of the body are varints. A file is ahead where another
//! egress could not be written: what it has taken is not written to it again.
//!
//! There are two copies, and the marks alternate between them: a write that is torn by a crash
//! damages the older mark only. The good copy with the higher sequence counts.

use std::{
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use statefn_core::codec::{Reader, Truncated, put_bytes, put_varint};

use super::{
    disk::{Disk, DiskFile, write_all_at},
    error::{EgressError, io},
};
use crate::{
    failpoint::failpoint,
    rules::{self, Rule},
};

const MAGIC: &[u8; 8] = b"sfegress";
const VERSION: u8 = 1;
const CHECKED_FROM: usize = 12;
const HEADER_BYTES: usize = 17;
/// What the path of a webhook begins with.
pub(super) const WEBHOOK: &str = "webhook:";
const COPIES: [&str; 2] = ["egress.mark.0", "egress.mark.1"];

/// What is known to be durable.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Mark {
    /// Rises with each mark.
    pub(super) sequence: u64,
    /// By shard: what all egresses have.
    pub(super) taken: Vec<u64>,
    /// All files that were ever begun, by egress and path.
    pub(super) files: Vec<MarkedFile>,
    /// Paths below this directory are marked without it, so that a data directory can be moved.
    pub(super) home: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MarkedFile {
    pub(super) egress: String,
    /// As the settings have it; within the data directory without that.
    pub(super) path: Vec<u8>,
    pub(super) length: u64,
    /// By shard: what this file has.
    pub(super) taken: Vec<u64>,
}

impl Mark {
    /// A file; `None` if it was not begun.
    pub(super) fn file(&self, egress: &str, path: &Path) -> Option<&MarkedFile> {
        let path = self.marked_path(path);
        self.files.iter().find(|file| file.egress == egress && file.path == path)
    }

    /// The entry of a webhook, which stands among the files: its path is [`WEBHOOK`] and its incarnation,
    /// its length the records that were delivered.
    pub(super) fn webhook(&self, egress: &str) -> Option<(&str, &MarkedFile)> {
        let mut entries = self.files.iter().filter(|file| file.egress == egress);
        entries.find_map(|file| Some((std::str::from_utf8(file.path.strip_prefix(WEBHOOK.as_bytes())?).ok()?, file)))
    }

    pub(super) fn set_file(&mut self, egress: &str, path: &Path, length: u64, taken: Vec<u64>) {
        let (egress, path) = (egress.to_owned(), self.marked_path(path).to_owned());
        let new = MarkedFile { egress, path, length, taken };
        match self.files.iter_mut().find(|file| file.egress == new.egress && file.path == new.path) {
            Some(file) => *file = new,
            None => self.files.push(new),
        }
    }

    fn marked_path<'a>(&self, path: &'a Path) -> &'a [u8] {
        path.strip_prefix(&self.home).unwrap_or(path).as_os_str().as_bytes()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        put_varint(&mut body, self.sequence);
        put_varint(&mut body, self.taken.len() as u64);
        self.taken.iter().for_each(|epoch| put_varint(&mut body, *epoch));
        put_varint(&mut body, self.files.len() as u64);
        for file in &self.files {
            put_bytes(&mut body, file.egress.as_bytes());
            put_bytes(&mut body, &file.path);
            put_varint(&mut body, file.length);
            for (file, all) in file.taken.iter().zip(&self.taken) {
                // A file of an egress that the app no longer has stays behind: that is forgotten.
                put_varint(&mut body, file.saturating_sub(*all));
            }
        }
        let length = u32::try_from(body.len()).expect("names and numbers of an app stay below 4 GiB");
        let mut checked = vec![VERSION];
        checked.extend_from_slice(&length.to_le_bytes());
        checked.extend_from_slice(&body);
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&crc32c::crc32c(&checked).to_le_bytes());
        bytes.extend_from_slice(&checked);
        debug_assert_eq!(bytes.len(), HEADER_BYTES + body.len());
        bytes
    }

    /// The bytes as the body of a mark whose checksum is right.
    #[cfg(feature = "fuzzing")]
    pub(super) fn sealed(body: &[u8]) -> Vec<u8> {
        let mut bytes = Self::default().encode();
        bytes.truncate(HEADER_BYTES);
        bytes[CHECKED_FROM + 1..].copy_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(body);
        let crc = crc32c::crc32c(&bytes[CHECKED_FROM..]);
        bytes[MAGIC.len()..CHECKED_FROM].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(body: &[u8]) -> Result<Self, Truncated> {
        let mut reader = Reader::new(body);
        let mut mark = Self { sequence: reader.varint()?, ..Self::default() };
        for _ in 0..reader.varint()? {
            mark.taken.push(reader.varint()?);
        }
        for _ in 0..reader.varint()? {
            let (egress, path) = (reader.text()?.to_owned(), reader.bytes()?.to_owned());
            let length = reader.varint()?;
            let mut taken = mark.taken.clone();
            for epoch in &mut taken {
                *epoch = epoch.checked_add(reader.varint()?).ok_or(Truncated)?;
            }
            mark.files.push(MarkedFile { egress, path, length, taken });
        }
        Ok(mark)
    }
}

/// What stands in one copy.
pub(super) enum Copy {
    Empty,
    Good(Mark),
    Damaged(String),
}

/// Reads one copy; what is behind the mark is left of a longer one before.
pub(super) fn read_copy(path: &Path, bytes: &[u8]) -> Result<Copy, EgressError> {
    if bytes.is_empty() {
        return Ok(Copy::Empty);
    }
    let damaged = |reason: &str| Ok(Copy::Damaged(format!("`{}`: {reason}", path.display())));
    if bytes.len() < HEADER_BYTES || !bytes.starts_with(MAGIC) {
        return damaged("it does not begin as a mark");
    }
    let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let Some(end) = HEADER_BYTES.checked_add(number(CHECKED_FROM + 1) as usize).filter(|end| *end <= bytes.len())
    else {
        return damaged("it ends too early");
    };
    if crc32c::crc32c(&bytes[CHECKED_FROM..end]) != number(MAGIC.len()) {
        return damaged("its checksum is wrong");
    }
    let found = bytes[CHECKED_FROM];
    if found != VERSION {
        return Err(EgressError::MarkVersion { path: path.to_owned(), found, known: VERSION });
    }
    match Mark::decode(&bytes[HEADER_BYTES..end]) {
        Ok(mark) => Ok(Copy::Good(mark)),
        Err(error) => damaged(&error.to_string()),
    }
}

/// The two copies, open for writing.
pub(super) struct MarkFiles {
    copies: Vec<(PathBuf, Box<dyn DiskFile>)>,
}

impl MarkFiles {
    /// Opens the copies, reads the mark that counts and makes it durable; an empty one if there was none.
    pub(super) fn open(disk: &dyn Disk, directory: &Path, shards: u32) -> Result<(Self, Mark), EgressError> {
        let (mut copies, mut found) = (Vec::new(), Vec::new());
        for name in COPIES {
            let path = directory.join(name);
            let file = disk.open(&path).map_err(io(&path, "open"))?;
            let file = file.ok_or_else(|| EgressError::MarkDamaged {
                directory: directory.to_owned(),
                reason: format!("`{name}` is no regular file"),
            })?;
            found.push(read_copy(&path, &file.read().map_err(io(&path, "read"))?)?);
            copies.push((path, file));
        }
        let home = directory.parent().map(Path::to_owned).unwrap_or_default();
        let mark = Mark { home, ..choose(directory, found, shards)? };
        let marks = Self { copies };
        if mark.sequence > 0 {
            // A mark whose sync failed can be read and yet be lost later, and the next mark takes the
            // place of the older copy.
            marks.write(&mark)?;
            failpoint("start/mark-written-again");
        }
        Ok((marks, mark))
    }

    /// Makes a mark durable; if that fails the one before still counts, or this one does already.
    pub(super) fn write(&self, mark: &Mark) -> Result<(), EgressError> {
        let (path, file) = &self.copies[(mark.sequence % 2) as usize];
        write_all_at(file.as_ref(), &mark.encode(), 0).map_err(io(path, "write"))?;
        failpoint("egress/mark-written");
        if rules::holds(Rule::MarksAreSynced) {
            file.sync().map_err(io(path, "sync"))?;
        }
        failpoint("egress/mark-synced");
        Ok(())
    }
}

/// What egresses are marked to have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marked {
    /// By shard: the highest epoch that all of them have.
    pub taken: Vec<u64>,
    /// Every file that was begun, and how long it is at least.
    pub files: Vec<(PathBuf, u64)>,
}

/// What the mark in a directory says, and changes nothing.
///
/// # Errors
/// If the mark cannot be read, is damaged, or is of another number of shards.
pub fn marked(directory: &Path, shards: u32) -> Result<Marked, EgressError> {
    let mut found = Vec::new();
    for name in COPIES {
        let path = directory.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => found.push(read_copy(&path, &bytes)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => found.push(Copy::Empty),
            Err(error) => return Err(io(&path, "read")(error)),
        }
    }
    let mark = choose(directory, found, shards)?;
    let home = directory.parent().unwrap_or(directory);
    let file = |file: &MarkedFile| (home.join(std::ffi::OsStr::from_bytes(&file.path)), file.length);
    Ok(Marked { files: mark.files.iter().map(file).collect(), taken: mark.taken })
}

fn choose(directory: &Path, found: Vec<Copy>, shards: u32) -> Result<Mark, EgressError> {
    let (mut best, mut damage, mut is_empty) = (None::<Mark>, String::new(), false);
    for copy in found {
        match copy {
            Copy::Empty => is_empty = true,
            Copy::Damaged(reason) => damage = reason,
            Copy::Good(mark) if best.as_ref().is_some_and(|best| best.sequence > mark.sequence) => {}
            Copy::Good(mark) => best = Some(mark),
        }
    }
    match best {
        Some(mark) if mark.taken.len() == shards as usize => Ok(mark),
        Some(mark) => Err(EgressError::Shards { directory: directory.to_owned(), found: mark.taken.len(), shards }),
        // The first mark was torn, and no line is written before it stands.
        None if is_empty => Ok(Mark { taken: vec![0; shards as usize], ..Mark::default() }),
        None => Err(EgressError::MarkDamaged { directory: directory.to_owned(), reason: damage }),
    }
}
