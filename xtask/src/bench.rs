//! `cargo xtask bench`: limiterd beside its rivals, in the same run.
//!
//! The figure is always a ratio: absolute numbers belong to one machine on one day. The method is
//! in docs/benchmarks.md.

mod http;
mod latency;
mod matching;
mod memory;
mod rls;
mod servers;
mod simulate;
mod stats;
mod treatment;
mod wrk;

use std::path::PathBuf;
use std::thread::available_parallelism;

use anyhow::{Result, ensure};
use clap::ValueEnum;
use xshell::cmd;

use crate::child::Interrupt;
use crate::cmd::{Workspace, need_root};
use crate::{build_cmd, probe, setup};
use servers::{Kind, Listener, Ports, Programs, Rivals};

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
    /// Requests a second where latency is measured
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Distinct values where memory is measured
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    values: u32,
    /// Lines of the log that is replayed
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(10..))]
    lines: u64,
    /// The CPU that servers and upstream share, and the client of `http` and `matching`; the last
    /// one if left out
    #[arg(long)]
    cpu: Option<usize>,
    /// Measure this limiterd over HTTP, and its simulations, instead of building one
    #[arg(long, value_name = "FILE")]
    limiterd: Option<PathBuf>,
    /// Measure with this bench_http instead of building one
    #[arg(long, value_name = "FILE")]
    client: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Nanoseconds a packet, beside a bare XDP_DROP
    L4,
    /// Nanoseconds a decision over a request, by the number of rules
    Limits,
    /// Nanoseconds a decision about a descriptor, beside Limitador's library
    Counting,
    /// Requests a second, beside nginx, HAProxy and Envoy
    Http,
    /// Latency that is added at a fixed rate, beside the same
    Latency,
    /// Memory for a million buckets, beside the same
    Memory,
    /// Breakers, ejection and retries: nanoseconds of each, and requests a second beside the same
    /// without
    Treatment,
    /// Requests a second with 1,000 routes and 10,000 rules, beside Envoy
    Matching,
    /// Decisions a second of the rate limit service, in memory and on Redis; an Envoy that asks it
    /// beside one that does not
    Rls,
    /// CPU time for an abuser's million requests and what others wait, with escalation off and on
    Escalation,
    /// Lines a second and memory of a day that is replayed against a policy
    Simulate,
}

/// A run of the HTTP benchmarks.
struct Run<'a> {
    workspace: &'a Workspace,
    rounds: u32,
    seconds: u32,
    rate: u32,
    values: u32,
    /// Of servers and upstream.
    cpu: usize,
    /// Of a client that has one of its own, where there are two.
    client_cpu: usize,
    programs: Programs,
    ports: Ports,
    rivals: Rivals,
    interrupt: Interrupt,
}

impl Run<'_> {
    /// Waits until `server` answers on `listener` with `status`.
    fn wait_for(&mut self, server: Kind, listener: Listener, status: u16) -> Result<()> {
        let address = self.ports.of(server, listener);
        let servers = &mut self.rivals.all();
        let deadline = http::READY_DEADLINE;
        probe::wait_for(status, address, "/", deadline, &self.interrupt, servers)
    }
}

pub(crate) fn bench(workspace: &Workspace, args: &Args) -> Result<()> {
    let wanted = |what| args.what.is_none_or(|only| only == what);
    if wanted(What::Simulate) {
        simulate::bench(workspace, &limiterd(workspace, args)?, args.lines)?;
        if args.what.is_some() {
            return Ok(());
        }
    }
    need_root("`cargo xtask bench`")?;
    setup::setup_bench(workspace)?;
    if wanted(What::Limits) {
        cmd!(
            workspace.sh,
            "cargo run --release -p tests --bin bench_limits"
        )
        .run()?;
    }
    if wanted(What::Counting) {
        cmd!(
            workspace.sh,
            "cargo run --release -p tests --features rivals --bin bench_counting"
        )
        .run()?;
    }
    if wanted(What::Treatment) {
        cmd!(
            workspace.sh,
            "cargo run --release -p tests --bin bench_upstreams"
        )
        .run()?;
    }
    if wanted(What::L4) {
        build_cmd::build(workspace)?;
        cmd!(workspace.sh, "cargo run --release -p tests --bin bench_l4")
            .env("LIMITERD_BIN", workspace.limiterd())
            .run()?;
    }
    if wanted(What::Escalation) {
        build_cmd::build(workspace)?;
        let rounds = args.rounds.to_string();
        cmd!(
            workspace.sh,
            "cargo run --release -p tests --bin bench_escalation -- {rounds}"
        )
        .env("LIMITERD_BIN", workspace.limiterd())
        .run()?;
    }
    let alone = [What::L4, What::Limits, What::Counting, What::Escalation];
    if args.what.is_some_and(|what| alone.contains(&what)) {
        return Ok(());
    }
    let programs = Programs {
        limiterd: limiterd(workspace, args)?,
        envoy: setup::envoy(workspace)?,
        client: match &args.client {
            Some(file) => std::path::absolute(file)?,
            None => client(workspace)?,
        },
    };
    for file in [&programs.limiterd, &programs.client] {
        ensure!(file.is_file(), "there is no {}", file.display());
    }
    let cpus = available_parallelism()?.get();
    let cpu = args.cpu.unwrap_or(cpus - 1);
    let interrupt = Interrupt::listen()?;
    let client_cpu = (cpu + 1) % cpus;
    if wanted(What::Rls) {
        rls::bench(&rls::Run {
            workspace,
            programs: &programs,
            rounds: args.rounds,
            seconds: args.seconds,
            cpus: (cpu, client_cpu),
            interrupt: &interrupt,
        })?;
    }
    if args.what == Some(What::Rls) {
        return Ok(());
    }
    let ports = Ports::free()?;
    let mut run = Run {
        workspace,
        rounds: args.rounds,
        seconds: args.seconds,
        rate: args.rate,
        values: args.values,
        cpu,
        client_cpu,
        interrupt,
        rivals: Rivals::start(workspace, &programs, &ports, cpu)?,
        programs,
        ports,
    };
    if wanted(What::Http) {
        http::bench(&mut run)?;
    }
    if wanted(What::Latency) {
        latency::bench(&mut run)?;
    }
    if wanted(What::Memory) {
        memory::bench(&mut run)?;
    }
    if wanted(What::Treatment) {
        treatment::bench(&mut run)?;
    }
    if wanted(What::Matching) {
        matching::bench(&mut run)?;
    }
    run.rivals.stop()
}

/// The one that is measured.
fn limiterd(workspace: &Workspace, args: &Args) -> Result<PathBuf> {
    if let Some(file) = &args.limiterd {
        return Ok(std::path::absolute(file)?);
    }
    build_cmd::build(workspace)?;
    Ok(workspace.limiterd())
}

fn client(workspace: &Workspace) -> Result<PathBuf> {
    cmd!(
        workspace.sh,
        "cargo build --release -p tests --bin bench_http"
    )
    .run()?;
    Ok(workspace.target_dir().join("release/bench_http"))
}
