//! Clippy for the eBPF program, which compiles for the BPF target only.

use anyhow::{Result, bail};
use xshell::cmd;

use crate::cmd::Workspace;
use crate::toolchain::{self, SYSTEM_RUSTC, Toolchain};

const SYSTEM_CLIPPY: &str = "/usr/bin/clippy-driver";
/// How `cargo clippy` passes `-D warnings` on to its driver.
const CLIPPY_ARGS: &str = "-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__";

/// Lints limiter-ebpf with the toolchain that builds it.
pub(crate) fn clippy(workspace: &Workspace) -> Result<()> {
    let sh = &workspace.sh;
    let common = [
        "-p",
        "limiter-ebpf",
        "--release",
        "--target",
        "bpfel-unknown-none",
    ];
    match toolchain::find() {
        Some(Toolchain::Nightly) => {
            // By `rustup run`: `cargo +nightly` is for rustup's proxy, and the `cargo` that started
            // xtask may come first in PATH.
            cmd!(
                sh,
                "rustup run nightly cargo clippy -Z build-std=core {common...} -- -D warnings"
            )
            .run()?;
        }
        Some(Toolchain::System) => {
            // `cargo clippy` would take the driver beside cargo, which is of another version than
            // this compiler and its `core`; the driver is a wrapper of rustc like any other.
            cmd!(sh, "cargo check {common...}")
                .env("RUSTC", SYSTEM_RUSTC)
                .env("RUSTC_BOOTSTRAP", "1")
                .env("RUSTC_WORKSPACE_WRAPPER", SYSTEM_CLIPPY)
                .env("CLIPPY_ARGS", CLIPPY_ARGS)
                .run()?;
        }
        None => bail!("no toolchain for the BPF target; run `cargo xtask setup`"),
    }
    Ok(())
}
