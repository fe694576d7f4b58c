//! The topics of an app: their names, and which partition of the log is where.
//!
//! ```text
//! partition of the log    topic             partitions
//! 0 .. S                  <app>.journal     S
//! S .. 2 S                <app>.mailbox     S
//! 2 S                     <app>.progress    1, kept for 10 minutes
//!                         <app>.egress      G = min(S, 32)
//!                         <app>.ownership   G
//!                         <app>.dead-letters
//! ```
//!
//! `ownership` is there for its partitions, which a consumer group shares out; its only record says
//! whose topics these are ([`identity`](super::identity)).
//!
//! Invariant: two apps never share a topic, because no name of a kind ends with that of another.
//!
//! Deliberately absent: topics of ingresses and egresses, which are not the app's own.

use statefn_core::{
    address::ShardId,
    limits::SHARDS_MAX,
    ports::log::Partition,
    shard::wire::{mailbox_partition, progress_partition},
};

use crate::error::Error;

/// The most shard groups that an app has.
const GROUPS_MAX: u32 = 32;
/// The longest name of a topic, in bytes.
const TOPIC_BYTES_MAX: usize = 249;
const LONGEST_SUFFIX: &str = ".dead-letters";

/// The topics of one app.
///
/// ```
/// use statefn_kafka::Topics;
/// let topics = Topics::new("bank", 64).unwrap();
/// assert_eq!((topics.journal(), topics.groups(), topics.group_of(33)), ("bank.journal", 32, 1));
/// assert!(Topics::new("my bank", 64).is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    app: String,
    shards: u32,
    journal: String,
    mailbox: String,
    egress: String,
    dead_letters: String,
    progress: String,
    ownership: String,
}

impl Topics {
    /// The topics of `app` with `shards` shards.
    ///
    /// # Errors
    /// [`Error::Name`] if topics cannot be named after the app.
    ///
    /// # Panics
    /// If there is no shard, or more than an app may have.
    pub fn new(app: &str, shards: u32) -> Result<Self, Error> {
        assert!(shards > 0, "an app has at least one shard");
        assert!(shards <= SHARDS_MAX, "an app has at most {SHARDS_MAX} shards, not {shards}");
        let is_allowed = |letter: char| letter.is_ascii_alphanumeric() || "-._".contains(letter);
        if app.is_empty() || !app.chars().all(is_allowed) || app.len() + LONGEST_SUFFIX.len() > TOPIC_BYTES_MAX {
            return Err(Error::Name { app: app.to_owned() });
        }
        Ok(Self {
            app: app.to_owned(),
            shards,
            journal: format!("{app}.journal"),
            mailbox: format!("{app}.mailbox"),
            egress: format!("{app}.egress"),
            dead_letters: format!("{app}{LONGEST_SUFFIX}"),
            progress: format!("{app}.progress"),
            ownership: format!("{app}.ownership"),
        })
    }

    /// The app.
    #[must_use]
    pub fn app(&self) -> &str {
        &self.app
    }

    /// How many shards the app has.
    #[must_use]
    pub fn shards(&self) -> u32 {
        self.shards
    }

    /// How many shard groups the app has: what moves between workers as one.
    #[must_use]
    pub fn groups(&self) -> u32 {
        self.shards.min(GROUPS_MAX)
    }

    /// The shard group of a shard.
    #[must_use]
    pub fn group_of(&self, shard: ShardId) -> u32 {
        shard % self.groups()
    }

    /// The shards of a shard group.
    pub fn shards_of(&self, group: u32) -> impl Iterator<Item = ShardId> + use<> {
        (group..self.shards).step_by(self.groups() as usize)
    }

    /// The topic of the journals, a partition for each shard.
    #[must_use]
    pub fn journal(&self) -> &str {
        &self.journal
    }

    /// The topic of the mailboxes, a partition for each shard.
    #[must_use]
    pub fn mailbox(&self) -> &str {
        &self.mailbox
    }

    /// The topic of the positions of egresses, a partition for each shard group.
    #[must_use]
    pub fn egress(&self) -> &str {
        &self.egress
    }

    /// The topic of dead letters.
    #[must_use]
    pub fn dead_letters(&self) -> &str {
        &self.dead_letters
    }

    /// The topic of progress, of one partition.
    #[must_use]
    pub fn progress(&self) -> &str {
        &self.progress
    }

    /// The topic whose partitions are the shard groups.
    #[must_use]
    pub fn ownership(&self) -> &str {
        &self.ownership
    }

    /// The topic of a partition of the log, and its number there.
    ///
    /// # Panics
    /// If the log has no such partition.
    pub(crate) fn place(&self, partition: Partition) -> (&str, i32) {
        let mailboxes = mailbox_partition(self.shards, 0);
        let progress = progress_partition(self.shards);
        assert!(partition <= progress, "the log has the partitions 0 to {progress}, not {partition}");
        let (topic, number) = match partition {
            journal if journal < mailboxes => (&self.journal, journal),
            mailbox if mailbox < progress => (&self.mailbox, mailbox - mailboxes),
            _ => (&self.progress, 0),
        };
        (topic, number as i32)
    }

    /// The partition of the log that is at a place; none if it is not of the log.
    pub(crate) fn partition(&self, topic: &str, number: i32) -> Option<Partition> {
        let number = Partition::try_from(number).ok()?;
        let (first, count) = match topic {
            topic if topic == self.journal => (0, self.shards),
            topic if topic == self.mailbox => (mailbox_partition(self.shards, 0), self.shards),
            topic if topic == self.progress => (progress_partition(self.shards), 1),
            _ => return None,
        };
        (number < count).then_some(first + number)
    }

    /// How a place is called in errors.
    pub(crate) fn place_text(&self, partition: Partition) -> String {
        let (topic, number) = self.place(partition);
        format!("partition {number} of topic `{topic}`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partition_of_the_log_has_its_place() {
        let topics = Topics::new("bank", 3).unwrap();
        let places: Vec<(&str, i32)> = (0..=6).map(|partition| topics.place(partition)).collect();
        let (journal, mailbox) = ("bank.journal", "bank.mailbox");
        let wanted = [(journal, 0), (journal, 1), (journal, 2), (mailbox, 0), (mailbox, 1), (mailbox, 2)];
        assert_eq!(places[..6], wanted);
        assert_eq!(places[6], ("bank.progress", 0));
        for (partition, (topic, number)) in (0..).zip(places) {
            assert_eq!(topics.partition(topic, number), Some(partition));
        }
        for (topic, number) in [(journal, 3), (journal, -1), (mailbox, 3), ("bank.progress", 1), ("bank.egress", 0)] {
            assert_eq!(topics.partition(topic, number), None, "{topic} {number}");
        }
    }

    #[test]
    #[should_panic(expected = "the log has the partitions 0 to 6, not 7")]
    fn there_is_no_place_behind_progress() {
        _ = Topics::new("bank", 3).unwrap().place(7);
    }

    #[test]
    fn every_shard_is_in_one_group() {
        for shards in [1, 5, 32, 33, 100] {
            let topics = Topics::new("bank", shards).unwrap();
            let mut all: Vec<ShardId> = (0..topics.groups()).flat_map(|group| topics.shards_of(group)).collect();
            all.sort_unstable();
            assert_eq!(all, (0..shards).collect::<Vec<ShardId>>());
            assert!((0..shards).all(|shard| topics.shards_of(topics.group_of(shard)).any(|of| of == shard)));
        }
    }

    #[test]
    fn names_that_topics_cannot_have_are_refused() {
        for app in ["", "a b", "a/b", "ä", &"a".repeat(240)] {
            let error = Topics::new(app, 1).unwrap_err().to_string();
            assert!(error.contains(&format!("`{app}`")), "{error}");
        }
        assert_eq!(Topics::new(&"a".repeat(236), 1).unwrap().dead_letters().len(), TOPIC_BYTES_MAX);
    }
}
