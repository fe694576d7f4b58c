//! A disk for tests: it fills up, fails, writes short, and loses what was not synced.
//!
//! What it models: each write stays pending, in sectors, until its file is synced; at a crash any
//! subset of the pending sectors survives. After a sync that fails any subset of them is durable
//! and the rest is *clean*: reads still see it, no later sync writes it. Changes of a directory
//! survive a crash in any subset as well, until the directory is synced.

use std::{
    any::Any,
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use super::disk::{Disk, DiskFile, Entry};

const SECTOR_BYTES: usize = 512;

/// What the next operations do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// Writes and syncs of files fail.
    Input,
    /// Writes are short and then fail; nothing can be allocated.
    Full,
    /// Syncs of files fail.
    Sync,
    /// Everything that changes or syncs a directory fails.
    Directory,
    /// The machine is dead: every operation fails.
    Dead,
}

/// A handle of the disk; clones are the same disk.
#[derive(Clone, Default)]
pub(super) struct MemoryDisk {
    state: Arc<Mutex<State>>,
    generation: u64,
}

#[derive(Default)]
struct State {
    /// Grows with each crash or kill; handles of an older one are dead.
    generation: u64,
    files: Vec<FileState>,
    /// What a running system sees.
    names: BTreeMap<PathBuf, Node>,
    /// What is durable of it.
    durable_names: BTreeMap<PathBuf, Node>,
    locks: Vec<PathBuf>,
    /// How many operations succeed before the failure begins, and how many then fail.
    failure: Option<(u64, Failure, u64)>,
    random: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Node {
    Directory,
    File(usize),
}

#[derive(Default, Clone)]
struct FileState {
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// The sectors, by their number, that a crash may lose or keep.
    pending: Vec<usize>,
}

/// The kinds of operations, as far as failures differ.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Read,
    Write,
    Allocate,
    Sync,
    Directory,
}

impl MemoryDisk {
    pub(super) fn new(seed: u64) -> Self {
        let disk = Self::default();
        disk.lock_state().random = seed;
        disk.lock_state().durable_names.insert("/".into(), Node::Directory);
        disk.lock_state().names.insert("/".into(), Node::Directory);
        disk
    }

    /// After `after` more operations, the next `count` that `failure` concerns fail.
    pub(super) fn fail(&self, after: u64, failure: Failure, count: u64) {
        self.lock_state().failure = Some((after, failure, count));
    }

    /// Ends the failure.
    pub(super) fn mend(&self) {
        self.lock_state().failure = None;
    }

    /// The process ends: its handles are dead, all that it wrote is seen by the next.
    pub(super) fn kill(&mut self) {
        let mut state = self.lock_state();
        state.generation += 1;
        state.failure = None;
        state.locks.clear();
        let generation = state.generation;
        drop(state);
        self.generation = generation;
    }

    /// The machine dies: of what was not synced, anything may be lost.
    pub(super) fn crash(&mut self) {
        let mut state = self.lock_state();
        let names = state.surviving_names();
        state.names = names.clone();
        state.durable_names = names;
        let mut files = std::mem::take(&mut state.files);
        for file in &mut files {
            file.lose(&mut || state.coin());
        }
        state.files = files;
        drop(state);
        self.kill();
    }

    /// Changes the bytes of a file behind the back of everybody.
    pub(super) fn tamper(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.lock_state();
        let Some(Node::File(index)) = state.names.get(Path::new(path)).copied() else { panic!("no file {path}") };
        change(&mut state.files[index].seen);
        state.files[index].durable = state.files[index].seen.clone();
    }

    /// Removes a file behind the back of everybody.
    pub(super) fn lose_file(&self, path: &str) {
        let mut state = self.lock_state();
        state.names.remove(Path::new(path)).expect("the file is there");
        state.durable_names.remove(Path::new(path));
    }

    /// The names of all files.
    pub(super) fn file_names(&self) -> Vec<String> {
        let state = self.lock_state();
        let files = state.names.iter().filter(|(_, node)| **node != Node::Directory);
        files.map(|(path, _)| path.display().to_string()).collect()
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test thread panicked with it")
    }

    fn begin(&self, operation: Operation) -> io::Result<MutexGuard<'_, State>> {
        begin(&self.state, self.generation, operation)
    }
}

fn begin(state: &Mutex<State>, generation: u64, operation: Operation) -> io::Result<MutexGuard<'_, State>> {
    let mut state = state.lock().expect("no test thread panicked with it");
    if state.generation != generation {
        return Err(io::Error::other("this process is dead"));
    }
    if let Some((after, failure, count)) = &mut state.failure {
        if *after > 0 {
            *after -= 1;
        } else if *count > 0 && failure.concerns(operation) {
            *count -= if *failure == Failure::Dead { 0 } else { 1 };
            // The caller lets a failed write or sync have a part of its effect.
            let kind = match failure {
                Failure::Full => io::ErrorKind::StorageFull,
                _ => io::ErrorKind::Other,
            };
            drop(state);
            return Err(io::Error::new(kind, "made to fail"));
        }
    }
    Ok(state)
}

impl Failure {
    fn concerns(self, operation: Operation) -> bool {
        match self {
            Self::Input => matches!(operation, Operation::Write | Operation::Sync),
            Self::Full => matches!(operation, Operation::Write | Operation::Allocate),
            Self::Sync => operation == Operation::Sync,
            Self::Directory => operation == Operation::Directory,
            Self::Dead => true,
        }
    }
}

impl State {
    fn random(&mut self) -> u64 {
        // splitmix64
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn coin(&mut self) -> bool {
        self.random() & 1 == 1
    }

    /// Each name that differs keeps its old or its new meaning.
    fn surviving_names(&mut self) -> BTreeMap<PathBuf, Node> {
        let mut paths: Vec<PathBuf> = self.names.keys().chain(self.durable_names.keys()).cloned().collect();
        paths.sort_unstable();
        paths.dedup();
        let mut surviving = BTreeMap::new();
        for path in paths {
            let (old, new) = (self.durable_names.get(&path).copied(), self.names.get(&path).copied());
            let node = if old != new && self.coin() { old } else { new };
            let has_parent = path.parent().is_none_or(|parent| surviving.contains_key(parent));
            if let Some(node) = node.filter(|_| has_parent) {
                surviving.insert(path, node);
            }
        }
        surviving
    }

    fn file(&mut self, index: usize) -> &mut FileState {
        &mut self.files[index]
    }
}

impl FileState {
    fn note(&mut self, from: usize, to: usize) {
        if from < to {
            self.pending.extend(from / SECTOR_BYTES..=(to - 1) / SECTOR_BYTES);
            self.pending.sort_unstable();
            self.pending.dedup();
        }
    }

    /// Makes some pending sectors durable; the file's length is that of the last of them at least.
    fn settle(&mut self, mut keeps: impl FnMut() -> bool) {
        for sector in std::mem::take(&mut self.pending) {
            if keeps() {
                let (from, to) = (sector * SECTOR_BYTES, ((sector + 1) * SECTOR_BYTES).min(self.seen.len()));
                if from < to {
                    let length = self.durable.len().max(to);
                    self.durable.resize(length, 0);
                    self.durable[from..to].copy_from_slice(&self.seen[from..to]);
                }
            }
        }
    }

    fn sync(&mut self) {
        self.settle(|| true);
        self.durable.resize(self.seen.len(), 0);
    }

    fn lose(&mut self, coin: &mut dyn FnMut() -> bool) {
        self.settle(&mut *coin);
        if coin() {
            self.durable.resize(self.seen.len(), 0);
        }
        self.seen = self.durable.clone();
    }
}

impl Disk for MemoryDisk {
    fn entries(&self, directory: &Path) -> io::Result<Vec<Entry>> {
        let state = self.begin(Operation::Read)?;
        let directory: PathBuf = directory.components().collect();
        if state.names.get(&directory) != Some(&Node::Directory) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = state.names.iter().filter(|(path, _)| path.parent() == Some(&directory));
        let entry = |(path, node): (&PathBuf, &Node)| Entry {
            name: path.file_name().unwrap().to_string_lossy().into_owned(),
            is_directory: *node == Node::Directory,
        };
        Ok(inside.map(entry).collect())
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.begin(Operation::Directory)?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !state.names.contains_key(path.parent().unwrap()) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.names.insert(path.to_owned(), Node::Directory);
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.begin(Operation::Directory)?;
        let index = state.files.len();
        state.files.push(FileState::default());
        state.names.insert(path.to_owned(), Node::File(index));
        Ok(Box::new(MemoryFile { state: self.state.clone(), generation: self.generation, index }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let state = self.begin(Operation::Read)?;
        match state.names.get(path) {
            Some(Node::File(index)) => {
                Ok(Box::new(MemoryFile { state: self.state.clone(), generation: self.generation, index: *index }))
            }
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.begin(Operation::Directory)?;
        let node = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), node);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.begin(Operation::Directory)?;
        state.names.remove(path).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.begin(Operation::Directory)?;
        let names = state.names.clone();
        let is_inside = |of: &Path| of.parent() == Some(path);
        state.durable_names.retain(|of, _| !is_inside(of));
        state.durable_names.extend(names.into_iter().filter(|(of, _)| is_inside(of)));
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Any + Send>>> {
        let mut state = self.begin(Operation::Directory)?;
        if state.locks.iter().any(|locked| locked == path) {
            return Ok(None);
        }
        state.locks.push(path.to_owned());
        if !state.names.contains_key(path) {
            let index = state.files.len();
            state.files.push(FileState::default());
            state.names.insert(path.to_owned(), Node::File(index));
        }
        Ok(Some(Box::new(Guard { state: self.state.clone(), generation: self.generation, path: path.to_owned() })))
    }
}

struct Guard {
    state: Arc<Mutex<State>>,
    generation: u64,
    path: PathBuf,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Ok(mut state) = self.state.lock()
            && state.generation == self.generation
        {
            state.locks.retain(|locked| *locked != self.path);
        }
    }
}

struct MemoryFile {
    state: Arc<Mutex<State>>,
    generation: u64,
    index: usize,
}

impl MemoryFile {
    /// Begins an operation; one that fails while the process lives has a part of its effect.
    fn begin(&self, operation: Operation, partly: impl FnOnce(&mut State)) -> io::Result<MutexGuard<'_, State>> {
        begin(&self.state, self.generation, operation).inspect_err(|_| {
            let mut state = self.state.lock().expect("no test thread panicked with it");
            if state.generation == self.generation {
                partly(&mut state);
            }
        })
    }
}

fn write(file: &mut FileState, bytes: &[u8], at: usize) {
    let to = at + bytes.len();
    let length = file.seen.len().max(to);
    file.seen.resize(length, 0);
    file.seen[at..to].copy_from_slice(bytes);
    file.note(at, to);
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let mut state = self.begin(Operation::Read, |_| {})?;
        let bytes = state.file(self.index).seen.get(at as usize..).unwrap_or_default();
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        let at = at as usize;
        let mut state = self.begin(Operation::Write, |state| {
            let part = state.random() as usize % (bytes.len() + 1);
            write(state.file(self.index), &bytes[..part], at);
        })?;
        // Now and then a write is short though nothing is wrong.
        let count = if state.random().is_multiple_of(8) { bytes.len().div_ceil(2) } else { bytes.len() };
        write(state.file(self.index), &bytes[..count], at);
        Ok(count)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.begin(Operation::Read, |_| {})?.file(self.index).seen.len() as u64)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let mut state = self.begin(Operation::Write, |_| {})?;
        let file = state.file(self.index);
        file.seen.resize(length as usize, 0);
        // A cut may be durable or not; this disk makes it durable at once half of the time.
        if file.durable.len() > length as usize && state.coin() {
            state.file(self.index).durable.truncate(length as usize);
        }
        Ok(())
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let mut state = self.begin(Operation::Allocate, |_| {})?;
        let file = state.file(self.index);
        let length = file.seen.len().max(length as usize);
        file.seen.resize(length, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.begin(Operation::Sync, |state| {
            let mut file = state.file(self.index).clone();
            file.settle(|| state.coin());
            *state.file(self.index) = file;
        })?;
        state.file(self.index).sync();
        Ok(())
    }
}
