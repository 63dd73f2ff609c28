//! Requests a second of limiterd beside nginx, HAProxy and Envoy.
//!
//! Rounds are interleaved: in each, every server is measured once in every case, and only figures
//! of one round are compared. Client, server and upstream share one core, so that every
//! microsecond of the three counts against the same second.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Run;
use super::servers::{Kind, Listener, SERVERS};
use super::stats::{median, summary};
use super::wrk;
use crate::probe;

pub(super) const READY_DEADLINE: Duration = Duration::from_secs(30);
const WARM_UP_SECONDS: u32 = 1;

/// What is asked of a server, on a listener of its own.
struct Case {
    name: &'static str,
    listener: Listener,
    /// What every request is answered with.
    status: u16,
}

const CASES: [Case; 3] = [
    Case {
        name: "proxied, no limit",
        listener: Listener::Proxied,
        status: 200,
    },
    Case {
        name: "proxied, under its limit",
        listener: Listener::Under,
        status: 200,
    },
    Case {
        name: "answering 429",
        listener: Listener::Over,
        status: 429,
    },
];

/// Requests a second of each round, server by server.
type Figures = [Vec<f64>; SERVERS.len()];

pub(super) fn bench(run: &mut Run<'_>) -> Result<()> {
    for case in &CASES {
        for server in SERVERS {
            run.wait_for(server, case.listener, case.status)?;
            measure(run, case, server, WARM_UP_SECONDS)?;
        }
    }
    let mut figures: [Figures; CASES.len()] = Default::default();
    for round in 0..run.rounds {
        for (case, figures) in CASES.iter().zip(&mut figures) {
            // Nobody is always first.
            for turn in 0..SERVERS.len() {
                let at = (turn + round as usize) % SERVERS.len();
                ensure!(!run.interrupt.seen(), "interrupted");
                figures[at].push(measure(run, case, SERVERS[at], run.seconds)?);
            }
        }
        eprintln!("round {}/{} done", round + 1, run.rounds);
    }
    println!(
        "\n{} rounds of {} s, {} keep-alive connections; client, server and upstream on one core\n",
        run.rounds,
        run.seconds,
        wrk::CONNECTIONS
    );
    print!("{}", table(&figures));
    Ok(())
}

/// Requests a second, all of them answered as the case has it.
fn measure(run: &Run<'_>, case: &Case, server: Kind, seconds: u32) -> Result<f64> {
    let address = run.ports.of(server, case.listener);
    let what = || format!("{}: case `{}` at {address}", server.name(), case.name);
    let seen =
        wrk::run(&format!("http://{address}/"), run.cpu, seconds, None).with_context(what)?;
    let passed = seen.requests - seen.failed;
    if case.status == 200 {
        ensure!(
            seen.failed == 0,
            "{}: {} answers were errors",
            what(),
            seen.failed
        );
    } else {
        // Limits here are of one request a minute or an hour.
        let allowed = 1 + u64::from(seconds / 60);
        ensure!(
            passed <= allowed,
            "{}: {passed} requests were not limited",
            what()
        );
        let status = probe::status(address, "/")?;
        ensure!(status == case.status, "{}: answered with {status}", what());
    }
    Ok(seen.per_second)
}

fn table(figures: &[Figures]) -> String {
    let mut head = "|".to_owned();
    let mut line = "|---|".to_owned();
    for server in SERVERS {
        head += &format!(" | {}, requests/s", server.name());
        line += "---|";
    }
    for server in SERVERS.iter().filter(|server| **server != Kind::Limiterd) {
        head += &format!(" | limiterd / {}", server.name());
        line += "---|";
    }
    let mut lines = format!("{head} |\n{line}\n");
    for (case, figures) in CASES.iter().zip(figures) {
        lines += &format!("| {}", case.name);
        for rounds in figures {
            lines += &format!(" | {:.0}", median(rounds));
        }
        let [rivals @ .., ours] = figures;
        for theirs in rivals {
            let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
            lines += &format!(" | {}", summary(&ratios));
        }
        lines += " |\n";
    }
    lines
}
