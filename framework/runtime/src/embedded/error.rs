//! Why a log or a place of snapshots cannot be opened.

use std::{io, path::Path, path::PathBuf};

use thiserror::Error;

/// Why [`EmbeddedLog::open`](super::EmbeddedLog::open) or
/// [`FileSnapshots::open`](super::FileSnapshots::open) refused; each kind says what to do.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The system refused an operation: see the permissions and the free space.
    #[error("cannot use `{}`: {cause}; check that it is readable and writable and that its disk has space", path.display())]
    System {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Another process works with the directory: stop it, or use another directory.
    #[error(
        "`{}` is in use by another process (or opened twice by this one): stop that one, or choose another directory",
        directory.display()
    )]
    InUse {
        /// The directory.
        directory: PathBuf,
    },
    /// The directory holds something else: choose an empty one.
    #[error(
        "`{}` holds `{found}` but no `statefn.json`, so it is no log of statefn: choose an empty or a new directory, or, if this was a log, restore its `statefn.json`",
        directory.display()
    )]
    Foreign {
        /// The directory.
        directory: PathBuf,
        /// Something that is in it.
        found: String,
    },
    /// The directory belongs to another app: choose another one for this app.
    #[error(
        "`{}` belongs to the app `{found}`, this is the app `{wanted}`: choose another directory for `{wanted}`, or name the app `{found}` again",
        directory.display()
    )]
    OtherApp {
        /// The directory.
        directory: PathBuf,
        /// The app whose log it is.
        found: String,
        /// The app that wants it.
        wanted: String,
    },
    /// The number of shards is fixed when an app is created: set it back.
    #[error(
        "the log in `{}` was created with {found} shards, the settings say {wanted}: set the number of shards back to {found} (it cannot change), or choose another directory for a new app",
        directory.display()
    )]
    OtherShards {
        /// The directory.
        directory: PathBuf,
        /// The number it was created with.
        found: u32,
        /// The number asked for.
        wanted: u32,
    },
    /// A newer statefn wrote the file: use that one.
    #[error(
        "`{}` has format version {found}, this statefn reads version {supported}: use the statefn that wrote it",
        file.display()
    )]
    OtherFormat {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// The version that this code reads.
        supported: u32,
    },
    /// Bytes are not what was written: restore the directory from a copy.
    #[error(
        "`{}` is damaged at byte {offset}: {what}; restore the directory from a copy, nothing was changed in it",
        file.display()
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The log ends before what was acknowledged: restore it, and do not trust this disk.
    #[error(
        "the log lost acknowledged records: `{}` ends at byte {offset} with group {found}, but group {durable} was known to be durable; the disk or a copy of the directory dropped synced bytes: restore the directory from a whole copy, nothing was changed in it",
        file.display()
    )]
    LostRecords {
        /// The last segment file.
        file: PathBuf,
        /// Where its last good group ends.
        offset: u64,
        /// The sequence number of the last good group.
        found: u64,
        /// The sequence number of the last group that the superblock knows.
        durable: u64,
    },
}

impl OpenError {
    /// For `map_err`: adds the path to what the system said.
    pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |cause| Self::System { path: path.to_owned(), cause }
    }

    pub(super) fn damaged(file: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::Damaged { file: file.to_owned(), offset, what: what.into() }
    }
}
