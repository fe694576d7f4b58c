//! The commit pipeline of one thread: the order load, apply, seal, append, confirm, apply to store,
//! publish, answer, for all shards that the thread has.
//!
//! A driver (the runtime, or a simulator) tells the pipeline what happened and executes the
//! [`Action`]s it asks for, in their order. While the frames of an epoch are being appended the
//! next epoch is applied; it is sealed once the first is confirmed and the commit interval has
//! passed (group commit). So latency at low load is one append, and batches grow with the load.
//!
//! Invariants: no action of an epoch but `Append` is asked for before its frame is confirmed; a
//! shard whose append has an unknown outcome, or another offset than expected, is dropped and has
//! to be taken over again. No shard ever waits for another: what a shard cannot take yet stays in
//! the state of its source, and only input from outside is held back ([`Pipeline::wants_input`]).
//!
//! Where the log is shared with other processes ([`Options::is_log_shared`]), mail for shards of
//! theirs goes through mailboxes in the log and progress through one partition ([`wire`]). The
//! pipeline says what is to be read ([`Pipeline::mailbox_from`]) and takes the records as they are.
//! An answer then also needs a proof that its owner still is one, see [`Action::AskEnd`].
//!
//! Deliberately absent: threads, clocks, and how an action is executed.

#[cfg(test)]
mod input_tests;
mod mailbox;
#[cfg(test)]
mod parking_tests;
mod reads;
#[cfg(test)]
mod service_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod trace_tests;

use std::{collections::VecDeque, fmt, sync::Arc};

use self::{mailbox::Mailbox, reads::Reads};
use crate::{
    activity::CallOutcome,
    address::ShardId,
    envelope::SpanRecord,
    ingress::IngressBatch,
    limits::{ACTIVITIES_MAX, PROGRESS_INTERVAL_MS, UNACKNOWLEDGED_BYTES_MAX, UNSEALED_BYTES_MAX},
    ports::{inspect::Finding, log::Offset},
    program::Program,
    shard::{
        ActivityCall, Answer, Confirmed, Emission, Input, Inquiry, Options, Request, Shard, Snapshot, Trim,
        frame::SnapshotMark,
        outbox::Mail,
        progress::{Board, Progress},
        rules::{Rule, Rules},
        wire,
    },
    time::ProcessingTime,
};

/// What a driver has to do, in the order in which it is asked for.
#[derive(Debug)]
pub enum Action {
    /// Append these records; tell the outcome by [`Pipeline::appended`] or [`Pipeline::lost`].
    Append(Append),
    /// Bring mail to the pipeline that has its target: in memory if that is of the same process, else
    /// as records ([`wire::encode_mail`]) in the target's mailbox. It may be lost, doubled or late.
    Publish(Mail),
    /// Let egresses write the records of a committed epoch.
    Emit(Emission),
    /// Bring progress to every other pipeline: in memory to those of the same process, as records
    /// ([`wire::encode_progress`]) to others. It may be lost, doubled or late.
    Progress(Vec<Arc<Progress>>),
    /// Answer a request.
    Answer(Answer),
    /// Make a committed call of an activity; tell its result by [`Pipeline::result`]. It may be made more
    /// than once, and a result may be told more than once: the first one counts.
    Call(ActivityCall),
    /// Tell what committed calls did in traces; it may be lost.
    Trace(Vec<SpanRecord>),
    /// Store a snapshot; tell the outcome by [`Pipeline::snapshot_stored`].
    Store(Snapshot),
    /// Read a snapshot back, as [`read_back`](crate::shard::read_back) does; tell the outcome by
    /// [`Pipeline::snapshot_read_back`]. The journal is not trimmed to it before.
    ReadBack {
        /// The shard.
        shard: ShardId,
        /// The snapshot.
        snapshot: SnapshotMark,
    },
    /// Forget snapshots, and then the journal of a shard before an offset.
    Forget {
        /// The shard.
        shard: ShardId,
        /// Snapshots that are no longer needed.
        snapshots: Vec<SnapshotMark>,
        /// The first offset that is still needed.
        before: Option<Offset>,
    },
    /// Take the shard over again: its ownership is lost or unknown.
    TakeOver(ShardId),
    /// Ask the log for the end of the journal of a shard, from now on, and tell it by
    /// [`Pipeline::journal_end`]. The end must be behind each append that anybody was told of.
    AskEnd {
        /// The shard.
        shard: ShardId,
        /// The number of the question.
        question: u64,
    },
    /// Allow the log to forget the mailbox of a shard before an offset.
    TrimMailbox {
        /// The shard.
        shard: ShardId,
        /// The first offset that is still needed.
        before: Offset,
    },
}

/// What became of a record that a pipeline was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It was taken.
    Applied,
    /// It says nothing new, or comes before something that is missing.
    Void,
    /// It is no record of this app, version or program: it is passed over.
    Unreadable,
    /// The shard is full or elsewhere: the record must be given again, later.
    NotYet,
}

/// The records of one shard for one append, in order.
#[derive(Debug)]
pub struct Append {
    /// The shard, whose journal is the log partition of the same number.
    pub shard: ShardId,
    /// The records.
    pub records: Vec<Arc<Vec<u8>>>,
}

struct Owned {
    shard: Shard,
    /// Mail that came in memory and was not taken yet.
    mail: VecDeque<Mail>,
    mailbox: Mailbox,
    reads: Reads,
    egress_taken: u64,
    progress: Arc<Progress>,
    progress_at: ProcessingTime,
    trimmed: Option<Offset>,
}

impl Owned {
    fn new(shard: Shard, egress_taken: u64) -> Self {
        Self {
            progress: Arc::new(shard.progress()),
            shard,
            mail: VecDeque::new(),
            mailbox: Mailbox::default(),
            reads: Reads::default(),
            egress_taken,
            progress_at: ProcessingTime::MIN,
            trimmed: None,
        }
    }
}

/// The shards of one thread; see the module.
pub struct Pipeline {
    program: Arc<Program>,
    is_log_shared: bool,
    has_mail: bool,
    rules: Rules,
    commit_interval_ms: i64,
    shards: Vec<Option<Owned>>,
    board: Board,
    is_board_news: bool,
    actions: VecDeque<Action>,
    /// Progress that the other pipelines are to be told.
    news: Vec<Arc<Progress>>,
    /// The number of the last question for the end of a journal.
    question: u64,
    /// Mail of one shard on its way to the others.
    published: Vec<Mail>,
    now: ProcessingTime,
    sealed_at: Option<ProcessingTime>,
    is_draining: bool,
}

impl Pipeline {
    /// A pipeline without shards; epochs are sealed no sooner than `commit_interval_ms` after the
    /// ones before, 0 for as soon as possible.
    #[must_use]
    pub fn new(program: Arc<Program>, options: &Options, commit_interval_ms: i64) -> Self {
        let board = Board::new(options.shards, program.stages.len());
        Self {
            has_mail: program.has_mail(options.is_log_shared),
            program,
            is_log_shared: options.is_log_shared,
            rules: options.rules,
            commit_interval_ms,
            shards: (0..options.shards).map(|_| None).collect(),
            board,
            is_board_news: false,
            actions: VecDeque::new(),
            news: Vec::new(),
            question: 0,
            published: Vec::new(),
            now: ProcessingTime::MIN,
            sealed_at: None,
            is_draining: false,
        }
    }

    /// Takes a shard that was just taken over; egresses have its epochs up to `egress_taken`.
    pub fn adopt(&mut self, shard: Shard, egress_taken: u64) {
        let owned = Owned::new(shard, egress_taken);
        self.note_progress(&owned.progress);
        // Nobody knows how far its last owner has come with these.
        if self.rules.holds(Rule::CallsAreTakenUp) {
            self.actions.extend(owned.shard.activity_calls().map(Action::Call));
        }
        let id = owned.shard.id() as usize;
        self.shards[id] = Some(owned);
    }

    /// Gives a shard away, with everything that is not confirmed.
    pub fn drop_shard(&mut self, shard: ShardId) -> Option<Shard> {
        self.shards[shard as usize].take().map(|owned| owned.shard)
    }

    /// The shards it has.
    pub fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.shards.iter().flatten().map(|owned| &owned.shard)
    }

    /// Whether it has a shard.
    #[must_use]
    pub fn owns(&self, shard: ShardId) -> bool {
        self.shards[shard as usize].is_some()
    }

    /// Looks on into a question to one of its shards; none if that takes more looks, or the shard is not here.
    #[must_use]
    pub fn look(&self, shard: ShardId, inquiry: &mut Inquiry) -> Option<Finding> {
        self.shards[shard as usize].as_ref()?.shard.look(inquiry, &self.board)
    }

    /// One of its shards.
    #[must_use]
    pub fn shard(&self, shard: ShardId) -> Option<&Shard> {
        self.shards[shard as usize].as_ref().map(|owned| &owned.shard)
    }

    /// Applies a stretch of input to its shard.
    pub fn ingress(&mut self, shard: ShardId, batch: &mut IngressBatch, now: ProcessingTime) {
        self.apply(shard, Input::Ingress(batch), now);
    }

    /// Applies a request to its shard.
    pub fn request(&mut self, shard: ShardId, request: &Request, now: ProcessingTime) {
        self.apply(shard, Input::Request(request), now);
    }

    /// Takes the result of the call of an activity; of one that has its result already, or whose shard is
    /// elsewhere, it does not count.
    pub fn result(&mut self, shard: ShardId, id: u64, outcome: &CallOutcome, now: ProcessingTime) {
        self.apply(shard, Input::Result(id, outcome), now);
    }

    /// Takes mail for one of its shards, which it gets with the next [`Self::pump`]; mail for others
    /// is dropped, its source sends it again.
    pub fn mail(&mut self, mail: Mail) {
        if let Some(owned) = &mut self.shards[mail.target as usize] {
            owned.mail.push_back(mail);
        }
    }

    /// The offset from which on the mailbox of a shard is to be read
    /// ([`wire::mailbox_partition`]); none while the shard is full or elsewhere, or if the log has
    /// no mailboxes. A reader that finds it trimmed reads on where the mailbox begins.
    #[must_use]
    pub fn mailbox_from(&self, shard: ShardId) -> Option<Offset> {
        let owned = self.shards[shard as usize].as_ref().filter(|_| self.is_log_shared)?;
        let is_open = !owned.shard.is_full() && owned.mail.is_empty();
        is_open.then(|| owned.mailbox.next())
    }

    /// Takes a record of the mailbox of a shard; they come in the order of their offsets.
    pub fn mailbox_record(&mut self, shard: ShardId, offset: Offset, record: &[u8], now: ProcessingTime) -> Taken {
        let Some(next) = self.mailbox_from(shard) else { return Taken::NotYet };
        let shards = self.shards.len() as u32;
        let Some(owned) = &mut self.shards[shard as usize] else { return Taken::NotYet };
        if offset < next {
            return Taken::Void;
        }
        owned.mailbox.read(offset);
        let mail = wire::decode_mail(&self.program, shards, record).ok().filter(|mail| mail.target == shard);
        let Some(mail) = mail else { return Taken::Unreadable };
        let seen = owned.shard.seen(mail.source);
        owned.shard.apply(Input::Mail(&mail), now);
        if owned.shard.seen(mail.source) > seen { Taken::Applied } else { Taken::Void }
    }

    /// Takes a record of the partition of progress ([`wire::progress_partition`]), which a process
    /// reads from its end at start.
    pub fn progress_record(&mut self, record: &[u8]) -> Taken {
        match wire::decode_progress(&self.program, self.shards.len() as u32, record) {
            Ok(news) => {
                let mut is_news = false;
                for progress in news {
                    self.look_for_another_owner(&progress);
                    is_news |= self.note_progress(&Arc::new(progress));
                }
                if is_news { Taken::Applied } else { Taken::Void }
            }
            Err(_) => Taken::Unreadable,
        }
    }

    /// Progress is told of committed epochs only. If one of a shard here is later than the last that was sealed here, the
    /// shard has another owner, which one with nothing to append would never notice.
    fn look_for_another_owner(&mut self, progress: &Progress) {
        if self.shard(progress.shard).is_some_and(|owned| progress.epoch > owned.epoch()) {
            self.lost(progress.shard);
        }
    }

    /// Takes the progress of shards elsewhere.
    pub fn progress(&mut self, records: &[Arc<Progress>]) {
        for record in records {
            self.note_progress(record);
        }
    }

    fn note_progress(&mut self, record: &Arc<Progress>) -> bool {
        let is_news = self.board.put(Arc::clone(record));
        self.is_board_news |= is_news;
        is_news
    }

    fn apply(&mut self, shard: ShardId, input: Input<'_>, now: ProcessingTime) {
        if let Some(owned) = &mut self.shards[shard as usize] {
            owned.shard.apply(input, now);
        }
    }

    /// Says that the journal of a shard holds the records of its last append from `offset` on.
    pub fn appended(&mut self, shard: ShardId, offset: Offset) {
        let Some(owned) = &mut self.shards[shard as usize] else { return };
        match owned.shard.confirm(offset) {
            Ok(confirmed) => self.confirmed(shard, confirmed),
            Err(_) => self.lost(shard),
        }
    }

    /// Says that nobody knows what became of the last append of a shard, or that its ownership is
    /// lost in another way: the shard is dropped.
    pub fn lost(&mut self, shard: ShardId) {
        if self.drop_shard(shard).is_some() {
            self.actions.push_back(Action::TakeOver(shard));
        }
    }

    fn confirmed(&mut self, shard: ShardId, confirmed: Confirmed) {
        self.publish(shard);
        self.actions.extend(confirmed.emission.map(Action::Emit));
        if let Some(progress) = confirmed.progress {
            self.note_progress(&progress);
            if let Some(owned) = &mut self.shards[shard as usize] {
                owned.progress = Arc::clone(&progress);
                owned.progress_at = self.now;
            }
            if self.has_mail {
                self.news.push(progress);
            }
        }
        self.actions.extend(confirmed.answers.into_iter().map(Action::Answer));
        self.actions.extend(confirmed.activities.into_iter().map(Action::Call));
        if !confirmed.spans.is_empty() {
            self.actions.push_back(Action::Trace(confirmed.spans));
        }
        self.proved(shard);
        self.actions.extend(confirmed.snapshot.map(Action::Store));
        self.forget(shard);
    }

    /// Gives the answers and the mailbox that the frame just confirmed has proved.
    fn proved(&mut self, shard: ShardId) {
        let Some(owned) = self.shards[shard as usize].as_mut().filter(|_| self.is_log_shared) else { return };
        owned.mailbox.confirm();
        let mut answers = owned.reads.confirm();
        if !self.rules.holds(Rule::FramesProveEarlierCalls) {
            answers.extend(owned.shard.take_answers());
        }
        self.actions.extend(answers.into_iter().map(Action::Answer));
    }

    /// Says where the journal of a shard ended after the question was asked. Where its owner
    /// expects it, it still is the owner, and the answers that waited for that are given; else the
    /// shard is lost, and they never are.
    pub fn journal_end(&mut self, shard: ShardId, question: u64, end: Offset) {
        let Some(owned) = &mut self.shards[shard as usize] else { return };
        // A frame that was sealed since will prove them.
        let Some(answers) = owned.reads.replied(question) else { return };
        if end == owned.shard.next_offset() {
            self.actions.extend(answers.into_iter().map(Action::Answer));
        } else {
            self.lost(shard);
        }
    }

    /// Says that a snapshot stands, or could not be stored.
    pub fn snapshot_stored(&mut self, shard: ShardId, stored: Option<SnapshotMark>) {
        let Some(owned) = &mut self.shards[shard as usize] else { return };
        match stored {
            Some(mark) => owned.shard.snapshot_stored(mark),
            None => owned.shard.snapshot_failed(),
        }
    }

    /// Says whether a snapshot could be read back whole.
    pub fn snapshot_read_back(&mut self, shard: ShardId, snapshot: &SnapshotMark, is_whole: bool) {
        if let Some(owned) = &mut self.shards[shard as usize] {
            owned.shard.snapshot_read_back(snapshot, is_whole);
            self.forget(shard);
        }
    }

    /// Asks for a snapshot of a shard whose journal keeps the log from giving space back.
    pub fn want_snapshot(&mut self, shard: ShardId) {
        if let Some(owned) = &mut self.shards[shard as usize] {
            owned.shard.want_snapshot();
        }
    }

    /// Says that egresses have, durably, every record of a shard up to an epoch.
    pub fn egress_taken(&mut self, shard: ShardId, epoch: u64) {
        if let Some(owned) = &mut self.shards[shard as usize] {
            owned.egress_taken = owned.egress_taken.max(epoch);
            self.forget(shard);
        }
    }

    fn forget(&mut self, shard: ShardId) {
        let Some(owned) = &mut self.shards[shard as usize] else { return };
        let Trim { read_back, removed: snapshots, before } = owned.shard.trim(owned.egress_taken);
        self.actions.extend(read_back.map(|snapshot| Action::ReadBack { shard, snapshot }));
        if !snapshots.is_empty() || before > owned.trimmed {
            owned.trimmed = before;
            self.actions.push_back(Action::Forget { shard, snapshots, before });
        }
    }

    /// Goes on as far as possible: fires what is due, delivers mail, seals what may be sealed.
    pub fn pump(&mut self, now: ProcessingTime) {
        self.now = self.now.max(now);
        self.repeat_progress();
        loop {
            if std::mem::take(&mut self.is_board_news) && self.program.has_cycles() {
                self.board.refresh_cut();
            }
            self.settle();
            let mut is_mail = false;
            if self.has_mail {
                (0..self.shards.len() as ShardId).for_each(|shard| is_mail |= self.publish(shard));
            }
            if !is_mail {
                break;
            }
        }
        self.seal();
        self.answer();
        if self.is_log_shared {
            self.trim_mailboxes();
        }
        if !self.news.is_empty() {
            self.actions.push_back(Action::Progress(std::mem::take(&mut self.news)));
        }
    }

    fn answer(&mut self) {
        for owned in self.shards.iter_mut().flatten() {
            let spans = owned.shard.take_spans();
            if !spans.is_empty() {
                self.actions.push_back(Action::Trace(spans));
            }
            let answers = owned.shard.take_answers();
            if !self.is_log_shared || !self.rules.holds(Rule::ReadsAskTheEnd) {
                self.actions.extend(answers.into_iter().map(Action::Answer));
                continue;
            }
            owned.reads.push(answers);
            if owned.reads.wants_to_ask() && !owned.shard.is_in_flight() {
                self.question += 1;
                owned.reads.ask(self.question);
                self.actions.push_back(Action::AskEnd { shard: owned.shard.id(), question: self.question });
            }
        }
    }

    fn trim_mailboxes(&mut self) {
        for owned in self.shards.iter_mut().flatten() {
            if let Some(before) = owned.mailbox.trim(self.now) {
                self.actions.push_back(Action::TrimMailbox { shard: owned.shard.id(), before });
            }
        }
    }

    fn settle(&mut self) {
        for owned in self.shards.iter_mut().flatten() {
            if !owned.mail.is_empty() {
                owned.shard.take_mail(&mut owned.mail, self.now);
            }
            owned.shard.settle(&self.board, self.now);
        }
    }

    /// Publishes the mail of a shard; returns whether some is for shards of this thread.
    fn publish(&mut self, shard: ShardId) -> bool {
        let Some(owned) = &mut self.shards[shard as usize] else { return false };
        let mut published = std::mem::take(&mut self.published);
        owned.shard.publish(|mail| published.push(mail.clone()));
        let mut is_mail = false;
        for mail in published.drain(..) {
            match &mut self.shards[mail.target as usize] {
                Some(target) => {
                    target.mail.push_back(mail);
                    is_mail = true;
                }
                None => self.actions.push_back(Action::Publish(mail)),
            }
        }
        self.published = published;
        is_mail
    }

    fn repeat_progress(&mut self) {
        if !self.has_mail {
            return;
        }
        for owned in self.shards.iter_mut().flatten() {
            if self.now.0.saturating_sub(owned.progress_at.0) >= PROGRESS_INTERVAL_MS {
                owned.progress_at = self.now;
                replace(&mut self.news, Arc::clone(&owned.progress));
            }
        }
    }

    fn seal(&mut self) {
        let since = self.sealed_at.map_or(i64::MAX, |at| self.now.0.saturating_sub(at.0));
        let unsealed: usize = self.shards().map(Shard::unsealed_bytes).sum();
        let is_due = self.is_draining || since >= self.commit_interval_ms || unsealed >= UNSEALED_BYTES_MAX / 2;
        let mut is_sealed = false;
        for (id, owned) in (0..).zip(&mut self.shards) {
            let Some(owned) = owned else { continue };
            if owned.shard.is_in_flight() || !(is_due || owned.shard.is_full()) {
                continue;
            }
            let records = owned.shard.seal();
            owned.mailbox.seal();
            if records.is_empty() {
                // Nothing that was read has changed anything.
                owned.mailbox.confirm();
            } else {
                is_sealed = true;
                owned.reads.seal();
                self.actions.push_back(Action::Append(Append { shard: id, records }));
                self.actions.extend(owned.shard.emission_ahead().map(Action::Emit));
                self.actions.extend(owned.shard.calls_ahead().into_iter().map(Action::Call));
                owned.shard.progress_ahead().into_iter().for_each(|ahead| replace(&mut self.news, ahead));
            }
        }
        if is_sealed {
            self.sealed_at = Some(self.now);
        }
    }

    /// Takes the next thing to do.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Seals without waiting for the commit interval from now on, for a clean stop.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Whether more input may be applied; if not, it must wait until appends are confirmed.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        let mut unsealed = 0;
        let mut unacknowledged = 0;
        for shard in self.shards() {
            if shard.is_full() || shard.pending_activities() > ACTIVITIES_MAX {
                return false;
            }
            unsealed += shard.unsealed_bytes();
            unacknowledged += shard.unacknowledged_bytes();
        }
        unsealed < UNSEALED_BYTES_MAX && unacknowledged < UNACKNOWLEDGED_BYTES_MAX
    }

    /// Whether input must wait until parked keys were made to go on; requests for that are applied.
    #[must_use]
    pub fn is_stopped_by_parked(&self) -> bool {
        self.shards().any(Shard::is_stopped_by_parked)
    }

    /// Whether everything that was applied is confirmed, and all that was asked is answered but for what
    /// is answered later than its call.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let is_idle = |owned: &Owned| {
            let is_told = !owned.shard.has_answers() && owned.reads.is_empty();
            !owned.shard.is_in_flight() && !owned.shard.has_changes() && is_told
        };
        self.actions.is_empty() && self.news.is_empty() && self.shards.iter().flatten().all(is_idle)
    }

    /// Whether every input has ended and nothing is left to do in any shard.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        let is_finished = |owned: &Owned| owned.shard.is_finished() && owned.reads.is_empty();
        self.actions.is_empty() && self.news.is_empty() && self.shards.iter().flatten().all(is_finished)
    }
}

/// Adds to the news of shards in place of what they have of the same one: a record that is told has
/// each shard once.
fn replace(news: &mut Vec<Arc<Progress>>, progress: Arc<Progress>) {
    news.retain(|known| known.shard != progress.shard);
    news.push(progress);
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.shards()).finish()
    }
}
