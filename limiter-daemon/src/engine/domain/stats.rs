//! What is counted of a limit, under the reference service's names.

use std::sync::atomic::{AtomicU64, Ordering};

/// The names, in the order of [`LimitStats::counts`].
pub const STATISTICS: [&str; 6] = [
    "total_hits",
    "over_limit",
    "near_limit",
    "over_limit_with_local_cache",
    "within_limit",
    "shadow_mode",
];

/// The counts of one limit.
#[derive(Debug, Default)]
pub struct LimitStats {
    pub domain: String,
    /// `key_value` of each level that leads to the limit, as the files have it; never a value that
    /// only requests have.
    pub path: Vec<String>,
    total: AtomicU64,
    over: AtomicU64,
    near: AtomicU64,
    within: AtomicU64,
    shadow: AtomicU64,
}

impl LimitStats {
    pub(super) fn new(domain: &str, path: Vec<String>) -> Self {
        Self {
            domain: domain.to_owned(),
            path,
            ..Self::default()
        }
    }

    /// Hits so far. Nothing is answered from a cache of limits that are over: the count itself is as
    /// near.
    #[must_use]
    pub fn counts(&self) -> [u64; 6] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            read(&self.total),
            read(&self.over),
            read(&self.near),
            0,
            read(&self.within),
            read(&self.shadow),
        ]
    }

    pub(super) fn asked(&self, hits: u64) {
        self.total.fetch_add(hits, Ordering::Relaxed);
    }

    pub(super) fn over(&self, hits: u64, shadow: bool) {
        self.over.fetch_add(hits, Ordering::Relaxed);
        if shadow {
            self.shadow.fetch_add(hits, Ordering::Relaxed);
        }
    }

    /// `remaining` of `limit` are left after these hits. Near is beyond four fifths of the limit.
    pub(super) fn within(&self, hits: u64, remaining: u64, limit: u64) {
        self.within.fetch_add(hits, Ordering::Relaxed);
        let used = limit.saturating_sub(remaining);
        let threshold = limit.saturating_mul(4) / 5;
        let near = used.saturating_sub(threshold).min(hits);
        self.near.fetch_add(near, Ordering::Relaxed);
    }
}
