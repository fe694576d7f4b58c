//! The threads that take shards over: load, claim, own, and hand them to their hosts.
//!
//! ```text
//! load snapshots and journals ─► claim ─► fold on ─► host, and the group's egresses are opened
//!        ▲                        │ somebody wrote, or was faster, or nobody knows │
//!        └────────────────────────┴────────────────────────────────────────────────┘
//! ```
//! Invariants: a claim is written only while the worker is named for the shard; egresses are fenced
//! only by a worker that owns a shard of the group; what they have not taken by then comes from the
//! journal, before anything new.
//!
//! Deliberately absent: waiting. A shard that cannot be taken over now is told to the coordinator,
//! which tries again.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use statefn_core::{
    address::ShardId,
    ports::{
        log::AppendError,
        shared::{Appender, SharedLog},
        snapshots::Snapshots,
    },
    program::Program,
    shard::{Accepted, Emission, Options, Shard, TakeOver, TakeOverError},
};

use super::{
    super::{
        RunError,
        coordinator::{Notice, nonce, spawn},
        shard_host::{Adopted, Event, Switchboard},
    },
    Backend, Directory,
    egress::Ends,
};

/// Shards of a group that are to be taken over together.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) group: u32,
    pub(super) shards: Vec<ShardId>,
}

/// What came of a shard.
#[derive(Debug)]
pub(crate) enum TookOver {
    /// Its host has it.
    Owned,
    /// Somebody else wrote to its journal, or nobody knows: it is to be tried again, if it is still wanted.
    Again(String),
    /// It cannot be loaded: a person has to look at it.
    Broken(String),
    /// What is stored does not fit this program; nothing was changed.
    Refused(TakeOverError),
}

/// What the threads share.
pub(super) struct Office {
    pub(super) program: Arc<Program>,
    pub(super) options: Arc<Options>,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) appender: Arc<dyn Appender>,
    pub(super) switchboard: Arc<Switchboard>,
    pub(super) egress: Ends,
    pub(super) directory: Arc<Directory>,
    /// By shard, whether this worker is named for it.
    pub(super) named: Arc<Vec<AtomicBool>>,
}

/// Starts so many threads; they end when the sender of jobs is dropped.
pub(super) fn start(office: Office, threads: usize) -> Result<(Sender<Job>, Vec<JoinHandle<()>>), RunError> {
    let (sender, jobs) = unbounded();
    let office = Arc::new(office);
    let thread = |number: usize| {
        let (office, jobs) = (Arc::clone(&office), jobs.clone());
        spawn(&format!("take-over-{number}"), move || office.work(&jobs))
    };
    let threads: Result<_, RunError> = (0..threads).map(thread).collect();
    Ok((sender, threads?))
}

/// What a thread reads from; made anew after trouble.
struct Reads {
    log: Box<dyn SharedLog>,
    snapshots: Box<dyn Snapshots>,
}

/// A shard that is loaded, and the epochs that its egresses may lack.
struct Loaded {
    shard: ShardId,
    take_over: TakeOver,
    emissions: Vec<Emission>,
}

/// A shard whose claim is on its way.
struct Claimed {
    loaded: Loaded,
    told: Receiver<Result<u64, AppendError>>,
}

impl Office {
    fn work(&self, jobs: &Receiver<Job>) {
        let mut reads = None;
        for job in jobs {
            let taken_over = match self.reads(&mut reads) {
                Ok(open) => self.take_over(&job, open),
                Err(error) => vec![(job.shards.clone(), TookOver::Again(error))],
            };
            if taken_over.iter().any(|(_, outcome)| matches!(outcome, TookOver::Again(_))) {
                reads = None;
            }
            for (shards, outcome) in taken_over {
                self.switchboard.notify(Notice::TookOver(shards, outcome));
            }
        }
    }

    fn reads<'a>(&self, reads: &'a mut Option<Reads>) -> Result<&'a mut Reads, String> {
        if reads.is_none() {
            *reads = Some(Reads { log: self.backend.log()?, snapshots: self.backend.snapshots()? });
        }
        reads.as_mut().ok_or_else(String::new)
    }

    fn take_over(&self, job: &Job, reads: &mut Reads) -> Vec<(Vec<ShardId>, TookOver)> {
        let taken = match self.taken(job) {
            Ok(taken) => taken,
            Err(error) => return vec![(job.shards.clone(), TookOver::Again(error))],
        };
        let taken_of = |shard: ShardId| taken.get(&shard).copied().unwrap_or_default();
        let (mut outcomes, mut owned, mut claims) = (Vec::new(), Vec::new(), Vec::new());
        let mut failed = |shard: ShardId, outcome| {
            outcomes.push((vec![shard], self.judge(job, shard, taken_of(shard), outcome)));
        };
        // All are loaded before the first is claimed: until then their owner of before works on.
        let mut loaded = Vec::new();
        for shard in &job.shards {
            match self.load(*shard, taken_of(*shard), reads) {
                Ok(shard) => loaded.push(shard),
                Err(outcome) => failed(*shard, outcome),
            }
        }
        for loaded in loaded {
            let shard = loaded.shard;
            match self.claim(loaded) {
                Ok(claim) => claims.push(claim),
                Err(outcome) => failed(shard, outcome),
            }
        }
        for claim in claims {
            let shard = claim.loaded.shard;
            match self.accept(claim, reads) {
                Ok(shard) => owned.push(shard),
                Err(outcome) => failed(shard, outcome),
            }
        }
        if !owned.is_empty() {
            outcomes.push(self.hand_over(job, owned, &taken));
        }
        outcomes
    }

    /// Up to which epochs the egresses of a group have everything, at least. Also of a group whose egresses
    /// are open here: another worker may have had them in between.
    fn taken(&self, job: &Job) -> Result<BTreeMap<ShardId, u64>, String> {
        let mut taken = self.backend.egress_taken(job.group, &job.shards)?;
        if self.egress.is_open(job.group) {
            for shard in &job.shards {
                let known = self.egress.taken[*shard as usize].load(Ordering::Acquire);
                let taken = taken.entry(*shard).or_default();
                *taken = known.max(*taken);
            }
        }
        Ok(taken)
    }

    /// A journal that does not reach back to what egresses had is no damage if they have more by now: its
    /// owner has trimmed it since.
    fn judge(&self, job: &Job, shard: ShardId, taken: u64, outcome: TookOver) -> TookOver {
        match outcome {
            TookOver::Broken(reason) => match self.backend.egress_taken(job.group, &job.shards) {
                Ok(now) if now.get(&shard).is_none_or(|now| *now <= taken) => TookOver::Broken(reason),
                _ => TookOver::Again(reason),
            },
            outcome => outcome,
        }
    }

    fn is_named(&self, shard: ShardId) -> bool {
        self.named[shard as usize].load(Ordering::Acquire)
    }

    /// Begins the append of a claim.
    fn claim(&self, mut loaded: Loaded) -> Result<Claimed, TookOver> {
        if !self.is_named(loaded.shard) {
            return Err(TookOver::Again("it is another worker's".into()));
        }
        let claim = loaded.take_over.claim(&self.program, nonce());
        let (sender, told) = bounded(1);
        let tell = Box::new(move |outcome| _ = sender.send(outcome));
        self.appender.append(loaded.shard, vec![Arc::new(claim)], tell);
        Ok(Claimed { loaded, told })
    }

    /// Waits for a claim, and folds on up to it.
    fn accept(&self, claim: Claimed, reads: &mut Reads) -> Result<(Box<Shard>, Vec<Emission>), TookOver> {
        let Claimed { loaded: Loaded { shard, take_over, mut emissions }, told } = claim;
        let told = told.recv().unwrap_or_else(|_| Err(AppendError::Unknown("the log was closed".into())));
        told.map_err(|error| TookOver::Again(error.to_string()))?;
        reads.log.refresh(&[shard]).map_err(TookOver::Again)?;
        let mut emit = |emission| emissions.push(emission);
        match take_over.accept(&mut *reads.log, &mut emit).map_err(broken)? {
            Accepted::Owned(owned) => Ok((owned, emissions)),
            Accepted::Again => Err(TookOver::Again("another worker claims it too".into())),
        }
    }

    fn load(&self, shard: ShardId, taken: u64, reads: &mut Reads) -> Result<Loaded, TookOver> {
        reads.log.refresh(&[shard]).map_err(TookOver::Again)?;
        let mut emissions = Vec::new();
        let mut emit = |emission: Emission| {
            // A journal that is trimmed while it is read is read again.
            if emissions.last().is_some_and(|last: &Emission| last.epoch >= emission.epoch) {
                emissions.clear();
            }
            emissions.push(emission);
        };
        let ports: (&mut dyn statefn_core::ports::log::Log, &mut dyn Snapshots) =
            (&mut *reads.log, &mut *reads.snapshots);
        let loaded = TakeOver::prepare(&self.program, &self.options, shard, ports, taken, &mut emit);
        let take_over = loaded.map_err(broken)?;
        if taken > take_over.epoch() {
            return Err(TookOver::Broken(format!(
                "the log lost acknowledged records: the journal of shard {shard} ends with epoch {}, and the egresses have its records up to epoch {taken}; restore both from copies of one time",
                take_over.epoch()
            )));
        }
        Ok(Loaded { shard, take_over, emissions })
    }

    /// Gives each shard to its host, which works while the egresses of the group are opened.
    fn hand_over(
        &self,
        job: &Job,
        owned: Vec<(Box<Shard>, Vec<Emission>)>,
        taken: &BTreeMap<ShardId, u64>,
    ) -> (Vec<ShardId>, TookOver) {
        let ids: Vec<ShardId> = owned.iter().map(|(shard, _)| shard.id()).collect();
        self.egress.open(job.group);
        for (mut shard, emissions) in owned {
            let (id, host) = (shard.id(), self.switchboard.host_of(shard.id()));
            let egress_taken = taken.get(&id).copied().unwrap_or_default();
            shard.set_watch(Arc::clone(&self.switchboard.states[host].watch));
            self.directory.opened(id, shard.term());
            tracing::debug!(shard = id, epoch = shard.epoch(), "took a shard over");
            let taken_since = Arc::clone(&self.egress.taken);
            let adopted = Adopted { shard, egress_taken, taken_since, emissions };
            self.switchboard.post(host, vec![Event::Adopt(Box::new(adopted))]);
        }
        (ids, TookOver::Owned)
    }
}

fn broken(error: impl Into<TakeOverError>) -> TookOver {
    match error.into() {
        TakeOverError::Corrupt(error) => TookOver::Broken(error.to_string()),
        refused @ TakeOverError::Incompatible { .. } => TookOver::Refused(refused),
    }
}

/// A table of numbers by shard, all zero.
pub(super) fn flags(shards: u32) -> Arc<Vec<AtomicBool>> {
    Arc::new((0..shards).map(|_| AtomicBool::new(false)).collect())
}

/// Forgets what the egresses of a group had: another worker may have written since.
pub(super) fn forget_taken(taken: &[AtomicU64], group: u32, groups: u32) {
    taken.iter().skip(group as usize).step_by(groups as usize).for_each(|taken| taken.store(0, Ordering::Release));
}
