//! Clients that call handlers and wait for answers.

use statefn_core::{
    address::{ShardId, murmur2, shard_of},
    effect::{Call, Calls},
    shard::{Answer, Reply, Request},
};

use super::{Asking, Event, WorkerId, World};
use crate::workload::{Asked, Told};

impl World<'_> {
    /// A client calls a handler of some key and waits for the answer; it never calls twice.
    pub(super) fn request(&mut self) {
        if self.is_calm {
            return;
        }
        let ms = self.random.between(5, 60);
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
        self.asked.insert(id, Asking { worker, shard, known: self.answers.len() });
        self.pipeline(worker).request(shard, &Request { id, calls }, now);
    }

    /// What a mutant does: clients are told that nothing was done, though nobody knows.
    pub(super) fn refuse_requests(&mut self, worker: WorkerId, shard: ShardId) {
        let is_refused = |asking: &Asking| (asking.worker, asking.shard) == (worker, shard);
        for (request, asking) in self.asked.extract_if(.., |_, asking| is_refused(asking)) {
            let answer = Answer { request, reply: Reply::Failed("nothing was done".into()) };
            self.answers.push(Told { answer, known: asking.known });
        }
    }
}
