//! The few file operations that an egress needs, so that a test can make each of them fail.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

/// A place for files.
pub(crate) trait Disk {
    /// Opens a file for writing and makes it, and the directories it is in, if it is missing. MUST
    /// have made its name durable when it returns. `None` if something other than a file is there.
    fn open(&self, path: &Path) -> io::Result<Option<Box<dyn DiskFile>>>;
}

/// A file that is open for writing.
pub(crate) trait DiskFile: Send {
    fn length(&self) -> io::Result<u64>;

    /// Equal for two paths that lead to one file.
    fn identity(&self) -> io::Result<(u64, u64)>;

    fn read(&self) -> io::Result<Vec<u8>>;

    /// Cuts the file; MUST be durable when a later `sync` has returned.
    fn cut(&self, length: u64) -> io::Result<()>;

    /// Writes some of the bytes, at least one, and returns how many.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Makes what was written durable. After an error nothing is known about any byte that was
    /// written since the last success, and a second call without writing again MAY lie.
    fn sync(&self) -> io::Result<()>;
}

/// Writes all bytes.
pub(crate) fn write_all_at(file: &dyn DiskFile, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(length) => {
                bytes = &bytes[length..];
                offset += length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The disk of the machine.
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path) -> io::Result<Option<Box<dyn DiskFile>>> {
        // Looked at before it is opened: opening a pipe for writing can wait for a reader.
        match fs::metadata(path) {
            Ok(metadata) if !metadata.is_file() => return Ok(None),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let directory = directory_of(path);
        make_directory(directory)?;
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        File::open(directory)?.sync_all()?;
        Ok(Some(Box::new(file)))
    }
}

impl DiskFile for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn identity(&self) -> io::Result<(u64, u64)> {
        let metadata = self.metadata()?;
        Ok((metadata.dev(), metadata.ino()))
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut file = self;
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Makes a directory and those it is in, and makes their names durable.
fn make_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = directory_of(directory);
    make_directory(parent)?;
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    File::open(parent)?.sync_all()
}
