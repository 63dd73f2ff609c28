//! The counters.

use crate::maps::COUNTERS;

/// Counts one packet under this counter of its verdict, on this CPU.
#[inline(always)]
pub(crate) fn count(counter: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(counter) {
        // SAFETY: points into a map value, and the slot is this CPU's own (see `crate::local`).
        unsafe { *counter = (*counter).wrapping_add(1) };
    }
}
