//! The file operations that the log and the snapshots need, as a trait, so that tests can run
//! them on a disk that fills up, fails and loses what was not synced.
//!
//! Invariant: nothing else in `embedded` touches files.

use std::{
    any::Any,
    fs, io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use rustix::{fs::FallocateFlags, io::Errno};

use crate::{
    failpoint::failpoint,
    rules::{self, Rule},
};

/// A disk with directories and files.
pub(crate) trait Disk: Send {
    /// Lists what is in a directory, in any order.
    fn entries(&self, directory: &Path) -> io::Result<Vec<Entry>>;
    /// Creates a directory whose parent exists.
    fn create_directory(&self, path: &Path) -> io::Result<()>;
    /// Creates an empty file, in place of one that is there.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file that is there.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file another name, in place of a file that has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes durable which files a directory holds.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
    /// Locks a file, created if need be, until the value is dropped; `None` if it is locked.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Any + Send>>>;
}

/// An open file.
pub(crate) trait DiskFile: Send {
    /// Reads some bytes; 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;
    /// Writes some of the bytes, and says how many.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize>;
    /// Returns the length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Sets the length; new bytes are zeros.
    fn set_length(&self, length: u64) -> io::Result<()>;
    /// Makes the file `length` bytes long, of zeros, with blocks behind them where possible.
    fn allocate(&self, length: u64) -> io::Result<()>;
    /// Makes all bytes and the length durable.
    fn sync(&self) -> io::Result<()>;
}

/// What a directory holds under a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) is_directory: bool,
}

/// The name of a file that is not whole yet: a character that no name of ours holds, and a
/// suffix that says so to a person.
pub(crate) const TEMPORARY_SUFFIX: &str = "~.tmp";

/// Writes a file so that it is there whole and durable, or not at all.
pub(crate) fn write_whole(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    publish(disk, path, |file| write_all_at(file, bytes, 0)).map(drop)
}

/// Fills a temporary file, syncs it, gives it its name, syncs the directory, returns the file.
pub(crate) fn publish(
    disk: &dyn Disk,
    path: &Path,
    fill: impl FnOnce(&dyn DiskFile) -> io::Result<()>,
) -> io::Result<Box<dyn DiskFile>> {
    let temporary = temporary_of(path);
    let file = disk.create(&temporary)?;
    let filled = fill(&*file).and_then(|()| {
        failpoint("file/filled");
        if rules::holds_at(Rule::FilesAreSyncedBeforeTheirName, path) { file.sync() } else { Ok(()) }
    });
    if let Err(error) = filled {
        // Gives the space back now; if that fails too, the next open removes it.
        _ = disk.remove(&temporary);
        return Err(error);
    }
    failpoint("file/synced");
    disk.rename(&temporary, path)?;
    failpoint("file/renamed");
    if rules::holds_at(Rule::NamesAreSynced, path) {
        disk.sync_directory(parent_of(path))?;
    }
    failpoint("file/directory-synced");
    Ok(file)
}

/// Reads a whole file; `None` if it is not there.
pub(crate) fn read_whole(disk: &dyn Disk, path: &Path) -> io::Result<Option<Vec<u8>>> {
    Ok(read_behind(disk, path, &mut [])?.map(|(_, bytes)| bytes))
}

/// Reads the front of a file into `head`, and all that is behind it; `None` if it is not there.
/// Says how much of `head` was filled.
pub(crate) fn read_behind(disk: &dyn Disk, path: &Path, head: &mut [u8]) -> io::Result<Option<(usize, Vec<u8>)>> {
    let file = match disk.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let length = usize::try_from(file.length()?).map_err(io::Error::other)?;
    let head_filled = read_full_at(&*file, head, 0)?;
    let mut bytes = vec![0; length.saturating_sub(head.len())];
    let filled = read_full_at(&*file, &mut bytes, head.len() as u64)?;
    bytes.truncate(filled);
    Ok(Some((head_filled, bytes)))
}

/// Reads until the buffer is full or the file ends; returns how many bytes were read.
pub(crate) fn read_full_at(file: &dyn DiskFile, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Writes all bytes, in as many steps as the disk needs.
pub(crate) fn write_all_at(file: &dyn DiskFile, bytes: &[u8], at: u64) -> io::Result<()> {
    let mut written = 0;
    while written < bytes.len() {
        match file.write_at(&bytes[written..], at + written as u64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Creates the directory of a log or of snapshots and those above it, durably even if a process
/// that was killed had created some of them and not come to the syncs.
pub(crate) fn ensure_root(disk: &dyn Disk, root: &Path) -> io::Result<()> {
    ensure_directory(disk, root)?;
    for directory in root.ancestors().skip(1) {
        // One that we may not open is not one that we created.
        _ = disk.sync_directory(if directory.as_os_str().is_empty() { Path::new(".") } else { directory });
    }
    Ok(())
}

/// Creates a directory and those above it that are missing, durably.
pub(crate) fn ensure_directory(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.create_directory(path) {
        Ok(()) => disk.sync_directory(parent_of(path)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // As in `ensure_root`.
            _ = disk.sync_directory(parent_of(path));
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.parent().is_some() => {
            ensure_directory(disk, parent_of(path))?;
            ensure_directory(disk, path)
        }
        Err(error) => Err(error),
    }
}

/// The directory that holds `path`, `.` for a bare name.
pub(crate) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

fn temporary_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY_SUFFIX);
    name.into()
}

/// The disk of the machine.
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn entries(&self, directory: &Path) -> io::Result<Vec<Entry>> {
        let entry = |entry: io::Result<fs::DirEntry>| {
            let entry = entry?;
            let is_directory = entry.file_type()?.is_dir();
            Ok(Entry { name: entry.file_name().to_string_lossy().into_owned(), is_directory })
        };
        fs::read_dir(directory)?.map(entry).collect()
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Box::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(fs::OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Any + Send>>> {
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match fs4::FileExt::try_lock(&file) {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(fs4::TryLockError::WouldBlock) => Ok(None),
            Err(fs4::TryLockError::Error(error)) => Err(error),
        }
    }
}

impl DiskFile for fs::File {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, at)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        match rustix::fs::fallocate(self, FallocateFlags::empty(), 0, length) {
            // Not every file system can; then blocks come as they are written.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.set_len(length),
            outcome => Ok(outcome?),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
