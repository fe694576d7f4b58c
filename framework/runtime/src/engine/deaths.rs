//! What is remembered of processes that died, so that a call that kills its process is found.
//!
//! ```text
//! <data>/deaths.json   did the last process end by itself; which calls are suspected   at start and end
//! <data>/last-call     the call that is being made, while a process is careful         with each call
//! ```
//! A process that follows one that died is careful for a while: before a call is made it is noted, and
//! the note is emptied when the call is over. A process that finds a note has the call that its
//! predecessor died in. If that is the same call as the time before, the call is suspected: it is not
//! made again but refused, so its key is parked with it, and everything else goes on.
//!
//! Invariants: while a process is careful, one call is made at a time, so there is one note; a call
//! is suspected only after two deaths in it, so a process that was killed from outside, or that a
//! power cut ended, accuses nobody; what is suspected is refused once in a life, so a key that is
//! retried is called again.
//!
//! A note is written, not synced: it has to survive its process, not the machine. What a machine
//! that stops takes along is no fault of a call.
//!
//! Deliberately absent: a guard for calls of a process whose predecessor ended by itself. They cost
//! nothing, and one that kills is found by those that follow.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use statefn_core::{
    address::ShardId,
    dead_letter::printable_key,
    shard::{Guard, Guarded, Shard},
};

use crate::embedded::disk::{RealDisk, read_whole, write_whole};

/// How many calls of a shard a process is careful with. What the one before had begun and not
/// committed comes first, and is far less in most apps; if not, all that was called is committed
/// meanwhile, and the next process begins behind it.
const CAREFUL_CALLS: u32 = 10_000;
/// How many lives a suspicion lasts if its call does not come.
const LIVES_MAX: u32 = 3;
/// The version of both files.
const FORMAT: u32 = 1;
/// Why a suspected call is refused.
const REASON: &str = "the process died twice while it ran this message";

/// A call, as the files have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    shard: ShardId,
    function: String,
    /// As a person can read it.
    key: String,
    key_base64: String,
    message: String,
    is_timer: bool,
    payload_bytes: usize,
    payload_crc: u32,
}

impl Noted {
    fn of(shard: ShardId, call: &Guarded<'_>) -> Self {
        Self {
            shard,
            function: call.function_name.to_owned(),
            key: printable_key(call.key),
            key_base64: STANDARD.encode(call.key),
            message: call.message.to_owned(),
            is_timer: call.is_timer,
            payload_bytes: call.payload.len(),
            payload_crc: crc32c::crc32c(call.payload),
        }
    }
}

/// A call that is not made again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Suspect {
    call: Noted,
    /// How many processes have begun with this suspicion.
    lives: u32,
}

/// The first file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Ledger {
    format: u32,
    /// Whether the last process ended by itself.
    is_clean: bool,
    /// The call in which the last process died, if it was careful.
    #[serde(default)]
    noted: Option<Noted>,
    #[serde(default)]
    suspects: Vec<Suspect>,
}

impl Ledger {
    /// What a process begins with, after one that left this ledger and this note.
    fn next(mut self, note: Option<Noted>, is_parked: impl Fn(&Noted) -> bool) -> Self {
        let died = !std::mem::take(&mut self.is_clean);
        let note = note.filter(|_| died);
        if let Some(note) = note.clone().filter(|note| self.noted.as_ref() == Some(note)) {
            tracing::error!(
                function = note.function,
                key = note.key,
                message = note.message,
                "two processes died in this call: it is not made again, and its key is parked"
            );
            self.suspects.retain(|suspect| suspect.call != note);
            self.suspects.push(Suspect { call: note, lives: 0 });
        }
        self.noted = note;
        self.suspects.iter_mut().for_each(|suspect| suspect.lives += 1);
        self.suspects.retain(|suspect| suspect.lives <= LIVES_MAX && !is_parked(&suspect.call));
        Self { format: FORMAT, ..self }
    }
}

/// The files of a process that runs; they say that it ended by itself once this is dropped.
pub(super) struct Deaths {
    path: PathBuf,
    ledger: Ledger,
    /// The note of a process that is careful.
    note: Option<Arc<Note>>,
}

impl Deaths {
    /// Begins a life: counts the death of the process before, if it died, and sets a guard over the
    /// shards then. Trouble with the files is told, and keeps nobody from starting.
    pub(super) fn begin(directory: &Path, shards: &mut [Shard]) -> Self {
        let (path, note_path) = (directory.join("deaths.json"), directory.join("last-call"));
        let before = read_ledger(&path).unwrap_or(Ledger { is_clean: true, ..Ledger::default() });
        let is_careful = !before.is_clean;
        let note = if is_careful { read_note(&note_path) } else { None };
        let is_parked = |call: &Noted| {
            let shard = shards.iter().find(|shard| shard.id() == call.shard);
            let mut parked = shard.into_iter().flat_map(Shard::parked);
            parked.any(|(function, key, _)| function == call.function && STANDARD.encode(key) == call.key_base64)
        };
        let mut deaths = Self { path, ledger: before.next(note, is_parked), note: None };
        deaths.write();
        if is_careful {
            match Note::open(&note_path) {
                Ok(note) => deaths.note = Some(Arc::new(note)),
                Err(error) => tracing::warn!("calls cannot be noted in `{}`: {error}", note_path.display()),
            }
            shards.iter_mut().for_each(|shard| deaths.set_guard(shard));
        }
        deaths
    }

    fn set_guard(&self, shard: &mut Shard) {
        let suspects = self.ledger.suspects.iter().map(|suspect| suspect.call.clone());
        let suspects: Vec<Noted> = suspects.filter(|call| call.shard == shard.id()).collect();
        if suspects.is_empty() && self.note.is_none() {
            return;
        }
        let (shard_id, note) = (shard.id(), self.note.clone());
        shard.set_guard(Box::new(Careful { shard: shard_id, suspects, note, calls_left: CAREFUL_CALLS }));
    }

    /// The note of the call that is being made, while this process is careful.
    pub(super) fn note(&self) -> Option<Arc<Note>> {
        self.note.clone()
    }

    fn write(&self) {
        let written = serde_json::to_vec(&self.ledger).map_err(io::Error::other);
        if let Err(error) = written.and_then(|bytes| write_whole(&RealDisk, &self.path, &bytes)) {
            tracing::warn!("`{}` cannot be written, so a call that kills is not found: {error}", self.path.display());
        }
    }
}

impl Drop for Deaths {
    fn drop(&mut self) {
        self.ledger.is_clean = true;
        self.write();
    }
}

fn read_ledger(path: &Path) -> Option<Ledger> {
    let bytes = read_whole(&RealDisk, path).ok()??;
    let ledger: Ledger = serde_json::from_slice(&bytes).ok()?;
    (ledger.format == FORMAT).then_some(ledger)
}

fn read_note(path: &Path) -> Option<Noted> {
    let bytes = read_whole(&RealDisk, path).ok()??;
    let (head, rest) = bytes.split_first_chunk::<8>()?;
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let body = rest.get(..number(0) as usize)?;
    if number(4) != crc32c::crc32c(body) {
        return None;
    }
    serde_json::from_slice(body).ok()
}

/// The file with the call that is being made; length, checksum, and the call as JSON.
pub(super) struct Note {
    file: File,
    /// The call that is being made.
    call: Mutex<Option<Noted>>,
    is_over: Condvar,
}

impl Note {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
        Ok(Self { file, call: Mutex::default(), is_over: Condvar::new() })
    }

    /// Waits until no other call is made, and notes this one.
    fn enter(&self, call: Noted) -> io::Result<()> {
        let body = serde_json::to_vec(&call).map_err(io::Error::other)?;
        let length = u32::try_from(body.len()).map_err(io::Error::other)?;
        let bytes = [&length.to_le_bytes()[..], &crc32c::crc32c(&body).to_le_bytes(), &body].concat();
        let free = self.is_over.wait_while(lock(&self.call), |call| call.is_some());
        *free.unwrap_or_else(PoisonError::into_inner) = Some(call);
        self.file.write_all_at(&bytes, 0)
    }

    /// Empties the note, and lets the next call be made.
    fn leave(&self) -> io::Result<()> {
        let emptied = self.file.write_all_at(&[0; 8], 0);
        *lock(&self.call) = None;
        self.is_over.notify_one();
        emptied
    }

    /// The key of the call that is being made.
    pub(super) fn key(&self) -> Option<String> {
        lock(&self.call).as_ref().map(|call| call.key.clone())
    }
}

/// Nothing that holds these locks can leave what they guard half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The guard of a shard in a process that is careful.
struct Careful {
    shard: ShardId,
    suspects: Vec<Noted>,
    /// None if calls cannot be noted.
    note: Option<Arc<Note>>,
    calls_left: u32,
}

impl Guard for Careful {
    fn enter(&mut self, call: &Guarded<'_>) -> Result<(), String> {
        let noted = Noted::of(self.shard, call);
        if let Some(place) = self.suspects.iter().position(|suspect| *suspect == noted) {
            self.suspects.remove(place);
            return Err(REASON.into());
        }
        if let Some(note) = &self.note
            && let Err(error) = note.enter(noted)
        {
            tracing::warn!("a call cannot be noted: {error}");
        }
        Ok(())
    }

    fn leave(&mut self) -> bool {
        if let Some(note) = &self.note
            && let Err(error) = note.leave()
        {
            tracing::warn!("the note of a call cannot be emptied: {error}");
        }
        self.calls_left = self.calls_left.saturating_sub(1);
        self.calls_left > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(payload: &[u8]) -> Guarded<'_> {
        Guarded { function: 0, function_name: "test/counter", message: "add", is_timer: false, key: b"a", payload }
    }

    fn careful(note: Option<Arc<Note>>, suspects: Vec<Noted>) -> Careful {
        Careful { shard: 3, suspects, note, calls_left: 2 }
    }

    #[test]
    fn a_note_is_there_while_the_call_is_made() {
        let directory = tempfile::tempdir().expect("temporary");
        let path = directory.path().join("last-call");
        let note = Arc::new(Note::open(&path).expect("opens"));
        let mut guard = careful(Some(Arc::clone(&note)), Vec::new());
        assert_eq!(read_note(&path), None);
        guard.enter(&call(b"1")).expect("nobody is suspected");
        assert_eq!(read_note(&path), Some(Noted::of(3, &call(b"1"))));
        assert_eq!(note.key().as_deref(), Some("a"));
        assert!(guard.leave());
        assert_eq!((read_note(&path), note.key()), (None, None));
        guard.enter(&call(b"2")).expect("nobody is suspected");
        assert!(!guard.leave(), "it was careful for long enough");
    }

    #[test]
    fn damage_of_a_note_is_noticed() {
        let directory = tempfile::tempdir().expect("temporary");
        let path = directory.path().join("last-call");
        let note = Note::open(&path).expect("opens");
        note.enter(Noted::of(3, &call(b"1"))).expect("writes");
        let bytes = std::fs::read(&path).expect("reads");
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, damaged).expect("writes");
            assert_eq!(read_note(&path), None, "byte {at}");
        }
        std::fs::write(&path, &bytes[..9]).expect("writes");
        assert_eq!(read_note(&path), None);
    }

    #[test]
    fn a_call_is_suspected_after_two_deaths_in_it() {
        let (first, second) = (Noted::of(3, &call(b"1")), Noted::of(3, &call(b"2")));
        let running = Ledger { format: FORMAT, ..Ledger::default() };
        let nobody = |_: &Noted| false;
        let once = running.next(Some(first.clone()), nobody);
        assert_eq!(once.suspects, []);
        let other = once.clone().next(Some(second), nobody);
        assert_eq!(other.suspects, [], "another call was made the second time");
        let unknown = once.clone().next(None, nobody).next(Some(first.clone()), nobody);
        assert_eq!(unknown.suspects, [], "a death elsewhere came between");
        let clean = Ledger { is_clean: true, ..once.clone() }.next(Some(first.clone()), nobody);
        assert_eq!((clean.suspects, clean.noted), (vec![], None), "an old note accuses nobody");
        let twice = once.next(Some(first.clone()), nobody);
        assert_eq!(twice.suspects, [Suspect { call: first.clone(), lives: 1 }]);
        assert_eq!(twice.clone().next(None, |call| *call == first).suspects, [], "its key is parked by now");
        let later = (0..LIVES_MAX).fold(twice, |ledger, _| ledger.next(None, nobody));
        assert_eq!(later.suspects, [], "it did not come again");
    }

    #[test]
    fn what_is_suspected_is_refused_once() {
        let mut guard = careful(None, vec![Noted::of(3, &call(b"1"))]);
        assert_eq!(guard.enter(&call(b"2")), Ok(()));
        assert!(guard.leave());
        assert_eq!(guard.enter(&call(b"1")), Err(REASON.into()));
        assert_eq!(guard.enter(&call(b"1")), Ok(()));
    }

    #[test]
    fn a_life_that_ends_by_itself_says_so() {
        let directory = tempfile::tempdir().expect("temporary");
        let path = directory.path().join("deaths.json");
        let deaths = Deaths::begin(directory.path(), &mut []);
        assert!(deaths.note().is_none(), "there was nobody before");
        assert!(!read_ledger(&path).expect("is written").is_clean);
        // A process that dies says nothing more.
        let said = std::fs::read(&path).expect("reads");
        drop(deaths);
        std::fs::write(&path, said).expect("writes");
        let deaths = Deaths::begin(directory.path(), &mut []);
        assert!(deaths.note().is_some(), "the one before died");
        drop(deaths);
        assert!(read_ledger(&path).expect("is written").is_clean);
        assert!(Deaths::begin(directory.path(), &mut []).note().is_none());
    }
}
