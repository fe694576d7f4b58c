//! Snapshots in an object store: S3 and what speaks its protocol, or a directory that all workers see.
//!
//! ```
//! use statefn_core::ports::snapshots::Snapshots;
//! use statefn_snapshots::{ObjectSnapshots, Options};
//!
//! let directory = tempfile::tempdir().unwrap();
//! let url = format!("file://{}", directory.path().display()); // or "s3://bucket/app"
//! let mut snapshots = ObjectSnapshots::open(&url, &Options::default()).unwrap();
//! snapshots.put("shard-1/2", b"state").unwrap();
//! assert_eq!(snapshots.get("shard-1/2").unwrap().as_deref(), Some(&b"state"[..]));
//! ```
//!
//! # Places
//!
//! | URL | what it is | what must be there |
//! |---|---|---|
//! | `s3://bucket/app` | objects of a bucket whose keys begin with `app/` (feature `s3`) | the bucket |
//! | `file:///directory` | files of a directory, which all workers must see: a network file system, or one machine | the directory |
//!
//! The name `shard-1/2` is the object `app/_snapshots/shard-1/2_`. `_snapshots` keeps an app apart
//! from one whose URL continues this one (`s3://bucket/app/test`); the `_` at the end keeps a name
//! apart from a directory of other names, which S3 servers that store files cannot tell from each
//! other. Neither can be part of a name.
//!
//! # Settings of S3
//!
//! Each stands in [`Options`], else in the variables that all S3 tools read: `AWS_ACCESS_KEY_ID`,
//! `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT_URL` or
//! `AWS_ENDPOINT_URL_S3`, those of roles and containers, and the others of
//! `object_store::aws::AmazonS3ConfigKey`. With an endpoint the bucket is named in the path
//! (`AWS_VIRTUAL_HOSTED_STYLE_REQUEST=true` changes that), without one AWS is meant. TLS is left out only
//! where the endpoint begins with `http://`. A key needs the rights `s3:ListBucket`, `s3:GetObject`,
//! `s3:PutObject`, `s3:DeleteObject` and `s3:AbortMultipartUpload`. The parts of an upload that a
//! worker's death has interrupted stay at the server, unseen: have a lifecycle rule of the bucket
//! remove them after a day. In a directory, such files are removed a day later by [`ObjectSnapshots::open`].
//!
//! # Invariants
//!
//! - A `put` that returned has been read back by its length; a `file://` one is synced, and so are
//!   its directories. What is damaged later is found by the checksum in the mark of a snapshot.
//! - `get` answers "not there" only if the server says so of the very object. A key that is no
//!   longer valid, or a bucket that is gone, is an error, though both may have the status 404.
//! - No call waits without end: a request that fails is sent again for [`Options::retry_time`], one
//!   that is not answered is given up after that time.
//! - A secret is in no text.
//!
//! A call that failed has an unknown outcome: a server that was only slow may still do it. As the
//! bytes of a name never change, a late `put` does no harm, and a late `remove` is only sent for
//! what nobody needs.
//!
//! Deliberately absent: a cache, compression and encryption (the server has them); conditional
//! writes (names are not reused, and marks in the journal say which snapshot counts); creation of
//! buckets.

mod cause;
mod error;
mod key;
mod location;
mod objects;
mod options;
mod place;
mod upload;

#[cfg(feature = "s3")]
mod bucket;
mod directory;

pub use error::Error;
pub use options::Options;
pub use place::ObjectSnapshots;
