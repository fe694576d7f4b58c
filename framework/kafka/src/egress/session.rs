//! One producer of a shard group, and what its errors mean.
//!
//! Invariants:
//! - A transaction is committed only when each of its records was acknowledged.
//! - After a transaction of which a request may still be on its way (it timed out, or its connection
//!   broke), the session is *suspect* and must not begin another: a late commit would end that one
//!   half-written (KAFKA-17754). Whoever renews it has the broker raise the epoch of the producer,
//!   which makes all late requests void.
//!
//! Broken connections are taken from the debug lines of the client: its errors and warnings leave
//! out what is like the one before.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Message, Statistics,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Header, Headers, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext},
};

use super::partition::Partition;
use crate::{
    connection::{Connection, ProducerOptions},
    report::{Reporter, lock},
};

/// The header with the identity of a record, `shard/epoch/index`.
pub const ID_HEADER: &str = "statefn-id";
/// How long a new producer may take, at first, until it has fenced those before it.
const TAKE_OVER_LIMIT: Duration = Duration::from_millis(100);
/// The shortest time that a call of the client may take.
const LOOK: Duration = Duration::from_millis(1);
/// How long to wait at first, and at most, before the client is asked again for news. It has no way to wait
/// for them: its `poll` asks again and again, without a pause, in the last millisecond of its time.
const PAUSES: [Duration; 2] = [Duration::from_micros(100), Duration::from_millis(1)];

/// How long after a commit the next transaction begins at the soonest. Until the broker has written
/// the marks of the last one it refuses the next, and the client tries that again after 20 ms only.
const MARKS_INTERVAL: Duration = Duration::from_millis(3);

/// A record on its way to a topic.
pub(super) struct Outgoing<'a> {
    pub(super) topic: &'a str,
    pub(super) partition: u32,
    /// Its identity; a position has none.
    pub(super) id: Option<String>,
    pub(super) value: &'a [u8],
}

/// What has to be done before the next write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Nothing: what was written does not stand, and the session is good.
    WriteAgain,
    /// A new session: what was written may stand or not.
    Renew,
    /// To find out whether another has taken over, or the broker has only given up waiting for us.
    AskWhoOwns,
}

/// A write that is not known to stand.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) remedy: Remedy,
    pub(super) doing: String,
    pub(super) cause: String,
    /// Whether the client only cleared away what a failure before this one had left.
    is_purge: bool,
}

impl Failure {
    /// A failure that leaves open what stands.
    fn unknown(doing: &str, cause: impl ToString) -> Self {
        Self { remedy: Remedy::Renew, doing: doing.to_owned(), cause: cause.to_string(), is_purge: false }
    }

    fn of(doing: &str, error: &KafkaError) -> Self {
        Self { remedy: remedy(error), is_purge: is_purge(error), ..Self::unknown(doing, error) }
    }
}

/// A producer of a group.
pub(super) struct Session {
    producer: BaseProducer<Watch>,
    is_transactional: bool,
    patience: Duration,
    committed_at: Cell<Option<Instant>>,
    /// The partitions that the last transaction has written records to, but for its position.
    places: RefCell<Vec<Partition>>,
    /// Whether its commit was tried.
    is_tried: Cell<bool>,
}

impl Session {
    /// Makes a producer; a transactional one has fenced all others of its identity by then, and no
    /// transaction of theirs is open.
    ///
    /// A broker that has to end a transaction of the last owner first refuses, and a client tries again
    /// after half a second only, while a new one finds it ended: so it is made anew, with more time each time.
    pub(super) fn open(
        connection: &Connection,
        options: &ProducerOptions,
        transaction_timeout: Duration,
        patience: Duration,
    ) -> Result<Self, Failure> {
        let (begun, mut limit) = (Instant::now(), TAKE_OVER_LIMIT);
        loop {
            let session = Self::connect(connection, options, transaction_timeout, patience)?;
            let left = patience.saturating_sub(begun.elapsed());
            match session.take_over(limit.min(left)) {
                Err(failure) if failure.remedy != Remedy::AskWhoOwns && limit < left => {
                    limit *= 2;
                    // To close a client takes its time.
                    std::thread::spawn(move || drop(session));
                }
                taken => return taken.map(|()| session),
            }
        }
    }

    fn connect(
        connection: &Connection,
        options: &ProducerOptions,
        transaction_timeout: Duration,
        patience: Duration,
    ) -> Result<Self, Failure> {
        let mut config = connection.producer_config(options);
        let is_transactional = options.transactional_id.is_some();
        if is_transactional {
            config.set("transaction.timeout.ms", transaction_timeout.as_millis().to_string());
        }
        config.set("debug", "broker").set_log_level(RDKafkaLogLevel::Debug);
        let watch = Watch::new(connection.reporter("egress"));
        let producer: BaseProducer<Watch> = connection
            .client("write egresses", &config, watch)
            .map_err(|error| Failure::unknown("make a producer", error))?;
        Ok(Self {
            producer,
            is_transactional,
            patience,
            committed_at: Cell::new(None),
            places: RefCell::default(),
            is_tried: Cell::new(false),
        })
    }

    /// Fences all others of its identity.
    fn take_over(&self, limit: Duration) -> Result<(), Failure> {
        if self.is_transactional {
            let doing = "take over the transactions of the group";
            until(limit, doing, |left| self.producer.init_transactions(left))?;
        }
        self.look();
        self.watch().is_suspect.store(false, Ordering::Release);
        Ok(())
    }

    /// Whether a request of the last transaction may still be on its way. Without transactions nothing is
    /// ended by one that is late.
    pub(super) fn is_suspect(&self) -> bool {
        self.look();
        self.is_transactional && self.watch().is_suspect.load(Ordering::Acquire)
    }

    /// How many partitions a topic has; `None` if it is not there.
    pub(super) fn partitions(&self, topic: &str) -> Result<Option<u32>, Failure> {
        let doing = format!("look at the topic `{topic}`");
        let metadata = self.until(&doing, |left| self.producer.client().fetch_metadata(Some(topic), left))?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
        match found.error().map(RDKafkaErrorCode::from) {
            None => Ok(Some(found.partitions().len() as u32).filter(|count| *count > 0)),
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Ok(None),
            Some(code) => Err(Failure::unknown(&doing, code)),
        }
    }

    /// The offset in a partition before which every transaction is decided.
    pub(super) fn stable_end(&self, partition: &Partition) -> Option<u64> {
        // A producer asks with the isolation that clients have by themselves: for committed records.
        let found = self.producer.client().fetch_watermarks(&partition.topic, partition.number as i32, self.patience);
        u64::try_from(found.ok()?.1).ok()
    }

    /// Writes records, all or none of them if the producer is transactional, the position last.
    ///
    /// Returns the offset of the position.
    pub(super) fn write<'a>(
        &self,
        records: impl Iterator<Item = Outgoing<'a>>,
        position: Option<&Outgoing<'a>>,
    ) -> Result<Option<u64>, Failure> {
        self.watch().begin();
        self.is_tried.set(false);
        self.places.borrow_mut().clear();
        if !self.is_transactional {
            let written = self.write_plainly(records, position);
            return written.map_err(|failure| Failure { remedy: Remedy::Renew, ..failure });
        }
        if let Some(committed_at) = self.committed_at.get() {
            std::thread::sleep(MARKS_INTERVAL.saturating_sub(committed_at.elapsed()));
        }
        self.producer.begin_transaction().map_err(|error| Failure::of("begin a transaction", &error))?;
        let sent = self.send_all(records.chain(position.map(Outgoing::again))).and_then(|sent| self.drain(sent));
        match sent {
            Ok(()) => self.commit().map(|()| self.watch().position()),
            Err(failure) => Err(self.give_up(self.explain(failure))),
        }
    }

    /// Writes records and takes them back, so that each of their partitions gets the mark of an abort.
    ///
    /// A record of an owner before that was on its way while its transaction was ended may stand behind
    /// the mark of that end: the coordinator does not know of it, it holds back who reads committed
    /// records, and the next commit of this identity would make it count (KIP-890). The mark ends it.
    pub(super) fn clear<'a>(&self, records: impl Iterator<Item = Outgoing<'a>>) -> Result<(), Failure> {
        if !self.is_transactional {
            return Ok(());
        }
        self.watch().begin();
        self.producer.begin_transaction().map_err(|error| Failure::of("begin a transaction", &error))?;
        let sent = self.send_all(records).and_then(|sent| self.drain(sent));
        sent.map_err(|failure| self.explain(failure))?;
        let aborted = self.until("abort a transaction", |left| self.producer.abort_transaction(left));
        self.committed_at.set(Some(Instant::now()));
        aborted
    }

    /// Without a transaction the position must not stand before the records do.
    fn write_plainly<'a>(
        &self,
        records: impl Iterator<Item = Outgoing<'a>>,
        position: Option<&Outgoing<'a>>,
    ) -> Result<Option<u64>, Failure> {
        let sent = self.send_all(records)?;
        self.drain(sent)?;
        let with_position = sent + self.send_all(position.map(Outgoing::again).into_iter())?;
        self.drain(with_position)?;
        Ok(self.watch().position())
    }

    fn send_all<'a>(&self, records: impl Iterator<Item = Outgoing<'a>>) -> Result<u64, Failure> {
        let mut sent = 0;
        for record in records {
            self.send(&record)?;
            sent += 1;
        }
        Ok(sent)
    }

    /// The partitions that the last transaction wrote to, each with the offset of its first record there;
    /// none if it was not tried to commit it.
    pub(super) fn take_places(&self) -> Option<Vec<(Partition, u64)>> {
        let places = self.places.take();
        let firsts = std::mem::take(&mut *lock(&self.watch().firsts));
        let first = |slot: usize| firsts.get(&slot).copied().unwrap_or_default();
        self.is_tried.take().then(|| places.into_iter().enumerate().map(|(slot, place)| (place, first(slot))).collect())
    }

    /// What the client is to say with the outcome of a record: 1 for a position, `2 + place` for the first
    /// record in a partition, 0 for all others.
    fn opaque(&self, record: &Outgoing<'_>) -> usize {
        if record.id.is_none() {
            return 1;
        }
        let mut places = self.places.borrow_mut();
        if places.iter().any(|place| (place.number, place.topic.as_str()) == (record.partition, record.topic)) {
            return 0;
        }
        places.push(Partition { topic: record.topic.to_owned(), number: record.partition });
        places.len() + 1
    }

    fn send(&self, record: &Outgoing<'_>) -> Result<(), Failure> {
        let (begun, opaque) = (Instant::now(), self.opaque(record));
        let mut pause = PAUSES[0];
        loop {
            let error = match self.producer.send(record.to_base(opaque)) {
                Ok(()) => return Ok(()),
                Err((error, _)) => error,
            };
            let is_full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
            if !is_full || begun.elapsed() > self.patience {
                return Err(Failure::of(&format!("write to the topic `{}`", record.topic), &error));
            }
            self.wait_for_news(&mut pause);
        }
    }

    /// Hears the news of the client, after a pause, which is longer the next time.
    fn wait_for_news(&self, pause: &mut Duration) {
        std::thread::sleep(*pause);
        self.look();
        *pause = (*pause * 5 / 4).min(PAUSES[1]);
    }

    /// Waits until each of `sent` records is acknowledged.
    fn drain(&self, sent: u64) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut pause = PAUSES[0];
        while self.producer.in_flight_count() > 0 {
            if begun.elapsed() > self.patience {
                let cause = format!("there was no answer for {} ms", self.patience.as_millis());
                return Err(Failure::unknown("write records", cause));
            }
            self.wait_for_news(&mut pause);
        }
        self.watch().outcome(sent)
    }

    /// Commits; once that was tried nobody may abort, whatever comes.
    fn commit(&self) -> Result<(), Failure> {
        #[cfg(test)]
        super::tests::reach_commit();
        self.is_tried.set(true);
        #[cfg(test)]
        if super::tests::pretends_to_commit() {
            return Ok(());
        }
        let committed = self.until("commit a transaction", |left| self.producer.commit_transaction(left));
        committed.map_err(|failure| match failure.remedy {
            Remedy::WriteAgain => Failure { remedy: Remedy::Renew, ..failure },
            Remedy::Renew | Remedy::AskWhoOwns => failure,
        })?;
        self.committed_at.set(Some(Instant::now()));
        Ok(())
    }

    fn until<T>(&self, doing: &str, call: impl Fn(Duration) -> Result<T, KafkaError>) -> Result<T, Failure> {
        until(self.patience, doing, call)
    }

    /// Finds the cause of a transaction whose records were refused only because it had failed before.
    fn explain(&self, failure: Failure) -> Failure {
        if let Some((code, text)) = self.producer.client().fatal_error() {
            let error = KafkaError::Global(code);
            return Failure { remedy: remedy(&error), cause: text, ..failure };
        }
        if !failure.is_purge {
            return failure;
        }
        // It cannot be committed any more; the refusal has the cause.
        match self.producer.commit_transaction(LOOK) {
            Ok(()) => Failure { remedy: Remedy::Renew, ..failure },
            Err(error) => Failure { remedy: remedy(&error), cause: error.to_string(), ..failure },
        }
    }

    /// Takes back what can be taken back of a transaction that was not committed.
    fn give_up(&self, failure: Failure) -> Failure {
        if failure.remedy != Remedy::WriteAgain {
            return failure;
        }
        match self.until("abort a transaction", |left| self.producer.abort_transaction(left)) {
            Ok(()) => failure,
            Err(_) => Failure { remedy: Remedy::Renew, ..failure },
        }
    }

    /// Hears everything that the client has to say by now.
    pub(super) fn look(&self) {
        while self.producer.in_flight_count() > 0 {
            let before = self.producer.in_flight_count();
            self.producer.poll(Duration::ZERO);
            if self.producer.in_flight_count() >= before {
                return;
            }
        }
    }

    fn watch(&self) -> &Watch {
        self.producer.client().context()
    }
}

impl<'a> Outgoing<'a> {
    fn again(&self) -> Self {
        let Self { topic, partition, value, .. } = *self;
        Self { topic, partition, value, id: self.id.clone() }
    }

    fn to_base(&self, opaque: usize) -> BaseRecord<'_, [u8], [u8], usize> {
        let partition = i32::try_from(self.partition).expect("partitions are few");
        let record = BaseRecord::with_opaque_to(self.topic, opaque).partition(partition).payload(self.value);
        match &self.id {
            Some(id) => record.headers(OwnedHeaders::new().insert(Header { key: ID_HEADER, value: Some(id) })),
            None => record,
        }
    }
}

/// What an error means for the transaction and its producer; what is not known here renews the session,
/// which is always right.
fn remedy(error: &KafkaError) -> Remedy {
    use RDKafkaErrorCode::{Fenced, InvalidProducerEpoch, ProducerFenced};
    if matches!(error.rdkafka_error_code(), Some(Fenced | ProducerFenced | InvalidProducerEpoch)) {
        return Remedy::AskWhoOwns;
    }
    match error {
        KafkaError::Transaction(error) if !error.is_fatal() && error.txn_requires_abort() => Remedy::WriteAgain,
        _ => Remedy::Renew,
    }
}

/// Calls until it is done, as long as the limit, while the error says that the same call may go on.
fn until<T>(limit: Duration, doing: &str, call: impl Fn(Duration) -> Result<T, KafkaError>) -> Result<T, Failure> {
    let begun = Instant::now();
    loop {
        let left = limit.saturating_sub(begun.elapsed()).max(LOOK);
        match call(left) {
            Ok(done) => return Ok(done),
            Err(error) if begun.elapsed() < limit && is_retriable(&error) => {}
            Err(error) => return Err(Failure::of(doing, &error)),
        }
    }
}

/// Whether the same call may go on, and nothing else may be done before.
fn is_retriable(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(error) => error.is_retriable() && !error.is_fatal() && !error.txn_requires_abort(),
        KafkaError::MetadataFetch(code) => *code == RDKafkaErrorCode::BrokerTransportFailure,
        _ => false,
    }
}

fn is_purge(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight))
}

/// What a client says of its records and its connections.
struct Watch {
    reporter: Reporter,
    is_suspect: AtomicBool,
    acknowledged: AtomicU64,
    /// The offset of the position and one, 0 if there is none.
    position: AtomicU64,
    /// By place, the offset of the first record of the transaction there.
    firsts: Mutex<BTreeMap<usize, u64>>,
    /// The first record that was refused, and why; one that was only cleared away gives way.
    refused: Mutex<Option<(String, KafkaError)>>,
}

impl Watch {
    fn new(reporter: Reporter) -> Self {
        Self {
            reporter,
            is_suspect: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            position: AtomicU64::new(0),
            firsts: Mutex::default(),
            refused: Mutex::new(None),
        }
    }

    /// Forgets the write before.
    fn begin(&self) {
        self.acknowledged.store(0, Ordering::Release);
        self.position.store(0, Ordering::Release);
        *lock(&self.refused) = None;
        lock(&self.firsts).clear();
    }

    fn outcome(&self, sent: u64) -> Result<(), Failure> {
        if let Some((doing, error)) = lock(&self.refused).take() {
            // A record that was not acknowledged leaves a transaction to be aborted.
            let failure = Failure::of(&doing, &error);
            let remedy = match failure.remedy {
                Remedy::AskWhoOwns => Remedy::AskWhoOwns,
                _ => Remedy::WriteAgain,
            };
            return Err(Failure { remedy, ..failure });
        }
        let acknowledged = self.acknowledged.load(Ordering::Acquire);
        if acknowledged == sent {
            return Ok(());
        }
        Err(Failure::unknown("write records", format!("of {sent} records {acknowledged} were acknowledged")))
    }

    fn position(&self) -> Option<u64> {
        self.position.load(Ordering::Acquire).checked_sub(1)
    }
}

impl ClientContext for Watch {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        if leaves_requests_behind(facility, text) {
            self.is_suspect.store(true, Ordering::Release);
        }
        self.reporter.log(level, facility, text);
    }

    fn stats(&self, statistics: Statistics) {
        self.reporter.stats(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.reporter.error(error, reason);
    }
}

/// Whether a line of the client says that requests were sent whose answers will not be seen.
fn leaves_requests_behind(facility: &str, text: &str) -> bool {
    match facility {
        "REQTMOUT" => true,
        // Only what is up has requests; a broker that cannot be reached at all is no reason.
        "FAIL" => ["in state UP", "in state REAUTH"].iter().any(|state| text.contains(state)),
        _ => false,
    }
}

impl ProducerContext for Watch {
    type DeliveryOpaque = usize;

    fn delivery(&self, delivery: &DeliveryResult<'_>, opaque: usize) {
        match delivery {
            Ok(message) => {
                let offset = u64::try_from(message.offset()).ok();
                match opaque {
                    0 => {}
                    1 => self.position.store(offset.map_or(0, |offset| offset + 1), Ordering::Release),
                    first => _ = lock(&self.firsts).insert(first - 2, offset.unwrap_or_default()),
                }
                self.acknowledged.fetch_add(1, Ordering::AcqRel);
            }
            Err((error, message)) => {
                let doing = || format!("write {} to the topic `{}`", name_of(message), message.topic());
                let mut refused = lock(&self.refused);
                if refused.as_ref().is_none_or(|(_, known)| is_purge(known) && !is_purge(error)) {
                    *refused = Some((doing(), error.clone()));
                }
            }
        }
    }
}

fn name_of(message: &impl Message) -> String {
    let size = message.payload().map_or(0, <[u8]>::len);
    id_of(message).map_or("a position".to_owned(), |id| format!("the record {id} of {size} bytes"))
}

/// The identity of a record, if it has one.
pub(super) fn id_of(message: &impl Message) -> Option<String> {
    let id = message.headers()?.iter().find(|header| header.key == ID_HEADER)?;
    id.value.map(|id| String::from_utf8_lossy(id).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_breaks_with_requests_is_told_from_one_that_was_never_up() {
        let fail = |text| leaves_requests_behind("FAIL", text);
        assert!(fail("a:9092/1: Disconnected (after 12ms in state UP) (_TRANSPORT): identical to last error"));
        assert!(!fail("a:9092/2: Connect to ipv4#a:9092 failed: Connection refused (after 0ms in state CONNECT)"));
        assert!(leaves_requests_behind("REQTMOUT", "Timed out EndTxnRequest in flight (after 1000ms, timeout #0)"));
        assert!(!leaves_requests_behind("STATE", "a:9092/1: Broker changed state UP -> DOWN"));
    }

    #[test]
    fn what_says_that_an_epoch_is_over_asks_who_owns() {
        for code in [RDKafkaErrorCode::Fenced, RDKafkaErrorCode::InvalidProducerEpoch] {
            assert_eq!(remedy(&KafkaError::MessageProduction(code)), Remedy::AskWhoOwns);
        }
        assert_eq!(remedy(&KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut)), Remedy::Renew);
    }
}
