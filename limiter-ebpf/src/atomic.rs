//! A word inside a map value, as a [`Cell`].
//!
//! The BPF target declares no compare-and-swap (`atomic-cas: false`), so `AtomicU64` lacks it; the
//! intrinsic compiles to the instruction with `-C target-cpu=v3`, and kernels take it from 5.12 on.

use core::intrinsics::{AtomicOrdering, atomic_cxchg};
use core::ptr::NonNull;

use limiter_common::Cell;

/// A word in a map value that all CPUs share: a theoretical arrival time (TAT), or a slot's key.
#[derive(Clone, Copy)]
pub(crate) struct Word(NonNull<u64>);

impl Word {
    /// # Safety
    /// `word` must point into a map value, which stays readable and writable for the whole run of
    /// the program (the kernel frees map memory after an RCU grace period).
    #[inline(always)]
    pub(crate) const unsafe fn new(word: NonNull<u64>) -> Self {
        Self(word)
    }
}

impl Cell for Word {
    #[inline(always)]
    fn load(&self) -> u64 {
        // SAFETY: valid and aligned by the contract of `new`. A 64-bit load is one instruction, and
        // `volatile` keeps it one.
        unsafe { self.0.as_ptr().read_volatile() }
    }

    #[inline(always)]
    fn compare_exchange(&self, seen: u64, next: u64) -> Result<(), u64> {
        // SAFETY: valid and aligned by the contract of `new`; every writer uses this instruction.
        let (found, stored) = unsafe {
            atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                self.0.as_ptr(),
                seen,
                next,
            )
        };
        if stored { Ok(()) } else { Err(found) }
    }
}
