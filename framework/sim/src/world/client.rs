//! Clients that call handlers and wait for answers.

use statefn_core::{
    address::{ShardId, murmur2, shard_of},
    effect::{Call, Calls},
    shard::{Answer, Reply, Request},
};

use super::{Event, WorkerId, World};
use crate::workload::{Asked, Told};

/// Who was asked, and the epoch that the call became part of, if it changed anything.
#[derive(Debug, Clone, Copy)]
pub(super) struct AskedOf {
    worker: WorkerId,
    shard: ShardId,
    nonce: u64,
    epoch: u64,
    /// How many answers had been given before.
    pub(super) known: usize,
}

impl World<'_> {
    /// What an answer says, and all that its call has seen, is committed (I7).
    pub(super) fn check_answered(&self, request: u64, asked: AskedOf) -> Result<(), String> {
        let AskedOf { worker, shard, nonce, epoch, .. } = asked;
        let committed = self.audit.shards[shard as usize].image.epoch();
        let Some(owned) = self.owned(worker, shard).filter(|owned| owned.nonce() == nonce) else { return Ok(()) };
        let is_open = owned.epoch() < epoch;
        // In a shared log an answer that changed nothing waits for the end of the journal, while the
        // open epoch goes on without it.
        let may_be_ahead = is_open || !self.plan.is_embedded;
        let has_changed = self.plan.is_embedded && owned.has_epoch();
        if committed + u64::from(may_be_ahead) < epoch || is_open && has_changed {
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
        let owned = self.owned(worker, shard).expect("an owner was picked");
        let (nonce, epoch, known) = (owned.nonce(), owned.epoch() + 1, self.answers.len());
        self.asked.insert(id, AskedOf { worker, shard, nonce, epoch, known });
        self.tell(format_args!("worker {worker} gets request {id}, for shard {shard}"));
        self.pipeline(worker).request(shard, &Request { id, calls }, now);
    }

    /// What a mutant does: clients are told that nothing was done, though nobody knows.
    pub(super) fn refuse_requests(&mut self, worker: WorkerId, shard: ShardId) {
        let is_refused = |asked: &AskedOf| (asked.worker, asked.shard) == (worker, shard);
        for (request, asked) in self.asked.extract_if(.., |_, asked| is_refused(asked)) {
            let answer = Answer { request, reply: Reply::Failed("nothing was done".into()) };
            self.answers.push(Told { answer, known: asked.known });
        }
    }
}
