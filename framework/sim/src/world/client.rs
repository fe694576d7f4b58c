//! Clients that call handlers and wait for answers, and that ask again with the same idempotency key.

use statefn_core::{
    address::{ShardId, murmur2, shard_of},
    effect::{Call, Calls},
    function::Access,
    shard::{Answer, Reply, Request, Shard, Trouble, Wants},
};

use super::{Event, UNPARK_MS, WorkerId, World};
use crate::workload::{Asked, Told, Unparks};

/// The numbers of requests that repeat another one begin here.
const REPEATS_FROM: u64 = 1 << 40;
/// How many clients, of thousand, ask again what was asked before.
const REPEATS_PER_MILLE: u32 = 120;
/// The numbers of requests that make parked keys go on begin here.
const UNPARKS_FROM: u64 = 1 << 41;
/// How many parked keys, of thousand, go on without their first call.
const SKIPS_PER_MILLE: u32 = 150;
/// How many requests may be asked again: the last ones.
const REPEATABLE: usize = 32;

/// A request that nobody has answered yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking {
    /// The request that it repeats, or its own number.
    pub(super) first: u64,
    worker: WorkerId,
    shard: ShardId,
    nonce: u64,
    /// The last epoch that the call saw or became part of.
    epoch: u64,
    /// How many answers had been given before.
    pub(super) known: usize,
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

    /// A client calls a handler of some key and waits for the answer; or it asks again what somebody
    /// has asked before, whether that was answered or not.
    pub(super) fn request(&mut self) {
        if self.is_calm {
            return;
        }
        let ms = self.random.between(5, self.plan.request_ms_max);
        self.after(ms, Event::Request);
        if !self.repeatable.is_empty() && self.random.chance(REPEATS_PER_MILLE) {
            let place = self.random.below(self.repeatable.len() as u64) as usize;
            let (first, asked) = self.repeatable[place].clone();
            self.report.repeats += 1;
            self.ask(REPEATS_FROM + self.report.repeats, first, &asked);
            return;
        }
        let id = self.requests;
        let Some(asked) = self.workload.request(&mut self.random, id) else { return };
        if !self.ask(id, id, &asked) {
            return;
        }
        self.requests += 1;
        if self.handler_of(&asked).2 == Access::Write {
            self.repeatable.push_back((id, asked));
            if self.repeatable.len() > REPEATABLE {
                self.repeatable.pop_front();
            }
        }
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
        let call = Call::message(function, handler, hash, statefn_core::EventTime(0));
        calls.push(call, &asked.key, &asked.payload);
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
        calls.push(Call::message(function, 0, murmur2(&key), statefn_core::EventTime::MIN), &key, b"");
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

    /// Tells the clients an answer; of a request that was asked again all have to be the same.
    pub(super) fn tell_client(&mut self, answer: Answer, known: usize) -> Result<(), String> {
        let Answer { request, reply } = &answer;
        if let Some(before) = self.replies.get(request) {
            let is_same = before == reply;
            return is_same.then_some(()).ok_or_else(|| {
                format!("request {request} was answered by {before:?} and, when it came again, by {reply:?} (I7)")
            });
        }
        self.replies.insert(*request, reply.clone());
        self.answers.push(Told { answer, known });
        Ok(())
    }

    /// What a mutant does: clients are told that nothing was done, though nobody knows.
    pub(super) fn refuse_requests(&mut self, worker: WorkerId, shard: ShardId) {
        let is_refused = |asking: &Asking| (asking.worker, asking.shard) == (worker, shard);
        let refused = self.asked.extract_if(.., |_, asking| is_refused(asking));
        for (_, Asking { first, known, .. }) in refused {
            if !self.replies.contains_key(&first) {
                let reply = Reply::Failed(Trouble::Faulted("nothing was done".into()));
                self.answers.push(Told { answer: Answer { request: first, reply }, known });
            }
        }
    }
}
