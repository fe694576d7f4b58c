//! The start of a process behind one that was killed: until its first event, and until it has
//! caught up with what came meanwhile.
//!
//! One process fills the state and is killed; what it leaves (snapshots, and the journal behind
//! them) is copied for each run. The run reads on where the killed one was, and ends behind a
//! second's worth of further records. The audit: each of these finds the version of its key that
//! all records before have made.
//!
//! The limit is a loop that reads the same files and decodes as many states into a map, and then
//! applies the records that came meanwhile.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant, UNIX_EPOCH},
};

use clap::Args;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use statefn::prelude::*;

use super::{
    Failure,
    audit::{self, Audit},
    figures::Figures,
    files,
    gate::until_quiet,
    meter::{mebibytes, memory},
    numbers::mixed,
    pin,
    row::{self, Measuring, Row, Side},
    run_of_app,
};

/// How large the text of a state is.
const TEXT_BYTES: usize = 200;
/// How many records an ingress may have read that no shard has got yet.
const STRETCH_RECORDS: u64 = 16_384;
/// For how long nothing must be sealed before all counts as committed; an append of a hundred
/// megabytes takes a while.
const QUIET: Duration = Duration::from_secs(3);
/// How long a process waits to be killed.
const PATIENCE: Duration = Duration::from_secs(600);
/// How the directories are called that killed processes have left.
const LEFT: &str = "recovery-";

/// What to run.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub(crate) struct Options {
    /// How large the state is, without keys.
    #[arg(long, default_value_t = 1 << 30)]
    bytes: u64,
    /// How many records have come meanwhile.
    #[arg(long, default_value_t = 200_000)]
    backlog: u64,
    /// How many threads run shards.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// How many shards there are.
    #[arg(long, default_value_t = 64)]
    shards: u32,
    /// The shortest time between two commits.
    #[arg(long, default_value = "100ms", value_parser = humantime::parse_duration)]
    commit_interval: Duration,
    #[command(flatten)]
    #[serde(skip)]
    measuring: Measuring,
    /// The directory in which this process fills the state until it is killed.
    #[arg(skip)]
    fills: Option<PathBuf>,
}

#[derive(Clone, PartialEq, prost::Message, Message)]
#[message(name = "put", prost)]
struct Put {
    #[prost(fixed64, tag = "1")]
    key: u64,
    /// Whether it is one of those that come after the kill.
    #[prost(bool, tag = "2")]
    is_late: bool,
}

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Note {
    version: u64,
    text: String,
}

impl Note {
    fn next(&mut self) {
        self.version += 1;
        let letter = char::from(b'a' + (self.version % 26) as u8);
        self.text.clear();
        self.text.extend(std::iter::repeat_n(letter, TEXT_BYTES));
    }
}

/// When it came, and the most memory that the process had until then.
static FIRST_EVENT: OnceLock<(Instant, u64)> = OnceLock::new();

#[function(name = "bench/note", key = u64)]
impl Note {
    #[on]
    fn put(&mut self, msg: &Put, ctx: &mut Context<Self>) {
        FIRST_EVENT.get_or_init(|| (Instant::now(), memory("VmHWM").unwrap_or_default()));
        self.next();
        if msg.is_late {
            audit::note(*ctx.key(), self.version);
        }
    }
}

impl Row for Options {
    const NAME: &'static str = "recovery";
    const MERIT: &'static str = "first event s";

    fn measuring(&self) -> &Measuring {
        &self.measuring
    }

    fn points(&self) -> Vec<(String, Self)> {
        vec![(format!("{} MiB", self.bytes >> 20), self.clone())]
    }

    fn times(&self, factor: u64) -> Self {
        Self { backlog: self.backlog * factor, ..self.clone() }
    }

    fn events(&self) -> u64 {
        self.backlog
    }

    fn prepare(&self) -> Result<(), Failure> {
        let left = self.left()?;
        if self.fills.is_some() || left.exists() {
            return Ok(());
        }
        for old in fs::read_dir(files::directory()?)?.flatten() {
            if old.file_name().to_string_lossy().starts_with(LEFT) {
                fs::remove_dir_all(old.path())?;
            }
        }
        let data = tempfile::tempdir_in(files::directory()?)?;
        self.fill_and_kill(data.path())?;
        Ok(fs::rename(data.keep(), left)?)
    }

    fn run(&self, side: Side, data: &Path) -> Result<Figures, Failure> {
        match (side, &self.fills) {
            (Side::App, Some(directory)) => self.fill(directory),
            (Side::App, None) => self.run_app(data),
            (Side::ByHand, _) => self.run_by_hand(),
        }
    }
}

impl Options {
    fn keys(&self) -> u64 {
        self.bytes / TEXT_BYTES as u64
    }

    /// The records before the kill: one for each key, and some more.
    fn early(&self) -> u64 {
        self.keys() + self.keys() / 10 + STRETCH_RECORDS
    }

    fn put(&self, number: u64) -> Put {
        let key = if number < self.keys() { number } else { mixed(number) % self.keys() };
        Put { key, is_late: number >= self.early() }
    }

    /// What a killed process of this very program has left.
    fn left(&self) -> Result<PathBuf, Failure> {
        let built_at = fs::metadata(std::env::current_exe()?)?.modified()?.duration_since(UNIX_EPOCH)?.as_millis();
        let Self { bytes, shards, .. } = self;
        Ok(files::directory()?.join(format!("{LEFT}{bytes}-{shards}-{built_at}")))
    }

    fn app(&self, data: &Path, put: impl Fn(u64) -> Option<Put> + Send + Sync + 'static) -> App {
        let settings = Settings {
            shards: Some(self.shards),
            threads: Some(self.threads),
            commit_interval: Some(self.commit_interval),
            ..Settings::new().data(data)
        };
        let puts = Ingress::<Put>::new("puts").generate(put).to::<Note>();
        let app = App::new("bench-recovery").function::<Note>().settings(settings);
        app.ingress(puts, |put, out| out.send(Note::at(put.key), put))
    }

    /// Has a process fill the state, and kills it.
    fn fill_and_kill(&self, data: &Path) -> Result<(), Failure> {
        let point = Self { fills: Some(data.to_owned()), ..self.clone() };
        let mut process = Command::new(std::env::current_exe()?)
            .args(row::arguments(&point, Side::App, &self.measuring)?)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let told = process.stdout.take().map(|stdout| BufReader::new(stdout).read_line(&mut line));
        process.kill()?;
        process.wait()?;
        match told {
            Some(Ok(_)) if line == "full\n" => Ok(()),
            _ => Err("the process that fills the state has failed".into()),
        }
    }

    /// Fills the state, says so, and waits to be killed.
    fn fill(&self, data: &Path) -> Result<Figures, Failure> {
        let (options, early) = (self.clone(), self.early());
        let running = self.app(data, move |number| {
            if number >= early {
                thread::sleep(PATIENCE);
                return None;
            }
            Some(options.put(number))
        });
        let running = running.start()?;
        until_quiet(&running, early - STRETCH_RECORDS, QUIET)?;
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "full")?;
        stdout.flush()?;
        thread::sleep(PATIENCE);
        Err("nobody has killed the process that fills the state".into())
    }

    fn run_app(&self, data: &Path) -> Result<Figures, Failure> {
        copy(&self.left()?, data)?;
        let (options, all) = (self.clone(), self.early() + self.backlog);
        let app = self.app(data, move |number| (number < all).then(|| options.put(number)));
        let started_at = Instant::now();
        let running = app.start()?;
        pin::threads_of_app(self.threads);
        let totals = run_of_app::ended(running)?.totals;
        let caught_up_s = started_at.elapsed().as_secs_f64();
        let (first_event_at, first_event_rss) = FIRST_EVENT.get().ok_or("nothing was called")?;
        Ok(Figures::new(Audit::taken())
            .with(Self::MERIT, first_event_at.saturating_duration_since(started_at).as_secs_f64())
            .with("caught up s", caught_up_s)
            .with("events since the kill", totals.shards.calls as f64)
            .with("RSS MiB, first event", mebibytes(*first_event_rss))
            .with("RSS MiB", mebibytes(memory("VmHWM")?)))
    }

    fn run_by_hand(&self) -> Result<Figures, Failure> {
        pin::this_thread();
        let mut encoded = Vec::new();
        let mut note = Note::default();
        note.next();
        note.encode_state(&mut encoded);
        let started_at = Instant::now();
        let bytes = read_all(&self.left()?)?;
        let mut notes: HashMap<u64, Note> = HashMap::new();
        for key in 0..self.keys() {
            notes.insert(key, Note::decode_state(&encoded)?);
        }
        assert_eq!(notes.len() as u64, self.keys(), "every key has a state");
        let first_event_s = started_at.elapsed().as_secs_f64();
        let rss = mebibytes(memory("VmHWM")?);
        for number in self.early()..self.early() + self.backlog {
            notes.entry(self.put(number).key).or_default().next();
        }
        let caught_up_s = started_at.elapsed().as_secs_f64();
        drop(notes);
        self.expect_versions();
        Ok(Figures::new(Audit::taken())
            .with(Self::MERIT, first_event_s)
            .with("caught up s", caught_up_s)
            .with("RSS MiB, first event", rss)
            .with("files MiB", mebibytes(bytes)))
    }

    /// Notes what the late records must find.
    fn expect_versions(&self) {
        let mut versions = vec![0_u64; self.keys() as usize];
        for number in 0..self.early() + self.backlog {
            let Put { key, is_late } = self.put(number);
            versions[key as usize] += 1;
            if is_late {
                audit::note(key, versions[key as usize]);
            }
        }
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() { copy(&entry.path(), &to)? } else { _ = fs::copy(entry.path(), to)? }
    }
    Ok(())
}

/// Reads every file below a directory; returns how many bytes they have.
fn read_all(directory: &Path) -> Result<u64, Failure> {
    let (mut bytes, mut block) = (0, vec![0; 1 << 20]);
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            bytes += read_all(&entry.path())?;
            continue;
        }
        let mut file = File::open(entry.path())?;
        loop {
            match file.read(&mut block)? {
                0 => break,
                length => bytes += length as u64,
            }
        }
    }
    Ok(bytes)
}
