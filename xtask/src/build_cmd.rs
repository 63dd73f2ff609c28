//! `cargo xtask build`: the release binary.

use anyhow::Result;
use xshell::cmd;

use crate::cmd::{Workspace, shown};
use crate::setup;

/// Sets up, then builds the daemon; its build script puts the eBPF object inside.
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    setup::setup(workspace)?;
    cmd!(workspace.sh, "cargo build --release -p limiter-daemon").run()?;
    println!(
        "built: {}",
        shown(workspace, &workspace.limiterd()).display()
    );
    Ok(())
}
