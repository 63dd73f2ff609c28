//! The way of a packet to its verdict.

use limiter_common::event::OTHER_PROTOCOL;
use limiter_common::policy::FLAG_SHADOW;
use limiter_common::{CidrAction, Config, DropEvent, Policy, Reason, Verdict};

use crate::classify::{self, NO_POLICY};
use crate::limit;
use crate::maps::{CONFIG, HEARTBEAT};
use crate::packet::Packet;
use crate::parse::{self, Segment};
use crate::{clock, sample};

/// The verdict on `packet`. A sample of what is dropped goes to the daemon.
#[inline(always)]
pub(crate) fn judge(packet: &impl Packet) -> Verdict {
    let segment = match parse::segment(&packet.frame()) {
        Ok(segment) => segment,
        Err(reason) => return Verdict::new(NO_POLICY, reason),
    };
    let Some(config) = CONFIG.get(0) else {
        return Verdict::new(NO_POLICY, Reason::Untargeted);
    };
    // Read once: all that follows is of one generation.
    // SAFETY: points into a map value; an aligned word is read whole.
    let generation = unsafe { (&raw const config.generation).read_volatile() };
    let Some(policy) = classify::policy_of(config, generation, &segment, || packet.ifindex())
    else {
        return Verdict::new(NO_POLICY, Reason::Untargeted);
    };
    let now = clock::coarse();
    let (reason, level) = enforce(config, generation, policy, &segment, packet, now);
    let verdict = Verdict {
        policy: policy.id,
        level,
        reason,
        shadow: policy.flags & FLAG_SHADOW != 0,
    };
    if reason.is_drop() {
        sample::offer(|| event(&verdict, &segment, packet, now), now);
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
    packet: &impl Packet,
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
    limit::apply(class, segment, packet.load(), now)
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
fn event(verdict: &Verdict, segment: &Segment, packet: &impl Packet, now: u64) -> DropEvent {
    let (protocol, port) = match segment.destination {
        Some((protocol, port)) => (protocol as u8, port),
        None => (OTHER_PROTOCOL, 0),
    };
    DropEvent {
        at: now,
        source: segment.source,
        policy: verdict.policy,
        reason: verdict.reason as u32,
        level: verdict.level,
        length: packet.load().bytes,
        ifindex: packet.ifindex(),
        port,
        protocol,
        shadow: u8::from(verdict.shadow),
    }
}
