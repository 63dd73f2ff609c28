//! What the executable is made of: a bill of materials (CycloneDX), and the licences of all of it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use xshell::cmd;

use super::{Dist, licences, triple};
use crate::setup;

pub(super) fn build(dist: &Dist<'_>) -> Result<[PathBuf; 2]> {
    let workspace = dist.workspace;
    setup::setup_bill(workspace)?;
    let (sh, triple, version) = (&workspace.sh, triple(), &dist.version);
    let manifest = workspace.root.join("limiter-daemon/Cargo.toml");

    // It is written beside the manifest, under this name.
    let name = "limiterd-bill";
    cmd!(
        sh,
        "cargo cyclonedx --manifest-path {manifest} --format json --spec-version 1.5 --target {triple} --override-filename {name}"
    )
    .env("SOURCE_DATE_EPOCH", &dist.epoch)
    .run()?;
    let bill = dist.into.join(format!("limiterd-{version}.cdx.json"));
    for member in [
        "limiter-common",
        "limiter-daemon",
        "limiter-ebpf",
        "tests",
        "xtask",
    ] {
        let written = workspace.root.join(member).join(format!("{name}.json"));
        if member == "limiter-daemon" {
            fs::write(&bill, without_this_machine(dist, &written)?)?;
        }
        if written.exists() {
            fs::remove_file(written)?;
        }
    }

    let licences = dist.into.join(format!("limiterd-{version}-licences.txt"));
    fs::write(&licences, licences::text(dist)?)?;
    Ok([bill, licences])
}

/// The bill, with places in the checkout as they are from its root.
fn without_this_machine(dist: &Dist<'_>, bill: &Path) -> Result<String> {
    let root = dist.workspace.root.display().to_string();
    Ok(fs::read_to_string(bill)?.replace(&root, "/limiterd"))
}
