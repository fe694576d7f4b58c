//! Parked keys: those that a fault has stopped, the calls they wait with, and how they go on.
//!
//! A key that faults is parked with the call that failed; what comes for it from then on stands
//! behind that call, in order. [`Wants::Retry`] and its kin let it go on: one op of the open epoch
//! empties the queue, then its calls are made again, in order, before anything else of the key. One
//! that fails again parks the key again, and the rest stands behind it. All of that is in one frame,
//! and told only once that is committed.
//!
//! Invariants: a key is parked iff it has a queue, and its host knows; the fold has the same queues.
//! Nothing overtakes a parked call of its key: not what arrives while the queue is made again, nor
//! what its calls send to their own key. An edit that cannot be read changes nothing.
//!
//! Queues have limits. A call behind them becomes a dead letter, or the shard takes no more input
//! ([`Overflow`]); the first call of a queue, and what a retry parks again, always has a place.
//!
//! Deliberately absent: retries by the shard itself. Handlers are deterministic: what failed fails
//! again until a person has changed something.

use std::{
    collections::{BTreeMap, btree_map},
    ops::Bound,
};

use super::{Reply, Shard, Trouble, Wants, frame::MessageRef, frame::Op, image::Parked, read, rules::Rule};
use crate::{
    ask,
    codec::{Reader, put_bytes, put_varint},
    dead_letter::Reason,
    decoded::Decoded,
    effect::{Call, Calls},
    envelope,
    limits::{PARKED_KEY_BYTES_MAX, PARKED_SHARD_BYTES_MAX},
    program::NameId,
};

/// How many calls of a queue are made before a full epoch ends the retry.
const RETRIED_AT_A_TIME: usize = 256;
/// What a call that waits costs beside its bytes, about.
const CALL_BYTES: usize = 32;
/// Why a key is still parked whose queue was longer than an epoch.
const EPOCH_WAS_FULL: &str = "the calls before this one were made again, and then the epoch was full: retry again";

/// What becomes of a call that finds the queue of its parked key, or all of its shard, full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Overflow {
    /// It becomes a dead letter.
    #[default]
    DeadLetter,
    /// It waits all the same, and the shard takes no input until keys were retried or skipped.
    StopIngress,
}

/// How much parked keys may wait with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParkedLimits {
    /// How many bytes of calls one key may wait with.
    pub key_bytes_max: usize,
    /// How many bytes of calls all keys of a shard may wait with.
    pub shard_bytes_max: usize,
    /// What becomes of a call behind that.
    pub overflow: Overflow,
}

impl Default for ParkedLimits {
    fn default() -> Self {
        let (key_bytes_max, shard_bytes_max) = (PARKED_KEY_BYTES_MAX, PARKED_SHARD_BYTES_MAX);
        Self { key_bytes_max, shard_bytes_max, overflow: Overflow::default() }
    }
}

/// The parked keys of a shard.
#[derive(Debug, Default)]
pub(super) struct Parking {
    keys: BTreeMap<(NameId, Vec<u8>), Parked>,
    /// What all of them take of memory, in bytes.
    bytes: usize,
    /// Keys that wait with as much as a key may, or more.
    full_keys: usize,
    /// Whether calls are parked that were parked before: they have their place.
    is_retrying: bool,
}

impl Parking {
    pub(super) fn of(keys: BTreeMap<(NameId, Vec<u8>), Parked>, limits: &ParkedLimits) -> Self {
        let bytes = keys.values().map(cost).sum();
        let full_keys = keys.values().filter(|parked| cost(parked) >= limits.key_bytes_max).count();
        Self { keys, bytes, full_keys, is_retrying: false }
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn iter(&self) -> btree_map::Iter<'_, (NameId, Vec<u8>), Parked> {
        self.keys.iter()
    }

    /// What a key is parked with.
    pub(super) fn get(&self, id: &(NameId, Vec<u8>)) -> Option<&Parked> {
        self.keys.get(id)
    }

    /// The keys behind one, or all of them, in order.
    pub(super) fn behind(&self, id: Option<(NameId, Vec<u8>)>) -> impl Iterator<Item = (&(NameId, Vec<u8>), &Parked)> {
        self.keys.range((id.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded))
    }

    pub(super) fn has(&self, function: NameId, key: &[u8]) -> bool {
        !self.keys.is_empty() && self.keys.contains_key(&(function, key.to_vec()))
    }

    /// Whether a limit is reached.
    fn is_full(&self, limits: &ParkedLimits) -> bool {
        self.full_keys > 0 || self.bytes >= limits.shard_bytes_max
    }

    /// Whether one more call of a key has a place.
    fn has_place(&self, id: &(NameId, Vec<u8>), limits: &ParkedLimits) -> bool {
        let Some(parked) = self.keys.get(id) else { return true };
        let is_full = cost(parked) >= limits.key_bytes_max || self.bytes >= limits.shard_bytes_max;
        !is_full || self.is_retrying || limits.overflow == Overflow::StopIngress
    }

    fn push(
        &mut self,
        id: (NameId, Vec<u8>),
        is_timer: bool,
        message: &MessageRef<'_>,
        reason: &str,
        limits: &ParkedLimits,
    ) {
        let parked = self.keys.entry(id).or_default();
        let before = cost(parked);
        parked.push(is_timer, message, reason);
        let after = cost(parked);
        self.bytes += after - before;
        self.full_keys += usize::from(before < limits.key_bytes_max && after >= limits.key_bytes_max);
    }

    fn take(&mut self, id: &(NameId, Vec<u8>), limits: &ParkedLimits) -> Option<Parked> {
        let parked = self.keys.remove(id)?;
        self.bytes -= cost(&parked);
        self.full_keys -= usize::from(cost(&parked) >= limits.key_bytes_max);
        Some(parked)
    }
}

/// About how much memory a queue takes.
fn cost(parked: &Parked) -> usize {
    parked.bytes + parked.queue.len() * CALL_BYTES
}

impl Wants {
    /// Whether it is something about a parked key, and not a call.
    #[must_use]
    pub fn is_about_parked(self) -> bool {
        matches!(self, Self::Retry | Self::Skip | Self::EditMessage | Self::EditState)
    }
}

impl Shard {
    /// How many keys are parked.
    #[must_use]
    pub fn parked_keys(&self) -> usize {
        self.parked.len()
    }

    /// About how much memory the calls take that parked keys wait with, in bytes.
    #[must_use]
    pub fn parked_bytes(&self) -> usize {
        self.parked.bytes()
    }

    /// Every parked key: its function, its bytes, and what it waits with; in order.
    pub fn parked(&self) -> impl Iterator<Item = (&str, &[u8], &Parked)> {
        self.parked.iter().map(|((function, key), parked)| (self.name(*function), &key[..], parked))
    }

    /// Whether parked keys have so much to wait with that the shard takes no input.
    #[must_use]
    pub fn is_stopped_by_parked(&self) -> bool {
        self.options.parked.overflow == Overflow::StopIngress && self.parked.is_full(&self.options.parked)
    }

    /// Stops a key, or lets one more call wait for a key that is stopped.
    pub(super) fn park(&mut self, call: &Call, bytes: &[u8], reason: &str) {
        let limits = self.options.parked;
        let message = MessageRef::of_call(&self.program, call, bytes);
        let id = (message.function, message.key.to_vec());
        if !self.parked.has_place(&id, &limits) {
            self.counters.parked_refused += 1;
            let error = "the key is parked, and no more calls may wait for it or for its shard";
            self.tell_not_made(call, bytes, error);
            self.tell_asker(call, bytes, |out| ask::put_failure(error, out));
            return self.dead_call(Reason::ParkedQueueFull, error, call, bytes);
        }
        let body = &mut self.effects.body;
        body.push(Op::Park as u8);
        body.push(u8::from(call.is_timer));
        message.put(body);
        put_bytes(body, reason.as_bytes());
        self.parked.push(id, call.is_timer, &message, reason, &limits);
    }

    /// Lets a parked key go on, as `wants` says; `call` has the key, and as payload the bytes of an edit.
    pub(super) fn unpark(&mut self, wants: Wants, call: &Call, bytes: &[u8]) -> Reply {
        let id = (self.program.functions[usize::from(call.function)].name, call.key.of(bytes).to_vec());
        let edit = call.payload.of(bytes);
        let Some(first) = self.parked.keys.get(&id).map(|parked| parked.queue[0].clone()) else {
            return Reply::Failed(Trouble::NotParked);
        };
        let host = &mut self.hosts[usize::from(call.function)];
        let edited = match wants {
            Wants::EditMessage => {
                let message = read(MessageRef::read(&mut Reader::new(&first.1)));
                let handler = self.program.handler_of(first.0, call.function, message.message);
                host.check(handler.expect("a parked call has a handler"), first.0, edit)
            }
            Wants::EditState => host.replace(call.hash, &id.1, edit),
            _ => Ok(()),
        };
        if let Err(error) = edited {
            return Reply::Failed(Trouble::Unreadable(error.to_string()));
        }
        let parked = self.parked.take(&id, &self.options.parked).expect("it was just there");
        let body = &mut self.effects.body;
        body.push(Op::Unpark as u8);
        put_varint(body, u64::from(id.0));
        put_bytes(body, &id.1);
        let mut calls = self.calls_of(call, &parked, (wants == Wants::EditMessage).then_some(edit));
        if wants == Wants::Skip {
            let first = calls.calls.remove(0);
            let error = "an operator has skipped the message";
            self.tell_not_made(&first, &calls.bytes, error);
            self.tell_asker(&first, &calls.bytes, |out| ask::put_failure(error, out));
            self.dead_call(Reason::Skipped, &parked.reason, &first, &calls.bytes);
        }
        if !self.options.rules.holds(Rule::RetriesKeepTheOrder) {
            calls.calls.reverse();
        }
        self.counters.retried += 1;
        self.retry(call, &id.1, &calls);
        let parked = self.parked.keys.get(&id);
        Reply::Resumed {
            waiting: parked.map_or(0, |parked| parked.queue.len() as u64),
            reason: parked.map_or_else(String::new, |parked| parked.reason.clone()),
        }
    }

    /// The calls of a queue, the first one with another payload if there is an edit.
    fn calls_of(&self, like: &Call, parked: &Parked, edit: Option<&[u8]>) -> Calls {
        let mut calls = Calls::default();
        for (place, (is_timer, message)) in parked.calls().enumerate() {
            let handler = self.program.handler_of(is_timer, like.function, message.message);
            let handler = handler.expect("a parked call has a handler");
            let call = Call { is_timer, ..Call::message(like.function, handler, like.hash, message.time) };
            match edit.filter(|_| place == 0) {
                Some(edit) => calls.push(call, message.key, &self.edited(&call, message.payload, edit)),
                None => calls.push(call, message.key, message.payload),
            }
        }
        calls
    }

    /// An edited message in the envelope that the one before had.
    fn edited(&self, call: &Call, before: &[u8], edit: &[u8]) -> Vec<u8> {
        let (_, message) = self.program.names_of(call);
        let (_, plain) = envelope::opened(self.program.name(message), before);
        [&before[..before.len() - plain.len()], edit].concat()
    }

    /// Makes the calls of a key again, until one of them parks it or the epoch is full.
    fn retry(&mut self, call: &Call, key: &[u8], calls: &Calls) {
        self.set_parked(call, key, false);
        let Calls { calls, bytes, .. } = calls;
        self.parked.is_retrying = true;
        let mut rest = &calls[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(RETRIED_AT_A_TIME));
            self.run_all(now, bytes, &mut Decoded::default());
            rest = later;
            if self.is_full() && !rest.is_empty() {
                self.set_parked(call, key, true);
                rest.iter().for_each(|call| self.park(call, bytes, EPOCH_WAS_FULL));
                break;
            }
        }
        self.parked.is_retrying = false;
    }

    fn set_parked(&mut self, call: &Call, key: &[u8], parked: bool) {
        let set = self.hosts[usize::from(call.function)].set_parked(call.hash, key, parked);
        set.expect("the key of a parked call was read when it was called");
    }
}
