//! Event time in a shard: what has been reached, and what fires then.

use std::collections::BTreeSet;

use super::{Shard, frame, progress::Board, rules::Rule};
use crate::{
    address::ShardId,
    effect::{Call, Calls},
    limits::IDLE_INTERVAL_MS,
    program::{Stage, StageId},
    time::EventTime,
};

impl Shard {
    /// Lets time pass after inputs were applied: takes in the progress of other shards, fires what
    /// is due, and delivers what that sends, up to the limit of the epoch.
    pub fn settle(&mut self, board: &Board) {
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
    }

    /// Lets event time follow the clock where requests may come at any time: with every epoch that
    /// is made anyway, and else only as often as it may if something in the app waits for it.
    fn follow_clock(&mut self, board: &Board) {
        let reading = EventTime(self.now.0).just_before();
        if !self.options.is_live || reading <= self.live {
            return;
        }
        let is_idle = self.now.0.saturating_sub(self.live_at.0) >= IDLE_INTERVAL_MS;
        if self.has_work() || is_idle && self.earliest_waiting().min(board.earliest_waiting()) <= reading {
            (self.live, self.live_at) = (reading, self.now);
        }
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
        let own = self.id;
        let mut known = std::mem::take(&mut self.heard_versions);
        let mut is_news = false;
        let news: Vec<_> = board.newer_than(&known).filter(|(source, _)| *source != own).collect();
        for (source, version) in news {
            let Some(record) = board.get(source) else { continue };
            self.outboxes.acknowledge(source, record.seen[own as usize], self.now);
            let is_complete = self.seen[source as usize] >= record.sent[own as usize];
            if !is_complete && self.options.rules.holds(Rule::WatermarkAfterMessages) {
                // It is looked at again until the messages before it have come.
                continue;
            }
            known[source as usize] = version;
            for (heard, out) in self.heard[source as usize].iter_mut().zip(&record.out) {
                is_news |= *out > *heard;
                *heard = (*heard).max(*out);
            }
        }
        self.heard_versions = known;
        if is_news {
            self.add_up_heard();
        }
    }

    /// Brings the minimum over all other shards up to date, by stage.
    fn add_up_heard(&mut self) {
        for (stage, least) in self.heard_least.iter_mut().enumerate() {
            let others = (0..).zip(&self.heard).filter(|(shard, _)| *shard != self.id);
            *least = others.map(|(_, heard): (ShardId, _)| heard[stage]).min().unwrap_or(EventTime::MAX);
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

    fn ingress_watermark(&self, ingress: usize) -> EventTime {
        let lateness_ms = self.program.ingresses[ingress].lateness_ms;
        let partitions = self.positions[ingress].iter().map(|partition| partition.position.unwrap_or_default());
        partitions.map(|position| position.watermark(lateness_ms)).min().unwrap_or(EventTime::MIN)
    }

    /// Whether every ingress has ended, and nothing can come from outside any more.
    #[must_use]
    pub fn is_input_ended(&self) -> bool {
        !self.options.is_live
            && self
                .positions
                .iter()
                .flatten()
                .all(|partition| partition.position.is_some_and(|position| position.is_ended))
    }

    fn are_sources_ended(&self, stage: usize) -> bool {
        if self.options.is_live {
            return false;
        }
        let sources = self.program.stages[stage].sources.iter();
        let mut partitions = sources.flat_map(|ingress| &self.positions[*ingress]);
        partitions.all(|partition| partition.position.is_some_and(|position| position.is_ended))
    }

    /// The newest event time of what leads to a stage.
    fn last_event(&self, stage: usize) -> EventTime {
        let sources = self.program.stages[stage].sources.iter();
        let positions =
            sources.flat_map(|ingress| &self.positions[*ingress]).filter_map(|partition| partition.position);
        positions.filter_map(|position| position.event_time_max).max().unwrap_or(EventTime::MIN)
    }

    /// Fires what is due in a stage, millisecond by millisecond.
    fn fire(&mut self, stage: usize) {
        let upto = self.stages[stage].reached;
        if upto == EventTime::MIN {
            return;
        }
        // Behind the end of the input watermarks still rise step by step, by the timers of senders.
        let stays_from = if self.are_sources_ended(stage) { self.last_event(stage) } else { EventTime::MAX };
        self.fire_wheel(stage, upto.0, stays_from);
    }

    fn fire_processing_timers(&mut self) {
        self.fire_wheel(self.pending.processing_wheel(), self.now.0, EventTime::MAX);
    }

    /// Fires what a wheel gives out up to `upto`; a re-armed timer behind `stays_from` stays.
    fn fire_wheel(&mut self, wheel: usize, upto: i64, stays_from: EventTime) {
        let mut due = std::mem::take(&mut self.due);
        while !self.is_full() && self.is_drained() && self.pending.pop(wheel, upto, &mut due).is_some() {
            self.fire_earliest(&mut due, stays_from);
            self.drain();
        }
        self.due = due;
    }

    /// Fires those of `due` that have the earliest time and can be called together.
    fn fire_earliest(&mut self, due: &mut Vec<u32>, stays_from: EventTime) {
        let count = self.count_of_earliest(due);
        // The others go back into the wheel: a call may cancel them, or set timers that come before.
        due.drain(count..).for_each(|place| self.pending.put_back(place));
        let mut calls = std::mem::take(&mut self.scratch);
        for place in due.drain(..) {
            let waiting = self.pending.waiting(place);
            if waiting.is_rearmed() && waiting.due > stays_from.0 {
                continue;
            }
            if self.options.rules.holds(Rule::FiredTimersAreGone) {
                self.put_removed(waiting.id);
            } else {
                self.removed_late.push(waiting.id);
            }
            let call = Call {
                is_timer: waiting.is_timer(),
                ..Call::message(waiting.function, waiting.handler, waiting.hash, waiting.time)
            };
            self.pending.take(place, |_, key, payload| calls.push(call, key, payload));
        }
        self.run_all(&calls.calls, &calls.bytes, &mut calls.decoded);
        calls.clear();
        self.scratch = calls;
    }

    /// How many of `due` have the earliest time and do not depend on each other: a named timer
    /// comes after every other call of its key is over, because that may cancel or replace it.
    fn count_of_earliest(&self, due: &[u32]) -> usize {
        let time = self.pending.waiting(due[0]).due;
        let count = due.partition_point(|place| self.pending.waiting(*place).due == time);
        if !due[..count].iter().any(|place| self.pending.is_named(*place)) {
            return count;
        }
        let mut called = BTreeSet::new();
        let depends = due[..count].iter().position(|place| {
            let waiting = self.pending.waiting(*place);
            !called.insert((waiting.function, waiting.hash)) && self.pending.is_named(*place)
        });
        depends.unwrap_or(count)
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
        let outboxes = self.outboxes.iter().flat_map(super::outbox::Outbox::unacknowledged);
        let sent = outboxes.filter(|(_, posted, _)| is_in(posted.function)).map(|(_, posted, _)| posted.time);
        let carried = self.holding().filter(|call| is_in(call.function)).map(|call| call.time);
        let buffered = self.pending.earliest_buffered(stage).map(EventTime);
        let earliest = sent.chain(carried).chain(buffered).min();
        earliest.map_or(EventTime::MAX, EventTime::just_before)
    }
}

impl Shard {
    /// The messages to this shard that are not delivered yet, which hold the watermarks.
    fn holding(&self) -> impl Iterator<Item = &Call> {
        let hold = self.options.rules.holds(Rule::CarryHolds);
        let calls = carried(&self.queue, self.queue_at).chain(&self.effects.local.calls);
        calls.take(if hold { usize::MAX } else { 0 })
    }
}

pub(super) fn carried(queue: &Calls, from: usize) -> std::slice::Iter<'_, Call> {
    queue.calls[from..].iter()
}
