//! The follower: partitions of the log, read as they grow.
//!
//! Invariants: what is to be followed stands in this value; the client is brought in line with it by
//! the next call of [`Follower::next`], and again after whatever went wrong. A partition that rests is
//! taken away from the client, so that nothing of it is fetched, and comes back where it was.
//!
//! Deliberately absent: a promise that offsets are dense; [`Log::read`](statefn_core::ports::log::Log)
//! looks at that.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    Message, Offset as Place, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
};
use statefn_core::ports::{
    log::{Offset, Partition},
    shared::Follower,
};

use crate::{
    connection::{Connection, Isolation},
    error::Error,
    log::is_final,
    offsets::{self, End},
    report::Reporter,
    topics::Topics,
};

/// How many bytes one call hands out before it returns, so that its caller gets to other things.
const CALL_BYTES_MAX: usize = 16 << 20;
/// How many records one call hands out before it returns.
const CALL_RECORDS_MAX: usize = 10_000;
/// How long it is asked where partitions begin, after one of them was found trimmed.
const ASK_LIMIT: Duration = Duration::from_secs(5);

/// Follows partitions of the log of an app; see [`Follower`] for the contract.
pub struct KafkaFollower {
    connection: Connection,
    topics: Arc<Topics>,
    consumer: BaseConsumer<Reporter>,
    followed: BTreeMap<Partition, Followed>,
    /// What the client was told last.
    assigned: BTreeSet<Partition>,
    /// What the client must be told anew.
    changed: BTreeSet<Partition>,
    /// A place was not there.
    is_out_of_range: bool,
}

#[derive(Debug, Clone, Copy)]
struct Followed {
    next: Offset,
    is_resting: bool,
}

impl KafkaFollower {
    /// A follower of nothing yet.
    ///
    /// # Errors
    /// [`Error::Property`] or [`Error::Failed`] if there can be no consumer.
    pub fn new(connection: &Connection, topics: &Arc<Topics>) -> Result<Self, Error> {
        Ok(Self {
            connection: connection.clone(),
            topics: Arc::clone(topics),
            consumer: consumer(connection, topics)?,
            followed: BTreeMap::new(),
            assigned: BTreeSet::new(),
            changed: BTreeSet::new(),
            is_out_of_range: false,
        })
    }

    /// Brings the client in line with what is to be followed.
    fn assign(&mut self) -> Result<(), String> {
        if self.changed.is_empty() {
            return Ok(());
        }
        let changed = std::mem::take(&mut self.changed);
        let told = self.tell_client(&changed);
        told.map_err(|error| {
            let place = changed.first().map_or_else(String::new, |first| self.topics.place_text(*first));
            self.changed.extend(changed);
            format!("{place} cannot be followed: {error}; it will be tried again")
        })
    }

    fn tell_client(&mut self, changed: &BTreeSet<Partition>) -> KafkaResult<()> {
        let mut old = TopicPartitionList::new();
        for partition in changed.intersection(&self.assigned) {
            let (topic, number) = self.topics.place(*partition);
            old.add_partition(topic, number);
        }
        if old.count() > 0 {
            self.consumer.incremental_unassign(&old)?;
            self.assigned.retain(|partition| !changed.contains(partition));
        }
        let mut new = TopicPartitionList::new();
        let mut assigned = Vec::new();
        for partition in changed {
            let Some(Followed { next, is_resting: false }) = self.followed.get(partition) else { continue };
            let (topic, number) = self.topics.place(*partition);
            new.add_partition_offset(topic, number, Place::Offset(*next as i64))?;
            assigned.push(*partition);
        }
        if new.count() > 0 {
            self.consumer.incremental_assign(&new)?;
            self.assigned.extend(assigned);
        }
        Ok(())
    }

    /// Goes on where partitions begin that were trimmed behind their readers.
    fn find_starts(&mut self) -> Result<(), String> {
        let assigned: Vec<Partition> = self.assigned.iter().copied().collect();
        let ask = |end| offsets::ask(&self.consumer, &self.topics, &assigned, end, ASK_LIMIT);
        let bounds = ask(End::Start).and_then(|starts| Ok((starts, ask(End::End)?)));
        let (starts, ends) = bounds.map_err(|error| {
            let app = self.topics.app();
            format!("cannot ask where the partitions of the app `{app}` begin: {error}; it will be tried again")
        })?;
        self.is_out_of_range = false;
        // The client fetches no more of a partition whose place was not there, and does not say which
        // one that is.
        self.changed.extend(&assigned);
        let mut lost = None;
        for ((partition, start), end) in assigned.into_iter().zip(starts).zip(ends) {
            let Some(followed) = self.followed.get_mut(&partition) else { continue };
            followed.next = followed.next.max(start);
            if followed.next > end {
                lost.get_or_insert((partition, followed.next, end));
            }
        }
        match lost {
            None => Ok(()),
            Some((partition, next, end)) => Err(format!(
                "{} ends at {end}, but offset {next} was reached before: acknowledged records were lost, or the topic was made anew; restore it",
                self.topics.place_text(partition)
            )),
        }
    }

    /// Takes the next message or error off the client; returns the bytes handed out.
    fn take(
        consumer: &BaseConsumer<Reporter>,
        (topics, followed): (&Topics, &mut BTreeMap<Partition, Followed>),
        patience: Duration,
        each: &mut dyn FnMut(Partition, Offset, &[u8]),
    ) -> KafkaResult<Option<usize>> {
        let Some(message) = consumer.poll(patience).transpose()? else { return Ok(None) };
        let partition = topics.partition(message.topic(), message.partition());
        let followed = partition.and_then(|partition| Some((partition, followed.get_mut(&partition)?)));
        // Of a partition that was left, or was given before.
        let Some((partition, followed)) = followed else { return Ok(Some(0)) };
        let offset = message.offset() as Offset;
        if followed.is_resting || offset < followed.next {
            return Ok(Some(0));
        }
        let bytes = message.payload().unwrap_or_default();
        followed.next = offset + 1;
        each(partition, offset, bytes);
        Ok(Some(bytes.len()))
    }
}

impl Follower for KafkaFollower {
    fn follow(&mut self, partition: Partition, from: Offset) {
        let is_resting = self.followed.get(&partition).is_some_and(|followed| followed.is_resting);
        self.followed.insert(partition, Followed { next: from, is_resting });
        self.changed.insert(partition);
    }

    fn leave(&mut self, partition: Partition) {
        if self.followed.remove(&partition).is_some() {
            self.changed.insert(partition);
        }
    }

    fn rest(&mut self, partition: Partition, is_resting: bool) {
        if let Some(followed) = self.followed.get_mut(&partition)
            && followed.is_resting != is_resting
        {
            followed.is_resting = is_resting;
            self.changed.insert(partition);
        }
    }

    fn renew(&mut self) -> Result<(), String> {
        self.consumer = consumer(&self.connection, &self.topics).map_err(|error| error.to_string())?;
        self.assigned.clear();
        self.changed.extend(self.followed.keys());
        Ok(())
    }

    fn next(&mut self, patience: Duration, each: &mut dyn FnMut(Partition, Offset, &[u8])) -> Result<(), String> {
        let until = Instant::now() + patience;
        if self.is_out_of_range {
            self.find_starts()?;
        }
        self.assign()?;
        let (mut bytes, mut records) = (0, 0);
        while bytes < CALL_BYTES_MAX && records < CALL_RECORDS_MAX {
            let left = until.saturating_duration_since(Instant::now());
            // Only the first record is waited for.
            let left = if records == 0 { whole_ms(left) } else { Duration::ZERO };
            let taken = Self::take(&self.consumer, (&self.topics, &mut self.followed), left, each);
            match taken {
                Ok(Some(taken)) => {
                    bytes += taken;
                    records += usize::from(taken > 0);
                }
                Ok(None) if left.is_zero() => break,
                Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset) => {
                    self.is_out_of_range = true;
                    self.find_starts()?;
                    self.assign()?;
                }
                Err(error) if is_final(&error) || is_unknown(&error) => return Err(self.failed(&error)),
                // After an error the client goes on by itself once it can.
                Ok(None) | Err(_) => {}
            }
        }
        Ok(())
    }
}

impl KafkaFollower {
    /// The client does not say which partition an error is about.
    fn failed(&mut self, error: &KafkaError) -> String {
        self.changed.extend(self.assigned.iter().copied());
        let places: Vec<String> = self.assigned.iter().take(3).map(|of| self.topics.place_text(*of)).collect();
        let count = self.assigned.len();
        format!("one of {count} partitions ({} ..) cannot be followed: {error}", places.join(", "))
    }
}

fn consumer(connection: &Connection, topics: &Topics) -> Result<BaseConsumer<Reporter>, Error> {
    let config = connection.consumer_config(&format!("{}-reader", topics.app()), Isolation::Uncommitted);
    connection.client("follow the log", &config, connection.reporter("follower"))
}

/// The time in whole milliseconds, rounded up: the client waits for whole ones only, and asks again and
/// again, without a pause, for the rest.
fn whole_ms(time: Duration) -> Duration {
    Duration::from_millis(time.as_micros().div_ceil(1_000) as u64)
}

/// Whether a topic is not there, be it that a broker that has just started does not know it yet.
fn is_unknown(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownPartition))
}

impl std::fmt::Debug for KafkaFollower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaFollower")
            .field("app", &self.topics.app())
            .field("followed", &self.followed)
            .finish_non_exhaustive()
    }
}
