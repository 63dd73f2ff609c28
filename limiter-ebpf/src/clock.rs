//! The clock, which a test can replace.

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;

use crate::maps::CLOCK;

/// Not 0: time is what [`CLOCK`] says. Set when the program is loaded; the verifier knows the value
/// and removes the branch that is not taken.
#[unsafe(no_mangle)]
static TEST_CLOCK: Global<u32> = Global::new(0);

/// Nanoseconds since boot, without time spent suspended.
#[inline(always)]
pub(crate) fn now() -> u64 {
    if TEST_CLOCK.load() == 0 {
        // SAFETY: a helper without arguments.
        return unsafe { bpf_ktime_get_ns() };
    }
    match CLOCK.get_ptr(0) {
        // SAFETY: points into a map value; a torn read is impossible for an aligned u64.
        Some(now) => unsafe { now.read_volatile() },
        None => 0,
    }
}
