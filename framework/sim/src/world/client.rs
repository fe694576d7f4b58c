//! Clients of an HTTP edge: they call handlers and wait for answers, which may be lost; one that waited
//! long enough asks again with the same idempotency key, or gives up and never knows.
//!
//! A request is one operation of the history, however often it is asked. It begins when a worker was
//! first given it, and ends with the first answer that a worker gave: what is answered is committed,
//! whether the client hears of it or not.

use statefn_core::{
    EventTime,
    address::{ShardId, murmur2, shard_of},
    effect::{Call, Calls},
    function::Access,
    shard::{Answer, Reply, Request, Shard, Trouble, Wants},
};

use super::{Event, UNPARK_MS, WorkerId, World};
use crate::{
    linear::Operation,
    plan::Fault,
    workload::{Asked, Told, Unparks},
};

/// The numbers of requests that repeat another one begin here.
const REPEATS_FROM: u64 = 1 << 40;
/// How many clients, of thousand, ask again what was asked before, without waiting for its answer.
const REPEATS_PER_MILLE: u32 = 120;
/// The numbers of requests that make parked keys go on begin here.
const UNPARKS_FROM: u64 = 1 << 41;
/// How many parked keys, of thousand, go on without their first call.
const SKIPS_PER_MILLE: u32 = 150;
/// How many requests may be asked again so: the last ones.
const REPEATABLE: usize = 32;
/// How long a client waits before it asks again, in milliseconds.
const PATIENCE_MS: [i64; 2] = [30, 600];
/// How many clients, of thousand, ask until they are answered.
const STUBBORN_PER_MILLE: u32 = 700;

/// An attempt of a request that nobody has answered yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking {
    /// The request that it repeats, or its own number.
    pub(super) first: u64,
    pub(super) worker: WorkerId,
    pub(super) shard: ShardId,
    pub(super) nonce: u64,
    /// The last epoch that the call saw or became part of.
    epoch: u64,
    /// How many answers had been given before.
    pub(super) known: usize,
}

/// How often a client asks again.
#[derive(Debug, Clone, Copy)]
pub(super) enum Patience {
    UntilAnswered,
    Times(u64),
}

impl Patience {
    /// What is left after one more time, if it asks again at all.
    fn again(self) -> Option<Self> {
        match self {
            Self::UntilAnswered => Some(self),
            Self::Times(times) => times.checked_sub(1).map(Self::Times),
        }
    }
}

impl World<'_> {
    /// What an answer says, and all that its call has seen, is committed (I7).
    pub(super) fn check_answered(&self, request: u64, asking: Asking) -> Result<(), String> {
        let Asking { worker, shard, nonce, epoch, .. } = asking;
        let committed = self.audit.shards[shard as usize].image.epoch();
        if committed < epoch && self.owned(worker, shard).is_some_and(|owned| owned.nonce() == nonce) {
            return Err(format!(
                "request {request} is answered, and epoch {epoch} of shard {shard} is not committed (I7)"
            ));
        }
        Ok(())
    }

    /// A client calls a handler of some key and waits for the answer; or somebody asks once more what
    /// was asked before, whether that was answered or not.
    pub(super) fn request(&mut self) {
        if self.is_calm {
            return;
        }
        let ms = self.random.between(5, self.plan.request_ms_max);
        self.after(ms, Event::Request);
        if !self.repeatable.is_empty() && self.random.chance(REPEATS_PER_MILLE) {
            let place = self.random.below(self.repeatable.len() as u64) as usize;
            self.repeat(self.repeatable[place]);
            return;
        }
        let id = self.history.len() as u64;
        let Some(asked) = self.workload.request(&mut self.random, id) else { return };
        let begun = self.history_time();
        if !self.ask(id, id, &asked) {
            return;
        }
        let access = self.handler_of(&asked).2;
        self.history.push(Operation { call: asked, begun, ended: None });
        // A read that is repeated is another one.
        if access == Access::Write {
            self.repeatable.push_back(id);
            if self.repeatable.len() > REPEATABLE {
                self.repeatable.pop_front();
            }
            let times = self.random.below(3);
            let is_stubborn = self.random.chance(STUBBORN_PER_MILLE);
            let patience = if is_stubborn { Patience::UntilAnswered } else { Patience::Times(times) };
            self.wait(id, patience);
        }
    }

    /// A moment that no other begin or end of the history has.
    fn history_time(&mut self) -> u64 {
        self.history_moments += 1;
        self.history_moments
    }

    fn wait(&mut self, request: u64, patience: Patience) {
        self.waiting.insert(request, patience);
        let ms = self.random.between(PATIENCE_MS[0], PATIENCE_MS[1]);
        self.after(ms, Event::Again(request));
    }

    /// A client asks again, unless it has heard the answer.
    pub(super) fn ask_again(&mut self, request: u64) {
        let Some(patience) = self.waiting.remove(&request) else { return };
        if let Some(left) = patience.again() {
            let is_taken = self.repeat(request);
            self.report.repeats_refused += u64::from(!is_taken);
            self.wait(request, left);
        }
    }

    fn repeat(&mut self, request: u64) -> bool {
        let asked = self.history[request as usize].call.clone();
        self.report.repeats += 1;
        self.ask(REPEATS_FROM + self.report.repeats, request, &asked)
    }

    fn handler_of(&self, asked: &Asked) -> (u16, u16, Access) {
        let functions = &self.program.functions;
        let function = functions.iter().position(|known| known.spec.name == asked.function);
        let function = function.expect("a function of the program");
        let handlers = &functions[function].spec.messages;
        let handler = handlers.iter().position(|handler| handler.message == asked.message);
        let handler = handler.expect("a message of the function");
        (function as u16, handler as u16, handlers[handler].access)
    }

    /// Gives a request to an owner of its shard; there may be none.
    fn ask(&mut self, id: u64, first: u64, asked: &Asked) -> bool {
        let hash = murmur2(&asked.key);
        let shard = shard_of(hash, self.plan.shards);
        let owners: Vec<WorkerId> =
            (0..self.workers.len()).filter(|worker| self.owned(*worker, shard).is_some()).collect();
        if owners.is_empty() {
            return false;
        }
        let worker = self.random.one_of(&owners);
        let (function, handler, _) = self.handler_of(asked);
        let mut calls = Calls::default();
        // To a service it happens when it comes.
        let time = if self.options.is_live { EventTime::MIN } else { EventTime(0) };
        calls.push(Call::message(function, handler, hash, time), &asked.key, &asked.payload);
        let now = self.clock(worker);
        self.tell(format_args!("worker {worker} gets request {id}, the same as {first}, for shard {shard}"));
        let once = Some(first.to_le_bytes().to_vec());
        self.pipeline(worker).request(shard, &Request { once, ..Request::for_answer(id, calls) }, now);
        self.note_asked(id, first, worker, shard);
        true
    }

    /// How many keys are parked, as their owners see it.
    pub(super) fn parked_keys(&self) -> usize {
        self.parked().len()
    }

    /// Every parked key: who owns it, its shard, function and bytes.
    fn parked(&self) -> Vec<(WorkerId, ShardId, u16, Vec<u8>)> {
        let mut parked = Vec::new();
        for (worker, shard) in (0..self.workers.len()).flat_map(|id| (0..self.plan.shards).map(move |at| (id, at))) {
            for (function, key, _) in self.owned(worker, shard).into_iter().flat_map(Shard::parked) {
                let function = self.program.functions.iter().position(|known| known.spec.name == function);
                parked.push((worker, shard, function.expect("a function of the program") as u16, key.to_vec()));
            }
        }
        parked
    }

    /// Somebody looks for parked keys and lets one of them go on.
    pub(super) fn unpark(&mut self) {
        if self.is_calm && self.workload.unparks() != Unparks::UntilNone {
            return;
        }
        let ms = self.random.between(1, UNPARK_MS);
        self.after(ms, Event::Unpark);
        let parked = self.parked();
        if parked.is_empty() {
            return;
        }
        let (worker, shard, function, key) = parked[self.random.place(parked.len())].clone();
        if self.workers[worker].paused_until > self.now {
            return;
        }
        let wants = if !self.is_calm && self.random.chance(SKIPS_PER_MILLE) { Wants::Skip } else { Wants::Retry };
        let id = UNPARKS_FROM + self.sequence;
        self.tell(format_args!("worker {worker} gets request {id}, a {wants:?} of a key of shard {shard}"));
        let mut calls = Calls::default();
        calls.push(Call::message(function, 0, murmur2(&key), EventTime::MIN), &key, b"");
        let now = self.clock(worker);
        self.pipeline(worker).request(shard, &Request { wants, ..Request::for_answer(id, calls) }, now);
        self.note_asked(id, id, worker, shard);
        self.wake(worker, 1);
    }

    fn note_asked(&mut self, id: u64, first: u64, worker: WorkerId, shard: ShardId) {
        let known = self.answers.len();
        let owned = self.owned(worker, shard).expect("an owner was picked");
        let (nonce, epoch) = (owned.nonce(), owned.epoch() + u64::from(owned.has_epoch()));
        self.asked.insert(id, Asking { first, worker, shard, nonce, epoch, known });
    }

    /// A worker answers; of a request that was asked again all answers have to be the same.
    pub(super) fn tell_client(&mut self, answer: Answer, known: usize) -> Result<(), String> {
        let request = answer.request;
        if self.strikes(Fault::LostAnswer) {
            self.report.answers_lost += 1;
            self.tell(format_args!("the answer of request {request} is lost"));
        } else {
            self.waiting.remove(&request);
        }
        let ended = self.history_time();
        let Some(operation) = self.history.get_mut(request as usize) else {
            // Not of a client: of one who lets parked keys go on.
            return Ok(());
        };
        if let Some((_, before)) = &operation.ended {
            self.report.answers_again += 1;
            if *before != answer.reply {
                let error = format!(
                    "request {request} was answered by {before:?} and, when it came again, by {:?} (I7)",
                    answer.reply
                );
                if self.plan.looks_inside {
                    return Err(error);
                }
                self.differing.get_or_insert(error);
            }
            return Ok(());
        }
        operation.ended = Some((ended, answer.reply.clone()));
        self.answers.push(Told { answer, known });
        Ok(())
    }

    /// What a mutant does: clients are told that nothing was done, though nobody knows.
    pub(super) fn refuse_requests(&mut self, worker: WorkerId, shard: ShardId) {
        let is_refused = |asking: &Asking| (asking.worker, asking.shard) == (worker, shard);
        let refused: Vec<_> = self.asked.extract_if(.., |_, asking| is_refused(asking)).collect();
        for (_, Asking { first, known, .. }) in refused {
            self.waiting.remove(&first);
            let ended = self.history_time();
            let operation = &mut self.history[first as usize];
            if operation.ended.is_none() {
                let reply = Reply::Failed(Trouble::Faulted("nothing was done".into()));
                operation.ended = Some((ended, reply.clone()));
                self.answers.push(Told { answer: Answer { request: first, reply }, known });
            }
        }
    }
}
