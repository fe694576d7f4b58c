//! Messages to other shards: kept by the source until the target's committed frames have them.
//!
//! The messages of one frame for one target are one [`Mail`]; its messages are numbered for that
//! target without gaps. The target accepts exactly the next number and drops the rest, so a mail
//! may come twice, late, or again from the first message that is not acknowledged.
//!
//! A message is kept as the call that its target will make: function, handler and hash of the key
//! are known where it is sent, and only what comes from outside memory is read from bytes again.
//! In a frame the messages stand in the order of the calls that sent them; here those for one
//! target stand side by side, as each is read once more, by its target, when it is cold.
//!
//! Invariant: what is asked for at each turn is kept added up, so that a turn costs nothing for
//! targets that nothing happened to.
//!
//! Source of the rule: go-back-N, with the acknowledgement read from the receiver's committed
//! state (`framework/docs/ARCHITECTURE.md`, "Messages between shards").
//!
//! Deliberately absent: selective resending. After a gap everything behind it goes again.

use std::{collections::VecDeque, fmt, sync::Arc};

use crate::{
    address::{ShardId, murmur2},
    codec::Reader,
    effect::{Call, Calls, Sent},
    error::Corrupt,
    limits::{MAIL_IN_FLIGHT_BYTES_MAX, RESEND_INTERVAL_MS},
    program::{FunctionId, NameId, Program, StageId},
    shard::{
        frame::MessageRef,
        rules::{Rule, Rules},
    },
    time::{EventTime, ProcessingTime},
};

/// The messages of one committed frame for one shard. A copy shares them.
#[derive(Clone)]
pub struct Mail {
    /// The shard that sent them.
    pub source: ShardId,
    /// The shard they are for.
    pub target: ShardId,
    /// The number of the first, from 1.
    pub first: u64,
    /// Its messages are those from `from` up to `to`.
    post: Arc<Post>,
    from: u32,
    to: u32,
    bytes: usize,
}

/// Messages for several targets, those for one side by side.
struct Post {
    calls: Vec<Call>,
    /// Their keys and payloads.
    bytes: Vec<u8>,
}

impl Mail {
    /// A mail of these messages.
    ///
    /// # Panics
    /// If there is none.
    pub(crate) fn new(source: ShardId, target: ShardId, first: u64, messages: Calls) -> Self {
        let Calls { calls, bytes, .. } = messages;
        assert!(!calls.is_empty(), "a mail has a message");
        let to = u32::try_from(calls.len()).expect("a mail has fewer than 2^32 messages");
        let size = size_of_messages(calls.len(), bytes.len());
        Self { source, target, first, post: Arc::new(Post { calls, bytes }), from: 0, to, bytes: size }
    }

    /// The number of the last message.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.first + u64::from(self.to - self.from) - 1
    }

    /// How many bytes its messages have in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The messages in order, as calls whose bytes stand in [`Self::buffer`].
    pub(crate) fn calls(&self) -> &[Call] {
        &self.post.calls[self.from as usize..self.to as usize]
    }

    /// What its messages stand in.
    pub(crate) fn buffer(&self) -> &[u8] {
        &self.post.bytes
    }

    /// The messages in order, by name.
    pub(crate) fn messages<'a>(&'a self, program: &'a Program) -> impl Iterator<Item = MessageRef<'a>> {
        self.calls().iter().map(|call| MessageRef::of_call(program, call, self.buffer()))
    }
}

impl fmt::Debug for Mail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, target, first, .. } = self;
        write!(f, "Mail({first} to {} of shard {source} for {target})", self.last())
    }
}

fn size_of_messages(count: usize, bytes: usize) -> usize {
    count * size_of::<Call>() + bytes
}

/// How often everything is looked through for mail that has to go again, though nothing happened.
const LOOK_INTERVAL_MS: i64 = RESEND_INTERVAL_MS / 10;

/// What a shard has sent to the others; what is asked for at each turn is kept added up.
#[derive(Debug)]
pub(crate) struct Outboxes {
    by_target: Vec<Outbox>,
    /// By stage: what holds it, if it is a cycle.
    holds: Vec<Option<Holds>>,
    /// By function.
    stages: Vec<StageId>,
    /// How many bytes are not acknowledged.
    bytes: usize,
    /// How many mails are not acknowledged.
    mails: usize,
    /// Whether more was acknowledged than the last frame says.
    has_unsealed: bool,
    /// Targets with mail whose frame is not confirmed.
    unconfirmed: Vec<ShardId>,
    /// Targets for which mail may be published that was not before.
    to_publish: Vec<ShardId>,
    looked_at: ProcessingTime,
    /// By target, while mail is made: its calls and bytes so far. All 0 else.
    shares: Vec<Share>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Share {
    calls: u32,
    bytes: u32,
}

impl Outboxes {
    /// Nothing was sent to any of `shards` shards.
    pub(crate) fn new(shards: u32, program: &Program) -> Self {
        let shards = shards as usize;
        Self {
            by_target: std::iter::repeat_with(Outbox::default).take(shards).collect(),
            holds: program.stages.iter().map(|stage| stage.is_cycle.then(|| Holds::new(shards))).collect(),
            stages: program.functions.iter().map(|function| function.stage).collect(),
            bytes: 0,
            mails: 0,
            has_unsealed: false,
            unconfirmed: Vec::new(),
            to_publish: Vec::new(),
            looked_at: ProcessingTime::MIN,
            shares: vec![Share::default(); shards],
        }
    }

    /// By target.
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Outbox> {
        self.by_target.iter()
    }

    /// Puts what a journal says in place of an outbox that is empty.
    pub(crate) fn restore(&mut self, target: ShardId, outbox: Outbox) {
        self.bytes += outbox.bytes;
        self.mails += outbox.mails.len();
        outbox.mails.iter().for_each(|mail| hold(&mut self.holds, &self.stages, mail));
        self.by_target[target as usize] = outbox;
        self.to_publish.push(target);
    }

    /// Takes the messages of a sealed frame, whose bytes stand in its body; they may be published
    /// once it is confirmed.
    pub(crate) fn post(&mut self, source: ShardId, sent: &mut Vec<Sent>, body: &[u8]) {
        if sent.is_empty() {
            return;
        }
        for Sent { target, call } in &*sent {
            let share = &mut self.shares[*target as usize];
            share.calls += 1;
            share.bytes += length_of(call);
        }
        let post = Arc::new(self.sort(sent, body));
        // Each share says now where that of its target ends.
        let mut start = Share::default();
        for target in 0..self.shares.len() {
            let end = std::mem::take(&mut self.shares[target]);
            if end.calls > start.calls {
                let bytes = size_of_messages((end.calls - start.calls) as usize, (end.bytes - start.bytes) as usize);
                let (first, post) = (self.by_target[target].sent + 1, Arc::clone(&post));
                let target = target as ShardId;
                self.push(Mail { source, target, first, post, from: start.calls, to: end.calls, bytes });
            }
            start = end;
        }
    }

    /// Copies messages so that those for one target stand side by side, in the order of the targets;
    /// the shares say how many each one has, and then where they end.
    fn sort(&mut self, sent: &mut Vec<Sent>, body: &[u8]) -> Post {
        let mut next = Share::default();
        for share in &mut self.shares {
            let start = next;
            next = Share { calls: start.calls + share.calls, bytes: start.bytes + share.bytes };
            *share = start;
        }
        let empty = Call::message(0, 0, 0, EventTime::MIN);
        let mut post = Post { calls: vec![empty; next.calls as usize], bytes: vec![0; next.bytes as usize] };
        for Sent { target, call } in sent.drain(..) {
            let share = &mut self.shares[target as usize];
            let (from, to, length) = (call.key.start as usize, share.bytes as usize, length_of(&call) as usize);
            post.bytes[to..to + length].copy_from_slice(&body[from..from + length]);
            post.calls[share.calls as usize] = call.moved(share.bytes);
            share.calls += 1;
            share.bytes += length as u32;
        }
        post
    }

    fn push(&mut self, mail: Mail) {
        let target = mail.target;
        self.mails += 1;
        self.bytes += mail.bytes;
        hold(&mut self.holds, &self.stages, &mail);
        self.unconfirmed.push(target);
        self.by_target[target as usize].push(mail);
    }

    /// Notes that all frames sealed so far are confirmed.
    pub(crate) fn confirm(&mut self) {
        for target in self.unconfirmed.drain(..) {
            self.by_target[target as usize].confirm();
            self.to_publish.push(target);
        }
    }

    /// Notes what the committed frames of a target have.
    pub(crate) fn acknowledge(&mut self, target: ShardId, upto: u64, now: ProcessingTime) {
        let outbox = &mut self.by_target[target as usize];
        let (bytes, mails) = (outbox.bytes, outbox.mails.len());
        if outbox.acknowledge(upto, now) {
            self.bytes -= bytes - outbox.bytes;
            self.mails -= mails - outbox.mails.len();
            self.has_unsealed = true;
            if outbox.published < outbox.confirmed {
                self.to_publish.push(target);
            }
            self.holds.iter_mut().flatten().for_each(|holds| holds.acknowledge(target, upto));
        }
    }

    /// Hands out what may be published now; see [`Outbox::publish`].
    pub(crate) fn publish(&mut self, rules: Rules, now: ProcessingTime, mut each: impl FnMut(&Mail)) {
        if self.mails == 0 {
            self.to_publish.clear();
            return;
        }
        if now.0.saturating_sub(self.looked_at.0) >= LOOK_INTERVAL_MS {
            self.looked_at = now;
            self.to_publish.clear();
            self.to_publish.extend(0..self.by_target.len() as ShardId);
        }
        for place in 0..self.to_publish.len() {
            let (target, mut last) = (self.to_publish[place], 0);
            self.by_target[target as usize].publish(rules, now, |mail| {
                last = mail.last();
                each(mail);
            });
            if !rules.holds(Rule::OutboxKeepsUntilAcknowledged) {
                self.acknowledge(target, last, now);
            }
        }
        self.to_publish.clear();
    }

    /// Before the earliest message to a stage, which is a cycle, that the targets may not have yet.
    pub(crate) fn hold(&self, stage: usize) -> EventTime {
        self.holds[stage].as_ref().map_or(EventTime::MAX, Holds::least)
    }

    /// Whether a frame would say more of what is acknowledged than the last one.
    pub(crate) fn has_unsealed(&self) -> bool {
        self.has_unsealed
    }

    /// Notes that a frame says what is acknowledged.
    pub(crate) fn seal(&mut self) {
        self.has_unsealed = false;
    }

    /// How many bytes the targets may not have yet.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the targets have everything.
    pub(crate) fn is_empty(&self) -> bool {
        self.mails == 0
    }
}

/// How long key and payload of a message are in the body of a frame, with what stands between.
fn length_of(call: &Call) -> u32 {
    call.payload.start + call.payload.length - call.key.start
}

/// Notes what a mail holds.
fn hold(holds: &mut [Option<Holds>], stages: &[StageId], mail: &Mail) {
    for (stage, holds) in holds.iter_mut().enumerate() {
        let Some(holds) = holds else { continue };
        let calls = mail.calls().iter().filter(|call| stages[usize::from(call.function)] == stage as StageId);
        if let Some(earliest) = calls.map(|call| call.time).min() {
            holds.push(mail.target, mail.last(), earliest.just_before());
        }
    }
}

/// What messages that are not acknowledged hold one stage at, by target. A mail that is acknowledged
/// in part holds as a whole: it soon is no more.
#[derive(Debug)]
struct Holds {
    /// By target: the last numbers of mails and what they hold, both rising; a mail before one that
    /// holds more is left out.
    rising: Vec<VecDeque<(u64, EventTime)>>,
    /// By target: the first of these times, the end of time if there is none.
    first: Vec<EventTime>,
}

impl Holds {
    fn new(shards: usize) -> Self {
        Self { rising: vec![VecDeque::new(); shards], first: vec![EventTime::MAX; shards] }
    }

    fn push(&mut self, target: ShardId, last: u64, hold: EventTime) {
        let rising = &mut self.rising[target as usize];
        while rising.back().is_some_and(|(_, known)| *known >= hold) {
            rising.pop_back();
        }
        rising.push_back((last, hold));
        self.look(target);
    }

    fn acknowledge(&mut self, target: ShardId, upto: u64) {
        let rising = &mut self.rising[target as usize];
        while rising.front().is_some_and(|(last, _)| *last <= upto) {
            rising.pop_front();
        }
        self.look(target);
    }

    fn look(&mut self, target: ShardId) {
        let first = self.rising[target as usize].front();
        self.first[target as usize] = first.map_or(EventTime::MAX, |(_, hold)| *hold);
    }

    fn least(&self) -> EventTime {
        self.first.iter().min().copied().unwrap_or(EventTime::MAX)
    }
}

/// What a shard has sent to one other shard.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// The number of the last message that was sent.
    pub(crate) sent: u64,
    /// Up to where the target's committed frames have them.
    pub(crate) acknowledged: u64,
    /// What is not acknowledged, oldest first.
    mails: VecDeque<Mail>,
    /// How many of `mails` stand in confirmed frames.
    confirmed: usize,
    /// How many of `mails` were published since the last failure.
    published: usize,
    published_bytes: usize,
    /// How many bytes are not acknowledged.
    bytes: usize,
    /// When the target last got or acknowledged something.
    moved_at: ProcessingTime,
}

impl Outbox {
    /// Restores what a journal says: the messages behind `acknowledged`, encoded, in order.
    pub(crate) fn restore(
        program: &Program,
        [source, target]: [ShardId; 2],
        [sent, acknowledged]: [u64; 2],
        messages: &[&Vec<u8>],
    ) -> Result<Self, Corrupt> {
        let mut outbox = Self { sent, acknowledged, ..Self::default() };
        if messages.is_empty() {
            return Ok(outbox);
        }
        let mut calls = Calls::default();
        for message in messages {
            let read = MessageRef::read(&mut Reader::new(message))?;
            let (function, handler) = handler_of(program, &read)?;
            calls.push(Call::message(function, handler, murmur2(read.key), read.time), read.key, read.payload);
        }
        let mail = Mail::new(source, target, acknowledged + 1, calls);
        assert_eq!(mail.last(), sent, "an outbox holds everything behind what is acknowledged");
        outbox.bytes = mail.bytes();
        outbox.mails.push_back(mail);
        outbox.confirm();
        Ok(outbox)
    }

    fn push(&mut self, mail: Mail) {
        assert_eq!(mail.first, self.sent + 1, "messages are numbered without gaps");
        self.sent = mail.last();
        self.bytes += mail.bytes;
        self.mails.push_back(mail);
    }

    /// Notes that all frames sealed so far are confirmed.
    pub(crate) fn confirm(&mut self) {
        self.confirmed = self.mails.len();
    }

    /// What a mutant does: what is there counts as published, and as not worth a repeat.
    pub(crate) fn keep_to_itself(&mut self) {
        (self.published, self.published_bytes) = (self.mails.len(), self.bytes);
        self.moved_at = ProcessingTime(i64::MAX);
    }

    /// Notes what the target's committed frames have; returns whether that is news.
    fn acknowledge(&mut self, upto: u64, now: ProcessingTime) -> bool {
        // A target that has seen more than this owner sent has it from another owner: this one is
        // deposed and will learn it from the journal.
        if upto <= self.acknowledged || upto > self.sent {
            return false;
        }
        self.acknowledged = upto;
        self.moved_at = now;
        while self.mails.front().is_some_and(|mail| mail.last() <= upto) {
            let mail = self.mails.pop_front().expect("the loop has seen it");
            self.confirmed = self.confirmed.saturating_sub(1);
            self.bytes -= mail.bytes();
            if self.published > 0 {
                self.published -= 1;
                self.published_bytes = self.published_bytes.saturating_sub(mail.bytes());
            }
        }
        true
    }

    /// Hands out what may be published now: bounded by what is on its way, and everything again
    /// if nothing was acknowledged for [`RESEND_INTERVAL_MS`].
    fn publish(&mut self, rules: Rules, now: ProcessingTime, mut each: impl FnMut(&Mail)) {
        if self.published > 0 && now.0.saturating_sub(self.moved_at.0) >= RESEND_INTERVAL_MS {
            (self.published, self.published_bytes) = (0, 0);
            if !rules.holds(Rule::ResendsAll) {
                self.published = self.confirmed.saturating_sub(1);
            }
        }
        while self.published < self.confirmed {
            if self.published > 0 && self.published_bytes >= MAIL_IN_FLIGHT_BYTES_MAX {
                break;
            }
            let mail = &self.mails[self.published];
            each(mail);
            self.published += 1;
            self.published_bytes += mail.bytes();
            self.moved_at = now;
        }
    }

    /// The messages that are not acknowledged, with their numbers.
    pub(crate) fn unacknowledged<'a>(&'a self, program: &'a Program) -> impl Iterator<Item = (u64, MessageRef<'a>)> {
        let messages = self.mails.iter().flat_map(|mail| (mail.first..).zip(mail.messages(program)));
        messages.filter(|(number, _)| *number > self.acknowledged)
    }
}

/// The function and the handler that a message is for.
///
/// # Errors
/// If the program does not have them.
pub(super) fn handler_of(program: &Program, message: &MessageRef<'_>) -> Result<(FunctionId, u16), Corrupt> {
    let name = |id: NameId| program.names.get(usize::from(id)).map_or("?", String::as_str);
    let function = program.function_named(message.function);
    let function =
        function.ok_or_else(|| Corrupt(format!("`{}` is no function of this program", name(message.function))))?;
    let handler = program.message_handler(function, message.message);
    let handler = handler.ok_or_else(|| {
        Corrupt(format!("`{}` has no handler for `{}`", name(message.function), name(message.message)))
    })?;
    Ok((function, handler))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::trial::program;

    const SHARDS: u32 = 3;

    /// What happens to the outboxes of a shard.
    #[derive(Debug, Clone)]
    enum Step {
        /// A frame is sealed with messages, each with its target, key, payload and time.
        Post(Vec<(ShardId, Vec<u8>, Vec<u8>, i64)>),
        /// The frames so far are confirmed, and what may be published is.
        Publish,
        /// A target tells how many more messages it has, in permille of those it was sent.
        Acknowledge(ShardId, u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..9);
        let time = prop_oneof![-5..20_i64, Just(i64::MIN), Just(i64::MAX)];
        let message = (0..SHARDS, bytes(), bytes(), time);
        prop_oneof![
            3 => prop::collection::vec(message, 0..12).prop_map(Step::Post),
            2 => Just(Step::Publish),
            3 => (0..SHARDS, 0..=1_000_u64).prop_map(|(target, permille)| Step::Acknowledge(target, permille)),
        ]
    }

    /// A frame whose body holds the messages, each behind something else.
    fn frame(messages: &[(ShardId, Vec<u8>, Vec<u8>, i64)]) -> (Vec<u8>, Vec<Sent>) {
        let mut calls = Calls::default();
        let sent = messages.iter().map(|(target, key, payload, time)| {
            calls.bytes.extend_from_slice(b"op");
            calls.push(Call::message(0, 1, murmur2(key), EventTime(*time)), key, payload);
            Sent { target: *target, call: *calls.calls.last().expect("it was pushed") }
        });
        let sent = sent.collect();
        (calls.bytes, sent)
    }

    type Message = (Vec<u8>, Vec<u8>, i64);

    proptest! {
        #[test]
        fn each_target_gets_its_messages_in_order_and_what_it_lacks_holds(
            steps in prop::collection::vec(step(), 1..30),
        ) {
            let program = program();
            let mut outboxes = Outboxes::new(SHARDS, &program);
            let mut sent: Vec<Vec<Message>> = vec![Vec::new(); SHARDS as usize];
            let mut got = sent.clone();
            // By mail: its target, the number of its last message, and what it holds.
            let mut held: Vec<(ShardId, u64, EventTime)> = Vec::new();
            for step in steps {
                match step {
                    Step::Post(messages) => {
                        let (body, mut calls) = frame(&messages);
                        outboxes.post(9, &mut calls, &body);
                        for target in 0..SHARDS {
                            let new = messages.iter().filter(|message| message.0 == target);
                            let new: Vec<Message> = new.map(|(_, key, payload, time)| (key.clone(), payload.clone(), *time)).collect();
                            let all = &mut sent[target as usize];
                            all.extend_from_slice(&new);
                            let earliest = new.iter().map(|message| EventTime(message.2)).min();
                            held.extend(earliest.map(|time| (target, all.len() as u64, time.just_before())));
                        }
                    }
                    Step::Publish => {
                        outboxes.confirm();
                        outboxes.publish(Rules::default(), ProcessingTime(0), |mail| {
                            let got = &mut got[mail.target as usize];
                            assert_eq!(mail.first, got.len() as u64 + 1, "each is published once");
                            let message = |message: MessageRef<'_>| (message.key.to_vec(), message.payload.to_vec(), message.time.0);
                            got.extend(mail.messages(&program).map(message));
                        });
                        prop_assert_eq!(&got, &sent);
                    }
                    Step::Acknowledge(target, permille) => {
                        let upto = got[target as usize].len() as u64 * permille / 1_000;
                        outboxes.acknowledge(target, upto, ProcessingTime(0));
                        held.retain(|(to, last, _)| *to != target || *last > outboxes.by_target[target as usize].acknowledged);
                    }
                }
                let hold = held.iter().map(|(_, _, hold)| *hold).min().unwrap_or(EventTime::MAX);
                prop_assert_eq!(outboxes.hold(0), hold);
                prop_assert_eq!(outboxes.mails, held.len());
                prop_assert_eq!(outboxes.is_empty(), outboxes.bytes() == 0);
            }
            let left = outboxes.iter().zip(&sent).flat_map(|(outbox, sent)| {
                let left = outbox.unacknowledged(&program).map(|(number, message)| (number, message.payload.to_vec()));
                let numbered = (1..).zip(sent).map(|(number, message)| (number, message.1.clone()));
                let expected = numbered.filter(|(number, _)| *number > outbox.acknowledged);
                left.zip(expected.collect::<Vec<_>>()).collect::<Vec<_>>()
            });
            for (left, expected) in left {
                prop_assert_eq!(left, expected);
            }
        }
    }
}
