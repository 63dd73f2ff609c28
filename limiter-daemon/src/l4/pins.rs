//! What outlives the daemon, in bpffs: `<pinPath>/v<ABI version>/` with the maps by their names and
//! the links as `link-<interface>` (XDP) and `tcx-<interface>`. `clsact-<interface>` is the program of
//! a filter: it says that the filter is ours.
//!
//! The pin path itself is the lock (`flock` on the directory): one daemon works in it at a time.

mod bpffs;
mod hook;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use aya::maps::MapInfo;
use aya::programs::links::FdLink;
use limiter_common::ABI_VERSION;
use rustix::fs::chown;
use rustix::process::geteuid;
use tracing::{info, warn};

pub(super) use self::bpffs::{BPFFS, is_mounted};
use self::bpffs::{ensure_bpffs, is_bpffs, is_of, lock};
pub(super) use self::hook::Hook;
use super::error::{L4Error, chain};
use super::maps::{Pinned, Sizes};
use super::{attach, sys};

/// The pin path, held.
#[derive(Debug)]
pub(super) struct Pins {
    root: PathBuf,
    /// `root/v<ABI version>`.
    directory: PathBuf,
    /// Locked; the lock goes with it, and with copies of it that other processes have.
    lock: File,
}

impl Pins {
    /// Makes the directories, mounts bpffs if need be, and takes the lock. It may be `held` already,
    /// by a copy of what another daemon has.
    pub(super) fn open(root: &Path, held: Option<File>) -> Result<Self, L4Error> {
        ensure_bpffs(root)?;
        let held = held.filter(|held| is_of(held, root));
        let lock = loop {
            create(root)?;
            if let Some(held) = held {
                break held;
            }
            match lock(root) {
                Ok(Some(lock)) => break lock,
                Ok(None) => {}
                Err(error) => {
                    if matches!(error, L4Error::PinDenied { .. }) {
                        // Whose it is says more.
                        own(root, root)?;
                    }
                    return Err(error);
                }
            }
        };
        take_over(root)?;
        let directory = root.join(format!("v{ABI_VERSION}"));
        create(&directory)?;
        Ok(Self {
            root: root.to_owned(),
            directory,
            lock,
        })
    }

    pub(super) fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    pub(super) fn map(&self, map: Pinned) -> PathBuf {
        self.directory.join(map.name())
    }

    pub(super) fn link(&self, interface: &str, hook: Hook) -> PathBuf {
        self.directory.join(hook.file(interface))
    }

    pub(super) fn pin_link(
        &self,
        link: FdLink,
        interface: &str,
        hook: Hook,
    ) -> Result<(), L4Error> {
        let path = self.link(interface, hook);
        let _pinned = link.pin(&path).map_err(|error| {
            let error = io::Error::other(chain(&error));
            L4Error::Pin { path, error }
        })?;
        Ok(())
    }

    /// Interfaces that have a link pinned.
    pub(super) fn linked(&self) -> Result<BTreeSet<String>, L4Error> {
        let names = entries(&self.directory)?;
        let interface = |path: &PathBuf| Hook::parse(path).map(|(_, interface)| interface);
        Ok(names.iter().filter_map(interface).collect())
    }

    /// Unpins the interface's link on this hook, if there is one, and waits until the program is
    /// detached.
    pub(super) fn remove_link(&self, interface: &str, hook: Hook) -> Result<bool, L4Error> {
        remove_pin(&self.link(interface, hook))
    }

    /// Detaches from all hooks of the interface.
    pub(super) fn remove_links(&self, interface: &str) -> Result<(), L4Error> {
        for hook in Hook::ALL {
            self.remove_link(interface, hook)?;
        }
        Ok(())
    }

    /// Detaches from all hooks of the interface but this one.
    pub(super) fn remove_links_but(&self, interface: &str, kept: Hook) -> Result<(), L4Error> {
        for hook in Hook::ALL {
            if hook != kept {
                self.remove_link(interface, hook)?;
            }
        }
        Ok(())
    }

    /// Removes the pins that say that a filter on the interface is ours, of all versions, and leaves
    /// the filter; whether there were any.
    pub(super) fn forget_clsact(&self, interface: &str) -> Result<bool, L4Error> {
        let mut found = false;
        for directory in self.other_versions()?.iter().chain([&self.directory]) {
            let path = directory.join(Hook::Clsact.file(interface));
            match fs::remove_file(&path) {
                Ok(()) => found = true,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(&path)(error)),
            }
        }
        Ok(found)
    }

    /// Removes pinned maps that do not have the shape they are to have now (aya 0.14 would use them
    /// all the same), and those that make no sense without them. The program makes new ones; the
    /// state of the old is lost.
    pub(super) fn discard_misfits(&self, sizes: Sizes) -> Result<(), L4Error> {
        let misfits = Pinned::ALL.map(|map| (map, self.is_misfit(map, sizes)));
        let config = misfits
            .iter()
            .any(|(map, misfit)| *misfit && map.is_of_config());
        for (map, misfit) in misfits {
            if misfit || config && map.is_of_config() {
                remove_pin(&self.map(map))?;
            }
        }
        Ok(())
    }

    fn is_misfit(&self, map: Pinned, sizes: Sizes) -> bool {
        let path = self.map(map);
        if !path.exists() {
            // One that is missing makes those misfits that need it.
            return true;
        }
        let found = MapInfo::from_pin(&path)
            .map(|info| (info.key_size(), info.value_size(), info.max_entries()));
        let wanted = map.shape(sizes);
        let misfit = !matches!(&found, Ok(found) if *found == wanted);
        if misfit {
            warn!(
                path = %path.display(), ?found, ?wanted,
                "pinned map does not fit the configuration: made anew, its state is lost"
            );
        }
        misfit
    }

    /// Takes a link over that a daemon of another ABI version left on this interface, in place of the
    /// one that is pinned here; `false` if there is none. A link takes a program with other maps.
    pub(super) fn take_other_link(&self, interface: &str, hook: Hook) -> Result<bool, L4Error> {
        let file = hook.file(interface);
        let versions = self.other_versions()?;
        let mut others = versions.iter().map(|directory| directory.join(&file));
        let Some(other) = others.find(|path| path.exists()) else {
            return Ok(false);
        };
        self.remove_link(interface, hook)?;
        info!(path = %other.display(), "taking over the link of another version of limiterd");
        fs::rename(&other, self.link(interface, hook)).map_err(failed(&other))?;
        Ok(true)
    }

    /// Removes what daemons of other ABI versions left.
    pub(super) fn remove_other_versions(&self) -> Result<(), L4Error> {
        for directory in self.other_versions()? {
            info!(path = %directory.display(), "removing the pins of another version of limiterd");
            remove_directory(&directory)?;
        }
        Ok(())
    }

    fn other_versions(&self) -> Result<Vec<PathBuf>, L4Error> {
        let mut directories = entries(&self.root)?;
        directories.retain(|path| is_version(path) && *path != self.directory);
        Ok(directories)
    }

    /// Removes all pins, and the directories.
    pub(super) fn remove(&self) -> Result<(), L4Error> {
        for directory in entries(&self.root)?.iter().filter(|path| is_version(path)) {
            remove_directory(directory)?;
        }
        match fs::remove_dir(&self.root).map_err(|error| (error.kind(), error)) {
            // Where only root makes directories, this one was made for us, and stays for the next; in a
            // sandbox it is all that can be written to, and a mount of its own.
            Ok(())
            | Err((
                io::ErrorKind::DirectoryNotEmpty
                | io::ErrorKind::PermissionDenied
                | io::ErrorKind::ReadOnlyFilesystem
                | io::ErrorKind::ResourceBusy,
                _,
            )) => Ok(()),
            Err((_, error)) => Err(failed(&self.root)(error)),
        }
    }
}

/// Removes what an earlier daemon left under `root`, if it left anything and is gone.
pub(super) fn clear(root: &Path) -> Result<(), L4Error> {
    if !root.is_dir() || !is_bpffs(root)? {
        return Ok(());
    }
    match Pins::open(root, None) {
        Ok(pins) => {
            info!(path = %root.display(), "no interfaces are configured: removing old pins");
            pins.remove()
        }
        // They belong to a daemon that lives and has interfaces.
        Err(L4Error::InUse { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

fn create(directory: &Path) -> Result<(), L4Error> {
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory);
    made.map_err(failed(directory))
}

/// Makes everything under `root` ours: a pin is opened by its owner only, and the capabilities to
/// pass over that are given up after the set-up.
fn take_over(root: &Path) -> Result<(), L4Error> {
    own(root, root)?;
    for directory in entries(root)? {
        own(&directory, root)?;
        if is_version(&directory) {
            for pin in entries(&directory)? {
                own(&pin, root)?;
            }
        }
    }
    Ok(())
}

fn own(path: &Path, root: &Path) -> Result<(), L4Error> {
    let owner = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.uid(),
        // A daemon on its way out has removed it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(path)(error)),
    };
    let user = geteuid();
    if owner == user.as_raw() || chown(path, Some(user), None).is_ok() {
        return Ok(());
    }
    Err(L4Error::PinOwner {
        path: path.to_owned(),
        root: root.to_owned(),
        owner,
        uid: user.as_raw(),
    })
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, L4Error> {
    let entries = fs::read_dir(directory).map_err(failed(directory))?;
    let paths: io::Result<_> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect();
    paths.map_err(failed(directory))
}

/// bpffs directories here hold pins only, one level deep.
fn remove_directory(directory: &Path) -> Result<(), L4Error> {
    for path in entries(directory)? {
        remove_pin(&path)?;
    }
    fs::remove_dir(directory).map_err(failed(directory))
}

/// Whether there was one. If it is a link, it is off its interface afterwards, whatever that is called
/// now and whoever else has the link open.
fn remove_pin(path: &Path) -> Result<bool, L4Error> {
    let attached = Hook::parse(path);
    if matches!(attached, Some((Hook::Xdp | Hook::Tcx, _))) {
        match sys::detach_pinned_link(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(failed(path)(error)),
        }
    }
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed(path)(error)),
    }
    if let Some((Hook::Clsact, interface)) = attached {
        attach::detach_clsact(&interface);
    }
    Ok(true)
}

fn is_version(path: &Path) -> bool {
    let number = file_name(path).and_then(|name| name.strip_prefix('v'));
    number.is_some_and(|number| number.parse::<u32>().is_ok())
}

fn file_name(path: &Path) -> Option<&str> {
    path.file_name().and_then(OsStr::to_str)
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> L4Error {
    let path = path.to_owned();
    move |error| match error.kind() {
        io::ErrorKind::PermissionDenied => L4Error::PinDenied {
            path,
            uid: geteuid().as_raw(),
        },
        _ => L4Error::Pin { path, error },
    }
}
