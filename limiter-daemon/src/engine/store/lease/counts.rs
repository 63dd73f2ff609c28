//! What has come of leases, as numbers.

use std::sync::atomic::{AtomicU64, Ordering};

/// What has come of leases.
#[derive(Debug, Default)]
pub struct Counts {
    pub(super) decided: Counter,
    pub(super) prefetched: Counter,
    pub(super) returned: Counter,
    pub(super) lost: Counter,
    pub(super) untracked: Counter,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counts {
    /// Limits that were decided by a lease in hand.
    #[must_use]
    pub fn decisions(&self) -> u64 {
        self.decided.get()
    }

    /// Questions about limits with a lease for whose key there was no room.
    #[must_use]
    pub fn untracked(&self) -> u64 {
        self.untracked.get()
    }

    /// Tokens: taken in advance, given back unused, and lost with the window that they were of.
    #[must_use]
    pub fn tokens(&self) -> [(&'static str, u64); 3] {
        [
            ("prefetched", self.prefetched.get()),
            ("returned", self.returned.get()),
            ("lost", self.lost.get()),
        ]
    }
}
