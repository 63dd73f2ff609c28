//! `cargo xtask soak`: the daemon under churn for minutes; memory and descriptors have to stay flat.

use anyhow::Result;
use xshell::cmd;

use crate::build_cmd;
use crate::cmd::{Workspace, need_root};

/// What `cargo xtask soak` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long it goes on
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Where chance comes from
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(crate) fn soak(workspace: &Workspace, args: &Args) -> Result<()> {
    need_root("`cargo xtask soak`")?;
    build_cmd::build(workspace)?;
    let (minutes, seed) = (args.minutes.to_string(), args.seed.to_string());
    cmd!(
        workspace.sh,
        "cargo run --release -p tests --bin soak -- {minutes} {seed}"
    )
    .env("LIMITERD_BIN", workspace.limiterd())
    .run()?;
    Ok(())
}
