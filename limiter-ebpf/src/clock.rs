//! The clocks, which a test can replace.

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};

use crate::maps::CLOCK;

/// Not 0: time is what [`CLOCK`] says. Set when the program is loaded; the verifier knows the value
/// and removes the branch that is not taken.
#[unsafe(no_mangle)]
static TEST_CLOCK: Global<u32> = Global::new(0);

/// Nanoseconds since boot, without time spent suspended.
///
/// Reading it is most of what a packet of a hot source costs.
#[inline(always)]
pub(crate) fn precise() -> u64 {
    if TEST_CLOCK.load() == 0 {
        // SAFETY: a helper without arguments.
        return unsafe { bpf_ktime_get_ns() };
    }
    replaced()
}

/// The same clock as it read at the last tick (1 to 10 ms ago): nearly free.
#[inline(always)]
pub(crate) fn coarse() -> u64 {
    if TEST_CLOCK.load() == 0 {
        // SAFETY: a helper without arguments.
        return unsafe { bpf_ktime_get_coarse_ns() };
    }
    replaced()
}

#[inline(always)]
fn replaced() -> u64 {
    match CLOCK.get_ptr(0) {
        // SAFETY: points into a map value; a torn read is impossible for an aligned u64.
        Some(now) => unsafe { now.read_volatile() },
        None => 0,
    }
}
