//! The membership: a consumer group shares out the partitions of `<app>.ownership`, which are the
//! shard groups.
//!
//! ```text
//! thread `membership`:  poll -> rebalance -> notes -> `moved`
//! engine:               next_news <- notes
//! ```
//!
//! Invariants: the thread does nothing but poll, so a rebalance waits for no shard; what a worker does
//! with its shards is up to the journal anyway. All shards of a group are told together, and those of
//! a lost assignment are released.
//!
//! Deliberately absent: offsets of the group, and records: nothing is fetched.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, KafkaResult},
    types::RDKafkaRespErr,
};
use statefn_core::{
    address::ShardId,
    ports::membership::{Membership, MemoryMembership, News},
};

use crate::{
    connection::{Connection, Isolation},
    error::Error,
    report::{Reporter, lock},
    topics::Topics,
};

/// How long the thread waits for the broker before it looks whether it should end.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How long a worker that ends waits until it has left the group.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);

/// How a worker takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembershipOptions {
    /// After how long without a sign of life others get what a worker has.
    pub session_timeout: Duration,
    /// How often a worker gives a sign of life, and learns of others; a third of the session at most.
    pub heartbeat_interval: Duration,
}

impl Default for MembershipOptions {
    /// A session of 10 seconds, with a heartbeat each 3 seconds.
    fn default() -> Self {
        Self { session_timeout: Duration::from_secs(10), heartbeat_interval: Duration::from_secs(3) }
    }
}

/// Who is told that there is news.
pub type Moved = Box<dyn Fn() + Send + Sync>;

/// What one worker knows; see [`Membership`] for the contract. It leaves when it is dropped.
pub struct KafkaMembership {
    known: MemoryMembership,
    notes: Notes,
    shards: u32,
    is_ending: Arc<AtomicBool>,
    /// Tells that the thread has ended, by its own end.
    ended: Option<mpsc::Receiver<()>>,
}

/// Shards and whether the worker should own them, in order, from the thread to the engine.
type Notes = Arc<Mutex<Vec<(ShardId, bool)>>>;

impl KafkaMembership {
    /// Joins the workers of an app, whose topics must stand. `moved` is called, on a thread of its own,
    /// when there is news.
    ///
    /// # Errors
    /// [`Error::Property`] or [`Error::Failed`] if there can be no consumer.
    pub fn join(
        connection: &Connection,
        topics: &Arc<Topics>,
        options: &MembershipOptions,
        moved: Moved,
    ) -> Result<Self, Error> {
        let mut config = connection.consumer_config(topics.app(), Isolation::Uncommitted);
        config
            .set("group.protocol", "classic")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", options.session_timeout.as_millis().to_string())
            .set("heartbeat.interval.ms", options.heartbeat_interval.as_millis().to_string());
        let notes = Notes::default();
        let context = Context {
            reporter: connection.reporter("membership"),
            topics: Arc::clone(topics),
            notes: Arc::clone(&notes),
            moved,
        };
        let consumer: BaseConsumer<Context> = connection.client("join the workers", &config, context)?;
        let doing = format!("join the group `{}`", topics.app());
        let failed = |error: &KafkaError| connection.failed(&doing, error);
        consumer.subscribe(&[topics.ownership()]).map_err(|error| failed(&error))?;
        let is_ending = Arc::new(AtomicBool::new(false));
        let (end, ended) = mpsc::channel();
        let is_over = Arc::clone(&is_ending);
        let thread = thread::Builder::new().name("membership".to_owned()).spawn(move || {
            poll(&consumer, &is_over);
            // This leaves the group; what it does not give up in time the group takes by the session.
            drop(consumer);
            drop(end);
        });
        let (known, shards) = (MemoryMembership::default(), topics.shards());
        match thread {
            Ok(_) => Ok(Self { known, notes, shards, is_ending, ended: Some(ended) }),
            Err(error) => {
                Err(Error::Failed { brokers: connection.brokers().to_owned(), doing, cause: error.to_string() })
            }
        }
    }

    /// Leaves, so that others get its shards at once; everything is released. Waits a few seconds at
    /// most until the broker knows.
    pub fn leave(&mut self) {
        self.is_ending.store(true, Ordering::Relaxed);
        let Some(ended) = self.ended.take() else { return };
        if ended.recv_timeout(LEAVE_LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!(
                target: "statefn::kafka",
                "the broker does not answer to this worker's leaving; others get its shards when its session ends"
            );
        }
        self.take_notes();
        (0..self.shards).for_each(|shard| self.known.tell(shard, false));
    }

    fn take_notes(&mut self) {
        for (shard, is_named) in lock(&self.notes).drain(..) {
            self.known.tell(shard, is_named);
        }
    }
}

impl Membership for KafkaMembership {
    fn next_news(&mut self) -> Option<News> {
        // A thread that is late in leaving has nothing more to say.
        if self.ended.is_some() {
            self.take_notes();
        }
        self.known.next_news()
    }

    fn is_named(&self, shard: ShardId) -> bool {
        self.known.is_named(shard)
    }
}

impl Drop for KafkaMembership {
    fn drop(&mut self) {
        self.leave();
    }
}

fn poll(consumer: &BaseConsumer<Context>, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        // Errors are told by the context; nothing is fetched.
        drop(consumer.poll(POLL_INTERVAL));
    }
}

struct Context {
    reporter: Reporter,
    topics: Arc<Topics>,
    notes: Notes,
    moved: Moved,
}

impl Context {
    fn note(&self, partitions: &TopicPartitionList, is_named: bool) {
        let groups = partitions.elements().into_iter().filter_map(|found| u32::try_from(found.partition()).ok());
        let groups: Vec<u32> = groups.filter(|group| *group < self.topics.groups()).collect();
        if groups.is_empty() {
            return;
        }
        tracing::info!(target: "statefn::kafka", ?groups, is_named, "shard groups move");
        let shards = groups.into_iter().flat_map(|group| self.topics.shards_of(group));
        lock(&self.notes).extend(shards.map(|shard| (shard, is_named)));
        (self.moved)();
    }

    /// Takes what the group gives. The offset keeps the client from asking for one.
    fn take(&self, consumer: &BaseConsumer<Self>, partitions: &mut TopicPartitionList) -> KafkaResult<()> {
        partitions.set_all_offsets(Offset::Offset(0))?;
        consumer.incremental_assign(partitions)?;
        consumer.pause(partitions)
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.reporter.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.reporter.error(error, reason);
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let is_named = error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        let done = match is_named {
            true => self.take(consumer, partitions),
            false => consumer.incremental_unassign(partitions),
        };
        // A group that goes on without the client's consent is noted all the same.
        if let Err(error) = done {
            self.reporter.warn("rebalance", &format!("shard groups cannot be moved: {error}"));
        }
        self.note(partitions, is_named);
    }
}

impl fmt::Debug for KafkaMembership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaMembership").field("known", &self.known).finish_non_exhaustive()
    }
}
