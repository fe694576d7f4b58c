//! The same work as a loop that is written by hand: what a single thread could do at best.
//!
//! It reads the same file, decodes into one message that it reuses, finds the key in one map, and
//! encodes the same output into one buffer, which at each commit gets the changed states behind it:
//! the journal. With a log on disk a commit makes the journal durable, then the output, then a
//! mark, as the app does; with one in memory it forgets them.
//!
//! Deliberately absent: whatever makes the app more than this: atomic calls, shards, frames that
//! name their parts, recovery.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::Path,
    time::{Duration, Instant},
};

use hashbrown::HashMap;
use statefn::__private::Wire;

use super::{Case, Log, Messages, Options, Output, app::records, case::AsBytes};
use crate::bench::{
    Failure,
    audit::{self, Audit},
    disk::{Disk, quantile_ms},
    figures::Figures,
    files,
    meter::Meter,
    pin,
};

/// How many records are taken between two looks at the clock.
const RECORDS_PER_LOOK: u64 = 16_384;

/// Runs the loop over the input.
pub(crate) fn run<C: Case>(options: &Options, input: &Path, data: &Path) -> Result<Figures, Failure> {
    pin::this_thread();
    let commit_interval = options.commit_interval()?;
    let meter = Meter::start()?;
    let mut work = Work::<C>::new(options, data)?;
    let mut reader = BufReader::with_capacity(256 << 10, File::open(input)?);
    let mut record = Vec::new();
    while read(options.messages, &mut reader, &mut record)? {
        work.take(&record)?;
        if work.events.is_multiple_of(RECORDS_PER_LOOK) && work.committed_at.elapsed() >= commit_interval {
            work.commit()?;
        }
    }
    work.commit()?;
    let audit = Audit { emitted: work.emitted, ..Audit::taken() };
    let events = work.events as f64;
    let figures = meter
        .stop(audit, work.events, "event")?
        .with("log bytes/event", work.journal_bytes as f64 / events)
        .with("output bytes/event", work.disk.as_ref().map_or(0, |disk| disk.bytes.1) as f64 / events)
        .with("commit p50 ms", quantile_ms(&work.latencies, 50))
        .with("commit p99 ms", quantile_ms(&work.latencies, 99));
    let is_kept = options.output == Output::File;
    let output = if is_kept { fs::read(data.join("sums"))? } else { Vec::new() };
    figures.with_output(is_kept, records(options, &output))
}

/// Reads the next record; false at the end.
fn read(messages: Messages, reader: &mut BufReader<File>, record: &mut Vec<u8>) -> Result<bool, Failure> {
    match messages {
        Messages::Json => {
            record.clear();
            let length = reader.read_until(b'\n', record)?;
            record.pop();
            Ok(length > 0)
        }
        Messages::Protobuf => files::read_record(reader, record),
    }
}

struct Work<C: Case> {
    messages: Messages,
    states: HashMap<C::Key, State>,
    changed: Vec<C::Key>,
    add: Option<C::Add>,
    sum: C::Sum,
    emits: bool,
    output: Vec<u8>,
    disk: Option<Disk>,
    events: u64,
    emitted: u64,
    journal_bytes: u64,
    committed_at: Instant,
    latencies: Vec<Duration>,
}

#[derive(Default)]
struct State {
    count: u64,
    sum: u64,
    is_changed: bool,
}

impl<C: Case> Work<C> {
    fn new(options: &Options, data: &Path) -> Result<Self, Failure> {
        let output = (options.output == Output::File).then_some("sums");
        Ok(Self {
            messages: options.messages,
            states: HashMap::new(),
            changed: Vec::new(),
            add: None,
            sum: C::empty(),
            emits: options.output != Output::None,
            output: Vec::new(),
            disk: (options.log == Log::Disk).then(|| Disk::create(data, output)).transpose()?,
            events: 0,
            emitted: 0,
            journal_bytes: 0,
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
        audit::note(state.count, state.sum);
        if !state.is_changed {
            state.is_changed = true;
            self.changed.push(key.clone());
        }
        if self.emits {
            C::fill(&mut self.sum, key, (state.count, state.sum));
            self.emit();
        }
        self.events += 1;
        Ok(())
    }

    fn emit(&mut self) {
        let start = self.output.len();
        match self.messages {
            Messages::Json => {
                self.sum.encode(&mut self.output);
                self.output.push(b'\n');
            }
            Messages::Protobuf => {
                self.output.push(0);
                self.sum.encode(&mut self.output);
                self.output[start] = (self.output.len() - start - 1) as u8;
            }
        }
        self.emitted += 1;
    }

    /// Makes everything durable, in the order of the app.
    fn commit(&mut self) -> Result<(), Failure> {
        let output_bytes = self.output.len();
        for key in self.changed.drain(..) {
            let Some(state) = self.states.get_mut(&key) else { continue };
            state.is_changed = false;
            key.put(&mut self.output);
            self.output.extend_from_slice(&state.count.to_le_bytes());
            self.output.extend_from_slice(&state.sum.to_le_bytes());
        }
        self.journal_bytes += self.output.len() as u64;
        if let Some(disk) = &mut self.disk {
            disk.commit(&self.output, &self.output[..output_bytes], self.events)?;
        }
        self.output.clear();
        self.latencies.push(self.committed_at.elapsed());
        self.committed_at = Instant::now();
        Ok(())
    }
}
