//! Which worker has which shard: what each one tells the others of itself.
//!
//! Every worker leaves a presence in the partition of progress, when shards come or go, and once a
//! second: its name, where it is reached, the token by which it knows requests that another worker
//! forwards, and its shards with their terms. Who may read the log may do anything to the app, so the
//! token is a secret there.
//!
//! Invariants: of two workers that say they have a shard, the one with the higher term is named; a
//! worker that was silent for [`SILENCE_MAX`] is not named; nothing here decides who owns a shard.
//!
//! Deliberately absent: guarantees. A presence may come late or never, and who is asked for a shard that
//! it does not have says so.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use statefn_core::{
    address::ShardId,
    ports::peers::{Peer, Peers, Place, Worker},
};

use super::super::coordinator::nonce;

/// How often a worker tells of itself if nothing changes.
const PRESENCE_INTERVAL: Duration = Duration::from_secs(1);
/// How long a worker may be silent before it counts as gone.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// How a presence begins; mail and progress begin with another byte.
const MARK: u8 = b'{';

/// What a worker tells of itself.
#[derive(Debug, Serialize, Deserialize)]
struct Presence {
    worker: String,
    /// The run of the process, so that a worker of the same name that is started again is another one.
    process: u64,
    url: Option<String>,
    token: String,
    program: u32,
    shards: BTreeMap<ShardId, u64>,
    /// Whether others are to have its shards, because it ends.
    #[serde(default)]
    is_leaving: bool,
}

/// The workers of a fleet, as this one knows them; see the module.
pub struct Directory {
    process: u64,
    inside: Mutex<Inside>,
}

struct Inside {
    me: Arc<Peer>,
    /// By shard that is here, its term.
    mine: BTreeMap<ShardId, u64>,
    is_leaving: bool,
    told_at: Option<Instant>,
    /// By process, the other workers.
    others: BTreeMap<u64, Known>,
}

struct Known {
    peer: Arc<Peer>,
    shards: BTreeMap<ShardId, u64>,
    is_leaving: bool,
    heard_at: Instant,
}

impl Directory {
    /// A directory of one worker, which has no shards and listens nowhere.
    pub(super) fn new(worker: &str, program: u32) -> Self {
        let token = format!("{:016x}{:016x}", nonce(), nonce());
        let me = Arc::new(Peer { worker: worker.to_owned(), url: None, token, program });
        let (mine, others) = (BTreeMap::new(), BTreeMap::new());
        let inside = Inside { me, mine, is_leaving: false, told_at: None, others };
        Self { process: nonce(), inside: Mutex::new(inside) }
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        // Nothing that holds the lock can leave what it guards half-changed.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This worker takes forwarded requests at this URL from now on.
    pub fn listens_at(&self, url: &str) {
        let mut inside = self.lock();
        inside.me = Arc::new(Peer { url: Some(url.to_owned()), ..Peer::clone(&inside.me) });
        inside.told_at = None;
    }

    /// What a request has to show that another worker forwards to this one.
    #[must_use]
    pub fn token(&self) -> String {
        self.lock().me.token.clone()
    }

    /// A shard is here from now on, in this term.
    pub(super) fn opened(&self, shard: ShardId, term: u64) {
        let mut inside = self.lock();
        inside.mine.insert(shard, term);
        inside.told_at = None;
    }

    /// A shard is not here any more.
    pub(super) fn closed(&self, shard: ShardId) {
        let mut inside = self.lock();
        if inside.mine.remove(&shard).is_some() {
            inside.told_at = None;
        }
    }

    /// This worker ends: others are to have its shards.
    pub(super) fn leaves(&self) {
        let mut inside = self.lock();
        (inside.is_leaving, inside.told_at) = (true, None);
    }

    /// Whether there is another worker that can have the shards of this one.
    pub(super) fn has_heirs(&self, now: Instant) -> bool {
        let is_here = |known: &Known| !known.is_leaving && now.duration_since(known.heard_at) < SILENCE_MAX;
        self.lock().others.values().any(is_here)
    }

    /// The presence to be left in the log, if it is time for one.
    pub(super) fn presence(&self, now: Instant) -> Option<Vec<u8>> {
        let mut inside = self.lock();
        if inside.told_at.is_some_and(|at| now.duration_since(at) < PRESENCE_INTERVAL) {
            return None;
        }
        inside.told_at = Some(now);
        let Peer { worker, url, token, program } = Peer::clone(&inside.me);
        let (shards, is_leaving, process) = (inside.mine.clone(), inside.is_leaving, self.process);
        // Strings and numbers can always be written down.
        serde_json::to_vec(&Presence { worker, process, url, token, program, shards, is_leaving }).ok()
    }

    /// Takes a record of the partition of progress; says whether it was a presence.
    pub(super) fn take(&self, record: &[u8], now: Instant) -> bool {
        if record.first() != Some(&MARK) {
            return false;
        }
        // One that cannot be read is of a worker that this one cannot forward to.
        let Ok(presence) = serde_json::from_slice::<Presence>(record) else { return true };
        if presence.process == self.process {
            return true;
        }
        let mut inside = self.lock();
        let Presence { worker, process, url, token, program, shards, is_leaving } = presence;
        let peer = Peer { worker, url, token, program };
        let peer = match inside.others.get(&process) {
            Some(known) if *known.peer == peer => Arc::clone(&known.peer),
            _ => Arc::new(peer),
        };
        inside.others.insert(process, Known { peer, shards, is_leaving, heard_at: now });
        inside.others.retain(|_, known| now.duration_since(known.heard_at) < SILENCE_MAX);
        true
    }

    fn place_at(&self, shard: ShardId, now: Instant) -> Place {
        let inside = self.lock();
        let heard = inside.others.values().filter(|known| now.duration_since(known.heard_at) < SILENCE_MAX);
        let others = heard.filter_map(|known| Some((*known.shards.get(&shard)?, &known.peer)));
        let best = others.max_by_key(|(term, _)| *term);
        match (inside.mine.get(&shard), best) {
            (Some(mine), Some((term, peer))) if *mine < term => Place::At(Arc::clone(peer)),
            (Some(_), _) => Place::Here,
            (None, Some((_, peer))) => Place::At(Arc::clone(peer)),
            (None, None) => Place::Nowhere,
        }
    }

    fn workers_at(&self, now: Instant) -> Vec<Worker> {
        let inside = self.lock();
        let keys = |shards: &BTreeMap<ShardId, u64>| shards.keys().copied().collect();
        let me = Worker { peer: Arc::clone(&inside.me), is_here: true, shards: keys(&inside.mine) };
        let heard = inside.others.values().filter(|known| now.duration_since(known.heard_at) < SILENCE_MAX);
        let other =
            |known: &Known| Worker { peer: Arc::clone(&known.peer), is_here: false, shards: keys(&known.shards) };
        let mut workers: Vec<Worker> = heard.map(other).chain([me]).collect();
        workers.sort_by(|one, other| one.peer.worker.cmp(&other.peer.worker));
        workers
    }
}

impl Peers for Directory {
    fn place(&self, shard: ShardId) -> Place {
        self.place_at(shard, Instant::now())
    }

    fn workers(&self) -> Vec<Worker> {
        self.workers_at(Instant::now())
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Directory({})", self.lock().me.worker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker_of(place: &Place) -> Option<&str> {
        match place {
            Place::At(peer) => Some(&peer.worker),
            Place::Here | Place::Nowhere => None,
        }
    }

    #[test]
    fn the_worker_with_the_higher_term_has_the_shard() {
        let (now, [here, old, new]) = (Instant::now(), ["here", "old", "new"].map(|name| Directory::new(name, 1)));
        assert_eq!(here.place_at(0, now), Place::Nowhere);
        old.opened(0, 7);
        new.opened(0, 8);
        let [old, new] = [old, new].map(|worker| worker.presence(now).expect("it was never told"));
        assert!(here.take(&new, now) && here.take(&old, now), "in the wrong order");
        assert_eq!(worker_of(&here.place_at(0, now)), Some("new"));
        here.opened(0, 9);
        assert_eq!(here.place_at(0, now), Place::Here);
        here.closed(0);
        here.opened(0, 6);
        assert_eq!(worker_of(&here.place_at(0, now)), Some("new"), "it was deposed and does not know it yet");
    }

    #[test]
    fn a_worker_that_is_silent_is_not_named() {
        let (now, [here, other]) = (Instant::now(), ["here", "other"].map(|name| Directory::new(name, 1)));
        other.listens_at("http://127.0.0.1:1");
        other.opened(3, 1);
        assert!(here.take(&other.presence(now).expect("it was never told"), now));
        let Place::At(peer) = here.place_at(3, now) else { panic!("it is heard of") };
        assert_eq!((peer.url.as_deref(), &peer.token), (Some("http://127.0.0.1:1"), &other.token()));
        assert_eq!(
            here.workers_at(now).iter().map(|worker| worker.shards.clone()).collect::<Vec<_>>(),
            [vec![], vec![3]]
        );
        let later = now + SILENCE_MAX;
        assert_eq!((here.place_at(3, later), here.workers_at(later).len()), (Place::Nowhere, 1));
    }

    #[test]
    fn a_worker_that_leaves_or_is_silent_is_no_heir() {
        let (now, [here, other]) = (Instant::now(), ["here", "other"].map(|name| Directory::new(name, 1)));
        assert!(!here.has_heirs(now));
        here.take(&other.presence(now).expect("it was never told"), now);
        assert!(here.has_heirs(now) && !here.has_heirs(now + SILENCE_MAX));
        other.opened(0, 1);
        other.leaves();
        here.take(&other.presence(now).expect("there is news"), now);
        assert!(!here.has_heirs(now));
        assert_eq!(worker_of(&here.place_at(0, now)), Some("other"), "it has the shard until somebody takes it over");
    }

    #[test]
    fn a_presence_is_told_when_shards_come_or_go_and_once_a_second() {
        let (now, here) = (Instant::now(), Directory::new("here", 1));
        assert!(here.presence(now).is_some());
        assert!(here.presence(now).is_none(), "nothing has changed");
        here.opened(0, 1);
        assert!(here.presence(now).is_some());
        here.closed(1);
        assert!(here.presence(now).is_none(), "it was not here");
        here.closed(0);
        let gone = here.presence(now).expect("a shard has gone");
        assert!(here.presence(now + PRESENCE_INTERVAL).is_some());
        assert!(here.take(&gone, now), "its own is not another worker");
        assert_eq!(here.workers_at(now).len(), 1);
    }

    #[test]
    fn other_records_are_left_alone() {
        let (now, here) = (Instant::now(), Directory::new("here", 1));
        assert!(!here.take(b"PS..", now) && !here.take(b"", now));
        assert!(here.take(b"{\"worker\":", now), "a broken one harms nobody");
        assert_eq!(here.workers_at(now).len(), 1);
    }
}
