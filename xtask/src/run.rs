//! `cargo xtask run`: the daemon at work, in one command.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use xshell::cmd;

use crate::build_cmd;
use crate::child::{Interrupt, Server};
use crate::cmd::{Workspace, need_root};
use crate::probe;

const QUICKSTART: &str = "examples/quickstart";
const DEMO_BACKEND: &str = "127.0.0.1:3000";
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);
const READY_DEADLINE: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(100);

const WHAT_TO_TRY: &str = "
limiterd is ready. In another terminal:

  one request, answered by the backend through limiterd
    curl -i http://127.0.0.1:8080/

  a user with a quota of his own (X-RateLimit-Remaining counts down)
    curl -i -H 'x-user-id: alice' http://127.0.0.1:8080/

  the heavy user, who has a limit by name
    curl -i -H 'x-user-id: heavy-user-123' http://127.0.0.1:8080/

  120 requests at once, counted by status
    for i in $(seq 120); do curl -s -o /dev/null -w '%{http_code}\\n' \\
      -H 'x-user-id: bob' http://127.0.0.1:8080/; done | sort | uniq -c

  a flood of connections, dropped in the kernel once the bucket is empty
    for i in $(seq 500); do curl -s -o /dev/null -m 0.2 http://127.0.0.1:8080/ & done; wait

  what was passed, limited and dropped
    curl -s http://127.0.0.1:9901/metrics
    curl -s http://127.0.0.1:9901/ready

The policy is in examples/quickstart. Ctrl-C ends.
";

/// What `cargo xtask run` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Play the story by itself: a flood beside a regular source, then users over HTTP; exits 0
    /// only if the numbers are what the policy says
    #[arg(long, conflicts_with = "config")]
    demo: bool,
    /// Run the daemon alone on the policy files of this directory
    #[arg(long, value_name = "DIR")]
    config: Option<PathBuf>,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    need_root("`cargo xtask run`")?;
    if let Some(config) = &args.config {
        // As one types it: relative to where one is.
        let config = std::path::absolute(config)?;
        ensure!(config.is_dir(), "{} is not a directory", config.display());
        build_cmd::build(workspace)?;
        return with_files(workspace, &config);
    }
    build_cmd::build(workspace)?;
    if args.demo {
        demo(workspace)
    } else {
        quickstart(workspace)
    }
}

/// Plays the demo; its exit code says whether the numbers are right.
fn demo(workspace: &Workspace) -> Result<ExitCode> {
    let demo = cmd!(workspace.sh, "cargo run --release -p tests --bin demo")
        .env("LIMITERD_BIN", workspace.limiterd());
    eprintln!("$ {demo}");
    let status = Command::from(demo).status()?;
    let code = status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1);
    Ok(ExitCode::from(code))
}

fn quickstart(workspace: &Workspace) -> Result<ExitCode> {
    let interrupt = Interrupt::listen()?;
    let mut backend = Server::start(
        "the demo backend",
        daemon(workspace).args(["demo-backend", "--listen", DEMO_BACKEND]),
    )?;
    let mut limiterd = Server::start(
        "limiterd",
        daemon(workspace).args(["run", "--config", QUICKSTART]),
    )?;
    let servers = &mut [&mut limiterd, &mut backend];
    probe::wait_for(200, ADMIN, "/ready", READY_DEADLINE, &interrupt, servers)?;
    println!("{WHAT_TO_TRY}");
    while !interrupt.seen() {
        limiterd.check()?;
        backend.check()?;
        thread::sleep(POLL);
    }
    println!("stopping");
    limiterd.stop()?;
    drop(backend);
    Ok(ExitCode::SUCCESS)
}

fn with_files(workspace: &Workspace, config: &Path) -> Result<ExitCode> {
    let interrupt = Interrupt::listen()?;
    let mut limiterd = Server::start(
        "limiterd",
        daemon(workspace).args(["run", "--config"]).arg(config),
    )?;
    println!("limiterd runs on {}; Ctrl-C ends.", config.display());
    while !interrupt.seen() {
        limiterd.check()?;
        thread::sleep(POLL);
    }
    println!("stopping");
    limiterd.stop()?;
    Ok(ExitCode::SUCCESS)
}

fn daemon(workspace: &Workspace) -> Command {
    let mut command = Command::new(workspace.limiterd());
    command.current_dir(&workspace.root);
    command
}
