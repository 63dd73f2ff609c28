//! `cargo xtask fuzz`: the kernel half's parser against a plain one, on random and damaged frames.

use anyhow::Result;
use xshell::cmd;

use crate::cmd::{Workspace, need_root};
use crate::setup;

/// What `cargo xtask fuzz` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many frames
    #[arg(long, default_value_t = 5_000_000)]
    runs: u64,
    /// Where the frames come from; the same seed gives the same frames
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(crate) fn fuzz(workspace: &Workspace, args: &Args) -> Result<()> {
    need_root("`cargo xtask fuzz`")?;
    setup::setup(workspace)?;
    let (runs, seed) = (args.runs.to_string(), args.seed.to_string());
    cmd!(
        workspace.sh,
        "cargo run --release -p tests --bin fuzz_parser -- {runs} {seed}"
    )
    .run()?;
    Ok(())
}
