//! The part of a file that is in memory: bytes in, records out, without a copy.
//!
//! Invariant: `bytes()` begins at `offset()` of the (uncompressed) file. What `take` returned stays
//! valid until the next `fill`, which the borrow checker enforces.

use std::{
    fs::File,
    io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use flate2::bufread::MultiGzDecoder;

use super::SourceError;

const BYTES_AT_FIRST: usize = 256 * 1024;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

enum Input {
    Plain(File),
    Gzip(Box<MultiGzDecoder<BufReader<File>>>),
}

pub(super) struct Window {
    path: PathBuf,
    input: Input,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    offset: u64,
}

impl Window {
    /// Opens a file at its beginning; `check_magic` is whether bytes that look like gzip must be it.
    pub(super) fn open(path: &Path, check_magic: bool) -> Result<Self, SourceError> {
        let unreadable = |action| move |error| unreadable(path, action, error);
        let mut file = File::open(path).map_err(unreadable("open"))?;
        if !file.metadata().map_err(unreadable("look at"))?.is_file() {
            return Err(SourceError::NoFile { path: path.to_owned() });
        }
        let magic = read_magic(&mut file).map_err(unreadable("read"))?;
        let named = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"));
        // A file without a byte is a truncated archive, which decompressing it says.
        if (named && !magic.is_empty() && magic != GZIP_MAGIC) || (!named && check_magic && magic == GZIP_MAGIC) {
            return Err(SourceError::Compression { path: path.to_owned(), named });
        }
        let input = match named {
            true => Input::Gzip(Box::new(MultiGzDecoder::new(BufReader::with_capacity(BYTES_AT_FIRST, file)))),
            false => Input::Plain(file),
        };
        Ok(Self { path: path.to_owned(), input, buffer: vec![0; BYTES_AT_FIRST], start: 0, end: 0, offset: 0 })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_compressed(&self) -> bool {
        matches!(self.input, Input::Gzip(_))
    }

    /// How much of the file as it lies on disk was read, in thousandths.
    pub(super) fn read_permille(&self) -> u64 {
        let mut file = match &self.input {
            Input::Plain(file) => file,
            Input::Gzip(decoder) => decoder.get_ref().get_ref(),
        };
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        let read = file.stream_position().unwrap_or_default();
        (read * 1000).checked_div(length).unwrap_or_default().min(999)
    }

    /// Where `bytes()` begins in the file.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Takes the first `length` bytes out.
    pub(super) fn take(&mut self, length: usize) -> &[u8] {
        assert!(length <= self.end - self.start, "no more is taken than the window holds");
        let start = self.start;
        self.start += length;
        self.offset += length as u64;
        &self.buffer[start..self.start]
    }

    /// Takes all bytes out.
    pub(super) fn take_all(&mut self) -> &[u8] {
        self.take(self.end - self.start)
    }

    /// Reads more behind `bytes()`; false at the end of the file.
    pub(super) fn fill(&mut self) -> Result<bool, SourceError> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.end == self.buffer.len() {
            self.buffer.resize(self.end * 2, 0);
        }
        let length = self.read().map_err(|error| self.explain(error))?;
        self.end += length;
        if length == 0 {
            self.check_length()?;
        }
        Ok(length > 0)
    }

    /// Whether nothing is left.
    pub(super) fn is_at_end(&mut self) -> Result<bool, SourceError> {
        Ok(self.start == self.end && !self.fill()?)
    }

    /// Goes forward to `offset`; returns how many line ends it passed, or `None` if it did not look.
    pub(super) fn go_to(&mut self, offset: u64) -> Result<Option<u64>, SourceError> {
        if self.is_compressed() {
            return self.skip_to(offset).map(Some);
        }
        self.start = self.end;
        self.offset = offset;
        let (path, Input::Plain(file)) = (&self.path, &mut self.input) else { return Ok(None) };
        file.seek(SeekFrom::Start(offset)).map_err(|error| unreadable(path, "read", error))?;
        self.check_length()?;
        Ok(None)
    }

    fn skip_to(&mut self, offset: u64) -> Result<u64, SourceError> {
        let mut line_ends = 0;
        while self.offset < offset {
            if self.is_at_end()? {
                return Err(self.shrunk(self.offset, offset));
            }
            let left = usize::try_from(offset - self.offset).unwrap_or(usize::MAX);
            line_ends += line_ends_in(self.take(left.min(self.bytes().len())));
        }
        Ok(line_ends)
    }

    fn read(&mut self) -> io::Result<usize> {
        loop {
            let room = &mut self.buffer[self.end..];
            let read = match &mut self.input {
                Input::Plain(file) => file.read(room),
                Input::Gzip(decoder) => decoder.read(room),
            };
            match read {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }

    /// At the end: the file must not be shorter than what was read of it.
    fn check_length(&self) -> Result<(), SourceError> {
        let Input::Plain(file) = &self.input else { return Ok(()) };
        let length = file.metadata().map_err(|error| unreadable(&self.path, "look at", error))?.len();
        let offset = self.offset + self.bytes().len() as u64;
        if length < offset { Err(self.shrunk(length, offset)) } else { Ok(()) }
    }

    fn shrunk(&self, length: u64, offset: u64) -> SourceError {
        SourceError::Shrunk { path: self.path.clone(), length, offset, compressed: self.is_compressed() }
    }

    pub(super) fn truncated(&self, what: &'static str) -> SourceError {
        let (path, compressed) = (self.path.clone(), self.is_compressed());
        SourceError::Truncated { path, what, offset: self.offset, compressed }
    }

    pub(super) fn damaged(&self, reason: String) -> SourceError {
        let (path, compressed) = (self.path.clone(), self.is_compressed());
        SourceError::Damaged { path, offset: self.offset, compressed, reason }
    }

    fn explain(&self, error: io::Error) -> SourceError {
        match error.kind() {
            ErrorKind::UnexpectedEof if self.is_compressed() => self.truncated("its compressed data"),
            // Errors of the operating system have a number, those of the decoder have none.
            _ if self.is_compressed() && error.raw_os_error().is_none() => {
                self.damaged(format!("the compressed data cannot be unpacked ({error})"))
            }
            _ => unreadable(&self.path, "read", error),
        }
    }
}

/// How many line ends a plain file has before `offset`.
pub(super) fn count_line_ends(path: &Path, offset: u64) -> io::Result<u64> {
    let mut start = File::open(path)?.take(offset);
    let mut buffer = vec![0; BYTES_AT_FIRST];
    let mut line_ends = 0;
    loop {
        match start.read(&mut buffer) {
            Ok(0) => return Ok(line_ends),
            Ok(length) => line_ends += line_ends_in(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn line_ends_in(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

fn read_magic(file: &mut File) -> io::Result<Vec<u8>> {
    let mut magic = Vec::new();
    Read::by_ref(file).take(GZIP_MAGIC.len() as u64).read_to_end(&mut magic)?;
    file.rewind()?;
    Ok(magic)
}

fn unreadable(path: &Path, action: &'static str, error: io::Error) -> SourceError {
    SourceError::Unreadable { path: path.to_owned(), action, reason: error.to_string() }
}
