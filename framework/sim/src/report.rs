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
    /// Marks of snapshots that stand.
    marks,
    /// Journals that were trimmed.
    trims,
    /// Take-overs that began with a snapshot.
    recovered_from_snapshot,
    /// Mails that were lost on their way.
    mail_lost,
    /// Mails that came twice.
    mail_doubled,
    /// Requests that were answered.
    answers,
    /// Records that egresses have.
    emitted,
    /// Epochs that egresses were given again.
    emitted_again,
    /// Keys that are parked at the end.
    parked,
}
