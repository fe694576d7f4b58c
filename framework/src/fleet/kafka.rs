//! A worker's part of Kafka and of the object store, as the engine wants it.

use std::{
    collections::BTreeMap,
    io::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use statefn_core::{
    address::ShardId,
    ingress::{Batches, ErasedIngress},
    limits::{KEY_BYTES_MAX, MESSAGE_BYTES_MAX},
    ports::{
        egress::Egresses,
        ingress::{ReadLimit, Stretch},
        inspect,
        log::{AppendError, Log, Offset, Partition, ReadError, Record},
        membership::{Membership, News},
        shared::{Appender, Follower, SharedLog},
        snapshots::Snapshots,
    },
    program::Program,
    shard::{Emission, frame::Position},
};
use statefn_kafka::{
    AppenderOptions, Connection, GroupEgress, KafkaAppender, KafkaFeed, KafkaFollower, KafkaLog, KafkaMembership,
    MembershipOptions, TopicOptions, Topics,
    egress::{Delivery, EgressOptions, Output, ShardGroup},
    ingress::{Format, Input, Start, TopicPartition, Topics as InputTopics},
};
use statefn_runtime::engine::fleet::{self, Backend, EgressTrouble, Feed, Fleet, Member};
use statefn_snapshots::{ObjectSnapshots, Options as SnapshotOptions};

use super::topic_of;
use crate::{
    Error, Settings,
    settings::{DeliveryKind, EgressKind, KafkaSettings, Origins, StartKind, UntilKind},
};

/// The largest record of the log: a message that goes to another shard is not split.
const RECORD_BYTES_MAX: usize = MESSAGE_BYTES_MAX + KEY_BYTES_MAX + 64 * 1024;
/// Into records of how many bytes frames are split, and mail is gathered.
const PART_BYTES_MAX: usize = 1_000_000;
/// How long one call waits for the broker before it fails; who calls tries again.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a partition rests that could not be read.
const FEED_PAUSE: Duration = Duration::from_secs(1);

/// Where the records of an egress go.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// To the topic at this place.
    Topic(usize),
    Console,
    Nowhere,
}

/// See [`Backend`].
struct KafkaBackend {
    connection: Connection,
    topics: Arc<Topics>,
    appender: Arc<KafkaAppender>,
    snapshots: ObjectSnapshots,
    kafka: KafkaSettings,
    inputs: Vec<(String, StartKind, UntilKind)>,
    outputs: Vec<Output>,
    /// By the number of its name, the place of an egress.
    places: BTreeMap<u16, Place>,
}

/// Reaches the broker and the object store, and makes the topics of the app if they are not there.
pub(super) fn open(program: &Program, settings: &Settings, origins: &Origins, log: &str) -> Result<Fleet, Error> {
    let kafka = settings.kafka.filled();
    let worker = settings.worker.clone().unwrap_or_else(name_of_worker);
    let mut connection = Connection::parse("log", log).map_err(settings_error)?.client_id(&worker);
    for property in kafka.properties.iter().flat_map(|secret| secret.reveal().split(',')) {
        let Some((name, value)) = property.split_once('=') else {
            let fix = "it must be a list such as `security.protocol=SASL_SSL,sasl.username=bank`";
            return Err(origins.wrong(&["kafka", "properties"], "***", fix));
        };
        connection = connection.property(name.trim(), value.trim()).map_err(settings_error)?;
    }
    let shards = settings.shards();
    let topics = Arc::new(Topics::new(&program.app, shards).map_err(settings_error)?);
    let replication = (kafka.replication.unwrap_or(3), kafka.min_insync_replicas.unwrap_or(2));
    let options = TopicOptions::new(RECORD_BYTES_MAX).replication(replication.0, replication.1);
    topics.ensure(&connection, &options).map_err(settings_error)?;
    let snapshots = settings.snapshots.as_deref().unwrap_or_default();
    let snapshots = ObjectSnapshots::open(snapshots, &SnapshotOptions::default());
    let snapshots = snapshots.map_err(|error| Error::Settings(format!("`snapshots`: {error}")))?;
    let appender = AppenderOptions::new(RECORD_BYTES_MAX)
        .message_timeout(kafka.message_timeout.unwrap_or_default().max(Duration::from_millis(1)));
    let appender = KafkaAppender::new(&connection, &topics, &appender).map_err(settings_error)?;
    let (outputs, places) = outputs(program, settings);
    let backend = KafkaBackend {
        connection,
        topics,
        appender: Arc::new(appender),
        snapshots,
        inputs: program.ingresses.iter().map(|ingress| input(ingress.name, settings)).collect(),
        kafka,
        outputs,
        places,
    };
    Ok(Fleet::new(&worker, program, Arc::new(backend)))
}

fn settings_error(error: statefn_kafka::Error) -> Error {
    Error::Settings(error.to_string())
}

fn name_of_worker() -> String {
    let host = std::fs::read_to_string("/etc/hostname").ok();
    let host = host.map(|host| host.trim().to_owned()).filter(|host| !host.is_empty());
    format!("{}-{}", host.unwrap_or_else(|| "worker".into()), std::process::id())
}

fn input(name: &str, settings: &Settings) -> (String, StartKind, UntilKind) {
    let given = settings.ingress.get(name).cloned().unwrap_or_default();
    let start = given.start.unwrap_or(StartKind::Earliest);
    (given.topic.unwrap_or_default(), start, given.until.unwrap_or(UntilKind::Never))
}

fn outputs(program: &Program, settings: &Settings) -> (Vec<Output>, BTreeMap<u16, Place>) {
    let (mut outputs, mut places) = (Vec::new(), BTreeMap::new());
    for egress in program.egresses.keys() {
        let name = program.name(*egress);
        let to = settings.egress.get(name).and_then(|egress| egress.to).unwrap_or(EgressKind::Kafka);
        let place = match to {
            EgressKind::Console => Place::Console,
            EgressKind::Count => Place::Nowhere,
            EgressKind::Kafka | EgressKind::File | EgressKind::Webhook => {
                outputs.push(Output { egress: name.to_owned(), topic: topic_of(name, settings, program) });
                Place::Topic(outputs.len() - 1)
            }
        };
        places.insert(*egress, place);
    }
    (outputs, places)
}

impl KafkaBackend {
    fn egress_options(&self) -> EgressOptions {
        let delivery = match self.kafka.delivery {
            None | Some(DeliveryKind::ExactlyOnce) => Delivery::ExactlyOnce,
            Some(DeliveryKind::AtLeastOnce) => Delivery::AtLeastOnce,
        };
        EgressOptions { delivery, ..EgressOptions::default() }
    }

    fn group(&self, group: u32) -> ShardGroup {
        let shards = self.topics.shards_of(group).collect();
        ShardGroup { app: self.topics.app().to_owned(), group, shards }
    }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

impl Backend for KafkaBackend {
    fn log(&self) -> Result<Box<dyn SharedLog>, String> {
        let log = KafkaLog::new(&self.connection, &self.appender, PATIENCE).map_err(text)?;
        Ok(Box::new(SharedKafkaLog(log)))
    }

    fn appender(&self) -> Result<Arc<dyn Appender>, String> {
        Ok(Arc::<KafkaAppender>::clone(&self.appender))
    }

    fn follower(&self) -> Result<Box<dyn Follower>, String> {
        Ok(Box::new(KafkaFollower::new(&self.connection, &self.topics).map_err(text)?))
    }

    fn snapshots(&self) -> Result<Box<dyn Snapshots>, String> {
        Ok(Box::new(self.snapshots.clone()))
    }

    fn membership(&self, news: Box<dyn Fn() + Send + Sync>) -> Result<Box<dyn Member>, String> {
        let default = MembershipOptions::default();
        let options = MembershipOptions {
            session_timeout: self.kafka.session_timeout.unwrap_or(default.session_timeout),
            heartbeat_interval: self.kafka.heartbeat_interval.unwrap_or(default.heartbeat_interval),
        };
        let membership = KafkaMembership::join(&self.connection, &self.topics, &options, news).map_err(text)?;
        Ok(Box::new(KafkaMember(membership)))
    }

    fn egress_taken(&self, group: u32, _: &[ShardId]) -> Result<BTreeMap<ShardId, u64>, String> {
        GroupEgress::positions(&self.connection, self.group(group), &self.egress_options()).map_err(text)
    }

    fn egress(&self, group: u32, _: &[ShardId]) -> Result<Box<dyn fleet::GroupEgress>, String> {
        let egress = GroupEgress::open(&self.connection, self.group(group), &self.outputs, self.egress_options());
        Ok(Box::new(FleetEgress { topics: egress.map_err(text)?, places: self.places.clone() }))
    }

    fn feed(&self) -> Result<Option<Box<dyn Feed>>, String> {
        if self.inputs.is_empty() {
            return Ok(None);
        }
        let inputs = self.inputs.iter().enumerate().map(|(ingress, (topic, ..))| Input {
            ingress,
            topics: InputTopics::Named(vec![topic.clone()]),
            format: Format::Message,
            known: Vec::new(),
        });
        let group = format!("{}-input", self.topics.app());
        let feed = KafkaFeed::open(&self.connection, &group, inputs.collect(), PATIENCE).map_err(text)?;
        let bounds = self.inputs.iter().map(|(_, start, until)| (*start, *until)).collect();
        let (counts, known, at) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        Ok(Some(Box::new(TopicFeed { feed, bounds, counts, known, at, broken_at: None })))
    }

    fn record_bytes_max(&self) -> usize {
        PART_BYTES_MAX
    }
}

/// The log with the errors that its port has.
struct SharedKafkaLog(KafkaLog);

impl Log for SharedKafkaLog {
    fn append(&mut self, group: &[Record<'_>]) -> Result<Vec<Offset>, AppendError> {
        self.0.append(group)
    }

    fn read(
        &mut self,
        partition: Partition,
        from: Offset,
        each: &mut dyn FnMut(Offset, &[u8]),
    ) -> Result<(), ReadError> {
        self.0.read(partition, from, each)
    }

    fn start(&self, partition: Partition) -> Offset {
        self.0.start(partition)
    }

    fn end(&self, partition: Partition) -> Offset {
        self.0.end(partition)
    }

    fn trim(&mut self, partition: Partition, before: Offset) -> Result<(), String> {
        self.0.trim(partition, before)
    }
}

impl SharedLog for SharedKafkaLog {
    fn refresh(&mut self, partitions: &[Partition]) -> Result<(), String> {
        self.0.refresh(partitions).map_err(text)
    }

    fn ends(&mut self, partitions: &[Partition]) -> Result<Vec<Offset>, String> {
        self.0.ends(partitions).map_err(text)
    }
}

struct KafkaMember(KafkaMembership);

impl Membership for KafkaMember {
    fn next_news(&mut self) -> Option<News> {
        self.0.next_news()
    }

    fn is_named(&self, shard: ShardId) -> bool {
        self.0.is_named(shard)
    }
}

impl Member for KafkaMember {
    fn leave(&mut self) {
        self.0.leave();
    }
}

/// The egresses of a group: topics, and what has no position of its own.
struct FleetEgress {
    topics: GroupEgress,
    places: BTreeMap<u16, Place>,
}

impl fleet::GroupEgress for FleetEgress {
    fn write_epoch(&mut self, emission: &Emission) {
        let Emission { shard, epoch, frame, records } = emission;
        let (mut in_topics, mut lines) = (Vec::new(), Vec::new());
        for emitted in records {
            let record = emitted.record.of(frame);
            match self.places.get(&emitted.egress) {
                Some(Place::Topic(place)) => in_topics.push((*place, record)),
                Some(Place::Console) if *epoch > self.topics.ended(*shard) => {
                    lines.extend_from_slice(record);
                    lines.push(b'\n');
                }
                Some(Place::Console | Place::Nowhere) | None => {}
            }
        }
        // Nobody is left to be told of a console that is gone.
        let _ = std::io::stdout().lock().write_all(&lines);
        self.topics.write_epoch(*shard, *epoch, in_topics.into_iter());
    }

    fn sync(&mut self) -> Result<(), EgressTrouble> {
        self.topics.sync().map_err(|error| match error.is_fenced() {
            true => EgressTrouble::Fenced(error.to_string()),
            false => EgressTrouble::Later(error.to_string()),
        })
    }

    fn taken(&self, shard: ShardId) -> u64 {
        self.topics.taken(shard)
    }

    fn is_behind(&self) -> bool {
        self.topics.is_behind()
    }
}

/// The topics of all ingresses.
struct TopicFeed {
    feed: KafkaFeed,
    /// By ingress, where it begins and how far it goes.
    bounds: Vec<(StartKind, UntilKind)>,
    /// By ingress, how many partitions it had at first; empty before the first look.
    counts: Vec<u32>,
    /// By ingress and partition, where it begins and ends, as was found out when it was first asked for.
    known: BTreeMap<(usize, u32), (Position, Option<u64>)>,
    /// By ingress and partition that is followed, where it is.
    at: BTreeMap<(usize, u32), Position>,
    /// Since a partition could not be read.
    broken_at: Option<Instant>,
}

impl TopicFeed {
    fn known(&mut self, ingress: usize, partition: u32) -> Result<(Position, Option<u64>), String> {
        if let Some(known) = self.known.get(&(ingress, partition)) {
            return Ok(*known);
        }
        self.find_all(ingress);
        if let Some(known) = self.known.get(&(ingress, partition)) {
            return Ok(*known);
        }
        // Another partition has no leader now, or this one.
        let begin = self.feed.resolve(ingress, partition, Start::Earliest).map_err(text)?.offset;
        let end = self.feed.end(ingress, partition).map_err(text)?;
        Ok(self.note(ingress, partition, begin, end))
    }

    /// Finds out where all partitions of an ingress begin and end, with few requests, if the broker tells.
    fn find_all(&mut self, ingress: usize) {
        let (Ok(begins), Ok(ends)) = (self.feed.begins(ingress), self.feed.ends(ingress)) else { return };
        for ((partition, begin), end) in (0..).zip(begins).zip(ends) {
            self.note(ingress, partition, begin, end);
        }
    }

    /// Notes where a partition begins and ends for this app, unless that is known.
    fn note(&mut self, ingress: usize, partition: u32, begin: u64, end: u64) -> (Position, Option<u64>) {
        let (start, until) = self.bounds[ingress];
        // What stands in a partition that was added came after the app had begun.
        let is_added = self.counts.get(ingress).is_some_and(|count| partition >= *count);
        let is_latest = start == StartKind::Latest && !is_added;
        let start = Position { offset: if is_latest { end } else { begin }, ..Position::default() };
        let until = (until == UntilKind::Now).then_some(end);
        *self.known.entry((ingress, partition)).or_insert((start, until))
    }

    /// Reads all partitions on from where they are: one of them stands still after an error.
    fn mend(&mut self) -> Result<(), String> {
        if self.broken_at.is_none_or(|at| at.elapsed() < FEED_PAUSE) {
            return Ok(());
        }
        self.broken_at = Some(Instant::now());
        for ((ingress, partition), position) in &self.at {
            let until = self.known.get(&(*ingress, *partition)).and_then(|(_, until)| *until);
            self.feed.follow(*ingress, *partition, *position, until).map_err(text)?;
        }
        self.broken_at = None;
        Ok(())
    }
}

impl Feed for TopicFeed {
    fn partitions(&mut self) -> Result<Vec<u32>, String> {
        self.feed.discover().map_err(text)?;
        let found: Vec<u32> =
            (0..self.bounds.len()).map(|ingress| self.feed.partitions(ingress).len() as u32).collect();
        if self.counts.is_empty() {
            self.counts.clone_from(&found);
        }
        // An input that ends where it ended at the start has the partitions that it had then.
        let first_and_found = self.counts.iter().zip(found).zip(&self.bounds);
        Ok(first_and_found
            .map(|((first, found), (_, until))| if *until == UntilKind::Now { *first } else { found })
            .collect())
    }

    fn follow(&mut self, ingress: usize, partition: u32, from: Position) -> Result<Position, String> {
        let (start, until) = self.known(ingress, partition)?;
        let from = if from == Position::default() { start } else { from };
        self.feed.follow(ingress, partition, from, until).map_err(text)?;
        self.at.insert((ingress, partition), from);
        Ok(from)
    }

    fn leave(&mut self, ingress: usize, partition: u32) {
        self.at.remove(&(ingress, partition));
        self.feed.leave(ingress, partition);
    }

    fn ends(&mut self) -> Result<Vec<Vec<inspect::Partition>>, String> {
        let read: Vec<_> = self.at.iter().map(|((ingress, partition), at)| (*ingress, *partition, *at)).collect();
        self.feed.commit_for_lag(&read).map_err(text)?;
        let ends = |ingress: usize| {
            let ends = self.feed.ends(ingress).map_err(text)?;
            let places = self.feed.partitions(ingress).iter().zip(ends);
            let partition = |(place, end): (&TopicPartition, u64)| inspect::Partition {
                topic: Some((place.topic.clone(), place.partition)),
                end: Some(end),
                ..inspect::Partition::default()
            };
            Ok(places.map(partition).collect())
        };
        (0..self.bounds.len()).map(ends).collect()
    }

    fn rest(&mut self, ingress: usize, partition: u32, is_resting: bool) {
        self.feed.rest(ingress, partition, is_resting);
    }

    fn next(
        &mut self,
        patience: Duration,
        limit: ReadLimit,
        ingresses: &[Arc<dyn ErasedIngress>],
        batches: &mut Batches,
    ) -> Result<Option<(usize, u32, Stretch)>, String> {
        self.mend()?;
        let stretch = self.feed.next(patience, ingresses, batches, limit).map_err(|error| {
            self.broken_at.get_or_insert_with(Instant::now);
            error.to_string()
        })?;
        if let Some((ingress, partition, stretch)) = &stretch {
            self.at.insert((*ingress, *partition), stretch.to);
        }
        Ok(stretch)
    }
}
