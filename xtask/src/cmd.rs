//! Where things are, and how commands are run: each is shown before it runs, and named when it
//! fails.

use std::env;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use xshell::Shell;

/// Where nothing is said about it, administrators' tools are here as well.
const ADMIN_PATHS: &str = "/usr/local/sbin:/usr/sbin:/sbin";

/// The checkout, and a shell that runs in its root.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) sh: Shell,
}

impl Workspace {
    /// The workspace that this xtask belongs to.
    pub(crate) fn open() -> Result<Self> {
        // Cargo tells where the crate is at run time too; a shared target directory may hold an
        // xtask that was compiled elsewhere.
        let manifest_dir = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest_dir
            .parent()
            .context("the xtask crate is not in a workspace")?
            .to_owned();
        let sh = Shell::new()?;
        sh.change_dir(&root);
        sh.set_var("PATH", search_path());
        Ok(Self { root, sh })
    }

    /// The release binary of the daemon.
    pub(crate) fn limiterd(&self) -> PathBuf {
        self.target_dir().join("release/limiterd")
    }

    pub(crate) fn target_dir(&self) -> PathBuf {
        let dir = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
        self.root.join(dir)
    }
}

/// `PATH`, with the places that `cargo install` and administrators' tools use.
pub(crate) fn search_path() -> String {
    let path = env::var("PATH").unwrap_or_default();
    let cargo_bin = env::var("CARGO_HOME")
        .or_else(|_| env::var("HOME").map(|home| format!("{home}/.cargo")))
        .map_or_else(|_| String::new(), |home| format!(":{home}/bin"));
    format!("{path}{cargo_bin}:{ADMIN_PATHS}")
}

/// Whether `program` can be run by name.
pub(crate) fn installed(program: &str) -> bool {
    env::split_paths(&search_path()).any(|dir| dir.join(program).is_file())
}

/// Fails with a clear word unless this process may load programs into the kernel.
pub(crate) fn need_root(what: &str) -> Result<()> {
    ensure!(
        is_root(),
        "{what} needs root (packages, network namespaces, XDP); run it as root, as with `sudo -E env \"PATH=$PATH\" cargo xtask ...`"
    );
    Ok(())
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// How a path is shown: relative to the root where it is in there.
pub(crate) fn shown<'a>(workspace: &Workspace, path: &'a Path) -> &'a Path {
    path.strip_prefix(&workspace.root).unwrap_or(path)
}

/// A clock for steps and deadlines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one clock of xtask; nothing here is decided by it but when to give up"
    )]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}
