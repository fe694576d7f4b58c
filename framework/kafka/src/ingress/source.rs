//! One partition with an end.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::consumer::BaseConsumer;
use statefn_core::{
    ingress::{Batches, ErasedIngress},
    ports::ingress::{ReadLimit, Source, Stretch},
    shard::frame::Position,
};

use super::{
    Format, TopicPartition,
    error::InputError,
    reading::{Reading, consumer, listen, offsets},
};
use crate::{connection::Connection, report::Reporter};

/// How long one look lasts.
const LOOK: Duration = Duration::from_millis(100);
/// A source has an end, which is to be found soon.
const END_WAIT: Duration = Duration::from_millis(10);

/// The committed records of one partition up to an end, with a consumer of its own.
///
/// How it is read stands with its port, [`Source`].
pub struct KafkaSource {
    // Dropped before its consumer.
    reading: Reading,
    consumer: Arc<BaseConsumer<Reporter>>,
    from: u64,
    patience: Duration,
    error: Option<InputError>,
}

impl KafkaSource {
    /// Opens a partition at a position. It ends at `until`; if that is not given, with what is
    /// decided now.
    ///
    /// `group` is for the broker's list of clients; `patience` is how long a call waits without news.
    ///
    /// # Errors
    /// If no client can be made or the broker does not answer.
    pub fn open(
        connection: &Connection,
        group: &str,
        place: TopicPartition,
        format: Format,
        from: Position,
        until: Option<u64>,
        patience: Duration,
    ) -> Result<Self, InputError> {
        let consumer = consumer(connection, group, END_WAIT)?;
        let until = until.map_or_else(|| offsets(&consumer, &place, patience).map(|(_, end)| end), Ok)?;
        let reading = Reading::begin(&consumer, place, format, (from, Some(until)), patience, || {})?;
        Ok(Self { reading, consumer, from: from.offset, patience, error: None })
    }

    fn try_read(
        &mut self,
        ingress: &dyn ErasedIngress,
        batches: &mut Batches,
        limit: ReadLimit,
    ) -> Result<Stretch, InputError> {
        let begun = Instant::now();
        loop {
            listen(&self.consumer)?;
            let (stretch, _) = self.reading.take(ingress, batches, limit, LOOK)?;
            if stretch.from < stretch.to.offset || stretch.to.is_ended {
                return Ok(stretch);
            }
            if begun.elapsed() > self.patience {
                let cause = format!("there was no answer for {} ms", self.patience.as_millis());
                return Err(InputError::failed(format!("read on at offset {}", stretch.from), cause));
            }
        }
    }
}

impl Source for KafkaSource {
    type Error = InputError;

    fn read(
        &mut self,
        ingress: &dyn ErasedIngress,
        batches: &mut Batches,
        limit: ReadLimit,
    ) -> Result<Stretch, InputError> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        let read = self.try_read(ingress, batches, limit);
        self.error = read.as_ref().err().cloned();
        read
    }

    fn position(&self) -> Position {
        self.reading.position()
    }

    fn dead_letters(&self) -> u64 {
        self.reading.dead_letters()
    }

    /// By offsets, which have gaps.
    fn read_permille(&self) -> u64 {
        let (at, until) = (self.position(), self.reading.until().unwrap_or_default());
        if at.is_ended {
            return 1000;
        }
        let all = until.saturating_sub(self.from).max(1);
        ((at.offset - self.from).min(all) * 1000 / all).min(999)
    }
}

impl std::fmt::Debug for KafkaSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaSource").field("position", &self.position()).finish_non_exhaustive()
    }
}
