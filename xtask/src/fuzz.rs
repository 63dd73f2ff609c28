//! `cargo xtask fuzz`: the kernel half's parser against a plain one, on random and damaged frames;
//! the decisions of HTTP limits against a plain model, on random rules and requests; and the reader of
//! policy files, on damaged ones.

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
    /// How many frames; a hundredth as many sets of rules, or files
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
    Policy,
}

pub(crate) fn fuzz(workspace: &Workspace, args: &Args) -> Result<()> {
    let tests = match args.what {
        What::Packets => None,
        What::Limits => Some(["--lib", "engine::decide::tests::model"].as_slice()),
        What::Policy => Some(["--test", "policy_plan", "no_file_makes_it_panic"].as_slice()),
    };
    if let Some(tests) = tests {
        let cases = (args.runs / 100).to_string();
        cmd!(workspace.sh, "cargo test -p limiter-daemon {tests...}")
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
