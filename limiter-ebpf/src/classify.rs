//! Which policy a segment is under.

use limiter_common::PortPolicy;

use crate::maps::PORTS;
use crate::parse::Segment;

/// Id under which packets are counted that no policy has a say in.
pub(crate) const NO_POLICY: u32 = 0;

/// The policy on the segment's destination port.
#[inline(always)]
pub(crate) fn policy_of(segment: &Segment) -> Option<&'static PortPolicy> {
    // SAFETY: map values stay readable for the whole run of the program. An update that replaces
    // the entry meanwhile may reuse its memory: one packet is then judged by a mixture of two
    // policies in force, and its debt is bounded by the larger one (see `bucket::step`).
    unsafe { PORTS.get(segment.destination) }
}
