//! ICMP: what the network cannot do without is never limited.

use limiter_common::Reason;

use super::frame::Frame;

/// Protocol number of ICMP.
pub(crate) const V4: u8 = 1;
/// Protocol number of ICMPv6.
pub(crate) const V6: u8 = 58;

/// A header as short as any.
const HEADER: usize = 8;

/// Passes what may be limited.
///
/// # Errors
/// [`Reason::Vital`] for errors about packets of ours: destination unreachable (path-MTU discovery
/// among them), time exceeded, parameter problem.
#[inline(always)]
pub(crate) fn limitable_v4(frame: &Frame, at: usize) -> Result<(), Reason> {
    let [kind, ..] = frame.read::<HEADER>(at)?;
    match kind {
        3 | 11 | 12 => Err(Reason::Vital),
        _ => Ok(()),
    }
}

/// Passes what may be limited.
///
/// # Errors
/// [`Reason::Vital`] for errors (destination unreachable, packet too big, time exceeded, parameter
/// problem), multicast listener discovery, and neighbour and router discovery.
#[inline(always)]
pub(crate) fn limitable_v6(frame: &Frame, at: usize) -> Result<(), Reason> {
    let [kind, ..] = frame.read::<HEADER>(at)?;
    match kind {
        1..=4 | 130..=137 | 143 => Err(Reason::Vital),
        _ => Ok(()),
    }
}
