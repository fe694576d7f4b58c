//! Egress into Kafka topics, exactly once: one [`GroupEgress`] for each shard group.
//!
//! All records that wait are written in one transaction, together with the *position*: up to which
//! epoch the records of each shard of the group stand. It is a record in the partition of the group in
//! `<app>.egress`. So a transaction that stands says so itself, and whoever opens the egress of the
//! group next reads the last position and is given what is behind it:
//!
//! ```text
//! topics           | records of epochs .. 7 | records of 8, 9 | records of 10 (aborted)
//! <app>.egress, g  | position {7}           | position {9}    | position {10} (aborted)
//! ```
//! The transactions of a group have one identity, `<app>-<group>`. Opening the egress fences all
//! who had it before and ends what they left open; only then is the position read. So between the
//! position that an egress has read and the next owner nobody else writes, and no owner writes
//! anything twice.
//!
//! Invariants:
//! - `taken` moves only to what a committed position says, and back to what stands if a fault shows that
//!   this is less.
//! - After a fault there is one way on: a new producer, which ends what is open, and then a look at what
//!   stands. Nothing is concluded from an error of a commit, and nothing from its success either: a broker
//!   that is being stopped may say that a transaction is committed and leave out marks of partitions that
//!   have no leader any more, for good (decision 0044). So what was committed is kept until the mark of a
//!   transaction behind it was seen, and is read back after a fault.
//! - A position names who wrote it. Whoever finds that another has written one since does not fence
//!   that owner, but is [fenced](EgressError::Fenced) itself.
//! - The records of a shard stand in the order of its epochs, in one partition of each topic: a shard
//!   writes to partition `shard mod partitions`. Records have no key of their own, and this rule keeps
//!   the order of each sender. Where partitions are added, the order begins anew with the next start.
//! - Each record has the header `statefn-id`: `shard/epoch/index`, with the index counted among the
//!   records of one egress in its epoch. It is the same at each repeat.
//!
//! [At least once](Delivery::AtLeastOnce) records are written without transactions, and the position
//! behind them: after a crash some come again, with the same identity.
//!
//! Deliberately absent: an order between shards, and group offsets.

mod error;
mod last;
mod partition;
mod position;
mod session;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    ops::Range,
    time::{Duration, Instant},
};

use statefn_core::{address::ShardId, limits::MESSAGE_BYTES_MAX, ports::egress::Egresses};

pub use self::{error::EgressError, session::ID_HEADER};
use self::{
    last::{Found, read_positions},
    partition::Partition,
    position::{GroupPosition, Owner},
    session::{Failure, Outgoing, Remedy, Session, id_of},
};
use crate::connection::{Connection, ProducerOptions};

/// About how many bytes one transaction has at most, and after faults at least; an epoch is never split.
const TRANSACTION_BYTES: Range<usize> = 256 * 1024..16 * 1024 * 1024;
/// About how many records one transaction has.
const TRANSACTION_RECORDS: usize = 50_000;
/// How often it is looked whether transactions have their marks.
const MARKS_LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How many bytes of transactions may be without marks: more than several of the largest have.
const UNMARKED_BYTES_MAX: usize = 4 * TRANSACTION_BYTES.end;
/// After how many positions the old ones are removed.
const TRIM_INTERVAL: u64 = 1_000;

/// What is promised of each record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// It stands once for those who read committed records.
    ExactlyOnce,
    /// It stands, and after a fault it may stand again with the same identity; it is there sooner.
    AtLeastOnce,
}

/// Whose records are written: the shards of a group of an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardGroup {
    /// The app.
    pub app: String,
    /// The number of the group.
    pub group: u32,
    /// All shards of the group.
    pub shards: Vec<ShardId>,
}

/// An egress and its topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The name of the egress.
    pub egress: String,
    /// Where its records go.
    pub topic: String,
}

/// How an egress writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressOptions {
    /// What is promised.
    pub delivery: Delivery,
    /// Whether the journals of the group know of records that an egress has taken: then a position
    /// must be there, and its absence is an error.
    pub has_position: bool,
    /// After how long the broker ends a transaction whose owner is silent.
    pub transaction_timeout: Duration,
    /// How long one step of a call waits for the broker before the call fails; the next one goes on.
    pub patience: Duration,
    /// How long the position of epochs without records waits, because only journals are trimmed by
    /// it; at least once it is how long each position waits.
    pub position_interval: Duration,
}

impl Default for EgressOptions {
    /// Exactly once, a position may be missing; 15 s, 10 s and 500 ms.
    fn default() -> Self {
        Self {
            delivery: Delivery::ExactlyOnce,
            has_position: false,
            transaction_timeout: Duration::from_secs(15),
            patience: Duration::from_secs(10),
            position_interval: Duration::from_millis(500),
        }
    }
}

/// What an output has written since it was opened; it counts what stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// Records.
    pub records: u64,
    /// Bytes of their values.
    pub bytes: u64,
}

/// The writer of all egresses of a shard group; see the module.
///
/// How it is written to stands with its port, [`Egresses`]; the place of an egress is the one in what
/// was opened.
pub struct GroupEgress {
    place: Place,
    options: EgressOptions,
    outputs: Vec<Topic>,
    shards: BTreeMap<ShardId, Reached>,
    waiting: VecDeque<Epoch>,
    /// The last transactions whose commit was tried, of which nobody knows whether they stand.
    attempts: Vec<Attempt>,
    /// When it was looked for their marks.
    looked_at: Instant,
    waiting_bytes: usize,
    /// About how many bytes the next transaction has: less after one that failed.
    transaction_bytes: usize,
    /// The producer; none where a new one has to be made before anything is written.
    session: Option<Session>,
    /// Whether the last write failed.
    has_failed: bool,
    is_fenced: bool,
    /// When the last position was written.
    position_at: Instant,
    trim: Trim,
    renewals: u64,
}

/// Where a group writes, and as whom.
struct Place {
    connection: Connection,
    group: ShardGroup,
    transactional_id: String,
    positions: Partition,
    owner: Owner,
}

struct Topic {
    name: String,
    partitions: u32,
    written: Written,
}

/// How far a shard is.
#[derive(Debug, Clone, Copy)]
struct Reached {
    /// A position says so.
    taken: u64,
    /// The records stand.
    written: u64,
    /// The records wait, or stand.
    ended: u64,
}

/// The records of an epoch that wait.
struct Epoch {
    shard: ShardId,
    epoch: u64,
    bytes: Vec<u8>,
    records: Vec<Record>,
}

/// A record of an epoch.
struct Record {
    output: usize,
    /// Its number among the records of its output in the epoch.
    index: u32,
    /// Where it stands in the bytes.
    value: Range<usize>,
}

/// A transaction whose commit was tried.
struct Attempt {
    epochs: Vec<Epoch>,
    /// What its position says.
    reached: BTreeMap<ShardId, u64>,
    /// The partitions that it wrote to, with a place that none of its records stands before.
    places: Vec<(Partition, u64)>,
    /// Whether the broker said that it is committed, and where its position is.
    said: Option<Option<u64>>,
}

/// What is removed of the positions.
#[derive(Debug, Default)]
struct Trim {
    /// How many positions were written since the last time.
    written: u64,
    /// The offset of the last one.
    newest: Option<u64>,
}

impl GroupEgress {
    /// Takes over the egress of a group: fences who had it before, and reads up to where its records
    /// stand.
    ///
    /// It blocks for some requests; nothing is written but a position that says who writes now.
    ///
    /// # Errors
    /// [`EgressError::NoTopic`] and [`EgressError::Position`] stop the egress for good,
    /// [`EgressError::Fenced`] if another worker was quicker; else a broker does not answer, and
    /// opening it again may succeed.
    pub fn open(
        connection: &Connection,
        group: ShardGroup,
        outputs: &[Output],
        options: EgressOptions,
    ) -> Result<Self, EgressError> {
        let place = Place::new(connection, group);
        let session = place.session(&options)?;
        let outputs: Vec<Topic> =
            outputs.iter().map(|output| Topic::find(output, &session)).collect::<Result<_, _>>()?;
        place.clear(&session, &outputs)?;
        let found = place.read(&options, true)?;
        let shards = place.reached(&found, &options)?;
        let trim = Trim { written: found.last.as_ref().map_or(0, |last| last.offset - found.start), newest: None };
        let mut egress = Self {
            place,
            options,
            outputs,
            shards,
            waiting: VecDeque::new(),
            attempts: Vec::new(),
            looked_at: Instant::now(),
            waiting_bytes: 0,
            transaction_bytes: TRANSACTION_BYTES.end,
            session: Some(session),
            has_failed: false,
            is_fenced: false,
            position_at: Instant::now(),
            trim,
            renewals: 0,
        };
        match egress.write(0, true) {
            Ok(()) => Ok(egress),
            Err(failure) => Err(egress.place.error(failure)),
        }
    }

    /// Up to where the records of the shards of a group stand, at least; none where nothing was written.
    /// It fences nobody, so the one who has the egress may be further by the time this is known.
    ///
    /// # Errors
    /// As [`open`](Self::open), but that nobody is fenced.
    pub fn positions(
        connection: &Connection,
        group: ShardGroup,
        options: &EgressOptions,
    ) -> Result<BTreeMap<ShardId, u64>, EgressError> {
        Ok(Place::new(connection, group).read(options, false)?.highest)
    }

    /// The number of the group.
    #[must_use]
    pub fn group(&self) -> u32 {
        self.place.group.group
    }

    /// How many bytes wait for the next [`sync`](Egresses::sync).
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Whether an epoch has ended that is not taken.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.shards.values().any(|shard| shard.ended > shard.taken)
    }

    /// What the egress at this place has written since it was opened.
    ///
    /// # Panics
    /// If there is no such egress.
    #[must_use]
    pub fn written(&self, egress: usize) -> Written {
        let mut written = self.outputs[egress].written;
        let last = self.attempts.iter().filter(|attempt| attempt.said.is_some()).flat_map(|attempt| &attempt.epochs);
        last.for_each(|epoch| epoch.count_in(egress, &mut written));
        written
    }

    /// How often the producer was replaced after a fault.
    #[must_use]
    pub fn renewals(&self) -> u64 {
        self.renewals
    }

    /// Makes everything durable, also a position that would wait; for the end.
    ///
    /// # Errors
    /// As [`sync`](Egresses::sync).
    pub fn finish(&mut self) -> Result<(), EgressError> {
        self.write_all(true)
    }

    fn write_all(&mut self, is_last: bool) -> Result<(), EgressError> {
        let mut has_asked = false;
        while self.next(is_last).is_some() {
            self.renew()?;
            // A new producer may have found that what waited stands.
            let Some((epochs, with_position)) = self.next(is_last) else { break };
            let Err(failure) = self.write(epochs, with_position) else { continue };
            // If nobody else owns the group, the broker had only given up waiting for this owner.
            if failure.remedy != Remedy::AskWhoOwns || std::mem::replace(&mut has_asked, true) {
                return Err(self.place.error(failure));
            }
        }
        Ok(())
    }

    /// How many of the epochs that wait are to be written now, and whether with a position.
    fn next(&self, is_last: bool) -> Option<(usize, bool)> {
        let is_due = is_last || self.position_at.elapsed() >= self.options.position_interval;
        if self.waiting.is_empty() {
            return ((is_due || self.session.is_none()) && self.is_behind()).then_some((0, true));
        }
        let (mut epochs, mut bytes, mut records) = (0, 0, 0);
        for epoch in &self.waiting {
            bytes += epoch.bytes.len();
            records += epoch.records.len();
            if epochs > 0 && (bytes > self.transaction_bytes || records > TRANSACTION_RECORDS) {
                break;
            }
            epochs += 1;
        }
        Some((epochs, is_due || self.options.delivery == Delivery::ExactlyOnce))
    }

    /// Writes the first epochs that wait, in one transaction if there are transactions.
    fn write(&mut self, epochs: usize, with_position: bool) -> Result<(), Failure> {
        let reached = self.reached_with(epochs);
        let position = GroupPosition { owner: self.place.owner, group: self.group(), epochs: reached };
        let value = position.encode();
        let Partition { topic, number } = &self.place.positions;
        let outgoing = Outgoing { topic, partition: *number, id: None, value: &value };
        let session = self.session.as_ref().expect("a write follows a renewal");
        let records = self.waiting.range(..epochs).flat_map(|epoch| epoch.outgoing(&self.outputs));
        let written = session.write(records, with_position.then_some(&outgoing));
        if let Some(places) = session.take_places() {
            let said = written.as_ref().ok().copied();
            let epochs = self.waiting.drain(..epochs).collect();
            self.waiting_bytes = self.waiting.iter().map(|epoch| epoch.bytes.len()).sum();
            self.attempts.push(Attempt { epochs, reached: position.epochs.clone(), places, said });
        }
        match written {
            Ok(offset) => {
                self.has_failed = false;
                self.written_up_to(&position.epochs, with_position);
                self.transaction_bytes = (self.transaction_bytes * 2).min(TRANSACTION_BYTES.end);
                if with_position {
                    self.position_at = Instant::now();
                    self.trim_sometimes(offset);
                }
                self.look_for_marks();
                Ok(())
            }
            Err(failure) => {
                self.transaction_bytes = (self.transaction_bytes / 2).max(TRANSACTION_BYTES.start);
                // What fails again with a producer that seems good may go with another.
                if failure.remedy != Remedy::WriteAgain || std::mem::replace(&mut self.has_failed, true) {
                    self.session = None;
                }
                Err(failure)
            }
        }
    }

    /// Now and then forgets the transactions before one whose position has its mark: when that was written the
    /// partitions still had leaders. Where too many have none it is time for a look at what stands.
    fn look_for_marks(&mut self) {
        let Some(session) = self.session.as_ref().filter(|_| self.looked_at.elapsed() >= MARKS_LOOK_INTERVAL) else {
            return;
        };
        self.looked_at = Instant::now();
        // A broker that does not answer leaves everything as it is.
        let stable = session.stable_end(&self.place.positions).unwrap_or_default();
        let is_marked = |attempt: &Attempt| attempt.said.flatten().is_some_and(|position| position < stable);
        let proven = self.attempts.iter().rposition(is_marked).unwrap_or_default();
        for epoch in self.attempts.drain(..proven).flat_map(|attempt| attempt.epochs) {
            epoch.count(&mut self.outputs);
        }
        let bytes: usize =
            self.attempts.iter().flat_map(|attempt| &attempt.epochs).map(|epoch| epoch.bytes.len()).sum();
        if bytes > UNMARKED_BYTES_MAX {
            tracing::warn!(group = self.group(), bytes, "committed transactions have no marks: looking at what stands");
            self.session = None;
        }
    }

    /// Of each shard the epoch up to which its records stand, once the first epochs that wait do.
    fn reached_with(&self, epochs: usize) -> BTreeMap<ShardId, u64> {
        if epochs == self.waiting.len() {
            return self.shards.iter().map(|(shard, reached)| (*shard, reached.ended)).collect();
        }
        let mut reached: BTreeMap<_, _> =
            self.shards.iter().map(|(shard, reached)| (*shard, reached.written)).collect();
        reached.extend(self.waiting.range(..epochs).map(|epoch| (epoch.shard, epoch.epoch)));
        reached
    }

    /// Forgets the records that stand.
    fn written_up_to(&mut self, epochs: &BTreeMap<ShardId, u64>, with_position: bool) {
        for (shard, reached) in &mut self.shards {
            let epoch = epochs.get(shard).copied().unwrap_or_default();
            reached.written = reached.written.max(epoch);
            reached.ended = reached.ended.max(epoch);
            if with_position {
                reached.taken = reached.taken.max(epoch);
            }
        }
        let (shards, outputs, waiting_bytes) = (&self.shards, &mut self.outputs, &mut self.waiting_bytes);
        // Those of a transaction are gone already; without transactions they are still here.
        self.waiting.retain(|epoch| {
            let is_waiting = epoch.epoch > shards[&epoch.shard].written;
            if !is_waiting {
                *waiting_bytes -= epoch.bytes.len();
                epoch.count(outputs);
            }
            is_waiting
        });
    }

    /// Makes a new producer where the last one is of no more use, and learns what stands.
    fn renew(&mut self) -> Result<(), EgressError> {
        if self.is_fenced {
            return Err(self.place.fenced());
        }
        if self.session.as_ref().is_some_and(|session| !session.is_suspect()) {
            return Ok(());
        }
        self.session = None;
        if self.options.delivery == Delivery::AtLeastOnce {
            self.session = Some(self.place.session(&self.options)?);
        } else {
            // A new producer would fence the next owner, if there is one.
            let found = self.place.read(&self.options, false)?;
            self.check_owner(&found)?;
            let session = self.place.session(&self.options)?;
            self.place.clear(&session, &self.outputs)?;
            let found = self.place.read(&self.options, true)?;
            self.check_owner(&found)?;
            let standing = self.place.standing(&self.attempts, self.options.patience)?;
            self.take_back(&found, &standing);
            self.session = Some(session);
        }
        self.renewals += 1;
        tracing::info!(group = self.group(), "the egress of a shard group has a new producer after a fault");
        Ok(())
    }

    /// Lets the records of the last transactions wait again that do not stand, whatever the broker and the
    /// position say of them.
    fn take_back(&mut self, found: &Found, standing: &HashSet<(String, String)>) {
        let mut reached = found.highest.clone();
        let mut waiting = VecDeque::new();
        for Attempt { epochs, reached: attempted, .. } in std::mem::take(&mut self.attempts) {
            for (shard, epoch) in attempted {
                let known = reached.entry(shard).or_default();
                *known = epoch.max(*known);
            }
            for mut epoch in epochs {
                let records = std::mem::take(&mut epoch.records);
                let topic = |record: &Record| self.outputs[record.output].name.clone();
                let does_stand = |record: &Record| standing.contains(&(topic(record), epoch.id(record)));
                let (stand, missing) = records.into_iter().partition(does_stand);
                epoch.records = stand;
                epoch.count(&mut self.outputs);
                epoch.records = missing;
                if !epoch.records.is_empty() {
                    waiting.push_back(epoch);
                }
            }
        }
        for epoch in &waiting {
            let known = reached.entry(epoch.shard).or_default();
            *known = (*known).min(epoch.epoch - 1);
        }
        for (shard, state) in &mut self.shards {
            let position = found.highest.get(shard).copied().unwrap_or_default();
            state.written = reached.get(shard).copied().unwrap_or_default();
            state.taken = state.written.min(position);
            state.ended = state.ended.max(state.written);
        }
        waiting.append(&mut self.waiting);
        self.waiting = waiting;
        self.waiting_bytes = self.waiting.iter().map(|epoch| epoch.bytes.len()).sum();
    }

    fn check_owner(&mut self, found: &Found) -> Result<(), EgressError> {
        match &found.last {
            Some(last) if last.owner == self.place.owner => Ok(()),
            Some(_) => {
                self.is_fenced = true;
                Err(self.place.fenced())
            }
            None => Err(self.place.positions.damaged("is missing: it was removed while the app ran".to_owned())),
        }
    }

    /// Removes the positions before the last one, now and then.
    fn trim_sometimes(&mut self, offset: Option<u64>) {
        self.trim.newest = offset.or(self.trim.newest);
        self.trim.written += 1;
        let Some(newest) = self.trim.newest.filter(|_| self.trim.written >= TRIM_INTERVAL) else { return };
        self.trim.written = 0;
        if let Err(error) = self.place.positions.trim(&self.place.connection, newest, self.options.patience) {
            tracing::warn!("old positions stay for now: {error}");
        }
    }
}

impl Egresses for GroupEgress {
    type Error = EgressError;

    /// # Panics
    /// If the shard is not of this group, or there is no such egress.
    fn write_epoch<'a>(&mut self, shard: ShardId, epoch: u64, records: impl Iterator<Item = (usize, &'a [u8])>) {
        let reached = self.shards.get_mut(&shard).expect("the shard is of this group");
        if epoch <= reached.ended {
            return;
        }
        reached.ended = epoch;
        let mut waiting = Epoch { shard, epoch, bytes: Vec::new(), records: Vec::new() };
        let mut indexes = vec![0_u32; self.outputs.len()];
        for (output, record) in records {
            assert!(output < self.outputs.len(), "there is no egress {output}");
            let start = waiting.bytes.len();
            waiting.bytes.extend_from_slice(record);
            let index = indexes[output];
            indexes[output] += 1;
            waiting.records.push(Record { output, index, value: start..waiting.bytes.len() });
        }
        if !waiting.records.is_empty() {
            self.waiting_bytes += waiting.bytes.len();
            self.waiting.push_back(waiting);
        }
    }

    /// It blocks for a transaction, or for several where much waits. Epochs without records make
    /// none of their own before the position interval has passed. Also without news it is to be called
    /// now and then: what the client of the broker has to say is heard by it.
    ///
    /// # Errors
    /// [`EgressError::Fenced`] if another worker has taken over: this egress is of no more use. Else a
    /// broker does not answer, and another call goes on.
    fn sync(&mut self) -> Result<(), EgressError> {
        if self.is_fenced {
            return Err(self.place.fenced());
        }
        self.session.iter().for_each(Session::look);
        self.write_all(false)
    }

    fn taken(&self, shard: ShardId) -> u64 {
        self.shards.get(&shard).map_or(0, |reached| reached.taken)
    }

    fn ended(&self, shard: ShardId) -> u64 {
        self.shards.get(&shard).map_or(0, |reached| reached.ended)
    }
}

impl std::fmt::Debug for GroupEgress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let transactional_id = &self.place.transactional_id;
        f.debug_struct("GroupEgress")
            .field("transactional_id", transactional_id)
            .field("shards", &self.shards)
            .finish_non_exhaustive()
    }
}

impl Place {
    fn new(connection: &Connection, group: ShardGroup) -> Self {
        let transactional_id = format!("{}-{}", group.app, group.group);
        let positions = Partition { topic: format!("{}.egress", group.app), number: group.group };
        Self { connection: connection.clone(), group, transactional_id, positions, owner: fastrand::u128(..) }
    }

    fn session(&self, options: &EgressOptions) -> Result<Session, EgressError> {
        let is_transactional = options.delivery == Delivery::ExactlyOnce;
        let producer = ProducerOptions {
            // The client does not allow more: a record must not be sent again behind its transaction.
            message_timeout: options.transaction_timeout,
            record_bytes_max: MESSAGE_BYTES_MAX,
            transactional_id: is_transactional.then(|| self.transactional_id.clone()),
        };
        Session::open(&self.connection, &producer, options.transaction_timeout, options.patience)
            .map_err(|failure| self.error(failure))
    }

    /// Ends what owners of before may have left in the partitions that the group writes to.
    fn clear(&self, session: &Session, outputs: &[Topic]) -> Result<(), EgressError> {
        let of_topic = |topic: &Topic| {
            let partitions: BTreeSet<u32> = self.group.shards.iter().map(|shard| shard % topic.partitions).collect();
            let name = topic.name.clone();
            partitions.into_iter().map(move |partition| (name.clone(), partition))
        };
        let positions = (self.positions.topic.clone(), self.positions.number);
        let places: BTreeSet<(String, u32)> = outputs.iter().flat_map(of_topic).chain([positions]).collect();
        let records =
            places.iter().map(|(topic, partition)| Outgoing { topic, partition: *partition, id: None, value: &[] });
        session.clear(records).map_err(|failure| self.error(failure))
    }

    fn read(&self, options: &EgressOptions, is_complete: bool) -> Result<Found, EgressError> {
        let is_complete = is_complete && options.delivery == Delivery::ExactlyOnce;
        read_positions(&self.positions, &self.connection, options.patience, is_complete)
    }

    /// Topic and identity of the records that stand of what these transactions wrote, and of others.
    fn standing(&self, attempts: &[Attempt], patience: Duration) -> Result<HashSet<(String, String)>, EgressError> {
        let mut places = BTreeMap::<Partition, u64>::new();
        for (partition, from) in attempts.iter().flat_map(|attempt| &attempt.places) {
            let lowest = places.entry(partition.clone()).or_insert(*from);
            *lowest = (*from).min(*lowest);
        }
        let mut standing = HashSet::new();
        for (partition, from) in places {
            partition.read(&self.connection, patience, true, from, |message| {
                standing.extend(id_of(message).map(|id| (partition.topic.clone(), id)));
                Ok(())
            })?;
        }
        Ok(standing)
    }

    /// How far the shards are by the positions that were found.
    fn reached(&self, found: &Found, options: &EgressOptions) -> Result<BTreeMap<ShardId, Reached>, EgressError> {
        let damaged = |reason| Err(self.positions.damaged(reason));
        let mut shards = self.group.shards.clone();
        shards.sort_unstable();
        let Some(last) = &found.last else {
            return match (found.start, options.has_position) {
                (0, false) => Ok(shards.into_iter().map(|shard| (shard, Reached::at(0))).collect()),
                (0, true) => {
                    damaged("is missing, but the journals of the app say that records were written".to_owned())
                }
                (start, _) => damaged(format!("is missing: everything before offset {start} was removed")),
            };
        };
        let known: Vec<_> = found.highest.keys().copied().collect();
        if last.group != self.group.group || known != shards {
            let (group, own) = (last.group, self.group.group);
            return damaged(format!(
                "is of group {group} with the shards {known:?}, but this is group {own} with the shards {shards:?}: the number of shards is fixed when an app is created"
            ));
        }
        Ok(found.highest.iter().map(|(shard, epoch)| (*shard, Reached::at(*epoch))).collect())
    }

    fn error(&self, failure: Failure) -> EgressError {
        match failure.remedy {
            Remedy::AskWhoOwns => self.fenced(),
            Remedy::WriteAgain | Remedy::Renew => EgressError::Waits { doing: failure.doing, cause: failure.cause },
        }
    }

    fn fenced(&self) -> EgressError {
        EgressError::Fenced { group: self.group.group, transactional_id: self.transactional_id.clone() }
    }
}

impl Topic {
    fn find(output: &Output, session: &Session) -> Result<Self, EgressError> {
        let Output { egress, topic } = output;
        let partitions = session
            .partitions(topic)
            .map_err(|failure| EgressError::Waits { doing: failure.doing, cause: failure.cause })?;
        match partitions {
            Some(partitions) => Ok(Self { name: topic.clone(), partitions, written: Written::default() }),
            None => Err(EgressError::NoTopic { egress: egress.clone(), topic: topic.clone() }),
        }
    }
}

impl Reached {
    fn at(epoch: u64) -> Self {
        Self { taken: epoch, written: epoch, ended: epoch }
    }
}

impl Epoch {
    /// The records as they are sent.
    fn outgoing<'a>(&'a self, outputs: &'a [Topic]) -> impl Iterator<Item = Outgoing<'a>> {
        self.records.iter().map(move |record| {
            let topic = &outputs[record.output];
            Outgoing {
                topic: &topic.name,
                partition: self.shard % topic.partitions,
                id: Some(self.id(record)),
                value: &self.bytes[record.value.clone()],
            }
        })
    }

    /// The identity of one of its records among those of its output.
    fn id(&self, record: &Record) -> String {
        format!("{}/{}/{}", self.shard, self.epoch, record.index)
    }

    fn count(&self, outputs: &mut [Topic]) {
        for (output, topic) in outputs.iter_mut().enumerate() {
            self.count_in(output, &mut topic.written);
        }
    }

    fn count_in(&self, output: usize, written: &mut Written) {
        for record in self.records.iter().filter(|record| record.output == output) {
            written.records += 1;
            written.bytes += record.value.len() as u64;
        }
    }
}
