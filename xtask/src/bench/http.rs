//! Requests a second of limiterd beside nginx.
//!
//! Rounds are interleaved: in each, every server is measured once in every case, and only figures
//! of one round are compared. Client, server and upstream share one core, so that every
//! microsecond of the three counts against the same second.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Args;
use super::servers::{LIMITERD, NGINX, Ports, Rivals};
use super::stats::{median, summary};
use super::wrk;
use crate::child::Interrupt;
use crate::cmd::Workspace;
use crate::probe;

const READY_DEADLINE: Duration = Duration::from_secs(15);
const WARM_UP_SECONDS: u32 = 1;

/// What is asked of a server, on a listener of its own.
pub(super) struct Case {
    pub(super) name: &'static str,
    /// What every request is answered with.
    pub(super) status: u16,
}

/// In the order of [`Ports::nginx`] and [`Ports::limiterd`].
pub(super) const CASES: [Case; 3] = [
    Case {
        name: "proxied, no limit",
        status: 200,
    },
    Case {
        name: "proxied, under its limit",
        status: 200,
    },
    Case {
        name: "answering 429",
        status: 429,
    },
];

/// Requests a second of each round.
#[derive(Default)]
struct Figures {
    nginx: Vec<f64>,
    limiterd: Vec<f64>,
}

pub(super) fn bench(workspace: &Workspace, args: &Args, limiterd: &Path) -> Result<()> {
    let last = available_parallelism()?.get() - 1;
    let cpu = args.cpu.unwrap_or(last);
    let interrupt = Interrupt::listen()?;
    let ports = Ports::free()?;
    let mut rivals = Rivals::start(workspace, limiterd, &ports, cpu)?;
    for (case, (nginx, limiterd)) in CASES.iter().zip(ports.pairs()) {
        for port in [nginx, limiterd] {
            let servers = &mut rivals.all();
            probe::wait_for(
                case.status,
                local(port),
                "/",
                READY_DEADLINE,
                &interrupt,
                servers,
            )?;
            measure(case, port, cpu, WARM_UP_SECONDS)?;
        }
    }

    let mut figures: [Figures; CASES.len()] = Default::default();
    for round in 0..args.rounds {
        for ((case, (nginx, limiterd)), figures) in
            CASES.iter().zip(ports.pairs()).zip(&mut figures)
        {
            ensure!(!interrupt.seen(), "interrupted");
            // Nobody is always first.
            if round % 2 == 0 {
                figures.nginx.push(measure(case, nginx, cpu, args.seconds)?);
                figures
                    .limiterd
                    .push(measure(case, limiterd, cpu, args.seconds)?);
            } else {
                figures
                    .limiterd
                    .push(measure(case, limiterd, cpu, args.seconds)?);
                figures.nginx.push(measure(case, nginx, cpu, args.seconds)?);
            }
        }
        println!("round {}/{} done", round + 1, args.rounds);
    }
    rivals.stop()?;

    println!(
        "\n{} rounds of {} s, {} keep-alive connections; client, server and upstream on one core\n",
        args.rounds,
        args.seconds,
        wrk::CONNECTIONS
    );
    print!("{}", table(&figures));
    Ok(())
}

/// Requests a second, all of them answered as the case has it.
fn measure(case: &Case, port: u16, cpu: usize, seconds: u32) -> Result<f64> {
    let what = || format!("case `{}` on port {port}", case.name);
    let run = wrk::run(&format!("http://{}/", local(port)), cpu, seconds).with_context(what)?;
    let passed = run.requests - run.failed;
    if case.status == 200 {
        ensure!(
            run.failed == 0,
            "{}: {} answers were errors",
            what(),
            run.failed
        );
    } else {
        // Limits here are of one request a minute or an hour.
        let allowed = 1 + u64::from(seconds / 60);
        ensure!(
            passed <= allowed,
            "{}: {passed} requests were not limited",
            what()
        );
        let status = probe::status(local(port), "/")?;
        ensure!(status == case.status, "{}: answered with {status}", what());
    }
    Ok(run.per_second)
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn table(figures: &[Figures]) -> String {
    let mut lines = format!(
        "| | {NGINX}, requests/s | {LIMITERD}, requests/s | {LIMITERD} / {NGINX}, median [min..max] |\n|---|---|---|---|\n"
    );
    for (case, figures) in CASES.iter().zip(figures) {
        let ratios: Vec<f64> = figures
            .limiterd
            .iter()
            .zip(&figures.nginx)
            .map(|(ours, theirs)| ours / theirs)
            .collect();
        lines += &format!(
            "| {} | {:.0} | {:.0} | {} |\n",
            case.name,
            median(&figures.nginx),
            median(&figures.limiterd),
            summary(&ratios)
        );
    }
    lines
}
