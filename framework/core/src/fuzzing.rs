//! What must hold for any bytes that reach a decoder of this crate: the checks that fuzzers call.
//!
//! Each check takes any bytes. Decoders stand behind checksums, which bytes by chance never have,
//! so a check also looks at the bytes with the right checksum put in.
//!
//! Invariant: a check panics iff a decoder does not do what it should.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    codec::Reader,
    context::Context,
    egress::EgressDeclaration,
    envelope::{self, Ticket},
    error::{DecodeError, Fault},
    function::{Accepts, Access, Function, Handles, HandlesTimer, Incoming, Target, TargetDeclaration},
    host::Handlers,
    message::{Encoding, Message, Wire, decode_json, decode_prost, encode_json, encode_prost},
    ports::{
        log::{Log, MemoryLog, Record},
        snapshots::{MemorySnapshots, Snapshots},
    },
    program::{FunctionSpec, Program, ProgramSpec},
    shard::{
        Accepted, Options, Replica, TakeOver,
        frame::{self, Header, Kind, OpRef, PendingRef},
        image::{Image, snapshot_crc},
        outbox::Mail,
        wire,
    },
    state::{self, Field, State},
};

/// One record of a journal.
///
/// # Panics
/// If its decoder does not do what it should.
pub fn frames(bytes: &[u8]) {
    check_frame(bytes);
    check_frame(&frame::sealed(bytes));
}

fn check_frame(bytes: &[u8]) {
    let parsed = match frame::parse(bytes) {
        Ok(parsed) => parsed,
        Err(error) => return assert!(!error.0.is_empty(), "an error says what is wrong"),
    };
    let mut again = Vec::new();
    frame::begin(&mut again);
    again.extend_from_slice(parsed.body);
    frame::finish(&mut again, &parsed.header);
    let again = frame::parse(&again).expect("what was written is read");
    assert_eq!((again.header, again.body), (parsed.header, parsed.body), "what is read is written again");
    if let Err(error) = frame::ops(parsed.body, check_op) {
        assert!(!error.0.is_empty(), "an error says what is wrong");
    }
    _ = frame::read_names(&mut Reader::new(parsed.body));
    if let Ok(mark) = frame::SnapshotMark::read(parsed.body) {
        let mut again = Vec::new();
        mark.put(&mut again);
        assert_eq!(frame::SnapshotMark::read(&again), Ok(mark), "what is read is written again");
    }
}

fn check_op(op: OpRef<'_>) {
    let mut again = Vec::new();
    match op {
        OpRef::Send(_, message, _) | OpRef::Carry(message) | OpRef::Park(_, message, _) => {
            message.put(&mut again);
            let read = frame::MessageRef::read(&mut Reader::new(&again));
            assert_eq!(read, Ok(message), "what is read is written again");
        }
        OpRef::PendingAdd(pending) => {
            pending.put(&mut again);
            let read = PendingRef::read(&mut Reader::new(&again));
            assert_eq!(read, Ok(pending), "what is read is written again");
        }
        OpRef::Answer(answer) => {
            answer.put(&mut again);
            let read = frame::AnswerRef::read(&mut Reader::new(&again));
            assert_eq!(read, Ok(answer), "what is read is written again");
        }
        OpRef::Position(_, _, position) => {
            position.put(&mut again);
            let read = frame::Position::read(&mut Reader::new(&again));
            assert_eq!(read, Ok(position), "what is read is written again");
        }
        _ => {}
    }
}

/// A whole journal, its frames written down by their fields: kind, term, nonce, epoch, whether it
/// follows the epoch before, clock, body.
///
/// # Panics
/// If the fold does not do what it should.
pub fn journals(bytes: &[u8]) {
    let mut log = MemoryLog::new(1);
    let (mut reader, mut crc, mut previous) = (Reader::new(bytes), 0, 0);
    while let Some((header, body)) = journal_record(&mut reader) {
        let prev_crc = if header.prev_crc == 0 { crc } else { header.prev_crc };
        let mut record = Vec::new();
        frame::begin(&mut record);
        record.extend_from_slice(body);
        let sealed = frame::finish(&mut record, &Header { prev_crc, ..header });
        if header.kind == Kind::Epoch && header.epoch > previous {
            (crc, previous) = (sealed, header.epoch);
        }
        log.append(&[Record { partition: 0, bytes: &record }]).expect("a log in memory takes all");
    }
    let mut fold = || Replica::recover(0, &mut log, &mut MemorySnapshots::default(), u64::MAX, &mut |_, _| {});
    match (fold(), fold()) {
        (Ok(replica), Ok(again)) => {
            assert_eq!(replica.image.encode(), again.image.encode(), "a fold is a function of its journal");
            check_image(&replica.image);
        }
        (Err(error), Err(again)) => {
            assert_eq!(error, again, "a fold is a function of its journal");
            assert!(error.0.contains("of the journal of shard 0: "), "an error names the record: {error}");
        }
        outcomes => panic!("a fold is a function of its journal: {outcomes:?}"),
    }
}

fn journal_record<'a>(reader: &mut Reader<'a>) -> Option<(Header, &'a [u8])> {
    let kinds = [Kind::Epoch, Kind::Claim, Kind::Snapshot, Kind::Part];
    let kind = kinds[usize::from(reader.byte().ok()?) % kinds.len()];
    let (term, nonce, epoch) = (reader.varint().ok()?, reader.varint().ok()?, reader.varint().ok()?);
    // In a part this is how many there are.
    let prev_crc = reader.byte().ok()?.into();
    let now = reader.signed().ok()?;
    let header = Header { kind, shard: 0, term, nonce, epoch, prev_crc, now };
    Some((header, reader.bytes().ok()?))
}

/// A snapshot of a shard.
///
/// # Panics
/// If its decoder does not do what it should.
pub fn images(bytes: &[u8]) {
    for bytes in [bytes, &Image::sealed(bytes)] {
        match Image::decode(bytes) {
            Ok(image) => check_image(&image),
            Err(error) => assert!(!error.0.is_empty(), "an error says what is wrong"),
        }
    }
}

/// Looks at all that an image holds.
fn check_image(image: &Image) {
    let encoded = image.encode();
    let again = Image::decode(&encoded).expect("what was written is read");
    assert_eq!(again.encode(), encoded, "what is read is written again");
    let calls: usize = image.parked().map(|(_, _, parked)| parked.calls().count()).sum();
    let held = image.outbox().count() + image.carried().count() + image.pending().count() + calls;
    let named = image.states().map(|(name, ..)| name).chain(image.positions().map(|(name, ..)| name));
    assert!(held + named.count() <= encoded.len(), "what an image holds has bytes");
}

/// How many shards the app has whose mail and progress are read.
const MAIL_SHARDS: u32 = 4;

/// A record of a mailbox.
///
/// # Panics
/// If its decoder does not do what it should.
pub fn mail(bytes: &[u8]) {
    let program = program();
    for record in [bytes.to_vec(), wire::sealed(bytes, true)] {
        match wire::decode_mail(&program, MAIL_SHARDS, &record) {
            Ok(mail) => {
                let again = wire::encode_mail(&program, &mail, usize::MAX);
                let again = wire::decode_mail(&program, MAIL_SHARDS, &again[0]).expect("what was written is read");
                assert_eq!(contents(&program, &again), contents(&program, &mail), "what is read is written again");
                assert!(mail.source.max(mail.target) < MAIL_SHARDS, "a mail is between shards of the app");
            }
            Err(error) => assert!(!error.0.is_empty(), "an error says what is wrong"),
        }
    }
}

/// What a mail says, without where it stands in memory.
fn contents<'a>(program: &'a Program, mail: &'a Mail) -> impl PartialEq + std::fmt::Debug + 'a {
    (mail.source, mail.target, mail.first, mail.messages(program).collect::<Vec<_>>())
}

/// What a message brings along, and what a late answer is found by.
///
/// # Panics
/// If its decoder does not do what it should.
pub fn envelopes(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    if let Ok((asker, trace)) = envelope::read(&mut reader) {
        let mut again = Vec::new();
        envelope::put(asker.as_ref(), trace.as_ref(), &mut again);
        again.extend_from_slice(&bytes[reader.at()..]);
        let mut reader = Reader::new(&again);
        assert_eq!(envelope::read(&mut reader), Ok((asker, trace)), "what is read is written again");
        let (name, message) = envelope::opened("message+", bytes);
        assert_eq!((name, message), ("message", &again[reader.at()..]), "behind an envelope stands the message");
    }
    let mut reader = Reader::new(bytes);
    if let Ok(ticket) = Ticket::read(&mut reader) {
        let mut again = Vec::new();
        ticket.put(&mut again);
        assert_eq!(Ticket::read(&mut Reader::new(&again)), Ok(ticket), "what is read is written again");
    }
}

/// A record of the partition of progress.
///
/// # Panics
/// If its decoder does not do what it should.
pub fn progress(bytes: &[u8]) {
    let program = program();
    for record in [bytes.to_vec(), wire::sealed(bytes, false)] {
        match wire::decode_progress(&program, MAIL_SHARDS, &record) {
            Ok(news) => {
                let shared: Vec<_> = news.iter().cloned().map(Arc::new).collect();
                let again = wire::encode_progress(&program, &shared, usize::MAX);
                let again =
                    again.first().map_or(Ok(Vec::new()), |again| wire::decode_progress(&program, MAIL_SHARDS, again));
                assert_eq!(again.as_ref(), Ok(&news), "what is read is written again");
            }
            Err(error) => assert!(!error.0.is_empty(), "an error says what is wrong"),
        }
    }
}

/// A shard that is taken over from a snapshot.
///
/// # Panics
/// If a take-over does not do what it should.
pub fn take_overs(bytes: &[u8]) {
    const SHARDS: u32 = 4;
    let program = program();
    let options = Arc::new(Options::new(SHARDS, &program));
    let bytes = Image::sealed(bytes);
    let Ok(image) = Image::decode(&bytes) else { return };
    let shard = image.shard % SHARDS;
    let mut log = MemoryLog::new(SHARDS);
    let mark = mark_of(&image, &bytes);
    // A journal that reaches up to the snapshot, if that is not too far.
    while log.end(shard) < image.next_offset.clamp(1, 8) {
        log.append(&[Record { partition: shard, bytes: &mark }]).expect("a log in memory takes all");
    }
    let mut snapshots = MemorySnapshots::default();
    snapshots.put(SNAPSHOT, &bytes).expect("memory takes all");
    let taken = TakeOver::prepare(&program, &options, shard, (&mut log, &mut snapshots), u64::MAX, &mut |_| {});
    match taken {
        Ok(mut taken) => {
            let claim = taken.claim(&program, 1);
            log.append(&[Record { partition: shard, bytes: &claim }]).expect("a log in memory takes all");
            let accepted = taken.accept(&mut log, &mut |_| {}).map_err(|error| error.to_string());
            assert!(!matches!(accepted, Ok(Accepted::Again)), "a log with one writer accepts its claim");
        }
        Err(error) => assert!(error.to_string().contains("shard"), "an error names the shard: {error}"),
    }
}

const SNAPSHOT: &str = "shard";

/// The mark of a snapshot, as a record of a journal.
fn mark_of(image: &Image, bytes: &[u8]) -> Vec<u8> {
    let (name, length) = (SNAPSHOT.to_owned(), bytes.len() as u64);
    let crc = snapshot_crc(bytes).expect("a sealed snapshot has its checksum");
    let mark = frame::SnapshotMark { name, length, crc, epoch: image.epoch, next_offset: image.next_offset };
    let mut record = Vec::new();
    frame::begin(&mut record);
    mark.put(&mut record);
    let (shard, term) = (image.shard, image.term);
    let header = Header { kind: Kind::Snapshot, shard, term, nonce: 0, epoch: 0, prev_crc: 0, now: 0 };
    frame::finish(&mut record, &header);
    record
}

/// A program of one function, which takes samples and sets them as timers.
fn program() -> Arc<Program> {
    let spec =
        ProgramSpec { app: "fuzz".into(), functions: vec![FunctionSpec::of::<Sample>()], ..ProgramSpec::default() };
    Program::link(spec).expect("the parts fit")
}

impl State for Sample {
    const FIELDS: &'static [Field] = &[];
    const VERSION: u32 = 1;
    fn encode_state(&self, out: &mut Vec<u8>) {
        state::encode(self, Self::VERSION, out);
    }
    fn decode_state(bytes: &[u8]) -> Result<Self, DecodeError> {
        state::decode(bytes, Self::VERSION)
    }
}

impl Wire for Sample {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_json(self, out);
    }
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode_json(bytes)
    }
}

impl Message for Sample {
    const NAME: &'static str = "sample";
    const ENCODING: Encoding = Encoding::Json;
}

impl Target for Sample {
    const NAME: &'static str = "fuzz/sample";
    const MESSAGES: &'static [&'static str] = &["sample"];
    type Key = String;
}

impl Accepts<Sample> for Sample {
    type Return = ();
    const INDEX: u16 = 0;
}

impl Handles<Sample> for Sample {
    const ACCESS: Access = Access::Write;
    const IN_EVENT_TIME_ORDER: bool = true;
    fn handle(&mut self, msg: &mut Incoming<Sample>, _: &mut Context<'_, Self>) {
        self.clone_from(msg.get());
    }
}

impl HandlesTimer<Sample> for Sample {
    const INDEX: u16 = 0;
    fn fire(&mut self, timer: &mut Incoming<Sample>, _: &mut Context<'_, Self>) -> Result<(), Fault> {
        self.clone_from(timer.get());
        Ok(())
    }
}

impl Function for Sample {
    const SENDS: &'static [TargetDeclaration] = &[TargetDeclaration::of::<Sample>()];
    fn emits() -> Vec<EgressDeclaration> {
        Vec::new()
    }
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.on::<Sample>();
        handlers.on_timer::<Sample>();
    }
}

/// A value of all shapes that people use.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct Sample {
    text: String,
    number: i64,
    #[serde(default)]
    maybe: Option<u8>,
    #[serde(default)]
    list: Vec<Sample>,
    #[serde(default)]
    map: BTreeMap<String, (u64, bool)>,
    #[serde(default)]
    kind: Shape,
}

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
enum Shape {
    #[default]
    Unit,
    Tuple(u8, String),
    Struct {
        inner: Vec<u16>,
    },
}

/// The same for protobuf.
#[derive(Clone, PartialEq, prost::Message)]
struct ProstSample {
    #[prost(string, tag = "1")]
    text: String,
    #[prost(sint64, tag = "2")]
    number: i64,
    #[prost(bytes = "vec", optional, tag = "3")]
    bytes: Option<Vec<u8>>,
    #[prost(message, repeated, tag = "4")]
    list: Vec<ProstSample>,
    #[prost(btree_map = "string, uint64", tag = "5")]
    map: BTreeMap<String, u64>,
    #[prost(uint32, repeated, tag = "6")]
    packed: Vec<u32>,
}

/// One message, as JSON and as protobuf.
///
/// # Panics
/// If a decoder does not do what it should.
pub fn messages(bytes: &[u8]) {
    let mut again = Vec::new();
    match decode_json::<Sample>(bytes) {
        Ok(sample) => {
            encode_json(&sample, &mut again);
            assert_eq!(decode_json(&again), Ok(sample), "what is read is written again");
        }
        Err(error) => assert!(error.0.contains(" column "), "an error names the place: {error}"),
    }
    again.clear();
    match decode_prost::<ProstSample>(bytes) {
        Ok(sample) => {
            encode_prost(&sample, &mut again);
            assert_eq!(decode_prost(&again), Ok(sample), "what is read is written again");
        }
        Err(error) => assert!(!error.0.is_empty(), "an error says what is wrong"),
    }
}

/// One state, with its type and without.
///
/// # Panics
/// If a decoder does not do what it should.
pub fn states(bytes: &[u8]) {
    /// The codec and the version of a state.
    const HEAD: [u8; 2] = [1, 1];
    for bytes in [bytes, &[&HEAD, bytes].concat()] {
        match state::decode::<Sample>(bytes, 1) {
            Ok(sample) => {
                let mut again = Vec::new();
                state::encode(&sample, 1, &mut again);
                assert_eq!(state::decode(&again, 1), Ok(sample), "what is read is written again");
            }
            Err(error) => assert!(!error.0.is_empty(), "an error says what is wrong"),
        }
        match state::to_value(bytes) {
            Ok(value) => assert!(value.to_string().len() <= 64 + 64 * bytes.len(), "a value has bytes"),
            Err(error) => assert!(!error.0.is_empty(), "an error says what is wrong"),
        }
    }
}
