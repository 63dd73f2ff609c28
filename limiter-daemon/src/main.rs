//! `limiterd`: the command line.

#[cfg(test)]
mod documented;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use limiter_daemon::cli::check::{Format, Options};
use limiter_daemon::cli::client::Admin;
use limiter_daemon::cli::paint::Paint;
use limiter_daemon::log::Log;
use limiter_daemon::policy::plan;
use limiter_daemon::{app, cli};

/// A rate limiter for gateway nodes: XDP token buckets and HTTP limits from one set of policy files.
#[derive(Debug, Parser)]
#[command(name = "limiterd", version)]
struct Args {
    /// Format of the log on standard error, in place of the LimiterConfig's (text unless told). LIMITERD_LOG
    /// sets what is logged, in its place as well (info).
    #[arg(long, global = true, value_enum)]
    log_format: Option<LogFormat>,
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
    /// Say whether the running daemon is well, what it does, and what needs somebody. Exit status 0:
    /// well, 1: degraded (it serves, and something needs somebody; with --fleet: the store does not
    /// answer), 2: not ready, 3: it cannot be asked. So monitoring systems can use it as a plugin.
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
    /// Take this node out of service: not ready any more, clients are asked to go, who comes all the
    /// same is served. SIGTERM ends it.
    Drain {
        #[command(flatten)]
        admin: Admin,
    },
    /// Tell what the running daemon logs, or change it until it ends.
    Log(cli::control::Log),
    /// List who changed something by the admin listener, or wanted to; the last one first.
    Audit(cli::control::AuditArgs),
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
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return refuse(&error),
    };
    let format = args.log_format.map(|format| match format {
        LogFormat::Text => plan::LogFormat::Text,
        LogFormat::Json => plan::LogFormat::Json,
    });
    let started = Log::start(format).map_err(anyhow::Error::from);
    let ended = started.and_then(|log| run(args.command, log));
    ended.unwrap_or_else(|error| {
        eprintln!("limiterd: {error:#}");
        ExitCode::FAILURE
    })
}

/// A command line that is wrong, or asks for help. `status` has a meaning for clap's exit status 2.
fn refuse(error: &clap::Error) -> ExitCode {
    // Nobody is there to be told that nobody is there.
    let _told = error.print();
    let is_status = std::env::args_os().nth(1).is_some_and(|it| it == "status");
    match error.exit_code() {
        0 => ExitCode::SUCCESS,
        _ if is_status => ExitCode::from(cli::status::State::Unknown.exit_status()),
        _ => ExitCode::from(2),
    }
}

fn run(command: Command, log: Log) -> anyhow::Result<ExitCode> {
    let out = &mut std::io::stdout().lock();
    match command {
        Command::Run {
            config,
            takeover,
            linger,
        } => app::run(&config, app::Succession { takeover, linger }, log)?,
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
            let state = cli::status::run(&args, Paint::of_stdout(), out)?;
            return Ok(ExitCode::from(state.exit_status()));
        }
        Command::Top(args) => cli::top::run(&args, Paint::of_stdout(), out)?,
        Command::Counters { command } => {
            return Ok(ExitCode::from(cli::counters::run(command, out)?));
        }
        Command::Block { args, time } => cli::sentences::block(args, &time, out)?,
        Command::Unblock(args) => cli::sentences::unblock(args, out)?,
        Command::Blocked { json, admin } => cli::sentences::blocked(&admin, json, out)?,
        Command::Drain { admin } => cli::control::drain(&admin, out)?,
        Command::Log(args) => cli::control::log(&args, out)?,
        Command::Audit(args) => cli::control::audit(&args, out)?,
        Command::L4 {
            command: L4::Top { once, admin },
        } => cli::l4::top(&admin, once, out)?,
        Command::L4 {
            command:
                L4::Explain {
                    source,
                    port,
                    protocol,
                    admin,
                },
        } => {
            cli::l4::explain(&admin, source, &protocol, port, out)?;
        }
        Command::DemoBackend { listen } => cli::demo_backend::run(listen)?,
        Command::Manual { into } => cli::manual::write(Args::command(), &into)
            .with_context(|| format!("cannot write to {}", into.display()))?,
    }
    Ok(ExitCode::SUCCESS)
}
