//! `cargo xtask verify`: the object through libbpf, and what each program costs the verifier.

use anyhow::Result;
use xshell::cmd;

use crate::cmd::{Workspace, need_root};
use crate::setup;

/// What `cargo xtask verify` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write the figures of this run to tests/verifier-insns.txt
    #[arg(long)]
    record: bool,
}

pub(crate) fn verify(workspace: &Workspace, args: &Args) -> Result<()> {
    need_root("`cargo xtask verify`")?;
    setup::setup(workspace)?;
    // The packages of `cargo xtask test`, so that nothing is built twice.
    let mut test = cmd!(
        workspace.sh,
        "cargo test --workspace --exclude limiter-ebpf --test second_loader -- --nocapture"
    );
    if args.record {
        test = test.env("VERIFIER_RECORD", "1");
    }
    test.run()?;
    Ok(())
}
