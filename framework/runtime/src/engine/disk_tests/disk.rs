//! A disk in memory that writes down every operation, and makes of what was written down the images
//! that a crash may leave.
//!
//! The model of a crash: what a sync of its file or directory has covered is there; of the rest any
//! part may be, in sectors of 512 bytes for writes, whole for a change of length or of names.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use super::random;
use crate::{
    egress::disk::{Disk as EgressDisk, DiskFile as EgressFile},
    embedded::disk::{Disk as LogDisk, DiskFile as LogFile, Entry},
};

const SECTOR_BYTES: u64 = 512;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Directory,
    File(usize),
}

type Names = BTreeMap<PathBuf, Node>;

/// An operation that changes the disk, or makes changes durable.
#[derive(Debug, Clone)]
enum Operation {
    Write { file: usize, at: u64, bytes: Vec<u8> },
    SetLength { file: usize, length: u64 },
    Name(Vec<(PathBuf, Option<Node>)>),
    SyncFile(usize),
    SyncDirectory(PathBuf),
}

/// What a crash does to that which is not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// Everything is there: only the process died.
    Nothing,
    /// The operation that was under way is there up to a sector boundary, this many sectors of it.
    Torn(u64),
    /// Nothing of it is there.
    Everything,
    /// A part of it is there, which follows from a seed.
    Some(u64),
}

/// A handle of the disk; clones are the same disk, and the same process.
#[derive(Debug, Clone, Default)]
pub(super) struct TestDisk {
    world: Arc<Mutex<World>>,
    life: u64,
}

#[derive(Debug, Clone, Default)]
struct World {
    files: Vec<Vec<u8>>,
    names: Names,
    locks: BTreeSet<PathBuf>,
    /// Files and names when the recording began; all that was there is durable.
    base: (Vec<Vec<u8>>, Names),
    operations: Vec<Operation>,
    is_recording: bool,
    /// Syncs of files succeed and do nothing.
    is_lying: bool,
    /// How many operations that need space were done or tried.
    tried: u64,
    /// From which of them on how many fail.
    full: Option<(u64, u64)>,
    /// The process that is alive; others' handles are dead.
    life: u64,
}

impl TestDisk {
    /// An empty disk that records.
    pub(super) fn new() -> Self {
        let disk = Self::default();
        disk.world().names.insert("/".into(), Node::Directory);
        disk.recording()
    }

    /// Another disk with the same content, which records from now on.
    pub(super) fn recording(&self) -> Self {
        let World { files, names, .. } = self.world().clone();
        let base = (files.clone(), names.clone());
        let world = World { files, names, base, is_recording: true, ..World::default() };
        Self { world: Arc::new(Mutex::new(world)), life: 0 }
    }

    /// An empty disk that records, and does not sync files though it says so.
    pub(super) fn lying() -> Self {
        let disk = Self::new();
        disk.world().is_lying = true;
        disk
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no test panics with it")
    }

    /// The world, if the process that has this handle is alive.
    fn alive(&self) -> io::Result<MutexGuard<'_, World>> {
        let world = self.world();
        if world.life == self.life { Ok(world) } else { Err(io::Error::other("this process is dead")) }
    }

    /// The world, for an operation that needs space.
    fn with_space(&self) -> io::Result<MutexGuard<'_, World>> {
        let mut world = self.alive()?;
        let number = world.tried;
        world.tried += 1;
        match world.full {
            Some((from, count)) if (from..from + count).contains(&number) => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(world),
        }
    }

    /// The process dies; returns the handle of the next one.
    pub(super) fn kill(&self) -> Self {
        let mut world = self.world();
        world.life += 1;
        world.locks.clear();
        Self { world: Arc::clone(&self.world), life: world.life }
    }

    /// Another disk with the same content and no fault, as the next process finds it.
    pub(super) fn copy(&self) -> Self {
        let World { files, names, .. } = self.world().clone();
        Self { world: Arc::new(Mutex::new(World { files, names, ..World::default() })), life: 0 }
    }

    /// From operation `from` on, of those that need space, `count` fail.
    pub(super) fn fill_up(&self, from: u64, count: u64) {
        self.world().full = Some((from, count));
    }

    /// How many operations that need space there were.
    pub(super) fn tried(&self) -> u64 {
        self.world().tried
    }

    /// How many operations were recorded.
    pub(super) fn position(&self) -> usize {
        self.world().operations.len()
    }

    /// How many sectors the operation at a position writes; 0 if it does not write.
    pub(super) fn sectors_at(&self, position: usize) -> u64 {
        match self.world().operations.get(position) {
            Some(Operation::Write { at, bytes, .. }) => {
                (at + bytes.len() as u64).div_ceil(SECTOR_BYTES) - at / SECTOR_BYTES
            }
            _ => 0,
        }
    }

    /// The disk after a crash before the operation at `position`.
    pub(super) fn image(&self, position: usize, loss: Loss) -> Self {
        let world = self.world();
        let mut image = Image::new(&world.base, world.files.len());
        for operation in &world.operations[..position] {
            image.take(operation.clone());
        }
        if let (Loss::Torn(sectors), Some(Operation::Write { file, at, bytes })) =
            (loss, world.operations.get(position))
        {
            let to = (at / SECTOR_BYTES + sectors) * SECTOR_BYTES;
            let count = (to.saturating_sub(*at) as usize).min(bytes.len());
            image.take(Operation::Write { file: *file, at: *at, bytes: bytes[..count].to_vec() });
        }
        let (files, names) = image.crash(loss);
        Self { world: Arc::new(Mutex::new(World { files, names, ..World::default() })), life: 0 }
    }

    /// The files below a directory.
    pub(super) fn files_below(&self, directory: &str) -> Vec<PathBuf> {
        let world = self.world();
        let is_file = |(path, node): &(&PathBuf, &Node)| path.starts_with(directory) && **node != Node::Directory;
        world.names.iter().filter(is_file).map(|(path, _)| path.clone()).collect()
    }

    /// The bytes of a file; `None` if it is not there.
    pub(super) fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let world = self.world();
        match world.names.get(path) {
            Some(Node::File(file)) => Some(world.files[*file].clone()),
            _ => None,
        }
    }

    /// Changes the bytes of a file behind the back of everybody.
    pub(super) fn tamper(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut world = self.world();
        let Some(Node::File(file)) = world.names.get(path).copied() else { panic!("no file {}", path.display()) };
        change(&mut world.files[file]);
    }

    fn file(&self, file: usize) -> TestFile {
        TestFile { disk: self.clone(), file }
    }
}

impl World {
    fn operate(&mut self, operation: Operation) {
        apply(&operation, &mut self.files, &mut self.names);
        if self.is_recording {
            self.operations.push(operation);
        }
    }

    /// Gives a name to a new file.
    fn create(&mut self, path: &Path) -> usize {
        self.files.push(Vec::new());
        let file = self.files.len() - 1;
        self.operate(Operation::Name(vec![(path.to_owned(), Some(Node::File(file)))]));
        file
    }
}

/// What a running system sees of an operation.
fn apply(operation: &Operation, files: &mut [Vec<u8>], names: &mut Names) {
    match operation {
        Operation::Write { file, at, bytes } => write(&mut files[*file], *at, bytes),
        Operation::SetLength { file, length } => files[*file].resize(*length as usize, 0),
        Operation::Name(changes) => {
            for (path, node) in changes {
                match node {
                    Some(node) => _ = names.insert(path.clone(), *node),
                    None => _ = names.remove(path),
                }
            }
        }
        Operation::SyncFile(_) | Operation::SyncDirectory(_) => {}
    }
}

fn write(file: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    let at = at as usize;
    file.resize(file.len().max(at + bytes.len()), 0);
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

/// What is durable, and what is not.
struct Image {
    files: Vec<Vec<u8>>,
    names: Names,
    pending: Vec<Operation>,
}

impl Image {
    fn new((files, names): &(Vec<Vec<u8>>, Names), count: usize) -> Self {
        let mut files = files.clone();
        files.resize(count, Vec::new());
        Self { files, names: names.clone(), pending: Vec::new() }
    }

    fn take(&mut self, operation: Operation) {
        let is_covered = |change: &Operation| match (change, &operation) {
            (Operation::Write { file, .. } | Operation::SetLength { file, .. }, Operation::SyncFile(synced)) => {
                file == synced
            }
            (Operation::Name(changes), Operation::SyncDirectory(synced)) => {
                changes.iter().all(|(path, _)| path.parent() == Some(synced))
            }
            _ => false,
        };
        match &operation {
            Operation::SyncFile(_) | Operation::SyncDirectory(_) => {
                let (covered, pending) = std::mem::take(&mut self.pending).into_iter().partition(is_covered);
                self.pending = pending;
                let covered: Vec<Operation> = covered;
                covered.iter().for_each(|change| apply(change, &mut self.files, &mut self.names));
            }
            _ => self.pending.push(operation),
        }
    }

    /// Lets a part of what is pending happen, and returns what is there then.
    fn crash(mut self, loss: Loss) -> (Vec<Vec<u8>>, Names) {
        let mut seed = if let Loss::Some(seed) = loss { seed } else { 0 };
        for change in std::mem::take(&mut self.pending) {
            match loss {
                Loss::Nothing | Loss::Torn(_) => apply(&change, &mut self.files, &mut self.names),
                Loss::Everything => {}
                Loss::Some(_) => self.happen_in_part(&change, &mut seed),
            }
        }
        let all = self.names.clone();
        // What stands in a directory that is not there is not there.
        self.names.retain(|path, _| path.ancestors().all(|above| all.contains_key(above)));
        (self.files, self.names)
    }

    /// A later write may be there and an earlier one not, which is what another order comes to.
    fn happen_in_part(&mut self, change: &Operation, seed: &mut u64) {
        let mut coin = || random(seed) & 1 == 1;
        match change {
            Operation::Write { file, at, bytes } => {
                let end = at + bytes.len() as u64;
                for sector in at / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
                    let (from, to) = ((sector * SECTOR_BYTES).max(*at), ((sector + 1) * SECTOR_BYTES).min(end));
                    if coin() {
                        write(&mut self.files[*file], from, &bytes[(from - at) as usize..(to - at) as usize]);
                    }
                }
            }
            _ if coin() => apply(change, &mut self.files, &mut self.names),
            _ => {}
        }
    }
}

struct TestFile {
    disk: TestDisk,
    file: usize,
}

impl TestFile {
    fn put(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        let (file, bytes) = (self.file, bytes.to_vec());
        match self.disk.with_space() {
            Ok(mut world) => {
                let count = bytes.len();
                world.operate(Operation::Write { file, at, bytes });
                Ok(count)
            }
            Err(error) => {
                // A disk that fills up takes a part.
                let half = bytes[..bytes.len() / 2].to_vec();
                self.disk.alive()?.operate(Operation::Write { file, at, bytes: half });
                Err(error)
            }
        }
    }

    fn resize(&self, length: u64) -> io::Result<()> {
        self.disk.alive()?.operate(Operation::SetLength { file: self.file, length });
        Ok(())
    }

    fn length_now(&self) -> io::Result<u64> {
        Ok(self.disk.alive()?.files[self.file].len() as u64)
    }

    fn make_durable(&self) -> io::Result<()> {
        let mut world = self.disk.with_space()?;
        if !world.is_lying {
            world.operate(Operation::SyncFile(self.file));
        }
        Ok(())
    }
}

impl LogFile for TestFile {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let world = self.disk.alive()?;
        let bytes = world.files[self.file].get(at as usize..).unwrap_or_default();
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        self.put(bytes, at)
    }

    fn length(&self) -> io::Result<u64> {
        self.length_now()
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.resize(length)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let mut world = self.disk.with_space()?;
        let length = length.max(world.files[self.file].len() as u64);
        world.operate(Operation::SetLength { file: self.file, length });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.make_durable()
    }
}

impl EgressFile for TestFile {
    fn length(&self) -> io::Result<u64> {
        self.length_now()
    }

    fn identity(&self) -> io::Result<(u64, u64)> {
        Ok((0, self.file as u64))
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        Ok(self.disk.alive()?.files[self.file].clone())
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        self.resize(length)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.put(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.make_durable()
    }
}

impl LogDisk for TestDisk {
    fn entries(&self, directory: &Path) -> io::Result<Vec<Entry>> {
        let world = self.alive()?;
        let directory: PathBuf = directory.components().collect();
        if world.names.get(&directory) != Some(&Node::Directory) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = world.names.iter().filter(|(path, _)| path.parent() == Some(&directory));
        let entry = |(path, node): (&PathBuf, &Node)| Entry {
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            is_directory: *node == Node::Directory,
        };
        Ok(inside.map(entry).collect())
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        let mut world = self.with_space()?;
        if world.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if path.parent().is_some_and(|parent| !world.names.contains_key(parent)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        world.operate(Operation::Name(vec![(path.to_owned(), Some(Node::Directory))]));
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        let file = self.with_space()?.create(path);
        Ok(Box::new(self.file(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        match self.alive()?.names.get(path) {
            Some(Node::File(file)) => Ok(Box::new(self.file(*file))),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.with_space()?;
        let node = world.names.get(from).copied().ok_or(io::ErrorKind::NotFound)?;
        world.operate(Operation::Name(vec![(from.to_owned(), None), (to.to_owned(), Some(node))]));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.alive()?;
        if !world.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        world.operate(Operation::Name(vec![(path.to_owned(), None)]));
        Ok(())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.with_space()?.operate(Operation::SyncDirectory(path.to_owned()));
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Any + Send>>> {
        if !self.alive()?.names.contains_key(path) {
            self.with_space()?.create(path);
        }
        let is_free = self.alive()?.locks.insert(path.to_owned());
        Ok(is_free.then(|| Box::new(Lock { disk: self.clone(), path: path.to_owned() }) as Box<dyn Any + Send>))
    }
}

struct Lock {
    disk: TestDisk,
    path: PathBuf,
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Ok(mut world) = self.disk.alive() {
            world.locks.remove(&self.path);
        }
    }
}

impl EgressDisk for TestDisk {
    fn open(&self, path: &Path) -> io::Result<Option<Box<dyn EgressFile>>> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        crate::embedded::disk::ensure_directory(self, directory)?;
        let known = self.alive()?.names.get(path).copied();
        let file = match known {
            Some(Node::Directory) => return Ok(None),
            Some(Node::File(file)) => file,
            None => self.with_space()?.create(path),
        };
        self.sync_directory(directory)?;
        Ok(Some(Box::new(self.file(file))))
    }
}
