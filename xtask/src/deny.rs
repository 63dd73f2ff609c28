//! `cargo xtask deny`: licences, advisories and sources of the dependencies, as deny.toml says.

use anyhow::Result;
use xshell::cmd;

use crate::cmd::{Workspace, installed};

const VERSION: &str = "0.20.2";

/// All checks; the advisory database is fetched.
pub(crate) fn deny(workspace: &Workspace) -> Result<()> {
    install(workspace)?;
    cmd!(workspace.sh, "cargo deny check --hide-inclusion-graph").run()?;
    Ok(())
}

/// The checks that fetch nothing.
pub(crate) fn offline(workspace: &Workspace) -> Result<()> {
    install(workspace)?;
    cmd!(
        workspace.sh,
        "cargo deny check --hide-inclusion-graph licenses bans sources"
    )
    .run()?;
    Ok(())
}

fn install(workspace: &Workspace) -> Result<()> {
    if installed("cargo-deny") {
        return Ok(());
    }
    println!("cargo-deny is built once, which takes two or three minutes");
    cmd!(workspace.sh, "cargo install cargo-deny --version {VERSION} --locked")
        // Not into the target directory of this workspace.
        .env_remove("CARGO_TARGET_DIR")
        .run()?;
    Ok(())
}
