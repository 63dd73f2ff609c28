//! What the XDP program costs a packet, beside a bare `XDP_DROP` in the same run.
//!
//! `BPF_PROG_TEST_RUN` repeats one packet inside the kernel and reports the mean, so no network and
//! no wall clock is measured. Sources are varied by the program itself (a bounded random number in
//! place of the source address), since the packet is the same. The programs take turns, and the
//! median of the rounds is printed; the ratio is the figure, for both run on the same noisy machine.

use anyhow::{Context as _, Result};
use etherparse::PacketBuilder;
use limiter_common::Limit;
use limiter_daemon::l4::trial::{Program, Settings, Trial};
use limiter_daemon::policy::plan::NetworkPolicy;

const ROUNDS: usize = 9;
const REPEAT: u32 = 2_000_000;
const MAX_SOURCES: u32 = 1 << 17;

/// (what, sources drawn from; 0: one)
const SOURCES: [(&str, u32); 3] = [
    ("one source", 0),
    ("64 Ki sources", 1 << 16),
    ("random sources", 1 << 31),
];

fn main() -> Result<()> {
    let plenty = Limit {
        interval: 1,
        tolerance: 1 << 61,
    };
    let none = Limit {
        interval: 1 << 61,
        tolerance: 1 << 61,
    };
    println!("| packets | bare drop, ns | limiter, ns | bare / limiter | [min..max] |");
    println!("|---|---|---|---|---|");
    for (what, vary_sources) in SOURCES {
        for (how, limit) in [("within the limit", plenty), ("over the limit", none)] {
            let settings = Settings {
                max_sources: MAX_SOURCES,
                real_clock: true,
                vary_sources,
            };
            let mut trial = Trial::new(settings)?;
            trial.apply(&[NetworkPolicy {
                name: "bench/bench".to_owned(),
                ports: vec![443],
                connections: Some(limit),
                packets: None,
            }])?;
            row(&format!("{what}, {how}"), &trial)?;
        }
    }
    Ok(())
}

fn row(what: &str, trial: &Trial) -> Result<()> {
    let packet = syn()?;
    let mut bare = Vec::new();
    let mut limited = Vec::new();
    let mut ratios = Vec::new();
    // The first round fills the table and the caches, and is not counted.
    for round in 0..=ROUNDS {
        let of = |program| {
            Ok::<_, anyhow::Error>(trial.run(program, &packet, REPEAT)?.nanos_per_packet.max(1))
        };
        let (drop, limiter) = (of(Program::BareDrop)?, of(Program::Limiter)?);
        if round > 0 {
            bare.push(drop);
            limited.push(limiter);
            ratios.push(to_f64(drop)? / to_f64(limiter)?);
        }
    }
    bare.sort_unstable();
    limited.sort_unstable();
    ratios.sort_by(f64::total_cmp);
    let middle = ROUNDS / 2;
    println!(
        "| {what} | {} | {} | {:.2} | [{:.2}..{:.2}] |",
        bare[middle],
        limited[middle],
        ratios[middle],
        ratios[0],
        ratios[ROUNDS - 1]
    );
    Ok(())
}

fn to_f64(nanos: u64) -> Result<f64> {
    Ok(f64::from(
        u32::try_from(nanos).context("a packet takes seconds")?,
    ))
}

fn syn() -> Result<Vec<u8>> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([192, 0, 2, 1], [198, 51, 100, 1], 64)
        .tcp(40_000, 443, 1, 1024)
        .syn();
    let mut packet = Vec::new();
    builder.write(&mut packet, &[])?;
    Ok(packet)
}
