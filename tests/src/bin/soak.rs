//! `cargo xtask soak`: see [`tests::soak`]. Arguments: how many minutes, and the seed.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tests::soak::{Length, run};

fn main() -> ExitCode {
    match soak() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn soak() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [minutes, seed] = words.as_slice() else {
        bail!("usage: soak MINUTES SEED");
    };
    let minutes: u64 = minutes.parse().context("MINUTES is a number")?;
    let seed: u64 = seed.parse().context("SEED is a number")?;
    let length = Length::Time(Duration::from_secs(60 * minutes));
    println!("{}", run(length, seed, |line| println!("{line}"))?);
    Ok(())
}
