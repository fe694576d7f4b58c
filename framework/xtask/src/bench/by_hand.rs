//! The same work as a loop that is written by hand: what a single thread could do at best.
//!
//! It reads the same file, decodes into one message that it reuses, finds the key in one map, and
//! encodes the same output into one buffer. With a log on disk it writes the same as the app: at
//! each commit the output and the changed states into a journal, then the output into its file, and
//! three syncs (journal, output, mark).
//!
//! Deliberately absent: whatever makes the app more than this: atomic calls, shards, frames that
//! name their parts, recovery.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    time::{Duration, Instant},
};

use hashbrown::HashMap;
use statefn::__private::Wire;

use super::{
    Case, Failure, Options, Output,
    case::AsBytes,
    figures::{Figures, Meter},
    options::{Log, Messages},
};

/// How many records are taken between two looks at the clock.
const RECORDS_PER_LOOK: u64 = 16_384;

/// Runs the loop over the input.
pub(crate) fn run<C: Case>(options: &Options, input: &Path, data: &Path) -> Result<Figures, Failure> {
    let meter = Meter::start()?;
    let mut work = Work::<C>::new(options, data)?;
    let mut reader = BufReader::with_capacity(256 << 10, File::open(input)?);
    let mut record = Vec::new();
    while read(options.messages, &mut reader, &mut record)? {
        work.take(&record)?;
        if work.events.is_multiple_of(RECORDS_PER_LOOK) && work.committed_at.elapsed() >= options.commit_interval {
            work.commit()?;
        }
    }
    work.commit()?;
    let mut figures = meter.stop()?;
    let latencies = work.latencies;
    figures.events = work.events;
    figures.emitted = work.emitted;
    figures.bytes = work.bytes;
    figures.commit_p50_us = quantile(&latencies, 50);
    figures.commit_p99_us = quantile(&latencies, 99);
    Ok(figures)
}

/// Reads the next record; false at the end.
fn read(messages: Messages, reader: &mut BufReader<File>, record: &mut Vec<u8>) -> Result<bool, Failure> {
    record.clear();
    match messages {
        Messages::Json => {
            let length = reader.read_until(b'\n', record)?;
            record.pop();
            Ok(length > 0)
        }
        Messages::Protobuf => {
            let mut first = [0];
            if reader.read(&mut first)? == 0 {
                return Ok(false);
            }
            assert!(first[0] < 0x80, "a record of the benchmark is shorter than 128 bytes");
            record.resize(usize::from(first[0]), 0);
            reader.read_exact(record)?;
            Ok(true)
        }
    }
}

struct Work<C: Case> {
    states: HashMap<C::Key, State>,
    changed: Vec<C::Key>,
    add: Option<C::Add>,
    sum: C::Sum,
    emits: bool,
    output: Vec<u8>,
    disk: Option<Disk>,
    events: u64,
    emitted: u64,
    bytes: u64,
    committed_at: Instant,
    latencies: Vec<Duration>,
}

#[derive(Default)]
struct State {
    count: u64,
    sum: u64,
    is_changed: bool,
}

struct Disk {
    journal: File,
    output: Option<File>,
    mark: File,
}

impl<C: Case> Work<C> {
    fn new(options: &Options, data: &Path) -> Result<Self, Failure> {
        let disk = match options.log {
            Log::Memory => None,
            Log::Disk => Some(Disk {
                journal: File::create(data.join("journal"))?,
                output: (options.output == Output::File).then(|| File::create(data.join("sums"))).transpose()?,
                mark: File::create(data.join("mark"))?,
            }),
        };
        Ok(Self {
            states: HashMap::new(),
            changed: Vec::new(),
            add: None,
            sum: C::empty(),
            emits: options.output != Output::None,
            output: Vec::new(),
            disk,
            events: 0,
            emitted: 0,
            bytes: 0,
            committed_at: Instant::now(),
            latencies: Vec::new(),
        })
    }

    fn take(&mut self, record: &[u8]) -> Result<(), Failure> {
        match &mut self.add {
            Some(add) => add.decode_into(record)?,
            None => self.add = Some(C::Add::decode(record)?),
        }
        let Some(add) = &self.add else { return Ok(()) };
        let (key, amount) = C::parts(add);
        let state = self.states.entry_ref(key).or_default();
        state.count += 1;
        state.sum += amount;
        if self.disk.is_some() && !state.is_changed {
            state.is_changed = true;
            self.changed.push(key.clone());
        }
        if self.emits {
            C::fill(&mut self.sum, key, (state.count, state.sum));
            let start = self.output.len();
            self.output.push(0);
            self.sum.encode(&mut self.output);
            self.output[start] = (self.output.len() - start - 1) as u8;
            self.emitted += 1;
            if self.disk.is_none() {
                self.bytes += self.output.len() as u64;
                self.output.clear();
            }
        }
        self.events += 1;
        Ok(())
    }

    /// Makes everything durable, in the order of the app.
    fn commit(&mut self) -> Result<(), Failure> {
        if let Some(disk) = &mut self.disk {
            let output_bytes = self.output.len();
            for key in self.changed.drain(..) {
                let Some(state) = self.states.get_mut(&key) else { continue };
                state.is_changed = false;
                key.put(&mut self.output);
                self.output.extend_from_slice(&state.count.to_le_bytes());
                self.output.extend_from_slice(&state.sum.to_le_bytes());
            }
            self.bytes += self.output.len() as u64;
            disk.journal.write_all(&self.output)?;
            disk.journal.sync_data()?;
            if let Some(output) = &mut disk.output {
                output.write_all(&self.output[..output_bytes])?;
                output.sync_data()?;
                self.bytes += output_bytes as u64;
            }
            disk.mark.write_all(&self.events.to_le_bytes())?;
            disk.mark.sync_data()?;
            self.output.clear();
        }
        self.latencies.push(self.committed_at.elapsed());
        self.committed_at = Instant::now();
        Ok(())
    }
}

fn quantile(latencies: &[Duration], percent: usize) -> u64 {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    let place = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(place).map_or(0, |latency| latency.as_micros() as u64)
}
