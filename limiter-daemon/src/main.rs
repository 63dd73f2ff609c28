//! `limiterd`: the command line.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use limiter_daemon::{app, cli};
use tracing_subscriber::EnvFilter;

/// A rate limiter for gateway nodes: XDP token buckets and HTTP limits from one set of policy files.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Format of the log on standard error; LIMITERD_LOG sets what is logged (default: info).
    #[arg(long, global = true, value_enum, default_value = "text")]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Enforce the policy files of a directory. SIGHUP reloads them, SIGTERM drains and stops.
    Run {
        /// Directory of YAML policy files.
        #[arg(long)]
        config: PathBuf,
    },
    /// Check the policy files of a directory; exit status 1 if they have errors.
    Check {
        /// Directory of YAML policy files.
        dir: PathBuf,
    },
    /// Say what this kernel can do for the limits in it, what is missing, and what that costs.
    Probe {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Serve an echoing upstream to try limiterd with.
    DemoBackend {
        /// Address to listen on.
        #[arg(long, default_value = "127.0.0.1:3000")]
        listen: SocketAddr,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    log_to_stderr(args.log_format);
    let result = match args.command {
        Command::Run { config } => app::run(&config).map(|()| ExitCode::SUCCESS),
        Command::Check { dir } => check(&dir),
        Command::Probe { json } => cli::probe::run(json, &mut std::io::stdout().lock())
            .map(ExitCode::from)
            .context("cannot write the findings"),
        Command::DemoBackend { listen } => {
            cli::demo_backend::run(listen).map(|()| ExitCode::SUCCESS)
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("limiterd: {error:#}");
        ExitCode::FAILURE
    })
}

fn check(dir: &Path) -> anyhow::Result<ExitCode> {
    let code =
        cli::check::run(dir, &mut std::io::stdout().lock()).context("cannot write the findings")?;
    Ok(ExitCode::from(code))
}

fn log_to_stderr(format: LogFormat) {
    let filter =
        EnvFilter::try_from_env("LIMITERD_LOG").unwrap_or_else(|_unset| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}
