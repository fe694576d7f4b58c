//! The port, on top of an object store.

use std::{fmt, sync::Arc};

use object_store::path::Path;
use statefn_core::ports::snapshots::Snapshots;
use tokio::runtime::{Builder, Runtime};

use crate::{
    Error, Options,
    cause::{self, Cause, Kind},
    directory,
    key::{self, key_of},
    location::Location,
    objects::{self, Failure, Store},
};

/// Snapshots in an object store; see the [crate] for URLs, settings and promises.
///
/// Clones share the connections; give each thread its own. Calls block, so none may come from a
/// thread that drives a runtime of tokio.
///
/// # Panics
/// A call panics on a thread that drives a runtime of tokio.
#[derive(Clone)]
pub struct ObjectSnapshots {
    place: Arc<Place>,
}

struct Place {
    /// There until the place is dropped.
    runtime: Option<Runtime>,
    store: Store,
    root: Path,
    /// The URL, and where its server is: ``the snapshots at `s3://bucket/app` at http://..``.
    what: String,
}

impl ObjectSnapshots {
    /// Opens a place and proves that it can be used: it lists, stores, reads and removes.
    ///
    /// # Errors
    /// [`Error::Settings`] if the URL or an option is wrong, [`Error::Refused`] if the place does
    /// not allow what snapshots need, [`Error::Unreachable`] if it does not answer within
    /// [`Options::retry_time`].
    pub fn open(url: &str, options: &Options) -> Result<Self, Error> {
        let (store, prefix, server) = match Location::parse(url)? {
            Location::Directory(path) => (directory::open(&path)?, String::new(), String::new()),
            Location::Bucket { bucket, prefix } => {
                let (store, server) = open_bucket(url, &bucket, options)?;
                (store, prefix, server)
            }
        };
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::Refused(format!("cannot use `{url}`: no event loop: {error}")))?;
        let (root, what) = (key::root(&prefix), format!("the snapshots at `{url}`{server}"));
        let place = Place { runtime: Some(runtime), store, root, what };
        place.run("use", objects::try_all(&place.store, &place.root))?;
        Ok(Self { place: Arc::new(place) })
    }
}

#[cfg(feature = "s3")]
fn open_bucket(url: &str, bucket: &str, options: &Options) -> Result<(Store, String), Error> {
    crate::bucket::open(url, bucket, options)
}

#[cfg(not(feature = "s3"))]
fn open_bucket(url: &str, _: &str, _: &Options) -> Result<(Store, String), Error> {
    Err(Error::Settings(format!(
        "cannot use `{url}`: this program was built without S3; build it with the feature `s3`, or use `file:///directory`"
    )))
}

impl Place {
    fn run<T>(&self, verb: &str, operation: impl Future<Output = Result<T, Failure>>) -> Result<T, Error> {
        let runtime = self.runtime.as_ref().expect("it is there until the place is dropped");
        runtime.block_on(operation).map_err(|failure| self.error(verb, &failure))
    }

    fn error(&self, verb: &str, failure: &Failure) -> Error {
        let cause = match failure {
            Failure::Object(error) => cause::of(error),
            Failure::Length { found, expected } => {
                refused(format!("it holds {found} bytes of {expected}: it is damaged, or somebody else writes here"))
            }
            Failure::Memory { bytes } => refused(format!("there is no memory for its {bytes} bytes")),
        };
        let text = format!("cannot {verb} {}: {}", self.what, cause.text);
        match cause.kind {
            Kind::Refused => Error::Refused(text),
            Kind::Unreachable => Error::Unreachable(text),
        }
    }

    fn key_of(&self, name: &str) -> Result<Path, Error> {
        key_of(&self.root, name)
    }
}

fn refused(text: String) -> Cause {
    Cause { kind: Kind::Refused, text }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Nothing is under way. Waiting for that would panic where asynchronous code drops this.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for ObjectSnapshots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectSnapshots({})", self.place.what)
    }
}

impl Snapshots for ObjectSnapshots {
    fn put(&mut self, name: &str, bytes: &[u8]) -> Result<(), String> {
        let (place, key) = (&self.place, self.place.key_of(name).map_err(text)?);
        place.run(&format!("store `{name}` among"), objects::put(&place.store, &key, bytes)).map_err(text)
    }

    fn get(&mut self, name: &str) -> Result<Option<Vec<u8>>, String> {
        let (place, key) = (&self.place, self.place.key_of(name).map_err(text)?);
        place.run(&format!("read `{name}` of"), objects::get(&place.store, &key)).map_err(text)
    }

    fn remove(&mut self, name: &str) -> Result<(), String> {
        let (place, key) = (&self.place, self.place.key_of(name).map_err(text)?);
        place.run(&format!("remove `{name}` from"), objects::remove(&place.store, &key)).map_err(text)
    }

    fn list(&mut self) -> Result<Vec<String>, String> {
        let place = &self.place;
        place.run("list", objects::list(&place.store, &place.root)).map_err(text)
    }
}

fn text(error: Error) -> String {
    error.to_string()
}
