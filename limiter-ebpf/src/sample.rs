//! Samples of dropped packets, for the daemon. A cap for each CPU keeps a flood of drops from
//! becoming one of samples, and a packet never waits for a reader.

use core::ptr::NonNull;

use limiter_common::bucket::{Step, step};
use limiter_common::event::{DropEvent, SAMPLE_BURST, SAMPLE_INTERVAL};

use crate::maps::{EVENTS, LOST, SAMPLES};
use crate::stats::increment;

/// Sends a sample, or counts it as lost.
#[inline(always)]
pub(crate) fn offer(event: impl FnOnce() -> DropEvent, now: u64) {
    if !within_cap(now) || !send(event()) {
        increment(LOST.get_ptr_mut(0));
    }
}

#[inline(always)]
fn within_cap(now: u64) -> bool {
    let Some(tat) = SAMPLES.get_ptr_mut(0).and_then(NonNull::new) else {
        return false;
    };
    // SAFETY: points into a map value, and the slot is this CPU's own (see `stats::increment`).
    unsafe {
        let tolerance = SAMPLE_BURST * SAMPLE_INTERVAL;
        match step(tat.read(), now, SAMPLE_INTERVAL, tolerance) {
            Step::Admit { tat: next } => {
                tat.write(next);
                true
            }
            Step::Deny { .. } => false,
        }
    }
}

#[inline(always)]
fn send(event: DropEvent) -> bool {
    EVENTS.output_untyped::<DropEvent>(&event, 0).is_ok()
}
