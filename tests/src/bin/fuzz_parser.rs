//! `cargo xtask fuzz`: see [`tests::fuzz`]. Arguments: how many frames, and the seed.

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("fuzz_parser: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [runs, seed] = words.as_slice() else {
        bail!("usage: fuzz_parser RUNS SEED");
    };
    let runs: u64 = runs.parse().context("RUNS is a number")?;
    let seed: u64 = seed.parse().context("SEED is a number")?;
    let outcome = tests::fuzz::run(runs, seed, |done| {
        print!("\r{done} of {runs} frames, seed {seed}");
        // Progress that cannot be shown is no reason to stop.
        let _shown = io::stdout().flush();
    })?;
    println!();
    match outcome {
        Ok(counts) => {
            for ((policy, reason), packets) in counts {
                println!(
                    "{packets:>12} {reason:<18} {}",
                    policy.as_deref().unwrap_or("-")
                );
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(difference) => {
            println!("{difference:?}");
            Ok(ExitCode::FAILURE)
        }
    }
}
