//! What the executable is made of: a bill of materials (CycloneDX), and the licences of all of it.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use xshell::cmd;

use super::{Dist, triple};
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
            fs::copy(&written, &bill)?;
        }
        if written.exists() {
            fs::remove_file(written)?;
        }
    }

    // Nothing is asked of a server: the texts are those in the crates.
    let licences = dist.into.join(format!("limiterd-{version}-licences.html"));
    let (config, template) = (
        workspace.root.join("deploy/licences/about.toml"),
        workspace.root.join("deploy/licences/about.hbs"),
    );
    cmd!(
        sh,
        "cargo about generate --fail --locked --offline --manifest-path {manifest} --config {config} --output-file {licences} {template}"
    )
    .run()?;
    Ok([bill, licences])
}
