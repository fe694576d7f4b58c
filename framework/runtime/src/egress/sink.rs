//! One egress: the lines that wait, and where they go.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use statefn_core::{Encoding, address::ShardId, codec::put_bytes};

use super::{
    Place, SinkSpec, Written,
    disk::{Disk, DiskFile, write_all_at},
    error::{EgressError, io},
    mark::Mark,
};
use super::{
    mark::WEBHOOK,
    webhook::{Webhook, WebhookSpec},
};
use crate::failpoint::failpoint;

/// A buffer that a burst has made larger than this is given back.
const BUFFER_BYTES_KEPT: usize = 4 * 1024 * 1024;

pub(super) struct Sink {
    name: String,
    framing: Framing,
    output: Output,
    /// Everything behind the mark, as it is to stand in the file.
    buffer: Vec<u8>,
    buffered: Written,
    written: Written,
    /// By shard: what the mark says that it has.
    taken: Vec<u64>,
}

#[derive(Clone, Copy)]
enum Framing {
    Line,
    Delimited,
    Base64Line,
}

enum Output {
    File {
        path: PathBuf,
        file: Box<dyn DiskFile>,
        marked: u64,
    },
    /// How much of the buffer is on the console already.
    Console {
        printed: usize,
    },
    Counter,
    Webhook {
        webhook: Webhook,
        /// By shard: what it was done with when it was asked last.
        done: Vec<u64>,
        delivered: Written,
        is_marked: bool,
    },
}

impl Sink {
    /// Opens a sink and cuts its file at the mark.
    pub(super) fn open(disk: &dyn Disk, spec: SinkSpec, mark: &Mark) -> Result<Self, EgressError> {
        let framing = match (spec.encoding, &spec.place) {
            (Encoding::Json, _) => Framing::Line,
            (Encoding::Protobuf, Place::Console) => Framing::Base64Line,
            (Encoding::Protobuf, _) => Framing::Delimited,
        };
        // An egress that is new, or comes back, has no records in what all others have taken.
        let taken = match &spec.place {
            Place::File(path) => mark.file(&spec.name, path).map(|file| larger(&file.taken, &mark.taken)),
            Place::Console | Place::Counter => None,
            Place::Webhook(_) => mark.webhook(&spec.name).map(|(_, entry)| larger(&entry.taken, &mark.taken)),
        };
        let taken = taken.unwrap_or_else(|| mark.taken.clone());
        let output = match spec.place {
            Place::File(path) => open_file(disk, &spec.name, path, mark)?,
            Place::Console => Output::Console { printed: 0 },
            Place::Counter => Output::Counter,
            Place::Webhook(webhook) => open_webhook(&spec.name, &webhook, spec.encoding, mark, &taken)?,
        };
        let (buffered, written) = (Written::default(), Written::default());
        Ok(Self { name: spec.name, framing, output, buffer: Vec::new(), buffered, written, taken })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn path(&self) -> Option<&Path> {
        match &self.output {
            Output::File { path, .. } => Some(path),
            _ => None,
        }
    }

    /// What tells its file from others; `None` if it has no file.
    pub(super) fn identity(&self) -> Result<Option<(u64, u64)>, EgressError> {
        let Output::File { path, file, .. } = &self.output else { return Ok(None) };
        file.identity().map(Some).map_err(io(path, "look at"))
    }

    /// Buffers a record, but for one that stands already.
    pub(super) fn push(&mut self, shard: ShardId, epoch: u64, record: &[u8]) {
        if epoch <= self.taken[shard as usize] {
            return;
        }
        if let Output::Webhook { webhook, .. } = &mut self.output {
            return webhook.push(shard, epoch, record);
        }
        self.put(record);
    }

    /// Buffers a record that is of no epoch, or of one that does not stand.
    pub(super) fn put(&mut self, record: &[u8]) {
        let before = self.buffer.len();
        match self.framing {
            Framing::Line => {
                self.buffer.extend_from_slice(record);
                self.buffer.push(b'\n');
            }
            Framing::Delimited => put_bytes(&mut self.buffer, record),
            Framing::Base64Line => {
                self.buffer.extend_from_slice(STANDARD.encode(record).as_bytes());
                self.buffer.push(b'\n');
            }
        }
        self.buffered.records += 1;
        self.buffered.bytes += (self.buffer.len() - before) as u64;
        if matches!(self.output, Output::Counter) {
            self.buffer.clear();
        }
    }

    pub(super) fn buffered_bytes(&self) -> usize {
        self.buffer.len()
    }

    pub(super) fn written(&self) -> Written {
        self.written
    }

    /// Asks a webhook what it is done with, and returns the dead letters of what was refused since.
    pub(super) fn collect(&mut self, ended: &[u64]) -> Vec<Vec<u8>> {
        let Output::Webhook { webhook, done, delivered, .. } = &mut self.output else { return Vec::new() };
        let letters;
        (*done, letters) = webhook.collect(ended);
        *delivered = webhook.written();
        letters
    }

    pub(super) fn webhook(&mut self) -> Option<&mut Webhook> {
        match &mut self.output {
            Output::Webhook { webhook, .. } => Some(webhook),
            _ => None,
        }
    }

    pub(super) fn is_known_to(&self, mark: &Mark) -> bool {
        if let Output::Webhook { is_marked, .. } = &self.output {
            return *is_marked;
        }
        self.path().is_none_or(|path| mark.file(&self.name, path).is_some())
    }

    /// Writes everything behind the mark: after a failed fsync nobody knows which of it is there.
    pub(super) fn write_out(&mut self) -> Result<(), EgressError> {
        match &mut self.output {
            Output::File { path, file, marked } => {
                write_all_at(file.as_ref(), &self.buffer, *marked).map_err(io(path, "write"))
            }
            Output::Console { printed } => print(&mut io::stdout().lock(), &self.buffer, printed)
                .map_err(io(Path::new("standard output"), "write")),
            _ => Ok(()),
        }
    }

    pub(super) fn make_durable(&self) -> Result<(), EgressError> {
        match &self.output {
            Output::File { path, file, .. } if !self.buffer.is_empty() => file.sync().map_err(io(path, "sync")),
            _ => Ok(()),
        }
    }

    /// What it has, once it has the buffer of all epochs that have ended.
    pub(super) fn taken_with_buffer(&self, ended: &[u64]) -> Vec<u64> {
        if let Output::Webhook { done, .. } = &self.output {
            return larger(&self.taken, done);
        }
        larger(&self.taken, ended)
    }

    /// What the mark says that it has.
    pub(super) fn taken(&self) -> &[u64] {
        &self.taken
    }

    /// Enters the length that the file has, with the buffer.
    pub(super) fn enter_into(&self, mark: &mut Mark, taken: Vec<u64>) {
        if let Output::File { path, marked, .. } = &self.output {
            mark.set_file(&self.name, path, marked + self.buffer.len() as u64, taken);
            return;
        }
        if let Output::Webhook { webhook, delivered, .. } = &self.output {
            let path = PathBuf::from(format!("{WEBHOOK}{}", webhook.incarnation()));
            let before = mark.webhook(&self.name).map_or(0, |(_, entry)| entry.length);
            mark.set_file(&self.name, &path, before + delivered.records - self.written.records, taken);
        }
    }

    /// The mark covers the buffer now.
    pub(super) fn forget_buffer(&mut self, taken: Vec<u64>) {
        self.taken = taken;
        match &mut self.output {
            Output::File { marked, .. } => *marked += self.buffer.len() as u64,
            Output::Console { printed } => *printed = 0,
            Output::Counter => {}
            Output::Webhook { is_marked, delivered, .. } => {
                *is_marked = true;
                self.written = *delivered;
            }
        }
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES_KEPT);
        self.written.records += self.buffered.records;
        self.written.bytes += self.buffered.bytes;
        self.buffered = Written::default();
    }
}

fn open_file(disk: &dyn Disk, egress: &str, path: PathBuf, mark: &Mark) -> Result<Output, EgressError> {
    let Some(file) = disk.open(&path).map_err(io(&path, "open"))? else {
        return Err(EgressError::NoFile { path, egress: egress.to_owned() });
    };
    let length = file.length().map_err(io(&path, "look at"))?;
    let egress = egress.to_owned();
    let marked = match mark.file(&egress, &path).map(|file| file.length) {
        Some(marked) if length < marked => return Err(EgressError::Shorter { path, egress, length, marked }),
        Some(marked) => marked,
        None if length > 0 => return Err(EgressError::Foreign { path, egress, length }),
        None => 0,
    };
    if length > marked {
        file.cut(marked).map_err(io(&path, "cut"))?;
        failpoint("start/egress-file-cut");
    }
    Ok(Output::File { path, file, marked })
}

/// Goes on where the mark says; what it does not know gets an incarnation of its own.
fn open_webhook(
    egress: &str,
    spec: &WebhookSpec,
    encoding: Encoding,
    mark: &Mark,
    taken: &[u64],
) -> Result<Output, EgressError> {
    let known = mark.webhook(egress).map(|(incarnation, _)| incarnation.to_owned());
    let is_marked = known.is_some();
    let incarnation = known.unwrap_or_else(|| format!("{:016x}", fastrand::u64(..)));
    let webhook = Webhook::open(egress, spec, encoding, &incarnation, taken.len())?;
    Ok(Output::Webhook { webhook, done: taken.to_vec(), delivered: Written::default(), is_marked })
}

/// The larger epoch of each shard.
fn larger(one: &[u64], other: &[u64]) -> Vec<u64> {
    one.iter().zip(other).map(|(one, other)| *one.max(other)).collect()
}

/// Prints what was not printed yet, and counts it even if it fails on the way.
fn print(console: &mut impl Write, buffer: &[u8], printed: &mut usize) -> io::Result<()> {
    while *printed < buffer.len() {
        match console.write(&buffer[*printed..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(length) => *printed += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    console.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes two bytes at a time, and fails at every third.
    struct Terminal(Vec<u8>, u32);

    impl Write for Terminal {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 += 1;
            if self.1.is_multiple_of(3) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let length = bytes.len().min(2);
            self.0.extend_from_slice(&bytes[..length]);
            Ok(length)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_the_console_has_is_not_printed_again() {
        let (mut terminal, mut printed, mut failures) = (Terminal(Vec::new(), 0), 0, 0);
        while print(&mut terminal, b"{\"cents\":1}\n", &mut printed).is_err() {
            failures += 1;
        }
        assert_eq!((terminal.0.as_slice(), failures), (&b"{\"cents\":1}\n"[..], 2));
    }

    #[test]
    fn protobuf_records_are_base64_on_the_console() {
        let spec = SinkSpec { name: "sales".into(), encoding: Encoding::Protobuf, place: Place::Console };
        let mut sink = Sink::open(&crate::egress::disk::RealDisk, spec, &Mark { taken: vec![0], ..Mark::default() })
            .expect("opens");
        sink.push(0, 1, &[0xff, 0]);
        assert_eq!(sink.buffer, b"/wA=\n");
    }
}
