//! Why an egress into topics cannot be opened or written.

use thiserror::Error;

/// An egress into topics that cannot be opened or written; each text names the place and what to do.
#[derive(Debug, Error)]
pub enum EgressError {
    /// Another worker has taken over the group: let it go. This egress writes nothing any more.
    #[error(
        "another worker has taken over the egress of shard group {group} (`{transactional_id}`): this one writes no more; the group is let go"
    )]
    Fenced {
        /// The group.
        group: u32,
        /// What it writes as.
        transactional_id: String,
    },
    /// A broker does not answer, or says no; nothing is lost and the same call goes on later.
    #[error("cannot {doing}: {cause}; nothing is lost, the egress goes on once the cause is gone")]
    Waits {
        /// What was tried.
        doing: String,
        /// What was said.
        cause: String,
    },
    /// The topic of an egress is not there.
    #[error(
        "the topic `{topic}` of the egress `{egress}` does not exist: create it with as many partitions as its readers need, or correct the setting of the egress"
    )]
    NoTopic {
        /// The egress.
        egress: String,
        /// Its topic.
        topic: String,
    },
    /// It is not known which records stand.
    #[error(
        "{topic}, partition {partition}: the position of the egress {reason}; so it is not known which records stand, and none is written: restore the partition, or start a new app"
    )]
    Position {
        /// The topic with the positions.
        topic: String,
        /// The partition of the group.
        partition: u32,
        /// What is wrong.
        reason: String,
    },
    /// No client could be made.
    #[error(transparent)]
    Connection(#[from] crate::Error),
}

impl EgressError {
    /// Whether another worker has taken over, so that the group is lost.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        matches!(self, Self::Fenced { .. })
    }
}
