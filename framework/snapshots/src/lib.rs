//! Snapshots in an object store: S3 and what speaks its protocol, or a directory that all workers see.
