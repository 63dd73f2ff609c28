//! `cargo xtask fuzz`: the kernel half's parser against a plain one, on random and damaged frames;
//! and the decisions of HTTP limits against a plain model, on random rules and requests.

use anyhow::Result;
use clap::ValueEnum;
use xshell::cmd;

use crate::cmd::{Workspace, need_root};
use crate::setup;

/// What `cargo xtask fuzz` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What is tried
    #[arg(value_enum, default_value_t = What::Packets)]
    what: What,
    /// How many frames; of limits, a hundredth as many sets of rules
    #[arg(long, default_value_t = 5_000_000)]
    runs: u64,
    /// Where frames come from; the same seed gives the same frames
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    Packets,
    Limits,
}

pub(crate) fn fuzz(workspace: &Workspace, args: &Args) -> Result<()> {
    if args.what == What::Limits {
        let cases = (args.runs / 100).to_string();
        let test = "engine::decide::tests::model";
        cmd!(workspace.sh, "cargo test -p limiter-daemon --lib {test}")
            .env("PROPTEST_CASES", cases)
            .run()?;
        return Ok(());
    }
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
