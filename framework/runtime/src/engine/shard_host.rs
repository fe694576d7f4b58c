//! The shard host: one actor on one thread, which drives the pipeline of its shards in batches.

use std::{
    collections::{BTreeSet, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message};
use crossbeam_channel::Sender;
use statefn_core::{
    activity::CallOutcome,
    address::ShardId,
    ingress::IngressBatch,
    pipeline::{Action, Append, Pipeline},
    ports::{
        clock::Clock,
        log::{AppendError, Offset},
    },
    shard::{
        ActivityCall, Counters, Emission, Shard, frame::SnapshotMark, outbox::Mail, progress::Progress,
        wire::mailbox_partition,
    },
    watch::Watch,
};
use tokio::sync::mpsc::UnboundedSender;

use super::{
    SpanSink, Spans, Status,
    coordinator::Notice,
    egress_writer::EgressRequest,
    fleet::{ClerkRequest, SharedJournal},
    log_writer::LogRequest,
    panics,
    reader::{Attempt, Permit, Readers},
    requests::Desk,
    snapshot_writer::SnapshotRequest,
    spans,
    status::Held,
};
use crate::{clock::MachineClock, failpoint::failpoint};

/// How often it is told that parked keys keep a host from taking input, or make dead letters.
const PARKED_INTERVAL: Duration = Duration::from_secs(10);
/// In a fleet, which has many shards: in how many ticks a host that has nothing to do looks once what the clock
/// has brought.
const IDLE_TICKS: u32 = 10;
/// How many requests are applied before a host looks whether it is full.
const REQUESTS_AT_A_TIME: usize = 256;

/// A batch of things that happened, for one host.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Events(pub(crate) Vec<Event>);

pub(crate) enum Event {
    Input(Share),
    Mail(Mail),
    Progress(Vec<Arc<Progress>>),
    Appended(Vec<(ShardId, u64)>),
    SnapshotStored(ShardId, Option<SnapshotMark>),
    SnapshotReadBack(ShardId, SnapshotMark, bool),
    SnapshotWanted(ShardId),
    EgressTaken(Vec<(ShardId, u64)>),
    /// The call of an activity has a result.
    Result(ShardId, u64, CallOutcome),
    /// Requests or questions wait at the door.
    Requests,
    Drain,
    /// In a fleet: a shard was taken over.
    Adopt(Box<Adopted>),
    /// In a fleet: a shard is another worker's.
    Release(ShardId),
    /// In a fleet: whether another worker is to have a shard, which is worked on until it does.
    Leaving(ShardId, bool),
    /// In a fleet: what came of an append of the owner with this nonce.
    Told(ShardId, u64, Result<Offset, AppendError>),
    /// In a fleet: records of the mailbox of a shard, for the owner with this nonce.
    Mailbox(ShardId, u64, Vec<(Offset, Vec<u8>)>),
    /// In a fleet: records of the partition of progress.
    ProgressRecords(Arc<Vec<Vec<u8>>>),
    /// In a fleet: where the journal of a shard ends, and the question that asked for it.
    JournalEnd(ShardId, u64, Offset),
}

/// A shard that was taken over, and what its egresses may lack.
pub(crate) struct Adopted {
    pub(crate) shard: Box<Shard>,
    /// Up to which epoch they have its records, at least.
    pub(crate) egress_taken: u64,
    /// By shard, what is known of that since.
    pub(crate) taken_since: Arc<Vec<AtomicU64>>,
    pub(crate) emissions: Vec<Emission>,
}

/// What one host gets of a stretch of input.
pub(crate) struct Share {
    pub(crate) batches: Vec<(ShardId, IngressBatch)>,
    /// Takes the batches back once they are applied: memory that was used a moment ago is near.
    pub(crate) spares: Sender<Vec<(ShardId, IngressBatch)>>,
    /// Given back when the share is applied.
    pub(crate) _permit: Arc<Permit>,
}

impl Drop for Share {
    fn drop(&mut self) {
        // The reader is gone when nothing is to be read any more.
        let _ = self.spares.send(std::mem::take(&mut self.batches));
    }
}

/// What all threads of a run know.
pub(crate) struct Switchboard {
    pub(crate) hosts: OnceLock<Vec<Addr<ShardHost>>>,
    pub(crate) states: Vec<HostState>,
    /// By shard, whether a host of this process has it.
    pub(crate) here: Vec<AtomicBool>,
    pub(crate) status: Arc<Status>,
    /// How many bytes egresses may be behind before hosts stop taking input.
    pub(crate) egress_backlog_bytes_max: usize,
    pub(crate) notices: UnboundedSender<Notice>,
    /// Batches of events that were sent to hosts, and that hosts are done with.
    pub(crate) sent: AtomicU64,
    pub(crate) handled: AtomicU64,
}

/// What a host says of itself.
#[derive(Default)]
pub(crate) struct HostState {
    pub(crate) is_finished: AtomicBool,
    pub(crate) is_idle: AtomicBool,
    /// The call that it makes.
    pub(crate) watch: Arc<Watch>,
}

impl Switchboard {
    pub(crate) fn host_of(&self, shard: ShardId) -> usize {
        shard as usize % self.states.len()
    }

    pub(crate) fn post(&self, host: usize, events: Vec<Event>) {
        // Before the hosts stand only writers have news, which they will have again.
        if let Some(hosts) = self.hosts.get() {
            self.sent.fetch_add(1, Ordering::AcqRel);
            hosts[host].do_send(Events(events));
        }
    }

    pub(crate) fn notify(&self, notice: Notice) {
        // The coordinator is gone only when the run is over.
        let _ = self.notices.send(notice);
    }

    /// Whether `is_so` holds for every host, and no event is on its way or being handled.
    pub(crate) fn is_quiet(&self, is_so: impl Fn(&HostState) -> bool) -> bool {
        let handled = self.handled.load(Ordering::Acquire);
        let all = self.states.iter().all(is_so);
        all && self.sent.load(Ordering::Acquire) == handled
    }
}

/// Where a host gives its frames.
pub(crate) enum Journal {
    /// To the thread that writes the log.
    Log(Sender<LogRequest>),
    /// Nowhere; by shard, the offset that the next record would have.
    Memory(Vec<u64>),
    /// To a log that other processes write to as well.
    Shared(SharedJournal),
}

/// The number of the question by which a host learns that a shard has another owner; those of
/// pipelines begin with 1.
const HAS_ANOTHER_OWNER: u64 = 0;

/// Where a host hands on what is no frame.
pub(crate) struct Ends {
    pub(crate) egress: Sender<EgressRequest>,
    pub(crate) snapshots: Sender<SnapshotRequest>,
    /// Calls of activities, if the program has any.
    pub(crate) calls: Option<UnboundedSender<ActivityCall>>,
    pub(crate) spans: Option<SpanSink>,
}

pub(crate) struct ShardHost {
    number: usize,
    pipeline: Pipeline,
    switchboard: Arc<Switchboard>,
    readers: Arc<Readers>,
    desk: Desk,
    journal: Journal,
    ends: Ends,
    tick: Duration,
    /// Whether it will be woken when the pace of an ingress allows to read on.
    is_woken: bool,
    waiting: VecDeque<Share>,
    outgoing: Vec<Vec<Event>>,
    emissions: Vec<Emission>,
    appends: Vec<Append>,
    opened_at: Option<Instant>,
    sealed_at: Option<Instant>,
    is_draining: bool,
    is_broken: bool,
    /// How many ticks were passed over since the last one that was not.
    passed_ticks: u32,
    /// Shards that another worker is to have.
    leaving: BTreeSet<ShardId>,
    /// When it was last told that parked keys have come to their limits, and how many calls they had refused.
    alarmed_at: Option<Instant>,
    parked_refused: u64,
}

impl ShardHost {
    #[allow(clippy::too_many_arguments, reason = "the ends of all channels of a host, named once, where it is made")]
    pub(crate) fn new(
        number: usize,
        pipeline: Pipeline,
        switchboard: Arc<Switchboard>,
        readers: Arc<Readers>,
        desk: Desk,
        journal: Journal,
        ends: Ends,
        tick: Duration,
    ) -> Self {
        let hosts = switchboard.states.len();
        Self {
            number,
            pipeline,
            switchboard,
            readers,
            desk,
            journal,
            ends,
            tick,
            is_woken: false,
            waiting: VecDeque::new(),
            outgoing: std::iter::repeat_with(Vec::new).take(hosts).collect(),
            emissions: Vec::new(),
            appends: Vec::new(),
            opened_at: None,
            sealed_at: None,
            is_draining: false,
            is_broken: false,
            passed_ticks: 0,
            leaving: BTreeSet::new(),
            alarmed_at: None,
            parked_refused: 0,
        }
    }

    /// Does `work`; a panic in it is a broken invariant, and ends this run of the engine.
    fn guarded(&mut self, work: impl FnOnce(&mut Self)) {
        if self.is_broken {
            return;
        }
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(self))) {
            self.is_broken = true;
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            self.switchboard.notify(Notice::HostBroke(text));
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Input(share) => self.waiting.push_back(share),
            Event::Mail(mail) => self.pipeline.mail(mail),
            Event::Progress(news) => self.pipeline.progress(&news),
            Event::Appended(offsets) => {
                for (shard, offset) in offsets {
                    failpoint("host/append-confirmed");
                    self.pipeline.appended(shard, offset);
                }
                self.note_commit();
            }
            Event::SnapshotStored(shard, mark) => {
                self.pipeline.snapshot_stored(shard, mark);
                failpoint("snapshot/mark-sent");
            }
            Event::SnapshotReadBack(shard, mark, is_whole) => self.pipeline.snapshot_read_back(shard, &mark, is_whole),
            Event::SnapshotWanted(shard) => self.pipeline.want_snapshot(shard),
            Event::EgressTaken(taken) => {
                for (shard, epoch) in taken {
                    self.pipeline.egress_taken(shard, epoch);
                }
            }
            Event::Result(shard, id, outcome) => {
                self.opened_at.get_or_insert_with(Instant::now);
                self.pipeline.result(shard, id, &outcome, MachineClock.now());
            }
            Event::Requests => self.desk.take_in(),
            Event::Drain => {
                self.is_draining = true;
                self.pipeline.drain();
            }
            Event::Adopt(adopted) => self.adopt(*adopted),
            Event::Release(shard) => {
                self.pipeline.drop_shard(shard);
                self.close(shard);
            }
            Event::Leaving(shard, true) => _ = self.leaving.insert(shard),
            Event::Leaving(shard, false) => _ = self.leaving.remove(&shard),
            Event::Told(shard, nonce, outcome) => self.told(shard, nonce, outcome),
            Event::Mailbox(shard, nonce, records) => {
                if let Some(shared) = self.shared() {
                    shared.arrive(shard, nonce, records);
                }
            }
            Event::ProgressRecords(records) => {
                records.iter().for_each(|record| _ = self.pipeline.progress_record(record));
            }
            Event::JournalEnd(shard, HAS_ANOTHER_OWNER, end) => self.look_for_another_owner(shard, end),
            Event::JournalEnd(shard, question, end) => self.pipeline.journal_end(shard, question, end),
        }
    }

    fn shared(&mut self) -> Option<&mut SharedJournal> {
        match &mut self.journal {
            Journal::Shared(shared) => Some(shared),
            Journal::Log(_) | Journal::Memory(_) => None,
        }
    }

    fn adopt(&mut self, Adopted { shard, egress_taken, taken_since, emissions }: Adopted) {
        let (id, nonce) = (shard.id(), shard.nonce());
        // Whoever opens its egresses tells what they have, perhaps before the shard is here.
        let egress_taken = egress_taken.max(taken_since[id as usize].load(Ordering::Acquire));
        if let [older, _, ..] = shard.snapshots() {
            let _ = self.ends.snapshots.send(SnapshotRequest::Tidy(id, older.epoch));
        }
        self.emissions.extend(emissions);
        let positions = shard.positions();
        self.pipeline.adopt(*shard, egress_taken);
        self.shared().into_iter().for_each(|shared| shared.open(id, nonce, &positions));
        self.switchboard.here[id as usize].store(true, Ordering::Release);
    }

    /// A shard is not here any more.
    fn close(&mut self, shard: ShardId) {
        self.leaving.remove(&shard);
        self.switchboard.here[shard as usize].store(false, Ordering::Release);
        self.shared().into_iter().for_each(|shared| shared.close(shard));
    }

    /// Takes in what came of an append, unless the shard was given up since.
    fn told(&mut self, shard: ShardId, nonce: u64, outcome: Result<Offset, AppendError>) {
        if self.pipeline.shard(shard).is_none_or(|owned| owned.nonce() != nonce) {
            return;
        }
        match outcome {
            Ok(offset) => {
                self.pipeline.appended(shard, offset);
                self.note_commit();
            }
            Err(error) => {
                tracing::warn!(shard, "{error}");
                self.pipeline.lost(shard);
            }
        }
    }

    /// Asks whether shards that another worker is to have are its by now.
    fn ask_for_other_owners(&mut self) {
        let Journal::Shared(shared) = &self.journal else { return };
        self.leaving.retain(|shard| self.pipeline.owns(*shard));
        for shard in &self.leaving {
            let _ = shared.clerk.send(ClerkRequest::AskEnd(self.number, *shard, HAS_ANOTHER_OWNER));
        }
    }

    /// A journal that goes on behind what its owner wrote has another one.
    fn look_for_another_owner(&mut self, shard: ShardId, end: Offset) {
        let is_lost = |owned: &Shard| !owned.is_in_flight() && end > owned.next_offset();
        if self.pipeline.shard(shard).is_some_and(is_lost) {
            self.pipeline.lost(shard);
        }
    }

    fn note_commit(&mut self) {
        if let Some(at) = self.sealed_at.take() {
            self.switchboard.status.committed(at.elapsed().as_micros() as u64);
        }
    }

    /// Applies what waits, as far as the pipeline takes it, executes what it asks for, and reads on.
    fn go_on(&mut self, ctx: &mut Context<Self>) {
        if self.switchboard.hosts.get().is_none() {
            // What is sent before all hosts stand would be lost; when they do, each is woken.
            return;
        }
        loop {
            let is_input = self.apply_requests() | self.apply_input() | self.apply_mailboxes();
            self.pipeline.pump(MachineClock.now());
            let is_progress = self.execute();
            if !is_input && !is_progress {
                break;
            }
        }
        self.flush();
        self.desk.tell();
        if self.desk.look(&self.pipeline) {
            // What came meanwhile stands before it.
            self.switchboard.post(self.number, Vec::new());
        }
        self.tell_state();
        self.read(ctx);
    }

    /// Reads the next stretch if there is nothing else to do; it comes by the mailbox.
    fn read(&mut self, ctx: &mut Context<Self>) {
        if !self.waiting.is_empty() || !self.takes_input() || self.pipeline.is_stopped_by_parked() {
            return;
        }
        if let Attempt::Later(wait) = self.readers.read(&self.switchboard)
            && !self.is_woken
        {
            self.is_woken = true;
            ctx.run_later(wait, |host, ctx| {
                host.is_woken = false;
                host.turn(ctx, |_| ());
            });
        }
    }

    fn takes_input(&self) -> bool {
        let status = &self.switchboard.status;
        let is_held = status.egress_backlog_bytes.load(Ordering::Relaxed) > self.switchboard.egress_backlog_bytes_max
            || status.is_blocked.load(Ordering::Relaxed);
        !is_held && self.pipeline.wants_input()
    }

    fn apply_input(&mut self) -> bool {
        if self.waiting.is_empty() || !self.takes_input() || self.pipeline.is_stopped_by_parked() {
            return false;
        }
        let Some(mut share) = self.waiting.pop_front() else { return false };
        self.opened_at.get_or_insert_with(Instant::now);
        let now = MachineClock.now();
        let is_shared = matches!(self.journal, Journal::Shared(_));
        for (shard, batch) in &mut share.batches {
            // What was on its way while a shard came begins behind its position, and comes again.
            let is_ahead = |owned: &Shard| batch.from > owned.position(batch.ingress, batch.partition).offset;
            if !is_shared || !self.pipeline.shard(*shard).is_some_and(is_ahead) {
                self.pipeline.ingress(*shard, batch, now);
            }
        }
        failpoint("host/share-applied");
        true
    }

    /// Applies a batch of the requests that wait; returns whether there was any.
    fn apply_requests(&mut self) -> bool {
        if !self.desk.is_waiting() || !self.takes_input() {
            return false;
        }
        self.opened_at.get_or_insert_with(Instant::now);
        let now = MachineClock.now();
        let is_stopped = self.pipeline.is_stopped_by_parked();
        for _ in 0..REQUESTS_AT_A_TIME {
            let next = self.desk.next(is_stopped, |shard| self.pipeline.owns(shard));
            let Some((shard, request)) = next else { break };
            self.pipeline.request(shard, &request, now);
        }
        true
    }

    fn execute(&mut self) -> bool {
        let mut is_any = false;
        while let Some(action) = self.pipeline.next_action() {
            is_any = true;
            match action {
                Action::Append(append) => self.append(append),
                Action::Publish(mail) => {
                    failpoint("host/publish");
                    if let Journal::Shared(shared) = &self.journal
                        && !self.switchboard.here[mail.target as usize].load(Ordering::Acquire)
                    {
                        shared.publish(&mail);
                        continue;
                    }
                    let host = self.switchboard.host_of(mail.target);
                    self.outgoing[host].push(Event::Mail(mail));
                }
                Action::Progress(news) => {
                    for (_, events) in self.outgoing.iter_mut().enumerate().filter(|(host, _)| *host != self.number) {
                        events.push(Event::Progress(news.clone()));
                    }
                    self.shared().into_iter().for_each(|shared| shared.tell_progress(&news));
                }
                Action::Emit(emission) => self.emissions.push(emission),
                Action::Answer(answer) => self.desk.answer(answer),
                Action::Call(call) => {
                    // They are gone only when the run is over; the next one begins the call.
                    self.ends.calls.iter().for_each(|calls| _ = calls.send(call.clone()));
                }
                Action::Trace(records) => {
                    let spans = || Spans::Calls { records, committed_at: SystemTime::now() };
                    spans::tell(self.ends.spans.as_ref(), spans);
                }
                Action::AskEnd { shard, question } => {
                    self.ask_clerk(ClerkRequest::AskEnd(self.number, shard, question));
                }
                Action::TrimMailbox { shard, before } => {
                    let mailbox = mailbox_partition(self.switchboard.here.len() as u32, shard);
                    self.ask_clerk(ClerkRequest::Trim(mailbox, before));
                }
                Action::Store(snapshot) => _ = self.ends.snapshots.send(SnapshotRequest::Store(snapshot)),
                Action::ReadBack { shard, snapshot } => {
                    let _ = self.ends.snapshots.send(SnapshotRequest::ReadBack(shard, snapshot));
                }
                Action::Forget { shard, snapshots, before } => self.forget(shard, snapshots, before),
                Action::TakeOver(shard) if matches!(self.journal, Journal::Shared(_)) => {
                    self.close(shard);
                    self.switchboard.notify(Notice::ShardLost(shard));
                }
                Action::TakeOver(shard) => {
                    self.switchboard.notify(Notice::Lost(format!("the ownership of shard {shard} was lost")));
                }
            }
        }
        is_any
    }

    fn append(&mut self, append: Append) {
        failpoint("host/sealed");
        match &mut self.journal {
            Journal::Log(_) => self.appends.push(append),
            Journal::Shared(shared) => {
                // What is sealed has an owner.
                if let Some(owned) = self.pipeline.shard(append.shard) {
                    shared.append(append, owned.nonce(), self.number, &self.switchboard);
                }
            }
            Journal::Memory(next) => {
                let offset = next[append.shard as usize];
                next[append.shard as usize] += append.records.len() as u64;
                self.pipeline.appended(append.shard, offset);
            }
        }
        if self.sealed_at.is_none() {
            self.sealed_at = self.opened_at.take().or_else(|| Some(Instant::now()));
        }
    }

    fn forget(&self, shard: ShardId, snapshots: Vec<SnapshotMark>, before: Option<u64>) {
        failpoint("trim/forget");
        let _ = self.ends.snapshots.send(SnapshotRequest::Remove(snapshots));
        match (&self.journal, before) {
            (Journal::Log(log), Some(before)) => _ = log.send(LogRequest::Trim(shard, before)),
            (Journal::Shared(_), Some(before)) => self.ask_clerk(ClerkRequest::Trim(shard, before)),
            _ => {}
        }
    }

    /// Asks for something of a log that is shared; of another one nobody asks for that.
    fn ask_clerk(&self, request: ClerkRequest) {
        if let Journal::Shared(shared) = &self.journal {
            // The clerk is gone only when the run is over.
            let _ = shared.clerk.send(request);
        }
    }

    /// Gives shards the mail that came by their mailboxes. A worker that stops leaves it to the next owners,
    /// which find it there: others send on and on.
    fn apply_mailboxes(&mut self) -> bool {
        if self.is_draining {
            return false;
        }
        let Journal::Shared(shared) = &mut self.journal else { return false };
        shared.deliver(&mut self.pipeline, MachineClock.now())
    }

    /// Sends everything on, in batches; a channel is closed only when the run is over.
    fn flush(&mut self) {
        if matches!(self.journal, Journal::Memory(_)) && !self.emissions.is_empty() {
            self.note_commit();
        }
        if let Journal::Log(log) = &self.journal
            && !self.appends.is_empty()
        {
            let _ = log.send(LogRequest::Append(self.number, std::mem::take(&mut self.appends)));
            failpoint("host/append-sent");
        }
        if !self.emissions.is_empty() {
            let bytes = self.emissions.iter().map(|emission| emission.frame.len()).sum();
            self.switchboard.status.egress_backlog_bytes.fetch_add(bytes, Ordering::Relaxed);
            failpoint("host/emit");
            let _ = self.ends.egress.send(EgressRequest::Emit(std::mem::take(&mut self.emissions), bytes));
            failpoint("host/emitted");
        }
        self.shared().into_iter().for_each(SharedJournal::flush);
        for host in 0..self.outgoing.len() {
            if !self.outgoing[host].is_empty() {
                let events = std::mem::take(&mut self.outgoing[host]);
                self.switchboard.post(host, events);
                failpoint("host/published");
            }
        }
    }

    /// Whether a tick can be passed over: nothing is under way, and only the clock could bring something.
    fn passes_tick(&mut self) -> bool {
        let is_idle = self.switchboard.states[self.number].is_idle.load(Ordering::Acquire);
        let is_shared = matches!(self.journal, Journal::Shared(_));
        let passes =
            is_shared && is_idle && self.leaving.is_empty() && !self.is_draining && self.passed_ticks + 1 < IDLE_TICKS;
        self.passed_ticks = if passes { self.passed_ticks + 1 } else { 0 };
        passes
    }

    /// A turn that no event began.
    fn turn(&mut self, ctx: &mut Context<Self>, and_then: impl FnOnce(&mut Self)) {
        self.switchboard.sent.fetch_add(1, Ordering::AcqRel);
        self.guarded(|host| {
            host.go_on(ctx);
            and_then(host);
        });
        self.switchboard.handled.fetch_add(1, Ordering::AcqRel);
    }

    fn tell_state(&self) {
        let state = &self.switchboard.states[self.number];
        let is_waiting = !self.waiting.is_empty();
        let is_finished = !is_waiting && self.pipeline.is_finished();
        let is_idle = !is_waiting && self.desk.is_idle() && self.pipeline.is_idle();
        if is_finished || self.is_draining && is_idle {
            // The run may end before the next tick, and its summary has to have everything.
            self.tell_counters();
        }
        state.is_finished.store(is_finished, Ordering::Release);
        state.is_idle.store(is_idle, Ordering::Release);
    }

    fn tell_counters(&self) -> (Counters, Held) {
        let mut counters = Counters::default();
        let mut held = Held::default();
        for shard in self.pipeline.shards() {
            counters += shard.counters();
            held.parked_keys += shard.parked_keys() as u64;
            held.parked_bytes += shard.parked_bytes() as u64;
            held.stopped_shards += u64::from(shard.is_stopped_by_parked());
            held.pending_bytes += shard.pending_bytes() as u64;
        }
        self.switchboard.status.host(self.number, counters, held);
        (counters, held)
    }

    /// Says that parked keys have come to their limits, as long as they have.
    fn alarm(&mut self, (counters, held): (Counters, Held)) {
        let is_quiet = self.alarmed_at.is_some_and(|at| at.elapsed() < PARKED_INTERVAL);
        let refused = counters.parked_refused - self.parked_refused;
        if is_quiet || refused == 0 && held.stopped_shards == 0 {
            return;
        }
        (self.alarmed_at, self.parked_refused) = (Some(Instant::now()), counters.parked_refused);
        let (keys, bytes) = (held.parked_keys, held.parked_bytes);
        if held.stopped_shards > 0 {
            let shards = held.stopped_shards;
            tracing::error!(keys, bytes, shards, "no input is taken: as many calls wait for parked keys as may");
        }
        if refused > 0 {
            tracing::error!(keys, bytes, refused, "calls of parked keys became dead letters: as many wait as may");
        }
    }
}

impl Actor for ShardHost {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        panics::note_thread(&self.switchboard.states[self.number].watch);
        ctx.run_interval(self.tick, |host, ctx| {
            if host.passes_tick() {
                return;
            }
            host.turn(ctx, |host| {
                host.desk.send_away_deferred(host.is_draining);
                let told = host.tell_counters();
                host.alarm(told);
                host.ask_for_other_owners();
            });
        });
    }
}

impl Handler<Events> for ShardHost {
    type Result = ();

    fn handle(&mut self, events: Events, ctx: &mut Context<Self>) {
        self.guarded(|host| {
            events.0.into_iter().for_each(|event| host.take(event));
            host.go_on(ctx);
        });
        self.switchboard.handled.fetch_add(1, Ordering::AcqRel);
    }
}
