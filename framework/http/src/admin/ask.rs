//! Asking shards, and putting together what several of them found.
//!
//! Invariant: a page is complete: of what all shards found, each up to the limit, the first ones in the
//! order of the whole are told, and the others are left to the next page.

use std::{sync::Arc, time::Duration};

use statefn_core::{
    address::{ShardId, murmur2, shard_of},
    ports::{
        inspect::{Finding, Inspect, KeysWanted, ParkedFound, Question, ShardStatus, TimerFound},
        requests::Unanswered,
    },
    program::FunctionId,
};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use crate::problem::Problem;

/// Asks shards, and waits no longer than it may.
pub(super) struct Asker {
    pub(super) inspect: Arc<dyn Inspect>,
    pub(super) time_max: Duration,
}

impl Asker {
    /// The statuses of all shards that answer, in their order.
    pub(super) async fn statuses(&self) -> Vec<ShardStatus> {
        let found = self.all(&Question::Status).await.into_iter();
        let status = |found| match found {
            Ok(Finding::Status(status)) => Some(*status),
            _ => None,
        };
        found.filter_map(status).collect()
    }

    /// A page of keys, and whether there are more behind them.
    pub(super) async fn keys(&self, wanted: KeysWanted) -> Result<(Vec<Vec<u8>>, bool), Problem> {
        let limit = wanted.limit;
        let found = self.all(&Question::Keys(KeysWanted { limit: limit + 1, ..wanted })).await;
        let mut all = Vec::new();
        for found in found {
            if let Finding::Keys(keys) = found? {
                all.extend(keys);
            }
        }
        all.sort_unstable();
        Ok(cut(all, limit))
    }

    /// A page of parked keys, and whether there are more behind them.
    pub(super) async fn parked(
        &self,
        after: Option<(FunctionId, Vec<u8>)>,
        limit: usize,
    ) -> Result<(Vec<ParkedFound>, bool), Problem> {
        let mut all = Vec::new();
        for found in self.all(&Question::Parked { after, limit: limit + 1 }).await {
            if let Finding::Parked(parked) = found? {
                all.extend(parked);
            }
        }
        all.sort_unstable_by(|one, other| (one.function, &one.key).cmp(&(other.function, &other.key)));
        Ok(cut(all, limit))
    }

    /// A key, if it is parked.
    pub(super) async fn parked_key(&self, function: FunctionId, key: &[u8]) -> Result<Option<ParkedFound>, Problem> {
        match self.one(key, Question::ParkedKey { function, key: key.to_vec() }).await? {
            Finding::Parked(parked) => Ok(parked.into_iter().next()),
            _ => Ok(None),
        }
    }

    /// What waits for its time for a key, and whether there is more.
    pub(super) async fn timers(
        &self,
        function: FunctionId,
        key: &[u8],
        limit: usize,
    ) -> Result<(Vec<TimerFound>, bool), Problem> {
        match self.one(key, Question::Timers { function, key: key.to_vec(), limit: limit + 1 }).await? {
            Finding::Timers(timers) => Ok(cut(timers, limit)),
            _ => Ok((Vec::new(), false)),
        }
    }

    async fn one(&self, key: &[u8], question: Question) -> Result<Finding, Problem> {
        let shard = shard_of(murmur2(key), self.inspect.shards());
        let until = Instant::now() + self.time_max;
        told(until, self.ask(shard, question)).await
    }

    async fn all(&self, question: &Question) -> Vec<Result<Finding, Problem>> {
        let until = Instant::now() + self.time_max;
        let asked: Vec<_> = (0..self.inspect.shards()).map(|shard| self.ask(shard, question.clone())).collect();
        let mut all = Vec::with_capacity(asked.len());
        for asked in asked {
            all.push(told(until, asked).await);
        }
        all
    }

    fn ask(&self, shard: ShardId, question: Question) -> oneshot::Receiver<Result<Finding, Unanswered>> {
        let (teller, asked) = oneshot::channel();
        // Who asked may be gone by then.
        self.inspect.ask(shard, question, Box::new(|found| _ = teller.send(found)));
        asked
    }
}

async fn told(until: Instant, asked: oneshot::Receiver<Result<Finding, Unanswered>>) -> Result<Finding, Problem> {
    match timeout_at(until, asked).await {
        Ok(Ok(found)) => Ok(found?),
        Ok(Err(_)) => Err(Unanswered::NotRunning.into()),
        Err(_) => Err(Unanswered::Expired.into()),
    }
}

fn cut<T>(mut all: Vec<T>, limit: usize) -> (Vec<T>, bool) {
    let is_more = all.len() > limit;
    all.truncate(limit);
    (all, is_more)
}
