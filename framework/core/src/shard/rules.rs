//! The rules that tests can switch off, to prove that the simulator notices.
//!
//! Invariants: each rule is asked for at one place; without the feature `mutants`, which only
//! tests use, every rule always holds and costs nothing.
//!
//! Deliberately absent: rules whose absence nothing could notice, because another one covers them.

/// A rule of the protocol that a mutant lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// A claim counts only if its term is higher than that of the current owner.
    ClaimsRaiseTheTerm,
    /// A claim of the current term does not count.
    EqualTermsAreVoid,
    /// Each attempt to own a shard has a nonce of its own.
    NoncesAreNew,
    /// A split frame is judged where its last part stands.
    PartsAreJudgedAtTheLast,
    /// A frame of the current owner that does not follow the last one halts the shard.
    ChainIsUnbroken,
    /// A message that was accepted before is dropped.
    SeenDropsDuplicates,
    /// A message behind one that is missing is dropped.
    SeenRefusesGaps,
    /// A record of an input that was taken before is skipped.
    PositionsSkipKnown,
    /// Everything behind the first unacknowledged message is sent again, not only the last.
    ResendsAll,
    /// A successor sends again what is not acknowledged.
    ResendsAtTakeOver,
    /// A message is kept until the target's committed frames have it.
    OutboxKeepsUntilAcknowledged,
    /// Messages are published only once their frame is confirmed.
    PublishAfterConfirm,
    /// Egresses and stores get an epoch only once its frame is confirmed.
    EmitAfterConfirm,
    /// Answers are given only once their frame is confirmed.
    AnswerAfterConfirm,
    /// An answer that no append of its own proves waits until the journal shows that its owner still is.
    ReadsAskTheEnd,
    /// An append proves nothing for a call that came after it was sealed.
    FramesProveEarlierCalls,
    /// Progress is told only once its frame is confirmed.
    ProgressAfterConfirm,
    /// An append that stands at another offset than expected deposes its writer.
    ConfirmByOffset,
    /// An append of unknown outcome is not taken for one that stands.
    UnknownIsNoSuccess,
    /// An append of unknown outcome is not taken for one that failed.
    UnknownIsNoFailure,
    /// An owner that was deposed but is still wanted claims again.
    DeposedClaimsAgain,
    /// A watermark counts only once the messages before it were received.
    WatermarkAfterMessages,
    /// How far other shards have read the input holds the watermark.
    OtherInputsHold,
    /// Messages within a cycle hold its watermark.
    CyclesHold,
    /// Messages that are carried over hold the watermarks.
    CarryHolds,
    /// Timers that are due hold the out-watermark.
    DueTimersHold,
    /// A timer that fired is gone from state in the same frame.
    FiredTimersAreGone,
    /// What fires together has each key once, but for what is due at the same time.
    GroupsHaveEachKeyOnce,
    /// The journal is trimmed only up to a snapshot.
    TrimBehindSnapshot,
    /// The journal is trimmed only as far as egresses have taken what it holds.
    TrimBehindEgress,
    /// The journal is trimmed only to a snapshot that was read back.
    TrimAfterReadBack,
    /// A new owner brings the store up to what it has folded.
    TakeOverMendsTheStore,
    /// A snapshot holds the carry queue.
    SnapshotHasCarry,
    /// A snapshot holds the messages that are not acknowledged.
    SnapshotHasOutbox,
    /// A snapshot holds the pending timers and messages.
    SnapshotHasPending,
    /// A snapshot holds the parked keys and what they wait with.
    SnapshotHasParked,
    /// A snapshot holds the answers that are remembered.
    SnapshotHasAnswers,
    /// The fold of a journal holds the answers that are remembered.
    FoldHasAnswers,
    /// A request that is repeated gets the answer that it had.
    AnswersAreRemembered,
    /// An answer that is given later than its call is remembered then.
    LateAnswersAreRemembered,
    /// A call of an activity begins only once its frame is confirmed.
    CallAfterCommit,
    /// A new owner begins the calls of activities that have no result.
    CallsAreTakenUp,
    /// The call of an activity is gone from state in the frame that has its result.
    ResultsCountOnce,
    /// One who has asked for a call that was rejected is told.
    AskersAreTold,
    /// What a parked key waited with is gone from the fold when the key goes on.
    UnparkClearsTheQueue,
    /// The calls of a parked key are made again in the order in which they came.
    RetriesKeepTheOrder,
    /// A call that failed leaves no effects.
    FailedCallsHaveNoEffects,
    /// A call that failed leaves the state as it was.
    FailedCallsChangeNothing,
}

/// The rules in force.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules {
    #[cfg(feature = "mutants")]
    off: Option<Rule>,
}

impl Rules {
    /// All rules but one.
    #[cfg(feature = "mutants")]
    #[must_use]
    pub fn without(rule: Rule) -> Self {
        Self { off: Some(rule) }
    }

    /// Whether a rule holds.
    #[inline]
    #[must_use]
    pub fn holds(self, rule: Rule) -> bool {
        #[cfg(feature = "mutants")]
        return self.off != Some(rule);
        #[cfg(not(feature = "mutants"))]
        {
            let _ = rule;
            true
        }
    }
}
