//! Sources: what they read, where they start again, and what they say about bad input.

use std::{fs, io::Write, path::PathBuf, sync::Arc};

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use statefn_core::{
    Address, Context, DecodeError, Encoding, EventTime, Message, State, Wire,
    codec::put_bytes,
    dead_letter::DeadLetter,
    function::{Accepts, Access, Function, Handles, Incoming, Target, TargetDeclaration},
    host::Handlers,
    ingress::{Batches, ErasedIngress, Ingress, bind},
    limits::{DEAD_LETTER_BYTES_MAX, KEY_BYTES_MAX, MESSAGE_BYTES_MAX},
    message::{Row, decode_json, decode_row, encode_json},
    ports::ingress::{self, ReadLimit, Source, Stretch, finish_stretch},
    program::{FunctionSpec, Program, ProgramSpec},
    shard::frame::Position,
    state::{self, Field},
};
use statefn_runtime::ingress::{FileSource, Format, GeneratorSource, SourceError};

const SHARDS: u32 = 4;
const ONE: ReadLimit = ReadLimit { records: 1, bytes: u64::MAX };
const ALL: ReadLimit = ReadLimit { records: u64::MAX, bytes: u64::MAX };

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Sale {
    store: String,
    cents: u64,
    #[serde(default)]
    at_ms: i64,
}

impl Wire for Sale {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_json(self, out);
    }
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode_json(bytes)
    }
    fn decode_row(row: Row<'_>) -> Result<Self, DecodeError> {
        decode_row(row)
    }
}

impl Message for Sale {
    const NAME: &'static str = "sale";
    const ENCODING: Encoding = Encoding::Json;
}

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Store;

impl State for Store {
    const FIELDS: &'static [Field] = &[];
    const VERSION: u32 = 1;
    fn encode_state(&self, out: &mut Vec<u8>) {
        state::encode(self, Self::VERSION, out);
    }
    fn decode_state(bytes: &[u8]) -> Result<Self, DecodeError> {
        state::decode(bytes, Self::VERSION)
    }
}

impl Target for Store {
    const NAME: &'static str = "shop/store";
    const MESSAGES: &'static [&'static str] = &["sale"];
    type Key = String;
}

impl Accepts<Sale> for Store {
    type Return = ();
    const INDEX: u16 = 0;
}

impl Handles<Sale> for Store {
    const ACCESS: Access = Access::Write;
    const IN_EVENT_TIME_ORDER: bool = false;
    fn handle(&mut self, _: &mut Incoming<Sale>, _: &mut Context<'_, Self>) {}
}

impl Function for Store {
    const SENDS: &'static [TargetDeclaration] = &[];
    fn emits() -> Vec<statefn_core::egress::EgressDeclaration> {
        Vec::new()
    }
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.on::<Sale>();
    }
}

/// The ingress `sales`; a sale of more than 900 cents breaks the router.
fn sales() -> Arc<dyn ErasedIngress> {
    let ingress = Ingress::<Sale>::new("sales")
        .event_time(|sale| EventTime(sale.at_ms))
        .generate(|number| match number {
            0..5 => Some(Sale { store: format!("s{number}"), cents: number * 300, at_ms: 7 - number as i64 }),
            _ => None,
        })
        .to::<Store>();
    let spec = ProgramSpec {
        app: "shop".into(),
        functions: vec![FunctionSpec::of::<Store>()],
        ingresses: vec![ingress.spec()],
        ..ProgramSpec::default()
    };
    let program = Program::link(spec).expect("the parts fit");
    bind(ingress, |sale: Sale, out| {
        assert!(sale.cents <= 900, "too dear");
        out.send(Address::<Store>::new(sale.store.clone()), sale);
    })(&program)
}

/// What a source has given.
#[derive(Debug, Clone, Default, PartialEq)]
struct Read {
    /// The offset, key and message of each record.
    sales: Vec<(u64, String, Sale)>,
    letters: Vec<(u64, DeadLetter)>,
    /// The positions behind each stretch.
    positions: Vec<Position>,
    error: Option<SourceError>,
}

impl Read {
    fn add(&mut self, batches: Batches, stretch: Stretch) {
        self.positions.push(stretch.to);
        for batch in batches.shards {
            let calls = &batch.calls;
            for (call, offset) in calls.calls.iter().zip(&batch.offsets) {
                let key = String::from_utf8(call.key.of(&calls.bytes).to_vec()).expect("keys are text");
                let sale = Sale::decode(call.payload.of(&calls.bytes)).expect("what was encoded decodes");
                assert_eq!(call.time, EventTime(sale.at_ms));
                self.sales.push((*offset, key, sale));
            }
            self.letters.extend(batch.dead_letters);
        }
        self.sales.sort_by_key(|sale| sale.0);
        self.letters.sort_by_key(|letter| letter.0);
    }

    fn stores(&self) -> Vec<&str> {
        self.sales.iter().map(|sale| sale.1.as_str()).collect()
    }

    /// The place, reason and bytes of each dead letter.
    fn letters(&self, directory: &Directory) -> Vec<String> {
        let text = |letter: &DeadLetter| {
            let (place, bytes) = (letter.position.clone().unwrap_or_default(), letter.bytes());
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
            directory.hide(&format!("{place}: {} | {shown}", letter.error))
        };
        self.letters.iter().map(|letter| text(&letter.1)).collect()
    }
}

fn read(source: &mut dyn Source<Error = SourceError>, limit: ReadLimit) -> Read {
    let ingress = sales();
    let mut all = Read::default();
    loop {
        let mut batches = Batches::new(SHARDS);
        match source.read(ingress.as_ref(), &mut batches, limit) {
            Ok(stretch) => {
                all.add(batches, stretch);
                if stretch.to.is_ended {
                    assert_eq!(source.dead_letters(), all.letters.len() as u64);
                    assert_eq!(source.position(), stretch.to);
                    return all;
                }
            }
            Err(error) => {
                let again = source.read(ingress.as_ref(), &mut batches, limit);
                assert_eq!(again, Err(error.clone()), "an error stays");
                all.error = Some(error);
                return all;
            }
        }
    }
}

struct Directory(tempfile::TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).expect("writes");
        path
    }

    fn hide(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.0.path().display()), "")
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("compresses");
    encoder.finish().expect("compresses")
}

/// Reads a whole file.
fn read_file(name: &str, bytes: &[u8]) -> (Read, Directory) {
    let directory = Directory::new();
    let path = directory.file(name, bytes);
    let format = Format::of_path(&path).expect("the name says it");
    let read = match FileSource::open(&path, format, Position::default()) {
        Ok(mut source) => read(&mut source, ALL),
        Err(error) => Read { error: Some(error), ..Read::default() },
    };
    (read, directory)
}

fn check_letters(name: &str, bytes: &[u8], stores: &[&str], letters: &[&str]) {
    let (read, directory) = read_file(name, bytes);
    assert_eq!(read.error, None, "{name}");
    assert_eq!(read.letters(&directory), letters);
    assert_eq!(read.stores(), stores);
    let records = stores.len() + letters.len();
    assert_eq!(read.positions.last().map(|to| to.records), Some(records as u64));
}

fn check_error(name: &str, bytes: &[u8], stores: &[&str], expected: &str) {
    let (read, directory) = read_file(name, bytes);
    assert_eq!(directory.hide(&read.error.as_ref().map(ToString::to_string).unwrap_or_default()), expected);
    assert_eq!(read.stores(), stores, "what stands before the error was handed out");
}

#[test]
fn sources_conform_to_the_port() {
    let ingress = sales();
    let rows = [("a", 1, 5), ("b", 901, 6), ("b", 2, 7), ("a", 3, 2), ("c", 4, 9)];
    let row = |(store, cents, at_ms): &(&str, u64, i64)| format!("{store},{cents},{at_ms}\n");
    let csv = format!("store,cents,at_ms\n{}\"\",x,1\n", rows.iter().map(row).collect::<String>());
    let sales = rows.map(|(store, cents, at_ms)| Sale { store: store.into(), cents, at_ms });
    let jsons: Vec<Vec<u8>> = sales.iter().map(encoded).collect();
    let lines = jsons.join(&b"\n\n"[..]);
    let mut delimited = Vec::new();
    jsons.iter().for_each(|json| put_bytes(&mut delimited, json));
    let directory = Directory::new();
    for (name, bytes) in [
        ("s.csv", csv.as_bytes()),
        ("s.jsonl", &lines),
        ("s.pb", &delimited),
        ("s.csv.gz", &gzip(csv.as_bytes())),
        ("s.jsonl.gz", &gzip(&lines)),
        ("s.pb.gz", &gzip(&delimited)),
    ] {
        let path = directory.file(name, bytes);
        let format = Format::of_path(&path).expect("the name says it");
        ingress::conformance(&*ingress, |from| FileSource::open(&path, format, from).expect("opens"));
    }
    ingress::conformance(&*ingress, GeneratorSource::new);
}

fn encoded(sale: &Sale) -> Vec<u8> {
    let mut bytes = Vec::new();
    sale.encode(&mut bytes);
    bytes
}

#[test]
fn json_lines() {
    let good = r#"{"store":"a","cents":1}"#;
    check_letters("s.jsonl", b"", &[], &[]);
    check_letters("s.jsonl", b"\n \r\n", &[], &[]);
    check_letters("s.jsonl", format!("\u{feff}{good}\r\n\n{good}").as_bytes(), &["a", "a"], &[]);
    check_letters(
        "s.jsonl",
        format!("{good}\n\n{{\"store\":\n{good}\n{{\"store\":\"b\",\"cents\":-1}}\n").as_bytes(),
        &["a", "a"],
        &[
            "s.jsonl:line 3: EOF while parsing a value at line 1 column 9 | {\"store\":",
            "s.jsonl:line 5: invalid value: integer `-1`, expected u64 at line 1 column 23 | {\"store\":\"b\",\"cents\":-1}",
        ],
    );
    check_letters(
        "s.jsonl",
        b"{\"store\":\"a\",\"cents\":1,\"more\":\"\xff\"}",
        &[],
        &[
            "s.jsonl:line 1: the line is no UTF-8 text: its byte 32 is 0xff | {\"store\":\"a\",\"cents\":1,\"more\":\"\u{fffd}\"}",
        ],
    );
    check_letters(
        "s.jsonl",
        br#"{"store":"a","cents":901}"#,
        &[],
        &[r#"s.jsonl:line 1: the router panicked: too dear | {"store":"a","cents":901}"#],
    );
}

#[test]
fn rows() {
    check_letters("s.csv", b"store,cents\n", &[], &[]);
    check_letters("s.csv", b"\xef\xbb\xbfstore,cents\r\n\r\na,1\r\n\"b\",2", &["a", "b"], &[]);
    check_letters("s.csv", b"cents,more,store\n1,,\"a,\n\"\"b\"\"\"\n", &["a,\n\"b\""], &[]);
    check_letters(
        "s.csv",
        b"store,cents\n\"a\nb\",1\nc,x\n\nd\ne,1,2\n\xff,3\ng,4\n\"h,5\ni,6\n",
        &["a\nb", "g"],
        &[
            "s.csv:line 4: column `cents` holds \"x\": invalid digit found in string | c,x",
            "s.csv:line 6: the row has 1 fields, the header has 2; quote a value that holds a comma | d",
            "s.csv:line 7: the row has 3 fields, the header has 2; quote a value that holds a comma | e,1,2",
            "s.csv:line 8: the row is no UTF-8 text: its byte 1 is 0xff | \u{fffd},3",
            "s.csv:line 10: a quote of the row is never closed, so the row ends where the file ends | \"h,5\ni,6",
        ],
    );
    let key = "k".repeat(KEY_BYTES_MAX + 1);
    check_letters(
        "s.csv",
        format!("store,cents\n{key},1\na,2\n").as_bytes(),
        &["a"],
        &[&format!("s.csv:line 2: a key for `shop/store` has 1025 bytes; the limit is 1024 | {}", "k".repeat(40))],
    );
}

#[test]
fn protobuf_records() {
    check_letters("s.pb", b"", &[], &[]);
    check_letters("s.pb", &delimited(&[br#"{"store":"a","cents":1}"#]), &["a"], &[]);
    let mut long = delimited(&[br#"{"store":"a","cents":1}"#, b"", b"\xff{"]);
    put_bytes(&mut long, &vec![b'x'; MESSAGE_BYTES_MAX + 1]);
    long.extend_from_slice(&delimited(&[br#"{"store":"b","cents":1}"#]));
    check_letters(
        "s.pb",
        &long,
        &["a", "b"],
        &[
            "s.pb:record 2 at byte 24: EOF while parsing a value at line 1 column 0 | ",
            "s.pb:record 3 at byte 25: expected value at line 1 column 1 | \u{fffd}{",
            &format!(
                "s.pb:record 4 at byte 28: the record has 4194305 bytes; the limit is 4194304 | {}",
                "x".repeat(40)
            ),
        ],
    );
}

fn delimited(records: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    records.iter().for_each(|record| put_bytes(&mut bytes, record));
    bytes
}

#[test]
fn a_long_record_is_passed_and_its_beginning_kept() {
    let long = "x".repeat(3 * MESSAGE_BYTES_MAX);
    for end in ["", "\n{\"store\":\"b\",\"cents\":1}"] {
        let (read, directory) = read_file("s.jsonl", format!("{long}{end}").as_bytes());
        let expected =
            format!("s.jsonl:line 1: the line has 12582912 bytes; the limit is 4194304 | {}", "x".repeat(40));
        assert_eq!(read.letters(&directory), [expected]);
        assert_eq!(read.sales.len(), usize::from(!end.is_empty()));
        let letter = &read.letters[0].1;
        assert_eq!((letter.bytes().len(), letter.bytes_total), (DEAD_LETTER_BYTES_MAX, Some(12_582_912)));
    }
    for (row, bytes) in
        [(format!("{long},1"), 12_582_915), (format!("\"{long}\n\",1"), 12_582_918), (format!("\"{long}"), 12_582_914)]
    {
        let is_closed = !row.starts_with('"') || row.ends_with('1');
        let (read, directory) = read_file("s.csv", format!("store,cents\n{row}\nb,1\n").as_bytes());
        let letters = read.letters(&directory);
        let bytes = if is_closed { bytes } else { bytes + "b,1\n".len() };
        assert!(
            letters[0].starts_with(&format!("s.csv:line 2: the row has {bytes} bytes; the limit is 4194304 | ")),
            "{}",
            letters[0]
        );
        assert_eq!((letters.len(), read.stores()), (1, if is_closed { vec!["b"] } else { vec![] }));
    }
}

#[test]
fn records_that_are_larger_than_a_buffer() {
    let long = "x,\n".repeat(400_000);
    let json = |store: &str| serde_json::json!({ "more": long, "store": store, "cents": 1 }).to_string();
    let (a, b) = (json("a"), json("b"));
    let files = [
        ("s.csv", format!("more,store,cents\n\"{long}\",a,1\n\"{long}\",b,1\n").into_bytes()),
        ("s.jsonl", format!("{a}\n{b}\n").into_bytes()),
        ("s.pb", delimited(&[a.as_bytes(), b.as_bytes()])),
    ];
    for (name, bytes) in files {
        let directory = Directory::new();
        let (path, format) = (directory.file(name, &bytes), Format::of_path(name.as_ref()).expect("has one"));
        let open = |from| FileSource::open(&path, format, from).expect("opens");
        let whole = read(&mut open(Position::default()), ONE);
        assert_eq!((whole.stores(), whole.letters.len()), (vec!["a", "b"], 0), "{name}");
        assert_eq!(read(&mut open(whole.positions[0]), ALL).stores(), ["b"], "{name}");
        assert_eq!(whole.positions[1].offset, bytes.len() as u64, "{name}");
    }
}

#[test]
fn input_that_cannot_be_read_says_why_and_what_to_do() {
    check_error("s.csv", b"", &[], "`s.csv` has no header: the first line of a CSV file names its columns");
    check_error("s.csv", b"\xef\xbb\xbf", &[], "`s.csv` has no header: the first line of a CSV file names its columns");
    check_error(
        "s.csv",
        b"a,\xff\n",
        &[],
        "the header of `s.csv` cannot be read: the row is no UTF-8 text: its byte 3 is 0xff",
    );
    check_error(
        "s.csv",
        b"store,euros\na,1\n",
        &[],
        "the header of `s.csv` lacks the column `cents`, which the messages of the ingress `sales` need; its columns are: store, euros; correct the header, or rename the field with `#[serde(rename = \"..\")]`",
    );
    check_error(
        "s.csv",
        b"store,cents,cents\na,1,2\n",
        &[],
        "the header of `s.csv` has twice the column `cents`, which the messages of the ingress `sales` need; its columns are: store, cents, cents; correct the header, or rename the field with `#[serde(rename = \"..\")]`",
    );
    check_error(
        "s.csv.gz",
        b"store,cents\na,1\n",
        &[],
        "the name of `s.csv.gz` says that it is gzip, its first bytes say that it is not: rename the file",
    );
    check_error(
        "s.csv",
        &gzip(b"store,cents\na,1\n"),
        &[],
        "the name of `s.csv` says that it is not compressed, its first bytes say that it is gzip: rename the file",
    );
    let whole = gzip(b"store,cents\na,1\nb,2\n");
    check_error(
        "s.csv.gz",
        &whole[..whole.len() - 4],
        &["a", "b"],
        "`s.csv.gz` is truncated: it ends in the middle of its compressed data behind byte 20 (uncompressed); get the whole file and start again, the records before that place are not read twice",
    );
    check_error(
        "s.csv.gz",
        b"",
        &[],
        "`s.csv.gz` is truncated: it ends in the middle of its compressed data behind byte 0 (uncompressed); get the whole file and start again, the records before that place are not read twice",
    );
    let mut wrong_checksum = whole.clone();
    let at = whole.len() - 8;
    wrong_checksum[at] ^= 1;
    check_error(
        "s.csv.gz",
        &wrong_checksum,
        &["a", "b"],
        "`s.csv.gz` is damaged behind byte 20 (uncompressed): the compressed data cannot be unpacked (corrupt gzip stream does not have a matching checksum); repair the file, or correct the format of the ingress in the settings",
    );
    let mut records = delimited(&[br#"{"store":"a","cents":1}"#]);
    records.extend_from_slice(b"\x05abcd");
    check_error(
        "s.pb",
        &records,
        &["a"],
        "`s.pb` is truncated: it ends in the middle of a record behind byte 24; get the whole file and start again, the records before that place are not read twice",
    );
    check_error(
        "s.pb",
        &[0xff],
        &[],
        "`s.pb` is truncated: it ends in the middle of the length of a record behind byte 0; get the whole file and start again, the records before that place are not read twice",
    );
    check_error(
        "s.pb",
        &[0xff; 20],
        &[],
        "`s.pb` is damaged behind byte 0: the next record has no length that can be read; repair the file, or correct the format of the ingress in the settings",
    );
}

#[test]
fn files_that_are_not_there() {
    let directory = Directory::new();
    let check = |name: &str, offset: u64, expected: &str| {
        let path = directory.0.path().join(name);
        let from = Position { offset, ..Position::default() };
        let error = FileSource::open(&path, Format::JsonLines, from).expect_err("is refused").to_string();
        assert_eq!(directory.hide(&error), expected);
    };
    check(
        "missing.jsonl",
        0,
        "cannot open `missing.jsonl`: No such file or directory (os error 2); correct the path of the ingress in the settings, or make the file readable",
    );
    fs::create_dir(directory.0.path().join("made")).expect("is made");
    check(
        "made",
        0,
        "`made` is no regular file: an ingress reads files, which can be read again after a restart; write the data to one",
    );
    directory.file("short.jsonl", b"{}\n");
    check(
        "short.jsonl",
        4,
        "`short.jsonl` has only 3 bytes, but the app has read 4 bytes of it before: the file was replaced or cut; put the old one back, or start the app with an empty data directory to read the new one",
    );
    directory.file("short.jsonl.gz", &gzip(b"{}\n"));
    check(
        "short.jsonl.gz",
        4,
        "`short.jsonl.gz` has only 3 bytes (uncompressed), but the app has read 4 bytes of it before: the file was replaced or cut; put the old one back, or start the app with an empty data directory to read the new one",
    );
}

#[test]
fn a_file_that_is_cut_while_it_is_read_is_no_end() {
    let directory = Directory::new();
    let line = "{\"store\":\"a\",\"cents\":1}\n";
    let path = directory.file("s.jsonl", line.repeat(20_000).as_bytes());
    let mut source = FileSource::open(&path, Format::JsonLines, Position::default()).expect("opens");
    let mut batches = Batches::new(SHARDS);
    source.read(sales().as_ref(), &mut batches, ONE).expect("reads");
    directory.file("s.jsonl", line.as_bytes());
    let error = read(&mut source, ALL).error;
    assert!(matches!(error, Some(SourceError::Shrunk { .. })), "{error:?}");
}

#[test]
fn a_file_that_was_read_to_its_end_may_be_gone() {
    let from = Position { offset: 5, records: 1, is_ended: true, event_time_max: None };
    let mut source = FileSource::open("no/such.csv".as_ref(), Format::Csv, from).expect("is not looked at");
    assert_eq!(read(&mut source, ALL).positions, [from]);
}

#[test]
fn a_column_is_not_missing_once_a_row_was_good() {
    #[derive(Debug)]
    struct Moody;
    impl ErasedIngress for Moody {
        fn name(&self) -> &'static str {
            "moody"
        }
        fn route(
            &self,
            offset: u64,
            _: statefn_core::ingress::RawRecord<'_>,
            _: &mut Batches,
        ) -> Result<EventTime, String> {
            if offset == 0 { Ok(EventTime(0)) } else { Err("missing field `b`".into()) }
        }
        fn generate(&self, _: u64, _: &mut Batches) -> Option<Result<EventTime, String>> {
            None
        }
        fn is_generator(&self) -> bool {
            false
        }
    }
    let directory = Directory::new();
    let path = directory.file("s.csv", b"a\n1\n2\n");
    let mut source = FileSource::open(&path, Format::Csv, Position::default()).expect("opens");
    let stretch = source.read(&Moody, &mut Batches::new(SHARDS), ALL).expect("goes on");
    assert_eq!((stretch.to.records, source.dead_letters()), (2, 1));
}

#[test]
fn a_generator_ends_goes_on_and_survives_its_router() {
    let whole = read(&mut GeneratorSource::new(Position::default()), ALL);
    assert_eq!(whole.stores(), ["s0", "s1", "s2", "s3"]);
    let letter = DeadLetter::of_record("sales", "record 4", "the router panicked: too dear", b"");
    assert_eq!(whole.letters, [(4, letter)]);
    let end = Position { offset: 5, records: 5, event_time_max: Some(EventTime(7)), is_ended: true };
    assert_eq!(whole.positions, [end]);
    let stretches = read(&mut GeneratorSource::new(Position::default()), ONE);
    for from in &stretches.positions {
        let rest = read(&mut GeneratorSource::new(*from), ALL);
        let expected: Vec<_> = whole.sales.iter().filter(|sale| sale.0 >= from.offset).cloned().collect();
        assert_eq!((rest.sales, rest.positions.last()), (expected, Some(&end)));
    }
}

#[test]
fn a_stretch_ends_at_its_limits() {
    let line = "{\"store\":\"a\",\"cents\":1}\n";
    let directory = Directory::new();
    let path = directory.file("s.jsonl", line.repeat(10).as_bytes());
    let check = |limit: ReadLimit, records: &[u64]| {
        let mut source = FileSource::open(&path, Format::JsonLines, Position::default()).expect("opens");
        let read = read(&mut source, limit);
        assert_eq!(read.positions.iter().map(|to| to.records).collect::<Vec<_>>(), records);
    };
    check(ALL, &[10]);
    check(ReadLimit { records: 4, ..ALL }, &[4, 8, 10]);
    check(ReadLimit { records: 5, ..ALL }, &[5, 10]);
    // Lines are cut by their own length, three to 68 bytes. A message is longer than its line here: it
    // holds `at_ms` too, and a key, so two of them reach the limit, and the third is left for the next.
    check(ReadLimit { bytes: 68, ..ALL }, &[2, 3, 5, 6, 8, 9, 10]);
    let mut source = GeneratorSource::new(Position::default());
    assert_eq!(read(&mut source, ReadLimit { bytes: 1, ..ALL }).positions.len(), 5, "the last record is a dead letter");
}

#[test]
fn all_shards_get_the_stretch() {
    let mut batches = Batches::new(SHARDS);
    let to = Position { offset: 9, records: 2, ..Position::default() };
    finish_stretch(&mut batches, 1, 7, Stretch { from: 3, to });
    for batch in &batches.shards {
        assert_eq!((batch.ingress, batch.partition, batch.from, batch.to), (1, 7, 3, to));
    }
}

/// Records as they may stand in a file: sales, and what is none.
fn any_records() -> impl Strategy<Value = Vec<Result<Sale, String>>> {
    let sale = ("[a-z\"\n\r, äß]{0,12}", 0..1000_u64, -50..50_i64);
    let sale = sale.prop_map(|(store, cents, at_ms)| Ok(Sale { store, cents, at_ms }));
    let bad = "[a-z{}]{1,9}".prop_map(Err);
    prop::collection::vec(prop_oneof![5 => sale, 1 => bad], 0..40)
}

fn encode(format: Format, records: &[Result<Sale, String>], line_end: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    if format == Format::Csv {
        bytes.extend_from_slice(format!("store,cents,at_ms{line_end}").as_bytes());
    }
    for record in records {
        let mut json = Vec::new();
        match record {
            Ok(sale) => sale.encode(&mut json),
            Err(bad) => json.extend_from_slice(bad.as_bytes()),
        }
        match (format, record) {
            (Format::Protobuf, _) => put_bytes(&mut bytes, &json),
            (Format::Csv, Ok(sale)) => {
                let store = sale.store.replace('"', "\"\"");
                bytes.extend_from_slice(format!("\"{store}\",{},{}{line_end}", sale.cents, sale.at_ms).as_bytes());
            }
            (Format::Csv | Format::JsonLines, _) => {
                bytes.extend_from_slice(&json);
                bytes.extend_from_slice(line_end.as_bytes());
            }
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_restart_at_any_record_gives_the_same(
        records in any_records(),
        line_end in prop::sample::select(vec!["\n", "\r\n", "\n\n"]),
        members in 1..4_usize,
    ) {
        for (format, name) in [(Format::Csv, "s.csv"), (Format::JsonLines, "s.jsonl"), (Format::Protobuf, "s.pb")] {
            let plain = encode(format, &records, line_end);
            let parts = plain.chunks((plain.len() / members).max(1)).map(gzip);
            let zipped = if plain.is_empty() { gzip(b"") } else { parts.collect::<Vec<_>>().concat() };
            let (mut offsets, directory) = (Vec::new(), Directory::new());
            for path in [directory.file(name, &plain), directory.file(&format!("{name}.gz"), &zipped)] {
                let open = |from| FileSource::open(&path, format, from).expect("opens");
                let whole = read(&mut open(Position::default()), ALL);
                prop_assert_eq!(&whole.error, &None);
                let sales = records.iter().flatten().filter(|sale| sale.cents <= 900).cloned();
                prop_assert_eq!(whole.sales.iter().map(|sale| sale.2.clone()).collect::<Vec<_>>(), sales.collect::<Vec<_>>());
                let single = read(&mut open(Position::default()), ONE);
                prop_assert_eq!((&single.sales, &single.letters), (&whole.sales, &whole.letters));
                prop_assert_eq!(single.positions.last(), whole.positions.last());
                for from in &single.positions {
                    let rest = read(&mut open(*from), ALL);
                    let sales = whole.sales.iter().filter(|sale| sale.0 >= from.offset);
                    let letters = whole.letters.iter().filter(|letter| letter.0 >= from.offset);
                    prop_assert_eq!(rest.sales, sales.cloned().collect::<Vec<_>>());
                    prop_assert_eq!(rest.letters, letters.cloned().collect::<Vec<_>>());
                    prop_assert_eq!(rest.positions.last(), whole.positions.last());
                }
                offsets.push(single.positions);
            }
            prop_assert_eq!(&offsets[0], &offsets[1]);
        }
    }

    #[test]
    fn outside_bytes_never_panic(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\n'), Just(b'"'), Just(b',')], 0..300)) {
        for name in ["s.csv", "s.jsonl", "s.pb"] {
            let _ = read_file(name, &bytes);
            let zipped = [&[0x1f, 0x8b], &bytes[..]].concat();
            let _ = read_file(&format!("{name}.gz"), &zipped);
            let _ = read_file(&format!("{name}.gz"), &gzip(&bytes));
        }
    }
}
