//! Requests from outside: a handle for any thread, and what a host keeps of those it has taken.
//!
//! ```text
//! any thread ──► Intake ──► door of the key's host ──(one wake for many)──► host ──► pipeline
//!                  ▲                                                          │
//!                  └──────────── the teller of the request ◄──── answer ◄─────┘
//! ```
//! The intake outlives the lives of the engine: while one ends and the next begins, requests are
//! refused. What is behind a door counts until it is told, so memory is bounded before it grows.
//!
//! Invariants: nobody waits for a host, and no host for an edge; what a host has applied and cannot
//! tell any more is told as unknown; what it has not applied is told as not done.
//!
//! Deliberately absent: deadlines of what was begun; the one who asks knows how long to wait.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use statefn_core::{
    address::{ShardId, murmur2, shard_of},
    effect::{Call, Calls},
    function::Access,
    pipeline::Pipeline,
    ports::{
        inspect::Partition,
        requests::{Condition, Demand, Requests, Tell, Unanswered},
    },
    program::{MessageHandler, Program},
    shard::{Answer, Reply, Request, Wants},
};

use super::{
    Plan, Status,
    pauses::Pauses,
    questions::{Asked, Questions, partitions_of},
    shard_host::{Event, Switchboard},
};

/// How many requests of one host may be pending, answers that wait for their commit included.
const PENDING_MAX: usize = 16_384;
/// How many bytes of keys and messages they may have.
const PENDING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Takes requests for the hosts of a run; clones are the same intake.
#[derive(Clone)]
pub struct Intake {
    pub(super) doors: Arc<Vec<Arc<Door>>>,
    pub(super) shards: u32,
    condition: Arc<AtomicU8>,
    pub(super) status: Arc<Status>,
    pub(super) pauses: Arc<Pauses>,
    pub(super) inputs: Arc<Mutex<Vec<Vec<Partition>>>>,
    program: Arc<Program>,
    is_live: bool,
}

impl Intake {
    /// The intake of a plan, closed until it runs.
    #[must_use]
    pub fn new(plan: &Plan, status: &Arc<Status>) -> Self {
        Self::with_limits(plan, status, PENDING_MAX, PENDING_BYTES_MAX)
    }

    /// An intake that takes no more than `pending_max` requests of a host at a time, and no more
    /// than `bytes_max` bytes of them.
    #[must_use]
    pub fn with_limits(plan: &Plan, status: &Arc<Status>, pending_max: usize, bytes_max: usize) -> Self {
        let door = || Arc::new(Door { pending_max, bytes_max, ..Door::default() });
        Self {
            doors: Arc::new(std::iter::repeat_with(door).take(plan.hosts()).collect()),
            shards: plan.shards,
            condition: Arc::new(AtomicU8::new(Condition::Starting as u8)),
            status: Arc::clone(status),
            pauses: Arc::new(Pauses::of(plan)),
            inputs: Arc::new(Mutex::new(partitions_of(plan))),
            program: Arc::clone(&plan.program),
            is_live: true,
        }
    }

    /// The same for an app that is only looked into and repaired from outside: its event time does not
    /// follow the clock, and it ends with its input.
    #[must_use]
    pub fn beside(self) -> Self {
        Self { is_live: false, ..self }
    }

    /// Whether requests may come at any time.
    pub(super) fn is_live(&self) -> bool {
        self.is_live
    }

    pub(super) fn pauses(&self) -> &Arc<Pauses> {
        &self.pauses
    }

    /// Whether a demand is new work for a function that is held.
    fn is_held(&self, demand: &Demand) -> bool {
        let is_message = matches!(demand.wants, Wants::Answer | Wants::Commit | Wants::Replay);
        let handlers = &self.program.functions[usize::from(demand.function)].spec.messages;
        let is_write = |handler: &MessageHandler| handler.access == Access::Write;
        is_message
            && self.pauses.holds_function(demand.function)
            && handlers.get(usize::from(demand.handler)).is_none_or(is_write)
    }

    pub(super) fn door(&self, host: usize) -> Arc<Door> {
        Arc::clone(&self.doors[host])
    }

    /// Lets requests through to hosts that stand.
    pub(super) fn open(&self, switchboard: &Arc<Switchboard>) {
        self.doors.iter().for_each(|door| door.lock().switchboard = Some(Arc::clone(switchboard)));
        self.condition.store(Condition::Ready as u8, Ordering::Release);
    }

    /// Refuses requests from now on; what is behind the doors may still be taken.
    pub(super) fn close(&self, condition: Condition) {
        self.condition.store(condition as u8, Ordering::Release);
        self.doors.iter().for_each(|door| door.lock().switchboard = None);
    }

    /// Tells those who still wait at a door that nobody comes.
    pub(super) fn send_away(&self) {
        let waiting: Vec<Waiting> =
            self.doors.iter().flat_map(|door| std::mem::take(&mut door.lock().waiting)).collect();
        let asked: Vec<Asked> = self.doors.iter().flat_map(|door| std::mem::take(&mut door.lock().questions)).collect();
        drop(asked);
        waiting.into_iter().for_each(|waiting| waiting.place.tell(Err(Unanswered::NotRunning)));
    }
}

impl fmt::Debug for Intake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Intake({} hosts, {})", self.doors.len(), self.condition())
    }
}

impl Requests for Intake {
    fn demand(&self, demand: Demand, tell: Tell) {
        if self.is_held(&demand) {
            return tell(Err(Unanswered::Paused));
        }
        let hash = murmur2(&demand.key);
        let shard = shard_of(hash, self.shards);
        let door = &self.doors[shard as usize % self.doors.len()];
        match door.place(demand.key.len() + demand.payload.len(), tell) {
            Ok(place) => door.enter(Waiting { shard, hash, until: Instant::now() + demand.patience, demand, place }),
            Err(tell) => tell(Err(Unanswered::Overloaded)),
        }
    }

    fn condition(&self) -> Condition {
        match self.condition.load(Ordering::Acquire) {
            ready if ready == Condition::Ready as u8 => {
                if self.status.is_blocked.load(Ordering::Relaxed) {
                    Condition::Blocked
                } else {
                    Condition::Ready
                }
            }
            starting if starting == Condition::Starting as u8 => Condition::Starting,
            _ => Condition::Stopping,
        }
    }
}

/// Where the requests for one host wait until it takes them.
#[derive(Default)]
pub(super) struct Door {
    inside: Mutex<Inside>,
    /// Requests that are not told yet, and their bytes.
    pub(super) pending: AtomicUsize,
    pub(super) bytes: AtomicUsize,
    /// Questions that are not told yet.
    pub(super) asked: AtomicUsize,
    pending_max: usize,
    bytes_max: usize,
}

#[derive(Default)]
pub(super) struct Inside {
    waiting: Vec<Waiting>,
    pub(super) questions: Vec<Asked>,
    /// The hosts; none while requests are refused.
    pub(super) switchboard: Option<Arc<Switchboard>>,
}

impl Door {
    pub(super) fn lock(&self) -> MutexGuard<'_, Inside> {
        // Nothing that holds the lock can leave what it guards half-changed.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a request of so many bytes; `tell` comes back if there is none.
    fn place(self: &Arc<Self>, bytes: usize, tell: Tell) -> Result<Place, Tell> {
        let pending = self.pending.fetch_add(1, Ordering::AcqRel);
        let before = self.bytes.fetch_add(bytes, Ordering::AcqRel);
        let place = Place { door: Arc::clone(self), bytes, tell: Some(tell) };
        if pending < self.pending_max && before + bytes <= self.bytes_max { Ok(place) } else { Err(place.give_up()) }
    }

    fn enter(&self, waiting: Waiting) {
        let mut inside = self.lock();
        let Some(switchboard) = inside.switchboard.clone() else {
            drop(inside);
            return waiting.place.tell(Err(Unanswered::NotRunning));
        };
        let host = switchboard.host_of(waiting.shard);
        inside.waiting.push(waiting);
        if inside.waiting.len() == 1 {
            // Under the lock: who closes the door knows that every request behind it was announced.
            switchboard.post(host, vec![Event::Requests]);
        }
    }
}

/// A request that counts until it is told.
struct Place {
    door: Arc<Door>,
    bytes: usize,
    tell: Option<Tell>,
}

impl Place {
    fn tell(mut self, outcome: Result<Reply, Unanswered>) {
        let tell = self.tell.take();
        // There is room for the next request before the one who waits can make it.
        drop(self);
        if let Some(tell) = tell {
            tell(outcome);
        }
    }

    fn give_up(mut self) -> Tell {
        self.tell.take().expect("what was not told can be given back")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.door.pending.fetch_sub(1, Ordering::AcqRel);
        self.door.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        if let Some(tell) = self.tell.take() {
            // A host was dropped with it: its epoch may be committed or not.
            tell(Err(Unanswered::Unknown));
        }
    }
}

struct Waiting {
    shard: ShardId,
    hash: u32,
    until: Instant,
    demand: Demand,
    place: Place,
}

/// The requests that a host has taken in.
pub(super) struct Desk {
    door: Arc<Door>,
    /// Those that are not applied yet.
    waiting: VecDeque<Waiting>,
    /// Those whose answers wait for their commit.
    applied: HashMap<u64, (Place, Duration)>,
    /// Those whose handlers answer later, and until when they wait.
    deferred: HashMap<u64, (Place, Instant)>,
    /// Answers that may be told.
    answers: Vec<Answer>,
    next: u64,
    questions: Questions,
}

impl Desk {
    pub(super) fn new(door: Arc<Door>) -> Self {
        Self {
            door,
            waiting: VecDeque::new(),
            applied: HashMap::new(),
            deferred: HashMap::new(),
            answers: Vec::new(),
            next: 0,
            questions: Questions::default(),
        }
    }

    /// Takes in what waits at the door.
    pub(super) fn take_in(&mut self) {
        let mut inside = self.door.lock();
        self.waiting.extend(std::mem::take(&mut inside.waiting));
        self.questions.take_in(std::mem::take(&mut inside.questions));
    }

    /// Looks on into questions for a while; returns whether there is more to look for.
    pub(super) fn look(&mut self, pipeline: &Pipeline) -> bool {
        !self.questions.is_empty() && self.questions.go_on(pipeline)
    }

    /// The next request to be applied; `owns` says whether its shard is here.
    ///
    /// If parked keys have stopped the input, only what is about them is done, and what changes nothing.
    pub(super) fn next(&mut self, is_stopped: bool, owns: impl Fn(ShardId) -> bool) -> Option<(ShardId, Request)> {
        loop {
            let Waiting { shard, hash, until, demand, place } = self.waiting.pop_front()?;
            if Instant::now() >= until {
                place.tell(Err(Unanswered::Expired));
            } else if is_stopped && !(demand.wants.is_about_parked() || demand.wants == Wants::State) {
                place.tell(Err(Unanswered::Overloaded));
            } else if !owns(shard) {
                place.tell(Err(Unanswered::Elsewhere));
            } else {
                self.next += 1;
                self.applied.insert(self.next, (place, demand.deferral_max));
                let mut calls = Calls::default();
                let call = Call::message(demand.function, demand.handler, hash, demand.time);
                let call = Call { is_timer: demand.is_timer, ..call };
                calls.push(call, &demand.key, &demand.payload);
                let request = Request {
                    id: self.next,
                    wants: demand.wants,
                    once: demand.once,
                    calls,
                    delay_ms: u64::try_from(demand.delay.as_millis()).unwrap_or(u64::MAX),
                    trace: demand.trace,
                };
                return Some((shard, request));
            }
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn answer(&mut self, answer: Answer) {
        self.answers.push(answer);
    }

    /// Tells the answers that came, outside of everything else that a host does.
    pub(super) fn tell(&mut self) {
        for Answer { request, reply } in self.answers.drain(..) {
            let applied = self.applied.remove(&request);
            match reply {
                Reply::Deferred => {
                    let deferred = applied.map(|(place, longest)| (place, Instant::now() + longest));
                    self.deferred.extend(deferred.map(|deferred| (request, deferred)));
                }
                reply => {
                    let deferred = self.deferred.remove(&request).map(|(place, _)| place);
                    let place = applied.map(|(place, _)| place).or(deferred);
                    place.into_iter().for_each(|place| place.tell(Ok(reply.clone())));
                }
            }
        }
    }

    /// Sends away those who have waited long enough for an answer that comes later; all of them, if the
    /// host stops. They ask again with their idempotency keys.
    pub(super) fn send_away_deferred(&mut self, is_stopping: bool) {
        let now = Instant::now();
        // Dropped, they are told that nobody knows.
        self.deferred.retain(|_, (_, until)| !is_stopping && now < *until);
    }

    /// Whether nobody waits, neither here nor at the door.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.applied.is_empty() && self.door.lock().waiting.is_empty()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        // These were never begun.
        self.waiting.drain(..).for_each(|waiting| waiting.place.tell(Err(Unanswered::NotRunning)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    fn waiting(door: &Arc<Door>) -> (Waiting, Receiver<Result<Reply, Unanswered>>) {
        let (teller, told) = channel();
        let tell: Tell = Box::new(move |outcome| teller.send(outcome).expect("the test waits"));
        let patience = Duration::from_secs(60);
        let (key, payload) = (vec![1], vec![2]);
        let demand = Demand { payload, ..Demand::new(0, Wants::Answer, key, patience) };
        let Ok(place) = door.place(2, tell) else { panic!("there is room") };
        (Waiting { shard: 0, hash: 0, until: Instant::now() + patience, demand, place }, told)
    }

    #[test]
    fn a_host_that_is_dropped_leaves_nobody_without_word() {
        let door = Arc::new(Door { pending_max: 3, bytes_max: 100, ..Door::default() });
        let mut desk = Desk::new(Arc::clone(&door));
        let mut told = Vec::new();
        for _ in 0..3 {
            let (waiting, receiver) = waiting(&door);
            door.lock().waiting.push(waiting);
            told.push(receiver);
        }
        desk.take_in();
        let (_, begun) = desk.next(false, |_| true).expect("one waits");
        let (_, answered) = desk.next(false, |_| true).expect("one waits");
        desk.answer(Answer { request: answered.id, reply: Reply::Taken });
        desk.tell();
        assert_eq!(begun.id + 1, answered.id);
        assert_eq!(door.pending.load(Ordering::Relaxed), 2);
        drop(desk);
        let told: Vec<_> = told.into_iter().map(|receiver| receiver.recv().expect("is told")).collect();
        assert_eq!(told, [Err(Unanswered::Unknown), Ok(Reply::Taken), Err(Unanswered::NotRunning)]);
        assert_eq!((door.pending.load(Ordering::Relaxed), door.bytes.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn a_shard_that_is_elsewhere_is_said_to_be() {
        let door = Arc::new(Door { pending_max: 1, bytes_max: 100, ..Door::default() });
        let mut desk = Desk::new(Arc::clone(&door));
        let (waiting, told) = waiting(&door);
        door.lock().waiting.push(waiting);
        assert!(!desk.is_idle());
        desk.take_in();
        assert!(desk.next(false, |_| false).is_none());
        assert_eq!(told.recv(), Ok(Err(Unanswered::Elsewhere)));
        assert!(desk.is_idle());
    }
}
