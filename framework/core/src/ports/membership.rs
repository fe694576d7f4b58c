//! The membership port: which shards a worker should own, as far as it knows.
//!
//! It serves liveness only. Who does own a shard is decided in the journal: two workers may be
//! named for one shard, or none, for as long as it takes, and nothing is lost or done twice.
//!
//! Invariants an implementation MUST keep:
//! - A worker that starts is named for nothing until news says so.
//! - News of a shard alternates: named, released, named. `is_named` says what the news taken so far
//!   has said.
//! - When workers and moves have come to rest, news ends, and each shard is named for exactly one
//!   living worker.
//!
//! Deliberately absent: any promise in between, and who the other workers are.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::address::ShardId;

/// What a worker learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// It should take the shard over, and claim it again whenever it finds itself deposed.
    Named(ShardId),
    /// It should let the shard go.
    Released(ShardId),
}

/// One worker's knowledge; see the module for the contract.
pub trait Membership: Send {
    /// Takes the next news; `None` if there is none for now.
    fn next_news(&mut self) -> Option<News>;

    /// Whether the worker should own a shard, as far as it has taken news.
    fn is_named(&self, shard: ShardId) -> bool;
}

/// The membership of a worker that is told what it knows.
///
/// ```
/// use statefn_core::ports::membership::{Membership, MemoryMembership, News};
/// let mut membership = MemoryMembership::default();
/// membership.tell(3, true);
/// membership.tell(3, true);
/// assert!(!membership.is_named(3));
/// assert_eq!(membership.next_news(), Some(News::Named(3)));
/// assert_eq!((membership.next_news(), membership.is_named(3)), (None, true));
/// ```
#[derive(Debug, Clone, Default)]
pub struct MemoryMembership {
    named: BTreeSet<ShardId>,
    told: VecDeque<(ShardId, bool)>,
}

impl MemoryMembership {
    /// The membership of the only worker of an app, in one process: all of `shards` shards, in order.
    #[must_use]
    pub fn of_all(shards: u32) -> Self {
        Self { told: (0..shards).map(|shard| (shard, true)).collect(), ..Self::default() }
    }

    /// Tells it whether it should own a shard, from now on.
    pub fn tell(&mut self, shard: ShardId, is_named: bool) {
        self.told.push_back((shard, is_named));
    }
}

impl Membership for MemoryMembership {
    fn next_news(&mut self) -> Option<News> {
        loop {
            let (shard, is_named) = self.told.pop_front()?;
            match is_named {
                true if self.named.insert(shard) => return Some(News::Named(shard)),
                false if self.named.remove(&shard) => return Some(News::Released(shard)),
                // It knows that already.
                _ => {}
            }
        }
    }

    fn is_named(&self, shard: ShardId) -> bool {
        self.named.contains(&shard)
    }
}

/// What must hold of all memberships of an app, checked as its workers take their news.
///
/// [`conformance`] drives it; a simulator, whose workers take news by themselves, tells it of each.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    /// By living worker, the shards that it is named for.
    named: BTreeMap<usize, BTreeSet<ShardId>>,
}

impl Watch {
    /// A worker starts, again or for the first time; it has taken no news.
    ///
    /// # Panics
    /// If it is named for a shard.
    pub fn start(&mut self, worker: usize, member: &impl Membership, shards: u32) {
        let named = (0..shards).find(|shard| member.is_named(*shard));
        assert_eq!(named, None, "worker {worker} starts and is named for nothing yet");
        self.named.insert(worker, BTreeSet::new());
    }

    /// A worker has ended.
    pub fn end(&mut self, worker: usize) {
        self.named.remove(&worker);
    }

    /// A living worker has taken news.
    ///
    /// # Panics
    /// If it is no news, or if `is_named` does not follow it.
    pub fn news(&mut self, worker: usize, news: News, member: &impl Membership) {
        let named = self.named.get_mut(&worker).expect("a worker that takes news has started");
        let (shard, is_named, is_new) = match news {
            News::Named(shard) => (shard, true, named.insert(shard)),
            News::Released(shard) => (shard, false, named.remove(&shard)),
        };
        assert!(is_new, "worker {worker}: {news:?} says what it knows already");
        assert_eq!(member.is_named(shard), is_named, "worker {worker}: `is_named` does not follow {news:?}");
    }

    /// Workers and moves have come to rest, and all news is taken.
    ///
    /// # Panics
    /// If a shard is named for no living worker, or for several.
    pub fn at_rest(&self, shards: u32) {
        for shard in 0..shards {
            let named = self.named.iter().filter(|(_, named)| named.contains(&shard));
            let named: Vec<usize> = named.map(|(worker, _)| *worker).collect();
            assert_eq!(named.len(), 1, "shard {shard} is named for exactly one worker in the end, not {named:?}");
        }
    }
}

/// How much news of one worker may come at a time before the suite says that it never ends.
const NEWS_MAX: u32 = 100_000;

/// The suite that every [`Membership`] passes; `members` are those of all workers of an app of
/// `shards` shards, and `step` lets the next thing happen to them, until it says that nothing will.
///
/// # Panics
/// If a membership breaks its contract.
pub fn conformance<M: Membership>(members: &mut [M], shards: u32, mut step: impl FnMut(&mut [M]) -> bool) {
    let mut watch = Watch::default();
    members.iter().enumerate().for_each(|(worker, member)| watch.start(worker, member, shards));
    let mut goes_on = true;
    while goes_on {
        goes_on = step(members);
        for (worker, member) in members.iter_mut().enumerate() {
            let mut count = 0;
            while let Some(news) = member.next_news() {
                watch.news(worker, news, member);
                count += 1;
                assert!(count < NEWS_MAX, "worker {worker}: news does not end");
            }
        }
    }
    watch.at_rest(shards);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARDS: u32 = 3;

    /// Two workers that start with the shards between them; the first goes to and fro, and the worker
    /// that has lost it learns that late, and twice.
    fn check<M: Membership>(mut members: [M; 2], tell: impl Fn(&mut M, ShardId, bool)) {
        let told = [(0, 0, true), (1, 1, true), (1, 2, true), (1, 0, true), (1, 0, false), (1, 0, true)];
        let mut told = told.into_iter().chain([(0, 0, false), (0, 0, false)]);
        conformance(&mut members, SHARDS, |members| {
            let Some((worker, shard, is_named)) = told.next() else { return false };
            tell(&mut members[worker], shard, is_named);
            true
        });
    }

    /// Repeats what it knows.
    #[derive(Default)]
    struct Repeating(MemoryMembership, Option<News>);

    impl Membership for Repeating {
        fn next_news(&mut self) -> Option<News> {
            self.1.take().or_else(|| {
                self.1 = self.0.next_news();
                self.1
            })
        }

        fn is_named(&self, shard: ShardId) -> bool {
            self.0.is_named(shard)
        }
    }

    #[test]
    fn memory_conforms() {
        check(<[MemoryMembership; 2]>::default(), MemoryMembership::tell);
        conformance(&mut [MemoryMembership::of_all(SHARDS)], SHARDS, |_| false);
    }

    #[test]
    #[should_panic(expected = "worker 0: Named(0) says what it knows already")]
    fn news_that_is_none_is_found() {
        check(<[Repeating; 2]>::default(), |member, shard, is_named| member.0.tell(shard, is_named));
    }

    #[test]
    #[should_panic(expected = "shard 0 is named for exactly one worker in the end, not [0, 1]")]
    fn a_worker_that_never_lets_go_is_found() {
        check(<[MemoryMembership; 2]>::default(), |member, shard, is_named| {
            if is_named {
                member.tell(shard, is_named);
            }
        });
    }
}
