//! What is done with objects, in terms of the library; failures are explained by [`cause`].

use std::{
    ops::{Deref, Range},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutPayload, path::Path};
use tokio::task::JoinSet;

use crate::{
    cause,
    key::{name_of, probe},
    upload::{PART_BYTES, PARTS_SIDE_BY_SIDE, upload},
};

pub(crate) type Store = Arc<dyn ObjectStore>;

/// Why an operation failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The library, or the server, says so.
    Object(Error),
    /// The object does not hold what was stored or announced.
    Length { found: u64, expected: u64 },
    /// There is no memory for so many bytes.
    Memory { bytes: u64 },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Object(error)
    }
}

/// How often a place is tried whose server is in the way of itself.
const TRIES_MAX: u32 = 5;
const TRY_INTERVAL: Duration = Duration::from_millis(50);

/// Looks whether objects can be listed, stored, read and removed.
///
/// A server that keeps objects as files may refuse one while another worker, which starts at the same
/// time, removes the last one of the same directory: versitygw does.
pub(crate) async fn try_all(store: &Store, root: &Path) -> Result<(), Failure> {
    for _ in 1..TRIES_MAX {
        match try_once(store, root).await {
            Err(Failure::Object(error)) if cause::is_of_directories(&error) => tokio::time::sleep(TRY_INTERVAL).await,
            tried => return tried,
        }
    }
    try_once(store, root).await
}

async fn try_once(store: &Store, root: &Path) -> Result<(), Failure> {
    // First, as a key that nobody knows makes some servers say of an object that it is not there.
    store.list(Some(root)).next().await.transpose()?;
    let (key, bytes) = (probe(root), b"probe");
    put(store, &key, bytes).await?;
    let read = get(store, &key).await?;
    remove(store, &key).await?;
    if read.as_deref() != Some(bytes) {
        return Err(Failure::Length { found: read.map_or(0, |read| read.len() as u64), expected: bytes.len() as u64 });
    }
    Ok(())
}

/// Stores an object and looks whether it has the right length.
pub(crate) async fn put(store: &Store, key: &Path, bytes: &[u8]) -> Result<(), Failure> {
    match bytes.len() <= PART_BYTES {
        true => store.put(key, PutPayload::from(bytes.to_vec())).await.map(drop)?,
        false => upload(&**store, key, bytes).await?,
    }
    let (found, expected) = (store.head(key).await?.size, bytes.len() as u64);
    if found != expected {
        return Err(Failure::Length { found, expected });
    }
    Ok(())
}

/// Reads an object, a large one in parts side by side; none if there is no such object.
pub(crate) async fn get(store: &Store, key: &Path) -> Result<Option<Vec<u8>>, Failure> {
    let Some(size) = size_of(store, key).await? else { return Ok(None) };
    let mut bytes = memory(size)?;
    let mut parts = JoinSet::new();
    let mut starts = (0..size).step_by(PART_BYTES);
    loop {
        for start in starts.by_ref().take(PARTS_SIDE_BY_SIDE - parts.len()) {
            parts.spawn(part(Arc::clone(store), key.clone(), start..size.min(start + PART_BYTES as u64)));
        }
        let Some(part) = parts.join_next().await else { return Ok(Some(bytes)) };
        let (start, part) = part.map_err(Error::from)??;
        bytes[start..start + part.len()].copy_from_slice(&part);
    }
}

/// The size of an object; none if there is no such object.
async fn size_of(store: &Store, key: &Path) -> Result<Option<u64>, Failure> {
    match store.head(key).await {
        Ok(object) => return Ok(Some(object.size)),
        Err(Error::NotFound { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    // A head has no body that could say what was not found; the answer to a get has.
    match store.get(key).await {
        Ok(object) => Ok(Some(object.meta.size)),
        Err(error) if cause::is_missing_object(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn memory(size: u64) -> Result<Vec<u8>, Failure> {
    let full = |_| Failure::Memory { bytes: size };
    let length = usize::try_from(size).map_err(|_| Failure::Memory { bytes: size })?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).map_err(full)?;
    bytes.resize(length, 0);
    Ok(bytes)
}

/// Reads a range, and says where it begins.
async fn part(
    store: Store,
    key: Path,
    range: Range<u64>,
) -> Result<(usize, impl Deref<Target = [u8]> + use<>), Failure> {
    let part = store.get_range(&key, range.clone()).await?;
    let (found, expected) = (part.len() as u64, range.end - range.start);
    if found != expected {
        return Err(Failure::Length { found, expected });
    }
    let start = usize::try_from(range.start).map_err(|_| Failure::Memory { bytes: range.end })?;
    Ok((start, part))
}

/// Removes an object; one that is not there is gone already.
pub(crate) async fn remove(store: &Store, key: &Path) -> Result<(), Failure> {
    match store.delete(key).await {
        Err(error) if !cause::is_missing_object(&error) => Err(error.into()),
        _ => Ok(()),
    }
}

/// The names of all snapshots, in order.
pub(crate) async fn list(store: &Store, root: &Path) -> Result<Vec<String>, Failure> {
    let (mut objects, mut names) = (store.list(Some(root)), Vec::new());
    while let Some(object) = objects.next().await {
        names.extend(name_of(root, &object?.location));
    }
    names.sort_unstable();
    Ok(names)
}
