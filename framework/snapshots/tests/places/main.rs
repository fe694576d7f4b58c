//! The places for snapshots as they are: a directory, and a real S3 server.

mod directory;
mod failures;
mod s3;
mod variables;

use std::{fs, path::Path};

use services::s3::Server;
use statefn_core::{
    ports::snapshots::Snapshots,
    shard::{frame::SnapshotMark, read_back},
};
use statefn_snapshots::{ObjectSnapshots, Options};

/// The options for a server, which others change.
fn options(server: &Server) -> Options {
    Options {
        endpoint: Some(server.endpoint().to_owned()),
        access_key_id: Some(server.access_key().to_owned()),
        secret_access_key: Some(server.secret_key().to_owned()),
        ..Options::default()
    }
}

/// The URL of a place in the bucket of a server.
fn url(server: &Server, app: &str) -> String {
    format!("s3://{}/{app}", server.bucket())
}

fn open(server: &Server, app: &str) -> ObjectSnapshots {
    ObjectSnapshots::open(&url(server, app), &options(server)).expect("the server runs")
}

/// Bytes in which no part equals another one.
fn bytes(length: usize) -> Vec<u8> {
    (0_u64..).flat_map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).take(length).collect()
}

/// A snapshot as the core makes it: its last bytes are the checksum of the others.
fn snapshot() -> (SnapshotMark, Vec<u8>) {
    let mut bytes = bytes(100_000);
    let crc = crc32c::crc32c(&bytes);
    bytes.extend(crc.to_le_bytes());
    let (name, length) = ("shard-1/2".to_owned(), bytes.len() as u64);
    (SnapshotMark { name, length, crc, epoch: 2, next_offset: 3 }, bytes)
}

/// Cuts the end of a file off.
fn truncate(file: &Path, length: u64) {
    fs::File::options().write(true).open(file).and_then(|file| file.set_len(length)).expect("a file of the test");
}

/// A snapshot as the core makes it is written, damaged and found to be so by the core.
fn damage_is_found(place: &mut dyn Snapshots, file: &Path) {
    let (mark, bytes) = snapshot();
    place.put(&mark.name, &bytes).expect("stored");
    assert_eq!(read_back(place, &mark).expect("it is whole"), bytes);
    let wrong = |place: &mut dyn Snapshots, mark: &SnapshotMark| read_back(place, mark).expect_err("damaged").0;

    let mut damaged = bytes.clone();
    damaged[bytes.len() / 2] ^= 1;
    fs::write(file, &damaged).expect("a file of the test");
    assert!(wrong(place, &mark).contains("is not what its mark says"));
    truncate(file, bytes.len() as u64 - 1);
    assert!(wrong(place, &mark).contains("is not what its mark says"));
    truncate(file, 0);
    assert!(wrong(place, &mark).contains("is not what its mark says"));
    fs::remove_file(file).expect("a file of the test");
    assert!(wrong(place, &mark).contains("is gone"));
}
