//! Settings: where an app runs, reads and writes; plain values with documented defaults.
//!
//! They come from, each over the one before: the defaults; the app itself
//! ([`App::settings`](crate::App::settings)); the file `statefn.toml` or the one given by
//! `--settings`; the environment (`STATEFN_COMMIT_INTERVAL=10ms`); and the command line. Every app
//! lists them by `--help-settings`, and shows by its command `settings` which hold, and why.
//!
//! Invariant: the structures here are the one source of what there is; `table.rs` makes names, kinds,
//! help and docs of them, `value.rs` reads values, `layers.rs` puts the layers over each other,
//! `show.rs` tells people.

mod layers;
mod show;
mod table;
mod value;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize, Serializer};
use statefn_core::{
    egress::DEAD_LETTERS,
    limits::{ANSWERS_KEPT_MS, PARKED_KEY_BYTES_MAX, PARKED_SHARD_BYTES_MAX, SNAPSHOT_TAIL_BYTES_MIN},
    shard::{Overflow, ParkedLimits},
};
use statefn_runtime::{egress::WebhookSpec, ingress::Format};

pub(crate) use self::table::Row;
use self::table::{Field, table};
pub use self::{
    layers::OTHER_VARIABLES,
    value::{Secret, Url},
};
pub(crate) use self::{
    layers::{Layers, Names, Origin, Origins, written},
    show::{document, effective, help, lines, rows},
};
use crate::Error;

table! {
    /// Where an app runs, reads and writes.
    ///
    /// ```
    /// use statefn::Settings;
    /// let settings = Settings::from_toml(r#"
    ///     data = "data/bank"
    ///     shards = 16
    ///     commit_interval = "10ms"
    ///     [ingress.transfers]
    ///     path = "transfers.jsonl"
    ///     [egress.statements]
    ///     path = "out/statements.jsonl"
    /// "#).unwrap();
    /// assert_eq!(settings.shards(), 16);
    /// let error = Settings::from_toml("shard = 16").unwrap_err();
    /// assert!(error.to_string().contains("there is no setting `shard`, from line 1: the nearest is `shards`"));
    /// ```
    pub struct Settings {
        /// The directory for journal, snapshots and marks; without it, or a `log`, nothing survives a stop.
        pub data: Option<PathBuf> = "none",
        /// The log of a fleet, in place of `data`: any number of processes with the same one share the app's shards. Such as `kafka://a:9092,b:9092`; it needs the feature `fleet`.
        pub log: Option<String> = "none",
        /// Where a fleet keeps its snapshots: `s3://bucket/app`, or `file:///directory` that all its processes see.
        pub snapshots: Option<String> = "none; a fleet needs one",
        /// The name of this process in its fleet, for people.
        pub worker: Option<String> = "the host's name and the process's number",
        /// How many shards the app has, 1 to 4,096. Fixed once there are data.
        pub shards: Option<u32> = "`64`",
        /// How many threads run the shards.
        pub threads: Option<usize> = "one for each core",
        /// The shortest time between two commits; 0 commits as soon as possible.
        pub commit_interval: Option<Duration> = "`0s`",
        /// How much the journal of a shard grows before its next snapshot, at least.
        pub snapshot_tail_bytes: Option<u64> = "`1MiB`",
        /// How large a segment file of the log is.
        pub segment_bytes: Option<u64> = "`64MiB`",
        /// How long one call of a handler may take; then the process is ended, as nothing else can stop it.
        pub handler_time_limit: Option<Duration> = "`30s`",
        /// How far egresses that cannot be written may be behind; then all input waits for them.
        pub egress_backlog_bytes_max: Option<u64> = "`256MiB`",
        /// How much parked keys may wait with.
        pub parked: ParkedSettings,
        /// How a fleet uses Kafka.
        pub kafka: KafkaSettings,
        /// Where it listens for HTTP, and what it takes.
        pub http: HttpSettings,
        /// Where it listens for those who look after it.
        pub admin: AdminSettings,
        /// Where traces go, and which.
        pub trace: TraceSettings,
        /// Where each ingress reads, by its name; a generator needs none.
        pub ingress: BTreeMap<String, IngressSettings>,
        /// Where each egress writes, by its name.
        pub egress: BTreeMap<String, EgressSettings>,
    }
}

table! {
    /// Where an app listens for HTTP, and what it takes.
    ///
    /// ```
    /// use statefn::Settings;
    /// let settings = Settings::from_toml("[http]\nlisten = \"127.0.0.1:8080\"\nbody_time_max = \"2s\"").unwrap();
    /// assert_eq!(settings.http.body_time_max, Some(std::time::Duration::from_secs(2)));
    /// ```
    pub struct HttpSettings {
        /// The address where the app listens for HTTP; port 0 is one that is free. Without it no server is started.
        pub listen: Option<SocketAddr> = "none",
        /// Where the other workers of a fleet reach this one, such as `http://10.0.0.7:8080`.
        pub advertised_url: Option<Url> = "where it listens",
        /// The largest body, up to 4 MiB.
        pub body_bytes_max: Option<u64> = "`1MiB`",
        /// How many connections may be open at a time.
        pub connections_max: Option<usize> = "`10000`",
        /// How long the head of a request may take to come.
        pub head_time_max: Option<Duration> = "`5s`",
        /// How long a body may take to come.
        pub body_time_max: Option<Duration> = "`10s`",
        /// How long an idle connection is kept.
        pub idle_time_max: Option<Duration> = "`30s`",
        /// How long a client waits for an answer before it is told that the outcome is unknown.
        pub answer_time_max: Option<Duration> = "`30s`",
        /// How long answers are remembered for idempotency keys, up to a twelfth longer.
        pub answers_kept: Option<Duration> = "`1h`",
        /// How many threads serve connections.
        pub threads: Option<usize> = "`1`",
        /// The field of a JSON body that states when its message happens; the header `Event-Time` goes before.
        pub event_time_field: Option<String> = "none: without the header a message happens now",
    }
}

table! {
    /// Where an app listens for those who look after it: the admin interface and the metrics.
    ///
    /// ```
    /// use statefn::{Settings, settings::Secret};
    /// let settings = Settings::from_toml("[admin]\nlisten = \"0.0.0.0:9090\"\ntoken = \"open sesame\"").unwrap();
    /// assert_eq!(settings.admin.token, Some(Secret::new("open sesame")));
    /// ```
    pub struct AdminSettings {
        /// The address of the admin interface and the metrics; port 0 is one that is free. Without it there is none.
        pub listen: Option<SocketAddr> = "none",
        /// What every request to it has to show. Without it `listen` must be a loopback address.
        pub token: Option<Secret> = "none",
    }
}

table! {
    /// Where traces go, and which requests begin one.
    ///
    /// ```
    /// use statefn::Settings;
    /// let settings = Settings::from_toml("[trace]\nendpoint = \"http://127.0.0.1:4318/v1/traces\"\nsample = 0.01").unwrap();
    /// assert_eq!(settings.trace.sample, Some(0.01));
    /// ```
    pub struct TraceSettings {
        /// Where spans are posted to, as OTLP has them in protobuf. Without it none are.
        pub endpoint: Option<Url> = "none",
        /// The share of HTTP requests without a `traceparent` that begin a trace, 0 to 1; with one, it decides.
        pub sample: Option<f64> = "`0`",
        /// Headers for the receiver, such as `x-api-key=abc,x-team=shop`.
        pub headers: Option<Secret> = "none",
    }
}

table! {
    /// How a fleet uses Kafka.
    ///
    /// ```
    /// use statefn::Settings;
    /// let settings = Settings::from_toml("log = \"kafka://a:9092\"\n[kafka]\nsession_timeout = \"6s\"").unwrap();
    /// assert_eq!(settings.kafka.session_timeout, Some(std::time::Duration::from_secs(6)));
    /// ```
    pub struct KafkaSettings {
        /// How many brokers have each partition of the app's topics, at least.
        pub replication: Option<u32> = "`3`",
        /// How many of them must have a record before it counts, at least.
        pub min_insync_replicas: Option<u32> = "`2`",
        /// After how long without an answer the outcome of an append is unknown, and its shard is taken over again.
        pub message_timeout: Option<Duration> = "`10s`",
        /// After how long without a sign of life other workers get the shards of one.
        pub session_timeout: Option<Duration> = "`10s`",
        /// How often a worker gives a sign of life; a third of the session at most.
        pub heartbeat_interval: Option<Duration> = "`3s`",
        /// What is promised of records in topics: once for those who read committed ones, or sooner and maybe again.
        pub delivery: Option<DeliveryKind> = "`exactly-once`",
        /// More settings of librdkafka, such as `security.protocol=SASL_SSL,sasl.username=bank`; TLS and SASL need the feature `fleet-tls`.
        pub properties: Option<Secret> = "none",
    }
}

/// What is promised of records that go into topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeliveryKind {
    /// Each stands once for those who read committed records.
    ExactlyOnce,
    /// Each stands, and after a fault it may stand again, with the same header `statefn-id`.
    AtLeastOnce,
}

/// Where an ingress begins in a topic that it has never read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StartKind {
    /// With the first record that is kept.
    Earliest,
    /// Behind all records that are there.
    Latest,
}

/// How far an ingress reads a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UntilKind {
    /// To what is there when the process starts; then the app ends.
    Now,
    /// On and on.
    Never,
}

impl KafkaSettings {
    /// What holds, what nobody has said included.
    pub(crate) fn filled(&self) -> Self {
        let seconds = |given: Option<Duration>, default| given.or(Some(Duration::from_secs(default)));
        Self {
            replication: self.replication.or(Some(3)),
            min_insync_replicas: self.min_insync_replicas.or(Some(2)),
            message_timeout: seconds(self.message_timeout, 10),
            session_timeout: seconds(self.session_timeout, 10),
            heartbeat_interval: seconds(self.heartbeat_interval, 3),
            delivery: self.delivery.or(Some(DeliveryKind::ExactlyOnce)),
            properties: self.properties.clone(),
        }
    }
}

impl TraceSettings {
    /// What holds, what nobody has said included.
    pub(crate) fn filled(&self) -> Self {
        Self { sample: self.sample.or(Some(0.0)), ..self.clone() }
    }
}

table! {
    /// How much parked keys may wait with, and what becomes of a call behind that.
    pub struct ParkedSettings {
        /// How many bytes of calls one parked key may wait with.
        pub key_bytes_max: Option<u64> = "`16MiB`",
        /// How many bytes of calls all parked keys of a shard may wait with.
        pub shard_bytes_max: Option<u64> = "`64MiB`",
        /// What becomes of a call behind that: a dead letter, or it waits and all input of its thread does too.
        pub overflow: Option<OverflowKind> = "`dead-letter`",
    }
}

/// What becomes of a call that finds the queue of its parked key full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OverflowKind {
    /// It becomes a dead letter.
    DeadLetter,
    /// It waits, and no input is taken until the key was retried or skipped.
    StopIngress,
}

impl ParkedSettings {
    /// What holds, what nobody has said included.
    pub(crate) fn filled(&self) -> Self {
        Self {
            key_bytes_max: self.key_bytes_max.or(Some(PARKED_KEY_BYTES_MAX as u64)),
            shard_bytes_max: self.shard_bytes_max.or(Some(PARKED_SHARD_BYTES_MAX as u64)),
            overflow: self.overflow.or(Some(OverflowKind::DeadLetter)),
        }
    }

    pub(crate) fn limits(&self) -> ParkedLimits {
        let bytes = |given: Option<u64>, default| given.map_or(default, |bytes| bytes.try_into().unwrap_or(usize::MAX));
        ParkedLimits {
            key_bytes_max: bytes(self.key_bytes_max, PARKED_KEY_BYTES_MAX),
            shard_bytes_max: bytes(self.shard_bytes_max, PARKED_SHARD_BYTES_MAX),
            overflow: match self.overflow {
                None | Some(OverflowKind::DeadLetter) => Overflow::DeadLetter,
                Some(OverflowKind::StopIngress) => Overflow::StopIngress,
            },
        }
    }
}

table! {
    /// Where an ingress reads.
    pub struct IngressSettings {
        /// The file that the ingress reads; it may end in `.gz`.
        pub path: Option<PathBuf> = "none; only a generator needs none",
        /// Several files; each is a partition of its own, and they are read side by side.
        pub paths: Vec<PathBuf> = "none",
        /// How the records are written down.
        pub format: Option<Format> = "what the name of the file says",
        /// The Kafka topic that the ingress reads, in a fleet; its records are messages in their own encoding.
        pub topic: Option<String> = "none; in a fleet each ingress needs one",
        /// Where it begins in a topic that it has never read.
        pub start: Option<StartKind> = "`earliest`",
        /// How far it reads a topic: to what is there when the process starts, or on and on.
        pub until: Option<UntilKind> = "`never`",
        /// The most records a second.
        pub records_per_second: Option<f64> = "as many as possible",
    }
}

table! {
    /// Where an egress writes.
    pub struct EgressSettings {
        /// The kind of place: a file, which has each record exactly once, the console, a webhook, a Kafka topic in a fleet, or nowhere, where records are counted.
        pub to: Option<EgressKind> = "`webhook` if there is a `url`, `kafka` in a fleet, else `file`; `console` if there is neither `data` nor a `path`",
        /// The Kafka topic, for that kind.
        pub topic: Option<String> = "the egress's name; dead letters have `APP.dead-letters`",
        /// The file, for that kind.
        pub path: Option<PathBuf> = "`NAME.jsonl` in `data`",
        /// Where a webhook posts each record, at least once, with an `Idempotency-Key` that repeats have too.
        pub url: Option<Url> = "none",
        /// The header `Authorization` that the webhook is sent.
        pub authorization: Option<Secret> = "none",
        /// How many records of a webhook may be under way at a time, each of another shard.
        pub parallel: Option<usize> = "`16`",
        /// How long one attempt of a webhook may take.
        pub time_max: Option<Duration> = "`10s`",
        /// How long a webhook that failed waits before its first repeat; each time after it twice as long.
        pub retry_first: Option<Duration> = "`100ms`",
        /// How long it waits at most.
        pub retry_longest: Option<Duration> = "`30s`",
    }
}

/// The kinds of places that an egress can write to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EgressKind {
    /// A file: each record stands in it exactly once.
    File,
    /// Standard output: at least once.
    Console,
    /// A Kafka topic, in a fleet: exactly once, unless `kafka.delivery` says otherwise.
    Kafka,
    /// A URL: at least once. It needs the feature `webhook`, and `webhook-tls` for `https`.
    Webhook,
    /// Nowhere; records are counted.
    Count,
}

impl HttpSettings {
    /// What holds, what nobody has said included.
    pub(crate) fn filled(&self) -> Self {
        let seconds = |given: Option<Duration>, default| given.or(Some(Duration::from_secs(default)));
        Self {
            listen: self.listen,
            advertised_url: self.advertised_url.clone(),
            body_bytes_max: self.body_bytes_max.or(Some(1 << 20)),
            connections_max: self.connections_max.or(Some(10_000)),
            head_time_max: seconds(self.head_time_max, 5),
            body_time_max: seconds(self.body_time_max, 10),
            idle_time_max: seconds(self.idle_time_max, 30),
            answer_time_max: seconds(self.answer_time_max, 30),
            answers_kept: self.answers_kept.or(Some(Duration::from_millis(ANSWERS_KEPT_MS.unsigned_abs()))),
            threads: self.threads.or(Some(1)),
            event_time_field: self.event_time_field.clone(),
        }
    }
}

impl Settings {
    /// The default settings.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the data directory.
    #[must_use]
    pub fn data(self, directory: impl Into<PathBuf>) -> Self {
        Self { data: Some(directory.into()), ..self }
    }

    /// Sets the file that an ingress reads.
    #[must_use]
    pub fn input(mut self, ingress: &str, path: impl Into<PathBuf>) -> Self {
        self.ingress.entry(ingress.to_owned()).or_default().path = Some(path.into());
        self
    }

    /// Sets the file that an egress writes.
    #[must_use]
    pub fn output(mut self, egress: &str, path: impl Into<PathBuf>) -> Self {
        let settings =
            EgressSettings { to: Some(EgressKind::File), path: Some(path.into()), ..EgressSettings::default() };
        self.egress.insert(egress.to_owned(), settings);
        self
    }

    /// Lets an egress write to standard output.
    #[must_use]
    pub fn console(mut self, egress: &str) -> Self {
        let settings = EgressSettings { to: Some(EgressKind::Console), ..EgressSettings::default() };
        self.egress.insert(egress.to_owned(), settings);
        self
    }

    /// Reads settings from TOML.
    ///
    /// # Errors
    /// [`Error::Settings`] with a line for each mistake: the setting, its value, where it stands, and
    /// what to write.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        Self::default().and(|layers| layers.toml(text, |line| Origin::Text { line }))
    }

    /// Reads settings from a file.
    ///
    /// # Errors
    /// [`Error::Settings`] that names the file, if it cannot be read or is not right.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        Self::default().and(|layers| layers.file(path))
    }

    /// These settings, but where `over` says something.
    #[must_use]
    pub fn overlaid(&self, over: &Self) -> Self {
        let mut settings = self.clone();
        settings.overlay(over.clone());
        settings
    }

    /// These settings with one of them set, as `name=value` says: `ingress.sales.path=sales.csv`.
    ///
    /// # Errors
    /// [`Error::Settings`] that names the setting, its value, and what to write.
    ///
    /// ```
    /// use statefn::Settings;
    /// let settings = Settings::new().with("ingress.sales.path=sales.csv").unwrap().with("shards=8").unwrap();
    /// assert_eq!(settings.shards(), 8);
    /// ```
    pub fn with(&self, assignment: &str) -> Result<Self, Error> {
        self.clone().and(|layers| layers.assignment(assignment))
    }

    /// These settings with a layer over them.
    fn and(self, add: impl FnOnce(&mut Layers<Self>)) -> Result<Self, Error> {
        let mut layers = Layers::new(self, Names::default());
        add(&mut layers);
        layers.finish().map(|(settings, _)| settings)
    }

    /// What holds in an app of these names, what nobody has said included.
    pub(crate) fn filled(&self, names: &Names) -> Self {
        let mut filled = Self {
            shards: Some(self.shards()),
            threads: Some(self.threads()),
            commit_interval: Some(self.commit_interval()),
            snapshot_tail_bytes: Some(self.snapshot_tail_bytes()),
            segment_bytes: Some(self.segment_bytes()),
            handler_time_limit: Some(self.handler_time_limit()),
            egress_backlog_bytes_max: Some(self.egress_backlog_bytes_max()),
            parked: self.parked.filled(),
            kafka: if self.log.is_some() { self.kafka.filled() } else { self.kafka.clone() },
            http: self.http.filled(),
            trace: self.trace.filled(),
            ..self.clone()
        };
        for name in &names.ingresses {
            filled.ingress.entry(name.clone()).or_default().fill();
        }
        for name in &names.egresses {
            filled.egress.entry(name.clone()).or_default().fill(name, self.data.as_deref(), self.log.is_some());
        }
        filled
    }

    /// Drops the directory and the files that the program itself says, where `log` was said over it: the
    /// same program is a worker of a fleet then.
    pub(crate) fn give_way(&mut self, origins: &Origins) {
        let is_of_program = |name: &[&str]| origins.is_of_program(name);
        if self.log.is_none() || is_of_program(&["log"]) {
            return;
        }
        if is_of_program(&["data"]) {
            self.data = None;
        }
        for (name, ingress) in &mut self.ingress {
            if is_of_program(&["ingress", name, "path"]) {
                ingress.path = None;
            }
            if is_of_program(&["ingress", name, "paths"]) {
                ingress.paths.clear();
            }
        }
        for (name, egress) in &mut self.egress {
            if egress.to == Some(EgressKind::File) && is_of_program(&["egress", name, "to"]) {
                egress.to = None;
            }
            if is_of_program(&["egress", name, "path"]) {
                egress.path = None;
            }
        }
    }

    /// How many shards the app has.
    #[must_use]
    pub fn shards(&self) -> u32 {
        self.shards.unwrap_or(64)
    }

    /// How many threads run the shards.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1)
    }

    /// The shortest time between two commits.
    pub(crate) fn commit_interval(&self) -> Duration {
        self.commit_interval.unwrap_or_default()
    }

    /// How much the journal of a shard grows before its next snapshot.
    pub(crate) fn snapshot_tail_bytes(&self) -> u64 {
        self.snapshot_tail_bytes.unwrap_or(SNAPSHOT_TAIL_BYTES_MIN)
    }

    /// How large a segment file of the log is.
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.segment_bytes.unwrap_or(64 << 20)
    }

    /// How long one call of a handler may take.
    pub(crate) fn handler_time_limit(&self) -> Duration {
        self.handler_time_limit.unwrap_or(Duration::from_secs(30))
    }

    /// How far egresses may be behind.
    pub(crate) fn egress_backlog_bytes_max(&self) -> u64 {
        self.egress_backlog_bytes_max.unwrap_or(256 << 20)
    }
}

impl IngressSettings {
    /// Every file that it reads.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.path.iter().chain(&self.paths)
    }

    /// The format of one of its files.
    pub(crate) fn format_of(&self, path: &Path) -> Option<Format> {
        self.format.or_else(|| Format::of_path(path))
    }

    /// Fills in what nobody has said, where it is the same for all files.
    fn fill(&mut self) {
        let formats: Vec<_> = self.files().map(|path| self.format_of(path)).collect();
        let first = formats.first().copied().flatten();
        self.format = first.filter(|_| formats.iter().all(|format| *format == first));
    }
}

impl EgressSettings {
    /// Fills in what nobody has said.
    fn fill(&mut self, name: &str, data: Option<&Path>, is_fleet: bool) {
        if is_fleet {
            let to = *self.to.get_or_insert(if self.url.is_some() { EgressKind::Webhook } else { EgressKind::Kafka });
            if to == EgressKind::Kafka && name != DEAD_LETTERS {
                self.topic.get_or_insert_with(|| name.to_owned());
            }
            return;
        }
        // Without data the dead letters are shown, so that they are not lost unseen.
        let is_shown = data.is_none() && self.path.is_none();
        let to = *self.to.get_or_insert(match is_shown {
            _ if self.url.is_some() => EgressKind::Webhook,
            true => EgressKind::Console,
            false => EgressKind::File,
        });
        if to == EgressKind::File && self.path.is_none() {
            self.path = data.map(|data| data.join(format!("{name}.jsonl")));
        }
        if to == EgressKind::Webhook {
            let WebhookSpec { parallel, time_max, retry_first, retry_longest, .. } = WebhookSpec::new("");
            self.parallel.get_or_insert(parallel);
            self.time_max.get_or_insert(time_max);
            self.retry_first.get_or_insert(retry_first);
            self.retry_longest.get_or_insert(retry_longest);
        }
    }
}

/// As a file has them; what is secret is not shown.
impl Serialize for Settings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut listed = BTreeMap::new();
        self.list(&[], &mut listed);
        let mut table = toml::Table::new();
        for (name, value) in listed {
            put_within(&mut table, &name, value);
        }
        table.serialize(serializer)
    }
}

fn put_within(table: &mut toml::Table, name: &[String], value: toml::Value) {
    match name {
        [] => {}
        [last] => _ = table.insert(last.clone(), value),
        [first, rest @ ..] => {
            let within = table.entry(first.clone()).or_insert_with(|| toml::Table::new().into());
            if let toml::Value::Table(within) = within {
                put_within(within, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_settings_win() {
        let app = Settings::new().data("a").input("sales", "sales.csv");
        let file = Settings::from_toml("data = \"b\"\ncommit_interval = \"1s\"").expect("is right");
        let both = app.overlaid(&file).with("ingress.sales.records_per_second=10.0").expect("is right");
        assert_eq!(both.data, Some("b".into()));
        assert_eq!(both.commit_interval, Some(Duration::from_secs(1)));
        assert_eq!(both.ingress["sales"].path, Some("sales.csv".into()));
        assert_eq!(Settings::from_toml(&toml::to_string(&both).expect("writes")).expect("reads"), both);
    }

    #[test]
    fn a_log_said_over_the_program_takes_the_place_of_its_files() {
        let program = Settings::new().data("d").input("sales", "sales.csv").output("sums", "sums.jsonl").console("log");
        let over = |assignments: &[&str]| {
            let mut layers = Layers::new(program.clone(), Names::default());
            assignments.iter().for_each(|assignment| layers.assignment(assignment));
            let (mut settings, origins) = layers.finish().expect("is right");
            settings.give_way(&origins);
            settings
        };
        assert_eq!(over(&["shards=3"]), program.with("shards=3").expect("is right"));
        let fleet = over(&["log=kafka://a:1"]);
        assert_eq!((&fleet.data, &fleet.ingress["sales"].path), (&None, &None));
        assert_eq!(fleet.egress["sums"], EgressSettings::default());
        assert_eq!(fleet.egress["log"].to, Some(EgressKind::Console));
        let both = over(&["log=kafka://a:1", "data=e", "ingress.sales.path=s.csv", "egress.sums.to=file"]);
        assert_eq!((both.data, both.egress["sums"].to), (Some("e".into()), Some(EgressKind::File)), "it is refused");
        assert_eq!(both.ingress["sales"].path, Some("s.csv".into()), "it is refused");
        let own = Settings { log: Some("kafka://a:1".into()), ..program.clone() };
        let mut same = own.clone();
        same.give_way(&Origins::default());
        assert_eq!(same, own, "what one program says must fit together");
    }

    #[test]
    fn an_egress_without_settings_is_shown_where_there_is_no_data() {
        let names = Names { egresses: vec!["sums".into()], ..Names::default() };
        let place = |settings: Settings| settings.filled(&names).egress.remove("sums").expect("is filled in");
        let (file, console) = (Some(EgressKind::File), Some(EgressKind::Console));
        let settings = |to, path: Option<&str>| EgressSettings { to, path: path.map(Into::into), ..Default::default() };
        assert_eq!(place(Settings::new()), settings(console, None));
        assert_eq!(place(Settings::new().data("d")), settings(file, Some("d/sums.jsonl")));
        let given = Settings::new().with("egress.sums.path=s").expect("is right");
        assert_eq!(place(given), settings(file, Some("s")));
        let given = Settings::new().with("egress.sums.to=file").expect("is right");
        assert_eq!(place(given), settings(file, None));
        let given = Settings::new().with("egress.sums.url=http://a/b").expect("is right");
        let given = place(given);
        assert_eq!((given.to, given.parallel), (Some(EgressKind::Webhook), Some(16)));
    }

    #[test]
    fn the_format_that_holds_is_that_of_every_file() {
        let names = Names { ingresses: vec!["sales".into()], ..Names::default() };
        for (given, expected) in [
            ("ingress.sales.paths=[\"a.csv\", \"b.csv.gz\"]", Some(Format::Csv)),
            ("ingress.sales.paths=[\"a.csv\", \"b.pb\"]", None),
            ("ingress.sales.path=a.txt", None),
            ("ingress.sales={ path = \"a.csv\", format = \"json-lines\" }", Some(Format::JsonLines)),
        ] {
            let settings = Settings::new().with(given).expect("is right");
            assert_eq!(settings.filled(&names).ingress["sales"].format, expected, "{given}");
        }
    }
}
