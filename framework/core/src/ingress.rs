//! Ingresses: how outside records become messages to addresses.
//!
//! A reader of the runtime hands each record to an [`ErasedIngress`], which decodes it, asks the
//! router of the app where it goes, and fills a batch for each shard. Routers are deterministic:
//! the same record gives the same messages, also after a restart.
//!
//! Deliberately absent: reading files or topics, which is the runtime's.

use std::{
    any::{Any, TypeId},
    fmt,
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use crate::{
    address::{Address, ShardId, murmur2, shard_of},
    dead_letter::DeadLetter,
    effect::{Call, Calls, Span},
    error::DecodeError,
    function::{MessageTo, Target, TargetDeclaration},
    host::panic_text,
    limits::{KEY_BYTES_MAX, MESSAGE_BYTES_MAX},
    message::{Message, Row},
    program::{IngressSpec, Program, Route},
    shard::frame::Position,
    time::EventTime,
};

type EventTimeOf<M> = Box<dyn Fn(&M) -> EventTime + Send + Sync>;
type Generator<M> = Box<dyn Fn(u64) -> Option<M> + Send + Sync>;

/// A named way in for records of type `M`; `L` is the list of functions that its router may send to.
///
/// ```
/// use statefn_core::{DecodeError, Encoding, EventTime, Message, Wire, ingress::Ingress};
/// # struct Sale { at_ms: i64 }
/// # impl Wire for Sale {
/// #     fn encode(&self, _: &mut Vec<u8>) {}
/// #     fn decode(_: &[u8]) -> Result<Self, DecodeError> { Ok(Sale { at_ms: 0 }) }
/// # }
/// # impl Message for Sale { const NAME: &'static str = "sale"; const ENCODING: Encoding = Encoding::Json; }
/// use std::time::Duration;
/// let sales = Ingress::<Sale>::new("sales")
///     .event_time(|sale| EventTime(sale.at_ms))
///     .lateness(Duration::from_secs(5));
/// ```
pub struct Ingress<M, L = ()> {
    name: &'static str,
    event_time: Option<EventTimeOf<M>>,
    lateness: Duration,
    targets: Vec<TargetDeclaration>,
    generator: Option<Generator<M>>,
    list: PhantomData<fn() -> L>,
}

impl<M: Message> Ingress<M> {
    /// An ingress with a stable name.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            event_time: None,
            lateness: Duration::ZERO,
            targets: Vec::new(),
            generator: None,
            list: PhantomData,
        }
    }
}

impl<M: Message, L> Ingress<M, L> {
    /// Where a record's event time comes from; without it records of a log have the time that the log
    /// has of them, and all others time 0.
    #[must_use]
    pub fn event_time(self, of: impl Fn(&M) -> EventTime + Send + Sync + 'static) -> Self {
        Self { event_time: Some(Box::new(of)), ..self }
    }

    /// How far behind the newest event time a record may come; 0 if not given.
    ///
    /// The watermark stays this far, and one millisecond, behind.
    #[must_use]
    pub fn lateness(self, lateness: Duration) -> Self {
        Self { lateness, ..self }
    }

    /// Makes the records, instead of reading them from where the settings say.
    ///
    /// `record(n)` is record `n`, from 0; `None` ends the input. It must give the same record for
    /// the same number each time, because after a crash it is asked again.
    #[must_use]
    pub fn generate(self, record: impl Fn(u64) -> Option<M> + Send + Sync + 'static) -> Self {
        Self { generator: Some(Box::new(record)), ..self }
    }

    /// Declares that the router may send to `T`.
    #[must_use]
    pub fn to<T: Target>(mut self) -> Ingress<M, (T, L)> {
        self.targets.push(TargetDeclaration::of::<T>());
        let Self { name, event_time, lateness, targets, generator, .. } = self;
        Ingress { name, event_time, lateness, targets, generator, list: PhantomData }
    }

    /// What the program has to know of it.
    #[must_use]
    pub fn spec(&self) -> IngressSpec {
        let lateness_ms = i64::try_from(self.lateness.as_millis()).unwrap_or(i64::MAX);
        IngressSpec { name: self.name, targets: self.targets.clone(), lateness_ms }
    }
}

impl<M, L> fmt::Debug for Ingress<M, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ingress({})", self.name)
    }
}

/// The place of a type in a list of types: the first.
#[doc(hidden)]
#[derive(Debug)]
pub enum Here {}

/// The place of a type in a list of types: behind the first.
#[doc(hidden)]
#[derive(Debug)]
pub struct There<I>(PhantomData<I>);

/// A list of types that holds `T` at the place `I`.
#[doc(hidden)]
pub trait Includes<T, I> {
    /// How many types stand behind it.
    const BEHIND: usize;
}

/// The number of types in a list.
#[doc(hidden)]
pub trait Length {
    const LENGTH: usize;
}

impl Length for () {
    const LENGTH: usize = 0;
}

impl<T, L: Length> Length for (T, L) {
    const LENGTH: usize = L::LENGTH + 1;
}

impl<T, L: Length> Includes<T, Here> for (T, L) {
    const BEHIND: usize = L::LENGTH;
}

impl<T, H, L: Includes<T, I>, I> Includes<T, There<I>> for (H, L) {
    const BEHIND: usize = L::BEHIND;
}

/// A function that an ingress declares; the other side of [`Includes`].
#[diagnostic::on_unimplemented(
    message = "the ingress does not declare that it sends to `{Self}`",
    label = "undeclared target",
    note = "add `.to::<{Self}>()` to the ingress"
)]
#[doc(hidden)]
pub trait IncludedIn<L, I> {
    const SLOT: usize;
}

#[diagnostic::do_not_recommend]
impl<T, L: Includes<T, I>, I> IncludedIn<L, I> for T {
    const SLOT: usize = L::BEHIND;
}

/// Takes the messages that a router makes of one record.
pub struct Router<'a, L> {
    routes: &'a [Route],
    batches: &'a mut Batches,
    time: EventTime,
    key: Option<&'a [u8]>,
    /// The record as it was read, and what it was decoded to.
    encoded: Option<(&'a [u8], TypeId)>,
    error: &'a mut Option<String>,
    list: PhantomData<fn() -> L>,
}

impl<L> Router<'_, L> {
    /// The event time of the record, which the messages inherit.
    #[must_use]
    pub fn event_time(&self) -> EventTime {
        self.time
    }

    /// The key that the record has beside its value; only records of a log may have one.
    #[must_use]
    pub fn record_key(&self) -> Option<&[u8]> {
        self.key
    }

    /// Sends a message to any address of a declared function.
    pub fn send<T: Target + IncludedIn<L, I>, M: MessageTo<T>, I>(&mut self, to: Address<T>, msg: M) {
        let _ = self.put::<T, M, I>(to.key(), |out| msg.encode(out));
    }

    /// Sends the record itself, just as it came in, to any address of a declared function.
    ///
    /// It does what [`send`](Self::send) does, for less: bytes that were read are not encoded again,
    /// the handler is not made to decode them again, and the next record is decoded into memory that
    /// is there. So a router that has changed the record must use `send`: here a handler may see the
    /// change, but what is parked, kept for its time or written to dead letters is the bytes as read.
    pub fn forward_unchanged<T: Target + IncludedIn<L, I>, M: MessageTo<T>, I>(&mut self, to: Address<T>, record: M) {
        let shard = match self.encoded {
            Some((bytes, of)) if of == TypeId::of::<M>() => {
                self.put::<T, M, I>(to.key(), |out| out.extend_from_slice(bytes))
            }
            _ => self.put::<T, M, I>(to.key(), |out| record.encode(out)),
        };
        match shard {
            Some(shard) => self.batches.hand_over(shard, record),
            None => self.batches.keep(record),
        }
    }

    /// Puts a message into the batch of its shard, which it returns; an error is kept for the end.
    fn put<T: Target + IncludedIn<L, I>, M: MessageTo<T>, I>(
        &mut self,
        key: &[u8],
        payload: impl FnOnce(&mut Vec<u8>),
    ) -> Option<usize> {
        let route = &self.routes[T::SLOT];
        let handler = route.handlers[usize::from(<M as MessageTo<T>>::INDEX)];
        let shard = self.batches.send::<T>(route, handler, key, payload, self.time);
        shard.map_err(|error| _ = self.error.get_or_insert(error)).ok()
    }
}

impl<L> fmt::Debug for Router<'_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Router(at {})", self.time)
    }
}

/// The shard that takes a partition of an ingress in, where processes share the log.
///
/// A producer that chooses the partition of a key as Kafka's default partitioner does, over as many
/// partitions as there are shards, has put the key's records where they belong.
#[must_use]
pub fn partition_owner(partition: u32, shards: u32) -> ShardId {
    partition % shards
}

/// What one shard gets of a stretch of an ingress partition.
#[derive(Debug, Clone, Default)]
pub struct IngressBatch {
    /// The ingress, by its place in the program.
    pub ingress: usize,
    /// The partition.
    pub partition: u32,
    /// Where the stretch begins.
    pub from: u64,
    /// The position behind it; where every shard reads a partition, each gets it, with messages or without.
    pub to: Position,
    /// The messages for this shard.
    pub calls: Calls,
    /// Where the record of each message begins.
    pub offsets: Vec<u64>,
    /// The messages that this shard sends on to others; none where every shard reads a partition.
    pub onward: Calls,
    /// For each of them, the shard it is for, and where its record begins.
    pub onward_to: Vec<(ShardId, u64)>,
    /// Records that cannot be read, and where they begin.
    pub dead_letters: Vec<(u64, DeadLetter)>,
}

impl IngressBatch {
    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.calls.clear();
        self.offsets.clear();
        self.onward.clear();
        self.onward_to.clear();
        self.dead_letters.clear();
    }
}

/// The batches of all shards while they are being filled.
#[derive(Debug)]
pub struct Batches {
    /// By shard.
    pub shards: Vec<IngressBatch>,
    /// An `Option` of the record before, whose memory the next one can have.
    spare: Box<dyn Any + Send>,
    offset: u64,
    marks: Vec<(usize, usize)>,
    written: u64,
}

impl Batches {
    /// Empty batches for an app of `shards` shards.
    #[must_use]
    pub fn new(shards: u32) -> Self {
        let shards = vec![IngressBatch::default(); shards as usize];
        Self { shards, spare: Box::new(()), offset: 0, marks: Vec::new(), written: 0 }
    }

    /// Gives everything to the shard that takes the partition in: it sends on what is for others.
    pub fn gather(&mut self, owner: ShardId) {
        let mut gathered = std::mem::take(&mut self.shards[owner as usize]);
        for (shard, batch) in (0..).zip(&mut self.shards) {
            for (call, offset) in batch.calls.calls.iter().zip(&batch.offsets) {
                gathered.onward.push_message(call, &batch.calls.bytes);
                gathered.onward_to.push((shard, *offset));
            }
            gathered.dead_letters.append(&mut batch.dead_letters);
            batch.clear();
        }
        gathered.dead_letters.sort_by_key(|(offset, _)| *offset);
        self.shards[owner as usize] = gathered;
    }

    /// How many bytes of keys and messages were ever put in, batches that were taken out included.
    ///
    /// A reader stops by it where a router makes far more of a record than the record holds.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Begins the record at `offset`.
    fn begin(&mut self, offset: u64) {
        self.offset = offset;
        self.marks.clear();
    }

    fn keep<M: Message>(&mut self, record: M) {
        match self.spare.downcast_mut::<Option<M>>() {
            Some(spare) => *spare = Some(record),
            None => self.spare = Box::new(Some(record)),
        }
    }

    /// Gives the last call of a shard its message decoded, and keeps what that leaves over.
    fn hand_over<M: Message>(&mut self, shard: usize, record: M) {
        let Calls { calls, decoded, .. } = &mut self.shards[shard].calls;
        let Some(call) = calls.last_mut() else { return };
        let (place, spare) = decoded.put(record);
        call.decoded = place;
        if let Some(spare) = spare {
            self.keep(spare);
        }
    }

    /// Decodes a record, into one that was kept if there is one.
    fn decode<M: Message>(&mut self, bytes: &[u8]) -> Result<M, DecodeError> {
        match self.spare.downcast_mut::<Option<M>>().and_then(Option::take) {
            Some(mut record) => record.decode_into(bytes).map(|()| record),
            None => M::decode(bytes),
        }
    }

    fn send<T: Target>(
        &mut self,
        route: &Route,
        handler: u16,
        key: &[u8],
        payload: impl FnOnce(&mut Vec<u8>),
        time: EventTime,
    ) -> Result<usize, String> {
        if key.len() > KEY_BYTES_MAX {
            return Err(format!("a key for `{}` has {} bytes; the limit is {KEY_BYTES_MAX}", T::NAME, key.len()));
        }
        let hash = murmur2(key);
        let shard = shard_of(hash, self.shards.len() as u32) as usize;
        let batch = &mut self.shards[shard];
        self.marks.push((shard, batch.calls.bytes.len()));
        let bytes = &mut batch.calls.bytes;
        let start = bytes.len();
        bytes.extend_from_slice(key);
        let middle = bytes.len();
        payload(bytes);
        let (key, payload) = (Span::between(start, middle), Span::between(middle, bytes.len()));
        batch.calls.calls.push(Call { key, payload, ..Call::message(route.function, handler, hash, time) });
        batch.offsets.push(self.offset);
        self.written += u64::from(key.length) + u64::from(payload.length);
        if payload.length as usize > MESSAGE_BYTES_MAX {
            return Err(format!(
                "a message for `{}` has {} bytes; the limit is {MESSAGE_BYTES_MAX}",
                T::NAME,
                payload.length
            ));
        }
        Ok(shard)
    }

    /// Takes back what the current record has sent.
    fn undo(&mut self) {
        for (shard, length) in self.marks.drain(..).rev() {
            let batch = &mut self.shards[shard];
            batch.calls.bytes.truncate(length);
            let offset = self.offset;
            let kept = batch.offsets.iter().rposition(|at| *at != offset).map_or(0, |last| last + 1);
            batch.offsets.truncate(kept);
            batch.calls.calls.truncate(kept);
        }
    }

    /// Turns the current record into a dead letter, which belongs to one shard by its offset.
    pub fn dead_letter(&mut self, offset: u64, letter: DeadLetter) {
        let shard = (offset % self.shards.len() as u64) as usize;
        self.shards[shard].dead_letters.push((offset, letter));
    }
}

/// A record as a reader has it.
#[derive(Debug, Clone, Copy)]
pub enum RawRecord<'a> {
    /// One encoded message.
    Bytes(&'a [u8]),
    /// One row of a table.
    Row(Row<'a>),
    /// One encoded message in a log, and what stands beside it.
    Logged(Logged<'a>),
}

/// A record of a log.
#[derive(Debug, Clone, Copy)]
pub struct Logged<'a> {
    /// The encoded message.
    pub value: &'a [u8],
    /// The key, if it has one.
    pub key: Option<&'a [u8]>,
    /// The time that the log has of it; what the ingress says goes before it.
    pub time: Option<EventTime>,
}

impl<'a> Logged<'a> {
    /// A record that is nothing but its value.
    fn of(value: &'a [u8]) -> Self {
        Self { value, key: None, time: None }
    }
}

/// An ingress without its type, linked to a program.
pub trait ErasedIngress: Send + Sync {
    /// The stable name.
    fn name(&self) -> &'static str;

    /// Decodes a record and routes it into the batches; returns its event time.
    ///
    /// # Errors
    /// Why it is a dead letter; the batches are then as they were.
    fn route(&self, offset: u64, record: RawRecord<'_>, batches: &mut Batches) -> Result<EventTime, String>;

    /// Makes record `number` and routes it; `None` at the end, or if the ingress makes none.
    fn generate(&self, number: u64, batches: &mut Batches) -> Option<Result<EventTime, String>>;

    /// Whether the ingress makes its records itself.
    fn is_generator(&self) -> bool;
}

/// Binds an ingress and its router to a program that was linked with its [`Ingress::spec`].
///
/// # Panics
/// If the program was linked without it.
pub fn bind<M: Message, L: 'static>(
    ingress: Ingress<M, L>,
    router: impl Fn(M, &mut Router<'_, L>) + Send + Sync + 'static,
) -> impl FnOnce(&Program) -> Arc<dyn ErasedIngress> {
    move |program| {
        let routes =
            ingress.targets.iter().map(|target| program.route(target).expect("linking has checked the targets"));
        let routes = routes.collect();
        Arc::new(Bound {
            name: ingress.name,
            event_time: ingress.event_time,
            generator: ingress.generator,
            routes,
            router,
            list: PhantomData::<fn() -> L>,
        })
    }
}

struct Bound<M, L, R> {
    name: &'static str,
    event_time: Option<EventTimeOf<M>>,
    generator: Option<Generator<M>>,
    routes: Vec<Route>,
    router: R,
    list: PhantomData<fn() -> L>,
}

impl<M: Message, L: 'static, R: Fn(M, &mut Router<'_, L>) + Send + Sync> Bound<M, L, R> {
    fn send(
        &self,
        offset: u64,
        record: M,
        logged: Option<Logged<'_>>,
        batches: &mut Batches,
    ) -> Result<EventTime, String> {
        batches.begin(offset);
        let mut error = None;
        let encoded = logged.map(|logged| (logged.value, TypeId::of::<M>()));
        let key = logged.and_then(|logged| logged.key);
        let routed = catch_unwind(AssertUnwindSafe(|| {
            let beside = logged.and_then(|logged| logged.time).unwrap_or_default();
            let time = self.event_time.as_ref().map_or(beside, |of| of(&record));
            let mut router =
                Router { routes: &self.routes, batches, time, key, encoded, error: &mut error, list: PhantomData };
            (self.router)(record, &mut router);
            time
        }));
        let routed = match (routed, error) {
            (Ok(time), None) => Ok(time),
            (Ok(_), Some(error)) => Err(error),
            (Err(panic), _) => Err(format!("the router {}", panic_text(panic.as_ref()))),
        };
        if routed.is_err() {
            batches.undo();
        }
        routed
    }
}

impl<M: Message, L: 'static, R: Fn(M, &mut Router<'_, L>) + Send + Sync> ErasedIngress for Bound<M, L, R> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn route(&self, offset: u64, record: RawRecord<'_>, batches: &mut Batches) -> Result<EventTime, String> {
        let (record, logged) = match record {
            RawRecord::Bytes(bytes) => (batches.decode(bytes), Some(Logged::of(bytes))),
            RawRecord::Logged(logged) => (batches.decode(logged.value), Some(logged)),
            RawRecord::Row(row) => (M::decode_row(row), None),
        };
        self.send(offset, record.map_err(|error| error.to_string())?, logged, batches)
    }

    fn generate(&self, number: u64, batches: &mut Batches) -> Option<Result<EventTime, String>> {
        let record = catch_unwind(AssertUnwindSafe(|| self.generator.as_ref()?(number)));
        match record {
            Ok(record) => Some(self.send(number, record?, None, batches)),
            Err(panic) => Some(Err(format!("the generator {}", panic_text(panic.as_ref())))),
        }
    }

    fn is_generator(&self) -> bool {
        self.generator.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::{Add, SHARDS, program_with_input};

    /// Routes a record to the counter that its key names; returns its event time, and the key and the
    /// time of the message.
    fn route(ingress: Ingress<Add>, record: RawRecord<'_>) -> (EventTime, String, EventTime) {
        let (_, bound) = program_with_input(ingress);
        let mut batches = Batches::new(SHARDS);
        let time = bound.route(0, record, &mut batches).expect("it can be read");
        let sent = batches.shards.iter().flat_map(|shard| shard.calls.calls.iter().map(move |call| (shard, call)));
        let sent: Vec<_> = sent.collect();
        let [(shard, call)] = sent[..] else { panic!("one message is sent: {sent:?}") };
        assert_eq!(call.payload.of(&shard.calls.bytes), b"7");
        (time, String::from_utf8_lossy(call.key.of(&shard.calls.bytes)).into_owned(), call.time)
    }

    #[test]
    fn all_of_a_stretch_is_gathered_in_the_order_of_the_records() {
        let (_, bound) = program_with_input(Ingress::<Add>::new("sums"));
        let mut batches = Batches::new(SHARDS);
        let keys = ["a", "b", "c", "d", "e", "f"];
        for (offset, key) in (0..).zip(keys) {
            let record = Logged { value: b"7", key: Some(key.as_bytes()), time: None };
            bound.route(offset, RawRecord::Logged(record), &mut batches).expect("it can be read");
        }
        (10..13).for_each(|offset| batches.dead_letter(offset, DeadLetter::of_record("sums", "there", "why", b"")));
        batches.gather(1);
        let [others, gathered] = &batches.shards[..] else { panic!("two shards") };
        assert!(others.calls.is_empty() && others.offsets.is_empty() && others.dead_letters.is_empty());
        let is_own = |key: &&&str| shard_of(murmur2(key.as_bytes()), SHARDS) == 1;
        let texts = |calls: &Calls| -> Vec<String> {
            let key = |call: &Call| String::from_utf8_lossy(call.key.of(&calls.bytes)).into_owned();
            calls.calls.iter().map(key).collect()
        };
        let (own, onward): (Vec<&str>, Vec<&str>) = keys.iter().partition(is_own);
        assert!(!own.is_empty() && !onward.is_empty());
        assert_eq!(
            (texts(&gathered.calls), texts(&gathered.onward)),
            (own.iter().map(ToString::to_string).collect(), onward.iter().map(ToString::to_string).collect())
        );
        assert!(gathered.onward_to.iter().all(|(shard, _)| *shard == 0));
        assert!(gathered.onward_to.is_sorted_by_key(|(_, offset)| *offset));
        assert_eq!(gathered.dead_letters.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [10, 11, 12]);
    }

    #[test]
    fn a_record_of_a_log_has_its_time_and_its_key_from_there() {
        let sums = || Ingress::<Add>::new("sums");
        let logged = |time| RawRecord::Logged(Logged { value: b"7", key: Some(b"alice"), time });
        let of = |time| (EventTime(time), "alice".to_owned(), EventTime(time));
        assert_eq!(route(sums(), logged(Some(EventTime(1_234)))), of(1_234));
        assert_eq!(route(sums(), logged(None)), of(0));
        // What the ingress says goes before it.
        let said = sums().event_time(|add| EventTime(add.0 as i64));
        assert_eq!(route(said, logged(Some(EventTime(1_234)))), of(7));
        assert_eq!(route(sums(), RawRecord::Bytes(b"7")), (EventTime(0), "none".to_owned(), EventTime(0)));
    }
}
