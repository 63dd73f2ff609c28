//! The counters.

use crate::maps::{COUNTERS, PRESSURE};

/// What [`PRESSURE`] counts of the table of sources.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Pressure {
    /// A source seen for the first time got a place.
    Placed = 0,
    /// There was none, and it went to the sketch.
    Sketched = 1,
    /// The place was another source's, long done with.
    Evicted = 2,
    /// Other CPUs were changing the set.
    Lost = 3,
}

/// Counts one packet under this counter of its verdict, on this CPU.
#[inline(always)]
pub(crate) fn count(counter: u32) {
    increment(COUNTERS.get_ptr_mut(counter));
}

/// Counts one event of the table of sources, on this CPU.
#[inline(always)]
pub(crate) fn press(event: Pressure) {
    increment(PRESSURE.get_ptr_mut(event as u32));
}

#[inline(always)]
pub(crate) fn increment(counter: Option<*mut u64>) {
    if let Some(counter) = counter {
        // SAFETY: points into a map value, and the slot is this CPU's own. Programs on a packet's
        // way in run in softirq, which nothing of their kind interrupts on the same CPU.
        unsafe { *counter = (*counter).wrapping_add(1) };
    }
}
