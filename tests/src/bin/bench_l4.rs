//! What a packet over its limit costs: the XDP program, beside a bare `XDP_DROP` and beside a
//! per-address meter of nftables at the ingress hook, in the same run.
//!
//! One thread gives frames to a program inside the kernel (`BPF_PROG_TEST_RUN` on live frames: pages
//! from a pool, as from a driver) and its CPU time is read, not the wall: each call waits for the
//! kernel's own housekeeping. For nftables the program passes the frames on, so they become socket
//! buffers, which is what a rule there is given. The cases take turns; medians are printed, and the
//! ratios, which are the figures. Where sources vary, all three draw them.
//!
//! A second table has the program alone (`BPF_PROG_TEST_RUN`, the kernel's own measure): what a packet
//! over its limit costs beside one under it, which on live frames would go to the network stack.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use etherparse::PacketBuilder;
use limiter_common::{Limit, Protocol};
use limiter_daemon::l4::trial::{Program, Settings, Trial};
use limiter_daemon::policy::plan::{NetworkLevel, NetworkPolicy, Scope, SourceLimits};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use tests::netns::Netns;

const ROUNDS: usize = 15;
const WARM_UP: usize = 2;
const FRAMES: u32 = 1 << 19;
const BATCH: u32 = 64;
const PORT: u16 = 443;

/// In nanoseconds.
const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400 * SECOND;

/// (tokens, nanoseconds in which so many come back)
type Bucket = (u64, u64);

/// One packet, and none after it for the length of the benchmark.
const OVER: Bucket = (1, DAY);
/// More packets than anybody can send.
const UNDER: Bucket = (1 << 30, SECOND);
/// A bucket that fills in less than ten ticks, so that it takes the precise clock.
const SHORT: Bucket = (10, SECOND / 100);

/// (what, sources drawn from: a power of two; 0: one; the limit)
const CASES: [(&str, u32, Bucket); 4] = [
    ("one source", 0, OVER),
    ("64 Ki sources", 1 << 16, OVER),
    ("random sources", 1 << 31, OVER),
    ("one source, short bucket", 0, SHORT),
];

/// A token for each source, and none after it for the length of the benchmark.
const METER: &str = "\
table netdev bench {
  set sources { type ipv4_addr; size 131072; flags dynamic; }
  chain ingress {
    type filter hook ingress device lo priority 0; policy accept;
    tcp dport 443 update @sources { ip saddr limit rate over 1/day burst 1 packets } counter drop
    tcp dport 443 counter drop
  }
}
";

/// Who judges the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judge {
    BareDrop,
    Limiter,
    Nftables,
}

const JUDGES: [Judge; 3] = [Judge::BareDrop, Judge::Limiter, Judge::Nftables];

fn main() -> Result<()> {
    let netns = Netns::new("bench")?;
    netns.enter(|| {
        let mut one = CpuSet::new();
        one.set(0);
        sched_setaffinity(None, &one)?;
        nft(METER)?;
        println!("| packets over the limit | bare drop, ns | limiter, ns | nftables, ns | rate beside bare drop | rate beside nftables |");
        println!("|---|---|---|---|---|---|");
        CASES.iter().try_for_each(row)?;
        println!();
        println!("| the program alone | bare drop, ns | over the limit, ns | under the limit, ns |");
        println!("|---|---|---|---|");
        CASES[..2].iter().try_for_each(over_and_under)
    })
}

fn row(&(what, sources, bucket): &(&str, u32, Bucket)) -> Result<()> {
    let frame = syn()?;
    let trial = trial(sources, bucket)?;
    let mut costs = JUDGES.map(|_| Vec::new());
    for round in 0..WARM_UP + ROUNDS {
        for (judge, costs) in JUDGES.iter().zip(&mut costs) {
            let cost = nanos_per_packet(&trial, *judge, &frame)?;
            if round >= WARM_UP {
                costs.push(cost);
            }
        }
    }
    let ratio = |rival: &[f64]| {
        let mut ratios: Vec<_> = rival
            .iter()
            .zip(&costs[1])
            .map(|(rival, ours)| rival / ours)
            .collect();
        let middle = median(&mut ratios);
        format!(
            "{middle:.2} [{:.2}..{:.2}]",
            ratios[0],
            ratios[ratios.len() - 1]
        )
    };
    let (bare, nftables) = (ratio(&costs[0]), ratio(&costs[2]));
    let [drop, limiter, meter] = costs.map(|mut costs| median(&mut costs));
    println!("| {what} | {drop:.0} | {limiter:.0} | {meter:.0} | {bare} | {nftables} |");
    Ok(())
}

fn over_and_under(&(what, sources, _): &(&str, u32, Bucket)) -> Result<()> {
    let frame = syn()?;
    let (over, under) = (trial(sources, OVER)?, trial(sources, UNDER)?);
    let runs = [
        (&over, Program::BareDrop),
        (&over, Program::LimiterBuffers),
        (&under, Program::LimiterBuffers),
    ];
    let mut costs = runs.map(|_| Vec::new());
    for round in 0..WARM_UP + ROUNDS {
        for ((trial, program), costs) in runs.iter().zip(&mut costs) {
            let nanos = trial.run(*program, &frame, FRAMES)?.nanos_per_packet;
            if round >= WARM_UP {
                costs.push(f64::from(u32::try_from(nanos)?));
            }
        }
    }
    let [drop, over, under] = costs.map(|mut costs| median(&mut costs));
    println!("| {what} | {drop:.0} | {over:.0} | {under:.0} |");
    Ok(())
}

fn trial(vary_sources: u32, bucket: Bucket) -> Result<Trial> {
    let settings = Settings {
        real_clock: true,
        vary_sources,
        ..Settings::default()
    };
    let mut trial = Trial::new(settings)?;
    trial.apply(&[policy(bucket)?])?;
    Ok(trial)
}

fn nanos_per_packet(trial: &Trial, judge: Judge, frame: &[u8]) -> Result<f64> {
    let program = match judge {
        Judge::BareDrop => Program::BareDrop,
        Judge::Limiter => Program::LimiterBuffers,
        Judge::Nftables => Program::BenchPass,
    };
    let before = cpu_nanos()?;
    trial.run_live(program, frame, FRAMES, BATCH)?;
    let spent = u32::try_from(cpu_nanos()? - before).context("a round takes seconds")?;
    Ok(f64::from(spent) / f64::from(FRAMES))
}

fn cpu_nanos() -> Result<u64> {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Ok(u64::try_from(now.tv_sec)? * 1_000_000_000 + u64::try_from(now.tv_nsec)?)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn policy((tokens, fill): Bucket) -> Result<NetworkPolicy> {
    let limit = Limit::new(tokens, tokens, fill).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    Ok(NetworkPolicy {
        name: "bench/bench".to_owned(),
        ports: vec![(Protocol::Tcp, PORT)],
        interfaces: Vec::new(),
        default: SourceLimits::Levels(vec![NetworkLevel {
            scope: Scope::Source { v4: 32, v6: 64 },
            connections: Some(limit),
            packets: None,
            bytes: None,
        }]),
        rules: Vec::new(),
        allow: Vec::new(),
        deny: Vec::new(),
        shadow: false,
        written: None,
    })
}

fn syn() -> Result<Vec<u8>> {
    let builder = PacketBuilder::ethernet2([0; 6], [0; 6])
        .ipv4([192, 0, 2, 1], [198, 51, 100, 1], 64)
        .tcp(40_000, PORT, 1, 1024)
        .syn();
    let mut packet = Vec::new();
    builder.write(&mut packet, &[])?;
    Ok(packet)
}

fn nft(rules: &str) -> Result<()> {
    use std::io::Write as _;
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .context("cannot run nft (nftables)")?;
    child
        .stdin
        .take()
        .context("no stdin")?
        .write_all(rules.as_bytes())?;
    anyhow::ensure!(child.wait()?.success(), "nft refused its rules");
    Ok(())
}
