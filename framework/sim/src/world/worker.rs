//! Workers: their turns, their deaths, and the input they read.

use std::sync::Arc;

use statefn_core::{
    address::ShardId,
    dead_letter::DeadLetter,
    ingress::{Batches, ErasedIngress, partition_owner},
    pipeline::Pipeline,
    ports::{
        ingress::{MemorySource, ReadLimit, Source, Stretch, finish_stretch},
        log::Log,
        membership::MemoryMembership,
    },
    program::Program,
    shard::{Shard, frame::Position, wire::progress_partition},
};

use super::{Event, WorkerId, World};
use crate::plan::Fault;

impl World<'_> {
    pub(super) fn pipeline(&mut self, worker: WorkerId) -> &mut Pipeline {
        self.wake(worker, 1);
        self.workers[worker].pipeline.as_mut().expect("an event reaches a living worker only")
    }

    pub(super) fn owned(&self, worker: WorkerId, shard: ShardId) -> Option<&Shard> {
        self.workers[worker].pipeline.as_ref()?.shards().find(|owned| owned.id() == shard)
    }

    pub(super) fn turn(&mut self, worker: WorkerId, turn: u64) -> Result<(), String> {
        if self.workers[worker].turn != turn {
            return Ok(());
        }
        self.workers[worker].turn_at = None;
        let mut is_busy = self.random.chance(400) && self.read_input(worker);
        is_busy |= self.read_posts(worker)?;
        let now = self.clock(worker);
        // Not by `Self::pipeline`, which would wake the worker again at once, for ever.
        self.workers[worker].pipeline.as_mut().expect("a worker with a turn lives").pump(now);
        while let Some(action) = self.workers[worker].pipeline.as_mut().and_then(Pipeline::next_action) {
            is_busy = true;
            if self.strikes(Fault::Crash) {
                self.crash(worker)?;
                break;
            }
            self.execute(worker, action)?;
            if self.strikes(Fault::Crash) {
                self.crash(worker)?;
            }
        }
        self.wake(worker, if is_busy { 3 } else { self.idle_ms() });
        Ok(())
    }

    /// How long a worker with nothing to do sleeps; long where time only goes on for the clock's sake.
    fn idle_ms(&self) -> i64 {
        let turns = 500;
        self.done_at.map_or(40, |_| (self.workload.lingers_ms() / turns).max(40))
    }

    pub(super) fn restart(&mut self, worker: WorkerId) {
        self.link(worker);
        let program = Arc::clone(&self.workers[worker].program);
        let pipeline = Pipeline::new(program, &self.options, self.plan.commit_interval_ms);
        self.workers[worker].pipeline = Some(pipeline);
        self.watch.start(worker, &self.workers[worker].membership, self.plan.shards);
        self.workers[worker].progress_from = self.log.end(progress_partition(self.plan.shards));
        for shard in 0..self.plan.shards {
            if self.named[shard as usize] == worker {
                self.news(worker, shard);
            }
        }
        self.wake(worker, 5);
    }

    /// Links what a new process runs, with new memory beside states, if the workload has any.
    fn link(&mut self, worker: WorkerId) {
        let Some((spec, bindings)) = self.workload.process() else { return };
        // All processes are of one app, and the world has linked it once.
        let program = Program::link(spec).unwrap_or_else(|error| panic!("{error}"));
        let known = &mut self.workers[worker];
        known.ingresses = bindings.into_iter().map(|bind| bind(&program)).collect();
        known.program = program;
    }

    pub(super) fn crash(&mut self, worker: WorkerId) -> Result<(), String> {
        let Some(pipeline) = self.workers[worker].pipeline.take() else { return Ok(()) };
        let is_idle = pipeline.is_idle();
        self.watch.end(worker);
        self.report.crashes += 1;
        self.tell(format_args!("worker {worker} dies"));
        self.report.crashes_in_work += u64::from(!is_idle);
        self.note(worker as u64);
        let known = &mut self.workers[worker];
        known.life += 1;
        known.turn_at = None;
        known.membership = MemoryMembership::default();
        known.claims.clear();
        known.emissions.clear();
        self.report.stores_left_behind += u64::from(known.unapplied.values().any(|unapplied| !unapplied.is_empty()));
        known.unapplied.clear();
        let ms = self.random.between(1, 400);
        self.after(ms, Event::Restart(worker));
        if self.plan.is_embedded {
            self.lose_stores();
            self.tear()?;
        }
        Ok(())
    }

    /// The log of a process dies with it: of what was not confirmed any part may stand, in order.
    pub(super) fn tear(&mut self) -> Result<(), String> {
        let is_flight = |event: &Event| matches!(event, Event::Arrive(_));
        let places: Vec<_> = self.queue.iter().filter(|(_, event)| is_flight(event)).map(|(place, _)| *place).collect();
        for place in places {
            if let Some(Event::Arrive(flight)) = self.queue.remove(&place) {
                self.flights -= 1;
                self.put_partly(flight.shard, &flight.records)?;
            }
        }
        Ok(())
    }

    /// Reads a stretch of one partition: for the shard that takes it in where processes share the log, and
    /// else for all shards, from the lowest position on.
    pub(super) fn read_input(&mut self, worker: WorkerId) -> bool {
        let pipeline = self.workers[worker].pipeline.as_ref().expect("a worker with a turn lives");
        if !pipeline.wants_input() || self.inputs.is_empty() {
            return false;
        }
        let ingress = self.random.place(self.inputs.len());
        let partition = self.random.place(self.inputs[ingress].len());
        let owner = self.options.is_log_shared.then(|| partition_owner(partition as u32, self.plan.shards));
        let shards = pipeline.shards().filter(|shard| owner.is_none_or(|owner| owner == shard.id()));
        let positions = shards.map(|shard| shard.position(ingress, partition as u32));
        let from = positions.min_by_key(|position| (position.offset, position.is_ended));
        let Some(from) = from.filter(|from| !from.is_ended) else { return false };
        let count = self.random.between(1, self.plan.stretch_max) as u64;
        let mut batches = self.route(worker, ingress, partition, from, count);
        let now = self.clock(worker);
        owner.into_iter().for_each(|owner| batches.gather(owner));
        let pipeline = self.pipeline(worker);
        for (shard, batch) in
            (0..).zip(&mut batches.shards).filter(|(shard, _)| owner.is_none_or(|owner| owner == *shard))
        {
            pipeline.ingress(shard, batch, now);
        }
        true
    }

    fn route(&mut self, worker: WorkerId, ingress: usize, partition: usize, from: Position, count: u64) -> Batches {
        /// Records do not lie at dense offsets.
        const RECORD_LENGTH: u64 = 7;
        let mut batches = Batches::new(self.plan.shards);
        let input = &self.inputs[ingress][partition];
        let bound = &*self.workers[worker].ingresses[ingress];
        let stretch = if self.workload.generates(bound.name()) {
            generate(bound, input, from, count, &mut batches)
        } else {
            let mut source = MemorySource::open(input, from).apart(RECORD_LENGTH);
            let Ok(stretch) = source.read(bound, &mut batches, ReadLimit { records: count, bytes: u64::MAX });
            stretch
        };
        self.report.records += stretch.to.records - from.records;
        finish_stretch(&mut batches, ingress, partition as u32, stretch);
        batches
    }
}

/// Lets a generator make the records of these numbers; others are left out of the world.
fn generate(
    ingress: &dyn ErasedIngress,
    numbers: &[Vec<u8>],
    from: Position,
    count: u64,
    batches: &mut Batches,
) -> Stretch {
    let mut to = from;
    for number in numbers.iter().skip(from.records as usize).take(count as usize) {
        // A generator's records lie at their numbers.
        to.offset = number[..].try_into().map_or(to.offset, u64::from_le_bytes);
        let made = ingress.generate(to.offset, batches).unwrap_or_else(|| Err("there is no more".into()));
        match made {
            Ok(time) => to.event_time_max = to.event_time_max.max(Some(time)),
            Err(error) => {
                let letter = DeadLetter::of_record(ingress.name(), &format!("record {}", to.offset), &error, b"");
                batches.dead_letter(to.offset, letter);
            }
        }
        to.offset += 1;
        to.records += 1;
    }
    to.is_ended = to.records as usize == numbers.len();
    Stretch { from: from.offset, to }
}
