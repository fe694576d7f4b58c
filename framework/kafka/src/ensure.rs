//! Makes the topics of an app, and refuses those that are not as the app needs them.
//!
//! Invariants: what stands is never changed; each difference is told with its topic, setting, value
//! and fix, all at once. Any number of workers may do this at the same time.
//!
//! Deliberately absent: repair. A setting that is unsafe may have cost records already, and somebody
//! has to know.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use futures_executor::block_on;
use rdkafka::{
    admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication},
    error::{KafkaError, RDKafkaErrorCode},
    types::RDKafkaRespErr,
};

use crate::{
    connection::{Connection, RECORD_OVERHEAD_BYTES},
    error::{Difference, Error},
    identity,
    report::Reporter,
    topics::Topics,
};

/// How long progress is kept, in milliseconds: a worker that starts needs what is repeated each second.
const PROGRESS_KEPT_MS: &str = "600000";
/// What is trimmed is given back segment by segment, and a shard has two topics of its own.
const SEGMENT_BYTES_MIN: usize = 64 << 20;
/// How long it is waited before the broker is asked again whether a new topic is there.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// What topics must be like, beyond what every app needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicOptions {
    /// The largest record, in bytes.
    pub record_bytes_max: usize,
    /// How many brokers have each partition, at least.
    pub replication: u32,
    /// How many of them must have a record before it counts, at least.
    pub min_insync_replicas: u32,
    /// How long all of it may take.
    pub limit: Duration,
}

impl TopicOptions {
    /// Three brokers of which two must have a record; records of at most `record_bytes_max` bytes; half
    /// a minute for all of it.
    #[must_use]
    pub fn new(record_bytes_max: usize) -> Self {
        Self { record_bytes_max, replication: 3, min_insync_replicas: 2, limit: Duration::from_secs(30) }
    }

    /// Sets how many brokers have each partition, and how many of them must have a record.
    #[must_use]
    pub fn replication(mut self, replication: u32, min_insync_replicas: u32) -> Self {
        (self.replication, self.min_insync_replicas) = (replication, min_insync_replicas);
        self
    }
}

/// A setting, which values are good, what is wanted and why, and the value that is right.
type Rule<'r> = (&'static str, &'r dyn Fn(&str) -> bool, String, String);

/// One topic as the app needs it.
struct Wanted<'a> {
    name: &'a str,
    partitions: u32,
    /// Others than one may be there already.
    is_count_free: bool,
    /// What it holds exists nowhere else.
    is_truth: bool,
    retention_ms: &'static str,
}

impl Topics {
    /// Makes the topics of the app that are missing, and makes sure that the others are as they must be.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Denied`], [`Error::Failed`], and [`Error::Topics`] with each
    /// difference.
    pub fn ensure(&self, connection: &Connection, options: &TopicOptions) -> Result<(), Error> {
        connection.check(options.limit)?;
        let admin = connection.admin()?;
        let work = Work { connection, topics: self, options, admin, started: Instant::now() };
        let wanted = self.wanted();
        let missing = work.missing(&wanted)?;
        let is_missing = |name: &str| missing.iter().any(|wanted| wanted.name == name);
        let is_known = !is_missing(self.ownership()) && identity::check(connection, self, work.left())?;
        if is_known {
            let removed: Vec<Difference> =
                missing.iter().filter(|wanted| wanted.is_truth).map(|wanted| removed(wanted)).collect();
            if !removed.is_empty() {
                return Err(Error::Topics(removed));
            }
        }
        work.create(&missing)?;
        work.verify(&wanted)?;
        if is_known { Ok(()) } else { identity::write(connection, self, work.left()) }
    }

    fn wanted(&self) -> [Wanted<'_>; 6] {
        let topic = |name, partitions, is_truth| Wanted {
            name,
            partitions,
            is_count_free: false,
            is_truth,
            retention_ms: "-1",
        };
        [
            topic(self.journal(), self.shards(), true),
            topic(self.mailbox(), self.shards(), false),
            topic(self.egress(), self.groups(), true),
            topic(self.ownership(), self.groups(), false),
            Wanted { is_count_free: true, ..topic(self.dead_letters(), 1, false) },
            Wanted { retention_ms: PROGRESS_KEPT_MS, ..topic(self.progress(), 1, false) },
        ]
    }
}

fn removed(wanted: &Wanted<'_>) -> Difference {
    Difference {
        topic: wanted.name.to_owned(),
        setting: "the topic",
        found: "missing".to_owned(),
        wanted: "the app has had it, and what it held is nowhere else".to_owned(),
        fix: "restore it, or remove all topics of the app to begin anew".to_owned(),
    }
}

struct Work<'a> {
    connection: &'a Connection,
    topics: &'a Topics,
    options: &'a TopicOptions,
    admin: AdminClient<Reporter>,
    started: Instant,
}

/// What is found of a topic.
struct Found {
    partitions: u32,
    /// By partition, how many brokers have it; the fewest.
    replication: u32,
    has_leaders: bool,
}

impl Work<'_> {
    fn left(&self) -> Duration {
        self.options.limit.saturating_sub(self.started.elapsed())
    }

    fn admin_options(&self) -> AdminOptions {
        AdminOptions::new().request_timeout(Some(self.left())).operation_timeout(Some(self.left()))
    }

    fn missing<'w>(&self, wanted: &'w [Wanted<'w>]) -> Result<Vec<&'w Wanted<'w>>, Error> {
        let mut missing = Vec::new();
        for topic in wanted {
            if self.find(topic.name)?.is_none() {
                missing.push(topic);
            }
        }
        Ok(missing)
    }

    /// Asks for a topic; none if it is not there.
    fn find(&self, topic: &str) -> Result<Option<Found>, Error> {
        let failed = |error: &KafkaError| self.connection.failed(&format!("describe the topic `{topic}`"), error);
        let metadata = self.admin.inner().fetch_metadata(Some(topic), self.left()).map_err(|error| failed(&error))?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
        match found.error() {
            Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => return Ok(None),
            None | Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE) => {}
            Some(error) => return Err(failed(&KafkaError::MetadataFetch(error.into()))),
        }
        let partitions = found.partitions();
        Ok(Some(Found {
            partitions: partitions.len() as u32,
            replication: partitions.iter().map(|partition| partition.replicas().len() as u32).min().unwrap_or(0),
            has_leaders: !partitions.is_empty() && partitions.iter().all(|partition| partition.leader() >= 0),
        }))
    }

    /// Makes topics, and waits until all brokers that are asked know them.
    fn create(&self, missing: &[&Wanted<'_>]) -> Result<(), Error> {
        if missing.is_empty() {
            return Ok(());
        }
        let message_bytes = self.message_bytes().to_string();
        let segment_bytes = SEGMENT_BYTES_MIN.max(2 * self.message_bytes()).to_string();
        let min_insync = self.options.min_insync_replicas.to_string();
        let new = missing.iter().map(|wanted| {
            let replication = TopicReplication::Fixed(self.options.replication as i32);
            let topic = NewTopic::new(wanted.name, wanted.partitions as i32, replication)
                .set("cleanup.policy", "delete")
                .set("retention.ms", wanted.retention_ms)
                .set("retention.bytes", "-1")
                .set("max.message.bytes", &message_bytes)
                .set("segment.bytes", &segment_bytes)
                .set("min.insync.replicas", &min_insync)
                .set("unclean.leader.election.enable", "false");
            // Only whole segments are forgotten.
            if wanted.retention_ms == "-1" { topic } else { topic.set("segment.ms", wanted.retention_ms) }
        });
        let new: Vec<NewTopic<'_>> = new.collect();
        let doing = |name: &str| format!("create the topic `{name}`");
        let results = block_on(self.admin.create_topics(&new, &self.admin_options()));
        let results = results.map_err(|error| self.connection.failed(&doing(missing[0].name), &error))?;
        for result in results {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, RDKafkaErrorCode::InvalidReplicationFactor)) => return Err(self.too_few_brokers(&name)),
                Err((name, code)) => return Err(self.connection.failed(&doing(&name), &KafkaError::AdminOp(code))),
            }
        }
        missing.iter().try_for_each(|wanted| self.wait_for(wanted.name))
    }

    fn wait_for(&self, topic: &str) -> Result<(), Error> {
        while !self.find(topic)?.is_some_and(|found| found.has_leaders) {
            if self.left().is_zero() {
                let doing = format!("find a leader for each partition of the new topic `{topic}`");
                let error = KafkaError::AdminOp(RDKafkaErrorCode::LeaderNotAvailable);
                return Err(self.connection.failed(&doing, &error));
            }
            thread::sleep(LOOK_INTERVAL);
        }
        Ok(())
    }

    fn too_few_brokers(&self, topic: &str) -> Error {
        let wanted = self.options.replication;
        Error::Topics(vec![Difference {
            topic: topic.to_owned(),
            setting: "replication",
            found: "not possible".to_owned(),
            wanted: format!("settings say {wanted} brokers for each partition"),
            fix: format!("start {wanted} brokers, or set the replication to the number that there are"),
        }])
    }

    fn verify(&self, wanted: &[Wanted<'_>]) -> Result<(), Error> {
        let mut differences = Vec::new();
        let configs = self.configs(wanted)?;
        for topic in wanted {
            if let Some(found) = self.find(topic.name)? {
                differences.extend(self.compare(topic, &found));
            }
            if let Some(config) = configs.get(topic.name) {
                differences.extend(self.compare_config(topic, config));
            }
        }
        if differences.is_empty() { Ok(()) } else { Err(Error::Topics(differences)) }
    }

    /// The settings of topics, by name.
    fn configs<'w>(&self, wanted: &'w [Wanted<'w>]) -> Result<BTreeMap<&'w str, ConfigResource>, Error> {
        let doing = format!("describe the settings of the topics of the app `{}`", self.topics.app());
        let failed = |error: &KafkaError| self.connection.failed(&doing, error);
        let asked: Vec<ResourceSpecifier<'_>> =
            wanted.iter().map(|topic| ResourceSpecifier::Topic(topic.name)).collect();
        let results = block_on(self.admin.describe_configs(&asked, &self.admin_options()));
        let results = results.map_err(|error| failed(&error))?;
        let mut configs = BTreeMap::new();
        for (topic, result) in wanted.iter().zip(results) {
            configs.insert(topic.name, result.map_err(|code| failed(&KafkaError::AdminOp(code)))?);
        }
        Ok(configs)
    }

    fn compare(&self, topic: &Wanted<'_>, found: &Found) -> Vec<Difference> {
        let difference = |setting, found: u32, wanted: String, fix: String| Difference {
            topic: topic.name.to_owned(),
            setting,
            found: found.to_string(),
            wanted,
            fix,
        };
        let mut differences = Vec::new();
        if found.partitions != topic.partitions && !topic.is_count_free {
            let (app, shards) = (self.topics.app(), self.topics.shards());
            differences.push(difference(
                "the number of partitions",
                found.partitions,
                format!("the app `{app}` with {shards} shards has {}", topic.partitions),
                "set the number of shards back to what it was (it cannot change), or name a new app".to_owned(),
            ));
        }
        if found.replication < self.options.replication {
            differences.push(difference(
                "replication",
                found.replication,
                format!("settings say {}", self.options.replication),
                "have the partitions on more brokers, or set the replication to what there is".to_owned(),
            ));
        }
        differences
    }

    fn compare_config(&self, topic: &Wanted<'_>, config: &ConfigResource) -> Vec<Difference> {
        let number_at_least = |wanted: i64| move |value: &str| value.parse::<i64>().is_ok_and(|value| value >= wanted);
        let message_bytes = self.message_bytes() as i64;
        let min_insync = i64::from(self.options.min_insync_replicas);
        let record_bytes = self.options.record_bytes_max;
        let records = format!("records of {record_bytes} bytes need {message_bytes}");
        let insync = format!("settings say {min_insync}");
        let kept = match topic.retention_ms {
            "-1" => "nothing may be forgotten before the app says so: -1".to_owned(),
            milliseconds => format!("it is kept for {milliseconds} at least"),
        };
        let is_kept = |value: &str| match topic.retention_ms {
            "-1" => value == "-1",
            milliseconds => value == "-1" || number_at_least(milliseconds.parse().unwrap_or(i64::MAX))(value),
        };
        let is = |wanted: &'static str| move |value: &str| value == wanted;
        let all = "no record may be forgotten for its size: -1".to_owned();
        let rules: [Rule<'_>; 6] = [
            ("cleanup.policy", &is("delete"), "every record is needed: delete".to_owned(), "delete".to_owned()),
            ("retention.ms", &is_kept, kept, topic.retention_ms.to_owned()),
            ("retention.bytes", &is("-1"), all, "-1".to_owned()),
            ("max.message.bytes", &number_at_least(message_bytes), records, message_bytes.to_string()),
            ("min.insync.replicas", &number_at_least(min_insync), insync, min_insync.to_string()),
            (
                "unclean.leader.election.enable",
                &is("false"),
                "a leader without all records would lose some: false".to_owned(),
                "false".to_owned(),
            ),
        ];
        let differences = rules.into_iter().filter_map(|(setting, is_good, wanted, fix)| {
            let found = config.get(setting)?.value.clone()?;
            (!is_good(&found)).then(|| Difference {
                topic: topic.name.to_owned(),
                setting,
                found,
                wanted,
                fix: format!("`kafka-configs.sh --alter --topic {} --add-config {setting}={fix}`", topic.name),
            })
        });
        differences.collect()
    }

    /// The largest message on its way, in bytes.
    fn message_bytes(&self) -> usize {
        self.options.record_bytes_max + RECORD_OVERHEAD_BYTES
    }
}
