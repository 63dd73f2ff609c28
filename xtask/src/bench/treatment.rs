//! What breakers, ejection, retries and admission control cost while nothing fails: requests a second
//! beside the same without a policy.
//!
//! Counting of what is under way is always on; what it takes is in the table of nanoseconds.

use anyhow::{Result, ensure};

use super::Run;
use super::servers::{Kind, Listener};
use super::stats::{median, summary};
use super::wrk;

pub(super) fn bench(run: &mut Run<'_>) -> Result<()> {
    let cases = [Listener::Proxied, Listener::Treated];
    for listener in cases {
        run.wait_for(Kind::Limiterd, listener, 200)?;
        measure(run, listener, 1)?;
    }
    let mut figures: [Vec<f64>; 2] = Default::default();
    for round in 0..run.rounds {
        // Nobody is always first.
        for turn in 0..cases.len() {
            let at = (turn + round as usize) % cases.len();
            ensure!(!run.interrupt.seen(), "interrupted");
            figures[at].push(measure(run, cases[at], run.seconds)?);
        }
    }
    let [without, with] = &figures;
    let ratios: Vec<f64> = with.iter().zip(without).map(|(a, b)| a / b).collect();
    println!("\n| | requests/s |\n|---|---|");
    println!("| no policy | {:.0} |", median(without));
    println!(
        "| ejection, retries with a budget, admission control | {:.0} |",
        median(with)
    );
    println!("\nwith / without: {}", summary(&ratios));
    Ok(())
}

fn measure(run: &Run<'_>, listener: Listener, seconds: u32) -> Result<f64> {
    let address = run.ports.of(Kind::Limiterd, listener);
    let seen = wrk::run(&format!("http://{address}/"), run.cpu, seconds, None)?;
    ensure!(seen.failed == 0, "{} answers were errors", seen.failed);
    Ok(seen.per_second)
}
