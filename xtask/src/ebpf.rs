//! Clippy for the eBPF program, which compiles for the BPF target only.

use anyhow::{Error, Result, ensure};

use crate::cmd::Workspace;
use crate::toolchain;

/// Lints limiter-ebpf with the toolchain that builds it.
pub(crate) fn clippy(workspace: &Workspace) -> Result<()> {
    let target = workspace.target_dir().join("ebpf-clippy");
    let mut command = toolchain::find()
        .and_then(|toolchain| toolchain.lint_command(&workspace.root, &target))
        .map_err(Error::msg)?;
    eprintln!("$ {command:?}");
    let status = command.status()?;
    ensure!(status.success(), "clippy of limiter-ebpf failed ({status})");
    Ok(())
}
