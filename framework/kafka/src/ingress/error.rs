//! Why topics cannot be read on.

use thiserror::Error;

/// Input from topics that cannot be read on; each text names the place and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InputError {
    /// Records that were not read yet are gone: the topic keeps them for too short a time.
    #[error(
        "topic `{topic}`, partition {partition}: the next record to read is at offset {wanted}, but the first one kept is at {first}: what lies between was removed before it was read; put the records back, or start the ingress anew at a position that is kept, and let the topic keep records for longer (`retention.ms`, `retention.bytes`)"
    )]
    Lost {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The offset to read on at.
        wanted: u64,
        /// The first offset that is kept.
        first: u64,
    },
    /// The partition ends before the place that was read: it is another one than before.
    #[error(
        "topic `{topic}`, partition {partition}: the next record to read is at offset {wanted}, but the partition ends at {end}: the topic was deleted and made anew, or has lost records; start the ingress anew, or give it the topic that it has read"
    )]
    Shrunk {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The offset to read on at.
        wanted: u64,
        /// Where the partition ends.
        end: u64,
    },
    /// A topic is not there.
    #[error("the topic `{topic}` does not exist: create it, or correct the topics of the ingress in the settings")]
    NoTopic {
        /// The topic.
        topic: String,
    },
    /// A topic has fewer partitions than it had: it is another one than before.
    #[error(
        "the topic `{topic}` has {found} partitions, but had {known}: it was deleted and made anew; start the ingress anew, or give it the topic that it has read"
    )]
    FewerPartitions {
        /// The topic.
        topic: String,
        /// How many it has.
        found: u32,
        /// How many it had.
        known: u32,
    },
    /// Two ingresses read one topic.
    #[error("the topic `{topic}` is read by two ingresses: let one of them read it and send to the functions of both")]
    TopicTwice {
        /// The topic.
        topic: String,
    },
    /// The pattern of topics cannot be read.
    #[error("`{pattern}` is no pattern of topics: {why}; write one such as `^orders-.*`")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// A broker does not answer, or says no.
    #[error("cannot {doing}: {cause}")]
    Failed {
        /// What was tried.
        doing: String,
        /// What was said.
        cause: String,
    },
}

impl InputError {
    pub(super) fn failed(doing: impl Into<String>, cause: impl ToString) -> Self {
        Self::Failed { doing: doing.into(), cause: cause.to_string() }
    }
}
