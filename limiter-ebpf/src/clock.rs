//! The clocks, which a test can replace.

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};

use crate::local::Own;
use crate::maps::CLOCK;

/// Not 0: time is what [`CLOCK`] says. Set when the program is loaded; the verifier knows the value
/// and removes the branch that is not taken.
#[unsafe(no_mangle)]
static TEST_CLOCK: Global<u32> = Global::new(0);

/// Nanoseconds since boot, without time spent suspended.
///
/// Where it is needed, reading it is a third of what a packet costs.
#[inline(always)]
pub(crate) fn precise() -> u64 {
    if TEST_CLOCK.load() == 0 {
        // SAFETY: a helper without arguments.
        return unsafe { bpf_ktime_get_ns() };
    }
    replaced()
}

/// The same clock as it read at the last tick (1 to 10 ms ago), or the one before it.
///
/// It moves with the kernel's tick counter, which the JIT makes one load of: so the clock is read
/// only where the counter has moved since this CPU read it last. The kernel moves the counter first;
/// who reads between the two is a tick late until the next.
#[inline(always)]
pub(crate) fn coarse(own: &mut Own) -> u64 {
    if TEST_CLOCK.load() != 0 {
        return replaced();
    }
    let words = own.words();
    // SAFETY: a helper without arguments.
    let tick = unsafe { bpf_jiffies64() };
    if words.tick != tick {
        // SAFETY: a helper without arguments.
        words.now = unsafe { bpf_ktime_get_coarse_ns() };
        words.tick = tick;
    }
    words.now
}

#[inline(always)]
fn replaced() -> u64 {
    match CLOCK.get_ptr(0) {
        // SAFETY: points into a map value; a torn read is impossible for an aligned u64.
        Some(now) => unsafe { now.read_volatile() },
        None => 0,
    }
}
