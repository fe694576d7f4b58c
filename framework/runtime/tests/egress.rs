//! The file egress on the disk of the machine.

use std::{
    fs,
    path::{Path, PathBuf},
};

use statefn_core::{
    Encoding,
    ports::egress::{Egresses, conformance},
};
use statefn_runtime::egress::{EgressError, FileEgress, Place, SinkSpec, Written};

struct Directory(tempfile::TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn sink(&self, name: &str) -> SinkSpec {
        SinkSpec {
            name: name.into(),
            encoding: Encoding::Json,
            place: Place::File(self.path(&format!("out/{name}.jsonl"))),
        }
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("out/{name}.jsonl"))).expect("is there")
    }

    fn open(&self, sinks: &[&str]) -> Result<FileEgress, EgressError> {
        let sinks = sinks.iter().map(|name| self.sink(name)).collect();
        FileEgress::open(&self.path("data"), sinks, 2)
    }

    /// The text of an error, without the name of the directory.
    fn refusal(&self, opened: Result<FileEgress, EgressError>) -> String {
        let error = opened.expect_err("is refused").to_string();
        error.replace(&format!("{}/", self.0.path().display()), "")
    }
}

fn write(egress: &mut FileEgress, shard: u32, epoch: u64, records: &[(usize, &str)]) {
    egress.write_epoch(shard, epoch, records.iter().map(|(sink, record)| (*sink, record.as_bytes())));
}

#[test]
fn a_restart_cuts_what_no_mark_knows_and_takes_it_again() {
    let directory = Directory::new();
    let mut egress = directory.open(&["sales"]).expect("opens");
    write(&mut egress, 0, 1, &[(0, "1"), (0, "2")]);
    egress.sync().expect("syncs");
    drop(egress);
    let file = directory.path("out/sales.jsonl");
    fs::write(&file, "1\n2\n3\n4").expect("writes");
    let mut egress = directory.open(&["sales"]).expect("opens");
    assert_eq!(directory.text("sales"), "1\n2\n");
    assert_eq!((egress.taken(0), egress.taken(1)), (1, 0));
    write(&mut egress, 0, 1, &[(0, "1"), (0, "2")]);
    write(&mut egress, 0, 2, &[(0, "3")]);
    egress.sync().expect("syncs");
    assert_eq!(directory.text("sales"), "1\n2\n3\n");
    assert_eq!(egress.written(0), Written { records: 1, bytes: 2 });
}

#[test]
fn files_conform_to_the_port() {
    let directory = Directory::new();
    let open = || directory.open(&["sales", "refunds"]).expect("opens");
    let reopen = |egress: FileEgress| {
        drop(egress);
        // What a process wrote and no mark knows.
        let path = directory.path("out/sales.jsonl");
        let text = fs::read_to_string(&path).expect("is there");
        fs::write(&path, text + "torn").expect("writes");
        open()
    };
    let standing = |_: &FileEgress, egress: usize| {
        let text = directory.text(["sales", "refunds"][egress]);
        text.lines().map(|line| line.as_bytes().to_vec()).collect()
    };
    conformance(open(), reopen, standing);
}

#[test]
fn an_added_egress_begins_a_file_and_one_that_comes_back_goes_on() {
    let directory = Directory::new();
    let mut egress = directory.open(&["sales"]).expect("opens");
    write(&mut egress, 0, 1, &[(0, "1")]);
    egress.sync().expect("syncs");
    let mut egress = directory.open(&["refunds"]).expect("opens");
    write(&mut egress, 0, 2, &[(0, "2")]);
    egress.sync().expect("syncs");
    let mut egress = directory.open(&["refunds", "sales"]).expect("opens");
    write(&mut egress, 0, 3, &[(0, "3"), (1, "4")]);
    egress.sync().expect("syncs");
    assert_eq!((directory.text("sales").as_str(), directory.text("refunds").as_str()), ("1\n4\n", "2\n3\n"));
}

#[test]
fn protobuf_records_stand_behind_their_length() {
    let directory = Directory::new();
    let file = directory.path("sales.pb");
    let sink = SinkSpec { name: "sales".into(), encoding: Encoding::Protobuf, place: Place::File(file.clone()) };
    let mut egress = FileEgress::open(&directory.path("data"), vec![sink], 1).expect("opens");
    let long = "x".repeat(300);
    write(&mut egress, 0, 1, &[(0, "ab"), (0, ""), (0, &long)]);
    egress.sync().expect("syncs");
    let expected = [b"\x02ab\x00\xac\x02", long.as_bytes()].concat();
    assert_eq!(fs::read(file).expect("is there"), expected);
}

#[test]
fn what_cannot_be_opened_says_why_and_what_to_do() {
    let check = |before: &dyn Fn(&Directory), sinks: &[&str], expected: &str| {
        let directory = Directory::new();
        let mut egress = directory.open(&["sales"]).expect("opens");
        write(&mut egress, 0, 1, &[(0, "{\"cents\":1}")]);
        egress.sync().expect("syncs");
        before(&directory);
        assert_eq!(directory.refusal(directory.open(sinks)), expected);
    };
    let put = |name: &'static str, text: &'static str| {
        move |directory: &Directory| fs::write(directory.path(name), text).expect("writes")
    };
    check(
        &put("out/sales.jsonl", "{}\n"),
        &["sales"],
        "`out/sales.jsonl` has 3 bytes, but the egress `sales` has written 12: lines were removed; put them back, or give the egress a new file and move this one away",
    );
    check(
        &put("out/refunds.jsonl", "mine\n"),
        &["sales", "refunds"],
        "`out/refunds.jsonl` has 5 bytes that the egress `refunds` of this app has not written: it is not overwritten; move it away, or give the egress another file",
    );
    check(
        &|directory| fs::create_dir(directory.path("out/refunds.jsonl")).expect("is made"),
        &["refunds"],
        "`out/refunds.jsonl` is no regular file, so lines in it cannot stand exactly once: give the egress `refunds` a file, the console, or the counter",
    );
    check(
        &|_| {},
        &["sales", "sales"],
        "the egresses `sales` and `sales` both have the file `out/sales.jsonl`: give one of them another",
    );
    check(
        &|directory| {
            std::os::unix::fs::symlink("sales.jsonl", directory.path("out/other.jsonl")).expect("is linked");
            fs::write(directory.path("out/sales.jsonl"), "").expect("writes");
            fs::remove_dir_all(directory.path("data")).expect("is removed");
        },
        &["sales", "other"],
        "the egresses `sales` and `other` both have the file `out/other.jsonl`: give one of them another",
    );
    check(
        &|directory| {
            put("data/egress.mark.0", "sfegress and something else")(directory);
            put("data/egress.mark.1", "x")(directory);
        },
        &["sales"],
        "the mark of the egresses in `data` is damaged (`data/egress.mark.1`: it does not begin as a mark), so it is not known which lines stand: restore the directory from a backup, or move it and the files of the egresses away to begin anew",
    );
}

#[test]
fn another_number_of_shards_is_refused() {
    let directory = Directory::new();
    drop(directory.open(&["sales"]).expect("opens"));
    let opened = FileEgress::open(&directory.path("data"), vec![directory.sink("sales")], 3);
    assert_eq!(
        directory.refusal(opened),
        "the mark of the egresses in `data` is of an app with 2 shards, this one has 3: the number is fixed when an app is created, set it back"
    );
}

#[test]
fn a_path_below_a_file_is_an_error_of_the_system() {
    let directory = Directory::new();
    fs::write(directory.path("file"), "").expect("writes");
    let place = Place::File(directory.path("file/sales.jsonl"));
    let sink = SinkSpec { name: "sales".into(), encoding: Encoding::Json, place };
    let opened = FileEgress::open(&directory.path("data"), vec![sink], 1);
    assert_eq!(
        directory.refusal(opened),
        "cannot open `file/sales.jsonl`: Not a directory (os error 20); nothing is lost: free the disk or correct the permissions, the egress goes on then"
    );
}

#[test]
fn the_counter_counts_and_keeps_nothing() {
    let directory = Directory::new();
    let sink = SinkSpec { name: "sales".into(), encoding: Encoding::Json, place: Place::Counter };
    let mut egress = FileEgress::open(&directory.path("data"), vec![sink], 1).expect("opens");
    write(&mut egress, 0, 1, &[(0, "12"), (0, "345")]);
    assert_eq!((egress.buffered_bytes(), egress.written(0)), (0, Written::default()));
    egress.sync().expect("syncs");
    assert_eq!(egress.written(0), Written { records: 2, bytes: 7 });
    assert_eq!(Path::new(&directory.path("data")).read_dir().expect("is there").count(), 2);
}

#[test]
fn the_egress_can_be_moved_to_a_thread_of_its_own() {
    fn is_send<T: Send>() {}
    is_send::<FileEgress>();
}
