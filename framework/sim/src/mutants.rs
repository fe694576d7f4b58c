//! Mutants: cores that lack one rule, each in worlds in which that rule matters.
//!
//! The worlds judge by what comes out in the end alone, so a mutant that is caught says that the
//! checks are worth something. One that survives fails the test: either nothing needs the rule, or
//! the simulator is blind.
//!
//! Deliberately absent: `evict before apply`, as states are never evicted from memory yet; and
//! `a mailbox is trimmed to what is confirmed`, since a source sends again what is not acknowledged,
//! so that a mail lost by a trim only comes later: worlds that look inside check that rule. `The end
//! of a journal proves nothing for a call behind the question` was not noticed in 100 worlds, as
//! questions are short and most calls make a frame: the core's own tests have it.

use std::sync::atomic::{AtomicUsize, Ordering};

use statefn_core::shard::rules::{Rule, Rules};

use crate::{
    Failure,
    plan::{Faults, Plan},
    run_plan,
    workload::Kind,
};

/// After how many worlds a mutant counts as having survived.
pub const SEEDS_MAX: u64 = 100;

/// How a mutant shows itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Its worlds end wrong.
    Outcome,
    /// Where the whole core halts, it goes on.
    NoHalt,
}

/// A core that lacks a rule, and the worlds in which that has to show.
#[derive(Debug, Clone, Copy)]
pub struct Mutant {
    /// The rule that it lacks.
    pub rule: Rule,
    /// The workload whose checks have to notice.
    pub workload: Kind,
    /// How it shows itself.
    pub sign: Sign,
    tune: fn(&mut Plan),
}

/// A mutant that was caught.
#[derive(Debug, Clone)]
pub struct Caught {
    /// How many worlds it took.
    pub seeds: u64,
    /// What was noticed.
    pub failure: Failure,
    /// What goes wrong in the same world with the whole core: nothing, or the mutant proves nothing.
    pub whole: Option<Failure>,
}

impl Mutant {
    const fn new(rule: Rule, workload: Kind, tune: fn(&mut Plan)) -> Self {
        Self { rule, workload, sign: Sign::Outcome, tune }
    }

    /// The plan of its world.
    #[must_use]
    pub fn plan(&self, seed: u64) -> Plan {
        let mut plan = Plan { rules: Rules::without(self.rule), looks_inside: false, ..Plan::of(seed) };
        (self.tune)(&mut plan);
        plan
    }

    /// Runs worlds until one of them notices; `None` if it survives [`SEEDS_MAX`].
    #[must_use]
    pub fn hunt(&self) -> Option<Caught> {
        (0..SEEDS_MAX).find_map(|seed| {
            let failure = match self.sign {
                Sign::Outcome => run_plan(self.workload, self.plan(seed)).err(),
                Sign::NoHalt => self.goes_on(seed),
            };
            failure.map(|failure| Caught { seeds: seed + 1, failure, whole: self.whole_core_fails(seed) })
        })
    }

    fn whole_core_fails(&self, seed: u64) -> Option<Failure> {
        let plan = Plan { rules: Rules::default(), looks_inside: true, ..self.plan(seed) };
        if self.sign == Sign::NoHalt { None } else { run_plan(self.workload, plan).err() }
    }

    /// Whether the whole core halts in a world and the mutant does not.
    fn goes_on(&self, seed: u64) -> Option<Failure> {
        let halts = |failure: &Failure| failure.error.contains("the log lost records");
        let whole = Plan { rules: Rules::default(), ..self.plan(seed) };
        let halted = run_plan(self.workload, whole).err().filter(halts)?;
        let mutant = run_plan(self.workload, self.plan(seed)).err();
        if mutant.as_ref().is_some_and(halts) { None } else { Some(halted) }
    }
}

/// Hunts all mutants on two threads; returns what came of each, in the order of [`MUTANTS`].
///
/// # Panics
/// If a thread panics.
#[must_use]
pub fn hunt_all() -> Vec<(Mutant, Option<Caught>)> {
    let next = AtomicUsize::new(0);
    let hunt = || {
        let mut found = Vec::new();
        while let Some(mutant) = MUTANTS.get(next.fetch_add(1, Ordering::Relaxed)) {
            found.push((*mutant, mutant.hunt()));
        }
        found
    };
    let mut found = std::thread::scope(|scope| {
        let hunts = [scope.spawn(hunt), scope.spawn(hunt)];
        hunts.map(|hunt| hunt.join().expect("a hunt does not panic")).concat()
    });
    found.sort_by_key(|(mutant, _)| MUTANTS.iter().position(|known| known.rule == mutant.rule));
    found
}

/// Several workers that are named for the same shards and that die and wake up.
fn many_owners(plan: &mut Plan) {
    (plan.is_embedded, plan.workers, plan.shards) = (false, 3, plan.shards.max(2));
    plan.delay_ms_max = 30;
    plan.faults = Faults { moved: 250, slow_news: 400, pause: 100, unknown: 40, crash: 5, ..Faults::default() };
}

/// Claims that stand when their writers have given them up, so that two have the same term.
fn late_claims(plan: &mut Plan) {
    many_owners(plan);
    (plan.faults.unknown, plan.faults.moved, plan.delay_ms_max) = (250, 400, 60);
}

/// Workers far from each other, nothing goes wrong between them.
fn apart(plan: &mut Plan) {
    (plan.is_embedded, plan.workers, plan.shards) = (false, 3, plan.shards.max(4));
    plan.faults = Faults::default();
}

fn small_records(plan: &mut Plan) {
    many_owners(plan);
    (plan.record_bytes_max, plan.faults.unknown) = (200, 300);
}

fn unknown_appends(plan: &mut Plan) {
    plan.faults = Faults { unknown: 150, ..Faults::default() };
}

fn refused_appends(plan: &mut Plan) {
    apart(plan);
    plan.faults = Faults { refused: 60, unknown: 60, crash: 10, ..Faults::default() };
}

/// An answer in a fleet also waits for the end of the journal, which covers that it came too early.
fn refused_appends_alone(plan: &mut Plan) {
    refused_appends(plan);
    (plan.is_embedded, plan.workers) = (true, 1);
}

/// Workers that stop for a while; meanwhile others own their shards and answer. Clients ask seldom:
/// a deposit that came to the one who sleeps would make a frame, whose append shows that it lost, as would
/// progress that tells of a later epoch, of which most is lost here.
fn zombies(plan: &mut Plan) {
    many_owners(plan);
    (plan.commit_interval_ms, plan.delay_ms_max, plan.calm_at, plan.request_ms_max) = (0, 60, 60_000, 30);
    (plan.shards, plan.faults) = (4, Faults { moved: 100, slow_news: 300, pause: 250, loss: 900, ..Faults::default() });
}

/// Owners that do not know for long that they own no more.
fn late_news(plan: &mut Plan) {
    many_owners(plan);
    (plan.commit_interval_ms, plan.delay_ms_max, plan.calm_at, plan.request_ms_max) = (20, 10, 6_000, 6);
    plan.faults = Faults { moved: 60, slow_news: 800, pause: 50, ..Faults::default() };
}

fn lost_mail(plan: &mut Plan) {
    apart(plan);
    plan.faults.loss = 300;
}

fn doubled_mail(plan: &mut Plan) {
    apart(plan);
    plan.faults.doubled = 300;
}

fn crashes(plan: &mut Plan) {
    apart(plan);
    plan.faults.crash = 30;
}

/// Where processes share the log, a partition is read for one shard only, from where it stands.
fn crashes_alone(plan: &mut Plan) {
    crashes(plan);
    (plan.is_embedded, plan.workers) = (true, 1);
}

fn crashes_without_snapshots(plan: &mut Plan) {
    crashes(plan);
    plan.snapshot_tail_bytes = 1 << 30;
}

fn snapshots(plan: &mut Plan) {
    crashes(plan);
    plan.snapshot_tail_bytes = 300;
}

/// Clients that ask again behind a recovery.
fn answered_snapshots(plan: &mut Plan) {
    snapshots(plan);
    (plan.faults.deaf, plan.request_ms_max, plan.egress_ms_max) = (300, 8, 0);
}

fn snapshots_of_full_epochs(plan: &mut Plan) {
    snapshots(plan);
    // The mark of a snapshot has to stand without the epoch that is appended behind it.
    (plan.epoch_calls_max, plan.commit_interval_ms, plan.delay_ms_max) = (4, 20, 1);
    (plan.record_bytes_max, plan.egress_ms_max, plan.stretch_max) = (300, 0, 30);
    (plan.faults.crash, plan.faults.unknown) = (5, 300);
}

fn slow_egress(plan: &mut Plan) {
    snapshots(plan);
    plan.egress_ms_max = 800;
}

fn damaged_snapshots(plan: &mut Plan) {
    snapshots(plan);
    (plan.egress_ms_max, plan.faults.rot) = (5, 300);
}

fn full_epochs(plan: &mut Plan) {
    apart(plan);
    (plan.epoch_calls_max, plan.commit_interval_ms, plan.delay_ms_max) = (2, 0, 4);
}

fn forgetful_log(plan: &mut Plan) {
    apart(plan);
    (plan.faults.forgets, plan.snapshot_tail_bytes) = (1_000, 1 << 30);
}

fn doubled_attempts(plan: &mut Plan) {
    apart(plan);
    plan.faults.doubled_attempt = 300;
}

/// The mutants, each with its worlds.
pub const MUTANTS: [Mutant; 48] = [
    Mutant::new(Rule::ClaimsRaiseTheTerm, Kind::Bank, many_owners),
    Mutant::new(Rule::EqualTermsAreVoid, Kind::Bank, many_owners),
    Mutant::new(Rule::NoncesAreNew, Kind::Bank, late_claims),
    Mutant::new(Rule::PartsAreJudgedAtTheLast, Kind::Timers, small_records),
    Mutant { sign: Sign::NoHalt, ..Mutant::new(Rule::ChainIsUnbroken, Kind::Sends, forgetful_log) },
    Mutant::new(Rule::SeenDropsDuplicates, Kind::Sends, doubled_mail),
    Mutant::new(Rule::SeenRefusesGaps, Kind::Sends, lost_mail),
    Mutant::new(Rule::PositionsSkipKnown, Kind::Sends, crashes_alone),
    Mutant::new(Rule::ResendsAll, Kind::Sends, lost_mail),
    Mutant::new(Rule::ResendsAtTakeOver, Kind::Sends, crashes),
    Mutant::new(Rule::OutboxKeepsUntilAcknowledged, Kind::Sends, lost_mail),
    Mutant::new(Rule::PublishAfterConfirm, Kind::Sends, refused_appends),
    Mutant::new(Rule::EmitAfterConfirm, Kind::Bank, refused_appends),
    Mutant::new(Rule::AnswerAfterConfirm, Kind::Calls, refused_appends_alone),
    Mutant::new(Rule::ReadsAskTheEnd, Kind::Calls, late_news),
    Mutant::new(Rule::FramesProveEarlierCalls, Kind::Bank, zombies),
    Mutant::new(Rule::ProgressAfterConfirm, Kind::Sends, refused_appends),
    Mutant::new(Rule::ConfirmByOffset, Kind::Bank, many_owners),
    Mutant::new(Rule::UnknownIsNoSuccess, Kind::Bank, unknown_appends),
    Mutant::new(Rule::UnknownIsNoFailure, Kind::Calls, unknown_appends),
    Mutant::new(Rule::DeposedClaimsAgain, Kind::Bank, unknown_appends),
    Mutant::new(Rule::WatermarkAfterMessages, Kind::Timers, lost_mail),
    Mutant::new(Rule::OtherInputsHold, Kind::Timers, apart),
    Mutant::new(Rule::CyclesHold, Kind::Ring, apart),
    Mutant::new(Rule::CarryHolds, Kind::Ring, full_epochs),
    Mutant::new(Rule::DueTimersHold, Kind::Timers, full_epochs),
    Mutant::new(Rule::FiredTimersAreGone, Kind::Timers, crashes_without_snapshots),
    Mutant::new(Rule::GroupsHaveEachKeyOnce, Kind::Timers, apart),
    Mutant::new(Rule::TrimBehindSnapshot, Kind::Bank, snapshots),
    Mutant::new(Rule::TrimBehindEgress, Kind::Bank, slow_egress),
    Mutant::new(Rule::TrimAfterReadBack, Kind::Bank, damaged_snapshots),
    Mutant::new(Rule::TakeOverMendsTheStore, Kind::Bank, crashes),
    Mutant::new(Rule::SnapshotHasCarry, Kind::Sends, snapshots_of_full_epochs),
    Mutant::new(Rule::SnapshotHasOutbox, Kind::Sends, snapshots),
    Mutant::new(Rule::SnapshotHasPending, Kind::Timers, snapshots),
    Mutant::new(Rule::SnapshotHasAnswers, Kind::Calls, answered_snapshots),
    Mutant::new(Rule::FoldHasAnswers, Kind::Calls, crashes_without_snapshots),
    Mutant::new(Rule::AnswersAreRemembered, Kind::Calls, apart),
    Mutant::new(Rule::LateAnswersAreRemembered, Kind::Orders, doubled_attempts),
    Mutant::new(Rule::CallAfterCommit, Kind::Orders, refused_appends),
    Mutant::new(Rule::CallsAreTakenUp, Kind::Orders, crashes),
    Mutant::new(Rule::ResultsCountOnce, Kind::Orders, doubled_attempts),
    Mutant::new(Rule::AskersAreTold, Kind::Orders, apart),
    Mutant::new(Rule::SnapshotHasParked, Kind::Faults, snapshots),
    Mutant::new(Rule::UnparkClearsTheQueue, Kind::Faults, crashes),
    Mutant::new(Rule::RetriesKeepTheOrder, Kind::Faults, apart),
    Mutant::new(Rule::FailedCallsHaveNoEffects, Kind::Bank, apart),
    Mutant::new(Rule::FailedCallsChangeNothing, Kind::Bank, apart),
];
