//! Many partitions of several ingresses, read by one consumer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::KafkaError,
};
use statefn_core::{
    ingress::{Batches, ErasedIngress},
    ports::ingress::{ReadLimit, Stretch},
    shard::frame::Position,
};

use super::{
    Format, Input, Start, TopicPartition, Topics,
    error::InputError,
    reading::{Reading, Rest, consumer, listen, offsets},
    topics::Numbering,
};
use crate::{
    connection::Connection,
    report::{Reporter, lock},
};

/// How long the client, or a partition, may have something before it is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Followed partitions are quiet for long; records that come are answered at once all the same.
const IDLE_WAIT: Duration = Duration::from_millis(500);

/// How long no partition must give anything before it is looked whether one has something.
const QUIET: Duration = Duration::from_secs(2);

/// An ingress, by its place, and one of its partitions, by its number.
type Key = (usize, u32);

/// Reads partitions of topics for one thread; see the module for positions and numbers.
pub struct KafkaFeed {
    // Dropped before their consumer.
    followed: BTreeMap<Key, Followed>,
    consumer: Arc<BaseConsumer<Reporter>>,
    connection: Connection,
    group: String,
    inputs: BTreeMap<usize, Known>,
    /// Those that were followed anew because they gave nothing, and have given nothing since.
    anew: BTreeSet<Key>,
    news: Arc<News>,
    /// Who was served last: the others come first.
    last: Key,
    /// When all were looked at.
    looked_at: Instant,
    /// When a partition gave something last, or it was looked whether one has something.
    quiet_since: Instant,
    patience: Duration,
}

/// An ingress and what is known of its topics.
struct Known {
    topics: Topics,
    format: Format,
    numbering: Numbering,
}

struct Followed {
    reading: Reading,
    is_resting: bool,
}

/// The partitions that may have records.
#[derive(Default)]
struct News {
    partitions: Mutex<BTreeSet<Key>>,
    arrived: Condvar,
}

impl KafkaFeed {
    /// Makes a consumer and finds the partitions of all inputs; none is read yet.
    ///
    /// `group` has the offsets that [`commit_for_lag`](Self::commit_for_lag) writes: no other consumer
    /// may be a member of it. `patience` is how long a question waits for its answer.
    ///
    /// # Errors
    /// If a topic is not there, is read by two inputs, or is not the one that was known, if a pattern
    /// cannot be read, or if the broker does not answer.
    pub fn open(
        connection: &Connection,
        group: &str,
        inputs: Vec<Input>,
        patience: Duration,
    ) -> Result<Self, InputError> {
        inputs.iter().try_for_each(|input| input.topics.check())?;
        let known = |Input { ingress, topics, format, known }| {
            (ingress, Known { topics, format, numbering: Numbering::new(known) })
        };
        let mut feed = Self {
            followed: BTreeMap::new(),
            consumer: consumer(connection, group, IDLE_WAIT)?,
            connection: connection.clone(),
            group: group.to_owned(),
            anew: BTreeSet::new(),
            inputs: inputs.into_iter().map(known).collect(),
            news: Arc::default(),
            last: (0, 0),
            looked_at: Instant::now(),
            quiet_since: Instant::now(),
            patience,
        };
        feed.discover()?;
        Ok(feed)
    }

    /// Asks for the topics again; returns whether there are new partitions.
    ///
    /// # Errors
    /// As [`open`](Self::open); what was known stays.
    pub fn discover(&mut self) -> Result<bool, InputError> {
        let mut topics = BTreeSet::new();
        let mut is_new = false;
        for known in self.inputs.values_mut() {
            let found = known.topics.find(&self.consumer, self.patience)?;
            if let Some(topic) = found.keys().find(|topic| topics.contains(*topic)) {
                return Err(InputError::TopicTwice { topic: topic.clone() });
            }
            is_new |= known.numbering.extend(&found)?;
            topics.extend(found.into_keys());
        }
        Ok(is_new)
    }

    /// The partitions of an ingress, each at its number.
    ///
    /// # Panics
    /// If the feed does not have the ingress.
    #[must_use]
    pub fn partitions(&self, ingress: usize) -> &[TopicPartition] {
        self.inputs[&ingress].numbering.partitions()
    }

    /// Where a partition begins that was never read.
    ///
    /// # Errors
    /// If the broker does not answer.
    ///
    /// # Panics
    /// If there is no such partition.
    pub fn resolve(&self, ingress: usize, partition: u32, start: Start) -> Result<Position, InputError> {
        let place = self.place(ingress, partition);
        let (first, end) = offsets(&self.consumer, place, self.patience)?;
        let offset = match start {
            Start::Earliest => first,
            Start::Latest => end,
            Start::At(time) => self.offset_at(place, time.0)?.unwrap_or(end),
        };
        Ok(Position { offset, ..Position::default() })
    }

    /// The offset behind everything that is decided by now, where a bounded input ends.
    ///
    /// # Errors
    /// If the broker does not answer.
    ///
    /// # Panics
    /// If there is no such partition.
    pub fn end(&self, ingress: usize, partition: u32) -> Result<u64, InputError> {
        offsets(&self.consumer, self.place(ingress, partition), self.patience).map(|(_, end)| end)
    }

    /// Follows a partition from a position on, also one that is followed already; it ends at `until`,
    /// or never.
    ///
    /// # Errors
    /// If the client does not take it.
    ///
    /// # Panics
    /// If there is no such partition.
    pub fn follow(
        &mut self,
        ingress: usize,
        partition: u32,
        from: Position,
        until: Option<u64>,
    ) -> Result<(), InputError> {
        let key = (ingress, partition);
        self.leave(ingress, partition);
        let (place, format) = (self.place(ingress, partition).clone(), self.inputs[&ingress].format);
        let news = Arc::clone(&self.news);
        let bounds = (from, until);
        let reading = Reading::begin(&self.consumer, place, format, bounds, self.patience, move || news.put(key))?;
        self.followed.insert(key, Followed { reading, is_resting: false });
        // What ends where it begins has no news.
        self.news.put(key);
        Ok(())
    }

    /// Follows a partition no more.
    pub fn leave(&mut self, ingress: usize, partition: u32) {
        self.followed.remove(&(ingress, partition));
        self.anew.remove(&(ingress, partition));
    }

    /// Lets a partition that is followed rest, or go on.
    pub fn rest(&mut self, ingress: usize, partition: u32, is_resting: bool) {
        let key = (ingress, partition);
        let Some(followed) = self.followed.get_mut(&key) else { return };
        if std::mem::replace(&mut followed.is_resting, is_resting) && !is_resting {
            self.news.put(key);
        }
    }

    /// The position of a partition that is followed.
    #[must_use]
    pub fn position(&self, ingress: usize, partition: u32) -> Option<Position> {
        self.followed.get(&(ingress, partition)).map(|followed| followed.reading.position())
    }

    /// Reads the next records of one partition and routes them into the batches, after waiting for
    /// them for at most so long. None if there were none.
    ///
    /// A stretch with `to.is_ended` may be empty and is the last of its partition. `ingresses` are
    /// those of the program, by their places.
    ///
    /// # Errors
    /// If a partition cannot be read on; everything before that place was handed out. The error is
    /// told once: that one is not read until it is followed again, and the others go on.
    pub fn next(
        &mut self,
        patience: Duration,
        ingresses: &[Arc<dyn ErasedIngress>],
        batches: &mut Batches,
        limit: ReadLimit,
    ) -> Result<Option<(usize, u32, Stretch)>, InputError> {
        let begun = Instant::now();
        loop {
            listen(&self.consumer)?;
            self.look_at_all_sometimes();
            while let Some(key) = self.news.next(self.last) {
                if let Some(stretch) = self.take(key, ingresses, batches, limit)? {
                    (self.last, self.quiet_since) = (key, Instant::now());
                    self.anew.remove(&key);
                    return Ok(Some((key.0, key.1, stretch)));
                }
            }
            let left = patience.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return self.wake().map(|()| None);
            }
            self.news.wait(left.min(LOOK));
        }
    }

    /// Follows partitions anew that have records and give none. A client may stop to fetch after its broker
    /// was away, or after partitions have come and gone: it was seen to for a minute, with nothing to hear.
    /// Where that does not help the client is replaced.
    fn wake(&mut self) -> Result<(), InputError> {
        if self.quiet_since.elapsed() < QUIET {
            return Ok(());
        }
        self.quiet_since = Instant::now();
        let awake = self.followed.iter().filter(|(_, followed)| !followed.is_resting);
        let places: Vec<_> = awake.map(|(key, followed)| (*key, followed.reading.bounds())).collect();
        let mut is_of_use = true;
        // A broker that does not answer is no news.
        let ends = |ingress: &usize| Some((*ingress, self.ends(*ingress).ok()?));
        let ends: BTreeMap<usize, Vec<u64>> = self.inputs.keys().filter_map(ends).collect();
        for ((ingress, partition), (position, until)) in places.into_iter().filter(|(_, (at, _))| !at.is_ended) {
            let end = ends.get(&ingress).and_then(|ends| ends.get(partition as usize)).copied().unwrap_or_default();
            if position.offset < until.map_or(end, |until| until.min(end)) {
                tracing::warn!(
                    target: "statefn::kafka",
                    "{} has records at {} and gives none: it is followed anew",
                    self.place(ingress, partition),
                    position.offset
                );
                is_of_use &= !self.anew.contains(&(ingress, partition));
                self.follow(ingress, partition, position, until)?;
                self.anew.insert((ingress, partition));
            }
        }
        if is_of_use { Ok(()) } else { self.renew() }
    }

    /// Follows everything with a new client, from where it is.
    ///
    /// # Errors
    /// If there can be no client, or it does not take a partition, which is not read until it is followed again.
    pub fn renew(&mut self) -> Result<(), InputError> {
        tracing::warn!(target: "statefn::kafka", "the reader of topics is replaced");
        self.consumer = consumer(&self.connection, &self.group, IDLE_WAIT)?;
        self.anew.clear();
        let places = self.followed.iter().map(|(key, followed)| (*key, followed.reading.bounds(), followed.is_resting));
        for ((ingress, partition), (position, until), is_resting) in places.collect::<Vec<_>>() {
            self.follow(ingress, partition, position, until)?;
            self.rest(ingress, partition, is_resting);
        }
        Ok(())
    }

    /// The first offsets that are kept of all partitions of an ingress, in their order, asked with one
    /// request for each broker.
    ///
    /// # Errors
    /// If a broker does not answer.
    ///
    /// # Panics
    /// If the feed does not have the ingress.
    pub fn begins(&self, ingress: usize) -> Result<Vec<u64>, InputError> {
        self.ask(ingress, Offset::Beginning, "begins")
    }

    /// The offsets behind everything that is decided by now, as [`begins`](Self::begins).
    ///
    /// # Errors
    /// If a broker does not answer.
    ///
    /// # Panics
    /// If the feed does not have the ingress.
    pub fn ends(&self, ingress: usize) -> Result<Vec<u64>, InputError> {
        self.ask(ingress, Offset::End, "ends")
    }

    /// A request for times takes such places as well, and is the one that takes many partitions.
    fn ask(&self, ingress: usize, which: Offset, verb: &str) -> Result<Vec<u64>, InputError> {
        let failed = |error: KafkaError| InputError::failed(format!("ask where each topic {verb}"), error);
        let places = self.partitions(ingress);
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let mut list = TopicPartitionList::with_capacity(places.len());
        for TopicPartition { topic, partition } in places {
            list.add_partition_offset(topic, *partition as i32, which).map_err(failed)?;
        }
        let found = self.consumer.offsets_for_times(list, self.patience).map_err(failed)?;
        let of = |place: &TopicPartition| {
            let found = found.find_partition(&place.topic, place.partition as i32).map(|found| found.offset());
            match found {
                Some(Offset::Offset(offset)) => Ok(u64::try_from(offset).unwrap_or_default()),
                found => Err(InputError::failed(format!("ask where {place} {verb}"), format!("it said {found:?}"))),
            }
        };
        places.iter().map(of).collect()
    }

    /// Writes positions as offsets of the group, which tools compare with the ends of topics. It does
    /// not wait for the broker; nothing reads them.
    ///
    /// # Errors
    /// If the client does not take them.
    ///
    /// # Panics
    /// If there is no such partition.
    pub fn commit_for_lag(&self, positions: &[(usize, u32, Position)]) -> Result<(), InputError> {
        let mut list = TopicPartitionList::new();
        let failed = |error: KafkaError| InputError::failed("commit offsets for lag tools", error);
        for (ingress, partition, position) in positions {
            let TopicPartition { topic, partition } = self.place(*ingress, *partition);
            let offset = Offset::Offset(position.offset as i64);
            list.add_partition_offset(topic, *partition as i32, offset).map_err(failed)?;
        }
        self.consumer.commit(&list, CommitMode::Async).map_err(failed)
    }

    /// Looks also where the client has told of no news: a queue that was not empty tells of none, and
    /// may hold what the client itself has thrown away since.
    fn look_at_all_sometimes(&mut self) {
        if self.looked_at.elapsed() >= LOOK {
            self.looked_at = Instant::now();
            self.followed.keys().for_each(|key| self.news.put(*key));
        }
    }

    fn take(
        &mut self,
        key: Key,
        ingresses: &[Arc<dyn ErasedIngress>],
        batches: &mut Batches,
        limit: ReadLimit,
    ) -> Result<Option<Stretch>, InputError> {
        let Some(followed) = self.followed.get_mut(&key).filter(|followed| !followed.is_resting) else {
            return Ok(None);
        };
        let was_ended = followed.reading.position().is_ended;
        let taken = followed.reading.take(&*ingresses[key.0], batches, limit, Duration::ZERO);
        if taken.is_err() {
            followed.is_resting = true;
        }
        let (stretch, rest) = taken?;
        if rest == Rest::Maybe && !stretch.to.is_ended {
            self.news.put(key);
        }
        let is_news = stretch.from < stretch.to.offset || stretch.to.is_ended && !was_ended;
        Ok(is_news.then_some(stretch))
    }

    fn offset_at(&self, place: &TopicPartition, time_ms: i64) -> Result<Option<u64>, InputError> {
        let failed = |error: KafkaError| InputError::failed(format!("ask where {place} is at time {time_ms}"), error);
        let mut list = TopicPartitionList::new();
        let partition = place.partition as i32;
        list.add_partition_offset(&place.topic, partition, Offset::Offset(time_ms)).map_err(failed)?;
        let found = self.consumer.offsets_for_times(list, self.patience).map_err(failed)?;
        let found = found.find_partition(&place.topic, partition);
        match found.map(|found| (found.error(), found.offset())) {
            Some((Err(error), _)) => Err(failed(error)),
            Some((Ok(()), Offset::Offset(offset))) => Ok(u64::try_from(offset).ok()),
            _ => Ok(None),
        }
    }

    fn place(&self, ingress: usize, partition: u32) -> &TopicPartition {
        &self.partitions(ingress)[partition as usize]
    }
}

impl News {
    fn put(&self, key: Key) {
        lock(&self.partitions).insert(key);
        self.arrived.notify_one();
    }

    /// Takes out a partition: the next one behind `last`, in a circle.
    fn next(&self, last: Key) -> Option<Key> {
        let mut partitions = lock(&self.partitions);
        let behind = (last.0, last.1.saturating_add(1));
        let next = partitions.range(behind..).next().or_else(|| partitions.first()).copied()?;
        partitions.remove(&next);
        Some(next)
    }

    fn wait(&self, at_most: Duration) {
        let partitions = lock(&self.partitions);
        // Whether it timed out does not matter: the caller looks.
        let waited = self.arrived.wait_timeout_while(partitions, at_most, |partitions| partitions.is_empty());
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl std::fmt::Debug for KafkaFeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaFeed").field("followed", &self.followed.keys()).finish_non_exhaustive()
    }
}
