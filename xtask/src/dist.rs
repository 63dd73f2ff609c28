//! `cargo xtask dist`: everything that is given to users, in `target/dist`: the static executable, the
//! Debian package, the image, what is in them, and under which licences.
//!
//! The same commit gives the same bytes on the same machine: times are the commit's, and paths of this
//! machine are taken out. The executable is linked to glibc statically; no toolchain for musl is
//! needed, and names are resolved without the C library.

mod again;
mod bill;
mod image;
mod licences;
mod package;
mod trial;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use xshell::{Shell, cmd};

use crate::cmd::{Workspace, shown};
use crate::setup;

/// What `cargo xtask dist` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these; all of them if left out
    #[arg(value_enum)]
    artefacts: Vec<Artefact>,
    /// Make them a second time, the executable (unless it is given) from a copy of the commit in another
    /// directory: the bytes have to be the same
    #[arg(long)]
    again: bool,
    /// Pack this static executable, and build none
    #[arg(long, value_name = "FILE")]
    limiterd: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Artefact {
    /// The static executable alone
    Binary,
    /// The Debian package
    Deb,
    /// An OCI archive of an image with nothing but the executable and certificates, run by podman
    Image,
    /// What the executable is made of (CycloneDX), and the licences of that
    Bill,
}

/// All of them.
const ARTEFACTS: &[Artefact] = &[
    Artefact::Binary,
    Artefact::Deb,
    Artefact::Image,
    Artefact::Bill,
];

/// What artefacts are made of.
struct Dist<'a> {
    workspace: &'a Workspace,
    /// Where they go.
    into: PathBuf,
    version: String,
    /// Of the commit, in seconds since 1970.
    epoch: String,
    limiterd: PathBuf,
}

pub(crate) fn dist(workspace: &Workspace, args: &Args) -> Result<()> {
    setup::setup(workspace)?;
    let artefacts = match args.artefacts.as_slice() {
        [] => ARTEFACTS,
        some => some,
    };
    let dist = Dist::of(workspace, args.limiterd.as_deref())?;
    let made = dist.make(artefacts)?;
    if let Some(image) = made.iter().find(|file| is_image(file)) {
        trial::run(&dist, image)?;
    }
    if args.again {
        again::packed(&dist, artefacts, &made)?;
        if args.limiterd.is_none() {
            again::executable(&dist)?;
        }
    }
    dist.sums(&made)?;
    for file in &made {
        println!("{}", shown(workspace, file).display());
    }
    Ok(())
}

/// The static executable, as the step of `cargo xtask test` builds it.
pub(crate) fn executable(workspace: &Workspace) -> Result<PathBuf> {
    executable_in(&workspace.sh, &workspace.root, &workspace.target_dir())
}

/// The step of `cargo xtask test`: everything from the executable that there is, twice, and the image
/// at work.
pub(crate) fn for_ci(workspace: &Workspace) -> Result<()> {
    let limiterd = executable(workspace)?;
    let dist = Dist::of(workspace, Some(&limiterd))?;
    let made = dist.make(ARTEFACTS)?;
    if let Some(image) = made.iter().find(|file| is_image(file)) {
        trial::run(&dist, image)?;
    }
    again::packed(&dist, ARTEFACTS, &made)
}

fn is_image(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "tar")
}

/// The Debian package, and the same under a version before, each with its version: for who upgrades
/// it in a virtual machine.
///
/// `limiterd`: the executable to pack in place of one that is built for it.
pub(crate) fn packages_to_upgrade(
    workspace: &Workspace,
    limiterd: Option<&Path>,
) -> Result<[(String, PathBuf); 2]> {
    let mut dist = Dist::of(workspace, limiterd)?;
    // Not beside those that are given away.
    dist.into = workspace.root.join("target/vm/packages");
    fs::create_dir_all(&dist.into)?;
    let new = format!("{}-{}", dist.version, package::REVISION);
    let old = format!("{}~before-{}", dist.version, package::REVISION);
    let build = |version: String| -> Result<_> {
        let file = package::build_as(&dist, &version, &["--fast"])?;
        Ok((version, file))
    };
    Ok([build(old)?, build(new)?])
}

impl<'a> Dist<'a> {
    fn of(workspace: &'a Workspace, limiterd: Option<&Path>) -> Result<Self> {
        let sh = &workspace.sh;
        let into = workspace.root.join("target/dist");
        fs::create_dir_all(&into)?;
        Ok(Self {
            epoch: cmd!(sh, "git log -1 --format=%ct").quiet().read()?,
            version: version(workspace)?,
            limiterd: match limiterd {
                Some(limiterd) => limiterd.to_owned(),
                None => executable(workspace)?,
            },
            workspace,
            into,
        })
    }

    /// The executable, and `artefacts`.
    fn make(&self, artefacts: &[Artefact]) -> Result<Vec<PathBuf>> {
        let mut made = vec![self.stripped()?];
        for artefact in artefacts {
            match artefact {
                Artefact::Binary => {}
                Artefact::Deb => made.push(package::build(self)?),
                Artefact::Image => made.push(image::build(self)?),
                Artefact::Bill => made.extend(bill::build(self)?),
            }
        }
        Ok(made)
    }

    /// The executable without what only a debugger reads, as Debian wants it, under a name that tells version and machine.
    fn stripped(&self) -> Result<PathBuf> {
        let name = format!("limiterd-{}-{}", self.version, std::env::consts::ARCH);
        let to = self.into.join(name);
        fs::copy(&self.limiterd, &to)?;
        cmd!(self.workspace.sh, "strip {to}").run()?;
        Ok(to)
    }

    /// Checksums, as `sha256sum --check` takes them.
    fn sums(&self, files: &[PathBuf]) -> Result<()> {
        let names = files.iter().filter_map(|file| file.file_name());
        let _back = self.workspace.sh.push_dir(&self.into);
        let sums = cmd!(self.workspace.sh, "sha256sum {names...}").read()?;
        fs::write(self.into.join("SHA256SUMS"), sums + "\n")?;
        Ok(())
    }
}

fn version(workspace: &Workspace) -> Result<String> {
    let metadata = cmd!(workspace.sh, "cargo metadata --no-deps --format-version 1")
        .quiet()
        .read()?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let packages = metadata.get("packages").and_then(|all| all.as_array());
    let daemon = packages.into_iter().flatten().find(|package| {
        package
            .get("name")
            .is_some_and(|name| name == "limiter-daemon")
    });
    let version = daemon.and_then(|package| package.get("version")?.as_str());
    Ok(version.context("cargo tells no version")?.to_owned())
}

/// The triple of this machine. It has to be said for flags to hold for the executable and not for
/// what runs while it is built.
fn triple() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// Builds the executable without a library that is not in it, and without this machine's paths.
fn executable_in(sh: &Shell, root: &Path, target: &Path) -> Result<PathBuf> {
    let triple = triple();
    let home = std::env::var("CARGO_HOME")
        .or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")))?;
    let flags = [
        "-Ctarget-feature=+crt-static".to_owned(),
        format!("--remap-path-prefix={}=/limiterd", root.display()),
        format!("--remap-path-prefix={home}=/cargo"),
    ];
    let _back = sh.push_dir(root);
    cmd!(
        sh,
        "cargo build --release --locked -p limiter-daemon --bin limiterd --target {triple}"
    )
    .env("CARGO_TARGET_DIR", target)
    .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
    .run()?;
    let file = target.join(&triple).join("release/limiterd");
    is_static(sh, &file)?;
    Ok(file)
}

fn is_static(sh: &Shell, file: &Path) -> Result<()> {
    let headers = cmd!(sh, "readelf --program-headers --wide {file}")
        .quiet()
        .read()?;
    ensure!(
        headers.contains("LOAD"),
        "readelf says nothing of {}",
        file.display()
    );
    if headers.contains("INTERP") {
        bail!("{} needs a loader: it is not static", file.display());
    }
    Ok(())
}
