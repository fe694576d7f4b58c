//! A directory as an object store.
//!
//! The library writes a file under a temporary name, syncs it, renames it and syncs the directories,
//! as we tell it to; without that a snapshot might vanish after the journal was trimmed.

use std::{
    fs, io,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use object_store::local::LocalFileSystem;

use crate::{Error, key::ROOT, objects::Store};

/// How old an unfinished file is before it counts as left behind. Other workers write here too, and
/// the clock may be another machine's.
const UNFINISHED_TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Opens a directory, which must be there, and removes what crashes left half-written.
pub(crate) fn open(directory: &Path) -> Result<Store, Error> {
    if !directory.is_dir() {
        return Err(Error::Refused(format!(
            "cannot keep snapshots in `{}`: it is no directory; create it, or mount it where all workers see the same one",
            directory.display()
        )));
    }
    let failed = |error: &dyn std::error::Error| {
        Error::Refused(format!("cannot keep snapshots in `{}`: {error}", directory.display()))
    };
    let store = LocalFileSystem::new_with_prefix(directory).map_err(|error| failed(&error))?.with_fsync(true);
    remove_unfinished(&directory.join(ROOT), SystemTime::now()).map_err(|error| failed(&error))?;
    Ok(Arc::new(store))
}

fn remove_unfinished(directory: &Path, now: SystemTime) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        // Whatever another worker has removed meanwhile is gone.
        let Ok(metadata) = entry.metadata() else { continue };
        let age = now.duration_since(metadata.modified()?).unwrap_or_default();
        if metadata.is_dir() {
            remove_unfinished(&path, now)?;
        } else if is_unfinished(&path) && age > UNFINISHED_TIME_MAX {
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}

/// Whether a file has a temporary name of the library: the name, `#`, a number.
fn is_unfinished(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let number = name.and_then(|name| name.rsplit_once('#')).map(|(_, number)| number);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_crash_left_is_removed_a_day_later() {
        let directory = tempfile::tempdir().unwrap();
        let shard = directory.path().join("shard-1");
        fs::create_dir(&shard).unwrap();
        let files = ["2_", "3_#1", "3_#12", "3_#x", "3_#"].map(|name| shard.join(name));
        files.iter().for_each(|file| fs::write(file, "").unwrap());
        let left = || files.iter().filter(|file| file.exists()).collect::<Vec<_>>();

        let now = SystemTime::now();
        remove_unfinished(directory.path(), now + UNFINISHED_TIME_MAX - Duration::from_secs(600)).unwrap();
        assert_eq!(left().len(), files.len());
        remove_unfinished(directory.path(), now + UNFINISHED_TIME_MAX + Duration::from_secs(600)).unwrap();
        assert_eq!(left(), [&files[0], &files[3], &files[4]]);
        remove_unfinished(&directory.path().join("nowhere"), now).unwrap();
    }
}
