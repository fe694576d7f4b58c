//! Why an input cannot be read on.

use std::path::PathBuf;

use thiserror::Error;

/// Input that cannot be read on; each text names the place and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SourceError {
    /// The operating system says no: the file is missing, unreadable, or its disk is broken.
    #[error("cannot {action} `{}`: {reason}; correct the path of the ingress in the settings, or make the file readable", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the operating system said.
        reason: String,
    },
    /// Something other than a file stands at the path.
    #[error("`{}` is no regular file: an ingress reads files, which can be read again after a restart; write the data to one", path.display())]
    NoFile {
        /// The path.
        path: PathBuf,
    },
    /// The name says that it is compressed and the content does not, or the other way round.
    #[error("the name of `{}` says that it {says}, its first bytes say that it {is}: rename the file", path.display(), says = if *.named { "is gzip" } else { "is not compressed" }, is = if *.named { "is not" } else { "is gzip" })]
    Compression {
        /// The file.
        path: PathBuf,
        /// Whether its name ends in `.gz`.
        named: bool,
    },
    /// The file ends in the middle: a compressed file or a protobuf record is cut off.
    #[error("`{}` is truncated: it ends in the middle of {what} behind byte {offset}{}; get the whole file and start again, the records before that place are not read twice", path.display(), unpacked(*.compressed))]
    Truncated {
        /// The file.
        path: PathBuf,
        /// What is cut off.
        what: &'static str,
        /// How many bytes could be read.
        offset: u64,
        /// Whether bytes are counted behind the decompression.
        compressed: bool,
    },
    /// The bytes are not what the format says, so that no further record can be found.
    #[error("`{}` is damaged behind byte {offset}{}: {reason}; repair the file, or correct the format of the ingress in the settings", path.display(), unpacked(*.compressed))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Up to where it is good.
        offset: u64,
        /// Whether bytes are counted behind the decompression.
        compressed: bool,
        /// What is wrong.
        reason: String,
    },
    /// The file is shorter than what was read of it before.
    #[error("`{}` has only {length} bytes{}, but the app has read {offset} bytes of it before: the file was replaced or cut; put the old one back, or start the app with an empty data directory to read the new one", path.display(), unpacked(*.compressed))]
    Shrunk {
        /// The file.
        path: PathBuf,
        /// How long it is.
        length: u64,
        /// How far it was read.
        offset: u64,
        /// Whether bytes are counted behind the decompression.
        compressed: bool,
    },
    /// A CSV file without a line of column names.
    #[error("`{}` has no header: the first line of a CSV file names its columns", path.display())]
    NoHeader {
        /// The file.
        path: PathBuf,
    },
    /// A header that cannot be read.
    #[error("the header of `{}` cannot be read: {reason}", path.display())]
    BadHeader {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The header lacks a column that the message needs, or has it twice.
    #[error("the header of `{}` {} the column `{column}`, which the messages of the ingress `{ingress}` need; its columns are: {}; correct the header, or rename the field with `#[serde(rename = \"..\")]`", path.display(), if *.doubled { "has twice" } else { "lacks" }, columns.join(", "))]
    Column {
        /// The file.
        path: PathBuf,
        /// The ingress.
        ingress: String,
        /// The column.
        column: String,
        /// Whether it stands there twice.
        doubled: bool,
        /// The columns that stand there.
        columns: Vec<String>,
    },
}

fn unpacked(compressed: bool) -> &'static str {
    if compressed { " (uncompressed)" } else { "" }
}
