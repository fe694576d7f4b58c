//! The appender: appends of one process to the partitions of the log, side by side, through one
//! idempotent producer.
//!
//! Invariants:
//! - An append is told once, when each of its records was reported: the first offset if all of them
//!   stand in a row, else that the outcome is unknown. The client does not say whether a record that
//!   it reports as failed has left the process, so each such report means unknown.
//! - Refused means that no record was given to the client: because the append does not fit, too much
//!   is under way already, or there is no producer that would take it. So the queue of the client is
//!   never full, and no caller waits. It is told within the call; everything else by other threads.
//! - An unknown outcome or a fatal error replaces the producer: what failed may hold up everything
//!   behind it. The new one is connected on a thread of its own, and takes over as soon as it is. A
//!   partition of which something is still under way through the old one stays with that, so that
//!   the order holds; only where that one is of no more use, what is under way is given up first.
//!
//! Deliberately absent: fencing. Idempotence keeps the order of one producer, it does not keep others
//! out; who may append what is decided by the fold of the journal.

use std::{
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    error::KafkaError,
    message::{DeliveryResult, Message},
    producer::{BaseRecord, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer},
};
use statefn_core::ports::{
    log::{AppendError, Partition},
    shared::{Appender, Told},
};

use crate::{
    connection::{Connection, ProducerOptions},
    error::Error,
    ledger::{Flight, Generation, Ledger},
    report::{Reporter, lock},
    topics::Topics,
};

/// How many bytes may be under way before appends are refused, if options do not say.
const BYTES_MAX: usize = 512 << 20;
/// How many records may be under way before appends are refused.
const RECORDS_MAX: usize = 500_000;
/// How often a thread looks whether a producer has nothing under way any more.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How long the end of an appender waits for what is under way to be told.
const END_LIMIT: Duration = Duration::from_secs(5);

/// How an appender is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppenderOptions {
    /// The largest record, in bytes.
    pub record_bytes_max: usize,
    /// After how long an append that nobody acknowledged is told as unknown.
    pub message_timeout: Duration,
    /// How many bytes may be under way before appends are refused.
    pub under_way_bytes_max: usize,
}

impl AppenderOptions {
    /// Records of at most `record_bytes_max` bytes, told as unknown after 10 seconds, 512 MiB of them
    /// under way.
    #[must_use]
    pub fn new(record_bytes_max: usize) -> Self {
        Self { record_bytes_max, message_timeout: Duration::from_secs(10), under_way_bytes_max: BYTES_MAX }
    }

    /// Sets how many bytes may be under way before appends are refused.
    #[must_use]
    pub fn under_way_bytes_max(mut self, bytes: usize) -> Self {
        self.under_way_bytes_max = bytes;
        self
    }

    /// Sets after how long an append that nobody acknowledged is told as unknown.
    #[must_use]
    pub fn message_timeout(mut self, timeout: Duration) -> Self {
        self.message_timeout = timeout;
        self
    }
}

/// Appends to the log of an app; see [`Appender`] for the contract.
pub struct KafkaAppender {
    shared: Arc<Shared>,
}

struct Shared {
    connection: Connection,
    topics: Arc<Topics>,
    options: AppenderOptions,
    ledger: Arc<Mutex<Ledger>>,
    producers: Mutex<Producers>,
}

/// The producers; a lock on them is held while an append is given to one, so that its records follow
/// each other.
struct Producers {
    /// The one that new appends go to; none when the appender ends.
    active: Option<Arc<Producer>>,
    /// Those that have something under way still.
    retired: Vec<Arc<Producer>>,
    is_replacing: bool,
}

struct Producer {
    generation: Generation,
    client: ThreadedProducer<Context>,
    /// An outcome is unknown, so there should be another one.
    is_spent: Arc<AtomicBool>,
    reporter: Reporter,
}

impl KafkaAppender {
    /// Makes an appender to the log of an app, whose topics must stand, and connects it.
    ///
    /// # Errors
    /// [`Error::Property`] or [`Error::Failed`] if there can be no producer.
    pub fn new(connection: &Connection, topics: &Arc<Topics>, options: &AppenderOptions) -> Result<Self, Error> {
        let ledger = Arc::default();
        let shared = Shared {
            connection: connection.clone(),
            topics: Arc::clone(topics),
            options: options.clone(),
            ledger,
            producers: Mutex::new(Producers { active: None, retired: Vec::new(), is_replacing: false }),
        };
        let producer = shared.make(0)?;
        producer.connect(topics, options.message_timeout);
        lock(&shared.producers).active = Some(Arc::new(producer));
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The topics that it appends to.
    pub(crate) fn topics(&self) -> &Arc<Topics> {
        &self.shared.topics
    }
}

impl Appender for KafkaAppender {
    fn append(&self, partition: Partition, records: Vec<Arc<Vec<u8>>>, told: Told) {
        let shared = &self.shared;
        if let Err(why) = shared.check(&records) {
            return told(Err(AppendError::Refused(why)));
        }
        let mut producers = lock(&shared.producers);
        let Some(producer) = shared.choose(&mut producers, partition) else {
            drop(producers);
            let place = shared.topics.place_text(partition);
            return told(Err(AppendError::Refused(format!(
                "the producer for {place} is being replaced after an error; append again later"
            ))));
        };
        let flight = Flight::begin(&shared.ledger, partition, producer.generation, &records, told);
        let sent = shared.send(&producer, partition, &records, &flight);
        drop(producers);
        let unsent = records.len() - sent.as_ref().map_or_else(|(count, _)| *count, |()| records.len());
        flight.given(unsent, sent.err().map(|(_, why)| why));
    }
}

impl Drop for KafkaAppender {
    /// Gives up what is under way; it is told as unknown.
    fn drop(&mut self) {
        let mut producers = lock(&self.shared.producers);
        let mut all: Vec<Arc<Producer>> = producers.active.take().into_iter().collect();
        all.append(&mut producers.retired);
        drop(producers);
        all.iter().for_each(|producer| producer.give_up());
        let started = Instant::now();
        while all.iter().any(|producer| producer.is_busy()) && started.elapsed() < END_LIMIT {
            thread::sleep(LOOK_INTERVAL);
        }
    }
}

impl Shared {
    /// Whether an append may begin, as far as its size goes.
    fn check(&self, records: &[Arc<Vec<u8>>]) -> Result<(), String> {
        let limit = self.options.record_bytes_max;
        if records.is_empty() {
            return Err("an append has no record".to_owned());
        }
        if let Some(record) = records.iter().find(|record| record.len() > limit) {
            let bytes = record.len();
            return Err(format!("a record has {bytes} bytes, more than the {limit} that records may have"));
        }
        let (flying_bytes, flying_records) = lock(&self.ledger).load();
        let bytes = flying_bytes + records.iter().map(|record| record.len()).sum::<usize>();
        // One that is alone is taken whatever its size.
        if flying_records > 0
            && (bytes > self.options.under_way_bytes_max || flying_records + records.len() > RECORDS_MAX)
        {
            return Err(format!(
                "{flying_records} records of {flying_bytes} bytes are under way, see whether the broker is slow or down; append again later"
            ));
        }
        Ok(())
    }

    /// The producer for an append to a partition; none if there is no good one for now.
    fn choose(self: &Arc<Self>, producers: &mut Producers, partition: Partition) -> Option<Arc<Producer>> {
        let active = Arc::clone(producers.active.as_ref()?);
        if active.is_spent() && !producers.is_replacing {
            let (shared, generation) = (Arc::downgrade(self), active.generation + 1);
            let thread = thread::Builder::new().name("appender".to_owned());
            // Without a thread the next append tries again.
            producers.is_replacing = thread.spawn(move || replace(&shared, generation)).is_ok();
        }
        let generation = lock(&self.ledger).generation_of(partition);
        let of_partition = producers.retired.iter().find(|producer| Some(producer.generation) == generation);
        match of_partition {
            // Nothing of it can stand before what comes now, once it is given up.
            Some(broken) if broken.is_broken() => broken.give_up(),
            Some(producer) => return Some(Arc::clone(producer)),
            None => {}
        }
        (!active.is_broken()).then_some(active)
    }

    /// Gives records to a producer, in order.
    ///
    /// On error it returns how many were given.
    fn send(
        &self,
        producer: &Producer,
        partition: Partition,
        records: &[Arc<Vec<u8>>],
        flight: &Arc<Flight>,
    ) -> Result<(), (usize, String)> {
        let (topic, number) = self.topics.place(partition);
        for (index, bytes) in records.iter().enumerate() {
            let report = Box::new(Report { flight: Arc::clone(flight), index });
            let record = BaseRecord::<(), [u8], Box<Report>>::with_opaque_to(topic, report);
            let record = record.partition(number).payload(bytes.as_slice());
            if let Err((error, _)) = producer.client.send(record) {
                producer.is_spent.store(true, Ordering::Relaxed);
                let place = self.topics.place_text(partition);
                return Err((index, format!("a record for {place} was not taken: {error}")));
            }
        }
        Ok(())
    }

    fn make(&self, generation: Generation) -> Result<Producer, Error> {
        let AppenderOptions { record_bytes_max, message_timeout, .. } = self.options;
        let options = ProducerOptions { message_timeout, record_bytes_max, transactional_id: None };
        let mut config = self.connection.producer_config(&options);
        // Above what this lets be under way, so that a queue is never full.
        config
            .set("queue.buffering.max.messages", (4 * RECORDS_MAX).to_string())
            .set("queue.buffering.max.kbytes", (i32::MAX / 1024).to_string());
        let reporter = self.connection.reporter("appender");
        let is_spent = Arc::new(AtomicBool::new(false));
        let context = Context { reporter: reporter.clone(), is_spent: Arc::clone(&is_spent) };
        let client = self.connection.client("append to the log", &config, context)?;
        Ok(Producer { generation, client, is_spent, reporter })
    }
}

/// Puts a new producer in the place of the active one, and ends that when nothing of it is under way.
fn replace(shared: &Weak<Shared>, generation: Generation) {
    let Some(alive) = shared.upgrade() else { return };
    let new = match alive.make(generation) {
        Ok(new) => new,
        Err(error) => {
            tracing::error!(target: "statefn::kafka", "cannot replace a producer: {error}");
            lock(&alive.producers).is_replacing = false;
            return;
        }
    };
    let (topics, limit) = (Arc::clone(&alive.topics), alive.options.message_timeout);
    drop(alive);
    new.connect(&topics, limit);
    let Some(alive) = shared.upgrade() else { return };
    let mut producers = lock(&alive.producers);
    producers.is_replacing = false;
    // None: the appender has ended meanwhile.
    let Some(active) = &mut producers.active else { return };
    let old = std::mem::replace(active, Arc::new(new));
    producers.retired.push(Arc::clone(&old));
    drop(producers);
    if old.is_broken() {
        old.give_up();
    }
    drop(alive);
    loop {
        let Some(alive) = shared.upgrade() else { return };
        let mut producers = lock(&alive.producers);
        // Nobody gives it anything without the lock.
        if !old.is_busy() {
            producers.retired.retain(|retired| retired.generation != old.generation);
            return;
        }
        drop(producers);
        drop(alive);
        thread::sleep(LOOK_INTERVAL);
    }
}

impl Producer {
    /// Connects to the brokers: the first record of a producer that is not connected waits for half a
    /// second. Each answer makes the client ask for its identity if it has none, which comes to nothing
    /// at the first one where the connection is not fully up by then.
    fn connect(&self, topics: &Topics, limit: Duration) {
        for _ in 0..2 {
            if let Err(error) = self.client.client().fetch_metadata(Some(topics.journal()), limit) {
                // What is appended will say so too.
                self.reporter.warn("metadata", &format!("no answer about topic `{}`: {error}", topics.journal()));
                return;
            }
        }
    }

    fn is_spent(&self) -> bool {
        self.is_spent.load(Ordering::Relaxed) || self.is_broken()
    }

    /// Whether it takes no more records.
    fn is_broken(&self) -> bool {
        self.client.client().fatal_error().is_some()
    }

    fn is_busy(&self) -> bool {
        self.client.in_flight_count() > 0
    }

    /// Makes everything that is under way fail now.
    fn give_up(&self) {
        self.client.purge(PurgeConfig::default().queue().inflight());
    }
}

/// Which record of which append a report is about.
struct Report {
    flight: Arc<Flight>,
    index: usize,
}

struct Context {
    reporter: Reporter,
    is_spent: Arc<AtomicBool>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.reporter.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.reporter.error(error, reason);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Report>;

    fn delivery(&self, result: &DeliveryResult<'_>, report: Box<Report>) {
        let outcome = match result {
            // A record that the broker had already is reported without its offset.
            Ok(message) => u64::try_from(message.offset()).map_err(|_| "the broker told no offset".to_owned()),
            Err((error, _)) => Err(error.to_string()),
        };
        if outcome.is_err() {
            self.is_spent.store(true, Ordering::Relaxed);
        }
        report.flight.report(report.index, outcome);
    }
}

impl std::fmt::Debug for KafkaAppender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaAppender").field("app", &self.shared.topics.app()).finish_non_exhaustive()
    }
}
