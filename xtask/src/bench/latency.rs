//! What a proxy adds to a request's time at a fixed rate.
//!
//! An open loop: requests are due at fixed times, and are measured from then. The client has a CPU of
//! its own where there is one; server and upstream share the other. What is shown is the difference to
//! the upstream asked directly, in the same round.

use anyhow::{Context as _, Result, ensure};

use super::Run;
use super::servers::{Kind, Listener, SERVERS, local, pinned};
use super::stats::median;

const PERCENTILES: [&str; 3] = ["p50", "p99", "p99.9"];
const CASES: [(&str, Listener); 2] = [
    ("proxied, no limit", Listener::Proxied),
    ("proxied, under its limit", Listener::Under),
];

/// Microseconds, percentile by percentile.
type Latency = [f64; PERCENTILES.len()];

pub(super) fn bench(run: &mut Run<'_>) -> Result<()> {
    for (_, listener) in CASES {
        for server in SERVERS {
            run.wait_for(server, listener, 200)?;
        }
    }
    // Added microseconds of each round: case, server, percentile.
    let mut added: [[[Vec<f64>; PERCENTILES.len()]; SERVERS.len()]; CASES.len()] =
        Default::default();
    let mut direct: [Vec<f64>; PERCENTILES.len()] = Default::default();
    for round in 0..run.rounds {
        let bare = measure(run, None)?;
        for (all, bare) in direct.iter_mut().zip(bare) {
            all.push(bare);
        }
        for ((_, listener), servers) in CASES.iter().zip(&mut added) {
            for turn in 0..SERVERS.len() {
                let at = (turn + round as usize) % SERVERS.len();
                ensure!(!run.interrupt.seen(), "interrupted");
                let seen = measure(run, Some((SERVERS[at], *listener)))?;
                for ((all, seen), bare) in servers[at].iter_mut().zip(seen).zip(bare) {
                    all.push(seen - bare);
                }
            }
        }
        eprintln!("round {}/{} done", round + 1, run.rounds);
    }
    println!(
        "\nadded latency at {} requests a second, microseconds, {}, medians of {} rounds of {} s; the upstream by itself: {}\n",
        run.rate,
        PERCENTILES.join(" / "),
        run.rounds,
        run.seconds,
        row(&direct)
    );
    let names: Vec<_> = SERVERS.iter().map(|server| server.name()).collect();
    println!(
        "| | {} |\n|---|{}",
        names.join(" | "),
        "---|".repeat(names.len())
    );
    for ((name, _), servers) in CASES.iter().zip(&added) {
        let cells: Vec<_> = servers.iter().map(row).collect();
        println!("| {name} | {} |", cells.join(" | "));
    }
    Ok(())
}

fn row(rounds: &[Vec<f64>; PERCENTILES.len()]) -> String {
    let medians: Vec<_> = rounds
        .iter()
        .map(|one| format!("{:.0}", median(one)))
        .collect();
    medians.join(" / ")
}

/// Of a listener of a server, or of the upstream itself.
fn measure(run: &Run<'_>, of: Option<(Kind, Listener)>) -> Result<Latency> {
    let (address, name) = match of {
        Some((server, listener)) => (run.ports.of(server, listener), server.name()),
        None => (local(run.ports.upstream), "the upstream"),
    };
    let output = pinned(run.client_cpu)
        .arg(&run.programs.client)
        .args(["latency", &address.to_string()])
        .args([run.rate.to_string(), run.seconds.to_string()])
        .output()
        .context("the client cannot be run")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} at {address}: {errors}");
    read(&text).with_context(|| format!("this is not what the client prints: {text}"))
}

/// Nanoseconds of the percentiles, on one line.
fn read(text: &str) -> Option<Latency> {
    let mut latency = Latency::default();
    let mut words = text.split_whitespace();
    for one in &mut latency {
        *one = words.next()?.parse::<f64>().ok()? / 1_000.0;
    }
    words.next().is_none().then_some(latency)
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn what_the_client_prints_is_read() {
        assert_eq!(read("1000 2000 3500\n"), Some([1.0, 2.0, 3.5]));
        assert_eq!(read("1000 2000\n"), None);
        assert_eq!(read("1 2 3 4\n"), None);
    }
}
