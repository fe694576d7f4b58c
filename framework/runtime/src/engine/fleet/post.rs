//! What a worker leaves for others in the log, and what it finds there: mail, progress and workers.
//!
//! One thread follows the mailboxes of the shards that are here, and the partition of progress. Hosts
//! get the records, and let a mailbox rest while its shard takes no more.
//!
//! Invariants: the records of a mailbox reach a host in order, each once for an ownership of the shard;
//! those that were on their way for an ownership before are passed over.
//!
//! Deliberately absent: outcomes. What does not reach a mailbox comes again, as its target's progress
//! does not cover it; progress is repeated anyway.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, unbounded};
use statefn_core::{
    address::ShardId,
    pipeline::{Append, Pipeline, Taken},
    ports::{
        log::{Offset, Partition},
        shared::{Appender, Follower, SharedLog},
    },
    program::Program,
    shard::{
        frame::Position,
        outbox::Mail,
        progress::Progress,
        wire::{encode_mail, encode_progress, mailbox_partition, progress_partition},
    },
    time::ProcessingTime,
};

use super::{
    super::{
        RunError,
        coordinator::spawn,
        shard_host::{Event, Switchboard},
    },
    ClerkRequest, Directory, FeedRequest,
};

/// How long the thread waits for records before it looks for requests.
const PATIENCE: Duration = Duration::from_millis(10);
/// How often it is looked whether partitions that are silent have records.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often a log that cannot be read is reported.
const TROUBLE_INTERVAL: Duration = Duration::from_secs(10);
/// How often a host tells others its progress, at most.
const PROGRESS_PAUSE: Duration = Duration::from_millis(5);
/// How many bytes of a mailbox wait in memory before it rests; at half of it, it goes on.
const WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;

#[derive(Debug, Clone, Copy)]
pub(crate) enum PostRequest {
    /// The mailbox of a shard is to be followed for the ownership with this nonce.
    Follow(ShardId, u64),
    Leave(ShardId),
    Rest(ShardId, bool),
    Stop,
}

/// Starts the thread; it ends with [`PostRequest::Stop`]. Progress is followed from its end on.
pub(super) fn start(
    mut follower: Box<dyn Follower>,
    mut log: Box<dyn SharedLog>,
    shards: u32,
    directory: Arc<Directory>,
    switchboard: Arc<Switchboard>,
) -> Result<(Sender<PostRequest>, JoinHandle<()>), RunError> {
    let (sender, requests) = unbounded();
    let progress = progress_partition(shards);
    let from = log.ends(&[progress]).map_err(RunError::Broken)?.first().copied().unwrap_or_default();
    follower.follow(progress, from);
    let mut reader = Reader {
        follower,
        log,
        shards,
        directory,
        switchboard,
        nonces: BTreeMap::new(),
        followed: [(progress, Followed::from(from))].into(),
        looked_at: Instant::now(),
        told_at: None,
    };
    let thread = spawn("post", move || reader.run(&requests))?;
    Ok((sender, thread))
}

/// How far a partition is followed.
struct Followed {
    /// The offset behind the last record that came.
    next: Offset,
    /// Whether none has come since it was looked where the partition ends.
    is_silent: bool,
    /// Whether none has come since it was followed again because of that.
    is_anew: bool,
    is_resting: bool,
}

impl Followed {
    fn from(next: Offset) -> Self {
        Self { next, is_silent: false, is_anew: false, is_resting: false }
    }
}

struct Reader {
    follower: Box<dyn Follower>,
    log: Box<dyn SharedLog>,
    shards: u32,
    directory: Arc<Directory>,
    switchboard: Arc<Switchboard>,
    /// By shard that is followed, the ownership it is followed for.
    nonces: BTreeMap<ShardId, u64>,
    followed: BTreeMap<Partition, Followed>,
    looked_at: Instant,
    told_at: Option<Instant>,
}

impl Reader {
    fn run(&mut self, requests: &Receiver<PostRequest>) {
        while !requests.try_iter().any(|request| self.take(&request)) {
            self.read();
            if self.looked_at.elapsed() >= LOOK_INTERVAL {
                self.looked_at = Instant::now();
                self.look_for_silence();
            }
        }
    }

    /// Follows partitions again that have records and give none. A client that stops to fetch one, as after
    /// the broker was away, would keep back the messages and the event time of all others for good. Where
    /// that does not help the client is of no more use: it was seen to give nothing for a minute.
    fn look_for_silence(&mut self) {
        let silent: Vec<Partition> =
            self.followed.iter().filter(|(_, followed)| followed.is_silent).map(|(partition, _)| *partition).collect();
        self.followed.values_mut().for_each(|followed| followed.is_silent = !followed.is_resting);
        if let Err(error) = self.log.refresh(&silent) {
            return self.complain(&error);
        }
        let mut is_of_use = true;
        for partition in silent {
            let (start, end) = (self.log.start(partition), self.log.end(partition));
            let Some(followed) = self.followed.get_mut(&partition).filter(|followed| followed.next.max(start) < end)
            else {
                continue;
            };
            tracing::warn!(partition, next = followed.next, start, end, "a partition has records and gives none");
            followed.is_silent = false;
            is_of_use &= !std::mem::replace(&mut followed.is_anew, true);
            // A place that was trimmed would make the client look where all partitions begin.
            self.follower.follow(partition, followed.next.max(start));
        }
        if !is_of_use {
            self.renew();
        }
    }

    fn renew(&mut self) {
        tracing::warn!("the reader of mailboxes and progress is replaced");
        match self.follower.renew() {
            Ok(()) => self.followed.values_mut().for_each(|followed| followed.is_anew = false),
            Err(error) => self.complain(&error),
        }
    }

    fn complain(&mut self, error: &str) {
        if self.told_at.is_none_or(|at| at.elapsed() >= TROUBLE_INTERVAL) {
            self.told_at = Some(Instant::now());
            tracing::warn!("mailboxes and progress cannot be read: {error}");
        }
    }

    /// Does what is asked for; returns whether it is the last.
    fn take(&mut self, request: &PostRequest) -> bool {
        let mailbox = |shard: ShardId| mailbox_partition(self.shards, shard);
        match *request {
            PostRequest::Follow(shard, nonce) => {
                self.nonces.insert(shard, nonce);
                // From the first record that is kept: what the shard has seen stands in its frames.
                self.followed.insert(mailbox(shard), Followed::from(0));
                self.follower.follow(mailbox(shard), 0);
            }
            PostRequest::Leave(shard) => {
                self.nonces.remove(&shard);
                self.followed.remove(&mailbox(shard));
                self.follower.leave(mailbox(shard));
            }
            PostRequest::Rest(shard, is_resting) => {
                if let Some(followed) = self.followed.get_mut(&mailbox(shard)) {
                    (followed.is_resting, followed.is_silent) = (is_resting, false);
                }
                self.follower.rest(mailbox(shard), is_resting);
            }
            PostRequest::Stop => return true,
        }
        false
    }

    fn read(&mut self) {
        let (mut mail, mut progress) = (BTreeMap::<ShardId, Vec<(Offset, Vec<u8>)>>::new(), Vec::new());
        let of_progress = progress_partition(self.shards);
        let (followed, directory, now) = (&mut self.followed, &self.directory, Instant::now());
        let read = self.follower.next(PATIENCE, &mut |partition: Partition, offset, record| {
            if let Some(followed) = followed.get_mut(&partition) {
                (followed.next, followed.is_silent, followed.is_anew) = (offset + 1, false, false);
            }
            if partition == of_progress && directory.take(record, now) {
                // It was told of a worker.
            } else if partition == of_progress {
                progress.push(record.to_vec());
            } else {
                mail.entry(partition - self.shards).or_default().push((offset, record.to_vec()));
            }
        });
        if let Err(error) = read {
            self.complain(&error);
        }
        for (shard, records) in mail {
            let Some(nonce) = self.nonces.get(&shard) else { continue };
            let host = self.switchboard.host_of(shard);
            self.switchboard.post(host, vec![Event::Mailbox(shard, *nonce, records)]);
        }
        if !progress.is_empty() {
            let progress = Arc::new(progress);
            let hosts = 0..self.switchboard.states.len();
            hosts.for_each(|host| self.switchboard.post(host, vec![Event::ProgressRecords(Arc::clone(&progress))]));
        }
    }
}

/// What a host has of the shared log.
pub(crate) struct SharedJournal {
    pub(crate) appender: Arc<dyn Appender>,
    /// None in a program whose shards send each other nothing.
    pub(crate) posts: Option<Sender<PostRequest>>,
    pub(crate) clerk: Sender<ClerkRequest>,
    /// None in an app without input that the fleet reads.
    pub(crate) feed: Option<Sender<FeedRequest>>,
    pub(crate) program: Arc<Program>,
    pub(crate) shards: u32,
    pub(crate) record_bytes_max: usize,
    inboxes: BTreeMap<ShardId, Inbox>,
    /// What others are to be told, the newest of each shard.
    news: Vec<Arc<Progress>>,
    told_at: Option<Instant>,
}

/// The records of a mailbox that wait for their shard.
struct Inbox {
    nonce: u64,
    waiting: VecDeque<(Offset, Vec<u8>)>,
    bytes: usize,
    is_resting: bool,
}

impl SharedJournal {
    pub(super) fn new(
        appender: Arc<dyn Appender>,
        posts: Option<Sender<PostRequest>>,
        clerk: Sender<ClerkRequest>,
        feed: Option<Sender<FeedRequest>>,
        program: Arc<Program>,
        shards: u32,
        record_bytes_max: usize,
    ) -> Self {
        let (inboxes, news) = (BTreeMap::new(), Vec::new());
        Self { appender, posts, clerk, feed, program, shards, record_bytes_max, inboxes, news, told_at: None }
    }

    /// Begins the append of an owner with this nonce; `host` is told what came of it.
    pub(crate) fn append(&self, append: Append, nonce: u64, host: usize, switchboard: &Arc<Switchboard>) {
        let Append { shard, records } = append;
        let switchboard = Arc::clone(switchboard);
        let told = move |outcome| switchboard.post(host, vec![Event::Told(shard, nonce, outcome)]);
        self.appender.append(shard, records, Box::new(told));
    }

    /// Leaves mail in the mailbox of its target.
    pub(crate) fn publish(&self, mail: &Mail) {
        let records = encode_mail(&self.program, mail, self.record_bytes_max);
        self.leave_records(mailbox_partition(self.shards, mail.target), records);
    }

    /// Tells others how far shards have come, soon.
    pub(crate) fn tell_progress(&mut self, news: &[Arc<Progress>]) {
        for progress in news {
            self.news.retain(|known| known.shard != progress.shard);
            self.news.push(Arc::clone(progress));
        }
    }

    /// Leaves progress for others, if there is any and the last was not a moment ago.
    pub(crate) fn flush(&mut self) {
        if self.news.is_empty() || self.told_at.is_some_and(|at| at.elapsed() < PROGRESS_PAUSE) {
            return;
        }
        self.told_at = Some(Instant::now());
        let records = encode_progress(&self.program, &self.news, self.record_bytes_max);
        self.news.clear();
        self.leave_records(progress_partition(self.shards), records);
    }

    fn leave_records(&self, partition: Partition, records: Vec<Vec<u8>>) {
        for record in records {
            self.appender.append(partition, vec![Arc::new(record)], Box::new(|_| ()));
        }
    }

    /// The shard is here from now on, under this nonce, and has these positions.
    pub(crate) fn open(&mut self, shard: ShardId, nonce: u64, positions: &[Vec<Option<Position>>]) {
        // The thread is gone only when nothing is to be read any more.
        self.feed.iter().for_each(|feed| _ = feed.send(FeedRequest::Opened(shard, positions.to_vec())));
        if self.posts.is_some() {
            let (waiting, bytes, is_resting) = (VecDeque::new(), 0, false);
            self.inboxes.insert(shard, Inbox { nonce, waiting, bytes, is_resting });
            self.ask(PostRequest::Follow(shard, nonce));
        }
    }

    /// The shard is no longer here.
    pub(crate) fn close(&mut self, shard: ShardId) {
        self.feed.iter().for_each(|feed| _ = feed.send(FeedRequest::Closed(shard)));
        if self.inboxes.remove(&shard).is_some() {
            self.ask(PostRequest::Leave(shard));
        }
    }

    /// Takes in records of a mailbox.
    pub(crate) fn arrive(&mut self, shard: ShardId, nonce: u64, records: Vec<(Offset, Vec<u8>)>) {
        let Some(inbox) = self.inboxes.get_mut(&shard).filter(|inbox| inbox.nonce == nonce) else { return };
        inbox.bytes += records.iter().map(|(_, record)| record.len()).sum::<usize>();
        inbox.waiting.extend(records);
        if inbox.bytes > WAITING_BYTES_MAX && !inbox.is_resting {
            inbox.is_resting = true;
            self.ask(PostRequest::Rest(shard, true));
        }
    }

    fn ask(&self, request: PostRequest) {
        // The thread is gone only when the run is over.
        self.posts.iter().for_each(|posts| _ = posts.send(request));
    }

    /// Gives shards the mail that waits, as far as they take it; returns whether any was taken.
    pub(crate) fn deliver(&mut self, pipeline: &mut Pipeline, now: ProcessingTime) -> bool {
        let mut is_any = false;
        for (shard, inbox) in &mut self.inboxes {
            while let Some((offset, record)) = inbox.waiting.front() {
                if pipeline.mailbox_record(*shard, *offset, record, now) == Taken::NotYet {
                    break;
                }
                is_any = true;
                inbox.bytes -= record.len();
                inbox.waiting.pop_front();
            }
            if inbox.is_resting && inbox.bytes <= WAITING_BYTES_MAX / 2 {
                inbox.is_resting = false;
                self.posts.iter().for_each(|posts| _ = posts.send(PostRequest::Rest(*shard, false)));
            }
        }
        is_any
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            super::{Status, coordinator::switchboard, disk_tests::app},
            Backend,
            memory::{MemoryBackend, World},
        },
        *,
    };

    /// Gives nothing until it is renewed, as a client of a broker was seen to.
    struct Deaf {
        follower: Box<dyn Follower>,
        is_deaf: bool,
        followed: usize,
    }

    impl Follower for Deaf {
        fn follow(&mut self, partition: Partition, from: Offset) {
            self.followed += 1;
            self.follower.follow(partition, from);
        }
        fn leave(&mut self, partition: Partition) {
            self.follower.leave(partition);
        }
        fn rest(&mut self, partition: Partition, is_resting: bool) {
            self.follower.rest(partition, is_resting);
        }
        fn renew(&mut self) -> Result<(), String> {
            assert!(self.followed > 1, "what is silent is followed again before");
            self.is_deaf = false;
            self.follower.renew()
        }
        fn next(&mut self, patience: Duration, each: &mut dyn FnMut(Partition, Offset, &[u8])) -> Result<(), String> {
            if self.is_deaf { Ok(()) } else { self.follower.next(patience, each) }
        }
    }

    #[test]
    fn a_follower_that_gives_nothing_is_followed_anew_and_then_replaced() {
        let plan = app::plan(0);
        let (switchboard, _notices) = switchboard(&plan, &Arc::new(Status::new()), true);
        let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::new(&World::new(plan.shards, 0), 0));
        let progress = progress_partition(plan.shards);
        let appender = backend.appender().expect("memory");
        appender.append(progress, vec![Arc::new(b"unreadable".to_vec())], Box::new(|told| assert!(told.is_ok())));
        let follower = backend.follower().expect("memory");
        let mut reader = Reader {
            follower: Box::new(Deaf { follower, is_deaf: true, followed: 0 }),
            log: backend.log().expect("memory"),
            shards: plan.shards,
            directory: Arc::new(Directory::new("worker", 0)),
            switchboard,
            nonces: BTreeMap::new(),
            followed: [(progress, Followed::from(0))].into(),
            looked_at: Instant::now(),
            told_at: None,
        };
        reader.follower.follow(progress, 0);
        let next = |reader: &Reader| reader.followed[&progress].next;
        let looks = (1..10).find(|_| {
            reader.look_for_silence();
            reader.read();
            next(&reader) > 0
        });
        assert_eq!(looks, Some(4), "two looks for each step");
        reader.look_for_silence();
        assert!(!reader.followed[&progress].is_anew);
    }
}
