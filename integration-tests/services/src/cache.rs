//! Where servers are installed: one directory of the user, for all clones.
//!
//! Invariant: what stands under its final name is whole. It is made under a temporary name, renamed
//! when complete, and never changed; a lock lets only one process at a time make anything.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::Error;

/// Names the directory, where the user wants another one.
const VARIABLE: &str = "STATEFN_SERVICES";

/// A directory of the cache, `name` below its root; it need not be there.
pub(crate) fn path_of(name: &str) -> Result<PathBuf, Error> {
    Ok(root()?.join(name))
}

/// Makes a directory of the cache unless it is there; `fill` gets an empty one. Returns whether
/// it was made.
pub(crate) fn make(name: &str, fill: impl FnOnce(&Path) -> Result<(), Error>) -> Result<bool, Error> {
    let root = root()?;
    let place = root.join(name);
    let unusable = || format!("use `{}` (the variable `{VARIABLE}` names another directory)", root.display());
    fs::create_dir_all(&root).map_err(Error::system(unusable()))?;
    let lock = File::create(root.join("lock")).map_err(Error::system(unusable()))?;
    lock.lock().map_err(Error::system(unusable()))?;
    if place.exists() {
        return Ok(false);
    }
    let directory = TempDir::with_prefix_in("unfinished-", &root).map_err(Error::system(unusable()))?;
    fill(directory.path())?;
    fs::rename(directory.path(), &place).map_err(Error::system(unusable()))?;
    // It has another name now, so there is nothing to remove.
    let _ = directory.keep();
    Ok(true)
}

fn root() -> Result<PathBuf, Error> {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let caches = || variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    let root = variable(VARIABLE).or_else(|| Some(caches()?.join("statefn/services")));
    root.ok_or_else(|| Error::Missing {
        what: "a directory for servers".to_owned(),
        fix: format!("set the variable `{VARIABLE}` to one"),
    })
}
