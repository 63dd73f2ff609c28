//! `limiterd`: the command line.

#[cfg(test)]
mod documented;

use std::io::IsTerminal as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use limiter_daemon::cli::check::{Format, Options};
use limiter_daemon::cli::client::Admin;
use limiter_daemon::cli::paint::Paint;
use limiter_daemon::{app, cli};
use tracing_subscriber::EnvFilter;

/// A rate limiter for gateway nodes: XDP token buckets and HTTP limits from one set of policy files.
#[derive(Debug, Parser)]
#[command(name = "limiterd", version)]
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
    /// Enforce the policy files of a directory. When they change, or on SIGHUP, they are read again;
    /// SIGTERM drains and stops.
    Run {
        /// Directory of YAML policy files.
        #[arg(long)]
        config: PathBuf,
        /// Take the place of the limiterd that runs with the same admin address: take over its
        /// sockets, and let it drain and end. Where there is none, just start.
        #[arg(long)]
        takeover: bool,
        /// When another process has taken this one's place, do not end but wait for SIGTERM, or until
        /// nobody serves: for supervisors that start again whatever ends, as Kubernetes does.
        #[arg(long)]
        linger: bool,
    },
    /// Check the policy files of a directory; exit status 1 if they have errors. Colours are for
    /// terminals, unless NO_COLOR is set.
    Check {
        /// Directory of YAML policy files.
        dir: PathBuf,
        /// How findings are written.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
        /// Exit status 1 for warnings, too.
        #[arg(long)]
        deny_warnings: bool,
        /// Tell the conditions of each resource as well (JSON always has them).
        #[arg(long)]
        status: bool,
    },
    /// Say what becomes of a request and why: listener, route, limits, bucket, backend. Nothing is
    /// sent and nothing is charged.
    Explain(cli::explain::Args),
    /// Replay access logs and captures against policy files: who would have been limited, when, by
    /// which rule. Nothing is sent, and no running daemon is asked.
    Simulate(cli::simulate::Args),
    /// Say what this kernel can do for the limits in it, what is missing, and what that costs.
    Probe {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say how the running daemon is: readiness, policy, kernel half, store. Exit status 1 if it is
    /// not ready, or with --fleet if the fleet cannot be reached.
    Status(cli::status::Args),
    /// Show what the running daemon does, drawn anew every second: limits, kernel drops, sources,
    /// backends, the store and the fleet, blocks. --once prints it.
    Top(Box<cli::top::Args>),
    /// Look at buckets by name, in memory, in the store and in the kernel, and fill them again.
    Counters {
        #[command(subcommand)]
        command: cli::counters::Command,
    },
    /// Drop everything from a source, on the ports under a policy, for a time: on all nodes that share
    /// the store, where there is one.
    Block {
        #[command(flatten)]
        args: cli::sentences::Args,
        /// How long, as 30s, 10m or 1h30m.
        #[arg(long = "for", value_name = "TIME")]
        time: String,
    },
    /// Lift a block before its end.
    Unblock(cli::sentences::Args),
    /// List who is blocked, on this node or in the fleet, since when, until when, by whom and why.
    Blocked {
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        admin: Admin,
    },
    /// Look into the limits in the kernel.
    L4 {
        #[command(subcommand)]
        command: L4,
    },
    /// Serve an echoing upstream to try limiterd with.
    DemoBackend {
        /// Address to listen on.
        #[arg(long, default_value = "127.0.0.1:3000")]
        listen: SocketAddr,
    },
    /// Write manual pages and completions of shells, for packages.
    #[command(hide = true)]
    Manual {
        /// Directory to write them to.
        #[arg(long, value_name = "DIR")]
        into: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum L4 {
    /// Who is dropped most, drawn anew every second.
    Top {
        /// Print it once.
        #[arg(long)]
        once: bool,
        #[command(flatten)]
        admin: Admin,
    },
    /// How a source is treated now: which policy, level and bucket decide.
    Explain {
        /// Source address.
        source: IpAddr,
        /// Destination port; 0 for icmp.
        #[arg(long, default_value_t = 0)]
        port: u16,
        /// tcp, udp or icmp.
        #[arg(long, default_value = "tcp")]
        protocol: String,
        #[command(flatten)]
        admin: Admin,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    log_to_stderr(args.log_format);
    run(args.command).unwrap_or_else(|error| {
        eprintln!("limiterd: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let out = &mut std::io::stdout().lock();
    match command {
        Command::Run {
            config,
            takeover,
            linger,
        } => app::run(&config, app::Succession { takeover, linger })?,
        Command::Check {
            dir,
            format,
            deny_warnings,
            status,
        } => {
            let options = Options {
                format,
                deny_warnings,
                statuses: status,
                paint: Paint::of_stdout(),
            };
            let code =
                cli::check::run_with(&dir, options, out).context("cannot write the findings")?;
            return Ok(ExitCode::from(code));
        }
        Command::Explain(args) => cli::explain::run(args, Paint::of_stdout(), out)?,
        Command::Simulate(args) => cli::simulate::run(args, Paint::of_stdout(), out)?,
        Command::Probe { json } => {
            let code = cli::probe::run(json, out).context("cannot write the findings")?;
            return Ok(ExitCode::from(code));
        }
        Command::Status(args) => {
            let well = cli::status::run(args, out)?;
            return Ok(ExitCode::from(u8::from(!well)));
        }
        Command::Top(args) => cli::top::run(&args, Paint::of_stdout(), out)?,
        Command::Counters { command } => {
            return Ok(ExitCode::from(cli::counters::run(command, out)?));
        }
        Command::Block { args, time } => cli::sentences::block(args, &time, out)?,
        Command::Unblock(args) => cli::sentences::unblock(args, out)?,
        Command::Blocked { json, admin } => cli::sentences::blocked(admin, json, out)?,
        Command::L4 {
            command: L4::Top { once, admin },
        } => cli::l4::top(admin, once, out)?,
        Command::L4 {
            command:
                L4::Explain {
                    source,
                    port,
                    protocol,
                    admin,
                },
        } => {
            cli::l4::explain(admin, source, &protocol, port, out)?;
        }
        Command::DemoBackend { listen } => cli::demo_backend::run(listen)?,
        Command::Manual { into } => cli::manual::write(Args::command(), &into)
            .with_context(|| format!("cannot write to {}", into.display()))?,
    }
    Ok(ExitCode::SUCCESS)
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
