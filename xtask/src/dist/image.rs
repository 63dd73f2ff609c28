//! The image: built by buildah from nothing, without a registry, into an OCI archive.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use xshell::cmd;

use super::{Dist, licences};
use crate::setup;

/// Of Debian's ca-certificates: what Mozilla trusts, and nothing that this machine does besides.
const CERTIFICATES: &str = "/usr/share/ca-certificates/mozilla";

pub(super) fn build(dist: &Dist<'_>) -> Result<PathBuf> {
    let workspace = dist.workspace;
    setup::setup_image(workspace)?;
    let sh = &workspace.sh;
    let context = workspace.root.join("target/image");
    if context.exists() {
        fs::remove_dir_all(&context)?;
    }
    fs::create_dir_all(&context)?;
    fs::copy(dist.stripped()?, context.join("limiterd"))?;
    fs::write(context.join("ca-certificates.crt"), certificates()?)?;
    fs::write(context.join("third-party.txt"), licences::text(dist)?)?;

    // A store of its own: nothing is left in the machine's.
    let storage = storage(dist);
    let (graph, run) = (storage.join("graph"), storage.join("run"));
    let store = ["--storage-driver", "vfs", "--root"];
    let containerfile = workspace.root.join("deploy/image/Containerfile");
    let (epoch, name) = (&dist.epoch, name(dist));
    let revision = cmd!(sh, "git rev-parse HEAD").quiet().read()?;
    let labels = [
        ("version", dist.version.as_str()),
        ("revision", &revision),
        ("licenses", "MIT OR Apache-2.0"),
    ];
    let labels: Vec<_> = labels
        .iter()
        .map(|(label, value)| format!("--label=org.opencontainers.image.{label}={value}"))
        .collect();
    cmd!(
        sh,
        "buildah {store...} {graph} --runroot {run} build --quiet --no-cache --isolation chroot --format oci --identity-label=false --timestamp {epoch} {labels...} --tag {name} --file {containerfile} {context}"
    )
    .run()?;
    let layout = storage.join("layout");
    if layout.exists() {
        fs::remove_dir_all(&layout)?;
    }
    let to = format!("oci:{}:{name}", layout.display());
    cmd!(
        sh,
        "buildah {store...} {graph} --runroot {run} push --quiet {name} {to}"
    )
    .run()?;
    // buildah's own archive would have the times of now in it.
    let archive = dist
        .into
        .join(format!("limiterd-{}-image.tar", dist.version));
    cmd!(
        sh,
        "tar --create --file {archive} --directory {layout} --sort name --mtime @{epoch} --owner 0 --group 0 --numeric-owner --mode u=rwX,go=rX blobs index.json oci-layout"
    )
    .run()?;
    Ok(archive)
}

/// As it is called where the archive is loaded.
pub(super) fn name(dist: &Dist<'_>) -> String {
    format!("localhost/limiterd:{}", dist.version)
}

/// Where images lie while they are made and tried.
pub(super) fn storage(dist: &Dist<'_>) -> PathBuf {
    dist.workspace.target_dir().join("image-storage")
}

/// All of them in one file, in the order of their names.
fn certificates() -> Result<String> {
    let directory = Path::new(CERTIFICATES);
    let entries = fs::read_dir(directory)
        .with_context(|| format!("{CERTIFICATES} (Debian: ca-certificates)"))?;
    let mut files = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    files.sort();
    ensure!(!files.is_empty(), "{CERTIFICATES} is empty");
    files
        .iter()
        .map(|file| Ok(fs::read_to_string(file)?.trim_end().to_owned() + "\n"))
        .collect()
}
