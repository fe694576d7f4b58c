//! Which topics an ingress reads, and the numbers of their partitions.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rdkafka::{
    consumer::{BaseConsumer, Consumer},
    error::RDKafkaErrorCode,
    metadata::MetadataTopic,
};
use regex_lite::Regex;

use super::error::InputError;
use crate::report::Reporter;

/// What names of the broker's own topics begin with.
const INTERNAL: &str = "__";

/// The topics of an ingress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topics {
    /// These.
    Named(Vec<String>),
    /// All whose whole name matches a regular expression, such as `^orders-.*`, also those made later.
    Matching(String),
}

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic.
    pub topic: String,
    /// Its number in the topic.
    pub partition: u32,
}

/// The partitions that are known of an ingress: the number of each is its place, for ever.
///
/// Those that are found together are numbered by topic, then partition, behind all before them. So of
/// a single topic the numbers are Kafka's own.
#[derive(Debug, Clone, Default)]
pub(super) struct Numbering {
    partitions: Vec<TopicPartition>,
}

impl Numbering {
    pub(super) fn new(known: Vec<TopicPartition>) -> Self {
        Self { partitions: known }
    }

    pub(super) fn partitions(&self) -> &[TopicPartition] {
        &self.partitions
    }

    /// Numbers what is new; returns whether there was any.
    pub(super) fn extend(&mut self, found: &BTreeMap<String, u32>) -> Result<bool, InputError> {
        let known: BTreeSet<_> = self.partitions.iter().cloned().collect();
        for TopicPartition { topic, partition } in &self.partitions {
            let count = found.get(topic).ok_or_else(|| InputError::NoTopic { topic: topic.clone() })?;
            if count <= partition {
                let had = known.iter().filter(|other| other.topic == *topic).count() as u32;
                return Err(InputError::FewerPartitions { topic: topic.clone(), found: *count, known: had });
            }
        }
        let all = found.iter().flat_map(|(topic, count)| {
            (0..*count).map(move |partition| TopicPartition { topic: topic.clone(), partition })
        });
        let before = self.partitions.len();
        self.partitions.extend(all.filter(|partition| !known.contains(partition)));
        Ok(self.partitions.len() > before)
    }
}

impl Topics {
    /// Checks a pattern before it is used.
    pub(super) fn check(&self) -> Result<(), InputError> {
        match self {
            Self::Named(_) => Ok(()),
            Self::Matching(pattern) => regex(pattern).map(drop),
        }
    }

    /// Asks for the topics and how many partitions each has.
    pub(super) fn find(
        &self,
        consumer: &BaseConsumer<Reporter>,
        patience: Duration,
    ) -> Result<BTreeMap<String, u32>, InputError> {
        match self {
            Self::Named(topics) => {
                topics.iter().map(|topic| Ok((topic.clone(), count(consumer, topic, patience)?))).collect()
            }
            Self::Matching(pattern) => matching(consumer, &regex(pattern)?, patience),
        }
    }
}

fn regex(pattern: &str) -> Result<Regex, InputError> {
    Regex::new(&format!("^(?:{pattern})$"))
        .map_err(|error| InputError::Pattern { pattern: pattern.to_owned(), why: error.to_string() })
}

fn matching(
    consumer: &BaseConsumer<Reporter>,
    pattern: &Regex,
    patience: Duration,
) -> Result<BTreeMap<String, u32>, InputError> {
    let metadata = consumer
        .client()
        .fetch_metadata(None, patience)
        .map_err(|error| InputError::failed("ask for all topics", error))?;
    let is_meant = |topic: &&MetadataTopic| !topic.name().starts_with(INTERNAL) && pattern.is_match(topic.name());
    metadata
        .topics()
        .iter()
        .filter(is_meant)
        .filter_map(|topic| partitions(topic).transpose().map(|count| Ok((topic.name().to_owned(), count?))))
        .collect()
}

fn count(consumer: &BaseConsumer<Reporter>, topic: &str, patience: Duration) -> Result<u32, InputError> {
    let metadata = consumer
        .client()
        .fetch_metadata(Some(topic), patience)
        .map_err(|error| InputError::failed(format!("ask for the topic `{topic}`"), error))?;
    let found = metadata.topics().iter().find(|found| found.name() == topic).map(partitions).transpose()?.flatten();
    found.ok_or_else(|| InputError::NoTopic { topic: topic.to_owned() })
}

/// How many partitions a topic has; none if it is not there.
fn partitions(topic: &MetadataTopic) -> Result<Option<u32>, InputError> {
    match topic.error().map(RDKafkaErrorCode::from) {
        None => Ok(Some(topic.partitions().len() as u32).filter(|count| *count > 0)),
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Ok(None),
        Some(code) => Err(InputError::failed(format!("ask for the topic `{}`", topic.name()), code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(topics: &[(&str, u32)]) -> BTreeMap<String, u32> {
        topics.iter().map(|(topic, count)| ((*topic).to_owned(), *count)).collect()
    }

    fn shown(numbering: &Numbering) -> Vec<String> {
        let partitions = numbering.partitions().iter();
        partitions.map(|partition| format!("{}-{}", partition.topic, partition.partition)).collect()
    }

    #[test]
    fn a_partition_keeps_its_number() {
        let mut numbering = Numbering::default();
        assert_eq!(numbering.extend(&found(&[("b", 2), ("a", 1)])), Ok(true));
        assert_eq!(numbering.extend(&found(&[("b", 2), ("a", 1)])), Ok(false));
        assert_eq!(shown(&numbering), ["a-0", "b-0", "b-1"]);
        assert_eq!(numbering.extend(&found(&[("a", 2), ("aa", 1), ("b", 3)])), Ok(true));
        assert_eq!(shown(&numbering), ["a-0", "b-0", "b-1", "a-1", "aa-0", "b-2"]);
        let again = Numbering::new(numbering.partitions().to_vec()).extend(&found(&[("a", 2), ("aa", 1), ("b", 3)]));
        assert_eq!(again, Ok(false));
    }

    #[test]
    fn a_topic_that_is_gone_or_smaller_is_named() {
        let mut numbering = Numbering::default();
        numbering.extend(&found(&[("a", 3)])).expect("it is new");
        let fewer = InputError::FewerPartitions { topic: "a".into(), found: 2, known: 3 };
        assert_eq!(numbering.extend(&found(&[("a", 2)])), Err(fewer));
        assert_eq!(numbering.extend(&found(&[("b", 2)])), Err(InputError::NoTopic { topic: "a".into() }));
    }

    #[test]
    fn a_pattern_is_of_whole_names() {
        for (pattern, name, matches) in [
            ("^orders-.*", "orders-eu", true),
            ("^orders-.*", "old-orders-eu", false),
            ("orders", "orders", true),
            ("orders", "orders-eu", false),
            ("a|b", "ab", false),
        ] {
            assert_eq!(regex(pattern).expect("a pattern").is_match(name), matches, "{pattern} {name}");
        }
        let error = Topics::Matching("orders-(".into()).check().expect_err("it is not closed").to_string();
        assert!(error.starts_with("`orders-(` is no pattern of topics: "), "{error}");
    }
}
