//! The counters.

use limiter_common::Verdict;

use crate::maps::COUNTERS;

/// Counts one packet under its verdict, on this CPU.
#[inline(always)]
pub(crate) fn count(verdict: Verdict) {
    if let Some(counter) = COUNTERS.get_ptr_mut(verdict.counter()) {
        // SAFETY: the slot is this CPU's own, and nothing interrupts an XDP program with another
        // one on the same CPU.
        unsafe { *counter = (*counter).wrapping_add(1) };
    }
}
