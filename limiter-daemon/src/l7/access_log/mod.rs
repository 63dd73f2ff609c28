//! The access log: a line for each request, with what the limits said, and for each connection that
//! was passed on.
//!
//! A worker writes the line into memory and puts it into a bounded queue, without waiting; one thread
//! of its own takes lines out and writes them. Where that cannot keep up, lines are lost, counted and
//! said: a slow disk or a reader that stopped never holds a request.

mod format;
mod writer;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::clock::wall;
use super::record::{Record, Sink, TcpRecord};
use crate::policy::plan::{self, LogFormat};
use writer::Output;

/// Lines that wait to be written. A line has about half a KiB, and 128 KiB at most.
const QUEUE: usize = 16 << 10;

/// Takes the records of requests.
#[derive(Debug)]
pub struct AccessLog {
    format: LogFormat,
    /// Percent of the requests.
    sample: u64,
    lines: mpsc::Sender<String>,
    seen: AtomicU64,
    shared: Arc<Shared>,
}

/// What the sink, the writer and the metrics share.
#[derive(Debug, Default)]
pub struct Shared {
    /// Lines that were written.
    pub written: AtomicU64,
    /// Lines that were not: the queue was full, or writing failed.
    pub lost: AtomicU64,
    reopen: AtomicBool,
}

/// Whom the log belongs to.
#[derive(Debug)]
pub struct Owner {
    shared: Arc<Shared>,
    ended: std::sync::mpsc::Receiver<()>,
}

impl AccessLog {
    /// Opens the log and starts its writer.
    ///
    /// # Errors
    /// When the file cannot be opened, or a thread cannot be started.
    pub fn start(config: &plan::AccessLog) -> io::Result<(Arc<Self>, Owner)> {
        let output = Output::open(&config.target)?;
        let (lines, queue) = mpsc::channel(QUEUE);
        let (end, ended) = std::sync::mpsc::channel();
        let shared = Arc::new(Shared::default());
        let told = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || {
                writer::run(queue, output, &told);
                // The owner may have given up waiting.
                let _gone = end.send(());
            })?;
        let log = Self {
            format: config.format,
            sample: config.sample.into(),
            lines,
            seen: AtomicU64::new(0),
            shared: Arc::clone(&shared),
        };
        Ok((Arc::new(log), Owner { shared, ended }))
    }

    /// Whether this request or connection is one of those that are logged: they are spread evenly.
    fn sampled(&self) -> bool {
        if self.sample >= 100 {
            return true;
        }
        let number = self.seen.fetch_add(1, Ordering::Relaxed);
        (number.wrapping_add(1)).wrapping_mul(self.sample) % 100 < self.sample
    }
}

impl AccessLog {
    fn write(&self, line: impl FnOnce() -> String) {
        if !self.sampled() {
            return;
        }
        match self.lines.try_send(line()) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Closed(_)) => {
                self.shared.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Sink for AccessLog {
    fn record(&self, record: &Record) {
        self.write(|| format::line(self.format, record, wall()));
    }

    fn passed_on(&self, record: &TcpRecord) {
        self.write(|| format::passed_on(self.format, record, wall()));
    }
}

impl Owner {
    /// Counters, for metrics.
    #[must_use]
    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Opens the file again before the next line is written: it may have been moved away.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Relaxed);
    }

    /// Waits until every line is written, for at most `patience`; `false` if some are not. The sinks
    /// must be gone.
    #[must_use]
    pub fn finish(self, patience: Duration) -> bool {
        self.ended.recv_timeout(patience).is_ok()
    }
}

#[cfg(test)]
mod tests;
