//! The BPF file system, and the lock on a directory in it.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;
use std::{io, thread};

use rustix::fs::{FlockOperation, flock, statfs};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::process::geteuid;
use tracing::info;

use super::failed;
use crate::l4::error::L4Error;

/// Where bpffs is mounted by convention, and mounted here if it is not.
pub(in crate::l4) const BPFFS: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC`.
const BPFFS_MAGIC: i64 = 0xcafe_4a11;

/// A daemon on its way out, or a process that it was just starting, may hold the lock a little
/// longer: half a second for that.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The directory, locked; `None` if it was removed before it could be locked.
pub(super) fn lock(root: &Path) -> Result<Option<File>, L4Error> {
    let directory = match File::open(root) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(root)(error)),
    };
    let mut tries = LOCK_TRIES;
    while let Err(error) = flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        tries -= 1;
        match error {
            Errno::WOULDBLOCK if tries > 0 => thread::sleep(LOCK_PAUSE),
            Errno::WOULDBLOCK => {
                return Err(L4Error::InUse {
                    path: root.to_owned(),
                });
            }
            error => return Err(failed(root)(error.into())),
        }
    }
    let locked = directory.metadata().map_err(failed(root))?;
    let present = fs::metadata(root).is_ok_and(|now| now.ino() == locked.ino());
    Ok(present.then_some(directory))
}

/// Whether `held` is the directory `root`.
pub(super) fn is_of(held: &File, root: &Path) -> bool {
    let place = |meta: fs::Metadata| (meta.dev(), meta.ino());
    match (held.metadata(), fs::metadata(root)) {
        (Ok(held), Ok(root)) => place(held) == place(root),
        _ => false,
    }
}

/// Mounts bpffs at its place, if `root` is to be there and it is not mounted.
pub(super) fn ensure_bpffs(root: &Path) -> Result<(), L4Error> {
    if is_bpffs(root)? {
        return Ok(());
    }
    if !root.starts_with(BPFFS) {
        return Err(L4Error::NotBpffs {
            path: root.to_owned(),
        });
    }
    info!("mounting the BPF file system at {BPFFS}");
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    match mount("bpf", BPFFS, "bpf", flags, Some(c"mode=0700")) {
        Ok(()) => Ok(()),
        Err(Errno::PERM | Errno::ACCESS) => Err(L4Error::NotMounted {
            path: root.to_owned(),
            bpffs: BPFFS,
            uid: geteuid().as_raw(),
        }),
        Err(error) => Err(failed(Path::new(BPFFS))(error.into())),
    }
}

/// Whether bpffs is mounted at its place.
pub(in crate::l4) fn is_mounted() -> bool {
    is_bpffs(Path::new(BPFFS)).unwrap_or(false)
}

/// Whether `path`, or the nearest directory above it that exists, is on bpffs.
pub(super) fn is_bpffs(path: &Path) -> Result<bool, L4Error> {
    let existing = path
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or_else(|| Path::new("/"));
    let info = statfs(existing).map_err(|error| failed(existing)(error.into()))?;
    Ok(info.f_type == BPFFS_MAGIC)
}
