//! Clients that call handlers and wait for answers.

use statefn_core::{
    address::{ShardId, murmur2, shard_of},
    effect::{Call, Calls},
    shard::{Answer, Reply, Request, Trouble},
};

use super::{Event, WorkerId, World};
use crate::workload::{Asked, Told};

/// A request that nobody has answered yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking {
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

    /// A client calls a handler of some key and waits for the answer; it never calls twice.
    pub(super) fn request(&mut self) {
        if self.is_calm {
            return;
        }
        let ms = self.random.between(5, self.plan.request_ms_max);
        self.after(ms, Event::Request);
        let id = self.requests;
        let Some(Asked { function, message, key, payload }) = self.workload.request(&mut self.random, id) else {
            return;
        };
        let hash = murmur2(&key);
        let shard = shard_of(hash, self.plan.shards);
        let owners: Vec<WorkerId> =
            (0..self.workers.len()).filter(|worker| self.owned(*worker, shard).is_some()).collect();
        if owners.is_empty() {
            return;
        }
        self.requests += 1;
        let worker = self.random.one_of(&owners);
        let functions = &self.program.functions;
        let function =
            functions.iter().position(|known| known.spec.name == function).expect("a function of the program");
        let handlers = &functions[function].spec.messages;
        let handler =
            handlers.iter().position(|handler| handler.message == message).expect("a message of the function");
        let mut calls = Calls::default();
        let call = Call::message(function as u16, handler as u16, hash, statefn_core::EventTime(0));
        calls.push(call, &key, &payload);
        let now = self.clock(worker);
        self.tell(format_args!("worker {worker} gets request {id}, for shard {shard}"));
        self.pipeline(worker).request(shard, &Request::for_answer(id, calls), now);
        let known = self.answers.len();
        let owned = self.owned(worker, shard).expect("an owner was picked");
        let (nonce, epoch) = (owned.nonce(), owned.epoch() + u64::from(owned.has_epoch()));
        self.asked.insert(id, Asking { worker, shard, nonce, epoch, known });
    }

    /// What a mutant does: clients are told that nothing was done, though nobody knows.
    pub(super) fn refuse_requests(&mut self, worker: WorkerId, shard: ShardId) {
        let is_refused = |asking: &Asking| (asking.worker, asking.shard) == (worker, shard);
        for (request, asking) in self.asked.extract_if(.., |_, asking| is_refused(asking)) {
            let answer = Answer { request, reply: Reply::Failed(Trouble::Faulted("nothing was done".into())) };
            self.answers.push(Told { answer, known: asking.known });
        }
    }
}
