//! Snapshots as files under a directory.
//!
//! Invariants: a file with a snapshot's name is whole and durable; `get` checks length and
//! checksum, so rot is an error and never other bytes; no name leads out of the directory.
//!
//! Deliberately absent: removal of directories that became empty, there is one for each shard.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use statefn_core::ports::snapshots::Snapshots;

use super::{
    FORMAT_VERSION, OpenError,
    disk::{self, Disk, RealDisk, TEMPORARY_SUFFIX, publish, read_behind, write_all_at},
    u32_at, u64_at,
};
use crate::failpoint::failpoint;

const MAGIC: &[u8; 8] = b"statefnP";
const HEADER_BYTES: usize = 24;
/// The longest part of a name between two `/`, in bytes; file systems allow 255 with a suffix.
const PART_BYTES_MAX: usize = 200;

/// A directory of snapshots; see [the module](super) for the format of the files.
///
/// ```
/// use statefn_core::ports::snapshots::Snapshots;
/// use statefn_runtime::embedded::FileSnapshots;
///
/// let directory = tempfile::tempdir().unwrap();
/// let mut snapshots = FileSnapshots::open(directory.path().join("snapshots")).unwrap();
/// snapshots.put("shard-1/2", b"state").unwrap();
/// assert_eq!(snapshots.list().unwrap(), ["shard-1/2"]);
/// assert!(snapshots.put("../elsewhere", b"state").is_err());
/// ```
pub struct FileSnapshots {
    disk: Box<dyn Disk>,
    directory: PathBuf,
}

impl FileSnapshots {
    /// Opens the place, creates it if need be, and removes what a crash left half written.
    ///
    /// # Errors
    /// [`OpenError::System`] if the directory cannot be used.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_on(Box::new(RealDisk), directory.as_ref())
    }

    pub(crate) fn open_on(disk: Box<dyn Disk>, directory: &Path) -> Result<Self, OpenError> {
        disk::ensure_root(&*disk, directory).map_err(OpenError::at(directory))?;
        let place = Self { disk, directory: directory.to_owned() };
        let files = place.files().map_err(OpenError::at(directory))?;
        for name in files.iter().filter(|name| name.ends_with(TEMPORARY_SUFFIX)) {
            let path = directory.join(name);
            place.disk.remove(&path).map_err(OpenError::at(&path))?;
        }
        Ok(place)
    }

    fn path_of(&self, name: &str) -> Result<PathBuf, String> {
        check_name(name)?;
        Ok(self.directory.join(name))
    }

    /// Returns the names of all files, at any depth.
    fn files(&self) -> io::Result<Vec<String>> {
        let mut files = Vec::new();
        let mut directories = vec![String::new()];
        while let Some(prefix) = directories.pop() {
            for entry in self.disk.entries(&self.directory.join(&prefix))? {
                match entry.is_directory {
                    true => directories.push(format!("{prefix}{}/", entry.name)),
                    false => files.push(format!("{prefix}{}", entry.name)),
                }
            }
        }
        Ok(files)
    }
}

impl fmt::Debug for FileSnapshots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileSnapshots({})", self.directory.display())
    }
}

impl Snapshots for FileSnapshots {
    fn put(&mut self, name: &str, bytes: &[u8]) -> Result<(), String> {
        let path = self.path_of(name)?;
        let stored = disk::ensure_directory(&*self.disk, disk::parent_of(&path)).and_then(|()| {
            failpoint("snapshot/directory-made");
            publish(&*self.disk, &path, |file| {
                write_all_at(file, &header_of(bytes), 0)?;
                write_all_at(file, bytes, HEADER_BYTES as u64)?;
                failpoint("snapshot/filled");
                Ok(())
            })
        });
        stored.map(drop).map_err(|error| format!("cannot write the snapshot `{}`: {error}", path.display()))
    }

    fn get(&mut self, name: &str) -> Result<Option<Vec<u8>>, String> {
        let path = self.path_of(name)?;
        let mut header = [0; HEADER_BYTES];
        let file = read_behind(&*self.disk, &path, &mut header)
            .map_err(|error| format!("cannot read the snapshot `{}`: {error}", path.display()))?;
        let Some((header_bytes, bytes)) = file else {
            return Ok(None);
        };
        check(&header[..header_bytes], &bytes).map_err(|wrong| {
            format!(
                "the snapshot `{}` is damaged: {wrong}; start from an older one or restore it from a copy",
                path.display()
            )
        })?;
        Ok(Some(bytes))
    }

    fn remove(&mut self, name: &str) -> Result<(), String> {
        let path = self.path_of(name)?;
        match self.disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(format!("cannot remove the snapshot `{}`: {error}", path.display()))
            }
            _ => Ok(()),
        }
    }

    fn list(&mut self) -> Result<Vec<String>, String> {
        let files = self.files();
        let mut names = files.map_err(|error| format!("cannot list `{}`: {error}", self.directory.display()))?;
        names.retain(|name| check_name(name).is_ok());
        names.sort_unstable();
        Ok(names)
    }
}

/// Refuses names that are not those of the port, or that would lead elsewhere.
fn check_name(name: &str) -> Result<(), String> {
    let is_known = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    let is_good = |part: &str| {
        (1..=PART_BYTES_MAX).contains(&part.len()) && part != "." && part != ".." && part.bytes().all(is_known)
    };
    if name.split('/').all(is_good) {
        return Ok(());
    }
    Err(format!(
        "`{name}` is no name of a snapshot: it consists of parts of 1 to {PART_BYTES_MAX} of `a-z`, `0-9`, `-` and `.`, with `/` between them, and no part is `.` or `..`"
    ))
}

pub(super) fn header_of(bytes: &[u8]) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&crc32c::crc32c(bytes).to_le_bytes());
    header[16..].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    header
}

#[cfg(feature = "fuzzing")]
pub(super) fn check_file(file: &[u8]) -> Result<(), String> {
    let (header, bytes) = file.split_at(file.len().min(HEADER_BYTES));
    check(header, bytes)
}

fn check(header: &[u8], bytes: &[u8]) -> Result<(), String> {
    if header.len() < HEADER_BYTES {
        return Err(format!("it has {} bytes, its header alone has {HEADER_BYTES}", header.len()));
    }
    if &header[..8] != MAGIC {
        return Err("it does not begin as a snapshot does".to_owned());
    }
    let version = u32_at(header, 8);
    if version != FORMAT_VERSION {
        return Err(format!("it has format version {version}, this statefn reads version {FORMAT_VERSION}"));
    }
    let length = u64_at(header, 16);
    if length != bytes.len() as u64 {
        return Err(format!("it holds {} bytes of {length}", bytes.len()));
    }
    if u32_at(header, 12) != crc32c::crc32c(bytes) {
        return Err("its checksum is wrong".to_owned());
    }
    Ok(())
}
