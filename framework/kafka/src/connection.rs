//! A Kafka cluster as settings name it: its address, the properties of its clients, and clients with
//! the settings that are right and quick.
//!
//! Invariants: what safety rests on (all replicas, idempotence, no automatic offsets) cannot be
//! changed by properties. A client that is made here reports by [`Reporter`].
//!
//! Deliberately absent: a pool, but for what reads a partition once ([`Readers`]). A client has one
//! owner, and costs a few milliseconds with the settings made here (half a second with those that the
//! library is shipped with).

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext,
    admin::AdminClient,
    bindings::RD_KAFKA_VERSION,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};

use crate::{
    error::Error,
    readers::Readers,
    report::{Reporter, Shared},
};

const SCHEME: &str = "kafka://";
/// The port of a broker that an address does not name.
const PORT: u16 = 9092;
/// The oldest library that is good: major and minor number, as the library encodes them, and as text.
const LIBRARY_MIN: (i32, &str) = (0x020c, "2.12");
/// How many bytes a fetch takes of one partition.
const FETCH_BYTES: usize = 4 << 20;
/// How long a broker holds a request for records that are not there yet.
const FETCH_WAIT_MS: u32 = 50;
/// How much more than the bytes of its value a record of the log has on its way, at most.
pub(crate) const RECORD_OVERHEAD_BYTES: usize = 64 << 10;

/// Properties that the crate sets itself, because its promises rest on them.
const RESERVED: [&str; 19] = [
    "acks",
    "auto.offset.reset",
    "bootstrap.servers",
    "check.crcs",
    "client.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.protocol",
    "isolation.level",
    "max.in.flight",
    "message.timeout.ms",
    "metadata.broker.list",
    "partition.assignment.strategy",
    "request.required.acks",
    "transactional.id",
];

/// A Kafka cluster and how to talk to it.
///
/// ```
/// use statefn_kafka::Connection;
/// let connection = Connection::parse("log", "kafka://a:9092,b").unwrap();
/// assert_eq!(connection.brokers(), "a:9092,b:9092");
/// let error = Connection::parse("log", "a:9092").unwrap_err();
/// assert!(error.to_string().starts_with("setting `log`: `a:9092` is no address of Kafka"));
/// ```
#[derive(Clone)]
pub struct Connection {
    setting: String,
    brokers: String,
    client_id: String,
    properties: BTreeMap<String, String>,
    shared: Arc<Shared>,
    readers: Arc<Readers>,
}

/// How a producer is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProducerOptions {
    /// After how long a record that nobody acknowledged is reported as failed.
    pub(crate) message_timeout: Duration,
    /// The largest value of a record, in bytes.
    pub(crate) record_bytes_max: usize,
    /// The producer is transactional, with this identity.
    pub(crate) transactional_id: Option<String>,
}

/// Which records a consumer sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// Those of committed transactions only, and those without one.
    Committed,
    /// All of them: right for topics that nobody writes to by transactions.
    Uncommitted,
}

impl Connection {
    /// Reads the address that a setting has, `kafka://host[:port][,host[:port]..]`.
    ///
    /// # Errors
    /// [`Error::Address`] if it is none.
    pub fn parse(setting: &str, address: &str) -> Result<Self, Error> {
        let brokers = parse_brokers(address).map_err(|why| Error::Address {
            setting: setting.to_owned(),
            address: address.to_owned(),
            why,
        })?;
        Ok(Self {
            setting: setting.to_owned(),
            brokers,
            client_id: "statefn".to_owned(),
            properties: BTreeMap::new(),
            shared: Arc::default(),
            readers: Arc::default(),
        })
    }

    /// Sets the name by which brokers know the clients, `statefn` if not set.
    #[must_use]
    pub fn client_id(self, client_id: impl Into<String>) -> Self {
        Self { client_id: client_id.into(), readers: Arc::default(), ..self }
    }

    /// Sets a property of librdkafka for all clients, such as `sasl.username`.
    ///
    /// # Errors
    /// [`Error::Property`] if the library does not know it or its value, or if it is one that the
    /// crate sets itself.
    pub fn property(mut self, name: &str, value: &str) -> Result<Self, Error> {
        check_property(name, value).map_err(|why| Error::Property { name: name.to_owned(), why })?;
        self.properties.insert(name.to_owned(), value.to_owned());
        self.readers = Arc::default();
        Ok(self)
    }

    /// The brokers that are asked first, `host:port` with commas between.
    #[must_use]
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// The setting that has the address.
    #[must_use]
    pub fn setting(&self) -> &str {
        &self.setting
    }

    /// Makes sure that a broker answers within a time limit, and that the client library is good.
    ///
    /// # Errors
    /// [`Error::Library`] or [`Error::Unreachable`].
    pub fn check(&self, limit: Duration) -> Result<(), Error> {
        /// How long one look lasts, so that what the client says is heard in between.
        const LOOK: Duration = Duration::from_millis(50);
        check_library(RD_KAFKA_VERSION)?;
        let started = Instant::now();
        let reporter = self.reporter("check");
        let consumer: BaseConsumer<Reporter> = self.client("ask for the cluster", &self.config(), reporter.clone())?;
        loop {
            // Lines of the log and errors come by this.
            drop(consumer.poll(Duration::ZERO));
            let left = limit.saturating_sub(started.elapsed());
            if consumer.client().fetch_cluster_id(left.min(LOOK)).is_some() {
                return Ok(());
            }
            if left.is_zero() {
                return Err(Error::Unreachable {
                    setting: self.setting.clone(),
                    brokers: self.brokers.clone(),
                    limit_ms: limit.as_millis(),
                    cause: reporter.last().unwrap_or_else(|| "there was no answer at all".to_owned()),
                });
            }
        }
    }

    /// What tells of a client; `client` says what the client is for.
    pub(crate) fn reporter(&self, client: &str) -> Reporter {
        Reporter::new(client.to_owned(), Arc::clone(&self.shared))
    }

    /// The settings that all clients have.
    pub(crate) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", &self.client_id)
            .set("socket.nagle.disable", "true")
            // These two make a new client usable after milliseconds instead of half a second.
            .set("enable.sparse.connections", "false")
            .set("reconnect.backoff.ms", "1")
            .set("reconnect.backoff.max.ms", "1000")
            // Leaders that moved are found by errors; this is for topics that are quiet.
            .set("topic.metadata.refresh.interval.ms", "60000")
            .set("topic.metadata.refresh.fast.interval.ms", "50")
            .set("allow.auto.create.topics", "false");
        config
    }

    /// The settings of a producer that keeps order and waits for all replicas.
    pub(crate) fn producer_config(&self, options: &ProducerOptions) -> ClientConfig {
        let mut config = self.config();
        let message_bytes = options.record_bytes_max + RECORD_OVERHEAD_BYTES;
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "0")
            .set("retry.backoff.ms", "1")
            .set("message.timeout.ms", options.message_timeout.as_millis().to_string())
            .set("message.max.bytes", message_bytes.to_string());
        if let Some(id) = &options.transactional_id {
            config.set("transactional.id", id);
        }
        config
    }

    /// The settings of a consumer that reads from offsets that it is told and commits none by itself.
    /// A group is needed for each consumer that reads, also for one that never joins it.
    pub(crate) fn consumer_config(&self, group: &str, isolation: Isolation) -> ClientConfig {
        let mut config = self.config();
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("check.crcs", "true")
            .set("fetch.message.max.bytes", FETCH_BYTES.to_string())
            // A partition that is new to the client has to wait until the request that is under way has
            // been answered, which takes this long where nothing comes.
            .set("fetch.wait.max.ms", FETCH_WAIT_MS.to_string())
            // What was read ahead is soon taken, and an error soon gone; shipped are a second and a half.
            .set("fetch.queue.backoff.ms", "2")
            .set("fetch.error.backoff.ms", "50")
            .set(
                "isolation.level",
                match isolation {
                    Isolation::Committed => "read_committed",
                    Isolation::Uncommitted => "read_uncommitted",
                },
            );
        config
    }

    /// What keeps clients that read a partition once.
    pub(crate) fn readers(&self) -> &Readers {
        &self.readers
    }

    /// A client for topics and offsets.
    pub(crate) fn admin(&self) -> Result<AdminClient<Reporter>, Error> {
        self.client("manage topics", &self.config(), self.reporter("admin"))
    }

    /// Makes a client; `purpose` is for the error.
    pub(crate) fn client<C, T>(&self, purpose: &str, config: &ClientConfig, context: C) -> Result<T, Error>
    where
        C: ClientContext,
        T: FromClientConfigAndContext<C>,
    {
        config.create_with_context(context).map_err(|error| match error {
            KafkaError::ClientConfig(_, why, name, value) => {
                Error::Property { name, why: format!("cannot be `{value}`: {why}") }
            }
            error => self.failed(&format!("make a client to {purpose}"), &error),
        })
    }

    /// The error of a request, by what can be done about it.
    pub(crate) fn failed(&self, doing: &str, error: &KafkaError) -> Error {
        let brokers = self.brokers.clone();
        let (doing, cause) = (doing.to_owned(), error.to_string());
        match error.rdkafka_error_code() {
            Some(code) if is_denied(code) => Error::Denied { brokers, doing, cause },
            _ => Error::Failed { brokers, doing, cause },
        }
    }
}

// The values of properties may be passwords.
impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("setting", &self.setting)
            .field("brokers", &self.brokers)
            .field("client_id", &self.client_id)
            .field("properties", &self.properties.keys().collect::<Vec<&String>>())
            .finish_non_exhaustive()
    }
}

/// Whether a broker refused something because its user has no right to it.
pub(crate) fn is_denied(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::TransactionalIdAuthorizationFailed
    )
}

/// The library is linked statically, so its version is that of its header.
fn check_library(number: i32) -> Result<(), Error> {
    let (min, wanted) = LIBRARY_MIN;
    if number >> 16 >= min {
        return Ok(());
    }
    let [major, minor, patch, _] = number.to_be_bytes();
    Err(Error::Library { found: format!("{major}.{minor}.{patch}"), wanted })
}

fn parse_brokers(address: &str) -> Result<String, String> {
    let Some(brokers) = address.strip_prefix(SCHEME) else {
        return Err(format!("it does not begin with `{SCHEME}`"));
    };
    let brokers: Result<Vec<String>, String> = brokers.split(',').map(parse_broker).collect();
    Ok(brokers?.join(","))
}

fn parse_broker(broker: &str) -> Result<String, String> {
    // An address of version 6 stands in brackets and has colons of its own.
    let host_end = broker.rfind(']').map_or(0, |end| end + 1);
    let (host, port) = match broker[host_end..].rfind(':') {
        Some(colon) => (&broker[..host_end + colon], Some(&broker[host_end + colon + 1..])),
        None => (broker, None),
    };
    if host.is_empty() {
        return Err(format!("`{broker}` has no host"));
    }
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-._".contains(letter);
    let is_bracketed = host.starts_with('[') && host.ends_with(']');
    if !is_bracketed && !host.chars().all(is_plain) {
        return Err(format!("`{host}` is no host"));
    }
    let port = match port {
        None => PORT,
        Some(port) => match port.parse::<u16>() {
            Ok(port) if port > 0 => port,
            _ => return Err(format!("`{port}` is no port, which is a number from 1 to 65535")),
        },
    };
    Ok(format!("{host}:{port}"))
}

fn check_property(name: &str, value: &str) -> Result<(), String> {
    let is_secure = name.starts_with("ssl.") || name.starts_with("sasl.") || name == "security.protocol";
    if is_secure && !cfg!(feature = "tls") {
        return Err("needs TLS or SASL, which this program was built without: build it with the feature `tls`".into());
    }
    if RESERVED.contains(&name) {
        return Err("is set by statefn, because its promises rest on it: remove it".into());
    }
    let mut config = ClientConfig::new();
    config.set(name, value);
    match config.create_native_config() {
        Err(KafkaError::ClientConfig(_, why, ..)) => Err(format!("cannot be `{value}`: {why}")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_brokers() {
        let brokers = |address| Connection::parse("log", address).map(|connection| connection.brokers().to_owned());
        let good = [
            ("kafka://localhost", "localhost:9092"),
            ("kafka://127.0.0.1:19092", "127.0.0.1:19092"),
            ("kafka://a-1.b_c:1,d:65535", "a-1.b_c:1,d:65535"),
            ("kafka://[::1]:9093,[fe80::1]", "[::1]:9093,[fe80::1]:9092"),
        ];
        for (address, wanted) in good {
            assert_eq!(brokers(address).unwrap(), wanted);
        }
    }

    #[test]
    fn what_is_no_address_is_named() {
        let bad = [
            ("localhost:9092", "it does not begin with `kafka://`"),
            ("kafka://", "`` has no host"),
            ("kafka://a:9092,", "`` has no host"),
            ("kafka://:9092", "`:9092` has no host"),
            ("kafka://a:0", "`0` is no port"),
            ("kafka://a:65536", "`65536` is no port"),
            ("kafka://a:b", "`b` is no port"),
            ("kafka://a/b", "`a/b` is no host"),
            ("kafka://user@a:9092", "`user@a` is no host"),
            ("kafka://a b", "`a b` is no host"),
        ];
        for (address, why) in bad {
            let error = Connection::parse("log", address).unwrap_err().to_string();
            assert!(error.starts_with(&format!("setting `log`: `{address}` is no address")), "{error}");
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn properties_are_checked_and_those_of_safety_are_refused() {
        let set = |name, value| {
            let connection = Connection::parse("log", "kafka://a").unwrap();
            connection.property(name, value).map_err(|error| error.to_string())
        };
        assert_eq!(
            set("socket.keepalive.enable", "true").unwrap().config().get("socket.keepalive.enable"),
            Some("true")
        );
        assert!(set("acks", "1").unwrap_err().contains("`acks` is set by statefn"));
        assert!(set("no.such", "1").unwrap_err().contains("`no.such` cannot be `1`: No such configuration property"));
        assert!(set("socket.timeout.ms", "x").unwrap_err().contains("`socket.timeout.ms` cannot be `x`"));
        if !cfg!(feature = "tls") {
            assert!(set("sasl.username", "me").unwrap_err().contains("feature `tls`"));
        }
        for name in RESERVED {
            assert!(set(name, "1").is_err(), "{name}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        let connection = Connection::parse("log", "kafka://a").unwrap();
        let shown = format!(
            "{:?}",
            connection.property("sasl.oauthbearer.config", "secret").unwrap_or_else(|_| {
                Connection::parse("log", "kafka://a").unwrap().property("client.rack", "secret").unwrap()
            })
        );
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn a_library_that_is_too_old_is_refused() {
        check_library(RD_KAFKA_VERSION).unwrap();
        let error = check_library(0x020b_01ff).unwrap_err().to_string();
        assert!(error.starts_with("this program has librdkafka 2.11.1, but older ones than 2.12"), "{error}");
    }

    #[test]
    fn clients_accept_all_settings() {
        let connection = Connection::parse("log", "kafka://127.0.0.1:1").unwrap();
        let options = ProducerOptions {
            message_timeout: Duration::from_secs(10),
            record_bytes_max: 1 << 20,
            transactional_id: Some("app-0".to_owned()),
        };
        connection.producer_config(&options).create_native_config().unwrap();
        for isolation in [Isolation::Committed, Isolation::Uncommitted] {
            connection.consumer_config("group", isolation).create_native_config().unwrap();
        }
    }

    #[test]
    fn a_broker_that_is_not_there_is_named_with_its_setting() {
        let connection = Connection::parse("log", "kafka://127.0.0.1:1").unwrap();
        let error = connection.check(Duration::from_millis(300)).unwrap_err().to_string();
        let wanted = "no Kafka broker answered at `127.0.0.1:1` (setting `log`) within 300 ms: ";
        assert!(error.starts_with(wanted) && error.contains("Connection refused"), "{error}");
    }
}
