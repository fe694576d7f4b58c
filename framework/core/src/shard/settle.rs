//! Event time in a shard: what has been reached, and what fires then.

use hashbrown::HashTable;

use super::{
    Shard,
    frame::{self, Position},
    pending::{Waiting, Wanted},
    progress::{Board, InputProgress},
    rules::Rule,
};
use crate::{
    address::ShardId,
    effect::{Call, Calls},
    limits::IDLE_INTERVAL_MS,
    program::{Stage, StageId},
    time::{EventTime, ProcessingTime},
};

/// How many timers fire at once at first.
pub(super) const GROUP_CALLS: usize = 16;
/// How many timers fire at once: side by side they wait for memory together.
const GROUP_CALLS_MAX: usize = 256;
/// Timers that together write more than this, in bytes, fire in smaller groups, as an epoch may end
/// only between groups.
const GROUP_BYTES_MAX: usize = 256 * 1024;

impl Shard {
    /// Lets time pass after inputs were applied: takes in the progress of other shards, fires what
    /// is due, and delivers what that sends, up to the limit of the epoch.
    ///
    /// Nothing happens if nothing has happened to the shard since it last came to an end.
    pub fn settle(&mut self, board: &Board, now: ProcessingTime) {
        self.now = self.now.max(now);
        let is_quiet = self.heard_version == Some(board.version())
            && !self.is_processing_timer_due()
            && !self.follows_clock(board);
        if self.is_settled && is_quiet {
            return;
        }
        self.hear(board);
        self.drain();
        self.follow_clock(board);
        self.fire_processing_timers();
        for stage in 0..self.stages.len() {
            if self.is_drained() {
                self.reach(stage, board);
                self.fire(stage);
            }
            // The stages behind it see at once how far this one lets them.
            self.let_out(stage);
        }
        // What a full epoch leaves goes on once it is sealed.
        self.is_settled = self.is_drained() && !self.is_full();
    }

    fn is_processing_timer_due(&self) -> bool {
        self.pending.earliest(self.pending.processing_wheel()).is_some_and(|earliest| earliest <= self.now.0)
    }

    /// Whether event time may follow the clock now, where requests may come at any time: with every
    /// epoch that is made anyway, and else only as often as it may if something in the app waits for it.
    fn follows_clock(&self, board: &Board) -> bool {
        let reading = self.live_reading();
        if !self.options.is_live || reading <= self.live {
            return false;
        }
        let is_idle = self.now.0.saturating_sub(self.live_at.0) >= IDLE_INTERVAL_MS;
        self.has_work() || is_idle && self.earliest_waiting().min(board.earliest_waiting()) <= reading
    }

    fn follow_clock(&mut self, board: &Board) {
        if self.follows_clock(board) {
            (self.live, self.live_at) = (self.live_reading(), self.now);
        }
    }

    /// Up to where the clock says that event time has come.
    fn live_reading(&self) -> EventTime {
        EventTime(self.now.0).just_before()
    }

    /// Whether the open epoch holds more than time and acknowledgements. If time alone moved time
    /// on, two shards that tell each other would never come to rest.
    fn has_work(&self) -> bool {
        self.effects.body.len() > frame::HEADER_BYTES
            || !self.is_drained()
            || self.hosts.iter().any(|host| host.is_dirty())
            || self.positions.iter().flatten().any(|partition| partition.is_dirty)
    }

    /// The time of the earliest message or timer that waits for its event time.
    pub(super) fn earliest_waiting(&self) -> EventTime {
        let stages = (0..self.stages.len()).filter_map(|stage| self.pending.earliest(stage));
        stages.min().map_or(EventTime::MAX, EventTime)
    }

    /// Whether no message to this shard waits within the epoch.
    pub(super) fn is_drained(&self) -> bool {
        self.queue_at == self.queue.calls.len() && self.effects.local.is_empty()
    }

    /// Takes in the progress records that count: those before which every message has arrived.
    fn hear(&mut self, board: &Board) {
        if self.heard_version == Some(board.version()) {
            return;
        }
        self.heard_version = Some(board.version());
        let own = self.id as usize;
        let stages = self.stages.len();
        let mut is_news = false;
        for (source, version) in board.versions().iter().enumerate() {
            if *version <= self.heard_versions[source] || source == own {
                continue;
            }
            let Some(record) = board.get(source as ShardId) else { continue };
            let traffic = &record.traffic[own];
            self.outboxes.acknowledge(source as ShardId, traffic.seen, self.now);
            let is_complete = self.seen[source] >= traffic.sent;
            if !is_complete && self.options.rules.holds(Rule::WatermarkAfterMessages) {
                // It is looked at again until the messages before it have come.
                continue;
            }
            self.heard_versions[source] = *version;
            let heard = &mut self.heard[source * stages..][..stages];
            for (heard, stage) in heard.iter_mut().zip(&record.stages) {
                is_news |= stage.out > *heard;
                *heard = (*heard).max(stage.out);
            }
            let inputs = self.heard_inputs_all.len();
            for (heard, input) in self.heard_inputs.iter_mut().skip(source * inputs).zip(&record.inputs) {
                is_news |= heard != input;
                *heard = *input;
            }
        }
        if is_news {
            self.add_up_heard();
        }
    }

    /// Brings the minimum over all other shards up to date, by stage.
    fn add_up_heard(&mut self) {
        self.heard_least.fill(EventTime::MAX);
        let (own, stages) = (self.id as usize, self.stages.len());
        let others = self.heard.chunks_exact(stages).enumerate().filter(|(shard, _)| *shard != own);
        for (_, heard) in others {
            for (least, heard) in self.heard_least.iter_mut().zip(heard) {
                *least = (*least).min(*heard);
            }
        }
        self.heard_inputs_all.fill(InputProgress::NONE);
        let inputs = self.heard_inputs_all.len().max(1);
        let others = self.heard_inputs.chunks_exact(inputs).enumerate().filter(|(shard, _)| *shard != own);
        for (_, heard) in others {
            for (all, heard) in self.heard_inputs_all.iter_mut().zip(heard) {
                *all = all.and(*heard);
            }
        }
    }

    fn reach(&mut self, stage: usize, board: &Board) {
        let outer = self.outer_watermark(&self.program.stages[stage]);
        let is_cycle = self.program.stages[stage].is_cycle;
        let watermark = if is_cycle { outer.min(board.cycle_watermark(stage as StageId)) } else { outer };
        let time = &mut self.stages[stage];
        time.outer = time.outer.max(outer);
        time.reached = time.reached.max(watermark);
    }

    /// The minimum of what the ingresses and senders of a stage let through.
    fn outer_watermark(&self, stage: &Stage) -> EventTime {
        let is_live = self.options.is_live;
        if stage.sources.is_empty() && !is_live {
            // Nothing that has a time reaches it: it ends when the app does.
            let is_ended = !self.program.ingresses.is_empty() && self.is_input_ended();
            return if is_ended { EventTime::MAX } else { EventTime::MIN };
        }
        let ingresses = stage.ingresses.iter().map(|ingress| self.ingress_watermark(*ingress));
        // A sender that nothing with a time reaches is idle; what it sends may be late.
        let has_time = |sender: &StageId| is_live || !self.program.stages[usize::from(*sender)].sources.is_empty();
        let senders = stage.senders.iter().filter(|sender| has_time(sender));
        let senders = senders.map(|sender| {
            let sender = usize::from(*sender);
            self.stages[sender].out.min(self.heard_least[sender])
        });
        // Every function can be called from outside at any time.
        let live = is_live.then_some(self.live);
        ingresses.chain(senders).chain(live).min().unwrap_or(EventTime::MIN)
    }

    /// How far this shard has taken in its own partitions of an ingress.
    pub(super) fn own_input(&self, ingress: usize) -> InputProgress {
        let lateness_ms = self.program.ingresses[ingress].lateness_ms;
        let of = |(_, position): (u32, Position)| InputProgress {
            out: position.watermark(lateness_ms),
            newest: position.event_time_max.unwrap_or(EventTime::MIN),
        };
        self.partitions(ingress).map(of).fold(InputProgress::NONE, InputProgress::and)
    }

    /// How far all shards have taken an ingress in, as far as this one knows.
    fn input(&self, ingress: usize) -> InputProgress {
        let own = self.own_input(ingress);
        if self.options.rules.holds(Rule::OtherInputsHold) { own.and(self.heard_inputs_all[ingress]) } else { own }
    }

    fn ingress_watermark(&self, ingress: usize) -> EventTime {
        self.input(ingress).out
    }

    /// Whether every ingress has ended, and nothing can come from outside any more.
    #[must_use]
    pub fn is_input_ended(&self) -> bool {
        !self.options.is_live && (0..self.positions.len()).all(|ingress| self.input(ingress).is_ended())
    }

    /// Fires what is due in a stage, for each key in order.
    fn fire(&mut self, stage: usize) {
        let sources = self.program.stages[stage].sources.iter().map(|ingress| self.input(*ingress));
        let sources = sources.fold(InputProgress::NONE, InputProgress::and);
        // A new owner has reached more than it has heard of, and does not know yet whether that was the end.
        let upto = self.stages[stage].reached.min(sources.out);
        if upto == EventTime::MIN {
            return;
        }
        // Behind the end of the input watermarks still rise step by step, by the timers of senders.
        let is_end = !self.options.is_live && sources.is_ended();
        let stays_from = if is_end { sources.newest } else { EventTime::MAX };
        let is_grouped = !self.program.stages[stage].is_cycle;
        self.fire_wheel(stage, upto.0, stays_from, is_grouped);
    }

    fn fire_processing_timers(&mut self) {
        // What one function sends, another one has before its later timers.
        let is_grouped = !self.program.has_sends();
        self.fire_wheel(self.pending.processing_wheel(), self.now.0, EventTime::MAX, is_grouped);
    }

    /// Fires what a wheel gives out up to `upto`; a re-armed timer behind `stays_from` stays.
    ///
    /// If `is_grouped`, nothing that is called can send to what is in the same wheel.
    fn fire_wheel(&mut self, wheel: usize, upto: i64, stays_from: EventTime, is_grouped: bool) {
        let mut due = std::mem::take(&mut self.due);
        while !self.is_full() && self.is_drained() {
            let room = self.options.epoch_calls_max.saturating_sub(self.calls);
            let wanted = if is_grouped { Wanted::Some(self.group_calls.min(room)) } else { Wanted::OneTime };
            self.pending.pop(wheel, upto, wanted, &mut due);
            if due.is_empty() {
                break;
            }
            let count = if is_grouped { self.count_of_group(&due, room) } else { self.count_of_earliest(&due) };
            let is_cut = count < due.len();
            // The others go back into the wheel: a call may cancel them, or set timers that come before.
            due.drain(count..).for_each(|waiting| self.pending.put_back(&waiting));
            let from = self.effects.body.len();
            self.fire_all(&mut due, stays_from);
            if is_grouped {
                self.adapt_group(count, is_cut, self.effects.body.len() - from);
            }
            self.drain();
        }
        self.due = due;
    }

    /// Decides how many calls the next group may have: twice as many, but half of the last ones if
    /// these wrote too much.
    fn adapt_group(&mut self, calls: usize, is_cut: bool, bytes: usize) {
        let fitted = if is_cut { calls } else { self.group_calls };
        let next = if bytes > GROUP_BYTES_MAX { calls / 2 } else { fitted * 2 };
        self.group_calls = next.clamp(1, GROUP_CALLS_MAX);
    }

    /// How many of `due` have the earliest time and do not depend on each other: a named timer
    /// comes after every other call of its key is over, because that may cancel or replace it.
    fn count_of_earliest(&mut self, due: &[Waiting]) -> usize {
        let time = due[0].due;
        let count = due.partition_point(|waiting| waiting.due == time);
        let called = &mut self.called;
        called.clear();
        let depends = due[..count].iter().position(|waiting| !called.insert(&waiting.call) && waiting.is_named());
        depends.unwrap_or(count)
    }

    /// How many of `due` can be called together: those of the earliest time, and those behind it of
    /// other keys, as a call may set timers of its key that come before, or cancel. All of one time
    /// come together, and none begins once there are as many calls as there is room for.
    fn count_of_group(&mut self, due: &[Waiting], room: usize) -> usize {
        let earliest = self.count_of_earliest(due);
        let (time, mut count) = (due[0].due, earliest);
        if due.get(count).is_none_or(|next| next.due == time) {
            return count;
        }
        for (place, waiting) in due.iter().enumerate().skip(earliest) {
            if waiting.due != due[place - 1].due {
                count = place;
                if count >= room {
                    return count;
                }
            }
            if !self.called.insert(&waiting.call) && self.options.rules.holds(Rule::GroupsHaveEachKeyOnce) {
                return count;
            }
        }
        due.len()
    }

    fn fire_all(&mut self, due: &mut Vec<Waiting>, stays_from: EventTime) {
        let mut calls = std::mem::take(&mut self.scratch);
        let mut delayed = Calls::default();
        for waiting in due.drain(..) {
            if waiting.is_rearmed() && waiting.due > stays_from.0 {
                continue;
            }
            if self.options.rules.holds(Rule::FiredTimersAreGone) {
                self.put_removed(waiting.id);
            } else {
                self.removed_late.push(waiting.id);
            }
            let is_delayed = waiting.kind == frame::PENDING_DELAYED;
            let list = if is_delayed { &mut delayed } else { &mut calls };
            self.pending.take(&waiting, |key, payload| list.push(waiting.call, key, payload));
        }
        for call in &delayed.calls {
            self.send_delayed(call, call.key.of(&delayed.bytes), call.payload.of(&delayed.bytes));
        }
        self.run_all(&calls.calls, &calls.bytes, &mut calls.decoded);
        calls.clear();
        self.scratch = calls;
    }

    /// Moves the out-watermark of a stage as far as nothing holds it.
    fn let_out(&mut self, stage: usize) {
        let reached = self.stages[stage].reached;
        let mut out = reached;
        if self.options.rules.holds(Rule::DueTimersHold)
            && let Some(earliest) = self.pending.earliest(stage).filter(|earliest| *earliest <= reached.0)
        {
            out = out.min(EventTime(earliest).just_before());
        }
        for call in self.holding() {
            out = out.min(call.time.just_before());
        }
        let time = &mut self.stages[stage];
        time.out = time.out.max(out);
    }

    /// The hold of a stage that is a cycle: before its earliest message that is on its way.
    pub(super) fn hold(&self, stage: usize) -> EventTime {
        let is_in = |function: u16| usize::from(self.program.functions[usize::from(function)].stage) == stage;
        let carried = self.holding().filter(|call| is_in(call.function)).map(|call| call.time);
        let buffered = self.pending.earliest_buffered(stage).map(EventTime);
        let held_here = carried.chain(buffered).min().map_or(EventTime::MAX, EventTime::just_before);
        held_here.min(self.outboxes.hold(stage))
    }
}

impl Shard {
    /// The messages to this shard that are not delivered yet, which hold the watermarks.
    pub(super) fn holding(&self) -> impl Iterator<Item = &Call> {
        let hold = self.options.rules.holds(Rule::CarryHolds);
        let calls = carried(&self.queue, self.queue_at).chain(&self.effects.local.calls);
        calls.take(if hold { usize::MAX } else { 0 })
    }
}

pub(super) fn carried(queue: &Calls, from: usize) -> std::slice::Iter<'_, Call> {
    queue.calls[from..].iter()
}

/// The keys that are called at once, by function and hash: two that are equal in these count as one.
#[derive(Debug, Default)]
pub(super) struct Called(HashTable<u64>);

impl Called {
    /// Notes the key of a call; returns whether it is new.
    fn insert(&mut self, call: &Call) -> bool {
        let key = u64::from(call.function) << 32 | u64::from(call.hash);
        // Keys of one shard share the low bits of their hash.
        let spread = |key: &u64| {
            let spread = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            spread ^ spread >> 32
        };
        match self.0.entry(spread(&key), |known| *known == key, spread) {
            hashbrown::hash_table::Entry::Occupied(_) => false,
            hashbrown::hash_table::Entry::Vacant(free) => {
                free.insert(key);
                true
            }
        }
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}
