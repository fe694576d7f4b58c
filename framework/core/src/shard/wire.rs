//! The records that shards of different processes leave for each other in a log: mail in the
//! mailbox of its target, progress in one partition for all. Version 2.
//!
//! ```text
//! magic u16 | version u8 | kind u8 | body | crc32c u32 over all before
//! mail:     source | target | first | names | count, messages as in a frame
//! progress: names of ingresses | count, stages as lists of names | count, shards:
//!           shard | epoch | by ingress: out, newest | by stage: out, outer, hold
//!           | sent | seen | acknowledged | waiting
//! ```
//! Names within a mail are places in its own table, and stages are known by the names of their
//! functions: writer and reader may be different programs. What the writer does not have has let
//! nothing through, and what the reader does not have is passed over. Numbers by shard are lists of those that
//! are not 0. Partitions of the log: journals `0..S`, mailboxes `S..2 S`, progress `2 S`.
//!
//! Invariants: bytes from outside never panic, and what they hold is checked before it is believed.
//! Losing a record, reading it twice, late, or behind a later one does no harm: mail is numbered and
//! comes again until it is acknowledged, progress counts by its epoch and is repeated. So a record
//! that cannot be read is passed over. A mail with a name or handler that the reader's program lacks
//! is as good as lost too: its source keeps it until an owner with that handler takes it.
//!
//! Deliberately absent: positions of readers. A new owner reads its mailbox from the start, because
//! its frames say what it has seen. A message larger than a record of the log may be is not split.

use std::sync::Arc;

use super::{
    frame::{MessageRef, put_names, read_names},
    outbox::{Mail, handler_of},
    progress::{InputProgress, Progress, StageProgress, Traffic},
};
use crate::{
    address::{ShardId, murmur2},
    codec::{Reader, Truncated, put_signed, put_varint},
    effect::{Call, Calls},
    error::Corrupt,
    ports::log::Partition,
    program::{FunctionId, NameId, Program},
    time::EventTime,
};

const MAGIC: u16 = 0x5053;
const VERSION: u8 = 2;
const HEADER_BYTES: usize = 4;
const TRAILER_BYTES: usize = 4;
const MAIL: u8 = 1;
const PROGRESS: u8 = 2;

/// The partition that holds the mail for a shard.
#[must_use]
pub fn mailbox_partition(shards: u32, shard: ShardId) -> Partition {
    shards + shard
}

/// The partition that holds the progress of all shards.
#[must_use]
pub fn progress_partition(shards: u32) -> Partition {
    2 * shards
}

/// Encodes a mail as records of at most `record_bytes_max` bytes, each a mail of its own; only one
/// with a single message may be larger.
#[must_use]
pub fn encode_mail(program: &Program, mail: &Mail, record_bytes_max: usize) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    let mut part = Part::new(mail.first);
    for message in mail.messages(program) {
        if part.count > 0 && part.bytes_with(program, &message) > record_bytes_max {
            let next = part.first + part.count;
            records.push(std::mem::replace(&mut part, Part::new(next)).finish(program, mail));
        }
        part.push(&message);
    }
    records.push(part.finish(program, mail));
    records
}

/// Some messages of a mail on their way into one record.
struct Part {
    first: u64,
    count: u64,
    /// The names that its messages use.
    names: Vec<NameId>,
    messages: Vec<u8>,
}

impl Part {
    fn new(first: u64) -> Self {
        Self { first, count: 0, names: Vec::new(), messages: Vec::new() }
    }

    /// How large the record is at most if the message comes into it.
    fn bytes_with(&self, program: &Program, message: &MessageRef<'_>) -> usize {
        /// More than header, trailer and the numbers before the messages have.
        const FIXED_BYTES: usize = 64;
        /// More than the numbers of a message, and the length of a name, have.
        const NUMBERS_BYTES: usize = 40;
        let name = |id: &NameId| program.name(*id).len() + NUMBERS_BYTES;
        let names: usize = self.names.iter().chain([&message.function, &message.message]).map(name).sum();
        FIXED_BYTES + names + self.messages.len() + NUMBERS_BYTES + message.key.len() + message.payload.len()
    }

    fn push(&mut self, message: &MessageRef<'_>) {
        let (function, name) = (self.place(message.function), self.place(message.message));
        MessageRef { function, message: name, ..*message }.put(&mut self.messages);
        self.count += 1;
    }

    fn place(&mut self, name: NameId) -> NameId {
        let known = self.names.iter().position(|known| *known == name);
        let place = known.unwrap_or_else(|| {
            self.names.push(name);
            self.names.len() - 1
        });
        place as NameId
    }

    fn finish(self, program: &Program, mail: &Mail) -> Vec<u8> {
        let mut record = begin(MAIL);
        put_varint(&mut record, u64::from(mail.source));
        put_varint(&mut record, u64::from(mail.target));
        put_varint(&mut record, self.first);
        let names: Vec<String> = self.names.iter().map(|name| program.name(*name).to_owned()).collect();
        put_names(&names, &mut record);
        put_varint(&mut record, self.count);
        record.extend_from_slice(&self.messages);
        finish(record)
    }
}

/// Reads a mail of an app with `shards` shards.
///
/// # Errors
/// If the record is no whole mail of this version, or names what the program does not have.
pub fn decode_mail(program: &Program, shards: u32, record: &[u8]) -> Result<Mail, Corrupt> {
    let mut reader = Reader::new(body(record, MAIL)?);
    let (source, target) = (read_shard(&mut reader, shards)?, read_shard(&mut reader, shards)?);
    let first = reader.varint()?;
    let names = read_names(&mut reader)?;
    let names = names.iter().map(|name| id_of(program, name)).collect::<Result<Vec<NameId>, Corrupt>>()?;
    let count = reader.varint()?;
    if source == target || first == 0 || count == 0 || first.checked_add(count).is_none() {
        return Err(Corrupt(format!("no mail has {count} messages from {first} on of shard {source} for {target}")));
    }
    let mut calls = Calls::default();
    for _ in 0..count {
        let message = MessageRef::read(&mut reader)?;
        let name = |place: NameId| names.get(usize::from(place)).copied().ok_or(Truncated);
        let message = MessageRef { function: name(message.function)?, message: name(message.message)?, ..message };
        let (function, handler) = handler_of(program, &message)?;
        let call = Call::message(function, handler, murmur2(message.key), message.time);
        calls.push(call, message.key, message.payload);
    }
    is_read(&reader)?;
    Ok(Mail::new(source, target, first, calls))
}

fn id_of(program: &Program, name: &str) -> Result<NameId, Corrupt> {
    let place = program.names.binary_search_by(|known| known.as_str().cmp(name)).ok();
    let id = place.and_then(|place| NameId::try_from(place).ok());
    id.ok_or_else(|| Corrupt(format!("this program does not have `{name}`")))
}

/// Encodes progress as records of at most `record_bytes_max` bytes; only one of a single shard may
/// be larger.
#[must_use]
pub fn encode_progress(program: &Program, news: &[Arc<Progress>], record_bytes_max: usize) -> Vec<Vec<u8>> {
    /// More than header, trailer and the count have.
    const FIXED_BYTES: usize = 24;
    let mut head = Vec::new();
    let ingresses: Vec<String> = program.ingresses.iter().map(|ingress| ingress.name.to_owned()).collect();
    put_names(&ingresses, &mut head);
    put_varint(&mut head, program.stages.len() as u64);
    for stage in &program.stages {
        let functions = stage.functions.iter().map(|function| &program.functions[usize::from(*function)]);
        let names: Vec<String> = functions.map(|function| program.name(function.name).to_owned()).collect();
        put_names(&names, &mut head);
    }
    let mut records = Vec::new();
    let (mut count, mut shards) = (0, Vec::new());
    let mut close = |count: &mut u64, shards: &mut Vec<u8>| {
        let mut record = begin(PROGRESS);
        record.extend_from_slice(&head);
        put_varint(&mut record, std::mem::take(count));
        record.append(shards);
        records.push(finish(record));
    };
    for progress in news {
        let mut shard = Vec::new();
        put_progress(program, progress, &mut shard);
        if count > 0 && FIXED_BYTES + head.len() + shards.len() + shard.len() > record_bytes_max {
            close(&mut count, &mut shards);
        }
        count += 1;
        shards.append(&mut shard);
    }
    if count > 0 {
        close(&mut count, &mut shards);
    }
    records
}

fn put_progress(program: &Program, progress: &Progress, out: &mut Vec<u8>) {
    put_varint(out, u64::from(progress.shard));
    put_varint(out, progress.epoch);
    for ingress in 0..program.ingresses.len() {
        let InputProgress { out: upto, newest } =
            progress.inputs.get(ingress).copied().unwrap_or(InputProgress::UNKNOWN);
        [upto, newest].into_iter().for_each(|time| put_signed(out, time.0));
    }
    for StageProgress { out: lets_out, outer, hold } in &progress.stages {
        [lets_out, outer, hold].into_iter().for_each(|time| put_signed(out, time.0));
    }
    let numbers: [fn(&Traffic) -> u64; 3] = [|to| to.sent, |to| to.seen, |to| to.acknowledged];
    for number in numbers {
        let numbers = progress.traffic.iter().map(number);
        put_varint(out, numbers.clone().filter(|number| *number > 0).count() as u64);
        for (shard, number) in numbers.enumerate().filter(|(_, number)| *number > 0) {
            put_varint(out, shard as u64);
            put_varint(out, number);
        }
    }
    put_signed(out, progress.waiting.unwrap_or(EventTime::MAX).0);
}

/// Reads the progress of shards of an app with `shards` shards.
///
/// # Errors
/// If the record is no whole progress of this version.
pub fn decode_progress(program: &Program, shards: u32, record: &[u8]) -> Result<Vec<Progress>, Corrupt> {
    let mut reader = Reader::new(body(record, PROGRESS)?);
    let ingresses = read_ingresses(program, &mut reader)?;
    let stages = read_stages(program, &mut reader)?;
    let count = reader.varint()?;
    if count > u64::from(shards) {
        return Err(Corrupt(format!("the record tells the progress of {count} of {shards} shards")));
    }
    let mut news = Vec::new();
    for _ in 0..count {
        news.push(read_progress(program, &ingresses, &stages, shards, &mut reader)?);
    }
    is_read(&reader)?;
    Ok(news)
}

/// By ingress of the writer, its place in this program, if it has it.
fn read_ingresses(program: &Program, reader: &mut Reader<'_>) -> Result<Vec<Option<usize>>, Corrupt> {
    let place = |name: String| program.ingresses.iter().position(|ingress| ingress.name == name);
    Ok(read_names(reader)?.into_iter().map(place).collect())
}

/// By stage of the writer, the functions of it that this program has.
fn read_stages(program: &Program, reader: &mut Reader<'_>) -> Result<Vec<Vec<FunctionId>>, Corrupt> {
    let count = reader.varint()?;
    let mut stages = Vec::new();
    for _ in 0..count {
        let names = read_names(reader)?;
        let known = names.iter().filter_map(|name| program.function_named(id_of(program, name).ok()?));
        stages.push(known.collect());
    }
    Ok(stages)
}

fn read_progress(
    program: &Program,
    ingresses: &[Option<usize>],
    stages: &[Vec<FunctionId>],
    shards: u32,
    reader: &mut Reader<'_>,
) -> Result<Progress, Corrupt> {
    let (shard, epoch) = (read_shard(reader, shards)?, reader.varint()?);
    // A writer that does not have an ingress has read nothing of it.
    let mut inputs = vec![InputProgress::UNKNOWN; program.ingresses.len()];
    for place in ingresses {
        let input = InputProgress { out: EventTime(reader.signed()?), newest: EventTime(reader.signed()?) };
        place.iter().for_each(|place| inputs[*place] = input);
    }
    // What the writer's program does not have has let nothing through.
    let mut times = vec![[EventTime::MIN; 3]; program.functions.len()];
    for functions in stages {
        let read = [EventTime(reader.signed()?), EventTime(reader.signed()?), EventTime(reader.signed()?)];
        functions.iter().for_each(|function| times[usize::from(*function)] = read);
    }
    let stages = program.stages.iter().map(|stage| {
        let by_function = stage.functions.iter().map(|function| times[usize::from(*function)]);
        let lowest = by_function.reduce(|one, other| std::array::from_fn(|which| one[which].min(other[which])));
        let [out, outer, hold] = lowest.unwrap_or([EventTime::MIN; 3]);
        StageProgress { out, outer, hold }
    });
    let stages = stages.collect();
    let mut traffic = vec![Traffic::default(); shards as usize];
    let numbers: [fn(&mut Traffic) -> &mut u64; 3] = [|to| &mut to.sent, |to| &mut to.seen, |to| &mut to.acknowledged];
    for number in numbers {
        let count = reader.varint()?;
        for _ in 0..count {
            let shard = read_shard(reader, shards)?;
            *number(&mut traffic[shard as usize]) = reader.varint()?;
        }
    }
    let waiting = Some(EventTime(reader.signed()?)).filter(|earliest| *earliest < EventTime::MAX);
    Ok(Progress { shard, epoch, inputs, stages, waiting, traffic })
}

fn read_shard(reader: &mut Reader<'_>, shards: u32) -> Result<ShardId, Corrupt> {
    let shard: ShardId = reader.number()?;
    if shard < shards { Ok(shard) } else { Err(Corrupt(format!("shard {shard} is none of the {shards} of this app"))) }
}

fn is_read(reader: &Reader<'_>) -> Result<(), Corrupt> {
    if reader.is_empty() { Ok(()) } else { Err(Corrupt("the record goes on behind its end".into())) }
}

fn begin(kind: u8) -> Vec<u8> {
    let [low, high] = MAGIC.to_le_bytes();
    vec![low, high, VERSION, kind]
}

fn finish(mut record: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&record);
    record.extend_from_slice(&crc.to_le_bytes());
    record
}

/// What a whole record of this kind and version holds.
fn body(record: &[u8], kind: u8) -> Result<&[u8], Corrupt> {
    let content = record.len().checked_sub(TRAILER_BYTES).filter(|length| *length >= HEADER_BYTES);
    let content = content.ok_or_else(|| Corrupt(format!("a record of {} bytes is too short", record.len())))?;
    let (content, trailer) = record.split_at(content);
    if content[..2] != MAGIC.to_le_bytes() {
        return Err(Corrupt("the record is neither mail nor progress".into()));
    }
    if crc32c::crc32c(content).to_le_bytes() != trailer {
        return Err(Corrupt("the checksum of a record is wrong: its bytes were changed".into()));
    }
    if content[2] != VERSION {
        let version = content[2];
        return Err(Corrupt(format!("the record has format version {version}, this program reads version {VERSION}")));
    }
    if content[3] != kind {
        return Err(Corrupt(format!("the record is of kind {}, not {kind}", content[3])));
    }
    Ok(&content[HEADER_BYTES..])
}

/// The bytes as what a record holds that has the right header and checksum: mail, or else progress.
#[cfg(feature = "fuzzing")]
pub(crate) fn sealed(bytes: &[u8], is_mail: bool) -> Vec<u8> {
    let mut record = begin(if is_mail { MAIL } else { PROGRESS });
    record.extend_from_slice(bytes);
    finish(record)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        ingress::Ingress,
        trial::{SHARDS, program, program_with_input},
    };

    /// A mail of messages with these keys and payloads.
    fn mail(program: &Program, first: u64, contents: &[(Vec<u8>, Vec<u8>, i64)]) -> Mail {
        let id = |name: &str| id_of(program, name).expect("a name of the program");
        let mut calls = Calls::default();
        for (place, (key, payload, time)) in contents.iter().enumerate() {
            let handler = program.message_handler(0, id(["add", "pass"][place % 2])).expect("a handler");
            calls.push(Call::message(0, handler, murmur2(key), EventTime(*time)), key, payload);
        }
        Mail::new(1, 0, first, calls)
    }

    /// Number and bytes of each message, and the hash of its key.
    fn contents(program: &Program, mail: &Mail) -> Vec<(u64, Vec<u8>, u32)> {
        let messages = (mail.first..).zip(mail.messages(program).zip(mail.calls()));
        let content = |(number, (message, call)): (u64, (MessageRef<'_>, &Call))| {
            let mut bytes = Vec::new();
            message.put(&mut bytes);
            (number, bytes, call.hash)
        };
        messages.map(content).collect()
    }

    fn progress(shard: ShardId, numbers: [u64; 6], times: [i64; 3]) -> Arc<Progress> {
        let [out, outer, hold] = times.map(EventTime);
        let waiting = Some(EventTime(times[0])).filter(|_| times[1] % 2 == 0);
        let stages = vec![StageProgress { out, outer, hold }];
        let traffic = |at| Traffic { sent: numbers[at], seen: numbers[at + 2], acknowledged: numbers[at + 4] };
        let inputs = vec![InputProgress { out: hold, newest: out }];
        Arc::new(Progress { shard, epoch: numbers[0], inputs, stages, waiting, traffic: [0, 1].map(traffic).to_vec() })
    }

    #[test]
    fn a_mail_of_an_unknown_name_is_left_to_its_source() {
        let program = program();
        let record = &encode_mail(&program, &mail(&program, 1, &[(b"k".to_vec(), b"1".to_vec(), 0)]), usize::MAX)[0];
        let body = &record[HEADER_BYTES..record.len() - TRAILER_BYTES];
        let at = body.windows(3).position(|name| name == b"add").expect("its names");
        let mut other = begin(MAIL);
        other.extend_from_slice(body);
        other[HEADER_BYTES + at] = b'o';
        let error = decode_mail(&program, SHARDS, &finish(other)).expect_err("unknown");
        assert_eq!(error.to_string(), "this program does not have `odd`");
    }

    #[test]
    fn a_mail_that_no_handler_takes_is_left_to_its_source() {
        let program = program();
        let name = id_of(&program, "test/counter").expect("a name of the program");
        let mut part = Part::new(1);
        part.push(&MessageRef { function: name, message: name, time: EventTime(0), key: b"k", payload: b"1" });
        let record = part.finish(&program, &mail(&program, 1, &[(b"k".to_vec(), b"1".to_vec(), 0)]));
        let error = decode_mail(&program, SHARDS, &record).expect_err("it has no such handler");
        assert_eq!(error.to_string(), "`test/counter` has no handler for `test/counter`");
    }

    #[test]
    fn progress_of_a_function_that_the_writer_lacks_lets_nothing_through() {
        let (program, _) = program_with_input(Ingress::new("sums"));
        let mut record = begin(PROGRESS);
        put_names(&["other".to_owned()], &mut record);
        put_varint(&mut record, 1);
        put_names(&["test/gone".to_owned()], &mut record);
        put_varint(&mut record, 1);
        put_progress(&program, &progress(1, [7, 0, 0, 0, 0, 0], [1, 2, 3]), &mut record);
        let news = decode_progress(&program, SHARDS, &finish(record)).expect("readable");
        assert_eq!((news[0].epoch, news[0].stages[0].out), (7, EventTime::MIN));
        assert_eq!(news[0].inputs, [InputProgress::UNKNOWN], "an ingress that the writer lacks was not read");
    }

    proptest! {
        #[test]
        fn mail_reads_back_whole_in_records_that_fit(
            first in 1..u64::MAX / 2,
            messages in prop::collection::vec(
                (prop::collection::vec(any::<u8>(), 0..20), prop::collection::vec(any::<u8>(), 0..200), any::<i64>()),
                1..20,
            ),
            limit in 0_usize..2_000,
        ) {
            let program = program();
            let mail = mail(&program, first, &messages);
            let records = encode_mail(&program, &mail, limit);
            let mut read = Vec::new();
            for record in &records {
                let part = decode_mail(&program, SHARDS, record).expect("whole");
                prop_assert_eq!((part.source, part.target), (1, 0));
                prop_assert!(record.len() <= limit || part.calls().len() == 1);
                read.extend(contents(&program, &part));
            }
            prop_assert_eq!(read, contents(&program, &mail));
        }

        #[test]
        fn progress_reads_back_whole_in_records_that_fit(
            numbers: [[u64; 6]; 2], times: [[i64; 3]; 2], limit in 0_usize..400,
        ) {
            let (program, _) = program_with_input(Ingress::new("sums"));
            let news = [progress(0, numbers[0], times[0]), progress(1, numbers[1], times[1])];
            let mut read = Vec::new();
            for record in encode_progress(&program, &news, limit) {
                let part = decode_progress(&program, SHARDS, &record).expect("whole");
                prop_assert!(record.len() <= limit || part.len() == 1);
                read.extend(part.into_iter().map(Arc::new));
            }
            prop_assert_eq!(read, news);
        }

        #[test]
        fn damage_is_noticed(place: prop::sample::Index, bit in 0..8, cut: prop::sample::Index, times: [i64; 3]) {
            let program = program();
            let messages = [(b"key".to_vec(), b"payload".to_vec(), 5), (b"k".to_vec(), b"p".to_vec(), -5)];
            let mail = encode_mail(&program, &mail(&program, 3, &messages), usize::MAX).remove(0);
            let news = encode_progress(&program, &[progress(1, [300, 2, 0, 4, 5, 600], times)], usize::MAX).remove(0);
            prop_assert!(decode_mail(&program, SHARDS, &news).is_err());
            prop_assert!(decode_progress(&program, SHARDS, &mail).is_err());
            for record in [mail, news] {
                let mut flipped = record.clone();
                flipped[place.index(record.len())] ^= 1_u8 << bit;
                for damaged in [&flipped[..], &record[..cut.index(record.len())]] {
                    prop_assert!(decode_mail(&program, SHARDS, damaged).is_err());
                    prop_assert!(decode_progress(&program, SHARDS, damaged).is_err());
                }
            }
        }

        #[test]
        fn outside_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 1_u8..3) {
            let program = program();
            let mut whole = begin(kind);
            whole.extend_from_slice(&bytes);
            for record in [finish(whole), bytes] {
                let _ = decode_mail(&program, SHARDS, &record);
                let _ = decode_progress(&program, SHARDS, &record);
            }
        }
    }
}
