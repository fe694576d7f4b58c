//! Why an egress cannot be opened or written.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// An egress that cannot be opened or written; each text names the file and what to do.
#[derive(Debug, Error)]
pub enum EgressError {
    /// The operating system says no; once the cause is gone, the same call goes on.
    #[error("cannot {action} `{}`: {reason}; nothing is lost: free the disk or correct the permissions, the egress goes on then", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the operating system said.
        reason: std::io::Error,
    },
    /// Lines that the app has written were removed.
    #[error("`{}` has {length} bytes, but the egress `{egress}` has written {marked}: lines were removed; put them back, or give the egress a new file and move this one away", path.display())]
    Shorter {
        /// The file.
        path: PathBuf,
        /// The egress.
        egress: String,
        /// How long the file is.
        length: u64,
        /// How long it was.
        marked: u64,
    },
    /// A file with content that this app has not written.
    #[error("`{}` has {length} bytes that the egress `{egress}` of this app has not written: it is not overwritten; move it away, or give the egress another file", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The egress.
        egress: String,
        /// How long the file is.
        length: u64,
    },
    /// Something other than a file stands at the path.
    #[error("`{}` is no regular file, so lines in it cannot stand exactly once: give the egress `{egress}` a file, the console, or the counter", path.display())]
    NoFile {
        /// The path.
        path: PathBuf,
        /// The egress.
        egress: String,
    },
    /// A webhook that cannot be called.
    #[error("the egress `{egress}` cannot post to `{url}`: {reason}")]
    Webhook {
        /// The egress.
        egress: String,
        /// The URL.
        url: String,
        /// Why not.
        reason: String,
    },
    /// Two egresses cannot share a file.
    #[error("the egresses `{first}` and `{second}` both have the file `{}`: give one of them another", path.display())]
    PathTwice {
        /// The file.
        path: PathBuf,
        /// An egress.
        first: String,
        /// The other one.
        second: String,
    },
    /// Both copies of the mark are damaged.
    #[error("the mark of the egresses in `{}` is damaged ({reason}), so it is not known which lines stand: restore the directory from a backup, or move it and the files of the egresses away to begin anew", directory.display())]
    MarkDamaged {
        /// Where the mark is kept.
        directory: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The mark was written by a newer program.
    #[error("`{}` has the format version {found}, this program reads up to {known}: run the newer program", path.display())]
    MarkVersion {
        /// The mark.
        path: PathBuf,
        /// Its version.
        found: u8,
        /// The newest one known.
        known: u8,
    },
    /// The app had another number of shards when the mark was made.
    #[error("the mark of the egresses in `{}` is of an app with {found} shards, this one has {shards}: the number is fixed when an app is created, set it back", directory.display())]
    Shards {
        /// Where the mark is kept.
        directory: PathBuf,
        /// The number in the mark.
        found: usize,
        /// The number of the app.
        shards: u32,
    },
}

pub(super) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> EgressError {
    move |reason| EgressError::Io { path: path.to_owned(), action, reason }
}
