//! Places between two steps at which a process can be made to die, for the tests of recovery.
//!
//! With the feature `failpoints`, a process whose environment has `STATEFN_FAILPOINT=name:count`
//! sends itself SIGKILL when it passes the place `name` for the `count`-th time, counted from 1. If
//! `STATEFN_FAILPOINT_COUNTS` names a file, a run that ends writes there how often it passed each.
//!
//! Invariants: every place in the code is in [`NAMES`] and every name there is in the code, once (a
//! test reads the sources); without the feature a place is an empty inline function.
//!
//! Deliberately absent: errors and delays at a place; disks that fail are tested through the `Disk`
//! traits.

/// All places, in the order of a life: start, commit, rotation, snapshot, trim, egress.
pub const NAMES: &[&str] = &[
    "start/directory-locked",
    "start/identity-written",
    "start/first-segment-created",
    "start/superblock-created",
    "start/last-group-written-again",
    "start/log-opened",
    "start/snapshots-opened",
    "start/mark-written-again",
    "start/egress-file-cut",
    "start/egress-opened",
    "start/shard-prepared",
    "start/claims-made",
    "start/claims-appended",
    "start/shards-owned",
    "start/unmarked-snapshots-removed",
    "reader/stretch-read",
    "reader/share-posted",
    "reader/fanned-out",
    "host/share-applied",
    "host/sealed",
    "host/append-sent",
    "host/append-confirmed",
    "host/publish",
    "host/published",
    "host/emit",
    "host/emitted",
    "log/append",
    "log/group-written",
    "log/group-synced",
    "log/appended",
    "log/told",
    "rotation/begin",
    "rotation/superblock-written",
    "rotation/segment-filled",
    "rotation/segment-created",
    "rotation/segment-before-shortened",
    "superblock/write",
    "superblock/copy-written",
    "superblock/copy-synced",
    "file/filled",
    "file/synced",
    "file/renamed",
    "file/directory-synced",
    "snapshot/wanted",
    "snapshot/directory-made",
    "snapshot/filled",
    "snapshot/stored",
    "snapshot/told",
    "snapshot/mark-sent",
    "snapshot/read-back",
    "snapshot/remove",
    "snapshot/removed",
    "trim/forget",
    "trim/unlink",
    "trim/unlinked",
    "egress/lines-written",
    "egress/lines-synced",
    "egress/mark-written",
    "egress/mark-synced",
    "egress/mark-made",
    "egress/taken",
    "egress/taken-told",
];

#[cfg(not(feature = "failpoints"))]
mod points {
    /// Does nothing.
    #[inline]
    pub(crate) fn failpoint(_: &'static str) {}

    /// Does nothing.
    #[inline]
    pub(crate) fn tell_counts() {}
}

#[cfg(feature = "failpoints")]
mod points {
    use std::{
        env, fs,
        sync::{
            OnceLock,
            atomic::{AtomicU64, Ordering},
        },
        thread,
        time::Duration,
    };

    use rustix::process::{Signal, getpid, kill_process};

    use super::NAMES;

    /// By the place's number in [`NAMES`], how often this process has passed it.
    static PASSED: [AtomicU64; NAMES.len()] = [const { AtomicU64::new(0) }; NAMES.len()];

    /// Passes a place, and dies there if the environment says so.
    ///
    /// # Panics
    /// If the place is not in [`NAMES`].
    pub(crate) fn failpoint(name: &'static str) {
        let number = NAMES.iter().position(|known| *known == name);
        let number = number.unwrap_or_else(|| panic!("the failpoint `{name}` is not in the list of all"));
        let passed = PASSED[number].fetch_add(1, Ordering::Relaxed) + 1;
        if wanted().as_ref().is_some_and(|(wanted, count)| wanted == name && *count == passed) {
            die();
        }
    }

    /// Writes how often each place was passed, a line for each, if the environment names a file.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub(crate) fn tell_counts() {
        let Some(path) = env::var_os("STATEFN_FAILPOINT_COUNTS") else { return };
        let line = |(name, passed): (&&str, &AtomicU64)| format!("{name} {}\n", passed.load(Ordering::Relaxed));
        let lines: String = NAMES.iter().zip(&PASSED).map(line).collect();
        fs::write(path, lines).expect("a test names a file that can be written");
    }

    /// The place and the count of the environment.
    ///
    /// # Panics
    /// If they cannot be read: a test that kills nobody would pass.
    fn wanted() -> &'static Option<(String, u64)> {
        static WANTED: OnceLock<Option<(String, u64)>> = OnceLock::new();
        WANTED.get_or_init(|| {
            let text = env::var("STATEFN_FAILPOINT").ok()?;
            let parts = text.split_once(':').and_then(|(name, count)| Some((name.to_owned(), count.parse().ok()?)));
            let (name, count) = parts.expect("`STATEFN_FAILPOINT` is `name:count`");
            assert!(NAMES.contains(&name.as_str()), "`STATEFN_FAILPOINT` names `{name}`, which is no failpoint");
            assert!(count > 0, "`STATEFN_FAILPOINT` counts from 1");
            Some((name, count))
        })
    }

    /// Sends SIGKILL to this process; no other thread gets any further than it is.
    fn die() -> ! {
        let outcome = kill_process(getpid(), Signal::KILL);
        assert!(outcome.is_ok(), "the process cannot kill itself");
        loop {
            thread::sleep(Duration::from_secs(1));
        }
    }
}

pub(crate) use points::{failpoint, tell_counts};

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, path::Path};

    use super::NAMES;

    /// Counts the places in the sources, by name.
    fn places(directory: &Path, found: &mut BTreeMap<String, usize>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                places(&path, found);
            } else {
                let text = fs::read_to_string(&path).unwrap();
                let calls = text.split("failpoint(\"").skip(1).filter_map(|rest| rest.split_once("\")"));
                calls.for_each(|(name, _)| *found.entry(name.to_owned()).or_default() += 1);
            }
        }
    }

    #[test]
    fn the_list_has_every_place_of_the_code_once() {
        let mut found = BTreeMap::new();
        places(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        let listed: BTreeMap<String, usize> = NAMES.iter().map(|name| ((*name).to_owned(), 1)).collect();
        assert_eq!(listed.len(), NAMES.len(), "a name is in the list twice");
        assert_eq!(found, listed);
    }
}
