//! What can go wrong with Kafka before records flow, by what the user can do about it.

use thiserror::Error;

/// Why a connection, the topics of an app, or a client could not be had; each kind says what to do.
#[derive(Debug, Error)]
pub enum Error {
    /// The address cannot be read: correct the setting.
    #[error(
        "setting `{setting}`: `{address}` is no address of Kafka: {why}; write `kafka://host:9092`, or several as `kafka://host:9092,host:9092`"
    )]
    Address {
        /// The setting that has it.
        setting: String,
        /// The address as it was given.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// Topics cannot have the name of the app: name it otherwise.
    #[error(
        "topics cannot be named after the app `{app}`: on Kafka an app has a name of at most 236 letters a-z, A-Z, digits, `.`, `-` and `_`"
    )]
    Name {
        /// The app.
        app: String,
    },
    /// A property of the client cannot be set: change or remove it.
    #[error("the Kafka property `{name}` {why}")]
    Property {
        /// The property.
        name: String,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// The client library is too old to be trusted: build with a newer one.
    #[error(
        "this program has librdkafka {found}, but older ones than {wanted} lose records: build it with the version that the crate brings"
    )]
    Library {
        /// The version that is there.
        found: String,
        /// The oldest version that is good.
        wanted: &'static str,
    },
    /// No broker answers: correct the address, start the broker, or see the network between.
    #[error(
        "no Kafka broker answered at `{brokers}` (setting `{setting}`) within {limit_ms} ms: {cause}; check the address, and that the broker runs and can be reached from here"
    )]
    Unreachable {
        /// The setting that has the address.
        setting: String,
        /// The brokers that were asked.
        brokers: String,
        /// How long it was waited.
        limit_ms: u128,
        /// What the client said last.
        cause: String,
    },
    /// The broker does not allow what is needed: give the user that right.
    #[error(
        "the Kafka broker at `{brokers}` does not allow to {doing}: {cause}; give the user of this app that right, or do it by hand"
    )]
    Denied {
        /// The brokers.
        brokers: String,
        /// What was tried.
        doing: String,
        /// What the broker said.
        cause: String,
    },
    /// The broker, or the client, did not do what was asked.
    #[error("the Kafka broker at `{brokers}` did not {doing}: {cause}")]
    Failed {
        /// The brokers.
        brokers: String,
        /// What was tried.
        doing: String,
        /// What was said.
        cause: String,
    },
    /// Topics are not as the app needs them; a line each.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<String>>().join("\n"))]
    Topics(Vec<Difference>),
}

/// A setting of a topic that is not as the app needs it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("topic `{topic}`: {setting} is {found}, but {wanted}: {fix}")]
pub struct Difference {
    /// The topic.
    pub topic: String,
    /// What differs.
    pub setting: &'static str,
    /// Its value.
    pub found: String,
    /// What is needed, and why.
    pub wanted: String,
    /// What to do.
    pub fix: String,
}
