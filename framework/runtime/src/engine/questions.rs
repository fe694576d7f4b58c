//! Questions to shards from beside the app: what a host keeps of them until they are answered.
//!
//! Invariants: a turn of a host spends no more than [`SLICE`], and one look, on questions; one that
//! takes several looks goes on in later turns, behind everything else that waits; what a question finds
//! is told once all of it is committed. A question that nobody answers is dropped, which its asker sees.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use statefn_core::{
    address::ShardId,
    pipeline::Pipeline,
    ports::{
        inspect::{Distribution, Finding, Inspect, Numbers, Partition, Pausable, Pause, PauseError, Question, Tell},
        requests::Unanswered,
    },
    shard::Inquiry,
};

use super::{
    Input, InputPlace, Intake, Plan,
    requests::Door,
    shard_host::Event,
    status::{Status, lock},
};

/// How many questions to the shards of one host may wait.
const QUESTIONS_MAX: usize = 16_384;
/// How long a turn of a host looks into questions.
const SLICE: Duration = Duration::from_millis(1);

/// A question that counts until it is told or dropped.
pub(super) struct Asked {
    door: Arc<Door>,
    shard: ShardId,
    question: Question,
    tell: Option<Tell>,
}

impl Asked {
    fn tell(mut self, told: Result<Finding, Unanswered>) {
        let tell = self.tell.take();
        drop(self);
        if let Some(tell) = tell {
            tell(told);
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.door.asked.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The questions that a host has taken in.
#[derive(Default)]
pub(super) struct Questions {
    /// Those that are looked into, in turns.
    under_way: VecDeque<(Asked, Inquiry)>,
    /// Those whose finding waits until the epoch that it saw is committed.
    found: Vec<(Asked, Finding, u64)>,
}

impl Questions {
    pub(super) fn take_in(&mut self, asked: Vec<Asked>) {
        self.under_way.extend(asked.into_iter().map(|asked| {
            let inquiry = Inquiry::new(asked.question.clone());
            (asked, inquiry)
        }));
    }

    /// Looks on for a while; returns whether there is more to look for.
    pub(super) fn go_on(&mut self, pipeline: &Pipeline) -> bool {
        let begun = Instant::now();
        while let Some((asked, mut inquiry)) = self.under_way.pop_front() {
            let Some(shard) = pipeline.shard(asked.shard) else {
                asked.tell(Err(Unanswered::NotRunning));
                continue;
            };
            match pipeline.look(asked.shard, &mut inquiry) {
                Some(finding) if inquiry.is_told_at_once() => asked.tell(Ok(finding)),
                Some(finding) => self.found.push((asked, finding, shard.visible_epoch())),
                None => self.under_way.push_back((asked, inquiry)),
            }
            if begun.elapsed() >= SLICE {
                break;
            }
        }
        let is_committed =
            |shard: ShardId, visible: u64| pipeline.shard(shard).is_none_or(|shard| shard.is_committed(visible));
        for (asked, finding, _) in self.found.extract_if(.., |(asked, _, visible)| is_committed(asked.shard, *visible))
        {
            asked.tell(Ok(finding));
        }
        !self.under_way.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty() && self.found.is_empty()
    }
}

/// Where the partitions of the ingresses of a plan read.
pub(super) fn partitions_of(plan: &Plan) -> Vec<Vec<Partition>> {
    let path = |place: &InputPlace| match place {
        InputPlace::File(path, _) => Some(path.clone()),
        InputPlace::Generator => None,
    };
    let partition = |place| Partition { path: path(place), ..Partition::default() };
    plan.inputs.iter().map(|Input { places, .. }| places.iter().map(partition).collect()).collect()
}

/// How many bytes a file has, if the offsets of an ingress are bytes of it.
fn bytes_of(partition: &Partition) -> Option<u64> {
    let path = partition.path.as_ref()?;
    let is_compressed = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"));
    if is_compressed { None } else { path.metadata().ok().map(|file| file.len()) }
}

impl Inspect for Intake {
    fn ask(&self, shard: ShardId, question: Question, tell: Tell) {
        let door = self.door(self.host_of(shard));
        let before = door.asked.fetch_add(1, Ordering::AcqRel);
        let asked = Asked { door: Arc::clone(&door), shard, question, tell: Some(tell) };
        if before >= QUESTIONS_MAX {
            return asked.tell(Err(Unanswered::Overloaded));
        }
        let mut inside = door.lock();
        let Some(switchboard) = inside.switchboard.clone() else {
            drop(inside);
            return asked.tell(Err(Unanswered::NotRunning));
        };
        inside.questions.push(asked);
        if inside.questions.len() == 1 {
            switchboard.post(switchboard.host_of(shard), vec![Event::Requests]);
        }
    }

    fn shards(&self) -> u32 {
        self.shards
    }

    fn host_of(&self, shard: ShardId) -> usize {
        shard as usize % self.doors.len()
    }

    fn numbers(&self) -> Numbers {
        let pending = |count: &dyn Fn(&Door) -> usize| self.doors.iter().map(|door| count(door) as u64).sum();
        Numbers {
            requests_pending: pending(&|door| door.pending.load(Ordering::Relaxed)),
            requests_bytes: pending(&|door| door.bytes.load(Ordering::Relaxed)),
            ..numbers_of(&self.status)
        }
    }

    fn inputs(&self) -> Vec<Vec<Partition>> {
        let with_bytes = |partition: &Partition| Partition { bytes: bytes_of(partition), ..partition.clone() };
        let inputs = lock(&self.inputs);
        inputs.iter().map(|partitions| partitions.iter().map(with_bytes).collect()).collect()
    }

    fn pause(&self, what: Pausable) -> Pause {
        self.pauses.get(what)
    }

    fn set_pause(&self, what: Pausable, is_paused: bool) -> Result<(), PauseError> {
        self.pauses.set(what, is_paused)
    }
}

fn numbers_of(status: &Status) -> Numbers {
    let totals = status.totals();
    let (activity_attempts, activity_failures) = status.activity_attempts();
    Numbers {
        activity_attempts,
        activity_failures,
        records: totals.records,
        unreadable: totals.unreadable,
        egress_backlog_bytes: status.egress_backlog_bytes() as u64,
        egress_failures: totals.egress_failures,
        egress_alarms: totals.egress_alarms,
        snapshots: totals.snapshots,
        trims: totals.trims,
        commits: status.commits(),
        ..Numbers::default()
    }
}

/// Up to how many seconds commits are told apart.
pub(super) const COMMIT_SECONDS: [f64; 14] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

impl Status {
    /// How long commits took: from the first input of an epoch to its confirmation.
    fn commits(&self) -> Distribution {
        self.with_commits(|commits, sum_us| Distribution {
            upto: COMMIT_SECONDS.map(|seconds| (seconds, commits.count_between(0, (seconds * 1e6) as u64))).to_vec(),
            count: commits.len(),
            sum_seconds: sum_us as f64 / 1e6,
        })
    }
}
