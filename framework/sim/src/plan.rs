//! The plan of a world: everything that its seed decides before it runs.
//!
//! Each fault is off in a third of the worlds, so that the rarer ones are seen alone as well.

use std::{fmt, ops::Range, str::FromStr};

#[cfg(feature = "mutants")]
use statefn_core::shard::rules::Rule;
use statefn_core::shard::rules::Rules;

use crate::random::Random;

/// How far a clock jumps ahead at most.
pub const JUMP_MS_MAX: i64 = 2_000;

macro_rules! faults {
    ($($(#[$doc:meta])* $fault:ident, $field:ident, $name:literal, up to $most:literal;)*) => {
        /// A kind of fault that a seed may draw.
        ///
        /// This is the one list of them: the rates of a plan, what is drawn, what a failing world is
        /// made smaller by and what it prints follow from it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Fault {
            $($(#[$doc])* $fault,)*
        }

        impl Fault {
            /// All kinds, in the order of their declaration.
            pub const ALL: &'static [Self] = &[$(Self::$fault),*];

            /// What a report calls it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$fault => $name,)*
                }
            }

            /// What `STATEFN_PLAN` calls it.
            pub(crate) const fn field(self) -> &'static str {
                match self {
                    $(Self::$fault => stringify!($field),)*
                }
            }
        }

        /// How often faults happen, each per mille of its occasions.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Faults {
            $($(#[$doc])* pub $field: u32,)*
            /// The log loses a record that it has acknowledged. No world may survive that, so it is never
            /// drawn: it is the test of the one rule that notices.
            pub forgets: u32,
        }

        impl Faults {
            /// How often a fault happens.
            #[must_use]
            pub fn of(&self, fault: Fault) -> u32 {
                match fault {
                    $(Fault::$fault => self.$field,)*
                }
            }

            /// How often a fault happens, to be changed.
            pub fn of_mut(&mut self, fault: Fault) -> &mut u32 {
                match fault {
                    $(Fault::$fault => &mut self.$field,)*
                }
            }

            fn draw(random: &mut Random) -> Self {
                let mut up_to = |most: i64| if random.chance(333) { 0 } else { random.between(1, most) as u32 };
                Self { $($field: up_to($most),)* forgets: 0 }
            }
        }
    };
}

faults! {
    /// A worker dies before or after an action.
    Crash, crash, "crashes", up to 15;
    /// The log refuses an append.
    RefusedAppend, refused, "refused appends", up to 60;
    /// The outcome of an append is unknown to its writer; it may stand, come late or twice, or not.
    UnknownAppend, unknown, "unknown appends", up to 150;
    /// A worker stops for a while and then goes on as if nothing had happened.
    Pause, pause, "pauses", up to 250;
    /// A shard is given to another worker.
    MovedShard, moved, "moved shards", up to 250;
    /// News about who owns a shard comes very late.
    SlowNews, slow_news, "slow news", up to 400;
    /// Mail or progress is lost.
    LostMail, loss, "lost mail", up to 300;
    /// Mail, progress or what a store is to apply comes twice.
    DoubledMail, doubled, "doubled mail", up to 300;
    /// Mail or progress comes late, behind what was sent after it.
    LateMail, late, "late mail", up to 150;
    /// Something that is no record of its own stands in a mailbox or in the partition of progress.
    Garbage, garbage, "garbage in mailboxes", up to 100;
    /// A snapshot cannot be stored.
    FailedSnapshot, snapshot, "failed snapshots", up to 400;
    /// One of the two snapshots that a shard keeps can no longer be read, though its mark stands.
    DamagedSnapshot, rot, "damaged snapshots", up to 100;
    /// A clock jumps.
    ClockJump, jump, "clock jumps", up to 100;
    /// Appends to a journal wait for a while.
    StalledJournal, stall, "stalled journals", up to 200;
    /// An answer never comes to the client that waits for it.
    LostAnswer, deaf, "lost answers", up to 250;
    /// The answer of an attempt of an activity is lost, whatever the outside has done.
    LostAttempt, lost_attempt, "lost attempts", up to 400;
    /// An attempt of an activity is made twice, and so is its result told.
    DoubledAttempt, doubled_attempt, "doubled attempts", up to 300;
    /// The result of an activity comes late.
    LateResult, late_result, "late results", up to 300;
}

/// Numbers of things that a smaller world leaves out; few ranges of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbers(Vec<Range<u64>>);

impl Numbers {
    /// Whether a number is one of them.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        self.0.iter().any(|range| range.contains(&number))
    }

    /// These and those of a range.
    #[must_use]
    pub fn and(&self, more: Range<u64>) -> Self {
        let mut ranges: Vec<Range<u64>> =
            self.0.iter().cloned().chain([more]).filter(|range| !range.is_empty()).collect();
        ranges.sort_by_key(|range| range.start);
        let mut all: Vec<Range<u64>> = Vec::new();
        for range in ranges {
            match all.last_mut().filter(|last| last.end >= range.start) {
                Some(last) => last.end = last.end.max(range.end),
                None => all.push(range),
            }
        }
        Self(all)
    }
}

impl fmt::Display for Numbers {
    /// `3:5+9:10` are 3, 4 and 9.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<String> = self.0.iter().map(|Range { start, end }| format!("{start}:{end}")).collect();
        f.write_str(&ranges.join("+"))
    }
}

impl FromStr for Numbers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |range: &str| format!("`{range}` is no range `first:end` of numbers");
        let range = |range: &str| {
            let (start, end) = range.split_once(':').ok_or_else(|| wrong(range))?;
            let number = |text: &str| text.parse().map_err(|_| wrong(range));
            Ok::<_, String>(number(start)?..number(end)?)
        };
        let ranges = text.split('+').filter(|range| !range.is_empty());
        ranges.map(range).try_fold(Self::default(), |all, range| Ok(all.and(range?)))
    }
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
    /// How long a client waits before the next request at most.
    pub request_ms_max: i64,
    /// How many records a worker reads in one stretch at most.
    pub stretch_max: i64,
    /// The records that are not in the input, counted over its partitions.
    pub dropped: Numbers,
    /// The faults that do not happen, counted in their order; the first is number 0.
    pub spared: Numbers,
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
            request_ms_max: r.one_of(&[60, 60, 8]),
            stretch_max: r.one_of(&[1, 5, 30, 200]),
            dropped: Numbers::default(),
            spared: Numbers::default(),
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
