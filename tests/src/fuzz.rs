//! The kernel half's parser against [`oracle`]: the same frames to both, and what
//! they made of them compared, by the action on each and by the counters.
//!
//! The policies are made so that the outcome tells what was parsed: one for each protocol, with one
//! token for each source that never comes back. The first attempt of a source conforms and the next
//! one is over the limit, in the policy that the protocol and the port lead to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use limiter_common::{Limit, Reason};
use limiter_daemon::l4::trial::{Action, Program, Settings, Trial};
use limiter_daemon::policy::plan::{NetworkLevel, NetworkPolicy, Scope, SourceLimits};

use crate::oracle::{self, Protocol, Seen, Source};
use crate::packets::{self, PORT, Random};

/// Where the clock stands.
const NOW: u64 = 1_000_000_000_000;
/// Frames to a program with empty tables: damaged sources are new ones, and the table is to have
/// room for all of them.
const EPOCH: u64 = 32_768;
const MAX_SOURCES: u32 = 1 << 17;
/// Frames after which the counters are compared.
const BATCH: u64 = 4096;

/// Who counted a packet, and why.
type Counted = (Option<String>, &'static str);

/// A frame of which the two think differently.
pub struct Difference {
    pub seed: u64,
    pub epoch: u64,
    pub frame: Vec<u8>,
    pub program: Program,
    pub kernel: String,
    pub oracle: String,
}

impl fmt::Debug for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frame = hex(&self.frame);
        writeln!(f, "seed {} epoch {}: {frame}", self.seed, self.epoch)?;
        writeln!(f, "  {:?}: {}", self.program, self.kernel)?;
        write!(f, "  the oracle:  {}", self.oracle)
    }
}

fn hex(frame: &[u8]) -> String {
    frame.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compares `runs` frames, and says how they were counted; ends at the first difference.
///
/// # Errors
/// If the kernel refuses the programs or a run.
pub fn run(
    runs: u64,
    seed: u64,
    mut progress: impl FnMut(u64),
) -> Result<Result<BTreeMap<Counted, u64>, Box<Difference>>> {
    let mut totals = BTreeMap::new();
    let mut done = 0;
    for epoch in 0.. {
        if done >= runs {
            break;
        }
        let frames = EPOCH.min(runs - done);
        let counts = match epoch_of(seed, epoch, frames, BATCH)? {
            Ok(counts) => counts,
            // The counters differ, of one frame of many: once more, and this time after each.
            Err(None) => match epoch_of(seed, epoch, frames, 1)? {
                Err(Some(difference)) => return Ok(Err(difference)),
                _ => bail!("seed {seed} epoch {epoch}: a difference that does not return"),
            },
            Err(Some(difference)) => return Ok(Err(difference)),
        };
        for (counted, packets) in counts {
            *totals.entry(counted).or_default() += packets;
        }
        done += frames;
        progress(done);
    }
    Ok(Ok(totals))
}

type Outcome = Result<BTreeMap<Counted, u64>, Option<Box<Difference>>>;

/// Compares the frames of one epoch: the counts, or a difference, if it is known in which frame.
fn epoch_of(seed: u64, epoch: u64, frames: u64, batch: u64) -> Result<Outcome> {
    let mut random = Random::new(seed ^ epoch.wrapping_mul(0xa076_1d64_78bd_642f));
    let mut trial = Trial::new(Settings {
        max_sources: MAX_SOURCES,
        ..Settings::default()
    })?;
    trial.set_clock(NOW)?;
    trial.apply(&policies()?)?;
    let mut model = Model::default();
    for number in 1..=frames {
        let frame = packets::frame(&mut random);
        let program = program(&mut random, &frame);
        let expected = model.judge(&frame);
        let action = trial
            .run(program, &frame, 1)
            .with_context(|| format!("{program:?} on {}", hex(&frame)))?
            .action;
        let difference = |kernel: String| Difference {
            seed,
            epoch,
            frame: frame.clone(),
            program,
            kernel,
            oracle: format!("{expected:?}, {:?}", oracle::look(&frame)),
        };
        if action != expected_action(expected.1, program) {
            return Ok(Err(Some(Box::new(difference(format!("{action:?}"))))));
        }
        if number % batch == 0 || number == frames {
            let counts = counts(&trial)?;
            if counts != model.counts {
                let kernel = format!("{:?}", rises(&counts, &model.counts));
                return Ok(Err((batch == 1).then(|| Box::new(difference(kernel)))));
            }
        }
    }
    Ok(Ok(model.counts))
}

/// Both programs share the tables. The kernel refuses to try the second one on frames that have no
/// room for an IP header.
fn program(random: &mut Random, frame: &[u8]) -> Program {
    if frame.len() >= 14 + 40 && random.next().is_multiple_of(4) {
        Program::LimiterTc
    } else {
        Program::Limiter
    }
}

fn expected_action(reason: Reason, program: Program) -> Action {
    match (reason.is_drop(), program) {
        (true, _) => Action::Drop,
        (false, _) => Action::Pass,
    }
}

/// What the policies come to, by the oracle's reading.
#[derive(Default)]
struct Model {
    /// Sources that have had their token.
    spent: BTreeSet<(&'static str, Source)>,
    counts: BTreeMap<Counted, u64>,
}

impl Model {
    fn judge(&mut self, frame: &[u8]) -> (Option<&'static str>, Reason) {
        let (policy, reason) = self.outcome(frame);
        *self
            .counts
            .entry((policy.map(str::to_owned), reason.name()))
            .or_default() += 1;
        (policy, reason)
    }

    fn outcome(&mut self, frame: &[u8]) -> (Option<&'static str>, Reason) {
        match oracle::look(frame) {
            Seen::Nothing(reason) => (None, reason),
            Seen::Portless => (None, Reason::Untargeted),
            Seen::Packet {
                source,
                protocol,
                port,
                attempt,
            } => {
                let (policy, target, over) = policy_of(protocol);
                if port != target {
                    return (None, Reason::Untargeted);
                }
                let limited = attempt || protocol != Protocol::Tcp;
                if limited && !self.spent.insert((policy, network(source))) {
                    return (Some(policy), over);
                }
                (Some(policy), Reason::Conforming)
            }
        }
    }
}

/// Name, port, and what its limit says of a packet too many.
fn policy_of(protocol: Protocol) -> (&'static str, u16, Reason) {
    match protocol {
        Protocol::Tcp => ("fuzz/tcp", PORT, Reason::OverConnections),
        Protocol::Udp => ("fuzz/udp", PORT, Reason::OverPackets),
        Protocol::Icmp => ("fuzz/icmp", 0, Reason::OverPackets),
    }
}

/// The address of an IPv4 source, the /64 of an IPv6 one.
fn network(mut source: Source) -> Source {
    if source[..12] != [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff] {
        source[8..].fill(0);
    }
    source
}

fn policies() -> Result<Vec<NetworkPolicy>> {
    let hour = u64::try_from(Duration::from_secs(3600).as_nanos())?;
    let once = Limit::new(1, 1, hour).map_err(|error| anyhow!("one an hour: {error:?}"))?;
    let policy = |protocol| {
        let (name, port, over) = policy_of(protocol);
        let is_connections = over == Reason::OverConnections;
        NetworkPolicy {
            name: name.to_owned(),
            ports: vec![(in_plan(protocol), port)],
            interfaces: Vec::new(),
            default: SourceLimits::Levels(vec![NetworkLevel {
                scope: Scope::Source { v4: 32, v6: 64 },
                connections: is_connections.then_some(once),
                packets: (!is_connections).then_some(once),
                bytes: None,
            }]),
            rules: Vec::new(),
            allow: Vec::new(),
            deny: Vec::new(),
            shadow: false,
            written: None,
        }
    };
    Ok([Protocol::Tcp, Protocol::Udp, Protocol::Icmp]
        .map(policy)
        .to_vec())
}

fn in_plan(protocol: Protocol) -> limiter_common::Protocol {
    match protocol {
        Protocol::Tcp => limiter_common::Protocol::Tcp,
        Protocol::Udp => limiter_common::Protocol::Udp,
        Protocol::Icmp => limiter_common::Protocol::Icmp,
    }
}

fn counts(trial: &Trial) -> Result<BTreeMap<Counted, u64>> {
    let mut counts = BTreeMap::new();
    for counter in trial.counters()? {
        if counter.packets > 0 {
            *counts
                .entry((counter.policy, counter.reason.name()))
                .or_default() += counter.packets;
        }
    }
    Ok(counts)
}

/// Where the kernel counted more than the oracle did.
fn rises(kernel: &BTreeMap<Counted, u64>, oracle: &BTreeMap<Counted, u64>) -> Vec<Counted> {
    kernel
        .iter()
        .filter(|(counted, packets)| oracle.get(*counted) != Some(packets))
        .map(|(counted, _)| counted.clone())
        .collect()
}
