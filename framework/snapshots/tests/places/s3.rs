//! A bucket of a real S3 server.

use std::{fs, path::PathBuf, thread};

use services::s3::Server;
use statefn_core::ports::snapshots::{Snapshots, conformance};

use crate::{bytes, damage_is_found, open};

/// Where the server keeps the snapshots of an app.
fn files(server: &Server, app: &str) -> PathBuf {
    server.directory().join(server.bucket()).join(app).join("_snapshots")
}

#[test]
fn a_bucket_conforms() {
    let Some(server) = Server::shared() else { return };
    let mut count = 0;
    conformance(|| {
        count += 1;
        Box::new(open(server, &format!("conformance/{count}")))
    });
}

#[test]
fn large_ones_come_back_whole() {
    let Some(server) = Server::shared() else { return };
    let mut place = open(server, "large");
    let bytes = bytes((45 << 20) + 7);
    // The last part is full, has one byte, or is the only one; more parts than go side by side.
    for length in [8 << 20, (8 << 20) + 1, 16 << 20, (20 << 20) + 7, bytes.len()] {
        place.put("shard-1/2", &bytes[..length]).unwrap();
        let read = place.get("shard-1/2").unwrap().unwrap();
        assert_eq!(read.len(), length);
        assert!(read == bytes[..length], "{length} bytes come back whole");
        assert!(fs::read(files(server, "large").join("shard-1/2_")).unwrap() == read, "{length}");
    }
}

#[test]
fn more_names_than_a_page_are_listed() {
    let Some(server) = Server::shared() else { return };
    let mut place = open(server, "many");
    // Clones share the connections, from several threads.
    thread::scope(|scope| {
        for shard in 0..4 {
            let mut place = place.clone();
            scope.spawn(move || {
                for number in 0..280 {
                    place.put(&format!("shard-{shard}/{number}"), b"state").expect("stored");
                }
            });
        }
    });
    let names = place.list().unwrap();
    let mut expected: Vec<String> =
        (0..4).flat_map(|shard| (0..280).map(move |number| format!("shard-{shard}/{number}"))).collect();
    expected.sort_unstable();
    assert_eq!(names, expected);
}

#[test]
fn names_and_apps_do_not_get_into_each_others_way() {
    let Some(server) = Server::shared() else { return };
    let (mut place, mut nested) = (open(server, "apart"), open(server, "apart/a"));
    // A name may continue another one.
    let names = ["a", "a-", "a.b", "a.b/c", "a/b", "a/b/c"];
    for name in names {
        place.put(name, name.as_bytes()).unwrap();
    }
    nested.put("b", b"nested").unwrap();
    for name in names {
        assert_eq!(place.get(name).unwrap().as_deref(), Some(name.as_bytes()));
    }
    assert_eq!(place.list().unwrap(), names);
    assert_eq!(nested.list().unwrap(), ["b"]);
    place.remove("a").unwrap();
    assert_eq!(place.list().unwrap(), names[1..]);
}

#[test]
fn damage_of_an_object_is_found() {
    let Some(server) = Server::shared() else { return };
    let mut place = open(server, "damage");
    damage_is_found(&mut place, &files(server, "damage").join("shard-1/2_"));
}

#[test]
fn opening_leaves_nothing_behind() {
    let Some(server) = Server::shared() else { return };
    assert_eq!(open(server, "empty").list().unwrap(), Vec::<String>::new());
    let left = fs::read_dir(files(server, "empty")).map_or(0, Iterator::count);
    assert_eq!(left, 0);
}

/// Each tries the place with an object of its own, and the last to remove one takes the directory away
/// that another is about to use.
#[test]
fn workers_that_start_together_all_have_the_place() {
    let Some(server) = Server::shared() else { return };
    for round in 0..40 {
        let app = format!("together/{round}");
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| open(server, &app));
            }
        });
    }
}
