//! The log: appends that wait, reads to the end, and trims.
//!
//! Invariants:
//! - A read goes to the end as it is when the read begins, and yields every record on the way: the
//!   topics have neither transactions nor compaction, so an offset that is missing means that records
//!   were lost.
//! - Nothing waits for ever: without any progress a call fails after the patience that was set.
//! - [`Log::start`] and [`Log::end`] say what [`KafkaLog::refresh`], or a read, append or trim of this
//!   value, has learnt last; before that, 0. Others append too, so the end may be further on.
//!
//! Deliberately absent: a cache of records, and the decision about an unknown outcome.

use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use futures_executor::block_on;
use rdkafka::{
    Message, Offset as Place, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    metadata::MetadataTopic,
};
use statefn_core::ports::{
    log::{AppendError, Log, Offset, Partition, ReadError, Record},
    shared::Appender,
};

use crate::{
    appender::KafkaAppender,
    connection::{Connection, Isolation},
    error::Error,
    offsets::{self, End},
    report::Reporter,
    topics::Topics,
};

/// How long a read waits for records at a time.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How long a deletion of records may take at least, whatever the patience.
const DELETE_LIMIT_MIN: Duration = Duration::from_secs(2);

/// The log of an app; see [`Log`] for the contract. Each thread has a value of its own.
pub struct KafkaLog {
    connection: Connection,
    topics: Arc<Topics>,
    appender: Arc<KafkaAppender>,
    consumer: BaseConsumer<Reporter>,
    admin: Option<AdminClient<Reporter>>,
    patience: Duration,
    known: BTreeMap<Partition, Known>,
}

/// What was learnt of a partition.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    start: Offset,
    end: Offset,
}

/// Why a read came to no end.
enum Stop {
    /// The offset is not there (any more).
    OutOfRange,
    Damaged(String),
}

impl KafkaLog {
    /// The log that an appender appends to. A call fails that makes no progress for as long as
    /// `patience`.
    ///
    /// # Errors
    /// [`Error::Property`] or [`Error::Failed`] if there can be no consumer.
    pub fn new(connection: &Connection, appender: &Arc<KafkaAppender>, patience: Duration) -> Result<Self, Error> {
        let topics = Arc::clone(appender.topics());
        let mut config = connection.consumer_config(&format!("{}-reader", topics.app()), Isolation::Uncommitted);
        // Between reads there is nothing to wait for, and the next one waits for what is under way.
        config.set("fetch.wait.max.ms", "1");
        let consumer = connection.client("read the log", &config, connection.reporter("log"))?;
        Ok(Self {
            connection: connection.clone(),
            topics,
            appender: Arc::clone(appender),
            consumer,
            admin: None,
            patience,
            known: BTreeMap::new(),
        })
    }

    /// Learns where partitions begin and end.
    ///
    /// # Errors
    /// [`Error::Failed`] or [`Error::Denied`].
    pub fn refresh(&mut self, partitions: &[Partition]) -> Result<(), Error> {
        // In this order a start is never behind its end.
        let starts = self.ask(partitions, End::Start)?;
        let ends = self.ask(partitions, End::End)?;
        for ((partition, start), end) in partitions.iter().zip(starts).zip(ends) {
            self.known.insert(*partition, Known { start, end });
        }
        Ok(())
    }

    /// Asks for the ends of partitions, in their order: each is behind every append that anybody was
    /// told of before the call. One request for each broker that leads any of them.
    ///
    /// # Errors
    /// [`Error::Failed`] or [`Error::Denied`].
    pub fn ends(&mut self, partitions: &[Partition]) -> Result<Vec<Offset>, Error> {
        let ends = self.ask(partitions, End::End)?;
        partitions.iter().zip(&ends).for_each(|(partition, end)| self.known.entry(*partition).or_default().end = *end);
        Ok(ends)
    }

    fn ask(&self, partitions: &[Partition], end: End) -> Result<Vec<Offset>, Error> {
        let answer = offsets::ask(&self.consumer, &self.topics, partitions, end, self.patience);
        answer.map_err(|error| {
            let first = partitions.first().map_or_else(String::new, |first| self.topics.place_text(*first));
            let others = partitions.len().saturating_sub(1);
            let doing = format!(
                "tell the {} of {first} and {others} others",
                match end {
                    End::Start => "starts",
                    End::End => "ends",
                }
            );
            self.connection.failed(&doing, &error)
        })
    }

    fn known(&self, partition: Partition) -> Known {
        self.known.get(&partition).copied().unwrap_or_default()
    }

    fn damaged(&self, partition: Partition, what: &str) -> ReadError {
        ReadError::Damaged(format!("{}: {what}", self.topics.place_text(partition)))
    }

    /// Reads what is at `from..end`.
    fn read_to(
        &self,
        partition: Partition,
        from: Offset,
        end: Offset,
        each: &mut dyn FnMut(Offset, &[u8]),
    ) -> Result<(), Stop> {
        let failed = |error: KafkaError| Stop::Damaged(format!("cannot be read: {error}"));
        let (topic, number) = self.topics.place(partition);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, number, Place::Offset(from as i64)).map_err(failed)?;
        self.consumer.assign(&list).map_err(failed)?;
        let mut next = from;
        let mut heard_at = Instant::now();
        while next < end {
            match self.consumer.poll(POLL_INTERVAL) {
                Some(Ok(message)) if (message.topic(), message.partition()) == (topic, number) => {
                    let offset = message.offset() as Offset;
                    if offset != next {
                        return Err(Stop::Damaged(format!(
                            "offset {offset} follows where {next} should: records were lost, or the topic is compacted or has transactions; restore the topic"
                        )));
                    }
                    each(offset, message.payload().unwrap_or_default());
                    next += 1;
                    heard_at = Instant::now();
                    continue;
                }
                Some(Err(error)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset) => {
                    return Err(Stop::OutOfRange);
                }
                Some(Err(error)) if is_final(&error) => return Err(failed(error)),
                // The client goes on by itself once it can.
                _ => {}
            }
            if heard_at.elapsed() >= self.patience {
                let (ms, why) = (self.patience.as_millis(), self.consumer.context().last().unwrap_or_default());
                return Err(Stop::Damaged(format!(
                    "cannot be read: no record at {next} came within {ms} ms, though the end is {end}; see whether the broker is reachable {why}"
                )));
            }
        }
        Ok(())
    }

    /// What it means that an offset is not there.
    fn out_of_range(&mut self, partition: Partition, wanted: Offset) -> ReadError {
        if let Err(error) = self.refresh(&[partition]) {
            return self.damaged(partition, &error.to_string());
        }
        let Known { start, end } = self.known(partition);
        if wanted < start {
            return ReadError::Trimmed { partition, wanted, start };
        }
        self.damaged(
            partition,
            &format!("offset {wanted} is not there, though it holds {start} to {end}; read it again"),
        )
    }

    /// Deletes records, and returns the first offset kept.
    fn delete_before(&mut self, partition: Partition, before: Offset) -> Result<Offset, Error> {
        let admin = match self.admin.take() {
            Some(admin) => admin,
            None => self.connection.admin()?,
        };
        let (topic, _) = self.topics.place(partition);
        let refresh = |left| drop(admin.inner().fetch_metadata(Some(topic), left));
        let deleted =
            offsets::again(self.patience, refresh, |left| self.delete_before_once(&admin, partition, before, left));
        let deleted = deleted.map_err(|error| {
            let doing = format!("delete the records before {before} of {}", self.topics.place_text(partition));
            self.connection.failed(&doing, &error)
        });
        self.admin = Some(admin);
        deleted
    }

    fn delete_before_once(
        &self,
        admin: &AdminClient<Reporter>,
        partition: Partition,
        before: Offset,
        limit: Duration,
    ) -> KafkaResult<Offset> {
        let (topic, number) = self.topics.place(partition);
        // The library (2.12) frees the request too early if it has to wait for the leader, or if the
        // time limit passes meanwhile: so the leader is made known before, and the limit is not short.
        let limit = limit.max(DELETE_LIMIT_MIN);
        let metadata = admin.inner().fetch_metadata(Some(topic), limit)?;
        let partitions = metadata.topics().first().map_or(&[][..], MetadataTopic::partitions);
        if !partitions.iter().any(|partition| partition.id() == number && partition.leader() >= 0) {
            return Err(KafkaError::AdminOp(RDKafkaErrorCode::LeaderNotAvailable));
        }
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, number, Place::Offset(before as i64))?;
        let options = AdminOptions::new().request_timeout(Some(limit)).operation_timeout(Some(limit));
        let answer = block_on(admin.delete_records(&list, &options))?;
        let found = answer.find_partition(topic, number).ok_or(KafkaError::NoMessageReceived)?;
        found.error()?;
        Ok(match found.offset() {
            Place::Offset(start) if start >= 0 => start as Offset,
            _ => before,
        })
    }
}

impl Log for KafkaLog {
    fn append(&mut self, group: &[Record<'_>]) -> Result<Vec<Offset>, AppendError> {
        // By partition, where in the group its records are.
        let mut parts: BTreeMap<Partition, Vec<usize>> = BTreeMap::new();
        for (index, record) in group.iter().enumerate() {
            parts.entry(record.partition).or_default().push(index);
        }
        let (told, outcomes) = mpsc::channel();
        for (partition, indices) in &parts {
            let records = indices.iter().map(|index| Arc::new(group[*index].bytes.to_vec())).collect();
            let (told, partition) = (told.clone(), *partition);
            // Who waits below waits for all.
            let told = Box::new(move |outcome| _ = told.send((partition, outcome)));
            self.appender.append(partition, records, told);
        }
        drop(told);
        let mut offsets = vec![0; group.len()];
        let (mut refused, mut unknown) = (Vec::new(), Vec::new());
        for (partition, outcome) in &outcomes {
            match outcome {
                Ok(first) => {
                    let indices = &parts[&partition];
                    (first..).zip(indices).for_each(|(offset, index)| offsets[*index] = offset);
                    let known = self.known.entry(partition).or_default();
                    known.end = known.end.max(first + indices.len() as Offset);
                }
                Err(AppendError::Refused(why)) => refused.push(why),
                Err(AppendError::Unknown(why)) => unknown.push(why),
            }
        }
        // Of several partitions some may stand.
        let is_all_refused = refused.len() == parts.len();
        match (refused.pop(), unknown.pop()) {
            (None, None) => Ok(offsets),
            (Some(why), None) if is_all_refused => Err(AppendError::Refused(why)),
            (_, Some(why)) | (Some(why), None) => Err(AppendError::Unknown(why)),
        }
    }

    fn read(
        &mut self,
        partition: Partition,
        from: Offset,
        each: &mut dyn FnMut(Offset, &[u8]),
    ) -> Result<(), ReadError> {
        let end = match self.ends(&[partition]) {
            Ok(ends) => ends[0],
            Err(error) => return Err(self.damaged(partition, &error.to_string())),
        };
        if from > end {
            let what = format!(
                "it ends at {end}, but offset {from} was reached before: acknowledged records were lost, or the topic was made anew; restore it"
            );
            return Err(self.damaged(partition, &what));
        }
        let read = self.read_to(partition, from, end, each);
        if let Err(error) = self.consumer.unassign() {
            return Err(self.damaged(partition, &error.to_string()));
        }
        match read {
            Ok(()) => Ok(()),
            Err(Stop::OutOfRange) => Err(self.out_of_range(partition, from)),
            Err(Stop::Damaged(what)) => Err(self.damaged(partition, &what)),
        }
    }

    fn start(&self, partition: Partition) -> Offset {
        self.known(partition).start
    }

    fn end(&self, partition: Partition) -> Offset {
        self.known(partition).end
    }

    fn trim(&mut self, partition: Partition, before: Offset) -> Result<(), String> {
        if before > self.known(partition).end {
            self.ends(&[partition]).map_err(|error| error.to_string())?;
        }
        let Known { start, end } = self.known(partition);
        let before = before.min(end);
        if before <= start {
            return Ok(());
        }
        let start = self.delete_before(partition, before).map_err(|error| error.to_string())?;
        self.known.entry(partition).or_default().start = start;
        Ok(())
    }
}

/// Whether reading again cannot help before somebody has done something.
pub(crate) fn is_final(error: &KafkaError) -> bool {
    let is_known = |code| {
        matches!(
            code,
            RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::Fatal | RDKafkaErrorCode::BadMessage
        )
    };
    matches!(error, KafkaError::MessageConsumptionFatal(_)) || error.rdkafka_error_code().is_some_and(is_known)
}

impl std::fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaLog").field("app", &self.topics.app()).field("known", &self.known).finish_non_exhaustive()
    }
}
