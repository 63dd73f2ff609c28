//! Writing lines, on a thread of its own.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;

use super::Shared;
use crate::policy::plan::LogTarget;

/// Lines that are written at once.
const BATCH: usize = 256;

/// Where lines go.
#[derive(Debug)]
pub(super) struct Output {
    file: File,
    /// `None`: a standard stream, which cannot be opened again.
    path: Option<PathBuf>,
}

impl Output {
    pub(super) fn open(target: &LogTarget) -> io::Result<Self> {
        // A descriptor of its own: the standard library's stream may be locked by others for long.
        let stream = |fd: BorrowedFd<'_>| {
            Ok(Self {
                file: fd.try_clone_to_owned()?.into(),
                path: None,
            })
        };
        match target {
            LogTarget::Stdout => stream(io::stdout().as_fd()),
            LogTarget::Stderr => stream(io::stderr().as_fd()),
            LogTarget::File(path) => Ok(Self {
                file: append(path)?,
                path: Some(path.clone()),
            }),
        }
    }

    /// Opens the file again, which others may have moved away.
    fn reopen(&mut self) -> io::Result<()> {
        if let Some(path) = &self.path {
            self.file = append(path)?;
        }
        Ok(())
    }
}

/// Paths and addresses are in it: not for everybody to read.
fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

/// Writes lines until nobody can send any more.
pub(super) fn run(mut queue: mpsc::Receiver<String>, mut output: Output, shared: &Shared) {
    let mut lines = Vec::new();
    let mut told = 0;
    let mut failing = false;
    while queue.blocking_recv_many(&mut lines, BATCH) > 0 {
        if shared.reopen.swap(false, Ordering::Relaxed)
            && let Err(error) = output.reopen()
        {
            tracing::error!(%error, "the access log cannot be opened again, the old file goes on");
        }
        let count = lines.len() as u64;
        let written = output.file.write_all(lines.concat().as_bytes());
        lines.clear();
        match written {
            Ok(()) => {
                shared.written.fetch_add(count, Ordering::Relaxed);
                failing = false;
            }
            Err(error) => {
                shared.lost.fetch_add(count, Ordering::Relaxed);
                if !failing {
                    tracing::error!(%error, "the access log cannot be written");
                }
                failing = true;
            }
        }
        // Said at 1, 2, 4, 8, ...: not once a batch.
        let lost = shared.lost.load(Ordering::Relaxed);
        if lost > 0 && lost >= 2 * told {
            tracing::warn!(lost, "lines of the access log were lost");
            told = lost;
        }
    }
}
