//! Messages to other shards: kept by the source until the target's committed frames have them.
//!
//! The messages of one frame for one target are one [`Mail`]; its messages are numbered for that
//! target without gaps. The target accepts exactly the next number and drops the rest, so a mail
//! may come twice, late, or again from the first message that is not acknowledged.
//!
//! Source of the rule: go-back-N, with the acknowledgement read from the receiver's committed
//! state (`framework/docs/ARCHITECTURE.md`, "Messages between shards").
//!
//! Deliberately absent: selective resending. After a gap everything behind it goes again.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    address::ShardId,
    codec::Reader,
    effect::Span,
    error::Corrupt,
    limits::{MAIL_IN_FLIGHT_BYTES_MAX, RESEND_INTERVAL_MS},
    program::{FunctionId, Program},
    shard::{
        frame::MessageRef,
        rules::{Rule, Rules},
    },
    time::{EventTime, ProcessingTime},
};

/// The messages of one committed frame for one shard.
#[derive(Debug, Clone)]
pub struct Mail {
    /// The shard that sent them.
    pub source: ShardId,
    /// The shard they are for.
    pub target: ShardId,
    /// The number of the first, from 1.
    pub first: u64,
    /// The bytes that the messages stand in.
    pub frame: Arc<Vec<u8>>,
    /// The messages, in order.
    pub messages: Vec<Posted>,
}

/// One message of a mail.
#[derive(Debug, Clone, Copy)]
pub struct Posted {
    /// The function it is for.
    pub function: FunctionId,
    /// Its event time.
    pub time: EventTime,
    /// The encoded [`MessageRef`].
    pub span: Span,
}

impl Mail {
    /// The number of the last message.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.first + self.messages.len() as u64 - 1
    }

    /// How many bytes its messages have.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.messages.iter().map(|message| message.span.length as usize).sum()
    }
}

/// How often everything is looked through for mail that has to go again, though nothing happened.
const LOOK_INTERVAL_MS: i64 = RESEND_INTERVAL_MS / 10;

/// What a shard has sent to the others; what is asked for at each turn is kept added up.
#[derive(Debug)]
pub(crate) struct Outboxes {
    by_target: Vec<Outbox>,
    /// How many bytes are not acknowledged.
    bytes: usize,
    /// How many mails are not acknowledged.
    mails: usize,
    /// Whether more was acknowledged than the last frame says.
    has_unsealed: bool,
    /// Whether mail was confirmed or acknowledged since the last look.
    has_news: bool,
    looked_at: ProcessingTime,
}

impl Outboxes {
    /// Nothing was sent to any of `shards` shards.
    pub(crate) fn new(shards: u32) -> Self {
        Self {
            by_target: std::iter::repeat_with(Outbox::default).take(shards as usize).collect(),
            bytes: 0,
            mails: 0,
            has_unsealed: false,
            has_news: true,
            looked_at: ProcessingTime::MIN,
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
        self.by_target[target as usize] = outbox;
    }

    /// Adds the messages of a sealed frame; they may be published once it is confirmed.
    pub(crate) fn push(&mut self, mail: Mail) {
        let target = mail.target as usize;
        self.mails += 1;
        self.bytes += self.by_target[target].push(mail);
    }

    /// Notes that all frames sealed so far are confirmed.
    pub(crate) fn confirm(&mut self) {
        if self.mails > 0 {
            self.by_target.iter_mut().for_each(Outbox::confirm);
            self.has_news = true;
        }
    }

    /// Notes what the committed frames of a target have.
    pub(crate) fn acknowledge(&mut self, target: ShardId, upto: u64, now: ProcessingTime) {
        let outbox = &mut self.by_target[target as usize];
        let (bytes, mails) = (outbox.bytes, outbox.mails.len());
        if outbox.acknowledge(upto, now) {
            self.bytes -= bytes - outbox.bytes;
            self.mails -= mails - outbox.mails.len();
            (self.has_unsealed, self.has_news) = (true, true);
        }
    }

    /// Hands out what may be published now; see [`Outbox::publish`].
    pub(crate) fn publish(&mut self, rules: Rules, now: ProcessingTime, mut each: impl FnMut(&Arc<Mail>)) {
        let is_time = now.0.saturating_sub(self.looked_at.0) >= LOOK_INTERVAL_MS;
        if self.mails == 0 || !(is_time || self.has_news) {
            return;
        }
        (self.has_news, self.looked_at) = (false, now);
        for target in 0..self.by_target.len() {
            let mut last = 0;
            self.by_target[target].publish(rules, now, |mail| {
                last = mail.last();
                each(mail);
            });
            if !rules.holds(Rule::OutboxKeepsUntilAcknowledged) {
                self.acknowledge(target as ShardId, last, now);
            }
        }
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

/// What a shard has sent to one other shard.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// The number of the last message that was sent.
    pub(crate) sent: u64,
    /// Up to where the target's committed frames have them.
    pub(crate) acknowledged: u64,
    /// What is not acknowledged, oldest first.
    mails: VecDeque<Arc<Mail>>,
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
        let mut frame = Vec::new();
        let mut posted = Vec::new();
        for message in messages {
            let start = frame.len();
            frame.extend_from_slice(message);
            let read = MessageRef::read(&mut Reader::new(message))?;
            let function = program.function_named(read.function);
            // Taking over has refused messages for functions that are gone.
            let function =
                function.ok_or_else(|| Corrupt("a message in the outbox is for an unknown function".into()))?;
            posted.push(Posted { function, time: read.time, span: Span::between(start, frame.len()) });
        }
        let mail = Mail { source, target, first: acknowledged + 1, frame: Arc::new(frame), messages: posted };
        assert_eq!(mail.last(), sent, "an outbox holds everything behind what is acknowledged");
        outbox.bytes = mail.bytes();
        outbox.mails.push_back(Arc::new(mail));
        outbox.confirm();
        Ok(outbox)
    }

    /// Adds mail, which it numbers; returns how many bytes it has.
    fn push(&mut self, mail: Mail) -> usize {
        let mail = Mail { first: self.sent + 1, ..mail };
        self.sent = mail.last();
        let bytes = mail.bytes();
        self.bytes += bytes;
        self.mails.push_back(Arc::new(mail));
        bytes
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
    fn publish(&mut self, rules: Rules, now: ProcessingTime, mut each: impl FnMut(&Arc<Mail>)) {
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
    pub(crate) fn unacknowledged(&self) -> impl Iterator<Item = (u64, &Posted, &[u8])> {
        let messages = self.mails.iter().flat_map(|mail| {
            let frame: &[u8] = &mail.frame;
            (mail.first..).zip(&mail.messages).map(move |(number, posted)| (number, posted, posted.span.of(frame)))
        });
        messages.filter(|(number, ..)| *number > self.acknowledged)
    }
}
