//! The way of a packet to its verdict.

use limiter_common::policy::FLAG_SHADOW;
use limiter_common::{Address, CidrAction, Config, DropEvent, Policy, Reason, Verdict};

use crate::classify::{self, NO_POLICY};
use crate::limit::{self, Load};
use crate::maps::{CONFIG, HEARTBEAT};
use crate::packet::Packet;
use crate::parse::{self, Destination};
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
#[inline(always)]
pub(crate) fn judge(packet: &impl Packet) -> Outcome {
    let segment = match parse::segment(&packet.frame()) {
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

/// What of a packet decides on it, once it is parsed.
struct Subject {
    source: Address,
    destination: Destination,
    load: Load,
    attempt: bool,
    ifindex: u32,
}

/// A function that the verifier looks at by itself (see [`crate::sources`]), and not for every way
/// through the parser again.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_segment(high: u64, low: u64, to: u32, load: u64, ifindex: u32) -> u32 {
    let (load, attempt) = Load::from_raw(load);
    let subject = Subject {
        source: Address { high, low },
        destination: Destination::from_raw(to),
        load,
        attempt,
        ifindex,
    };
    Outcome::of(verdict_on(&subject)).to_raw()
}

#[inline(always)]
fn verdict_on(subject: &Subject) -> Verdict {
    let Some(config) = CONFIG.get(0) else {
        return Verdict::new(NO_POLICY, Reason::Untargeted);
    };
    // Read once: all that follows is of one generation.
    // SAFETY: points into a map value; an aligned word is read whole.
    let generation = unsafe { (&raw const config.generation).read_volatile() };
    let (destination, ifindex) = (subject.destination, subject.ifindex);
    let Some(policy) = classify::policy_of(config, generation, destination, ifindex) else {
        return Verdict::new(NO_POLICY, Reason::Untargeted);
    };
    let now = clock::coarse();
    let (reason, level) = enforce(config, generation, policy, subject, now);
    let verdict = Verdict {
        policy: policy.id,
        level,
        reason,
        shadow: policy.flags & FLAG_SHADOW != 0,
    };
    if reason.is_drop() {
        sample::offer(|| event(&verdict, subject, now), now);
    }
    verdict
}

/// What `policy` says of the packet: the reason, and the level that gave it.
#[inline(always)]
fn enforce(
    config: &Config,
    generation: u32,
    policy: &Policy,
    subject: &Subject,
    now: u64,
) -> (Reason, u32) {
    if is_daemon_lost(config, now) {
        return (Reason::DaemonLost, 0);
    }
    let class = match classify::action_of(policy, generation, subject.source) {
        CidrAction::Allow => return (Reason::Allowed, 0),
        CidrAction::Deny => return (Reason::Denied, 0),
        CidrAction::Class(class) => class,
    };
    if classify::is_sentenced(config, subject.source, now) {
        return (Reason::Sentenced, 0);
    }
    let class = limit::class_index(generation, class);
    limit::apply(
        class,
        subject.source,
        subject.load.to_raw(subject.attempt),
        now,
    )
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

#[inline(always)]
fn event(verdict: &Verdict, subject: &Subject, now: u64) -> DropEvent {
    DropEvent {
        at: now,
        source: subject.source,
        policy: verdict.policy,
        reason: verdict.reason as u32,
        level: verdict.level,
        length: subject.load.bytes,
        ifindex: subject.ifindex,
        port: subject.destination.port,
        protocol: subject.destination.protocol,
        shadow: u8::from(verdict.shadow),
    }
}
