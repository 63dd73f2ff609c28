//! Files of lines: as they are or compressed by gzip, several at once in the order of their times.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;

use super::entry::Entry;
use super::line::{Line, LineError, Lines};
use super::wanted::Wanted;

/// Bytes of a line; longer ones are not read.
pub(super) const MAX_LINE: usize = 1 << 20;
/// Lines that cannot be read and are named.
const NAMED: usize = 5;
const BUFFER: usize = 256 << 10;
/// Standard input.
const STDIN: &str = "-";

/// A log that cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("cannot open {}: {error}", path.display())]
    Open { path: PathBuf, error: io::Error },
    #[error("cannot read {} after line {line}: {error}", path.display())]
    Read {
        path: PathBuf,
        line: u64,
        error: io::Error,
    },
}

/// What a file is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Lines,
    Packets,
}

/// An open file, decompressed.
pub(super) struct Opened {
    pub(super) kind: Kind,
    pub(super) reader: Box<dyn BufRead + Send>,
}

/// Counts the bytes that are read, before they are decompressed.
struct Counted<R> {
    inner: R,
    bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// Opens a file; what is read of it is added to `bytes`.
pub(super) fn open(path: &Path, bytes: &Arc<AtomicU64>) -> Result<Opened, SourceError> {
    let cannot = |error| SourceError::Open {
        path: path.to_owned(),
        error,
    };
    let raw: Box<dyn Read + Send> = if path.as_os_str() == STDIN {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).map_err(cannot)?)
    };
    let counted = Counted {
        inner: raw,
        bytes: Arc::clone(bytes),
    };
    let (head, reader) = peek(counted).map_err(cannot)?;
    let reader: Box<dyn BufRead + Send> = if head.starts_with(&[0x1f, 0x8b]) {
        let inside = BufReader::with_capacity(BUFFER, MultiGzDecoder::new(reader));
        Box::new(inside)
    } else {
        Box::new(reader)
    };
    let (head, reader) = peek(reader).map_err(cannot)?;
    let kind = if is_capture(&head) {
        Kind::Packets
    } else {
        Kind::Lines
    };
    Ok(Opened {
        kind,
        reader: Box::new(reader),
    })
}

/// The first four bytes, and a reader that begins with them.
fn peek(mut reader: impl Read + Send) -> io::Result<(Vec<u8>, impl BufRead + Send)> {
    let mut head = Vec::with_capacity(4);
    reader.by_ref().take(4).read_to_end(&mut head)?;
    let whole = Cursor::new(head.clone()).chain(reader);
    Ok((head, BufReader::with_capacity(BUFFER, whole)))
}

/// pcap (microseconds or nanoseconds, either byte order) or pcapng.
fn is_capture(head: &[u8]) -> bool {
    let magic = head
        .first_chunk::<4>()
        .map(|bytes| u32::from_be_bytes(*bytes));
    matches!(
        magic,
        Some(0xa1b2_c3d4 | 0xd4c3_b2a1 | 0xa1b2_3c4d | 0x4d3c_b2a1 | 0x0a0d_0d0a)
    )
}

/// What was read of all files.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    pub(super) lines: u64,
    pub(super) connections: u64,
    pub(super) unreadable: u64,
    /// The first of those, as `file:line: why`.
    pub(super) named: Vec<String>,
}

/// One file.
struct Source {
    path: PathBuf,
    reader: Box<dyn BufRead + Send>,
    lines: Lines,
    number: u64,
    buffer: Vec<u8>,
}

/// All files, merged by the times of their next requests.
pub(super) struct Merged {
    sources: Vec<Source>,
    /// The next request of each file that has one, the earliest on top; of equal ones that of the
    /// file that was named first.
    next: BinaryHeap<Reverse<(u64, usize)>>,
    heads: Vec<Option<Box<Entry>>>,
    pub(super) reading: Reading,
}

impl Merged {
    pub(super) fn new(
        files: Vec<(PathBuf, Box<dyn BufRead + Send>)>,
        wanted: &Wanted,
    ) -> Result<Self, SourceError> {
        let sources = files.into_iter().map(|(path, reader)| Source {
            path,
            reader,
            lines: Lines::new(wanted.clone()),
            number: 0,
            buffer: Vec::new(),
        });
        let mut merged = Self {
            sources: sources.collect(),
            next: BinaryHeap::new(),
            heads: Vec::new(),
            reading: Reading::default(),
        };
        for index in 0..merged.sources.len() {
            merged.heads.push(None);
            merged.advance(index)?;
        }
        Ok(merged)
    }

    /// The next request.
    pub(super) fn next(&mut self) -> Result<Option<Box<Entry>>, SourceError> {
        let Some(Reverse((_, index))) = self.next.pop() else {
            return Ok(None);
        };
        let entry = self.heads.get_mut(index).and_then(Option::take);
        self.advance(index)?;
        Ok(entry)
    }

    fn advance(&mut self, index: usize) -> Result<(), SourceError> {
        let Some(source) = self.sources.get_mut(index) else {
            return Ok(());
        };
        if let Some(entry) = source.next(&mut self.reading)? {
            self.next.push(Reverse((entry.at, index)));
            if let Some(head) = self.heads.get_mut(index) {
                *head = Some(entry);
            }
        }
        Ok(())
    }
}

impl Source {
    fn next(&mut self, read: &mut Reading) -> Result<Option<Box<Entry>>, SourceError> {
        loop {
            let line = match self.line() {
                Ok(None) => return Ok(None),
                Ok(Some(whole)) => whole.then_some(self.buffer.as_slice()),
                Err(error) => {
                    return Err(SourceError::Read {
                        path: self.path.clone(),
                        line: self.number,
                        error,
                    });
                }
            };
            self.number += 1;
            read.lines += 1;
            let line = line.ok_or(LineError::TooLong);
            match line.and_then(|line| self.lines.read(line)) {
                Ok(Line::Request(entry)) => return Ok(Some(entry)),
                Ok(Line::Connection) => read.connections += 1,
                Ok(Line::Empty) => read.lines -= 1,
                Err(why) => {
                    read.unreadable += 1;
                    if read.named.len() < NAMED {
                        let (path, number) = (self.path.display(), self.number);
                        read.named.push(format!("{path}:{number}: {why}"));
                    }
                }
            }
        }
    }

    /// Reads a line into the buffer. `None`: there is none; `false`: it is too long, and the buffer
    /// has its beginning.
    fn line(&mut self) -> io::Result<Option<bool>> {
        self.buffer.clear();
        let mut bounded = self.reader.by_ref().take(MAX_LINE as u64);
        let count = bounded.read_until(b'\n', &mut self.buffer)?;
        if count == 0 {
            return Ok(None);
        }
        if count == MAX_LINE && self.buffer.last() != Some(&b'\n') {
            self.reader.skip_until(b'\n')?;
            return Ok(Some(false));
        }
        Ok(Some(true))
    }
}
