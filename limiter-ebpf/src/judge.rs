//! The way of a packet to its verdict.

use limiter_common::policy::FLAG_SHADOW;
use limiter_common::{Address, CidrAction, Config, Policy, Reason, Verdict};

use crate::classify::{self, NO_POLICY};
use crate::limit::{self, Load};
use crate::local::Own;
use crate::maps::{CONFIG, HEARTBEAT};
use crate::packet::{Facts, Packet};
use crate::parse::{self, Destination, Segment};
use crate::{clock, sample};

/// What is to be done with a packet.
#[derive(Clone, Copy)]
pub(crate) struct Outcome {
    /// Index of the counter that it is counted under.
    pub(crate) counter: u32,
    pub(crate) drops: bool,
}

impl Outcome {
    #[inline(always)]
    const fn of(verdict: Verdict) -> Self {
        Self {
            counter: verdict.counter(),
            drops: verdict.drops(),
        }
    }

    #[inline(always)]
    const fn to_raw(self) -> u32 {
        self.counter << 1 | self.drops as u32
    }

    #[inline(always)]
    const fn from_raw(raw: u32) -> Self {
        Self {
            counter: raw >> 1,
            drops: raw & 1 != 0,
        }
    }
}

/// The verdict on `packet`. A sample of what is dropped goes to the daemon.
///
/// Two ways lead there. What most packets look like is judged in one piece, without a call; for the
/// rest there is a function of its own, so that the verifier need not follow every way through the
/// parser to the end.
#[inline(always)]
pub(crate) fn judge(packet: &impl Packet) -> Outcome {
    let frame = packet.frame();
    if let Some(segment) = parse::usual(&frame) {
        return Outcome::of(verdict_on(&segment, packet));
    }
    let segment = match parse::segment(&frame) {
        Ok(segment) => segment,
        Err(reason) => return Outcome::of(Verdict::new(NO_POLICY, reason)),
    };
    Outcome::from_raw(judge_segment(
        segment.source.high,
        segment.source.low,
        segment.destination.to_raw(),
        packet.load().to_raw(segment.attempt),
        packet.ifindex(),
    ))
}

/// [`Facts`] that were asked for.
struct Known {
    load: Load,
    ifindex: u32,
}

impl Facts for Known {
    const IN_ONE_PIECE: bool = false;

    #[inline(always)]
    fn load(&self) -> Load {
        self.load
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.ifindex
    }
}

/// A function that the verifier looks at by itself (see [`crate::sources`]).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_segment(high: u64, low: u64, to: u32, load: u64, ifindex: u32) -> u32 {
    let (load, attempt) = Load::from_raw(load);
    let segment = Segment {
        source: Address { high, low },
        destination: Destination::from_raw(to),
        attempt,
    };
    Outcome::of(verdict_on(&segment, &Known { load, ifindex })).to_raw()
}

#[inline(always)]
fn verdict_on(segment: &Segment, facts: &impl Facts) -> Verdict {
    let (Some(config), Some(mut own)) = (CONFIG.get(0), Own::get()) else {
        return Verdict::new(NO_POLICY, Reason::Untargeted);
    };
    // Read once: all that follows is of one generation.
    // SAFETY: points into a map value; an aligned word is read whole.
    let generation = unsafe { (&raw const config.generation).read_volatile() };
    let Some(policy) = classify::policy_of(config, generation, segment.destination, facts) else {
        return Verdict::new(NO_POLICY, Reason::Untargeted);
    };
    let now = clock::coarse(&mut own);
    let (reason, level) = enforce(config, generation, policy, segment, facts, &mut own, now);
    let verdict = Verdict {
        policy: policy.id,
        level,
        reason,
        shadow: policy.flags & FLAG_SHADOW != 0,
    };
    if reason.is_drop() {
        sample::offer(&verdict, segment, facts, &mut own, now);
    }
    verdict
}

/// What `policy` says of the packet: the reason, and the level that gave it.
#[inline(always)]
fn enforce(
    config: &Config,
    generation: u32,
    policy: &Policy,
    segment: &Segment,
    facts: &impl Facts,
    own: &mut Own,
    now: u64,
) -> (Reason, u32) {
    if is_daemon_lost(config, now) {
        return (Reason::DaemonLost, 0);
    }
    let class = match classify::action_of(policy, generation, segment.source) {
        CidrAction::Allow => return (Reason::Allowed, 0),
        CidrAction::Deny => return (Reason::Denied, 0),
        CidrAction::Class(class) => class,
    };
    if classify::is_sentenced(config, segment.source, now) {
        return (Reason::Sentenced, 0);
    }
    let class = limit::class_index(generation, class);
    limit::apply(config, class, segment, facts, own, now)
}

/// Whether the daemon has been silent for so long that everything is to pass.
#[inline(always)]
fn is_daemon_lost(config: &Config, now: u64) -> bool {
    if config.dead_after == 0 {
        return false;
    }
    match HEARTBEAT.get_ptr(0) {
        // SAFETY: points into a map value; an aligned word is read whole.
        Some(beat) => now > unsafe { beat.read_volatile() }.saturating_add(config.dead_after),
        None => false,
    }
}
