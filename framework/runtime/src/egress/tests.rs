//! The egress on a disk that fails and loses what was not synced.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::Path,
    sync::{Arc, Mutex},
};

use proptest::prelude::*;
use statefn_core::ports::egress::Egresses;

use super::{
    disk::{Disk, DiskFile},
    mark::{Mark, MarkedFile},
    *,
};

const SHARDS: u32 = 3;
const FILES: [&str; 2] = ["out/sales.jsonl", "out/refunds.jsonl"];

/// A disk in memory.
#[derive(Debug, Clone, Default)]
struct FaultyDisk(Arc<Mutex<World>>);

#[derive(Debug, Default)]
struct World {
    files: BTreeMap<PathBuf, Content>,
    /// One byte for each operation: what goes wrong; nothing once they are used up.
    faults: VecDeque<u8>,
    is_down: bool,
}

#[derive(Debug, Default)]
struct Content {
    /// What a reader sees.
    seen: Vec<u8>,
    /// What a crash leaves for sure.
    durable: Vec<u8>,
    /// What a crash may lose.
    unsynced: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Cut(usize),
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write(offset, bytes) => {
                to.resize(to.len().max(offset + bytes.len()), 0);
                to[*offset..offset + bytes.len()].copy_from_slice(bytes);
            }
            Self::Cut(length) => to.resize(*length, 0),
        }
    }

    /// What is left of it on the disk, by a bit pattern: all, half or nothing.
    fn torn(&self, bits: u8) -> Option<Self> {
        match (bits % 3, self) {
            (0, _) => None,
            (1, Self::Write(offset, bytes)) => Some(Self::Write(*offset, bytes[..bytes.len() / 2].to_vec())),
            _ => Some(self.clone()),
        }
    }
}

impl Content {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.seen);
        self.unsynced.push(change);
    }

    /// Some of what is not synced reaches the disk; the system forgets that the rest does not.
    fn lose(&mut self, mut bits: u8) {
        for change in std::mem::take(&mut self.unsynced) {
            if let Some(left) = change.torn(bits) {
                left.apply(&mut self.durable);
            }
            bits = bits.rotate_left(3).wrapping_add(41);
        }
    }
}

impl World {
    fn next_fault(&mut self) -> u8 {
        self.faults.pop_front().unwrap_or(u8::MAX)
    }

    /// The fault of the next operation, or an error: the machine goes down, or is down.
    fn operate(&mut self) -> io::Result<u8> {
        let fault = self.next_fault();
        if fault == 17 {
            self.is_down = true;
        }
        if self.is_down { Err(io::Error::other("the machine is down")) } else { Ok(fault) }
    }
}

impl FaultyDisk {
    fn crash(&self) {
        let mut world = self.0.lock().expect("no test panics with it");
        let bits = world.next_fault();
        world.is_down = false;
        for content in world.files.values_mut() {
            content.lose(bits);
            content.seen = content.durable.clone();
        }
    }

    fn heal(&self) {
        self.0.lock().expect("no test panics with it").faults.clear();
    }

    fn is_down(&self) -> bool {
        self.0.lock().expect("no test panics with it").is_down
    }

    fn put(&self, path: &str, bytes: &[u8]) {
        let content = Content { seen: bytes.to_vec(), durable: bytes.to_vec(), unsynced: Vec::new() };
        self.0.lock().expect("no test panics with it").files.insert(path.into(), content);
    }

    fn durable(&self, path: &str) -> Vec<u8> {
        self.0.lock().expect("no test panics with it").files[Path::new(path)].durable.clone()
    }
}

struct OpenFile(FaultyDisk, PathBuf);

impl OpenFile {
    fn with<T>(&self, operate: impl FnOnce(&mut Content, u8) -> io::Result<T>) -> io::Result<T> {
        let mut world = self.0.0.lock().expect("no test panics with it");
        let fault = world.operate()?;
        operate(world.files.get_mut(&self.1).expect("an open file exists"), fault)
    }
}

fn fails_if(condition: bool, number: i32) -> io::Result<()> {
    if condition { Err(io::Error::from_raw_os_error(number)) } else { Ok(()) }
}

const EINTR: i32 = 4;
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

impl Disk for FaultyDisk {
    fn open(&self, path: &Path) -> io::Result<Option<Box<dyn DiskFile>>> {
        let mut world = self.0.lock().expect("no test panics with it");
        fails_if(world.operate()? < 5, ENOSPC)?;
        world.files.entry(path.to_owned()).or_default();
        Ok(Some(Box::new(OpenFile(self.clone(), path.to_owned()))))
    }
}

impl DiskFile for OpenFile {
    fn length(&self) -> io::Result<u64> {
        self.with(|content, _| Ok(content.seen.len() as u64))
    }

    fn identity(&self) -> io::Result<(u64, u64)> {
        let world = self.0.0.lock().expect("no test panics with it");
        Ok((0, world.files.keys().position(|path| *path == self.1).expect("an open file exists") as u64))
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        self.with(|content, fault| fails_if(fault < 5, EIO).map(|()| content.seen.clone()))
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        self.with(|content, fault| {
            fails_if(fault < 5, EIO)?;
            content.change(Change::Cut(length as usize));
            Ok(())
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.with(|content, fault| {
            fails_if(fault < 16, ENOSPC)?;
            fails_if(fault == 16, EINTR)?;
            let length = if fault < 80 { bytes.len().div_ceil(2) } else { bytes.len() };
            content.change(Change::Write(offset as usize, bytes[..length].to_vec()));
            Ok(length)
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|content, fault| {
            if fault < 60 {
                content.lose(fault);
                return Err(io::Error::from_raw_os_error(EIO));
            }
            std::mem::take(&mut content.unsynced).iter().for_each(|change| change.apply(&mut content.durable));
            Ok(())
        })
    }
}

/// What happens to an egress.
#[derive(Debug, Clone)]
enum Step {
    /// A shard commits an epoch with a record for each of these egresses.
    Epoch(u32, Vec<usize>),
    Sync,
    Crash,
    /// A shard's host starts again in the middle of an epoch.
    Restart(u32),
    /// A shard is replayed from what is taken, though the process lives.
    Again(u32),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..SHARDS, prop::collection::vec(0..3_usize, 0..5)).prop_map(|(shard, egresses)| Step::Epoch(shard, egresses)),
        4 => Just(Step::Sync),
        1 => Just(Step::Crash),
        1 => (0..SHARDS).prop_map(Step::Restart),
        1 => (0..SHARDS).prop_map(Step::Again),
    ]
}

/// Shards with journals, and the egress they feed.
struct Model {
    disk: FaultyDisk,
    egress: Option<FileEgress>,
    /// By shard: the records of each epoch, from 1.
    journals: Vec<Vec<Vec<(usize, String)>>>,
    /// By shard: the journal is gone up to here.
    trimmed: Vec<u64>,
}

impl Model {
    fn new(faults: Vec<u8>) -> Self {
        let disk = FaultyDisk::default();
        disk.0.lock().expect("no test panics with it").faults = faults.into();
        Self { disk, egress: None, journals: vec![Vec::new(); SHARDS as usize], trimmed: vec![0; SHARDS as usize] }
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Epoch(shard, egresses) => self.commit(*shard, egresses),
            Step::Sync => _ = self.open().sync(),
            Step::Crash => self.crash(),
            Step::Restart(shard) => {
                self.open();
                self.catch_up(*shard);
            }
            Step::Again(shard) => {
                let from = self.open().taken(*shard);
                self.replay(*shard, from, u64::MAX);
            }
        }
        if self.disk.is_down() {
            self.crash();
        }
        if let Some(egress) = &self.egress {
            (0..SHARDS).for_each(|shard| self.trimmed[shard as usize] = egress.taken(shard));
        }
    }

    /// The egress; opened again and again if it is closed, and fed with half of what it lacks.
    fn open(&mut self) -> &mut FileEgress {
        while self.egress.is_none() {
            match FileEgress::open_on(&self.disk, Path::new("data"), sinks(), SHARDS) {
                Ok(egress) => self.egress = Some(egress),
                Err(EgressError::Io { .. }) if self.disk.is_down() => self.disk.crash(),
                Err(EgressError::Io { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            for shard in 0..SHARDS {
                let Some(egress) = &self.egress else { break };
                let taken = egress.taken(shard);
                assert!(taken >= self.trimmed[shard as usize], "shard {shard}: what was taken stays taken");
                let lacks = self.journals[shard as usize].len() as u64 - taken;
                self.replay(shard, taken, taken + lacks / 2);
            }
        }
        self.egress.as_mut().expect("it was opened above")
    }

    fn commit(&mut self, shard: u32, egresses: &[usize]) {
        self.open();
        let epoch = self.journals[shard as usize].len() as u64 + 1;
        let line = |(place, egress): (usize, &usize)| (*egress, format!("{shard}/{epoch}/{place}"));
        self.journals[shard as usize].push(egresses.iter().enumerate().map(line).collect());
        self.catch_up(shard);
    }

    /// Feeds the egress with what it was not given in this process.
    fn catch_up(&mut self, shard: u32) {
        let from = self.open().ended(shard);
        self.replay(shard, from, u64::MAX);
    }

    fn replay(&mut self, shard: u32, from: u64, to: u64) {
        let egress = self.egress.as_mut().expect("only an open egress is fed");
        for (place, records) in self.journals[shard as usize].iter().enumerate().skip(from as usize) {
            let epoch = place as u64 + 1;
            if epoch > to {
                break;
            }
            let records: Vec<_> = records.iter().map(|(sink, record)| (*sink, record.as_str())).collect();
            feed(egress, shard, epoch, &records);
        }
    }

    fn crash(&mut self) {
        self.egress = None;
        self.disk.crash();
    }

    /// Each line stands exactly once, and those of a shard in its order.
    fn check(&mut self) {
        self.disk.heal();
        (0..SHARDS).for_each(|shard| self.catch_up(shard));
        self.open().sync().expect("the disk is good now");
        self.crash();
        self.open();
        for (sink, path) in FILES.iter().enumerate() {
            let text = String::from_utf8(self.disk.durable(path)).expect("lines are text");
            for shard in 0..SHARDS {
                let found: Vec<_> = text.lines().filter(|line| line.starts_with(&format!("{shard}/"))).collect();
                let records = self.journals[shard as usize].iter().flatten().filter(|record| record.0 == sink);
                let expected: Vec<_> = records.map(|record| record.1.as_str()).collect();
                assert_eq!(found, expected, "{path}, shard {shard}");
            }
            let emitted = self.journals.iter().flatten().flatten().filter(|record| record.0 == sink).count();
            assert_eq!(text.lines().count(), emitted, "{path}");
        }
    }
}

fn sinks() -> Vec<SinkSpec> {
    let sink = |name: &str, place| SinkSpec { name: name.into(), encoding: Encoding::Json, place };
    let file = |path: &str| Place::File(path.into());
    vec![sink("sales", file(FILES[0])), sink("refunds", file(FILES[1])), sink("rest", Place::Counter)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn each_line_stands_exactly_once_whatever_fails(
        steps in prop::collection::vec(any_step(), 1..60),
        faults in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let mut model = Model::new(faults);
        steps.iter().for_each(|step| model.run(step));
        model.check();
    }

    #[test]
    fn a_damaged_mark_is_refused_or_the_older_one_counts(at in 0..200_usize, bit in 0..8_u8) {
        let disk = fixture();
        let path = "data/egress.mark.0";
        let mut bytes = disk.durable(path);
        let place = at % bytes.len();
        bytes[place] ^= 1 << bit;
        disk.put(path, &bytes);
        let (_, mark) = MarkFiles::open(&disk, Path::new("data"), SHARDS).expect("one copy is good");
        prop_assert_eq!(mark.sequence, 3);
        disk.put("data/egress.mark.1", &bytes);
        let error = MarkFiles::open(&disk, Path::new("data"), SHARDS).err();
        let is_refused = matches!(error, Some(EgressError::MarkDamaged { .. }));
        prop_assert!(is_refused, "{error:?}");
    }
}

/// The data directory of version 1 and its files, the newest line of which no mark knows.
fn fixture() -> FaultyDisk {
    let disk = FaultyDisk::default();
    disk.put("data/egress.mark.0", include_bytes!("../../tests/fixtures/egress-v1/egress.mark.0"));
    disk.put("data/egress.mark.1", include_bytes!("../../tests/fixtures/egress-v1/egress.mark.1"));
    disk.put(FILES[0], include_bytes!("../../tests/fixtures/egress-v1/sales.jsonl"));
    disk.put(FILES[1], b"");
    disk
}

#[test]
fn version_1_of_the_mark_is_read() {
    let disk = fixture();
    let (_, mark) = MarkFiles::open(&disk, Path::new("data"), SHARDS).expect("is read");
    let file = |egress: &str, path: &str, length, taken: [u64; 3]| {
        let (egress, path, taken) = (egress.into(), path.into(), taken.to_vec());
        MarkedFile { egress, path, length, taken }
    };
    let files = vec![file("sales", FILES[0], 28, [2, 0, 700]), file("refunds", FILES[1], 0, [1, 0, 700])];
    let home = mark.home.clone();
    assert_eq!(mark, Mark { sequence: 4, taken: vec![1, 0, 700], files, home });
    let mut egress = FileEgress::open_on(&disk, Path::new("data"), sinks(), SHARDS).expect("opens");
    feed(&mut egress, 0, 2, &[(0, "{\"cents\":20000}"), (1, "{}")]);
    feed(&mut egress, 0, 3, &[(0, "{\"cents\":3}")]);
    egress.sync().expect("syncs");
    assert_eq!(disk.durable(FILES[0]), b"{\"cents\":1}\n{\"cents\":20000}\n{\"cents\":3}\n");
    assert_eq!(disk.durable(FILES[1]), b"{}\n");
}

#[test]
fn version_1_of_the_mark_is_written() {
    let disk = FaultyDisk::default();
    let mut egress = FileEgress::open_on(&disk, Path::new("data"), sinks(), SHARDS).expect("opens");
    feed(&mut egress, 0, 1, &[(0, "{\"cents\":1}")]);
    egress.sync().expect("syncs");
    feed(&mut egress, 2, 700, &[]);
    egress.sync().expect("syncs");
    feed(&mut egress, 0, 2, &[(0, "{\"cents\":20000}"), (1, "{}")]);
    disk.0.lock().expect("alone").faults = [u8::MAX, 0].into();
    egress.sync().expect_err("the second file cannot be written");
    for name in ["data/egress.mark.0", "data/egress.mark.1"] {
        assert_eq!(disk.durable(name), fixture().durable(name), "{name}");
    }
}

#[test]
fn an_egress_that_cannot_be_written_does_not_stop_another() {
    let disk = FaultyDisk::default();
    let open = || FileEgress::open_on(&disk, Path::new("data"), sinks(), SHARDS).expect("opens");
    let mut egress = open();
    for epoch in 1..3 {
        feed(&mut egress, 0, epoch, &[(0, "sale"), (1, "refund")]);
        disk.0.lock().expect("alone").faults = [0].into();
        egress.sync().expect_err("the first file cannot be written");
    }
    assert_eq!((disk.durable(FILES[0]), disk.durable(FILES[1])), (b"".to_vec(), b"refund\nrefund\n".to_vec()));
    assert_eq!((egress.taken(0), egress.is_behind()), (0, true));
    disk.crash();
    let mut egress = open();
    for epoch in 1..4 {
        feed(&mut egress, 0, epoch, &[(0, "sale"), (1, "refund")]);
        egress.sync().expect("goes on");
    }
    assert_eq!(egress.taken(0), 3);
    assert_eq!(disk.durable(FILES[0]), b"sale\n".repeat(3));
    assert_eq!(disk.durable(FILES[1]), b"refund\n".repeat(3));
}

fn feed(egress: &mut FileEgress, shard: u32, epoch: u64, records: &[(usize, &str)]) {
    let records = records.iter().map(|(place, record)| (*place, record.as_bytes()));
    egress.write_epoch(shard, epoch, records);
}

#[test]
fn a_failed_sync_takes_nothing_and_goes_on_later() {
    let disk = FaultyDisk::default();
    let mut egress = FileEgress::open_on(&disk, Path::new("data"), sinks(), SHARDS).expect("opens");
    feed(&mut egress, 0, 1, &[(0, "1")]);
    disk.0.lock().expect("alone").faults = [0].into();
    let error = egress.sync().expect_err("the disk is full");
    assert_eq!(
        error.to_string(),
        "cannot write `out/sales.jsonl`: No space left on device (os error 28); nothing is lost: free the disk or correct the permissions, the egress goes on then"
    );
    assert_eq!((egress.taken(0), egress.buffered_bytes(), egress.written(0)), (0, 2, Written::default()));
    egress.sync().expect("goes on");
    assert_eq!((egress.taken(0), egress.buffered_bytes(), egress.written(0)), (1, 0, Written { records: 1, bytes: 2 }));
}

#[test]
fn a_newer_mark_is_refused() {
    let disk = FaultyDisk::default();
    let checked = [2, 0, 0, 0, 0];
    let mut bytes = b"sfegress".to_vec();
    bytes.extend_from_slice(&crc32c::crc32c(&checked).to_le_bytes());
    bytes.extend_from_slice(&checked);
    disk.put("data/egress.mark.1", &bytes);
    let error = MarkFiles::open(&disk, Path::new("data"), SHARDS).err().expect("refused");
    assert_eq!(
        error.to_string(),
        "`data/egress.mark.1` has the format version 2, this program reads up to 1: run the newer program"
    );
}
