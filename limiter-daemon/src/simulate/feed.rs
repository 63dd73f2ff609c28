//! The thread that reads.

use std::io::BufRead;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use super::SimulateError;
use super::entry::Entry;
use super::source::{Merged, Reading, SourceError};
use super::wanted::Wanted;

/// Requests that are handed over at once.
const BATCH: usize = 1024;
/// Batches that wait to be decided.
const QUEUE: usize = 8;

/// Requests as they are read.
#[derive(Debug)]
pub(super) struct Feed {
    #[expect(
        clippy::vec_box,
        reason = "requests are handed on one by one, by a pointer"
    )]
    batches: Receiver<Vec<Box<Entry>>>,
    thread: JoinHandle<Result<Reading, SourceError>>,
}

impl Feed {
    pub(super) fn start(
        files: Vec<(PathBuf, Box<dyn BufRead + Send>)>,
        wanted: &Wanted,
    ) -> Result<Self, SimulateError> {
        let (sender, batches) = sync_channel(QUEUE);
        let wanted = wanted.clone();
        let read = move || {
            let mut merged = Merged::new(files, &wanted)?;
            let mut batch = Vec::with_capacity(BATCH);
            while let Some(entry) = merged.next()? {
                batch.push(entry);
                if batch.len() == BATCH {
                    let full = std::mem::replace(&mut batch, Vec::with_capacity(BATCH));
                    if sender.send(full).is_err() {
                        // Who decides has given up, and says why.
                        break;
                    }
                }
            }
            // As above.
            let _gone = sender.send(batch);
            Ok(merged.reading)
        };
        let thread = std::thread::Builder::new().name("read-logs".to_owned());
        let thread = thread.spawn(read).map_err(SimulateError::Thread)?;
        Ok(Self { batches, thread })
    }

    /// The next requests, in the order of their lines; `None`: there are no more, or the rest cannot
    /// be read, as [`Feed::finish`] says.
    #[expect(
        clippy::vec_box,
        reason = "requests are handed on one by one, by a pointer"
    )]
    pub(super) fn next(&mut self) -> Option<Vec<Box<Entry>>> {
        self.batches.recv().ok()
    }

    /// What was read.
    ///
    /// # Errors
    /// When not all could be.
    pub(super) fn finish(self) -> Result<Reading, SimulateError> {
        drop(self.batches);
        let read = self.thread.join().map_err(|_panic| SimulateError::Broke)?;
        Ok(read?)
    }
}
