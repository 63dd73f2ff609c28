//! Noticing that the policy files changed.
//!
//! The directory is watched by inotify: files written in place, renamed over (editors, `..data` of a
//! mounted ConfigMap), made, removed. Its parent is watched for the directory's own name, and while
//! that is missing its nearest ancestor, so a directory that vanishes and returns (or a symlink to
//! one that is swapped) is seen. Several events in a row are one change.
//!
//! What is not seen: changes behind a symlink that points out of the directory, in subdirectories,
//! and of ancestors beyond the parent. SIGHUP is for those.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::Daemon;

/// A change is over when nothing happened for this long.
const QUIET: Duration = Duration::from_millis(100);
/// Told at the latest after so many events in a row, each within [`QUIET`] of the last.
const MAX_EVENTS: usize = 10;
/// What a mounted ConfigMap swaps to show its next version.
const CONFIG_MAP_DATA: &str = "..data";
/// Files larger than this are told apart by size and time, not by content.
const MAX_HASHED: u64 = 32 << 20;

/// Watches the policy directory, or a single policy file.
#[derive(Debug)]
pub(super) struct Watch {
    inotify: AsyncFd<Inotify>,
    target: PathBuf,
    watched: HashMap<WatchDescriptor, Watched>,
}

/// Which events of a watched directory matter.
#[derive(Debug)]
enum Watched {
    /// Those of what lies in it.
    Inside,
    /// Those of one entry: what is waited for, or looked at, lies there.
    Entry(OsString),
}

impl Watch {
    /// Starts to watch `target`.
    ///
    /// # Errors
    /// When the system's limits on inotify are exhausted, or the directory may not be read.
    pub(super) fn start(target: &Path) -> io::Result<Self> {
        #[expect(
            deprecated,
            reason = "Inotify owns its descriptor for as long as it lives; what replaces this is unsafe"
        )]
        let mut watch = Self {
            inotify: AsyncFd::new(Inotify::init()?)?,
            target: resolve(target)?,
            watched: HashMap::new(),
        };
        watch.arm()?;
        Ok(watch)
    }

    /// Tells `changed` of every change, for ever.
    ///
    /// # Errors
    /// When it cannot watch any longer.
    pub(super) async fn run(mut self, changed: &Notify) -> io::Result<()> {
        loop {
            self.event().await?;
            for _ in 0..MAX_EVENTS {
                match timeout(QUIET, self.event()).await {
                    Ok(event) => event?,
                    Err(_quiet) => break,
                }
            }
            changed.notify_one();
        }
    }

    /// Waits for something that matters.
    async fn event(&mut self) -> io::Result<()> {
        while !self.pending()? {
            self.inotify.readable().await?.clear_ready();
        }
        Ok(())
    }

    /// Takes what has happened until now; whether any of it matters.
    fn pending(&mut self) -> io::Result<bool> {
        let mut matters = false;
        let mut buffer = [0; 4096];
        loop {
            let events: Vec<_> = match self.inotify.get_mut().read_events(&mut buffer) {
                Ok(events) => events.map(|event| event.to_owned()).collect(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(matters),
                Err(error) => return Err(error),
            };
            let mut moved = false;
            for event in events {
                let ended = EventMask::DELETE_SELF
                    | EventMask::MOVE_SELF
                    | EventMask::IGNORED
                    | EventMask::UNMOUNT;
                if event.mask.contains(EventMask::Q_OVERFLOW) {
                    matters = true;
                    continue;
                }
                match self.watched.get(&event.wd) {
                    // Of a watch that is no longer ours.
                    None => {}
                    Some(_) if event.mask.intersects(ended) => moved = true,
                    Some(Watched::Entry(name)) => moved |= event.name.as_ref() == Some(name),
                    Some(Watched::Inside) => {
                        matters |= self.inside(event.mask, event.name.as_deref());
                    }
                }
            }
            if moved {
                matters = true;
                self.arm()?;
            }
        }
    }

    /// Whether an event in the directory matters.
    fn inside(&self, mask: EventMask, name: Option<&OsStr>) -> bool {
        let Some(name) = name else {
            return false;
        };
        if name.as_encoded_bytes().starts_with(b".") && name != CONFIG_MAP_DATA {
            return false;
        }
        if !mask.contains(EventMask::CREATE) {
            return true;
        }
        // A plain file that was just made is being written: the end of that is waited for. A link is
        // there as it is.
        fs::symlink_metadata(self.target.join(name))
            .is_ok_and(|meta| !meta.is_file() || meta.nlink() > 1)
    }

    /// Watches what is there now.
    fn arm(&mut self) -> io::Result<()> {
        let mut watches = self.inotify.get_ref().watches();
        for (wd, _) in self.watched.drain() {
            // It may have ended with its directory.
            let _ended = watches.remove(wd);
        }
        let entry = WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MOVE
            | WatchMask::CLOSE_WRITE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF;
        let inside = entry | WatchMask::ATTRIB;
        let mut path = self.target.as_path();
        // From the parent upwards, until one is there.
        while let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
            match watches.add(parent, entry | WatchMask::ONLYDIR) {
                Ok(wd) => {
                    self.watched.insert(wd, Watched::Entry(name.to_owned()));
                    break;
                }
                Err(error) if is_missing(&error) => path = parent,
                Err(error) => return Err(error),
            }
        }
        match watches.add(&self.target, inside | WatchMask::ONLYDIR) {
            Ok(wd) => {
                self.watched.insert(wd, Watched::Inside);
                Ok(())
            }
            // Missing, or a file: its own name in its parent is watched.
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// The absolute path of `target`, whose last component may be a symlink and stays one.
fn resolve(target: &Path) -> io::Result<PathBuf> {
    match (target.parent(), target.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            };
            Ok(parent.canonicalize()?.join(name))
        }
        _ => target.canonicalize(),
    }
}

/// What the policy files are like: the same number for the same files.
///
/// It covers every file of the directory that is not hidden, since policies refer to lists and
/// certificates beside them.
pub(super) fn fingerprint(target: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut names: Vec<PathBuf> = match fs::read_dir(target) {
        Ok(entries) => entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                path.file_name()
                    .is_some_and(|name| !name.as_encoded_bytes().starts_with(b"."))
            })
            .collect(),
        Err(_missing_or_a_file) => vec![target.to_owned()],
    };
    names.sort();
    for path in names {
        path.hash(&mut hasher);
        // A file that cannot be read is like no other, and like itself.
        match content(&path) {
            Ok(content) => content.hash(&mut hasher),
            Err(error) => error.raw_os_error().hash(&mut hasher),
        }
    }
    hasher.finish()
}

fn content(path: &Path) -> io::Result<Vec<u8>> {
    let meta = fs::metadata(path)?;
    if !meta.is_file() || meta.len() > MAX_HASHED {
        let time = (meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec());
        return Ok(format!("{time:?}").into_bytes());
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(MAX_HASHED)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl Daemon {
    /// Watches the policy files; tells of changes. Where that cannot be, SIGHUP still works.
    pub(super) fn watch(&mut self) -> Arc<Notify> {
        let changed = Arc::new(Notify::new());
        let watch = match Watch::start(&self.dir) {
            Ok(watch) => watch,
            Err(error) => {
                warn_unwatched(&error);
                return changed;
            }
        };
        self.loads.set_watching(true);
        // What changed since the files were read is not missed.
        changed.notify_one();
        let loads = Arc::clone(&self.loads);
        let tell = Arc::clone(&changed);
        self.tasks.spawn(async move {
            if let Err(error) = watch.run(&tell).await {
                loads.set_watching(false);
                warn_unwatched(&error);
            }
            // The daemon goes on without it.
            std::future::pending().await
        });
        changed
    }
}

fn warn_unwatched(error: &io::Error) {
    tracing::warn!(
        %error,
        "changes of the policy files are not noticed; send SIGHUP after each, or raise \
         fs.inotify.max_user_instances and fs.inotify.max_user_watches and restart"
    );
}

#[cfg(test)]
mod tests;
