//! The identity file: which app a directory belongs to, and what can never change about its log.
//!
//! Invariant: it is the first file of a log, written whole or not at all, and never again.

use std::{
    hash::{BuildHasher, RandomState},
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::{
    FORMAT_VERSION, OpenError,
    disk::{Disk, Entry, RealDisk, TEMPORARY_SUFFIX, read_whole, write_whole},
};
use crate::failpoint::failpoint;

/// The name of the file.
pub(super) const FILE_NAME: &str = "statefn.json";
/// The name of the lock file; the only one that may be there before the identity.
pub(super) const LOCK_NAME: &str = "statefn.lock";

/// Which log a directory holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    format: u32,
    app: String,
    shards: u32,
    /// Random, so that bytes of another log are never taken for bytes of this one.
    log_id: u64,
}

/// Only this much is read of a file of another version.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

impl Identity {
    pub(super) fn log_id(&self) -> u64 {
        self.log_id
    }

    fn new(app: &str, shards: u32) -> Self {
        // The standard library's only source of randomness; it is seeded by the system.
        let log_id = RandomState::new().hash_one(app);
        Self { format: FORMAT_VERSION, app: app.to_owned(), shards, log_id }
    }
}

/// The app and the number of shards of the log in a directory; none if there is no log.
///
/// # Errors
/// If the identity of the log cannot be read, or is of another version.
pub fn belongs_to(directory: &Path) -> Result<Option<(String, u32)>, OpenError> {
    let path = directory.join(FILE_NAME);
    let bytes = read_whole(&RealDisk, &path).map_err(OpenError::at(&path))?;
    let identity = bytes.map(|bytes| read(&path, &bytes)).transpose()?;
    Ok(identity.map(|identity| (identity.app, identity.shards)))
}

/// Refuses a directory that holds something but no identity.
pub(super) fn check_is_ours(directory: &Path, entries: &[Entry]) -> Result<(), OpenError> {
    if entries.iter().any(|entry| entry.name == FILE_NAME) {
        return Ok(());
    }
    let unfinished = format!("{FILE_NAME}{TEMPORARY_SUFFIX}");
    // A first start that was cut short leaves the first two; a new file system comes with the third.
    let harmless = [LOCK_NAME, unfinished.as_str(), "lost+found"];
    let mut foreign = entries.iter().map(|entry| &entry.name).filter(|name| !harmless.contains(&name.as_str()));
    match foreign.next() {
        None => Ok(()),
        Some(found) => Err(OpenError::Foreign { directory: directory.to_owned(), found: found.clone() }),
    }
}

/// Reads the identity of a directory and compares it, or gives it one.
pub(super) fn establish(disk: &dyn Disk, directory: &Path, app: &str, shards: u32) -> Result<Identity, OpenError> {
    let path = directory.join(FILE_NAME);
    let Some(bytes) = read_whole(disk, &path).map_err(OpenError::at(&path))? else {
        let identity = Identity::new(app, shards);
        let mut bytes = serde_json::to_vec_pretty(&identity).map_err(|error| OpenError::at(&path)(error.into()))?;
        bytes.push(b'\n');
        write_whole(disk, &path, &bytes).map_err(OpenError::at(&path))?;
        failpoint("start/identity-written");
        return Ok(identity);
    };
    let identity = read(&path, &bytes)?;
    let directory = directory.to_owned();
    if identity.app != app {
        return Err(OpenError::OtherApp { directory, found: identity.app, wanted: app.to_owned() });
    }
    if identity.shards != shards {
        return Err(OpenError::OtherShards { directory, found: identity.shards, wanted: shards });
    }
    Ok(identity)
}

fn read(path: &Path, bytes: &[u8]) -> Result<Identity, OpenError> {
    let damaged = |error: serde_json::Error| OpenError::damaged(path, 0, format!("it is no identity: {error}"));
    let Version { format } = serde_json::from_slice(bytes).map_err(damaged)?;
    if format != FORMAT_VERSION {
        return Err(OpenError::OtherFormat { file: path.to_owned(), found: format, supported: FORMAT_VERSION });
    }
    serde_json::from_slice(bytes).map_err(damaged)
}
