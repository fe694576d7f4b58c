//! The plan of a world: everything that its seed decides before it runs.
//!
//! Each fault is off in a third of the worlds, so that the rarer ones are seen alone as well.

#[cfg(feature = "mutants")]
use statefn_core::shard::rules::Rule;
use statefn_core::shard::rules::Rules;

use crate::random::Random;

/// How far a clock jumps ahead at most.
pub const JUMP_MS_MAX: i64 = 2_000;

/// How often faults happen, each per mille of its occasions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// A worker dies before or after an action.
    pub crash: u32,
    /// The log refuses an append.
    pub refused: u32,
    /// The outcome of an append is unknown to its writer.
    pub unknown: u32,
    /// A worker stops for a while and then goes on as if nothing had happened.
    pub pause: u32,
    /// A shard is given to another worker.
    pub moved: u32,
    /// News about who owns a shard comes very late.
    pub slow_news: u32,
    /// Mail or progress is lost.
    pub loss: u32,
    /// Mail, progress or what a store is to apply comes twice.
    pub doubled: u32,
    /// Mail or progress comes late, behind what was sent after it.
    pub late: u32,
    /// Something that is no record of its own stands in a mailbox or in the partition of progress.
    pub garbage: u32,
    /// A snapshot cannot be stored.
    pub snapshot: u32,
    /// The newest snapshot of a shard can no longer be read, though its mark stands.
    pub rot: u32,
    /// A clock jumps.
    pub jump: u32,
    /// Appends to a journal wait for a while.
    pub stall: u32,
    /// The log loses a record that it has acknowledged. No world may survive that, so it is never
    /// drawn: it is the test of the one rule that notices.
    pub forgets: u32,
}

/// What a world is like.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed, which decides everything below and all that happens.
    pub seed: u64,
    /// How many workers there are; one in an embedded world.
    pub workers: usize,
    /// How many shards there are.
    pub shards: u32,
    /// Whether one process has a log of its own, whose unconfirmed appends a crash may tear.
    pub is_embedded: bool,
    /// The largest record of the log; larger frames are split.
    pub record_bytes_max: usize,
    /// How many calls an epoch has at most.
    pub epoch_calls_max: usize,
    /// How far the journal grows before a snapshot is due.
    pub snapshot_tail_bytes: u64,
    /// The commit interval of the pipelines.
    pub commit_interval_ms: i64,
    /// How long mail and appends take at most.
    pub delay_ms_max: i64,
    /// How long an egress takes to write at most.
    pub egress_ms_max: i64,
    /// How long a store takes to apply at most, in a fleet.
    pub store_ms_max: i64,
    /// How many records a worker reads in one stretch at most.
    pub stretch_max: i64,
    /// How many records each partition of the input has at most.
    pub records_max: usize,
    /// The faults.
    pub faults: Faults,
    /// When the faults stop.
    pub calm_at: i64,
    /// The rules in force.
    pub rules: Rules,
    /// Whether the world also looks into actions (nothing unconfirmed leaves a shard), or judges
    /// by what comes out in the end alone.
    pub looks_inside: bool,
}

impl Plan {
    /// The plan that `seed` decides.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x7061_6c6e);
        let r = &mut random;
        let is_embedded = r.chance(300);
        let mut plan = Self {
            seed,
            workers: if is_embedded { 1 } else { r.between(1, 4) as usize },
            shards: r.between(1, 6) as u32,
            is_embedded,
            record_bytes_max: r.one_of(&[usize::MAX, 2_000, 700, 500]),
            epoch_calls_max: r.one_of(&[100_000, 40, 12, 4, 1]),
            snapshot_tail_bytes: r.one_of(&[1 << 20, 8_000, 2_000, 300]),
            commit_interval_ms: r.one_of(&[0, 0, 3, 20]),
            delay_ms_max: r.one_of(&[1, 4, 15, 60]),
            egress_ms_max: r.one_of(&[0, 5, 50, 800]),
            store_ms_max: r.one_of(&[0, 5, 50, 800]),
            stretch_max: r.one_of(&[1, 5, 30, 200]),
            records_max: usize::MAX,
            faults: Faults::default(),
            calm_at: r.between(500, 4_000),
            rules: Rules::default(),
            looks_inside: true,
        };
        if plan.epoch_calls_max == 1 {
            // One call for each epoch takes an append for each call: let that be quick.
            (plan.commit_interval_ms, plan.delay_ms_max) = (0, 1);
        }
        plan.faults = Faults::draw(r);
        plan
    }

    /// The rules by which the audit judges: all of them, but where the core alone is to notice that
    /// the log has lost a record.
    #[must_use]
    pub fn judges_by(&self) -> Rules {
        #[cfg(feature = "mutants")]
        if self.faults.forgets > 0 {
            return Rules::without(Rule::ChainIsUnbroken);
        }
        Rules::default()
    }

    /// The same plan without any fault.
    #[must_use]
    pub fn without_faults(seed: u64) -> Self {
        Self { faults: Faults::default(), ..Self::of(seed) }
    }
}

impl Faults {
    fn draw(random: &mut Random) -> Self {
        let mut up_to = |most: i64| if random.chance(333) { 0 } else { random.between(1, most) as u32 };
        Self {
            crash: up_to(15),
            refused: up_to(60),
            unknown: up_to(150),
            pause: up_to(250),
            moved: up_to(250),
            slow_news: up_to(400),
            loss: up_to(300),
            doubled: up_to(300),
            late: up_to(150),
            garbage: up_to(100),
            snapshot: up_to(400),
            rot: up_to(100),
            jump: up_to(100),
            stall: up_to(200),
            forgets: 0,
        }
    }
}
