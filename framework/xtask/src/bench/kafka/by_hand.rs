//! The limit: a loop that consumes, adds up in a map, and produces, without a framework and without
//! transactions. It commits offsets ten times a second; after a crash it would count records twice.

use std::{
    io::{self, Read},
    time::Duration,
};

use clap::Args;
use hashbrown::HashMap;
use rdkafka::{Message, consumer::BaseConsumer};

use super::{
    app::{ADDS, Add, Sum},
    servers::{Producer, assign_all, consumer_config},
};
use crate::bench::Failure;

/// The topic that it writes to.
pub(super) const TOPIC: &str = "by-hand";
/// How long the producer gathers records.
const LINGER_MS: u32 = 5;
const PATIENCE: Duration = Duration::from_millis(100);

/// What its process is told.
#[derive(Debug, Clone, Args)]
pub(crate) struct ByHand {
    /// The broker.
    #[arg(long)]
    bootstrap: String,
    /// How many records to read.
    #[arg(long)]
    records: u64,
    /// How many partitions the input has.
    #[arg(long)]
    partitions: u32,
}

impl ByHand {
    /// The arguments of the process.
    pub(super) fn arguments(bootstrap: &str, records: u64, partitions: u32) -> Vec<String> {
        let name = ["bench".to_owned(), "fleet-by-hand".to_owned()];
        let options =
            [format!("--bootstrap={bootstrap}"), format!("--records={records}"), format!("--partitions={partitions}")];
        name.into_iter().chain(options).collect()
    }

    /// Does the work, and then waits until standard input ends.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let mut config = consumer_config(&self.bootstrap, "by-hand");
        config.set("enable.auto.commit", "true").set("auto.commit.interval.ms", "100");
        let consumer: BaseConsumer = config.create()?;
        assign_all(&consumer, ADDS, self.partitions)?;
        let producer = Producer::new(&self.bootstrap, LINGER_MS)?;
        let mut totals: HashMap<String, (u64, u64)> = HashMap::new();
        let (mut done, mut value) = (0, Vec::new());
        while done < self.records {
            let Some(message) = consumer.poll(PATIENCE).transpose()? else { continue };
            let add = Add::read(message.payload().unwrap_or_default())?;
            let (count, sum) = totals.entry_ref(add.user()).or_default();
            *count += 1;
            *sum += add.amount();
            value.clear();
            Sum::of(add.user(), *count, *sum).write(&mut value);
            producer.send(TOPIC, add.user(), &value)?;
            done += 1;
        }
        producer.flush()?;
        io::stdin().lock().read_to_end(&mut Vec::new())?;
        Ok(())
    }
}
