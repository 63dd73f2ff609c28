//! The kernel's clock: what the program compares TATs, sentences and the heartbeat with.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since boot, without time spent suspended (`bpf_ktime_get_ns`).
#[must_use]
pub fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let part = |part: i64| u64::try_from(part).unwrap_or(0);
    part(now.tv_sec)
        .saturating_mul(1_000_000_000)
        .saturating_add(part(now.tv_nsec))
}
