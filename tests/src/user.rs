//! Running `limiterd` as an unprivileged user with chosen capabilities, and what it needs for that.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::{Gid, Uid, chown};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

use crate::daemon::binary;

/// `nobody`.
pub const ID: u32 = 65534;

/// The user, and an executable that the user may run: the build's directory may be closed.
#[derive(Debug)]
pub struct User {
    directory: TempDir,
    capabilities: String,
}

impl User {
    /// With these capabilities only, as `net_admin`, in all sets.
    ///
    /// # Errors
    /// When the executable cannot be copied.
    pub fn new(capabilities: &[&str]) -> Result<Self> {
        let directory = tempfile::tempdir_in("/tmp")?;
        // By a process of its own: a process that was forked here meanwhile would hold the file open
        // for writing, and it could not be run.
        let copied = Command::new("cp")
            .args([binary(), directory.path()])
            .status()?;
        ensure!(copied.success(), "cannot copy {}", binary().display());
        open(directory.path())?;
        let plus = |name: &&str| format!(",+{name}");
        Ok(Self {
            directory,
            capabilities: capabilities.iter().map(plus).collect(),
        })
    }

    /// `limiterd` as this user; arguments are to be added.
    #[must_use]
    pub fn limiterd(&self) -> Command {
        let sets = format!("-all{}", self.capabilities);
        let mut command = Command::new("setpriv");
        command
            .args([format!("--reuid={ID}"), format!("--regid={ID}")])
            .arg("--clear-groups")
            .args(["inh-caps", "ambient-caps", "bounding-set"].map(|set| format!("--{set}={sets}")))
            .arg(self.directory.path().join("limiterd"));
        command
    }
}

/// Lets everybody into a directory.
///
/// # Errors
/// When the mode cannot be set.
pub fn open(directory: &Path) -> Result<()> {
    let mode = fs::Permissions::from_mode(0o755);
    Ok(fs::set_permissions(directory, mode)?)
}

/// A BPF file system of its own, which belongs to [`ID`]. Unmounted when dropped.
#[derive(Debug)]
pub struct Bpffs(TempDir);

impl Bpffs {
    /// # Errors
    /// When it cannot be mounted (it needs root).
    pub fn mount() -> Result<Self> {
        let directory = tempfile::tempdir_in("/tmp")?;
        open(directory.path())?;
        let place = directory.path().join("bpf");
        fs::create_dir(&place)?;
        mount(
            "bpf",
            &place,
            "bpf",
            MountFlags::empty(),
            Some(c"mode=0700"),
        )
        .context("cannot mount bpffs")?;
        let bpffs = Self(directory);
        chown(
            bpffs.path(),
            Some(Uid::from_raw(ID)),
            Some(Gid::from_raw(ID)),
        )?;
        Ok(bpffs)
    }

    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.0.path().join("bpf")
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        if let Err(error) = unmount(self.path(), UnmountFlags::DETACH) {
            eprintln!(
                "bpffs is left mounted at {}: {error}",
                self.path().display()
            );
        }
    }
}

/// The capabilities of each thread of a process: of `CapEff` and the other lines of its status, by
/// the thread's name.
///
/// # Errors
/// When the process is gone.
pub fn thread_status(process: u32, field: &str) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        let line = |name: &str| {
            let lines = status.lines();
            let mut values = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            values.next().map(|value| value.trim().to_owned())
        };
        let (Some(name), Some(value)) = (line("Name"), line(field)) else {
            bail!("no {field} in\n{status}");
        };
        found.push((name, value));
    }
    Ok(found)
}
