//! What a run of seeds did, so that a test can assert that the faults really happened.

use std::fmt;

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// How often things happened.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Report {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Report {
            /// Adds the counts of another report.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }
        }

        impl fmt::Display for Report {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let counts = [$((stringify!($name), self.$name)),*];
                let texts = counts.map(|(name, count)| format!("{}: {count}", name.replace('_', " ")));
                f.write_str(&texts.join(", "))
            }
        }
    };
}

counts! {
    /// Worlds that ran.
    seeds,
    /// Events of all worlds.
    steps,
    /// Input records that were routed, repeats included.
    records,
    /// Workers that died.
    crashes,
    /// Workers that stopped for a while.
    pauses,
    /// Shards that were given to another worker.
    moves,
    /// Claims that were appended.
    claims,
    /// Shards that were taken over.
    takeovers,
    /// Owners that found another record where theirs should stand.
    deposed,
    /// Appends that the log refused.
    appends_refused,
    /// Appends whose outcome was told as unknown.
    appends_unknown,
    /// Appends that stood after their writer had given them up.
    appends_late,
    /// Appends of which some records stand.
    appends_torn,
    /// Appends whose records stand with time between them.
    appends_scattered,
    /// Acknowledged records that the log has lost.
    records_forgotten,
    /// Appends that stand twice.
    appends_doubled,
    /// Epoch frames that were committed.
    frames,
    /// Frames that were appended and are void.
    frames_void,
    /// Records that are parts of frames.
    parts,
    /// Epochs that carried messages over.
    epochs_carried,
    /// Snapshots that were stored.
    snapshots,
    /// Snapshots that could not be stored.
    snapshots_failed,
    /// Snapshots that could no longer be read though their mark stands.
    snapshots_rotten,
    /// Snapshots that were read back before a trim.
    snapshots_read_back,
    /// Those of them that were damaged or gone.
    snapshots_read_back_damaged,
    /// Marks of snapshots that stand.
    marks,
    /// Journals that were trimmed.
    trims,
    /// Journals that were trimmed while somebody read them.
    trims_raced,
    /// Take-overs that began with a snapshot.
    recovered_from_snapshot,
    /// Mails that were lost on their way.
    mail_lost,
    /// Mails that came twice.
    mail_doubled,
    /// Requests that were answered.
    answers,
    /// Requests that were asked again.
    repeats,
    /// Requests whose answer came later than their call.
    deferred,
    /// Calls of activities that were begun.
    calls,
    /// Attempts of them.
    attempts,
    /// Attempts behind the first one of a call.
    attempts_again,
    /// Attempts whose answer was lost.
    attempts_lost,
    /// Attempts that were made twice.
    attempts_doubled,
    /// Results that came late.
    results_late,
    /// Results that nobody waited for any more.
    results_void,
    /// Results that came to one who had lost the shard.
    results_elsewhere,
    /// Answers that did not come to their client.
    answers_lost,
    /// Requests that were answered when they were asked again, their first answer being lost.
    answers_again,
    /// Requests that nobody could take when they were asked again.
    repeats_refused,
    /// Records that egresses have.
    emitted,
    /// Epochs that egresses were given again.
    emitted_again,
    /// Keys that are parked at the end.
    parked,
    /// Retries of parked keys after which no call waited any more.
    unparked,
    /// Retries of parked keys after which calls waited again.
    parked_again,
    /// Clocks that jumped.
    jumps,
    /// Readings of a clock far behind another one.
    clocks_behind,
    /// Journals whose appends waited.
    stalls,
    /// Appends that waited.
    appends_stalled,
    /// Shards that went back and forth between two workers.
    ping_pongs,
    /// News of a move that came late.
    slow_news,
    /// Claims after which somebody else owned the shard.
    claims_in_vain,
    /// Claims before which the owner of before had committed what was not loaded yet.
    folded_on,
    /// Shards that were taken over while another worker believed to own them.
    owned_twice,
    /// Owned shards that were given away.
    given_away,
    /// Owned shards that were given up because an append was refused.
    given_up_refused,
    /// Owned shards that were given up because the outcome of an append was unknown.
    given_up_unknown,
    /// Crashes that found work half done.
    crashes_in_work,
    /// Torn appends whose epoch did not stand.
    appends_torn_void,
    /// Scattered appends whose epoch did not stand with the first records.
    appends_scattered_open,
    /// Late appends of which a record was void.
    appends_late_void,
    /// Doubled appends of which a record was void.
    appends_doubled_void,
    /// Mails that were published again.
    mail_sent_again,
    /// Mails that came though the target had committed all of them.
    mail_dropped,
    /// Mails that came before one that is missing.
    mail_behind_gap,
    /// Mails that were too large for one record.
    mail_split,
    /// Mail or progress that came late, behind what was sent after it.
    mail_late,
    /// Records in mailboxes and among progress that are no such thing.
    garbage,
    /// Such records that a reader has passed over.
    garbage_read,
    /// Mailboxes whose reader had to wait, because the shard was full.
    mailboxes_held,
    /// Mailboxes that were trimmed.
    mailboxes_trimmed,
    /// Questions for the end of a journal.
    ends_asked,
    /// Ends that another owner has moved.
    ends_elsewhere,
    /// Writes to stores that came when more was committed.
    store_writes_late,
    /// Writes to stores that came twice.
    store_writes_doubled,
    /// Such writes that came when the store had more.
    store_writes_overtaken,
    /// Writes to stores of workers that had lost the shard.
    store_writes_deposed,
    /// Such writes that came when the store had as much.
    store_writes_void,
    /// Deaths of workers that had epochs for stores.
    stores_left_behind,
    /// Stores that a new owner brought up to date.
    stores_mended,
    /// Stores that a new owner replaced, for they were behind its snapshot.
    stores_replaced,
    /// Snapshots that were stored after one that could not be.
    snapshots_after_failure,
    /// Take-overs that passed a damaged or missing snapshot over.
    snapshots_passed_over,
    /// Stores that lost epochs in a crash.
    stores_behind,
}

impl Report {
    /// The kinds of faults: how often each happened, and how often it changed what came next.
    #[must_use]
    pub fn faults(&self) -> [(&'static str, u64, u64); 33] {
        [
            ("crash", self.crashes, self.crashes_in_work),
            ("pause", self.pauses, self.deposed),
            ("move", self.moves, self.given_away),
            ("ping-pong", self.ping_pongs, self.claims_in_vain),
            ("slow news", self.slow_news, self.owned_twice),
            ("clock jump", self.jumps, self.clocks_behind),
            ("stalled journal", self.stalls, self.appends_stalled),
            ("refused append", self.appends_refused, self.given_up_refused),
            ("unknown append", self.appends_unknown, self.given_up_unknown),
            ("late append", self.appends_late, self.appends_late_void),
            ("doubled append", self.appends_doubled, self.appends_doubled_void),
            ("torn append", self.appends_torn, self.appends_torn_void),
            ("scattered append", self.appends_scattered, self.appends_scattered_open),
            ("lost mail", self.mail_lost, self.mail_sent_again),
            ("doubled mail", self.mail_doubled, self.mail_dropped),
            ("late mail", self.mail_late, self.mail_behind_gap),
            ("garbage in a mailbox", self.garbage, self.garbage_read),
            ("mailbox of a full shard", self.mail_split, self.mailboxes_held),
            ("lost answer", self.answers_lost, self.answers_again),
            ("answer of a deposed owner", self.ends_asked, self.ends_elsewhere),
            ("store that lags", self.store_writes_late, self.stores_mended),
            ("store behind a snapshot", self.takeovers, self.stores_replaced),
            ("epochs for a store lost in a crash", self.crashes, self.stores_left_behind),
            ("store given an epoch again", self.store_writes_doubled, self.store_writes_overtaken),
            ("store write of a deposed owner", self.store_writes_deposed, self.store_writes_void),
            ("failed snapshot", self.snapshots_failed, self.snapshots_after_failure),
            ("damaged or missing snapshot", self.snapshots_rotten, self.snapshots_passed_over),
            ("snapshot damaged before a trim", self.snapshots_read_back, self.snapshots_read_back_damaged),
            ("trim while a journal is read", self.trims, self.trims_raced),
            ("egress given an epoch again", self.crashes, self.emitted_again),
            ("lost attempt", self.attempts_lost, self.attempts_again),
            ("doubled attempt", self.attempts_doubled, self.results_void),
            ("late result", self.results_late, self.results_elsewhere),
        ]
    }

    /// How many faults were injected, whether they changed anything or not.
    #[must_use]
    pub fn injected(&self) -> u64 {
        let of_others =
            ["trim while a journal is read", "snapshot damaged before a trim", "egress given an epoch again"];
        let faults = self.faults().into_iter().filter(|(fault, ..)| !of_others.contains(fault));
        faults.map(|(_, happened, _)| happened).sum()
    }

    /// The kinds of faults that never happened, or never changed anything.
    #[must_use]
    pub fn blind_spots(&self) -> Vec<&'static str> {
        let faults = self.faults().into_iter().chain([("store behind its journal", self.crashes, self.stores_behind)]);
        faults.filter(|(_, happened, mattered)| happened * mattered == 0).map(|(fault, ..)| fault).collect()
    }
}
