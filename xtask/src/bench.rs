//! `cargo xtask bench`: limiterd beside its rivals, in the same run.
//!
//! The figure is always a ratio: absolute numbers belong to one machine on one day. The method is
//! in docs/benchmarks.md.

mod http;
mod servers;
mod stats;
mod wrk;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::ValueEnum;
use xshell::cmd;

use crate::cmd::{Workspace, need_root};
use crate::{build_cmd, setup};

/// What `cargo xtask bench` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to measure; all of it if left out
    #[arg(value_enum)]
    what: Option<What>,
    /// How often each server is measured over HTTP
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long each measurement over HTTP takes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// The CPU that servers, upstream and client share; the last one if left out
    #[arg(long)]
    cpu: Option<usize>,
    /// Measure this limiterd over HTTP instead of building one
    #[arg(long, value_name = "FILE")]
    limiterd: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Nanoseconds a packet, beside a bare XDP_DROP
    L4,
    /// Nanoseconds a decision over a request, by the number of rules
    Limits,
    /// Requests a second, beside nginx
    Http,
}

pub(crate) fn bench(workspace: &Workspace, args: &Args) -> Result<()> {
    need_root("`cargo xtask bench`")?;
    setup::setup_bench(workspace)?;
    if matches!(args.what, None | Some(What::Limits)) {
        cmd!(
            workspace.sh,
            "cargo run --release -p tests --bin bench_limits"
        )
        .run()?;
    }
    if matches!(args.what, None | Some(What::L4)) {
        build_cmd::build(workspace)?;
        cmd!(workspace.sh, "cargo run --release -p tests --bin bench_l4")
            .env("LIMITERD_BIN", workspace.limiterd())
            .run()?;
    }
    if matches!(args.what, None | Some(What::Http)) {
        let limiterd = match &args.limiterd {
            Some(file) => std::path::absolute(file)?,
            None => {
                build_cmd::build(workspace)?;
                workspace.limiterd()
            }
        };
        ensure!(limiterd.is_file(), "there is no {}", limiterd.display());
        http::bench(workspace, args, &limiterd)?;
    }
    Ok(())
}
