//! A directory.

use std::{fs, path::Path};

use statefn_core::ports::snapshots::{Snapshots, conformance};
use statefn_snapshots::{Error, ObjectSnapshots, Options};

use crate::{bytes, damage_is_found};

fn open(directory: &Path) -> Result<ObjectSnapshots, Error> {
    ObjectSnapshots::open(&format!("file://{}", directory.display()), &Options::default())
}

#[test]
fn a_directory_conforms() {
    let directory = tempfile::tempdir().unwrap();
    let mut count = 0;
    conformance(|| {
        count += 1;
        let place = directory.path().join(count.to_string());
        fs::create_dir(&place).unwrap();
        Box::new(open(&place).unwrap())
    });
}

#[test]
fn large_ones_come_back_whole() {
    let directory = tempfile::tempdir().unwrap();
    let mut place = open(directory.path()).unwrap();
    let bytes = bytes((20 << 20) + 7);
    place.put("shard-1/2", &bytes).unwrap();
    assert!(place.get("shard-1/2").unwrap() == Some(bytes), "it comes back whole");
    // Nothing else is left: no probe, no temporary file.
    let files = fs::read_dir(directory.path().join("_snapshots")).unwrap();
    let files: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files, ["shard-1"]);
    assert_eq!(fs::read_dir(directory.path().join("_snapshots/shard-1")).unwrap().count(), 1);
}

#[test]
fn a_worker_sees_what_another_one_stores() {
    let directory = tempfile::tempdir().unwrap();
    let (mut one, mut other) = (open(directory.path()).unwrap(), open(directory.path()).unwrap());
    one.put("shard-1/2", b"state").unwrap();
    assert_eq!(other.list().unwrap(), ["shard-1/2"]);
    assert_eq!(other.get("shard-1/2").unwrap().as_deref(), Some(&b"state"[..]));
    other.remove("shard-1/2").unwrap();
    assert_eq!(one.get("shard-1/2").unwrap(), None);
}

#[test]
fn damage_of_a_file_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let mut place = open(directory.path()).unwrap();
    damage_is_found(&mut place, &directory.path().join("_snapshots/shard-1/2_"));
}

#[test]
fn a_directory_that_is_not_there_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let error = open(&directory.path().join("gone")).unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error:?}");
    assert!(error.to_string().contains("gone`: it is no directory; create it, or mount it"), "{error}");

    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(open(&file).unwrap_err().to_string().contains("it is no directory"));
}

#[test]
fn a_directory_that_cannot_be_written_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    // What stands where the directory of all snapshots should be hinders root too.
    fs::write(directory.path().join("_snapshots"), "").unwrap();
    let error = open(directory.path()).unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error:?}");
    assert!(error.to_string().contains(&directory.path().display().to_string()), "{error}");
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut place = open(directory.path()).unwrap();
    for name in ["../elsewhere", "/elsewhere", "a//b", "A", ""] {
        let error = place.put(name, b"state").unwrap_err();
        assert!(error.contains("is no name of a snapshot"), "{error}");
        assert_eq!(place.get(name).unwrap_err(), error);
        assert_eq!(place.remove(name).unwrap_err(), error);
    }
}

#[test]
fn asynchronous_code_may_drop_a_place() {
    let directory = tempfile::tempdir().unwrap();
    let place = open(directory.path()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async move { drop(place) });
}
