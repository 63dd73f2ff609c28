//! Samples of dropped packets, for the daemon. A cap for each CPU keeps a flood of drops from
//! becoming one of samples, and a packet never waits for a reader.

use limiter_common::bucket::{Step, step};
use limiter_common::event::{DropEvent, SAMPLE_BURST, SAMPLE_INTERVAL};
use limiter_common::{Address, Verdict};

use crate::local::Own;
use crate::maps::EVENTS;
use crate::packet::Facts;
use crate::parse::{Destination, Segment};

/// Sends a sample, or counts it as lost.
#[inline(always)]
pub(crate) fn offer(
    verdict: &Verdict,
    segment: &Segment,
    facts: &impl Facts,
    own: &mut Own,
    now: u64,
) {
    if !within_cap(own, now) || !send(verdict, segment, facts, now) {
        own.lose_sample();
    }
}

#[inline(always)]
fn within_cap(own: &mut Own, now: u64) -> bool {
    let tat = &mut own.words().samples;
    let tolerance = SAMPLE_BURST * SAMPLE_INTERVAL;
    match step(*tat, now, SAMPLE_INTERVAL, tolerance) {
        Step::Admit { tat: next } => {
            *tat = next;
            true
        }
        Step::Deny { .. } => false,
    }
}

#[inline(always)]
fn send(verdict: &Verdict, segment: &Segment, facts: &impl Facts, now: u64) -> bool {
    let &Verdict {
        policy,
        level,
        reason,
        shadow,
    } = verdict;
    let what = (policy as u64) << 48
        | (level as u64) << 40
        | (reason as u64) << 33
        | u64::from(shadow) << 32
        | u64::from(facts.load().bytes);
    let place = u64::from(facts.ifindex()) << 32 | u64::from(segment.destination.to_raw());
    let Address { high, low } = segment.source;
    sample_send(high, low, what, place, now) != 0
}

/// A function of its own (see [`crate::sources`]): few packets come here, and the others are quicker
/// without its registers and stack.
#[unsafe(no_mangle)]
#[inline(never)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "what `send` has put together"
)]
extern "C" fn sample_send(high: u64, low: u64, what: u64, place: u64, at: u64) -> u32 {
    let destination = Destination::from_raw(place as u32);
    let event = DropEvent {
        at,
        source: Address { high, low },
        policy: (what >> 48) as u32,
        reason: (what >> 33) as u32 & 0x7f,
        level: (what >> 40) as u32 & 0xff,
        length: what as u32,
        ifindex: (place >> 32) as u32,
        port: destination.port,
        protocol: destination.protocol,
        shadow: (what >> 32) as u8 & 1,
    };
    u32::from(EVENTS.output_untyped::<DropEvent>(&event, 0).is_ok())
}
